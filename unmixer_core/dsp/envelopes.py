"""ADSR and LFO from physical times, closed form in time.

No recursion, so every sample has a gradient to every time.

The segments' shape is the exponential "power" curve of Vital's envelopes
(https://github.com/mtytel/vital, `powerScale`), written out below.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

#: Below this power a curve is nearly straight, and the quotient of `power_curve` loses digits.
LINEAR_POWER = 0.01
#: Partials of `lagging_triangle`; the lag makes higher ones too quiet to matter.
TRIANGLE_PARTIALS = (1, 3, 5, 7)


def power_curve(
    position: Float[Tensor, "*#shape"], power: Float[Tensor, "*#shape"]
) -> Float[Tensor, "*shape"]:
    """(e^{power·x} − 1)/(e^{power} − 1) for x in [0, 1].

    A ramp that starts slowly (power > 0) or fast (power < 0).

    Below |power| = 0.01 the limit x + power·x(x − 1)/2 is used, where the quotient would lose its
    digits.
    """
    small = power.abs() < LINEAR_POWER
    safe = torch.where(small, torch.full_like(power, LINEAR_POWER), power)
    curved = torch.expm1(safe * position) / torch.expm1(safe)
    return torch.where(small, position + 0.5 * power * position * (position - 1.0), curved)


def adsr(
    time_s: Float[Tensor, "time"],
    attack_s: Float[Tensor, "batch"],
    decay_s: Float[Tensor, "batch"],
    sustain: Float[Tensor, "batch"],
    release_s: Float[Tensor, "batch"],
    gate_s: Float[Tensor, "batch"],
    *,
    attack_power: Float[Tensor, "*#batch"] | float = 0.0,
    decay_power: Float[Tensor, "*#batch"] | float = 0.0,
    release_power: Float[Tensor, "*#batch"] | float = 0.0,
) -> Float[Tensor, "batch time"]:
    """Attack–decay–sustain–release, 0..1.

    All times in seconds, those of segments > 0; gate_s: when the key is released. sustain: level
    0..1. The powers bend the segments (`power_curve`); release starts from whatever level the key
    was released at.
    """
    column = [_column(v, time_s) for v in (attack_s, decay_s, sustain, release_s, gate_s)]
    attack, decay, level, release, gate = column
    powers = [_column(p, time_s) for p in (attack_power, decay_power, release_power)]
    held = _attack_decay(
        torch.minimum(time_s[None], gate), attack, decay, level, powers[0], powers[1]
    )
    released = ((time_s[None] - gate) / release).clamp(0.0, 1.0)
    return held * (1.0 - power_curve(released, powers[2].expand_as(released)))


def _attack_decay(
    time_s: Tensor, attack: Tensor, decay: Tensor, level: Tensor, up: Tensor, down: Tensor
) -> Tensor:
    rising = time_s < attack
    position = torch.where(rising, time_s / attack, (time_s - attack) / decay).clamp(0.0, 1.0)
    curve = power_curve(
        position, torch.where(rising, up.expand_as(position), down.expand_as(position))
    )
    return torch.where(rising, curve, 1.0 + (level - 1.0) * curve)


def _column(value: Tensor | float, like: Tensor) -> Tensor:
    return torch.as_tensor(value, device=like.device, dtype=like.dtype).reshape(-1, 1)


def lfo_sine(
    time_s: Float[Tensor, "time"],
    rate_hz: Float[Tensor, "*batch"],
    *,
    phase_cycles: Float[Tensor, "*#batch"] | float = 0.0,
) -> Float[Tensor, "*batch time"]:
    """sin(2π(rate·t + phase)), −1..1; time in seconds, rate in Hz, phase in cycles."""
    phase = torch.as_tensor(phase_cycles, device=time_s.device, dtype=time_s.dtype)
    cycles = rate_hz[..., None] * time_s + phase[..., None]
    return torch.sin(2.0 * math.pi * cycles)


def lagging_sine(
    time_s: Float[Tensor, "time"],
    rate_hz: Float[Tensor, "*batch"],
    phase_cycles: Float[Tensor, "*#batch"],
    lag_s: Float[Tensor, ""],
) -> Float[Tensor, "*batch time"]:
    """`lfo_sine` behind a one-pole lowpass of time constant lag_s, in its steady state."""
    turn = 2.0 * math.pi * rate_hz * lag_s
    later = phase_cycles - torch.atan(turn) / (2.0 * math.pi)
    gain = (1.0 + turn.square()).rsqrt()
    return lfo_sine(time_s, rate_hz, phase_cycles=later) * gain[..., None]


def lagging_triangle(
    time_s: Float[Tensor, "time"],
    rate_hz: Float[Tensor, "*batch"],
    phase_cycles: Float[Tensor, "*#batch"],
    lag_s: Float[Tensor, ""],
) -> Float[Tensor, "*batch time"]:
    """`lagging_sine` for a triangle that rises through 0 at phase 0.

    The sum of its first partials, whose heights are ±8/(π n)², n odd.
    """
    parts = []
    for n in TRIANGLE_PARTIALS:
        height = (-1) ** (n // 2) * 8.0 / (math.pi * n) ** 2
        parts.append(lagging_sine(time_s, n * rate_hz, n * phase_cycles, lag_s) * height)
    return torch.stack(parts).sum(dim=0)
