"""Does the proxy rank candidates as the host does?

Spearman's ρ over perturbed patches of one target, median over targets.

    python -m benchmarks.proxy.ranking [--proxy models/proxy] [--targets 12] [--perturbed 64]
    [--phase full]

A target is the host's render of a patch; its candidates are 64 patches whose audible knobs lie a
little elsewhere, by a spread drawn anew for each (so that there are near and far ones). Both
distances are MSS to the target's sound at the proxy's rate: of the host's render of a candidate,
and of the proxy's sound of it, as `finetune.rank` orders candidates. Bound: ≥ 0.9. Beside it the
level-sensitive distance that training descends, and the median over targets of the host's own
spread. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.bound import held
from unmixer_core import config, sampling
from unmixer_core.audio import resample
from unmixer_core.dsp import spectral
from unmixer_core.inference import finetune
from unmixer_core.live.renderer import Renderer
from unmixer_core.pipeline import machine
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.proxy.twin import ProxyModule
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK

SPREADS = (0.01, 0.3)
BATCH = 8


def perturbed(patch: Patch, count: int, seed: int) -> list[Patch]:
    """Patches around one: every audible knob moved by a normal deviate whose spread is drawn
    log-uniformly for each patch.
    """
    draw = np.random.default_rng([seed, 91])
    result = []
    for _ in range(count):
        spread = float(np.exp(draw.uniform(*np.log(SPREADS))))
        noise = draw.normal(0.0, spread, RACK.n_knobs) * patch.active_knobs
        result.append(
            replace(patch, knobs=np.clip(patch.knobs + noise, 0.0, 1.0).astype(np.float32))
        )
    return result


def sounds_of(proxy: ProxyModule, patches: Sequence[Patch], clip_s: float) -> torch.Tensor:
    """The proxy's sounds of patches [n, 2, time]."""
    parts = [finetune.batch(patches[i : i + BATCH]) for i in range(0, len(patches), BATCH)]
    with torch.no_grad():
        return torch.cat([part.render(proxy, part.knobs, clip_s) for part in parts])


def agreement(
    target: np.ndarray, host: Sequence[np.ndarray], made: torch.Tensor, rate: int
) -> dict[str, float]:
    """ρ between distances to one target [2, time] of the host's and the proxy's sounds, by both
    distances.
    """
    length = min(target.shape[-1], made.shape[-1])
    wanted = torch.from_numpy(target[None, :, :length])
    heard = torch.from_numpy(np.stack([sound[:, :length] for sound in host]))
    found: dict[str, float] = {}
    for name, distance in (("mss", spectral.mss), ("multiscale", spectral.multiscale_spectral)):
        with torch.no_grad():
            by_host, by_proxy = (
                distance(side[..., :length], wanted, rate).numpy() for side in (heard, made)
            )
        found[name] = float(spearmanr(by_host, by_proxy).statistic)
        found[f"{name}_spread"] = float(np.quantile(by_host, 0.9) - np.quantile(by_host, 0.1))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--proxy", type=Path, default=Path("models/proxy"))
    parser.add_argument("--targets", type=int, default=12)
    parser.add_argument("--perturbed", type=int, default=64)
    parser.add_argument("--phase", choices=("dry", "nonlinear", "full"), default="full")
    options = parser.parse_args()
    params = config.load(Path(__file__).resolve().parents[2] / "params.yaml")
    torch.set_num_threads(machine.threads())
    proxy = RackProxy.load(options.proxy).eval()
    rate, rows = int(proxy.sample_rate), []
    with Renderer(params.audio) as host:
        for i in range(options.targets):
            patch = sampling.draw(options.phase, "test", i, params.sample.test_seed, params.sample)
            candidates = perturbed(patch, options.perturbed, i)
            clips = host.render([patch, *candidates])
            heard = [n for n, clip in enumerate(clips) if isinstance(clip, np.ndarray)]
            if not heard or heard[0] != 0:
                continue
            sounds = [resample(clips[n], params.audio.sample_rate, rate) for n in heard]
            made = sounds_of(proxy, [candidates[n - 1] for n in heard[1:]], params.audio.clip_s)
            rows.append(
                agreement(sounds[0], sounds[1:], made, rate)
                | {"effects": float(len(patch.effects))}
            )
            print(json.dumps({key: round(value, 3) for key, value in rows[-1].items()}), flush=True)
    figures = {
        "targets": len(rows),
        "candidates": options.perturbed,
        "phase": options.phase,
        "spearman_mss": float(np.median([row["mss"] for row in rows])),
        "spearman_mss_worst_fifth": float(np.quantile([row["mss"] for row in rows], 0.2)),
        "spearman_multiscale": float(np.median([row["multiscale"] for row in rows])),
        "host_spread_db": float(np.median([row["mss_spread"] for row in rows])),
    }
    print(json.dumps(figures | {"bars": held(figures, {"spearman_mss": (">=", 0.9)})}))


if __name__ == "__main__":
    main()
