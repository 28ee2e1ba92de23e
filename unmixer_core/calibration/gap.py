"""How far the proxy is from the host.

By device and by chain length, beside what two random sounds are apart.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from unmixer_core.calibration.calibrate import Material, Rows
from unmixer_core.dsp import spectral
from unmixer_core.proxy.twin import ProxyModule
from unmixer_core.schema.rack import RACK

RANKED = 64
BATCH = 8


def gap_rows(material: Material, per_row: int, seed: int) -> dict[str, Rows]:
    """Clips that neither fitted nor judged the proxy, by what is reported.

    Dry, chain lengths 1.., and each effect (clips whose chain holds it).
    """
    valid = material.held_out(8)
    lengths, chains = material.lengths[valid], material.clips.patches.chain[valid]
    groups = {"dry": valid[lengths == 0], "full": valid[lengths > 0]}
    groups |= {
        f"length_{n}": valid[lengths == n] for n in range(1, int(lengths.max(initial=0)) + 1)
    }
    groups |= {key: valid[(chains == i).any(axis=1)] for i, key in enumerate(RACK.effect_keys)}
    draw = np.random.default_rng(seed)
    return {
        key: np.sort(draw.permutation(rows)[:per_row])
        for key, rows in groups.items()
        if len(rows) > 1
    }


def gap_report(proxy: ProxyModule, material: Material, per_row: int, seed: int) -> dict[str, float]:
    """Medians: `<row>.mss` proxy ↔ host, `<row>.random` between random host clips of the row,
    `<row>.level_db` the level's error.

    Also `dry.spearman` and `full.spearman`: for a target, how well the proxy ranks the row's other
    clips (MSS to the target) as the host does, median over targets.
    """
    groups = gap_rows(material, per_row, seed)
    every = np.unique(np.concatenate(list(groups.values()))) if groups else np.empty(0, np.int64)
    host, twin, level_db = _features(proxy, material, every)
    report: dict[str, float] = {}
    for key, rows in groups.items():
        at = torch.as_tensor(np.searchsorted(every, rows), device=host.device)
        real, made = host[at], twin[at]
        own, apart = (real - made).abs().mean(dim=1), _distances(real, real)
        off = ~np.eye(len(rows), dtype=bool)
        report[f"{key}.mss"] = float(own.median())
        report[f"{key}.random"] = float(np.median(apart[off]))
        report[f"{key}.level_db"] = float(level_db[at].median())
        if key in ("dry", "full") and len(rows) > 3:
            report[f"{key}.spearman"] = rank_agreement(
                apart[:RANKED, :RANKED], _distances(real, made)[:RANKED, :RANKED]
            )
    return report


def rank_agreement(by_host: NDArray[np.floating], by_proxy: NDArray[np.floating]) -> float:
    """Median over targets (rows) of Spearman's ρ between two matrices of distances, the target
    itself left out.
    """
    others = ~np.eye(len(by_host), dtype=bool)
    rhos = [
        spearmanr(by_host[i][others[i]], by_proxy[i][others[i]]).statistic
        for i in range(len(by_host))
    ]
    return float(np.median(rhos))


def _features(proxy: ProxyModule, material: Material, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """MSS vectors [rows, features] of host and proxy, and the absolute error of the RMS level in
    dB [rows].
    """
    device = next(proxy.parameters()).device
    host, twin, errors = [], [], []
    with torch.no_grad():
        for some in np.array_split(rows, max(1, len(rows) // BATCH)):
            real, made = material.audio(some, device), proxy(*material.patches(some, device))
            length = min(real.shape[-1], made.shape[-1])
            host.append(mss_vector(real[..., :length], material.sample_rate))
            twin.append(mss_vector(made[..., :length], material.sample_rate))
            levels = [
                20.0 * torch.log10(x.square().mean(dim=(1, 2)).sqrt() + 1e-9) for x in (made, real)
            ]
            errors.append((levels[0] - levels[1]).abs())
    return torch.cat(host), torch.cat(twin), torch.cat(errors)


def mss_vector(audio: Tensor, sample_rate: int) -> Tensor:
    """[batch, features] whose mean absolute difference is the MSS in dB."""
    scales = [
        scale.flatten(1) for scale in spectral.mss_spectra(spectral.mix_down(audio), sample_rate)
    ]
    total = sum(scale.shape[1] for scale in scales)
    return torch.cat([scale * (total / (len(scales) * scale.shape[1])) for scale in scales], dim=1)


def _distances(a: Tensor, b: Tensor) -> NDArray[np.floating]:
    return np.stack([(row - b).abs().mean(dim=1).numpy(force=True) for row in a])
