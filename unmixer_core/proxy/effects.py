"""The eight effects: a module each, from controls to sound, with what was learned of the host (φ).

Every module takes audio [batch, 2, time] at its true level and Controls of the same batch, and
gives audio back. Wet and dry meet as the host mixes them; the wet part passes a learned residual
filter.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from unmixer_core.dsp import delays, dynamics, envelopes, filters, modulation, reverbs
from unmixer_core.dsp.fft import Circle, circle, filter_frames, filter_on_circle, frame_times_s
from unmixer_core.errors import StageError
from unmixer_core.proxy import reflections
from unmixer_core.proxy.controls import Controls, KnobCalibration, sounding
from unmixer_core.proxy.parts import Positive, ResidualFilter, decibels_to_gain
from unmixer_core.proxy.resonator import Resonator, settling_octaves
from unmixer_core.schema.devices import EFFECTS, Device

PAD_S = 0.1
PHASER_HOP_S = 0.0232
BUILD_UP_POWER = 4.0
DELAY_LAG_S, EXTRA_MS = 0.031, 0.012
CHORUS_PASSES = 4
TRIANGLE_PARTIALS = (1, 3, 5, 7)
MAX_FEEDBACK = 0.97
RESONANCE_RANGE = 1.25
ONSET_HOP_S, ONSET_HOPS = 0.0116, 6


class Effect(nn.Module):
    """What the eight share: calibrated knobs, a residual filter on the wet sound and the dry/wet
    mix.
    """

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device
        self.knobs = KnobCalibration(device)
        self.residual = ResidualFilter()
        self.wet_level = Positive(1.0)

    def forward(self, audio: Tensor, controls: Controls, sample_rate: float) -> Tensor:
        raise NotImplementedError

    def circle(self, audio: Tensor, sample_rate: float) -> Circle:
        """Sampling points for a short response."""
        return circle(audio.shape[-1], pad_samples=int(PAD_S * sample_rate), like=audio)

    def coloured(self, audio: Tensor, sample_rate: float) -> Tensor:
        """Wet audio through the residual filter and level."""
        if self.residual.idle:
            return self.wet_level() * audio
        on = self.circle(audio, sample_rate)
        return filter_on_circle(
            audio, self.wet_level() * self.residual(on.frequencies_hz(sample_rate)), on
        )


def mix_linear(dry: Tensor, wet: Tensor, share: Tensor) -> Tensor:
    """dry + share · (wet − dry), share [batch]."""
    return dry + share[:, None, None] * (wet - dry)


def mix_equal_power(dry: Tensor, wet: Tensor, share: Tensor) -> Tensor:
    """cos(πs/2) · dry + sin(πs/2) · wet, share [batch]."""
    angle = 0.5 * math.pi * share[:, None, None]
    return torch.cos(angle) * dry + torch.sin(angle) * wet


class AutoFilter(Effect):
    """Drive into a 24 dB filter that stands still but for its first moments."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.resonator = Resonator()

    def forward(self, audio: Tensor, controls: Controls, sample_rate: float) -> Tensor:
        drive_db, kind = controls.physical("drive"), controls.weights("filter_type")
        resonance, cutoff_hz = (
            controls.share("resonance") / RESONANCE_RANGE,
            controls.physical("frequency"),
        )
        driven, slope = self.resonator.drive(audio, resonance, drive_db, kind)

        def response(frequency_hz: Tensor, moving_hz: Tensor) -> Tensor:
            shape = (resonance, drive_db, slope, kind, torch.ones_like(drive_db))
            gain = self.wet_level() * self.residual(frequency_hz)
            return gain * self.resonator.response(frequency_hz, moving_hz, *shape)

        on = self.circle(audio, sample_rate)
        still = filter_on_circle(
            driven, response(on.frequencies_hz(sample_rate), cutoff_hz[:, None]), on
        )
        return self._with_onset(still, driven, cutoff_hz, response, sample_rate)

    def _with_onset(
        self,
        still: Tensor,
        driven: Tensor,
        cutoff_hz: Tensor,
        response: Callable[[Tensor, Tensor], Tensor],
        sample_rate: float,
    ) -> Tensor:
        """The first moments filtered frame by frame while the cutoff glides to its place, faded
        into the rest.
        """
        hop = 1 << round(math.log2(ONSET_HOP_S * sample_rate))
        length = min(ONSET_HOPS * hop, still.shape[-1])
        start = driven[..., :length]
        time_s = frame_times_s(length, hop, sample_rate, still)
        moving_hz = cutoff_hz[:, None] * torch.exp2(
            settling_octaves(time_s, cutoff_hz, self.resonator.start_hz())
        )
        frequency_hz = torch.arange(hop + 1, device=still.device, dtype=still.dtype) * (
            0.5 * sample_rate / hop
        )
        moved = filter_frames(start, response(frequency_hz, moving_hz)[:, None], hop_samples=hop)
        fade = (
            2.0 - 2.0 * torch.arange(length, device=still.device, dtype=still.dtype) / length
        ).clamp(max=1.0)
        first = still[..., :length] + fade * (moved - still[..., :length])
        return torch.cat([first, still[..., length:]], dim=-1)


class Saturator(Effect):
    """Four curves under a drive."""

    CURVES = (dynamics.soft_clip, dynamics.linear_fold, dynamics.sine_fold, dynamics.hard_clip)

    def forward(self, audio: Tensor, controls: Controls, sample_rate: float) -> Tensor:
        weights = controls.weights("type")
        driven = audio * decibels_to_gain(controls.physical("drive"))[:, None, None]

        def curve(x: Tensor) -> Tensor:
            heard = [
                i
                for i in range(len(self.CURVES))
                if weights.requires_grad or bool((weights[:, i] > 0).any())
            ]
            parts = [weights[:, i, None, None] * self.CURVES[i](x) for i in heard]
            return torch.stack(parts).sum(dim=0) if len(parts) > 1 else parts[0]

        wet = self.coloured(dynamics.oversampled(driven, curve), sample_rate)
        return mix_linear(audio, wet, controls.share("dry_wet"))


class Compressor(Effect):
    """Threshold, ratio, attack, release, output gain."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.attack_scale, self.release_scale = Positive(1.0), Positive(1.0)
        self.threshold_shift_db = nn.Parameter(torch.tensor(0.0))

    def forward(self, audio: Tensor, controls: Controls, sample_rate: float) -> Tensor:
        pressed = dynamics.compressor(
            audio,
            controls.physical("threshold") + self.threshold_shift_db,
            1.0 - 1.0 / controls.physical("ratio"),
            self.attack_scale() * controls.physical("attack"),
            self.release_scale() * controls.physical("release"),
            sample_rate=sample_rate,
        )
        gain = decibels_to_gain(controls.physical("output_gain"))[:, None, None]
        return mix_linear(
            audio, gain * self.coloured(pressed, sample_rate), controls.share("dry_wet")
        )


class EqEight(Effect):
    """Highpass or low shelf, bell, high shelf.

    Measured: with A = 10^(gain/40), shelves have Q ½ and a corner moved by √A away from what they
    leave alone (the low one up, the high one down, for a boost); the bell's bandwidth is that of Q
    without gain; the highpass has damping 2.
    """

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.low_quality, self.high_quality = Positive(0.5), Positive(0.55)
        self.bell_quality, self.highpass_damping = Positive(1.0), Positive(2.0)

    def forward(self, audio: Tensor, controls: Controls, sample_rate: float) -> Tensor:
        on = self.circle(audio, sample_rate)
        frequency_hz = on.frequencies_hz(sample_rate)
        response = (
            self._low(frequency_hz, controls)
            * self._bell(frequency_hz, controls)
            * self._high(frequency_hz, controls)
        )
        response = response * (self.wet_level() * self.residual(frequency_hz))
        return filter_on_circle(audio, response[:, None], on)

    def _bell(self, frequency_hz: Tensor, controls: Controls) -> Tensor:
        gain_db = controls.physical("mid_gain")
        quality = self.bell_quality() * controls.physical("mid_q") / half_gain(gain_db)
        return filters.bell_response(frequency_hz, controls.physical("mid_freq"), gain_db, quality)

    def _high(self, frequency_hz: Tensor, controls: Controls) -> Tensor:
        gain_db = controls.physical("high_gain")
        corner_hz = controls.physical("high_freq") / half_gain(gain_db).sqrt()
        return filters.high_shelf_response(
            frequency_hz, corner_hz, gain_db, self.high_quality().expand_as(corner_hz)
        )

    def _low(self, frequency_hz: Tensor, controls: Controls) -> Tensor:
        gain_db, kind = controls.physical("low_gain"), controls.weights("low_type")
        corner_hz = controls.physical("low_freq")
        shelf = filters.low_shelf_response(
            frequency_hz,
            corner_hz * half_gain(gain_db).sqrt(),
            gain_db,
            self.low_quality().expand_as(corner_hz),
        )
        highpass = nn.functional.one_hot(
            torch.full_like(corner_hz, filters.HIGHPASS, dtype=torch.int64), 4
        ).to(corner_hz)
        damping = self.highpass_damping().expand_as(corner_hz)
        cut = filters.state_variable_response(frequency_hz, corner_hz, damping, highpass)
        return kind[:, :1] * cut + kind[:, 1:] * shelf


def half_gain(gain_db: Tensor) -> Tensor:
    """A = 10^(dB/40), the amplitude whose square is the gain."""
    return decibels_to_gain(0.5 * gain_db)


def lagging_sine(time_s: Tensor, rate_hz: Tensor, phase_cycles: Tensor, lag_s: Tensor) -> Tensor:
    """A sine LFO behind a one-pole lowpass of time constant lag_s, settled.

    Shapes as `envelopes.lfo_sine`.
    """
    turn = 2.0 * math.pi * rate_hz * lag_s
    later = phase_cycles - torch.atan(turn) / (2.0 * math.pi)
    return (
        envelopes.lfo_sine(time_s, rate_hz, phase_cycles=later)
        * (1.0 + turn.square()).rsqrt()[..., None]
    )


def lagging_triangle(
    time_s: Tensor, rate_hz: Tensor, phase_cycles: Tensor, lag_s: Tensor
) -> Tensor:
    """As `lagging_sine`, of a triangle that rises through 0 at phase 0.

    Its first partials, 8/(π n)² high, n odd.
    """
    parts = [
        lagging_sine(time_s, n * rate_hz, n * phase_cycles, lag_s)
        * ((-1) ** (n // 2) * 8.0 / (math.pi * n) ** 2)
        for n in TRIANGLE_PARTIALS
    ]
    return torch.stack(parts).sum(dim=0)


class ChorusEnsemble(Effect):
    """Two moving delays a side, a quarter of a cycle apart from the other side's.

    Measured: delays follow their LFO as a one-pole lowpass of `lag_s` would, so fast ones move less
    and later.
    """

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.base_ms = nn.Parameter(torch.tensor([1.95, 7.81]))
        self.lag_s = Positive(DELAY_LAG_S)
        self.depth_ms, self.swing, self.tap_level = Positive(30.0), Positive(0.5), Positive(0.5)

    def forward(self, audio: Tensor, controls: Controls, sample_rate: float) -> Tensor:
        phase = audio.new_tensor([[0.0, 0.5], [0.25, 0.75]])  # [side, voice]
        time_s = torch.arange(audio.shape[-1], device=audio.device, dtype=audio.dtype) / sample_rate
        rate = controls.physical("rate")[:, None, None].expand(-1, 2, 2)
        moving = 1.0 + self.swing() * lagging_sine(
            time_s, rate, phase, self.lag_s()
        )  # [batch, side, voice, time]
        depth_ms = (self.depth_ms() * controls.share("amount"))[:, None, None, None]
        delay_ms = self.base_ms[:, None].abs() + depth_ms * moving
        feedback = controls.share("feedback").clamp(max=MAX_FEEDBACK)
        wet = modulation.chorus(
            audio, delay_ms, feedback, sample_rate=sample_rate, passes=CHORUS_PASSES
        )
        return mix_equal_power(
            audio, self.coloured(self.tap_level() * wet, sample_rate), controls.share("dry_wet")
        )


class PhaserFlanger(Effect):
    """Phaser or flanger, by mode; only the heard one is computed unless the mode is being learned.

    Measured: both LFOs are triangles; the sides are a third of a cycle to either side in the
    phaser, a sixth in the flanger, whose swing is what the delay has beyond `shortest_ms`.
    """

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.octaves, self.shortest_ms, self.swing = Positive(2.0), Positive(0.5), Positive(1.0)
        self.phaser_side_cycles = nn.Parameter(torch.tensor([-1.0 / 3.0, 1.0 / 3.0]))
        self.flanger_side_cycles = nn.Parameter(torch.tensor([-1.0 / 6.0, 1.0 / 6.0]) + 0.004)
        self.phaser_lag_s, self.flanger_lag_s = Positive(1e-3), Positive(DELAY_LAG_S)
        self.phaser_feedback, self.flanger_feedback = Positive(0.8), Positive(1.0)

    def forward(self, audio: Tensor, controls: Controls, sample_rate: float) -> Tensor:
        mode, change = controls.weights("mode"), torch.zeros_like(audio)
        for item, part in enumerate((self._phaser, self._flanger)):
            weight = mode[:, item]
            rows = sounding(weight)
            if len(rows):
                mixed = part(audio[rows], controls.select(rows), sample_rate)
                change = change.index_add(0, rows, weight[rows, None, None] * mixed)
        return change

    def _swing(
        self, controls: Controls, time_s: Tensor, side_cycles: Tensor, lag_s: Tensor
    ) -> Tensor:
        """LFO [batch, 2, time], the sides apart by side_cycles [2], times the amount."""
        rate = controls.physical("mod_freq")[:, None].expand(-1, 2)
        return controls.share("amount")[:, None, None] * lagging_triangle(
            time_s, rate, side_cycles, lag_s
        )

    def _phaser(self, audio: Tensor, controls: Controls, sample_rate: float) -> Tensor:
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

    def _flanger(self, audio: Tensor, controls: Controls, sample_rate: float) -> Tensor:
        time_s = torch.arange(audio.shape[-1], device=audio.device, dtype=audio.dtype) / sample_rate
        centre_ms = controls.physical("flange_time")[:, None, None]
        swing = self.swing() * self._swing(
            controls, time_s, self.flanger_side_cycles, self.flanger_lag_s()
        )
        delay_ms = (centre_ms + EXTRA_MS + (centre_ms - self.shortest_ms()) * swing).clamp_min(0.02)
        feedback = (self.flanger_feedback() * controls.share("feedback")).clamp(max=MAX_FEEDBACK)
        wet = modulation.flanger(audio, delay_ms, feedback, sample_rate=sample_rate)
        return mix_equal_power(
            audio, self.coloured(wet, sample_rate), 0.5 * controls.share("dry_wet")
        )


class Delay(Effect):
    """Echoes through a band, straight or ping-pong."""

    def forward(self, audio: Tensor, controls: Controls, sample_rate: float) -> Tensor:
        center_hz, octaves = controls.physical("filter_freq"), controls.physical("filter_width")
        wet = delays.feedback_delay(
            audio,
            controls.physical("l_time"),
            controls.share("feedback").clamp(max=MAX_FEEDBACK),
            center_hz * torch.exp2(-0.5 * octaves),
            center_hz * torch.exp2(0.5 * octaves),
            controls.weights("ping_pong")[:, 1],
            sample_rate=sample_rate,
        )
        return mix_equal_power(audio, self.coloured(wet, sample_rate), controls.share("dry_wet"))


class Reverb(Effect):
    """Early reflections heard on the host, and behind them decaying noise in bands, as dense as the
    room is small.

    Measured: the first 0.1 s is one pattern that no control moves. Then the sound runs round loops
    of loop_s = c·(a + 16^size): its energy per second goes with 1/loop_s, its onset with loop_s.
    Every pass loses what a first-order high shelf takes away, beside the decay time's 60 dB; the
    output has passed the shelf once.
    """

    BANDS = 7

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.early = nn.Parameter(reflections.generic())
        self.late_db, self.decay_scale = (
            nn.Parameter(torch.zeros(self.BANDS)),
            nn.Parameter(torch.zeros(self.BANDS)),
        )
        self.late_level, self.high_gain = Positive(0.55), Positive(0.5)
        self.loop_s, self.loop_fixed = Positive(0.0178), Positive(2.49)
        self.onset_s, self.build_up_loops = Positive(0.03), Positive(0.55)
        predelay = next(knob for knob in device.knobs if knob.key == "predelay")
        self.longest_predelay_s = float(predelay.to_physical(1.0)) / 1000.0
        self._noise: dict[tuple[int, float], Tensor] = {}

    def forward(self, audio: Tensor, controls: Controls, sample_rate: float) -> Tensor:
        late = self._late(audio, controls, sample_rate)
        on = reverbs.reverb_circle(audio, late.shape[-1], self.longest_predelay_s * sample_rate)
        frequency_hz = on.frequencies_hz(sample_rate)
        shelf = filters.damping_shelf_response(
            frequency_hz, controls.physical("hi_filter_freq"), self.high_gain()
        )
        colour = shelf * (self.wet_level() * self.residual(frequency_hz))
        dense = torch.fft.rfft(late, n=on.n_fft) + reflections.spectrum(self.early, on, sample_rate)
        shift = -(controls.physical("predelay") * (sample_rate / 1000.0))[:, None] * on.omega
        response = dense * (colour * torch.polar(torch.ones_like(shift), shift))[:, None]
        return mix_equal_power(
            audio, filter_on_circle(audio, response, on), controls.share("dry_wet")
        )

    def _late(self, audio: Tensor, controls: Controls, sample_rate: float) -> Tensor:
        """Noise under its decay [batch, 2, time]."""
        loop_s = self.loop_s() * (self.loop_fixed() + 16.0 ** self._size(controls))
        decay_s = self._decay_s(controls, loop_s)
        head_start = decibels_to_gain(60.0 * self.onset_s() / decay_s)
        level = (self.late_level() * (sample_rate * loop_s).rsqrt())[:, None] * decibels_to_gain(
            self.late_db
        )
        return reverbs.impulse_response(
            self._bands(audio.shape[-1], sample_rate).to(audio),
            decay_s,
            level * head_start,
            self.build_up_loops() * loop_s,
            sample_rate=sample_rate,
            build_up_power=BUILD_UP_POWER,
        )

    def _decay_s(self, controls: Controls, loop_s: Tensor) -> Tensor:
        """T60 of each band [batch, bands]."""
        centers_hz = reverbs.band_centers_hz(self.BANDS, loop_s)
        shelf = filters.damping_shelf_response(
            centers_hz, controls.physical("hi_filter_freq"), self.high_gain()
        )
        per_pass_db = -20.0 * torch.log10(shelf.abs())
        decibels_per_s = (
            60.0 / controls.physical("decay_time")[:, None]
            + per_pass_db.clamp_min(0.0) / loop_s[:, None]
        )
        return 60.0 / decibels_per_s * torch.exp(self.decay_scale)

    def _size(self, controls: Controls) -> Tensor:
        """Room size on 0..1: logarithm of the schema's 0.22..500."""
        return torch.log(controls.physical("room_size") / 0.22) / math.log(500.0 / 0.22)

    def _bands(self, n_samples: int, sample_rate: float) -> Tensor:
        """Fixed noise in bands [bands, 2, time]."""
        key = (n_samples, sample_rate)
        if key not in self._noise:
            with torch.inference_mode(
                False
            ):  # what is made in inference mode could never be differentiated through
                self._noise[key] = reverbs.noise_bands(
                    n_samples, sample_rate=sample_rate, n_bands=self.BANDS
                )
        return self._noise[key]


#: Effect key → its module.
MODULES: dict[str, type[Effect]] = {
    "auto_filter": AutoFilter,
    "saturator": Saturator,
    "compressor": Compressor,
    "eq_eight": EqEight,
    "chorus_ensemble": ChorusEnsemble,
    "phaser_flanger": PhaserFlanger,
    "delay": Delay,
    "reverb": Reverb,
}


def make_effects() -> nn.ModuleList:
    """One module for each effect of the schema, in its order.

    Raises StageError when an effect has no module.
    """
    for device in EFFECTS:
        if device.key not in MODULES:
            raise StageError(
                f'the proxy has no module for the effect "{device.name}"; add one to MODULES in '
                f"unmixer_core/proxy/effects.py."
            )
    return nn.ModuleList(MODULES[device.key](device) for device in EFFECTS)
