"""Effects of time and space: Delay, Reverb."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unmixer_core.dsp import delays, filters, reverbs
from unmixer_core.dsp.fft import delay_response, filter_on_circle
from unmixer_core.dsp.levels import decibels_to_gain
from unmixer_core.proxy import reflections
from unmixer_core.proxy.controls import Controls
from unmixer_core.proxy.effects.base import MAX_FEEDBACK, Effect, Stereo, mix_equal_power
from unmixer_core.proxy.parts import Positive
from unmixer_core.schema.devices import Device

#: Exponent of the reverb's rise: the density grows late and then quickly.
BUILD_UP_POWER = 4.0
#: What Live shows for the smallest and the largest room.
ROOM_SIZE_RANGE = (0.22, 500.0)


class Delay(Effect):
    """Echoes through a band, straight or ping-pong."""

    def forward(self, audio: Stereo, controls: Controls, sample_rate: float) -> Stereo:
        """See `Effect.forward`."""
        center_hz = controls.physical("filter_freq")
        octaves = controls.physical("filter_width")
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
    """Early reflections, then decaying noise in bands that is denser in a smaller room.

    Measured on the host: the first 0.1 s is one pattern that no control changes. Then the sound
    passes loops of loop_s = c·(a + 16^size). Its energy per second is proportional to 1/loop_s, its
    onset time to loop_s. Every pass loses what a first-order high shelf takes away, beside the
    60 dB of the decay time. The output has passed the shelf once.
    """

    MEASURED = ("early",)
    BANDS = 7

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.early = nn.Parameter(reflections.generic())
        self.late_db = nn.Parameter(torch.zeros(self.BANDS))
        self.decay_scale = nn.Parameter(torch.zeros(self.BANDS))
        self.late_level = Positive(0.55)
        self.high_gain = Positive(0.5)
        self.loop_s = Positive(0.0178)
        self.loop_fixed = Positive(2.49)
        self.onset_s = Positive(0.03)
        self.build_up_loops = Positive(0.55)
        predelay = next(knob for knob in device.knobs if knob.key == "predelay")
        self.longest_predelay_s = float(predelay.to_physical(1.0)) / 1000.0
        self._noise: dict[tuple[int, float], Tensor] = {}

    def forward(self, audio: Stereo, controls: Controls, sample_rate: float) -> Stereo:
        """See `Effect.forward`."""
        late = self._late(audio, controls, sample_rate)
        on = reverbs.reverb_circle(audio, late.shape[-1], self.longest_predelay_s * sample_rate)
        frequency_hz = on.frequencies_hz(sample_rate)
        shelf = filters.damping_shelf_response(
            frequency_hz, controls.physical("hi_filter_freq"), self.high_gain()
        )
        colour = shelf * (self.wet_level() * self.residual(frequency_hz))
        dense = torch.fft.rfft(late, n=on.n_fft) + reflections.spectrum(self.early, on, sample_rate)
        predelay_samples = controls.physical("predelay") * (sample_rate / 1000.0)
        response = dense * (colour * delay_response(predelay_samples, on))[:, None]
        wet = filter_on_circle(audio, response, on)
        return mix_equal_power(audio, wet, controls.share("dry_wet"))

    def _late(self, audio: Stereo, controls: Controls, sample_rate: float) -> Stereo:
        """Impulse response of the late reverb: noise under its decay."""
        loop_s = self.loop_s() * (self.loop_fixed() + 16.0 ** self._size(controls))
        decay_s = self._decay_s(controls, loop_s)
        head_start = decibels_to_gain(60.0 * self.onset_s() / decay_s)
        density = self.late_level() * (sample_rate * loop_s).rsqrt()
        level = density[:, None] * decibels_to_gain(self.late_db)
        return reverbs.impulse_response(
            self._bands(audio.shape[-1], sample_rate).to(audio),
            decay_s,
            level * head_start,
            self.build_up_loops() * loop_s,
            sample_rate=sample_rate,
            build_up_power=BUILD_UP_POWER,
        )

    def _decay_s(
        self, controls: Controls, loop_s: Float[Tensor, "batch"]
    ) -> Float[Tensor, "batch bands"]:
        """T60 of each band in seconds."""
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

    def _size(self, controls: Controls) -> Float[Tensor, "batch"]:
        """Room size on 0..1, the logarithm of what Live shows."""
        smallest, largest = ROOM_SIZE_RANGE
        return torch.log(controls.physical("room_size") / smallest) / math.log(largest / smallest)

    def _bands(self, n_samples: int, sample_rate: float) -> Float[Tensor, "bands 2 n_samples"]:
        """Fixed noise in bands, cached."""
        key = (n_samples, sample_rate)
        if key not in self._noise:
            # A tensor made in inference mode could not be used in a later training step.
            with torch.inference_mode(False):
                self._noise[key] = reverbs.noise_bands(
                    n_samples, sample_rate=sample_rate, n_bands=self.BANDS
                )
        return self._noise[key]
