"""The shared feature extractor.

Log-mel spectrogram, note and gate of a clip -> one wide vector that all heads read.

Two views of the same frames. A residual convolution net with squeeze-and-excitation (He et al.,
CVPR 2016; Hu et al., CVPR 2018) sees the mel plane, where filters, equalisers and echoes have a
fixed place, beside two planes that tell it where the note's harmonics lie and when the key was
released. A temporal net sees the levels at multiples of the note's frequency, a view that a
transposition leaves as it is, so that a wavetable looks alike on every key. Both are averaged apart
over the time the key is held and the time after it, where echoes and tails are heard alone. No
bottleneck follows: with a few thousand clips, a narrow shared layer cost the wavetable half of its
accuracy. Shapes: b clips, c = 2 (mid, side), m mels, f frames, h harmonics.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from jaxtyping import Float, Real
from torch import Tensor, nn

from unmixer_core.features.frames import FeatureSpec
from unmixer_core.model.noise import Dropout
from unmixer_core.schema.notes import A4_HZ, A4_NOTE, SEMITONES_PER_OCTAVE

#: Channels of the residual blocks, in units of the width; each that widens halves both axes.
WIDENINGS = (2, 4, 6, 6)
#: How often the mel axis is halved: by the stem and by three blocks.
HALVINGS = 4
SQUEEZED = 96
PLAYED = 32


class Encoder(nn.Module):
    """forward(features [b, 2, m, f], note [b], gate_s [b]) -> [b, out_width]."""

    mean: Float[Tensor, "2 mels 1"]
    scale: Float[Tensor, "2 mels 1"]

    def __init__(self, spec: FeatureSpec, *, width: int, harmonics: int, dropout: float) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("mean", torch.zeros(2, spec.n_mels, 1))
        self.register_buffer("scale", torch.ones(2, spec.n_mels, 1))
        channels = [width * factor for factor in (1, *WIDENINGS)]
        self.stem = nn.Sequential(
            nn.Conv2d(4, width, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential(*(Residual(i, o) for i, o in pairwise(channels)))
        self.squeeze = nn.Sequential(
            nn.Conv2d(channels[-1], SQUEEZED, 1, bias=False), nn.BatchNorm2d(SQUEEZED), nn.ReLU()
        )
        self.harmonic = HarmonicNet(spec, harmonics, 2 * width, dropout) if harmonics else None
        self.played = nn.Sequential(nn.Linear(4, PLAYED), nn.ReLU())
        self.dropout = Dropout(dropout)
        rows = math.ceil(spec.n_mels / 2**HALVINGS)
        self.out_width = (
            3 * SQUEEZED * rows + PLAYED + (self.harmonic.width if self.harmonic else 0)
        )

    def normalise(self, mean: Float[Tensor, "2 mels"], scale: Float[Tensor, "2 mels"]) -> None:
        """Set the per-band statistics [2, m] of the training features."""
        self.mean.copy_(mean[..., None])
        self.scale.copy_(scale[..., None])

    def forward(
        self,
        features: Float[Tensor, "batch 2 mels frames"],
        note: Real[Tensor, "batch"],
        gate_s: Real[Tensor, "batch"],
    ) -> Float[Tensor, "batch width"]:
        """One vector a clip from its frames, MIDI note and gate in seconds."""
        x = (features - self.mean) / self.scale
        plane = (len(x), 1, *x.shape[-2:])
        comb = comb_of(note, self.spec).to(x)[:, None, :, None].expand(plane)
        held = held_of(gate_s, x.shape[-1], self.spec).to(x)
        planes = torch.cat([x, comb, held[:, None, None].expand(plane)], dim=1)
        y = self.squeeze(self.blocks(self.stem(planes)))  # b, SQUEEZED, rows, columns
        parts = [pooled(y.flatten(1, 2), held), self.played(_played(note, gate_s).to(x))]
        if self.harmonic is not None:
            parts.append(self.harmonic(x, note, held))
        return self.dropout(torch.cat(parts, dim=1))


def pooled(
    y: Float[Tensor, "batch channels columns"], held: Float[Tensor, "batch frames"]
) -> Float[Tensor, "batch 3*channels"]:
    """Averages of y [b, n, columns] while the key is held and after, and maxima: [b, 3 n].

    held [b, f] in [0, 1].
    """
    weight = torch.nn.functional.adaptive_avg_pool1d(held[:, None], y.shape[-1])
    during = (y * weight).sum(-1) / (weight.sum(-1) + 0.1)
    after = (y * (1 - weight)).sum(-1) / ((1 - weight).sum(-1) + 0.1)
    return torch.cat([during, after, y.amax(-1)], dim=1)


class Residual(nn.Module):
    """Two 3x3 convolutions with a squeeze-and-excitation gate beside a shortcut.

    One that widens also halves both axes.
    """

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        stride = 2 if wide > narrow else 1
        self.first = nn.Sequential(
            nn.Conv2d(narrow, wide, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
        )
        self.second = nn.Sequential(
            nn.Conv2d(wide, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide)
        )
        self.gate = nn.Sequential(
            nn.Linear(wide, wide // 4), nn.ReLU(), nn.Linear(wide // 4, wide), nn.Sigmoid()
        )
        self.pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
        self.project = nn.Conv2d(narrow, wide, 1, bias=False) if narrow != wide else nn.Identity()

    def forward(
        self, x: Float[Tensor, "batch narrow rows columns"]
    ) -> Float[Tensor, "batch wide _rows _columns"]:
        """The block's planes, of half the size where it widens."""
        y = self.second(self.first(x))
        y = y * self.gate(y.mean((-2, -1)))[..., None, None]
        return torch.relu(y + self.project(self.pool(x)))


class HarmonicNet(nn.Module):
    """Levels at multiples of the note's frequency: [b, 2, m, f] -> [b, width].

    Each frame is described on its own first (kernel 1), so that every frame of every clip teaches
    what a timbre looks like; then temporal convolutions follow its course.
    """

    ratios: Float[Tensor, "harmonics"]

    def __init__(self, spec: FeatureSpec, harmonics: int, channels: int, dropout: float) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("ratios", harmonic_ratios(harmonics), persistent=False)
        self.layers = nn.Sequential(
            *_temporal(3 * harmonics, 4 * channels, kernel=1),
            Dropout(dropout),
            *_temporal(4 * channels, 3 * channels, kernel=1),
            *_temporal(3 * channels, 3 * channels, kernel=5, stride=2),
            *_temporal(3 * channels, 3 * channels, kernel=5, stride=2),
        )
        self.width = 9 * channels

    def forward(
        self,
        x: Float[Tensor, "batch 2 mels frames"],
        note: Real[Tensor, "batch"],
        held: Float[Tensor, "batch frames"],
    ) -> Float[Tensor, "batch width"]:
        """One vector a clip from its frames, its MIDI note and the course of its gate."""
        levels = harmonic_view(x, note, self.ratios, self.spec)  # b, 2, h, f
        shape = levels[:, :1] - levels[:, :1].amax(
            2, keepdim=True
        )  # the middle's spectrum, whatever its level
        return pooled(self.layers(torch.cat([levels, shape], dim=1).flatten(1, 2)), held)


def _temporal(narrow: int, wide: int, *, kernel: int, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv1d(narrow, wide, kernel, stride=stride, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm1d(wide), nn.ReLU()


# --- where a note's harmonics lie -------------------------------------------------------------


def hz_to_mel(frequency_hz: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """HTK mel scale, as the features use."""
    return 2595.0 * torch.log10(1.0 + frequency_hz / 700.0)


def mel_to_hz(mel: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Inverse of hz_to_mel."""
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


def note_to_hz(note: Real[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """MIDI note -> frequency, A4 = 69 = 440 Hz."""
    return A4_HZ * 2.0 ** ((note.float() - A4_NOTE) / SEMITONES_PER_OCTAVE)


def band_mels(spec: FeatureSpec) -> Float[Tensor, "mels"]:
    """Centres of the mel bands, in mel [m]."""
    low, high = hz_to_mel(torch.tensor([spec.fmin_hz, spec.fmax_hz]))
    return torch.linspace(float(low), float(high), spec.n_mels + 2)[1:-1]


def harmonic_ratios(count: int) -> Float[Tensor, "harmonics"]:
    """Multiples of the note's frequency that are looked at.

    In half steps up to the 8th, then whole ones. [h]
    """
    halves = torch.arange(1, min(count, 16) + 1) / 2
    return torch.cat([halves, torch.arange(9, 9 + count - len(halves), dtype=torch.float32)])


def comb_of(note: Real[Tensor, "batch"], spec: FeatureSpec) -> Float[Tensor, "batch mels"]:
    """How close each mel band lies to a harmonic: 1 on one, falling off within a band.

    note [b] -> [b, m].
    """
    mels = band_mels(spec).to(note.device)
    centre_hz, f0_hz = mel_to_hz(mels), note_to_hz(note)[:, None]
    nearest_hz = (centre_hz / f0_hz).round().clamp_min(1.0) * f0_hz
    distance = (hz_to_mel(nearest_hz) - mels) / (mels[1] - mels[0])
    return torch.exp(-2.0 * distance.square())


def held_of(
    gate_s: Real[Tensor, "batch"], frames: int, spec: FeatureSpec
) -> Float[Tensor, "batch frames"]:
    """1 while the key is held, falling off over a quarter second after it. gate_s [b] -> [b, f]."""
    time_s = torch.arange(frames, device=gate_s.device) * (spec.hop / spec.sample_rate)
    return torch.exp(-4.0 * (time_s - gate_s.float()[:, None]).clamp_min(0.0))


def harmonic_view(
    x: Float[Tensor, "batch channels mels frames"],
    note: Real[Tensor, "batch"],
    ratios: Float[Tensor, "harmonics"],
    spec: FeatureSpec,
) -> Float[Tensor, "batch channels harmonics frames"]:
    """Levels at `ratios` [h] times the note's frequency, linear between bands and 0 outside
    them. -> [b, c, h, f].
    """
    mels = band_mels(spec).to(x.device)
    place = (hz_to_mel(note_to_hz(note)[:, None] * ratios) - mels[0]) / (mels[1] - mels[0])  # b, h
    weights = (1.0 - (place[..., None] - torch.arange(len(mels), device=x.device)).abs()).clamp_min(
        0.0
    )  # b, h, m
    return weights.to(x)[:, None] @ x


def _played(note: Real[Tensor, "batch"], gate_s: Real[Tensor, "batch"]) -> Float[Tensor, "batch 4"]:
    """Note and gate as numbers of about unit size [b, 4]."""
    key, gate = (note.float() - 54.0) / 18.0, gate_s.float()
    return torch.stack([key, key.square(), gate, torch.log(gate.clamp_min(0.01))], dim=1)
