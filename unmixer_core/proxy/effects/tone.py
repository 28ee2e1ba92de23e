"""Effects that shape tone and level: Auto Filter, Saturator, Compressor, EQ Eight."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from unmixer_core.dsp import dynamics, filters
from unmixer_core.dsp.fft import (
    filter_frames,
    filter_on_circle,
    frame_frequencies_hz,
    frame_times_s,
)
from unmixer_core.dsp.levels import decibels_to_gain, half_gain
from unmixer_core.proxy.controls import Controls
from unmixer_core.proxy.effects.base import Effect, Stereo, mix_linear
from unmixer_core.proxy.parts import Positive
from unmixer_core.proxy.resonator import Resonator, settling_octaves
from unmixer_core.schema.devices import Device

#: Live shows a resonance of 0 to 125 %.
RESONANCE_RANGE = 1.25
#: Hop of the frame-by-frame filter at the onset, and how many hops the onset takes.
ONSET_HOP_S = 0.0116
ONSET_HOPS = 6

Bins = Float[Tensor, "bins"]
Response = Complex[Tensor, "batch bins"]


class AutoFilter(Effect):
    """Drive into a 24 dB filter whose cutoff moves only at the onset."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.resonator = Resonator()

    def forward(self, audio: Stereo, controls: Controls, sample_rate: float) -> Stereo:
        """See `Effect.forward`."""
        drive_db = controls.physical("drive")
        kind = controls.weights("filter_type")
        resonance = controls.share("resonance") / RESONANCE_RANGE
        cutoff_hz = controls.physical("frequency")
        driven, slope = self.resonator.drive(audio, resonance, drive_db, kind)

        steepness = torch.ones_like(drive_db)  # Auto Filter is always the 24 dB one

        def response(frequency_hz: Tensor, moving_hz: Tensor) -> Tensor:
            gain = self.wet_level() * self.residual(frequency_hz)
            return gain * self.resonator.response(
                frequency_hz, moving_hz, resonance, drive_db, slope, kind, steepness
            )

        on = self.circle(audio, sample_rate)
        fixed = response(on.frequencies_hz(sample_rate), cutoff_hz[:, None])
        settled = filter_on_circle(driven, fixed, on)
        return self._with_onset(settled, driven, cutoff_hz, response, sample_rate)

    def _with_onset(
        self,
        settled: Stereo,
        driven: Stereo,
        cutoff_hz: Float[Tensor, "batch"],
        response: Callable[[Tensor, Tensor], Tensor],
        sample_rate: float,
    ) -> Stereo:
        """Replace the onset by one whose cutoff glides to its place, faded into the settled sound.

        The onset is filtered frame by frame.
        """
        hop = 1 << round(math.log2(ONSET_HOP_S * sample_rate))
        length = min(ONSET_HOPS * hop, settled.shape[-1])
        start = driven[..., :length]
        time_s = frame_times_s(length, hop, sample_rate, settled)
        moving_hz = cutoff_hz[:, None] * torch.exp2(
            settling_octaves(time_s, cutoff_hz, self.resonator.start_hz())
        )
        frequency_hz = frame_frequencies_hz(hop, sample_rate, settled)
        moved = filter_frames(start, response(frequency_hz, moving_hz)[:, None], hop_samples=hop)
        index = torch.arange(length, device=settled.device, dtype=settled.dtype)
        fade = (2.0 - 2.0 * index / length).clamp(max=1.0)  # 1 for the first half, then falling
        first = settled[..., :length] + fade * (moved - settled[..., :length])
        return torch.cat([first, settled[..., length:]], dim=-1)


class Saturator(Effect):
    """Four curves under a drive."""

    #: By the index of the choice "type".
    CURVES = (dynamics.soft_clip, dynamics.linear_fold, dynamics.sine_fold, dynamics.hard_clip)

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.require_items("type", len(self.CURVES))

    def forward(self, audio: Stereo, controls: Controls, sample_rate: float) -> Stereo:
        """See `Effect.forward`."""
        weights = controls.weights("type")
        driven = audio * decibels_to_gain(controls.physical("drive"))[:, None, None]

        def curve(x: Tensor) -> Tensor:
            parts = []
            for i, shape in enumerate(self.CURVES):
                if weights.requires_grad or bool((weights[:, i] > 0).any()):
                    parts.append(weights[:, i, None, None] * shape(x))
            if len(parts) == 1:
                return parts[0]
            return torch.stack(parts).sum(dim=0)

        wet = self.coloured(dynamics.oversampled(driven, curve), sample_rate)
        return mix_linear(audio, wet, controls.share("dry_wet"))


class Compressor(Effect):
    """Threshold, ratio, attack, release, output gain."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.attack_scale = Positive(1.0)
        self.release_scale = Positive(1.0)
        self.threshold_shift_db = nn.Parameter(torch.tensor(0.0))

    def forward(self, audio: Stereo, controls: Controls, sample_rate: float) -> Stereo:
        """See `Effect.forward`."""
        compressed = dynamics.compressor(
            audio,
            controls.physical("threshold") + self.threshold_shift_db,
            1.0 - 1.0 / controls.physical("ratio"),
            self.attack_scale() * controls.physical("attack"),
            self.release_scale() * controls.physical("release"),
            sample_rate=sample_rate,
        )
        gain = decibels_to_gain(controls.physical("output_gain"))[:, None, None]
        return mix_linear(
            audio, gain * self.coloured(compressed, sample_rate), controls.share("dry_wet")
        )


class EqEight(Effect):
    """Highpass or low shelf, bell, high shelf.

    Measured on the host, with A = 10^(gain/40): shelves have Q ½. For a boost, the low shelf's
    corner moves up by √A and the high shelf's moves down by √A. The bell has the bandwidth of Q
    without gain. The highpass has damping 2.
    """

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.low_quality = Positive(0.5)
        self.high_quality = Positive(0.55)
        self.bell_quality = Positive(1.0)
        self.highpass_damping = Positive(2.0)

    def forward(self, audio: Stereo, controls: Controls, sample_rate: float) -> Stereo:
        """See `Effect.forward`."""
        on = self.circle(audio, sample_rate)
        frequency_hz = on.frequencies_hz(sample_rate)
        response = (
            self._low(frequency_hz, controls)
            * self._bell(frequency_hz, controls)
            * self._high(frequency_hz, controls)
        )
        response = response * (self.wet_level() * self.residual(frequency_hz))
        return filter_on_circle(audio, response[:, None], on)

    def _bell(self, frequency_hz: Bins, controls: Controls) -> Response:
        gain_db = controls.physical("mid_gain")
        quality = self.bell_quality() * controls.physical("mid_q") / half_gain(gain_db)
        return filters.bell_response(frequency_hz, controls.physical("mid_freq"), gain_db, quality)

    def _high(self, frequency_hz: Bins, controls: Controls) -> Response:
        gain_db = controls.physical("high_gain")
        corner_hz = controls.physical("high_freq") / half_gain(gain_db).sqrt()
        return filters.high_shelf_response(
            frequency_hz, corner_hz, gain_db, self.high_quality().expand_as(corner_hz)
        )

    def _low(self, frequency_hz: Bins, controls: Controls) -> Response:
        gain_db = controls.physical("low_gain")
        kind = controls.weights("low_type")
        corner_hz = controls.physical("low_freq")
        shelf = filters.low_shelf_response(
            frequency_hz,
            corner_hz * half_gain(gain_db).sqrt(),
            gain_db,
            self.low_quality().expand_as(corner_hz),
        )
        only_highpass = torch.full_like(corner_hz, filters.HIGHPASS, dtype=torch.int64)
        highpass = nn.functional.one_hot(only_highpass, filters.KINDS).to(corner_hz)
        damping = self.highpass_damping().expand_as(corner_hz)
        cut = filters.state_variable_response(frequency_hz, corner_hz, damping, highpass)
        return kind[:, :1] * cut + kind[:, 1:] * shelf
