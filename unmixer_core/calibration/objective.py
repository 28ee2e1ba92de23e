"""What calibration minimises, and the gradient that each clip contributes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from unmixer_core import config
from unmixer_core.calibration.material import Material, Rows
from unmixer_core.dsp import spectral
from unmixer_core.proxy.proxy import RackProxy

#: Least peak by which a clip is normalised: a silent clip stays near silence.
QUIET = 1e-3
#: Amplitude re the clip's peak below which log magnitudes flatten.
SPECTRAL_FLOOR = 1e-4


def distance(
    proxy_audio: Float[Tensor, "batch 2 _proxy_time"],
    host_audio: Float[Tensor, "batch 2 _host_time"],
    sample_rate: int,
    n_ffts: tuple[int, ...],
) -> Float[Tensor, "batch"]:
    """Level-sensitive multi-scale spectral distance, both sides divided by the host clip's peak."""
    length = min(proxy_audio.shape[-1], host_audio.shape[-1])
    peak = host_audio.abs().amax(dim=(1, 2), keepdim=True).clamp_min(QUIET)
    settings = spectral.SpectralSettings(fft_sizes=tuple(n_ffts), floor=SPECTRAL_FLOOR)
    return spectral.multiscale_spectral(
        proxy_audio[..., :length] / peak, host_audio[..., :length] / peak, sample_rate, settings
    )


def clip_distance(
    proxy: RackProxy, material: Material, rows: Sequence[int] | Rows, n_ffts: tuple[int, ...]
) -> Float[Tensor, "rows"]:
    """`distance` of the proxy's sound to the host's clip, for each row."""
    device = next(proxy.parameters()).device
    sound = proxy(*material.patches(rows, device))
    return distance(sound, material.audio(rows, device), material.sample_rate, n_ffts)


def held_out_loss(
    proxy: RackProxy, material: Material, rows: Rows, settings: config.ProxyFit
) -> float:
    """Mean distance over clips that the optimiser does not see."""
    total = 0.0
    with torch.no_grad():
        for part in np.array_split(rows, max(1, len(rows) // settings.batch)):
            total += float(clip_distance(proxy, material, part, settings.n_ffts).sum())
    return total / len(rows)


def fitted_parameters(proxy: RackProxy) -> list[tuple[str, nn.Parameter]]:
    """Parameters that calibration fits, with their names.

    Parameters that were measured on the host are left out: Adam's steps, which all have about the
    same size, would bury quiet harmonics and late reflections.
    """
    measured = proxy.measured_parameters()
    return [(name, p) for name, p in proxy.named_parameters() if name not in measured]


def add_normalised_gradient(proxy: RackProxy, loss: Float[Tensor, ""]) -> None:
    """Add the gradient of one clip's loss to `.grad`, scaled to unit norm in every part.

    Gradients through a synthesizer differ by many orders of magnitude. Without the scaling, one
    clip would outweigh all others of the batch. A part whose gradient is zero or not finite adds
    nothing.
    """
    named = fitted_parameters(proxy)
    gradients = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    for part in proxy.part_prefixes():
        moved = []
        for (name, parameter), gradient in zip(named, gradients, strict=True):
            if gradient is not None and name.startswith(part):
                moved.append((parameter, gradient))
        if not moved:
            continue
        norm = torch.stack([gradient.norm() for _, gradient in moved]).norm()
        if not torch.isfinite(norm) or norm <= 0:
            continue
        for parameter, gradient in moved:
            unit = gradient / norm
            parameter.grad = unit if parameter.grad is None else parameter.grad + unit
