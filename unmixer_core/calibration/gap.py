"""Distance between proxy and host, by device and by chain length.

The distance between random pairs of host clips is reported as the baseline.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from unmixer_core.calibration.material import Material, Rows
from unmixer_core.dsp import spectral
from unmixer_core.proxy.twin import ProxyModule
from unmixer_core.schema.chain import MAX_EFFECTS
from unmixer_core.schema.rack import RACK

#: Clips that are ranked against each other, at most: the cost grows with the square.
RANKED = 64
BATCH = 8
#: Keeps the level of silence finite.
TINY = 1e-9


def gap_rows(material: Material, per_row: int, seed: int) -> dict[str, Rows]:
    """Held-out clips that calibration did not use, by row of the report.

    Rows are: dry, full, each chain length from 1 up, each effect (clips whose chain holds it).
    """
    valid = material.held_out(MAX_EFFECTS)
    lengths = material.lengths[valid]
    chains = material.clips.patches.chain[valid]
    groups = {"dry": valid[lengths == 0], "full": valid[lengths > 0]}
    for n in range(1, int(lengths.max(initial=0)) + 1):
        groups[f"length_{n}"] = valid[lengths == n]
    for i, key in enumerate(RACK.effect_keys):
        groups[key] = valid[(chains == i).any(axis=1)]
    draw = np.random.default_rng(seed)
    picked = {}
    for key, rows in groups.items():
        if len(rows) > 1:  # a single clip has no pair to compare with
            picked[key] = np.sort(draw.permutation(rows)[:per_row])
    return picked


def gap_report(proxy: ProxyModule, material: Material, per_row: int, seed: int) -> dict[str, float]:
    """Medians over clips, for every row of `gap_rows`.

    `<row>.mss` is between proxy and host, `<row>.random` between random host clips of the row,
    `<row>.level_db` the error of the level. `dry.spearman` and `full.spearman` compare rankings:
    the correlation between proxy and host in how they order a row's other clips by their MSS to a
    target, median over targets.
    """
    groups = gap_rows(material, per_row, seed)
    if not groups:
        return {}
    every = np.unique(np.concatenate(list(groups.values())))
    host, twin, level_db = _features(proxy, material, every)
    report: dict[str, float] = {}
    for key, rows in groups.items():
        at = torch.as_tensor(np.searchsorted(every, rows), device=host.device)
        of_host = host[at]
        of_proxy = twin[at]
        errors = (of_host - of_proxy).abs().mean(dim=1)
        apart = _distances(of_host, of_host)
        others = ~np.eye(len(rows), dtype=bool)
        report[f"{key}.mss"] = float(errors.median())
        report[f"{key}.random"] = float(np.median(apart[others]))
        report[f"{key}.level_db"] = float(level_db[at].median())
        if key in ("dry", "full") and len(rows) > 3:
            across = _distances(of_host, of_proxy)
            report[f"{key}.spearman"] = rank_agreement(
                apart[:RANKED, :RANKED], across[:RANKED, :RANKED]
            )
    return report


def rank_agreement(by_host: NDArray[np.floating], by_proxy: NDArray[np.floating]) -> float:
    """Median over targets (rows) of Spearman's ρ between two matrices of distances.

    The target itself (the diagonal) is left out.
    """
    others = ~np.eye(len(by_host), dtype=bool)
    rhos = []
    for host, proxy, other in zip(by_host, by_proxy, others, strict=True):
        rhos.append(spearmanr(host[other], proxy[other]).statistic)
    return float(np.median(rhos))


def _features(
    proxy: ProxyModule, material: Material, rows: Rows
) -> tuple[Float[Tensor, "rows features"], Float[Tensor, "rows features"], Float[Tensor, "rows"]]:
    """MSS vectors of host and proxy, and the absolute error of the RMS level in dB."""
    device = next(proxy.parameters()).device
    host = []
    twin = []
    errors = []
    with torch.no_grad():
        for part in np.array_split(rows, max(1, len(rows) // BATCH)):
            of_host = material.audio(part, device)
            of_proxy = proxy(*material.patches(part, device))
            length = min(of_host.shape[-1], of_proxy.shape[-1])
            host.append(mss_vector(of_host[..., :length], material.sample_rate))
            twin.append(mss_vector(of_proxy[..., :length], material.sample_rate))
            errors.append((_level_db(of_proxy) - _level_db(of_host)).abs())
    return torch.cat(host), torch.cat(twin), torch.cat(errors)


def _level_db(audio: Float[Tensor, "batch 2 time"]) -> Float[Tensor, "batch"]:
    """RMS level."""
    return 20.0 * torch.log10(audio.square().mean(dim=(1, 2)).sqrt() + TINY)


def mss_vector(
    audio: Float[Tensor, "batch 2 time"], sample_rate: int
) -> Float[Tensor, "batch features"]:
    """Features whose mean absolute difference is the MSS in dB."""
    spectra = spectral.mss_spectra(spectral.mix_down(audio), sample_rate)
    scales = [spectrum.flatten(1) for spectrum in spectra]
    total = sum(scale.shape[1] for scale in scales)
    weighted = [scale * (total / (len(scales) * scale.shape[1])) for scale in scales]
    return torch.cat(weighted, dim=1)


def _distances(
    a: Float[Tensor, "rows features"], b: Float[Tensor, "columns features"]
) -> NDArray[np.floating]:
    """Mean absolute differences [rows, columns]."""
    return np.stack([(row - b).abs().mean(dim=1).numpy(force=True) for row in a])
