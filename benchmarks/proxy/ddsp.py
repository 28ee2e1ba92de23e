"""Cost of the DDSP functions and metrics beside the obvious way of doing the same, per 2 s clip at
44.1 kHz.

    python -m benchmarks.proxy.ddsp [--threads 1] [--batch 8] [--repeats 5]

Each row: milliseconds per clip, forward and forward + backward, ours and the peer's (best of the
repeats, taken in turns). The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import signal
from torch import Tensor

from unmixer_core import ddsp
from unmixer_core.ddsp.core import sequential_cumsum
from unmixer_core.dsp import spectral
from unmixer_core.features.torchaudio_cpu import torchaudio
from unmixer_core.metrics import sound
from unmixer_core.scoring import mss_index

RATE, N = 44100, 88200
N_BANK = 2000


@dataclass(frozen=True)
class OperationCase:
    """Two ways to the same result; `inputs` of both receive gradients where `backward` is on."""

    name: str
    peer_name: str
    ours: Callable[..., Tensor]
    peer: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    backward: bool = True


def cases(batch: int) -> list[OperationCase]:
    """The rows of the table."""
    made = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return 0.1 * torch.randn(*shape, generator=made)

    audio, response = noise(batch, N), noise(batch, RATE)
    tables, phase = noise(batch, 16, 256), torch.rand(batch, N, 1, generator=made)
    controls = 200.0 + noise(batch, 16, 1), noise(batch, 16, 1), tables
    return [
        OperationCase(
            "convolution, 1 s response",
            "power-of-two FFT",
            causal_convolve,
            convolve_pow2,
            (audio, response),
        ),
        OperationCase(
            "convolution, 1 s response",
            "torchaudio",
            causal_convolve,
            convolve_torchaudio,
            (audio, response),
        ),
        OperationCase(
            "convolution, 1 s response",
            "scipy",
            causal_convolve,
            convolve_scipy,
            (audio, response),
            False,
        ),
        OperationCase("magnitudes 1024/256", "torch.stft", magnitudes, magnitudes_torch, (audio,)),
        OperationCase(
            "3 mel resolutions, stereo",
            "torch.stft",
            distance,
            distance_torch,
            (noise(batch, 2, N),),
        ),
        OperationCase(
            "wavetable, 16 x 256, 0.25 s", "dense tables", wavetable, wavetable_dense, controls
        ),
        OperationCase(
            "modulated delay, 512 samples",
            "buffer, on 2 % of it",
            delay,
            delay_dense,
            (audio, 0.9 * phase),
        ),
        OperationCase(
            "control upsampling, 16 channels",
            "F.interpolate",
            upsample,
            upsample_torch,
            (noise(batch, 100, 16),),
        ),
    ]


def causal_convolve(audio: Tensor, response: Tensor) -> Tensor:
    return ddsp.fft_convolve(audio, response, delay_compensation=0)


def convolve_pow2(audio: Tensor, response: Tensor) -> Tensor:
    size = 1 << (audio.shape[-1] + response.shape[-1] - 2).bit_length()
    return torch.fft.irfft(torch.fft.rfft(audio, size) * torch.fft.rfft(response, size), size)[
        :, : audio.shape[-1]
    ]


def convolve_torchaudio(audio: Tensor, response: Tensor) -> Tensor:
    return torchaudio.functional.fftconvolve(audio, response)[:, : audio.shape[-1]]


def convolve_scipy(audio: Tensor, response: Tensor) -> Tensor:
    return torch.from_numpy(
        signal.fftconvolve(audio.numpy(), response.numpy(), axes=1)[:, : audio.shape[-1]]
    )


def magnitudes(audio: Tensor) -> Tensor:
    return spectral.stft_magnitude(audio, 1024, 256)


def magnitudes_torch(audio: Tensor, size: int = 1024) -> Tensor:
    window = torch.hann_window(size)
    spectrum = torch.stft(
        audio, size, size // 4, window=window, pad_mode="constant", return_complex=True
    )
    return spectrum.abs().transpose(1, 2)


def distance(audio: Tensor) -> Tensor:
    return spectral.multiscale_spectral(audio, spectral.prepare(audio.detach().flip(-1), RATE))


def distance_torch(audio: Tensor) -> Tensor:
    """The same loss as most code bases write it."""
    settings, target, loss = spectral.SpectralSettings(), audio.detach().flip(-1), torch.zeros(())
    for size, n_mels in zip(settings.fft_sizes, (32, 64, 128), strict=True):
        bank = spectral.mel_bank(size, n_mels, RATE)
        bank = bank / bank.sum(0) * 4.0 / size
        rows = [
            torch.stack([x.sum(1) / 2, (x[:, 0] - x[:, 1]) / 2], 1).flatten(0, 1)
            for x in (audio, target)
        ]
        a, b = (
            (magnitudes_torch(x, size) @ bank).reshape(audio.shape[0], -1, n_mels) for x in rows
        )
        loss = loss + (a - b).abs().mean((1, 2)) / (b.mean((1, 2)) + settings.floor)
        loss = loss + (torch.log(a + settings.floor) - torch.log(b + settings.floor)).abs().mean(
            (1, 2)
        )
    return loss / 3.0


def wavetable(frequencies: Tensor, amplitudes: Tensor, tables: Tensor) -> Tensor:
    return ddsp.wavetable_synthesis(frequencies, amplitudes, tables, N // 8, RATE)


def wavetable_dense(frequencies: Tensor, amplitudes: Tensor, tables: Tensor) -> Tensor:
    """Tables brought to audio rate first, as the original does (an eighth of a clip.

    A whole one takes 90 MB).
    """
    n = N // 8
    phase = sequential_cumsum(ddsp.resample(frequencies, n)[..., 0] / RATE) % 1.0
    dense = ddsp.resample(tables, n)
    return ddsp.resample(amplitudes, n, method="window")[..., 0] * ddsp.linear_lookup(
        phase[..., None], dense
    )


def delay(audio: Tensor, phase: Tensor) -> Tensor:
    return ddsp.variable_length_delay(audio, phase, max_length=512)


def delay_dense(audio: Tensor, phase: Tensor) -> Tensor:
    """Triangular weights over the whole delay line at every sample, as the original does, on 2 %
    of the clip.
    """
    line, n_part = F.pad(audio, (511, 0)), 90
    taps = torch.arange(512.0)
    parts = []
    for start in range(0, 20 * n_part, n_part):
        buffer = line[:, start : start + n_part + 511].unfold(1, 512, 1).flip(-1)
        weights = F.relu(1.0 - (phase[:, start : start + n_part] * 512.0 - taps).abs())
        parts.append((buffer * weights).sum(-1))
    return torch.cat(parts, dim=1)


def upsample(controls: Tensor) -> Tensor:
    return ddsp.resample(controls, N)


def upsample_torch(controls: Tensor) -> Tensor:
    return F.interpolate(controls.transpose(1, 2), N, mode="linear").transpose(1, 2)


def run(function: Callable[..., Tensor], inputs: tuple[Tensor, ...], backward: bool) -> float:
    """Seconds of one call."""
    leaves = [x.clone().requires_grad_(backward) for x in inputs]
    start = time.perf_counter()
    with torch.set_grad_enabled(backward):
        out = function(*leaves)
        if backward:
            out.sum().backward()
    return time.perf_counter() - start


def measure(case: OperationCase, batch: int, repeats: int) -> dict[str, float]:
    """Best milliseconds per clip of both sides, in turns."""
    found: dict[str, float] = {}
    for suffix, backward in (("forward", False), ("backward", True))[: 1 + case.backward]:
        best = [float("inf")] * 2
        for _ in range(repeats + 1):
            for i, function in enumerate((case.ours, case.peer)):
                best[i] = min(best[i], run(function, case.inputs, backward))
        found |= {
            f"ours_{suffix}_ms": 1e3 * best[0] / batch,
            f"peer_{suffix}_ms": 1e3 * best[1] / batch,
        }
    return found


def measure_metrics(repeats: int) -> dict[str, float]:
    """Milliseconds per pair of sounds, and per search among N_BANK renders."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 2, N)).astype(np.float32)
    names = ("mss", "wmfcc", "sot", "rms_cosine", "level_mel_l1_db")
    calls: dict[str, Callable[[], object]] = {
        n: lambda n=n: getattr(sound, n)(a, b, RATE) for n in names
    }
    query = sound.mss_features(a, RATE)
    tilt = np.linspace(0.5, 1.5, N_BANK, dtype=np.float32)
    bank = mss_index.stack_features(query * g for g in tilt)
    index = mss_index.MssIndex(bank)
    calls |= {f"search_full_{N_BANK}": lambda: sound.mss_from_features(query, bank)}
    calls |= {f"search_index_{N_BANK}": lambda: index.nearest(query, 5)}
    best = {}
    for name, call in calls.items():
        call()
        starts = [(time.perf_counter(), call(), time.perf_counter()) for _ in range(repeats)]
        best[f"{name}_ms"] = 1e3 * min(end - begin for begin, _, end in starts)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for case in cases(args.batch):
        found = measure(case, args.batch, args.repeats)
        rows.append(
            {
                "name": case.name,
                "peer": case.peer_name,
                **{k: round(v, 3) for k, v in found.items()},
            }
        )
        print(
            f"{case.name:34} {case.peer_name:22}",
            "  ".join(f"{k} {v:8.2f}" for k, v in found.items()),
        )
    judged = {k: round(v, 3) for k, v in measure_metrics(args.repeats).items()}
    print("  ".join(f"{k} {v:.2f}" for k, v in judged.items()))
    print(
        json.dumps(
            {
                "threads": args.threads,
                "batch": args.batch,
                "clip_s": N / RATE,
                "rows": rows,
                "metrics": judged,
            }
        )
    )


if __name__ == "__main__":
    main()
