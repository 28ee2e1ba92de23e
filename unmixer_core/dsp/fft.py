"""Filtering by frequency sampling: whole clips on one circle, moving filters frame by frame.

A long-tailed linear response H(z) is sampled on the circle |z| = e^{damping}, slightly outside the
unit circle: the signal is weighted by e^{-damping n} before the FFT and unweighted after it, so
what wraps around the end of the transform comes back `alias_db` quieter. A feedback delay or a comb
therefore needs no zero padding for its endless tail (exponential windowing, see Välimäki and Liski
2017, and Kates and Yoder's "damped FFT" for reverberators).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float, Inexact
from torch import Tensor


class Circle(NamedTuple):
    """Sampling points z = e^{damping + j omega}.

    `omega` in radians per sample, `damping` in nepers per sample.
    """

    n_fft: int
    omega: Float[Tensor, "bins"]
    damping: float

    def frequencies_hz(self, sample_rate: float) -> Float[Tensor, "bins"]:
        """Frequency of each bin in Hz, omega · sample_rate / 2π."""
        return self.omega * (sample_rate / (2.0 * math.pi))


def fast_length(n: int) -> int:
    """Smallest even product of 2, 3 and 5 that is ≥ n: a length whose FFT is cheap."""
    best = 1 << max(1, (n - 1).bit_length())
    five = 2
    while five < best:
        three = five
        while three < best:
            power = three << max(0, (-(-n // three) - 1).bit_length())
            best = min(best, power)
            three *= 3
        five *= 5
    return best


def circle(
    n_samples: int, *, pad_samples: int = 0, alias_db: float = 0.0, like: Float[Tensor, "*shape"]
) -> Circle:
    """The circle for clips of `n_samples`.

    Padded by `pad_samples`, wrapped tails attenuated by `alias_db`.

    Damping alias_db · ln 10 / 20 / n_fft. `like` lends its dtype and device.
    """
    n_fft = fast_length(n_samples + pad_samples)
    omega = torch.arange(n_fft // 2 + 1, device=like.device, dtype=like.dtype) * (
        2.0 * math.pi / n_fft
    )
    return Circle(n_fft, omega, alias_db * math.log(10.0) / 20.0 / n_fft)


def filter_on_circle(
    audio: Float[Tensor, "*#batch time"], response: Inexact[Tensor, "*#batch bins"], on: Circle
) -> Float[Tensor, "*batch time"]:
    """Audio filtered by a response H(z) (linear gain) sampled on the circle.

    Leading axes broadcast.

    e^{dn} · irfft(H · rfft(e^{-dn} x)), d = on.damping.
    """
    n_samples = audio.shape[-1]
    weight = torch.exp(
        -on.damping * torch.arange(n_samples, device=audio.device, dtype=audio.dtype)
    )
    spectrum = torch.fft.rfft(audio * weight if on.damping else audio, n=on.n_fft)
    filtered = torch.fft.irfft(spectrum * response, n=on.n_fft)[..., :n_samples]
    return filtered / weight if on.damping else filtered


def delay_response(
    delay_samples: Float[Tensor, "*batch"], on: Circle
) -> Complex[Tensor, "*batch bins"]:
    """z^{-delay} on the circle; the delay in samples may be fractional."""
    delay = delay_samples[..., None]
    gain = torch.exp(-on.damping * delay)
    return torch.polar(gain.expand(*delay.shape[:-1], len(on.omega)), -delay * on.omega)


def frames_count(n_samples: int, hop_samples: int) -> int:
    """How many frames `filter_frames` uses for a clip of this length."""
    return n_samples // hop_samples + 2


def filter_frames(
    audio: Float[Tensor, "*#batch time"],
    response: Inexact[Tensor, "*#batch frames bins"],
    *,
    hop_samples: int,
) -> Float[Tensor, "*batch time"]:
    """A filter that moves: frame m of the response (linear gain) rules around sample m · hop.

    Leading axes broadcast.

    Weighted overlap-add (Crochiere 1980) with sine windows of two hops before and after: perfect
    reconstruction where the response is 1. frames = frames_count(time, hop), bins = hop + 1 from 0
    Hz to Nyquist.
    """
    n_samples, n_fft = audio.shape[-1], 2 * hop_samples
    frames = frames_count(n_samples, hop_samples)
    window = torch.sin(
        math.pi * (torch.arange(n_fft, device=audio.device, dtype=audio.dtype) + 0.5) / n_fft
    )
    padded = torch.nn.functional.pad(audio, (hop_samples, frames * hop_samples - n_samples))
    pieces = padded.unfold(-1, n_fft, hop_samples) * window  # [..., frames, n_fft]
    filtered = torch.fft.irfft(torch.fft.rfft(pieces) * response, n=n_fft) * window
    first, second = filtered[..., :hop_samples], filtered[..., hop_samples:]
    summed = first[..., 1:, :] + second[..., :-1, :]  # [..., frames − 1, hop]
    return summed.flatten(-2)[..., :n_samples]


def overlap_add(
    frames: Float[Tensor, "batch frames size"], hop_samples: int
) -> Float[Tensor, "batch time"]:
    """Sum of frames laid `hop_samples` apart; time = (frames - 1) * hop + size."""
    batch, n_frames, size = frames.shape
    n_blocks = math.ceil(size / hop_samples)
    padded = torch.nn.functional.pad(frames, (0, n_blocks * hop_samples - size))
    blocks = padded.reshape(batch, n_frames, n_blocks, hop_samples)
    line = frames.new_zeros(batch, n_frames + n_blocks - 1, hop_samples)
    # Block k of every frame lands k hops after the frame's start, so one addition serves all.
    for k in range(n_blocks):
        line[:, k : k + n_frames] += blocks[:, :, k]
    return line.flatten(1)[:, : (n_frames - 1) * hop_samples + size]


def frame_times_s(
    n_samples: int, hop_samples: int, sample_rate: float, like: Float[Tensor, "*shape"]
) -> Float[Tensor, "frames"]:
    """Centre of each frame of `filter_frames` in seconds, m · hop / sample_rate.

    `like` lends its dtype and device.
    """
    index = torch.arange(frames_count(n_samples, hop_samples), device=like.device, dtype=like.dtype)
    return index * (hop_samples / sample_rate)


def frame_frequencies_hz(
    hop_samples: int, sample_rate: float, like: Float[Tensor, "*shape"]
) -> Float[Tensor, "bins"]:
    """Frequency of each bin of `filter_frames` in Hz, from 0 to Nyquist; bins = hop + 1.

    `like` lends its dtype and device.
    """
    index = torch.arange(hop_samples + 1, device=like.device, dtype=like.dtype)
    return index * (0.5 * sample_rate / hop_samples)
