"""Filters, delays and reverb of the original DDSP, mono [batch, time].

Frame-rate controls are [batch, frames, ...].

Engel et al., ICLR 2020 (https://arxiv.org/abs/2001.04643), section 3.3-3.4; windowed-sinc design:
J. O. Smith, "Spectral Audio Signal Processing". The delay line gathers two samples per output
sample where the original builds a [batch, time, max_length] buffer. The stereo and feedback effects
of the proxy are in `dsp.delays` and `dsp.reverbs`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unmixer_core.ddsp.core import fft_convolve


def apply_window_to_impulse_response(
    impulse_response: Float[Tensor, "*batch taps"], window_size: int = 0, causal: bool = False
) -> Float[Tensor, "*batch size"]:
    """Hann-window a zero-phase impulse response (its centre at sample 0) and shift it to linear
    phase.

    window_size: 0 (or more than there are taps) keeps them all; otherwise the response is trimmed
    to it. causal: the input's centre is already in the middle.
    """
    taps = impulse_response.shape[-1]
    response = impulse_response if causal else torch.fft.fftshift(impulse_response, dim=-1)
    if window_size <= 0 or window_size >= taps:
        return response * _hann(taps, response)
    # The original lays the second half of the window on taps 0, 1, ... and cuts two samples off its
    # start.
    half = (window_size + 1) // 2
    start = taps // 2 - half + 2
    window = F.pad(_hann(window_size, response)[2:], (0, 2 * half + 1 - window_size))
    return response[..., start : start + 2 * half - 1] * window


def frequency_impulse_response(
    magnitudes: Float[Tensor, "*batch bins"], window_size: int = 0
) -> Float[Tensor, "*batch taps"]:
    """Windowed linear-phase impulse response of a magnitude response.

    magnitudes: linear gain at equally spaced frequencies from 0 Hz to Nyquist.
    """
    response = torch.fft.irfft(torch.complex(magnitudes, torch.zeros_like(magnitudes)))
    return apply_window_to_impulse_response(response, window_size)


def frequency_filter(
    audio: Float[Tensor, "batch time"],
    magnitudes: Float[Tensor, "batch *frames bins"],
    window_size: int = 0,
    padding: str = "same",
) -> Float[Tensor, "batch out"]:
    """Filter by frequency sampling, with one magnitude response or one per frame.

    magnitudes: linear gain at equally spaced frequencies from 0 Hz to Nyquist.
    """
    return fft_convolve(audio, frequency_impulse_response(magnitudes, window_size), padding=padding)


def sinc_impulse_response(
    cutoff_frequency: Float[Tensor, "*batch 1"],
    window_size: int = 512,
    sample_rate: int | None = None,
    high_pass: bool = False,
) -> Float[Tensor, "*batch taps"]:
    """Hamming-windowed sinc low-pass, or its complement, with 2 * (window_size // 2) + 1 taps.

    The low-pass has unit gain at 0 Hz.

    cutoff_frequency: in Hz when `sample_rate` is given, otherwise as a share of Nyquist, 0 ... 1.
    """
    cutoff = cutoff_frequency if sample_rate is None else cutoff_frequency * (2.0 / sample_rate)
    half = window_size // 2
    index = torch.arange(-half, half + 1, dtype=cutoff.dtype, device=cutoff.device)
    window = torch.hamming_window(
        2 * half + 1, periodic=False, dtype=cutoff.dtype, device=cutoff.device
    )
    response = window * torch.sinc(cutoff * index)
    response = response / response.sum(-1, keepdim=True).abs()
    return (index == 0).to(response.dtype) - response if high_pass else response


def sinc_filter(
    audio: Float[Tensor, "batch time"],
    cutoff_frequency: Float[Tensor, "batch *frames 1"],
    window_size: int = 512,
    sample_rate: int | None = None,
    padding: str = "same",
    high_pass: bool = False,
) -> Float[Tensor, "batch out"]:
    """Windowed-sinc low-pass or high-pass with a constant or frame-rate cutoff.

    See `sinc_impulse_response`.
    """
    response = sinc_impulse_response(cutoff_frequency, window_size, sample_rate, high_pass)
    return fft_convolve(audio, response, padding=padding)


def variable_length_delay(
    audio: Float[Tensor, "batch time"], phase: Float[Tensor, "batch time 1"], max_length: int = 512
) -> Float[Tensor, "batch time"]:
    """Delay of phase * max_length samples, 0 <= phase < 1, linearly interpolated.

    There is silence before the first sample.
    As in the original, the delay line is read like a wavetable: beyond max_length - 1 samples it
    wraps round towards delay 0. Keep phase <= 1 - 1 / max_length for a plain delay.
    """
    delay = phase[..., 0] * max_length
    whole = delay.detach().floor()
    line = F.pad(audio, (max_length - 1, 0))
    now = torch.arange(audio.shape[1], device=audio.device) + max_length - 1
    tap = whole.long() % max_length
    early = torch.gather(line, 1, now - tap)
    late = torch.gather(line, 1, now - (tap + 1) % max_length)
    return torch.lerp(early, late, delay - whole)


def mod_delay(
    audio: Float[Tensor, "batch time"],
    gain: Float[Tensor, "batch time 1"],
    phase: Float[Tensor, "batch time 1"],
    center_ms: float | Float[Tensor, ""] = 15.0,
    depth_ms: float | Float[Tensor, ""] = 10.0,
    sample_rate: int = 16000,
    add_dry: bool = True,
) -> Float[Tensor, "batch time"]:
    """Modulated delay: chorus, flanger, vibrato.

    The result is audio + gain * audio delayed by center_ms + phase * depth_ms.
    phase: 0 ... 1 at audio rate. gain: linear, of the wet path. center_ms and depth_ms may be
    tensors with gradient.
    """
    longest_ms = center_ms + depth_ms
    fixed_ms = longest_ms.detach() if isinstance(longest_ms, Tensor) else longest_ms
    max_length = int(sample_rate / 1000.0 * float(fixed_ms))
    position = (center_ms + phase * depth_ms) / longest_ms
    wet = gain[..., 0] * variable_length_delay(audio, position, max_length)
    return wet + audio if add_dry else wet


def reverb(
    audio: Float[Tensor, "batch time"], ir: Float[Tensor, "#batch taps *one"], add_dry: bool = True
) -> Float[Tensor, "batch time"]:
    """Convolution reverb whose impulse response is a parameter.

    The response's first sample is masked, because the dry signal takes its place.
    ir: [batch, taps] or [batch, taps, 1]; a batch of 1 is shared.
    """
    taps = ir[..., 0] if ir.ndim == 3 else ir
    masked = F.pad(taps[:, 1:], (1, 0))
    wet = fft_convolve(audio, masked, padding="same", delay_compensation=0)
    return wet + audio if add_dry else wet


def _hann(size: int, like: Tensor) -> Tensor:
    """TensorFlow's Hann window: periodic for even sizes, symmetric for odd ones."""
    return torch.hann_window(size, periodic=size % 2 == 0, dtype=like.dtype, device=like.device)
