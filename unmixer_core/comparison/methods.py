"""The methods that `benchmark_itf` compares: ways to find a patch for one sound.

Each method returns one patch, whose sound is the host's. Two costs are counted with it. Seconds are
wall clock, everything that this method needs after the model is loaded. Renders are the host's.
CMA-ES gets the renders and the seconds of ITF + verify, and the seconds of the whole `unmix`
search: one run, read after each of these budgets.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from unmixer_core.audio import fit_length
from unmixer_core.comparison import cma_es
from unmixer_core.comparison.entry import Entry
from unmixer_core.comparison.resources import BenchmarkResources
from unmixer_core.inference import finetune
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.schema.patch import Patch
from unmixer_core.scoring import baselines
from unmixer_core.scoring.targets import ScoreTarget

#: The methods that share one set of proposals; the last two refine it.
PROPOSED = ("no_itf", "no_itf_verify")
REFINED = ("itf", "itf_verify")


def run_methods(resources: BenchmarkResources, target: ScoreTarget) -> list[Entry]:
    """Run `resources.methods` on one clip; return their entries in the order of METHODS.

    `random` and `nearest` run in any case, because they cost little.
    """
    wanted = resources.methods
    entries = [_random(resources, target), _nearest(resources, target)]
    refine = any(method in wanted for method in REFINED)
    if refine or any(method in wanted for method in PROPOSED):
        entries += _itf_family(resources, target, refine=refine)
    if "encoder_itf" in wanted:
        entries.append(_encoder_itf(resources, target))
    if "unmix" in wanted:
        entries.append(_unmix(resources, target))
    entries += _cma(resources, target, {entry.method: entry for entry in entries})
    return [entry for entry in entries if entry.method in wanted]


def proposals(resources: BenchmarkResources, target: ScoreTarget) -> list[Patch]:
    """Return the `itf.candidates` patches that the proxy ranks first.

    Ranked are the network's proposals and the patches of the `itf.seeds` nearest training renders.
    """
    itf = resources.itf
    nearest_clips, _ = resources.retrieval.nearest(target.features, max(1, itf.seeds))
    neighbours = [resources.clips.patches[int(clip)] for clip in nearest_clips[: itf.seeds]]
    patches = resources.propose(target, neighbours)
    losses = finetune.rank(
        resources.proxy,
        target.audio,
        patches,
        sample_rate=resources.sample_rate,
        clip_s=itf.clip_s,
    )
    order = np.argsort(losses, kind="stable")
    return [patches[i] for i in order[: itf.candidates]]


# --- one function a method --------------------------------------------------------------------


def _random(resources: BenchmarkResources, target: ScoreTarget) -> Entry:
    start = time.perf_counter()
    seed = resources.itf.seed + target.id
    patches = baselines.random_patches(resources.train, [target.phase], [target.patch], seed)
    sounds = _rendered(resources, target, patches)
    return Entry("random", patches[0], sounds[0], time.perf_counter() - start, 1)


def _nearest(resources: BenchmarkResources, target: ScoreTarget) -> Entry:
    """The better of two: the nearest training render, and its patch at the target's note and
    gate.
    """
    start = time.perf_counter()
    nearest_clips, _ = resources.retrieval.nearest(target.features)
    clip = int(nearest_clips[0])
    patch = baselines.at_note(resources.clips.patches[clip], target.patch.note, target.patch.gate_s)
    sounds = [resources.clips.audio(clip), *_rendered(resources, target, [patch])]
    best = _best(resources, target, sounds)
    return Entry("nearest", patch, sounds[best], time.perf_counter() - start, 1)


def _itf_family(resources: BenchmarkResources, target: ScoreTarget, *, refine: bool) -> list[Entry]:
    """no_itf, no_itf_verify, itf, itf_verify from one set of proposals.

    Each is charged with what it alone would have needed. Without `refine` only the first two.
    """
    clock = _Clock()
    proposed = proposals(resources, target)
    proposed_s = clock.lap()
    # the first is rendered by itself: `no_itf` needs no other
    first = _rendered(resources, target, proposed[:1])
    first_s = clock.lap()
    sounds = [*first, *_rendered(resources, target, proposed[1:])]
    rest_s = clock.lap()
    n = len(proposed)
    single_s = proposed_s + first_s
    chosen = _best(resources, target, sounds)
    curve: list[tuple[float, float, float]] = [
        (1, single_s, _mss_db(resources, target, sounds[0])),
        (n, single_s + rest_s, _mss_db(resources, target, sounds[chosen])),
    ]
    entries = [
        Entry("no_itf", proposed[0], sounds[0], single_s, 1, curve[:1]),
        Entry("no_itf_verify", proposed[chosen], sounds[chosen], single_s + rest_s, n, curve),
    ]
    if not refine:
        return entries

    refined = _refined(resources, target, proposed)
    refined_s = clock.lap()
    first_refined = _rendered(resources, target, refined[:1])
    first_refined_s = clock.lap()
    rest_refined = _rendered(resources, target, refined[1:])
    all_sounds = [*sounds, *first_refined, *rest_refined]
    total_s = single_s + rest_s + refined_s + first_refined_s + clock.lap()
    all_patches = [*proposed, *refined]
    winner = _best(resources, target, all_sounds)
    curve = [*curve, (2 * n, total_s, _mss_db(resources, target, all_sounds[winner]))]
    itf_s = proposed_s + refined_s + first_refined_s
    return [
        *entries,
        Entry("itf", refined[0], first_refined[0], itf_s, 1),
        Entry("itf_verify", all_patches[winner], all_sounds[winner], total_s, 2 * n, curve),
    ]


def _refined(
    resources: BenchmarkResources, target: ScoreTarget, proposed: Sequence[Patch]
) -> list[Patch]:
    """The refined patches, smallest proxy loss first; those that are not finite last."""
    results = finetune.refine_side_by_side(
        resources.proxy,
        target.audio,
        proposed,
        resources.itf,
        sample_rate=resources.sample_rate,
        threads=resources.threads,
    )

    def loss(result: finetune.Refined) -> float:
        return result.loss if np.isfinite(result.loss) else np.inf

    return [result.patch for result in sorted(results, key=loss)]


def _encoder_itf(resources: BenchmarkResources, target: ScoreTarget) -> Entry:
    """InverSynth II's method: tune the encoder from the point estimate; the host chooses the
    step.
    """
    start = time.perf_counter()
    point = resources.propose(target, [])[0]
    patches = resources.tune(target, point)
    sounds = _rendered(resources, target, patches)
    best = _best(resources, target, sounds)
    seconds = time.perf_counter() - start
    renders = len(patches)
    curve = [(renders, seconds, _mss_db(resources, target, sounds[best]))]
    return Entry("encoder_itf", patches[best], sounds[best], seconds, renders, curve)


def _unmix(resources: BenchmarkResources, target: ScoreTarget) -> Entry:
    """The answer that a person gets who runs `unmix`."""
    return _entry_of("unmix", resources.search(target))


def _cma(
    resources: BenchmarkResources, target: ScoreTarget, entries: Mapping[str, Entry]
) -> list[Entry]:
    """CMA-ES from the init patch: one run with the largest budget, read at each budget.

    entries: by method; their costs are the budgets.
    """
    itf = resources.itf
    budgets = _budgets(resources, entries)
    if not budgets:
        return []
    seconds = [budget["seconds"] for budget in budgets.values() if "seconds" in budget]
    max_renders = None
    max_seconds = None
    if seconds:
        max_seconds = max(seconds)
    else:
        max_renders = int(max(budget["renders"] for budget in budgets.values()))
    result = cma_es.cma_search(
        resources.host,
        target.audio,
        Patch.init(target.patch.note, target.patch.gate_s),
        sample_rate=resources.sample_rate,
        population=itf.cma_population,
        sigma=itf.cma_sigma,
        seed=itf.seed + target.id,
        max_renders=max_renders,
        max_seconds=max_seconds,
    )
    return [_entry_of(method, result.within(**budget)) for method, budget in budgets.items()]


def _budgets(
    resources: BenchmarkResources, entries: Mapping[str, Entry]
) -> dict[str, dict[str, float]]:
    """{"renders": n} or {"seconds": s} of each CMA-ES method that runs."""
    limit_s = resources.itf.cma_max_seconds
    budgets: dict[str, dict[str, float]] = {}
    if "itf_verify" in entries:
        verified = entries["itf_verify"]
        budgets["cma_equal_renders"] = {"renders": verified.renders}
        budgets["cma_equal_seconds"] = {"seconds": min(verified.seconds, limit_s)}
    if "unmix" in entries:
        budgets["cma_unmix_seconds"] = {"seconds": min(entries["unmix"].seconds, limit_s)}
    return {method: budget for method, budget in budgets.items() if method in resources.methods}


# --- helpers ----------------------------------------------------------------------------------


def _entry_of(method: str, result: cma_es.SearchResult) -> Entry:
    curve = [tuple(point) for point in result.curve]
    return Entry(method, result.patch, result.audio, result.seconds, result.renders, curve)


def _rendered(
    resources: BenchmarkResources, target: ScoreTarget, patches: Sequence[Patch]
) -> list[np.ndarray]:
    """Host renders [2, time] of the target's length; a failed render counts as silence."""
    if not patches:
        return []
    sounds = []
    for sound in resources.host.render(list(patches)):
        if isinstance(sound, np.ndarray):
            sounds.append(fit_length(sound, target.audio.shape[-1]))
        else:
            sounds.append(np.zeros_like(target.audio))
    return sounds


def _mss_db(resources: BenchmarkResources, target: ScoreTarget, sound: np.ndarray) -> float:
    return metrics_sound.mss_to(target.features, sound, resources.sample_rate)


def _best(resources: BenchmarkResources, target: ScoreTarget, sounds: Sequence[np.ndarray]) -> int:
    """Place of the closest sound, the first of equals."""
    return int(np.argmin([_mss_db(resources, target, sound) for sound in sounds]))


class _Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.last = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        seconds = now - self.last
        self.last = now
        return seconds
