"""Does the proxy's gradient point where the host's does? Sign agreement with finite differences through the host.

    python -m benchmarks.proxy_gradients [--proxy models/proxy] [--patches 12] [--step 0.04]

For a patch θ and a target (the host's render of a nearby patch) the loss is the multi-scale spectral distance. Each heard
knob is moved by ± step on the host; the sign of that difference is compared with the proxy's derivative at θ. Bound:
≥ 85 % of cases agree. Beside it: the proxy's own finite difference over the same step, which is the best a gradient could do
if the proxy were the host. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.proxy import arguments
from unmixer_core import config, stage
from unmixer_core.audio import resample
from unmixer_core.ddsp import spectral
from unmixer_core.live.pool import RenderFailure
from unmixer_core.live.render import Renderer
from unmixer_core.proxy.proxy import Proxy
from unmixer_core.schema import sampling
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK

NEARBY = 0.15
CLEAR_SHARE = 0.02
"""A case is clear when moving the knob changes the host's loss by more than this share of it."""


def moved(patch: Patch, knob: int, by: float) -> Patch:
    """The patch with one knob moved, kept within its range."""
    knobs = patch.knobs.copy()
    knobs[knob] = np.clip(knobs[knob] + by, 0.0, 1.0)
    return replace(patch, knobs=knobs)


def nearby(patch: Patch, seed: int) -> Patch:
    """A patch whose heard knobs all lie a little elsewhere."""
    noise = np.random.default_rng([seed, 77]).normal(0.0, NEARBY, RACK.n_knobs)
    return replace(patch, knobs=np.clip(patch.knobs + noise * patch.active_knobs, 0.0, 1.0).astype(np.float32))


def distances(sounds: torch.Tensor, target: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """[batch] distances to one target."""
    return spectral.multiscale_spectral(sounds, target, sample_rate)


class Case:
    """One patch, its target, and the moves of every heard knob."""

    def __init__(self, patch: Patch, seed: int, step: float) -> None:
        self.patch, self.target = patch, nearby(patch, seed)
        self.knobs = [i for i in np.flatnonzero(patch.active_knobs) if not RACK.knobs[i].knob.integer]
        self.moves = [moved(patch, i, sign * step) for i in self.knobs for sign in (1.0, -1.0)]

    @property
    def renders(self) -> list[Patch]:
        return [self.target, self.patch, *self.moves]


def compare(case: Case, clips: list[np.ndarray], proxy: Proxy, audio_rate: int) -> dict[int, tuple[bool, bool, bool]]:
    """By knob: does the derivative agree, does the proxy's own finite difference agree, is the case clear."""
    host = torch.from_numpy(np.stack([resample(clip, audio_rate, proxy.sample_rate) for clip in clips]))
    target, sounds = host[:1], host[1:]
    by_host = distances(sounds, target, proxy.sample_rate)
    batch = arguments([case.patch])
    knobs = batch[0].requires_grad_()
    loss = distances(proxy(knobs, *batch[1:])[..., : target.shape[-1]], target, proxy.sample_rate).sum()
    (slope,) = torch.autograd.grad(loss, knobs)
    with torch.inference_mode():
        by_proxy = distances(proxy(*arguments(case.moves))[..., : target.shape[-1]], target, proxy.sample_rate)
    result = {}
    for n, knob in enumerate(case.knobs):
        difference = float(by_host[1 + 2 * n] - by_host[2 + 2 * n])
        twin = float(by_proxy[2 * n] - by_proxy[2 * n + 1])
        clear = abs(difference) > CLEAR_SHARE * float(by_host[0])
        result[knob] = (difference * float(slope[0, knob]) > 0, difference * twin > 0, clear)
    return result


def share(values: list[bool]) -> float:
    return float(np.mean(values)) if values else float("nan")


def clear_share_of(rows: list[tuple[bool, bool, bool]]) -> list[float]:
    """Agreement over the clear cases, and how many they are."""
    clear = [row[0] for row in rows if row[2]]
    return [round(share(clear), 3), len(clear)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proxy", type=Path, default=Path("models/proxy"))
    parser.add_argument("--patches", type=int, default=12)
    parser.add_argument("--step", type=float, default=0.04)
    options = parser.parse_args()
    params = config.load(Path(__file__).resolve().parents[1] / "params.yaml")
    torch.set_num_threads(stage.threads())
    proxy = Proxy.load(options.proxy)
    drawn = [sampling.draw("full", "test", i, params.sample.test_seed, params.sample) for i in range(options.patches)]
    cases = [Case(patch, i, options.step) for i, patch in enumerate(drawn)]
    with Renderer(params.audio) as host:
        clips = host.render([patch for case in cases for patch in case.renders])
    rows: dict[str, list[tuple[bool, bool, bool]]] = defaultdict(list)
    by_knob: dict[str, list[tuple[bool, bool, bool]]] = defaultdict(list)
    for case in cases:
        mine, clips = clips[: len(case.renders)], clips[len(case.renders) :]
        if any(isinstance(clip, RenderFailure) for clip in mine):
            continue
        for knob, row in compare(case, mine, proxy, params.audio.sample_rate).items():
            rows[RACK.devices[RACK.device_of_knob[knob]].key].append(row)
            by_knob[RACK.knobs[knob].id].append(row)
    every = [row for device in rows.values() for row in device]
    figures = {
        "cases": len(every),
        "agree": share([row[0] for row in every]),
        "agree_clear": share([row[0] for row in every if row[2]]),
        "clear_share": share([row[2] for row in every]),
        "finite_difference_agree": share([row[1] for row in every]),
        "finite_difference_agree_clear": share([row[1] for row in every if row[2]]),
        "agree_by_device": {key: round(share([row[0] for row in device]), 3) for key, device in rows.items()},
        "agree_clear_by_device": {key: clear_share_of(device) for key, device in rows.items()},
        "most_disagreements": dict(
            sorted(
                ((key, sum(row[2] and not row[0] for row in knob)) for key, knob in by_knob.items()),
                key=lambda x: -x[1],
            )[:8]
        ),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
