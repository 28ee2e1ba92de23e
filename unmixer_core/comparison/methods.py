"""Ways to find a patch for one sound, side by side on the same clips.

What `benchmark_itf` measures.

Every contestant returns one patch; its sound is the host's. Counted with it: seconds (wall clock,
everything that this contestant needs after the model is loaded) and host renders. CMA-ES gets the
renders and the seconds of ITF + verify, and the seconds of the whole `unmix` search: one run,
looked at after each of these.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from unmixer_core import config
from unmixer_core.comparison import cma_es
from unmixer_core.dataset.clips import Clips
from unmixer_core.errors import StageError
from unmixer_core.inference import finetune
from unmixer_core.live.host import Host
from unmixer_core.metrics import patch as metrics_patch
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.proxy.twin import Proxy
from unmixer_core.schema.patch import Patch, Patches
from unmixer_core.scoring import baselines
from unmixer_core.scoring import retrieval as scoring_retrieval
from unmixer_core.scoring.score import Ledger, Progress, ScoreTarget, measure, quietly, spread

CONTESTANTS = (
    "random",
    "nearest",
    "no_itf",
    "no_itf_verify",
    "itf",
    "itf_verify",
    "encoder_itf",
    "unmix",
    "cma_equal_renders",
    "cma_equal_seconds",
    "cma_unmix_seconds",
)
#: The phase of in-domain targets; every other one is a kind of sound from outside.
INSIDE = "full"


@dataclass(frozen=True)
class BenchmarkResources:
    """What the contestants work with.

    propose: a target and the patches of its nearest training renders -> proposals, the network's
    point estimate first. tune: a target and the point estimate -> what the encoder answers while it
    is tuned on the target. search: the whole `unmix` search. Only the contestants in `rows`
    compete.
    """

    renderer: Host
    proxy: Proxy
    propose: Callable[[ScoreTarget, list[Patch]], list[Patch]]
    tune: Callable[[ScoreTarget, Patch], list[Patch]]
    search: Callable[[ScoreTarget], cma_es.Found]
    retrieval: scoring_retrieval.Retrieval
    clips: Clips
    sample_rate: int
    settings: config.Itf
    threads: int = 1
    rows: Collection[str] = CONTESTANTS

    @cached_property
    def train(self) -> Patches:
        """The training patches."""
        return self.clips.patches.select(self.clips.patches.where(split="train"))


@dataclass(frozen=True)
class Entry:
    """One contestant's answer for one clip.

    `curve`: (renders, seconds, best MSS in dB so far) rows.
    """

    row: str
    patch: Patch
    audio: np.ndarray
    seconds: float
    renders: int
    curve: Sequence[tuple[float, float, float]] = ()


def targets(clips: Clips, n: int, sample_rate: int) -> list[ScoreTarget]:
    """n frozen full-chain test clips, evenly spaced. Raises StageError when there are none."""
    known = clips.patches.where(phase="full", split="test")
    rows = known[spread(len(known), n)].tolist()
    if not rows:
        raise StageError(
            "the clips hold no full-chain test split; run `dvc repro render_patches` with "
            "sample.n_test_full above 0."
        )
    sounds = [clips.audio(row) for row in rows]
    return [
        ScoreTarget(
            row,
            int(clips.patches.id[row]),
            "full",
            clips.patches[row],
            sound,
            metrics_sound.mss_features(sound, sample_rate),
            True,
            True,
        )
        for row, sound in zip(rows, sounds, strict=True)
    ]


def run(
    tools: BenchmarkResources,
    test: Sequence[ScoreTarget],
    ledger: Ledger,
    progress: Progress = quietly,
) -> dict[int, dict[str, np.ndarray]]:
    """Let everyone compete on every clip that the ledger does not hold; returns those sounds.

    Id -> row -> audio.
    """
    sounds = {}
    for target in progress(test, len(test), "compete"):
        if str(target.id) not in ledger.rows:
            entries = compete(tools, target)
            ledger.add(str(target.id), {"lines": judged(entries, target, tools.sample_rate)})
            sounds[target.id] = {entry.row: entry.audio for entry in entries}
    return sounds


def results(ledger: Ledger, test: Sequence[ScoreTarget]) -> pd.DataFrame:
    """Table rows of all clips, as `judged` made them."""
    return pd.DataFrame([line for target in test for line in ledger.rows[str(target.id)]["lines"]])


def compete(tools: BenchmarkResources, target: ScoreTarget) -> list[Entry]:
    """Every contestant's entry for one clip, in the order of CONTESTANTS."""
    entries = [_random(tools, target), _nearest(tools, target)]
    if asked := [
        row
        for row in CONTESTANTS
        if row in tools.rows and row.removesuffix("_verify") in ("no_itf", "itf")
    ]:
        entries += _itf_family(tools, target, refined=any(row.startswith("itf") for row in asked))
    if "encoder_itf" in tools.rows:
        entries.append(_encoder_itf(tools, target))
    if "unmix" in tools.rows:
        entries.append(_unmix(tools, target))
    entries += _cma(tools, target, {entry.row: entry for entry in entries})
    return [entry for entry in entries if entry.row in tools.rows]


def judged(entries: Sequence[Entry], target: ScoreTarget, sample_rate: int) -> list[dict[str, Any]]:
    """Entries as table rows: phase, id, row, all measures, seconds, renders, curve.

    Chain, and of the audible pairs of the true chain how many the answer has in the right order,
    and how many there are.
    """
    lines = []
    for entry in entries:
        right, _, pairs = metrics_patch.order_hits(entry.patch.effects, target.patch.effects)
        lines.append(
            {
                "phase": target.phase,
                "id": target.id,
                "row": entry.row,
                **measure(entry.audio, target, sample_rate, True),
                "seconds": entry.seconds,
                "renders": entry.renders,
                "chain": " > ".join(entry.patch.effects),
                "pairs_right": right,
                "pairs": pairs,
                "curve": [list(map(float, point)) for point in entry.curve],
            }
        )
    return lines


def _random(tools: BenchmarkResources, target: ScoreTarget) -> Entry:
    begun = time.perf_counter()
    patch = baselines.random_patches(
        tools.train, [target.phase], [target.patch], tools.settings.seed + target.id
    )[0]
    return Entry("random", patch, _heard(tools, target, [patch])[0], time.perf_counter() - begun, 1)


def _nearest(tools: BenchmarkResources, target: ScoreTarget) -> Entry:
    """The better of the nearest training render as it is and its patch at the target's note and
    gate.
    """
    begun = time.perf_counter()
    clip = int(tools.retrieval.nearest(target.features)[0][0])
    patch = baselines.at_note(tools.clips.patches[clip], target.patch.note, target.patch.gate_s)
    sounds = [tools.clips.audio(clip), *_heard(tools, target, [patch])]
    best = _best(tools, target, sounds)
    return Entry("nearest", patch, sounds[best], time.perf_counter() - begun, 1)


def _itf_family(
    tools: BenchmarkResources, target: ScoreTarget, *, refined: bool = True
) -> list[Entry]:
    """no_itf, no_itf_verify, itf, itf_verify from one set of proposals, the `candidates` that
    the proxy ranks first; each is charged with what it alone would have needed. The first two
    alone where nothing is to be `refined`.
    """
    clock = _Clock()
    proposed = proposals(tools, target)
    proposed_s = clock.lap()
    first = _heard(tools, target, proposed[:1])
    first_s = clock.lap()
    sounds = [*first, *_heard(tools, target, proposed[1:])]
    rest_s = clock.lap()
    k, base_s, chosen = len(proposed), proposed_s + first_s, _best(tools, target, sounds)
    curve = [
        (1, base_s, _mss(tools, target, sounds[0])),
        (k, base_s + rest_s, _mss(tools, target, sounds[chosen])),
    ]
    entries = [
        Entry("no_itf", proposed[0], sounds[0], base_s, 1, curve[:1]),
        Entry("no_itf_verify", proposed[chosen], sounds[chosen], base_s + rest_s, k, curve),
    ]
    if not refined:
        return entries
    found = finetune.refine_side_by_side(
        tools.proxy,
        target.audio,
        proposed,
        tools.settings,
        sample_rate=tools.sample_rate,
        threads=tools.threads,
    )
    patches = [
        r.patch for r in sorted(found, key=lambda r: r.loss if np.isfinite(r.loss) else np.inf)
    ]
    refined_s = clock.lap()
    polished = _heard(tools, target, patches[:1])
    polished_s = clock.lap()
    everything = [*sounds, *polished, *_heard(tools, target, patches[1:])]
    total_s = base_s + rest_s + refined_s + polished_s + clock.lap()
    winner, known = _best(tools, target, everything), [*proposed, *patches]
    curve = [*curve, (2 * k, total_s, _mss(tools, target, everything[winner]))]
    return [
        *entries,
        Entry("itf", patches[0], polished[0], proposed_s + refined_s + polished_s, 1),
        Entry("itf_verify", known[winner], everything[winner], total_s, 2 * k, curve),
    ]


def proposals(tools: BenchmarkResources, target: ScoreTarget) -> list[Patch]:
    """The `candidates` that the proxy ranks first among the network's proposals and the nearest
    training patches.
    """
    near = tools.retrieval.nearest(target.features, max(1, tools.settings.seeds))[0][
        : tools.settings.seeds
    ]
    found = tools.propose(target, [tools.clips.patches[int(clip)] for clip in near])
    losses = finetune.rank(
        tools.proxy,
        target.audio,
        found,
        sample_rate=tools.sample_rate,
        clip_s=tools.settings.clip_s,
    )
    return [found[i] for i in np.argsort(losses, kind="stable")[: tools.settings.candidates]]


def _encoder_itf(tools: BenchmarkResources, target: ScoreTarget) -> Entry:
    """InverSynth II's way: the encoder is tuned from the point estimate, and the host chooses
    the best step.
    """
    begun = time.perf_counter()
    answers = tools.tune(target, tools.propose(target, [])[0])
    sounds = _heard(tools, target, answers)
    best = _best(tools, target, sounds)
    seconds = time.perf_counter() - begun
    curve = [(len(answers), seconds, _mss(tools, target, sounds[best]))]
    return Entry("encoder_itf", answers[best], sounds[best], seconds, len(answers), curve)


def _unmix(tools: BenchmarkResources, target: ScoreTarget) -> Entry:
    """What a person gets who runs `unmix`."""
    found = tools.search(target)
    return Entry(
        "unmix",
        found.patch,
        found.audio,
        found.seconds,
        found.renders,
        [tuple(p) for p in found.curve],
    )


def _cma(
    tools: BenchmarkResources, target: ScoreTarget, entries: Mapping[str, Entry]
) -> list[Entry]:
    """CMA-ES from the init patch, once, for the longest of the budgets that are asked for.

    `entries` hold the budgets.
    """
    verified, whole = entries.get("itf_verify"), entries.get("unmix")
    limit_s = tools.settings.cma_max_seconds
    budgets: dict[str, dict[str, float]] = {}
    if verified is not None:
        budgets["cma_equal_renders"] = {"renders": verified.renders}
        budgets["cma_equal_seconds"] = {"seconds": min(verified.seconds, limit_s)}
    if whole is not None:
        budgets["cma_unmix_seconds"] = {"seconds": min(whole.seconds, limit_s)}
    budgets = {row: budget for row, budget in budgets.items() if row in tools.rows}
    if not budgets:
        return []
    seconds = [budget["seconds"] for budget in budgets.values() if "seconds" in budget]
    found = cma_es.cma_search(
        tools.renderer,
        target.audio,
        Patch.init(target.patch.note, target.patch.gate_s),
        sample_rate=tools.sample_rate,
        population=tools.settings.cma_population,
        sigma=tools.settings.cma_sigma,
        seed=tools.settings.seed + target.id,
        max_renders=None if seconds else int(max(budget["renders"] for budget in budgets.values())),
        max_seconds=max(seconds) if seconds else None,
    )
    parts = {row: found.within(**budget) for row, budget in budgets.items()}
    return [
        Entry(row, f.patch, f.audio, f.seconds, f.renders, [tuple(point) for point in f.curve])
        for row, f in parts.items()
    ]


def _heard(
    tools: BenchmarkResources, target: ScoreTarget, patches: Sequence[Patch]
) -> list[np.ndarray]:
    """Host renders; a patch that could not be rendered counts as silence."""
    sounds = tools.renderer.render(list(patches)) if patches else []
    return [
        baselines.fit_length(sound, target.audio.shape[-1])
        if isinstance(sound, np.ndarray)
        else np.zeros_like(target.audio)
        for sound in sounds
    ]


def _mss(tools: BenchmarkResources, target: ScoreTarget, sound: np.ndarray) -> float:
    return float(
        metrics_sound.mss_from_features(
            target.features, metrics_sound.mss_features(sound, tools.sample_rate)
        )
    )


def _best(tools: BenchmarkResources, target: ScoreTarget, sounds: Sequence[np.ndarray]) -> int:
    """Place of the nearest sound, the first of equals."""
    return int(np.argmin([_mss(tools, target, sound) for sound in sounds]))


class _Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.last = time.perf_counter()

    def lap(self) -> float:
        now, before = time.perf_counter(), self.last
        self.last = now
        return now - before
