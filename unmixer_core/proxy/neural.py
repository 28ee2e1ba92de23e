"""The other kind of proxy: a network that draws the spectrogram, and a carrier at the note's pitch
that sounds it.

After InverSynth II (Barkan et al., ISMIR 2023): a decoder of transposed convolutions, the mirror
image of an encoder, maps a patch to a log spectrogram and learns from renders alone, by the mean
absolute error. It knows nothing of synthesis. So that everything that listens to a proxy (the
spectral loss, ITF, ranking) can listen to this one, a flat harmonic tone with some noise in it is
filtered, frame by frame, to the levels that the network predicts. What it draws is the filter:
levels above the tone's own, which is the same whatever the note; where harmonics lie is not to be
learned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unmixer_core.dsp import oscillators, spectral
from unmixer_core.dsp.fft import filter_frames, frames_count
from unmixer_core.errors import StageError
from unmixer_core.proxy.controls import choice_weights
from unmixer_core.proxy.twin import REBUILD, ProxyModule
from unmixer_core.proxy.voice import note_to_hz
from unmixer_core.schema.chain import MAX_EFFECTS
from unmixer_core.schema.rack import RACK

HOP_S, HALF_WINDOW_S = 0.02, 0.0232
MELS, COARSE = (
    64,
    8,
)  # mel bands out of the last and into the first convolution; time grows by the same factor
#: What is drawn at the floor is silence, as a host's is; just above it fades in.
FLOOR_DB, CEILING_DB, FADE_DB = -100.0, 30.0, 6.0
NOISE_GAIN = 10.0 ** (-46.0 / 20.0)
HARMONICS = 400
LOWEST_NOTE, HIGHEST_NOTE = 24, 108
SCALE_DB = 20.0
DRAWS = "filter"


def mel_levels_db(audio: Tensor, sample_rate: int) -> Tensor:
    """audio [batch, 2, time] → mean power density of mid and side in mel bands, dB.

    [batch, 2, frames, MELS].
    """
    left, right = audio.unbind(1)
    channels = torch.stack([0.5 * (left + right), 0.5 * (left - right)], dim=1)
    return _channel_levels_db(channels, sample_rate)


def _channel_levels_db(channels: Tensor, sample_rate: int) -> Tensor:
    size, hop = 2 * round(HALF_WINDOW_S * sample_rate), round(HOP_S * sample_rate)
    found = spectral.stft_magnitude(channels.flatten(0, 1), size, hop, amplitude=True)
    bank = spectral.mel_bank(size, MELS, sample_rate, channels.dtype, channels.device)
    power = found.square() @ (bank / bank.sum(0).clamp_min(1e-12))
    return (10.0 * torch.log10(power + 10.0 ** (FLOOR_DB / 10.0))).unflatten(0, channels.shape[:2])


class NeuralProxy(ProxyModule):
    """Decoder and carrier. `clip_s` is the longest clip that it can sound."""

    KIND = "neural"

    mean_db: Tensor
    spread_db: Tensor
    carrier: Tensor

    def __init__(self, sample_rate: int = 22050, clip_s: float = 2.0, width: int = 32) -> None:
        super().__init__(sample_rate, clip_s)
        self.width = width
        self.frames = math.floor(clip_s / HOP_S) + 1
        self._coarse_frames = math.ceil(self.frames / (MELS // COARSE))
        n_inputs = (
            RACK.n_knobs
            + sum(RACK.sizes)
            + MAX_EFFECTS * (len(RACK.effects) + 1)
            + HIGHEST_NOTE
            - LOWEST_NOTE
            + 2
        )
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
        self.grow = nn.Sequential(
            *(part for a, b in pairwise(widths) for part in _doubled(a, b)),
            nn.Conv2d(widths[-1], 2, 3, padding=1),
        )
        self.register_buffer("mean_db", torch.full((2, self.frames, MELS), -40.0))
        self.register_buffer("spread_db", torch.tensor(SCALE_DB))
        generator = torch.Generator().manual_seed(0)
        turns = 2.0 * math.pi * torch.rand(2, HARMONICS, generator=generator)
        self.register_buffer(
            "carrier", torch.polar(torch.ones_like(turns), turns), persistent=False
        )
        self._noise: dict[int, Tensor] = {}
        self._own: dict[float, Tensor] = {}

    def forward(
        self,
        knobs: Tensor,
        choices: Tensor | Sequence[Tensor],
        chain: Tensor,
        note: Tensor,
        gate_s: Tensor,
        clip_s: float | None = None,
    ) -> Tensor:
        """Sound of a batch of patches, as `ProxyModule.forward` says.

        Raises StageError for a clip longer than it was trained on.
        """
        if (clip_s or self.clip_s) > self.clip_s + 1e-6:
            raise StageError(
                f"this neural proxy sounds {self.clip_s} s at most, but {clip_s} s were asked for."
            )
        n_samples = round((clip_s or self.clip_s) * self.sample_rate)
        wanted_db = self.levels_db(knobs, choices, chain, note, gate_s)
        mid, side = self._sounded(wanted_db, note.to(knobs), n_samples).unbind(1)
        return torch.stack([mid + side, mid - side], dim=1)

    def levels_db(
        self,
        knobs: Tensor,
        choices: Tensor | Sequence[Tensor],
        chain: Tensor,
        note: Tensor,
        gate_s: Tensor,
    ) -> Tensor:
        """The predicted spectrogram, as `mel_levels_db` measures a sound's.

        [batch, 2, frames, MELS].
        """
        seen = self._inputs(
            knobs, choice_weights(choices, knobs), chain, note.to(knobs), gate_s.to(knobs)
        )
        coarse = self.trunk(seen).unflatten(1, (2 * self.width, self._coarse_frames, COARSE))
        drawn = self.grow(coarse)[:, :, : self.frames]
        return (self.own_db(note) + self.mean_db + self.spread_db * drawn).clamp(
            FLOOR_DB, CEILING_DB
        )

    def own_db(self, note: Tensor) -> Tensor:
        """The unfiltered tone's levels at notes [batch] (MIDI), remembered by note.

        [batch, 2, frames, MELS].
        """
        notes = [round(value, 2) for value in note.tolist()]
        with torch.inference_mode(False), torch.no_grad():
            for value in set(notes) - self._own.keys():
                hertz = note_to_hz(torch.tensor([value], device=self.mean_db.device))
                tone = self._carrier(hertz, round(self.clip_s * self.sample_rate))
                self._own[value] = _channel_levels_db(tone, self.sample_rate)[0, :, : self.frames]
        return torch.stack([self._own[value].to(self.mean_db) for value in notes])

    def _inputs(
        self, knobs: Tensor, choices: list[Tensor], chain: Tensor, note: Tensor, gate_s: Tensor
    ) -> Tensor:
        """Everything that a patch is, as one row [batch, inputs].

        Knobs of effects that are not there are zero.
        """
        n_slots = len(RACK.effects) + 1
        slots = chain.to(knobs) if chain.is_floating_point() else _one_hot(chain, n_slots).to(knobs)
        there = torch.cat(
            [torch.ones_like(note)[:, None], slots[..., :-1].sum(dim=1)], dim=1
        )  # [batch, devices]
        device = torch.as_tensor(RACK.device_of_knob, device=knobs.device)
        pitches = torch.arange(LOWEST_NOTE, HIGHEST_NOTE, device=knobs.device, dtype=knobs.dtype)
        near = torch.exp(-0.5 * (note[:, None] - pitches).square())
        rest = torch.stack([(note - 60.0) / 24.0, gate_s / self.clip_s], dim=1)
        return torch.cat(
            [(2.0 * knobs - 1.0) * there[:, device], *choices, slots.flatten(1), near, rest], dim=1
        )

    def _sounded(self, wanted_db: Tensor, note: Tensor, n_samples: int) -> Tensor:
        """Mid and side [batch, 2, n_samples] that have the wanted levels."""
        hop = round(HOP_S * self.sample_rate)
        tone = self._carrier(note_to_hz(note), n_samples)
        own_db = _channel_levels_db(tone, self.sample_rate)
        frames = own_db.shape[2]
        wanted_db, bins = wanted_db[:, :, :frames], self._bands_to_bins(hop + 1).to(own_db)
        gain_db = (wanted_db - own_db).clamp(-120.0, 80.0) @ bins  # [batch, 2, frames, bins]
        sounding = ((wanted_db - FLOOR_DB) / FADE_DB).clamp(0.0, 1.0) @ bins
        missing = frames_count(n_samples, hop) - frames
        gain = sounding * torch.exp(gain_db * (math.log(10.0) / 20.0))
        gain = torch.cat([gain, gain[:, :, -1:].expand(-1, -1, missing, -1)], dim=2)
        return filter_frames(tone, gain.to(torch.complex64), hop_samples=hop)

    def _carrier(self, frequency_hz: Tensor, n_samples: int) -> Tensor:
        """A tone of equally loud harmonics and a little noise, one for mid and one for side.

        [batch, 2, n_samples].
        """
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

    def _bands_to_bins(self, bins: int) -> Tensor:
        """Linear interpolation over mel bands: [MELS, bins] whose columns sum to one."""
        size = 2 * round(HALF_WINDOW_S * self.sample_rate)
        bank = spectral.mel_bank(size, MELS, self.sample_rate)
        hertz = torch.linspace(0.0, 0.5 * self.sample_rate, len(bank), dtype=bank.dtype)
        centers_hz = (hertz @ bank) / bank.sum(0).clamp_min(1e-12)
        place = torch.linspace(0.0, 0.5 * self.sample_rate, bins, dtype=bank.dtype)
        upper = torch.searchsorted(centers_hz.contiguous(), place.contiguous()).clamp(1, MELS - 1)
        low_hz, high_hz = centers_hz[upper - 1], centers_hz[upper]
        share = ((place - low_hz) / (high_hz - low_hz).clamp_min(1e-6)).clamp(0.0, 1.0)
        below, above = _one_hot(upper - 1, MELS), _one_hot(upper, MELS)
        return (below * (1.0 - share)[:, None] + above * share[:, None]).T

    def description(self) -> dict[str, Any]:
        """See `ProxyModule.description`."""
        return super().description() | {"width": self.width, "draws": DRAWS}

    @classmethod
    def open(
        cls, folder: Path, description: dict[str, Any], sample_rate: int | None = None
    ) -> NeuralProxy:
        """A saved one.

        Raises StageError when asked for another rate than it was trained at, or when it draws
        levels as such.
        """
        rate = description["sample_rate"]
        if description.get("draws") != DRAWS:
            raise StageError(
                f"the neural proxy in {folder} is of another version of this code; run `{REBUILD}`."
            )
        if sample_rate not in (None, rate):
            raise StageError(
                f"the neural proxy in {folder} sounds at {rate} Hz only, not at {sample_rate} Hz."
            )
        proxy = cls(rate, description["clip_s"], description["width"])
        proxy.restore(folder)
        return proxy


def _doubled(channels_in: int, channels_out: int) -> tuple[nn.Module, nn.Module]:
    """Twice the frames and bands."""
    return nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1), nn.GELU()


def _one_hot(index: Tensor, size: int) -> Tensor:
    """Index (−1 = last) → one-hot float [..., size]."""
    return nn.functional.one_hot(index % size, size).float()
