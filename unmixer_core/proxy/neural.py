"""The neural proxy: a network that predicts a spectrogram, and a carrier tone filtered to it.

After InverSynth II (Barkan et al., ISMIR 2023): a decoder of transposed convolutions maps a patch
to a log spectrogram. It learns from renders alone, by the mean absolute error, and contains no
model of synthesis. The spectral loss, ITF and ranking need audio. So a flat harmonic tone at the
note's pitch, with a little noise, is filtered frame by frame to the predicted levels. The network
predicts the filter, that is the levels relative to the carrier's own. They do not depend on the
note, so the network need not learn where harmonics lie.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn

from unmixer_core.dsp import oscillators, spectral
from unmixer_core.dsp.fft import filter_frames, frames_count
from unmixer_core.dsp.levels import decibels_to_gain, note_to_hz
from unmixer_core.errors import StageError
from unmixer_core.proxy.controls import Chain, Choices, PerPatch, choice_weights
from unmixer_core.proxy.twin import REBUILD, ProxyDescription, ProxyModule
from unmixer_core.schema.chain import MAX_EFFECTS
from unmixer_core.schema.rack import RACK

HOP_S = 0.02
HALF_WINDOW_S = 0.0232
#: Mel bands of the spectrogram.
MELS = 64
#: Mel bands of the first convolution's input; time is coarser by the same factor.
COARSE = 8
#: Lowest predicted level. The sound at this level is silence, as a silent host's is.
FLOOR_DB = -100.0
CEILING_DB = 30.0
#: The sound fades in over this many dB above the floor.
FADE_DB = 6.0
#: Noise of the carrier, relative to its harmonics.
NOISE_GAIN = 10.0 ** (-46.0 / 20.0)
HARMONICS = 400
#: Range of the MIDI notes that the network's input distinguishes.
LOWEST_NOTE = 24
HIGHEST_NOTE = 108
#: Mean and spread of the filter before training, dB.
MEAN_DB = -40.0
SCALE_DB = 20.0
#: Limits of the carrier's filter, dB: what float32 audio can express.
GAIN_RANGE_DB = (-120.0, 80.0)
#: What the network predicts; a saved proxy that predicts levels has no such entry.
DRAWS = "filter"


def mel_levels_db(
    audio: Float[Tensor, "batch 2 time"], sample_rate: int
) -> Float[Tensor, "batch 2 frames mels"]:
    """Mean power density of mid and side in mel bands, dB re full scale. sample_rate: Hz."""
    left, right = audio.unbind(1)
    channels = torch.stack([0.5 * (left + right), 0.5 * (left - right)], dim=1)
    return _channel_levels_db(channels, sample_rate)


def _channel_levels_db(
    channels: Float[Tensor, "batch 2 time"], sample_rate: int
) -> Float[Tensor, "batch 2 frames mels"]:
    size = 2 * round(HALF_WINDOW_S * sample_rate)
    hop = round(HOP_S * sample_rate)
    found = spectral.stft_magnitude(channels.flatten(0, 1), size, hop, amplitude=True)
    bank = spectral.mel_bank(size, MELS, sample_rate, channels.dtype, channels.device)
    power = found.square() @ (bank / bank.sum(0).clamp_min(1e-12))
    return (10.0 * torch.log10(power + 10.0 ** (FLOOR_DB / 10.0))).unflatten(0, channels.shape[:2])


class NeuralProxy(ProxyModule):
    """Decoder and carrier. `clip_s` is the longest clip that it can play."""

    KIND = "neural"

    #: Mean of the filter's levels over the training clips, and their spread.
    mean_db: Float[Tensor, "2 frames mels"]
    spread_db: Float[Tensor, ""]
    #: Phases of the carrier's harmonics, as unit numbers.
    carrier: Complex[Tensor, "2 harmonics"]

    def __init__(self, sample_rate: int = 22050, clip_s: float = 2.0, width: int = 32) -> None:
        super().__init__(sample_rate, clip_s)
        self.width = width
        self.frames = math.floor(clip_s / HOP_S) + 1
        self._coarse_frames = math.ceil(self.frames / (MELS // COARSE))
        n_slots = MAX_EFFECTS * (len(RACK.effects) + 1)
        n_notes = HIGHEST_NOTE - LOWEST_NOTE
        # The last two are the note and the gate as plain numbers.
        n_inputs = RACK.n_knobs + sum(RACK.sizes) + n_slots + n_notes + 2
        hidden = 16 * width
        self.trunk = nn.Sequential(
            nn.Linear(n_inputs, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, 2 * width * COARSE * self._coarse_frames),
            nn.GELU(),
        )
        widths = (2 * width, 2 * width, width, max(8, width // 2))
        layers: list[nn.Module] = []
        for channels_in, channels_out in pairwise(widths):
            layers.extend(_doubling(channels_in, channels_out))
        layers.append(nn.Conv2d(widths[-1], 2, 3, padding=1))
        self.grow = nn.Sequential(*layers)
        self.register_buffer("mean_db", torch.full((2, self.frames, MELS), MEAN_DB))
        self.register_buffer("spread_db", torch.tensor(SCALE_DB))
        generator = torch.Generator().manual_seed(0)
        turns = 2.0 * math.pi * torch.rand(2, HARMONICS, generator=generator)
        phases = torch.polar(torch.ones_like(turns), turns)
        self.register_buffer("carrier", phases, persistent=False)
        #: Caches: noise by number of samples, the carrier's levels by note.
        self._noise: dict[int, Tensor] = {}
        self._own: dict[float, Tensor] = {}

    def forward(
        self,
        knobs: Float[Tensor, "batch knobs"],
        choices: Choices,
        chain: Chain,
        note: PerPatch,
        gate_s: PerPatch,
        clip_s: float | None = None,
    ) -> Float[Tensor, "batch 2 time"]:
        """Sound of a batch of patches; see `ProxyModule.forward`.

        Raises:
            StageError: the clip is longer than those of the training.
        """
        seconds = clip_s or self.clip_s
        if seconds > self.clip_s + 1e-6:
            raise StageError(
                f"this neural proxy plays {self.clip_s} s at most, but {clip_s} s were asked for."
            )
        n_samples = round(seconds * self.sample_rate)
        target_db = self.levels_db(knobs, choices, chain, note, gate_s)
        mid, side = self._filtered_carrier(target_db, note.to(knobs), n_samples).unbind(1)
        return torch.stack([mid + side, mid - side], dim=1)

    def levels_db(
        self,
        knobs: Float[Tensor, "batch knobs"],
        choices: Choices,
        chain: Chain,
        note: PerPatch,
        gate_s: PerPatch,
    ) -> Float[Tensor, "batch 2 frames mels"]:
        """Predicted spectrogram, in the form of `mel_levels_db`."""
        weights = choice_weights(choices, knobs)
        inputs = self._inputs(knobs, weights, chain, note.to(knobs), gate_s.to(knobs))
        coarse = self.trunk(inputs).unflatten(1, (2 * self.width, self._coarse_frames, COARSE))
        predicted = self.grow(coarse)[:, :, : self.frames]
        levels_db = self.own_db(note) + self.mean_db + self.spread_db * predicted
        return levels_db.clamp(FLOOR_DB, CEILING_DB)

    def own_db(self, note: PerPatch) -> Float[Tensor, "batch 2 frames mels"]:
        """Levels of the unfiltered carrier at MIDI notes, cached by note."""
        notes = [round(value, 2) for value in note.tolist()]
        with torch.inference_mode(False), torch.no_grad():
            for value in set(notes) - self._own.keys():
                hertz = note_to_hz(torch.tensor([value], device=self.mean_db.device))
                tone = self._carrier(hertz, round(self.clip_s * self.sample_rate))
                self._own[value] = _channel_levels_db(tone, self.sample_rate)[0, :, : self.frames]
        return torch.stack([self._own[value].to(self.mean_db) for value in notes])

    def _inputs(
        self,
        knobs: Float[Tensor, "batch knobs"],
        choices: list[Float[Tensor, "batch _items"]],
        chain: Chain,
        note: Float[Tensor, "batch"],
        gate_s: Float[Tensor, "batch"],
    ) -> Float[Tensor, "batch inputs"]:
        """The patch as one row of numbers. Knobs of effects outside the chain are zero."""
        if not chain.is_floating_point():
            chain = _one_hot(chain, len(RACK.effects) + 1)
        slots = chain.to(knobs)
        synth = torch.ones_like(note)[:, None]
        present = torch.cat([synth, slots[..., :-1].sum(dim=1)], dim=1)  # [batch, devices]
        device = torch.as_tensor(RACK.device_of_knob, device=knobs.device)
        pitches = torch.arange(LOWEST_NOTE, HIGHEST_NOTE, device=knobs.device, dtype=knobs.dtype)
        near = torch.exp(-0.5 * (note[:, None] - pitches).square())
        rest = torch.stack([(note - 60.0) / 24.0, gate_s / self.clip_s], dim=1)
        signed = (2.0 * knobs - 1.0) * present[:, device]
        return torch.cat([signed, *choices, slots.flatten(1), near, rest], dim=1)

    def _filtered_carrier(
        self,
        target_db: Float[Tensor, "batch 2 _frames mels"],
        note: Float[Tensor, "batch"],
        n_samples: int,
    ) -> Float[Tensor, "batch 2 n_samples"]:
        """Mid and side that have the target levels."""
        hop = round(HOP_S * self.sample_rate)
        tone = self._carrier(note_to_hz(note), n_samples)
        own_db = _channel_levels_db(tone, self.sample_rate)
        frames = own_db.shape[2]
        target_db = target_db[:, :, :frames]
        bins = self._bands_to_bins(hop + 1).to(own_db)
        gain_db = (target_db - own_db).clamp(*GAIN_RANGE_DB) @ bins  # [batch, 2, frames, bins]
        fade = ((target_db - FLOOR_DB) / FADE_DB).clamp(0.0, 1.0) @ bins
        gain = fade * decibels_to_gain(gain_db)
        # The filter has a frame or two more than the spectrogram; they repeat the last one.
        missing = frames_count(n_samples, hop) - frames
        gain = torch.cat([gain, gain[:, :, -1:].expand(-1, -1, missing, -1)], dim=2)
        return filter_frames(tone, gain.to(torch.complex64), hop_samples=hop)

    def _carrier(
        self, frequency_hz: Float[Tensor, "batch"], n_samples: int
    ) -> Float[Tensor, "batch 2 n_samples"]:
        """Tones of equally loud harmonics and a little noise, one for mid and one for side."""
        if n_samples not in self._noise:
            with torch.inference_mode(False):
                made = torch.randn(2, n_samples, generator=torch.Generator().manual_seed(1))
                self._noise[n_samples] = made
        phase = oscillators.phase_cycles(
            frequency_hz, n_samples=n_samples, sample_rate=self.sample_rate
        )
        tables = oscillators.band_limited_tables(
            self.carrier[None].expand(len(frequency_hz), -1, -1),
            frequency_hz,
            sample_rate=self.sample_rate,
        )
        sides = torch.tensor([0.0, 1.0], device=phase.device, dtype=phase.dtype)[None, :, None]
        tone = oscillators.wavetable_oscillator(tables, sides, phase[:, None].expand(-1, 2, -1))
        return tone + NOISE_GAIN * math.sqrt(HARMONICS) * self._noise[n_samples].to(tone)

    def _bands_to_bins(self, bins: int) -> Float[Tensor, "mels bins"]:
        """Linear interpolation over mel bands; columns sum to one."""
        size = 2 * round(HALF_WINDOW_S * self.sample_rate)
        bank = spectral.mel_bank(size, MELS, self.sample_rate)
        hertz = torch.linspace(0.0, 0.5 * self.sample_rate, len(bank), dtype=bank.dtype)
        centers_hz = (hertz @ bank) / bank.sum(0).clamp_min(1e-12)
        place = torch.linspace(0.0, 0.5 * self.sample_rate, bins, dtype=bank.dtype)
        upper = torch.searchsorted(centers_hz.contiguous(), place.contiguous()).clamp(1, MELS - 1)
        low_hz = centers_hz[upper - 1]
        high_hz = centers_hz[upper]
        share = ((place - low_hz) / (high_hz - low_hz).clamp_min(1e-6)).clamp(0.0, 1.0)
        below = _one_hot(upper - 1, MELS)
        above = _one_hot(upper, MELS)
        return (below * (1.0 - share)[:, None] + above * share[:, None]).T

    def description(self) -> ProxyDescription:
        """See `ProxyModule.description`."""
        return {**super().description(), "width": self.width, "draws": DRAWS}

    @classmethod
    def open(
        cls, folder: Path, description: ProxyDescription, sample_rate: int | None = None
    ) -> NeuralProxy:
        """Return the neural proxy that is saved in a folder.

        Raises:
            StageError: `sample_rate` is another one than that of the training, or the proxy
                predicts levels instead of a filter (an older version of this code).
        """
        rate = description["sample_rate"]
        if description.get("draws") != DRAWS:
            raise StageError(
                f"the neural proxy in {folder} is of another version of this code; run `{REBUILD}`."
            )
        if sample_rate not in (None, rate):
            raise StageError(
                f"the neural proxy in {folder} plays at {rate} Hz only, not at {sample_rate} Hz."
            )
        proxy = cls(rate, description["clip_s"], description["width"])
        proxy.restore(folder)
        return proxy


def _doubling(channels_in: int, channels_out: int) -> tuple[nn.Module, nn.Module]:
    """Layers that double the frames and the bands."""
    return nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1), nn.GELU()


def _one_hot(index: Int[Tensor, "*shape"], size: int) -> Float[Tensor, "*shape size"]:
    """One-hot of an index, of which −1 is the last."""
    return nn.functional.one_hot(index % size, size).float()
