"""Does the proxy's gradient point where the host's does?

Sign agreement with finite differences through the host.

    python -m benchmarks.proxy.gradients [--proxy models/proxy] [--patches 12] [--step 0.04]
        [--halves]

For a patch θ and a target (the host's render of a nearby patch) the loss is the multi-scale
spectral distance. Each audible knob is moved by ± step on the host; the sign of that central
difference is compared with the proxy's derivative at θ. Bound: ≥ 85 % of cases agree. A move that
leaves the host's loss exactly as it was (a decay that the note never reaches) has no sign and is
counted apart, as `unheard`: the embedded host renders the same patch to the same samples, so
nothing else is zero.

Beside it: the proxy's own difference over the same step, the best a gradient could do if the proxy
were the host. With --halves (twice the renders) also the host's own difference over half the step:
how well a local sign can be known at all. `by_change` splits the cases by how much of the loss the
host's move changes. `worst_knobs` counts [cases, wrong, wrong and clear]. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.bound import held
from benchmarks.proxy.speed import arguments
from unmixer_core import config, sampling
from unmixer_core.audio import resample
from unmixer_core.dsp import spectral
from unmixer_core.live.host import RenderFailure
from unmixer_core.live.renderer import Renderer
from unmixer_core.pipeline import machine
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.proxy.twin import ProxyModule
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK

NEARBY = 0.15
#: A case is clear when moving the knob changes the host's loss by more than this share of it.
CLEAR_SHARE = 0.02
#: Edges of `by_change`.
CHANGES = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, float("inf"))
WORST = 16
BARS = {"agree": (">=", 0.85)}


class GradientRow(NamedTuple):
    """One knob of one patch: whose sign is as the host's, and by which share of its loss the
    host moves.
    """

    agree: bool
    twin_agrees: bool
    half_agrees: bool | None
    change: float

    @property
    def clear(self) -> bool:
        return self.change > CLEAR_SHARE


def moved(patch: Patch, knob: int, by: float) -> Patch:
    """The patch with one knob moved within its range."""
    knobs = patch.knobs.copy()
    knobs[knob] = np.clip(knobs[knob] + by, 0.0, 1.0)
    return replace(patch, knobs=knobs)


def nearby(patch: Patch, seed: int) -> Patch:
    """A patch whose audible knobs all lie a little elsewhere."""
    noise = np.random.default_rng([seed, 77]).normal(0.0, NEARBY, RACK.n_knobs)
    return replace(
        patch, knobs=np.clip(patch.knobs + noise * patch.active_knobs, 0.0, 1.0).astype(np.float32)
    )


def distances(sounds: torch.Tensor, target: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """[batch] distances to one target."""
    return spectral.multiscale_spectral(sounds, target, sample_rate)


class GradientCase:
    """One patch, its target, and the moves of every audible knob.

    Up and down by a step, then (`halves`) by half of it.
    """

    def __init__(self, patch: Patch, seed: int, step: float, halves: bool = False) -> None:
        self.patch, self.target = patch, nearby(patch, seed)
        self.knobs = [
            i for i in np.flatnonzero(patch.active_knobs).tolist() if not RACK.knobs[i].knob.integer
        ]
        self.moves = [moved(patch, i, sign * step) for i in self.knobs for sign in (1.0, -1.0)]
        self.half_moves = [
            moved(patch, i, 0.5 * sign * step) for i in self.knobs for sign in (1.0, -1.0)
        ] * halves

    @property
    def renders(self) -> list[Patch]:
        return [self.target, self.patch, *self.moves, *self.half_moves]


def differences(losses: torch.Tensor) -> list[float]:
    """Up minus down, knob by knob."""
    return (losses[0::2] - losses[1::2]).tolist()


def compare(
    case: GradientCase, clips: list[np.ndarray], proxy: ProxyModule, audio_rate: int
) -> dict[int, GradientRow | None]:
    """By knob; None where the host's loss does not move at all."""
    host = torch.from_numpy(
        np.stack([resample(clip, audio_rate, proxy.sample_rate) for clip in clips])
    )
    target, sounds = host[:1], host[1:]
    by_host = distances(sounds, target, proxy.sample_rate)
    batch = arguments([case.patch])
    knobs = batch[0].requires_grad_()
    loss = distances(
        proxy(knobs, *batch[1:])[..., : target.shape[-1]], target, proxy.sample_rate
    ).sum()
    (slope,) = torch.autograd.grad(loss, knobs)
    with torch.inference_mode():
        by_proxy = distances(
            proxy(*arguments(case.moves))[..., : target.shape[-1]], target, proxy.sample_rate
        )
    n_moves = len(case.moves)
    whole, twin = differences(by_host[1 : 1 + n_moves]), differences(by_proxy)
    half: Sequence[float | None] = differences(by_host[1 + n_moves :]) or [None] * len(whole)
    return {
        knob: GradientRow(
            step * float(slope[0, knob]) > 0,
            step * by_twin > 0,
            None if by_half is None else step * by_half > 0,
            abs(step) / float(by_host[0]),
        )
        if step
        else None
        for knob, step, by_twin, by_half in zip(case.knobs, whole, twin, half, strict=True)
    }


def share(values: list[bool]) -> float:
    return float(np.mean(values)) if values else float("nan")


def only_clear(rows: list[GradientRow]) -> list[GradientRow]:
    return [row for row in rows if row.clear]


def agreement(rows: list[GradientRow]) -> list[float]:
    """Share that agree, and how many they are."""
    return [round(share([row.agree for row in rows]), 3), len(rows)]


def by_change(rows: list[GradientRow]) -> dict[str, list[float]]:
    """Agreement by how much of its loss the host moves."""
    ranges = [
        (low, high, [row for row in rows if low <= row.change < high])
        for low, high in pairwise(CHANGES)
    ]
    return {f"{low:g} to {high:g}": agreement(some) for low, high, some in ranges if some}


def worst(by_knob: dict[str, list[GradientRow]]) -> dict[str, list[int]]:
    """[cases, wrong, wrong and clear] of the knobs with most disagreements."""
    table = {
        knob: [
            len(rows),
            sum(not row.agree for row in rows),
            sum(row.clear and not row.agree for row in rows),
        ]
        for knob, rows in by_knob.items()
    }
    order = sorted(table, key=lambda knob: (-table[knob][1], -table[knob][2]))[:WORST]
    return {knob: table[knob] for knob in order if table[knob][1]}


def summary(by_knob: dict[str, list[GradientRow]], unheard: int) -> dict[str, object]:
    """All figures of rows by knob id."""
    every = [row for rows in by_knob.values() for row in rows]
    clear = only_clear(every)
    devices: dict[str, list[GradientRow]] = defaultdict(list)
    for knob, rows in by_knob.items():
        devices[knob.partition(".")[0]] += rows
    halves = [row.half_agrees for row in every if row.half_agrees is not None]
    return {
        "cases": len(every),
        "unheard": unheard,
        "agree": share([row.agree for row in every]),
        "agree_clear": share([row.agree for row in clear]),
        "clear_share": share([row.clear for row in every]),
        "finite_difference_agree": share([row.twin_agrees for row in every]),
        "finite_difference_agree_clear": share([row.twin_agrees for row in clear]),
        "host_half_step_agree": share(halves) if halves else None,
        "by_change": by_change(every),
        "agree_by_device": {key: agreement(rows) for key, rows in devices.items()},
        "agree_clear_by_device": {
            key: agreement(some) for key, rows in devices.items() if (some := only_clear(rows))
        },
        "worst_knobs": worst(by_knob),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--proxy", type=Path, default=Path("models/proxy"))
    parser.add_argument("--patches", type=int, default=12)
    parser.add_argument("--step", type=float, default=0.04)
    parser.add_argument("--halves", action="store_true")
    options = parser.parse_args()
    params = config.load(Path(__file__).resolve().parents[2] / "params.yaml")
    torch.set_num_threads(machine.threads())
    proxy = RackProxy.load(options.proxy)
    drawn = [
        sampling.draw("full", "test", i, params.sample.test_seed, params.sample)
        for i in range(options.patches)
    ]
    cases = [GradientCase(patch, i, options.step, options.halves) for i, patch in enumerate(drawn)]
    with Renderer(params.audio) as host:
        clips = host.render([patch for case in cases for patch in case.renders])
    by_knob: dict[str, list[GradientRow]] = defaultdict(list)
    unheard = 0
    for case in cases:
        mine, clips = clips[: len(case.renders)], clips[len(case.renders) :]
        sounds = [clip for clip in mine if not isinstance(clip, RenderFailure)]
        if len(sounds) < len(mine):
            continue
        for knob, row in compare(case, sounds, proxy, params.audio.sample_rate).items():
            if row is None:
                unheard += 1
            else:
                by_knob[RACK.knobs[knob].id].append(row)
    figures = summary(by_knob, unheard)
    print(json.dumps(figures | {"bars": held(figures, BARS)}))


if __name__ == "__main__":
    main()
