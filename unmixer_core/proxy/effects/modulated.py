"""Effects that an LFO moves: Chorus-Ensemble, Phaser-Flanger."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unmixer_core.dsp import modulation
from unmixer_core.dsp.envelopes import lagging_sine, lagging_triangle
from unmixer_core.dsp.fft import frame_times_s
from unmixer_core.proxy.controls import Controls, sounding
from unmixer_core.proxy.effects.base import (
    MAX_FEEDBACK,
    Effect,
    Stereo,
    mix_equal_power,
    mix_linear,
)
from unmixer_core.proxy.parts import Positive
from unmixer_core.schema.devices import Device

PHASER_HOP_S = 0.0232
#: Time constant with which the host's delays follow their LFO.
DELAY_LAG_S = 0.031
#: The host's flanger delays by this much more than it shows.
EXTRA_MS = 0.012
#: About half a sample at 22.05 kHz: a delay never reads ahead.
SHORTEST_DELAY_MS = 0.02
#: Doublings of the chorus's feedback series: 2^4 − 1 echoes.
CHORUS_PASSES = 4


class ChorusEnsemble(Effect):
    """Two moving delays a side, a quarter of a cycle apart from those of the other side.

    Measured on the host: delays follow their LFO through a one-pole lowpass of time constant
    `lag_s`, so fast ones move less and later.
    """

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.base_ms = nn.Parameter(torch.tensor([1.95, 7.81]))
        self.lag_s = Positive(DELAY_LAG_S)
        self.depth_ms = Positive(30.0)
        self.swing = Positive(0.5)
        self.tap_level = Positive(0.5)

    def forward(self, audio: Stereo, controls: Controls, sample_rate: float) -> Stereo:
        """See `Effect.forward`."""
        phase = audio.new_tensor([[0.0, 0.5], [0.25, 0.75]])  # [side, voice]
        time_s = torch.arange(audio.shape[-1], device=audio.device, dtype=audio.dtype) / sample_rate
        rate = controls.physical("rate")[:, None, None].expand(-1, 2, 2)
        lfo = lagging_sine(time_s, rate, phase, self.lag_s())
        moving = 1.0 + self.swing() * lfo  # [batch, side, voice, time]
        depth_ms = (self.depth_ms() * controls.share("amount"))[:, None, None, None]
        delay_ms = self.base_ms[:, None].abs() + depth_ms * moving
        feedback = controls.share("feedback").clamp(max=MAX_FEEDBACK)
        wet = modulation.chorus(
            audio, delay_ms, feedback, sample_rate=sample_rate, passes=CHORUS_PASSES
        )
        wet = self.coloured(self.tap_level() * wet, sample_rate)
        return mix_equal_power(audio, wet, controls.share("dry_wet"))


class PhaserFlanger(Effect):
    """Phaser or flanger, by mode. Both are computed only where the mode itself is learned.

    Measured on the host: both LFOs are triangles. The sides are a third of a cycle before and after
    the LFO in the phaser, a sixth in the flanger. The flanger's delay swings between `shortest_ms`
    and twice its centre less that.
    """

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.require_items("mode", 2)
        self.octaves = Positive(2.0)
        self.shortest_ms = Positive(0.5)
        self.swing = Positive(1.0)
        self.phaser_side_cycles = nn.Parameter(torch.tensor([-1.0 / 3.0, 1.0 / 3.0]))
        self.flanger_side_cycles = nn.Parameter(torch.tensor([-1.0 / 6.0, 1.0 / 6.0]) + 0.004)
        self.phaser_lag_s = Positive(1e-3)
        self.flanger_lag_s = Positive(DELAY_LAG_S)
        self.phaser_feedback = Positive(0.8)
        self.flanger_feedback = Positive(1.0)

    def forward(self, audio: Stereo, controls: Controls, sample_rate: float) -> Stereo:
        """See `Effect.forward`."""
        mode = controls.weights("mode")
        mixed = torch.zeros_like(audio)
        for item, part in enumerate((self._phaser, self._flanger)):
            weight = mode[:, item]
            rows = sounding(weight)
            if len(rows):
                sound = part(audio[rows], controls.select(rows), sample_rate)
                mixed = mixed.index_add(0, rows, weight[rows, None, None] * sound)
        return mixed

    def _swing(
        self,
        controls: Controls,
        time_s: Float[Tensor, "time"],
        side_cycles: Float[Tensor, "2"],
        lag_s: Float[Tensor, ""],
    ) -> Stereo:
        """LFO of both sides, whose phases are side_cycles, times the amount."""
        rate = controls.physical("mod_freq")[:, None].expand(-1, 2)
        lfo = lagging_triangle(time_s, rate, side_cycles, lag_s)
        return controls.share("amount")[:, None, None] * lfo

    def _phaser(self, audio: Stereo, controls: Controls, sample_rate: float) -> Stereo:
        hop = 1 << round(math.log2(PHASER_HOP_S * sample_rate))
        times_s = frame_times_s(audio.shape[-1], hop, sample_rate, audio)
        swing = self._swing(controls, times_s, self.phaser_side_cycles, self.phaser_lag_s())
        center_hz = controls.physical("center_freq")[:, None, None] * torch.exp2(
            self.octaves() * swing
        )
        feedback = (self.phaser_feedback() * controls.share("feedback")).clamp(max=MAX_FEEDBACK)
        wet = modulation.phaser(
            audio, center_hz, feedback, sample_rate=sample_rate, hop_samples=hop
        )
        return mix_linear(audio, self.coloured(wet, sample_rate), controls.share("dry_wet"))

    def _flanger(self, audio: Stereo, controls: Controls, sample_rate: float) -> Stereo:
        time_s = torch.arange(audio.shape[-1], device=audio.device, dtype=audio.dtype) / sample_rate
        centre_ms = controls.physical("flange_time")[:, None, None]
        swing = self.swing() * self._swing(
            controls, time_s, self.flanger_side_cycles, self.flanger_lag_s()
        )
        delay_ms = centre_ms + EXTRA_MS + (centre_ms - self.shortest_ms()) * swing
        delay_ms = delay_ms.clamp_min(SHORTEST_DELAY_MS)
        feedback = (self.flanger_feedback() * controls.share("feedback")).clamp(max=MAX_FEEDBACK)
        wet = modulation.flanger(audio, delay_ms, feedback, sample_rate=sample_rate)
        # Fully wet, the host's flanger still mixes dry and wet in equal parts.
        share = 0.5 * controls.share("dry_wet")
        return mix_equal_power(audio, self.coloured(wet, sample_rate), share)
