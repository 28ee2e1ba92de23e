"""The laws of a search, with an untrained model and the real host.

Its answers are poor, but it must keep its word.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.model import tiny
from unmixer_core import config, sampling
from unmixer_core.errors import HostError
from unmixer_core.features.store import FeatureTable
from unmixer_core.inference import finetune
from unmixer_core.inference.constraints import Constraints
from unmixer_core.inference.posterior import PatchPosterior
from unmixer_core.live.renderer import Renderer
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.recording.note import RecordedNote
from unmixer_core.schema.patch import Patch, Patches
from unmixer_core.schema.rack import RACK
from unmixer_core.search import context, line_search, polish, ranking, refinement
from unmixer_core.search import search as search_search
from unmixer_core.search.candidates import Candidate

RATE = 44100
#: What a render and a look at the refinement take by the clock of these tests.
RENDER_S, STEP_S = 0.1, 0.1


class Clock:
    """Counts what was done, not what it took, so that a busy machine changes no test."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def perf_counter(self) -> float:
        return self.seconds


CLOCK = Clock()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search's budget, its ranking and its refinement use CLOCK."""
    for module in (context, ranking, refinement):
        monkeypatch.setattr(module, "time", CLOCK)


class Host:
    """The real host, with what it was asked for.

    `stop_after` renders it is interrupted, as by Ctrl-C.
    """

    def __init__(self, renderer: Any, stop_after: int | None = None) -> None:
        self.renderer, self.stop_after, self.patches = renderer, stop_after, []

    def map(self, patches: list[Patch]) -> Iterator[tuple[int, Any]]:
        for index, sound in self.renderer.map(patches):
            if self.stop_after is not None and len(self.patches) >= self.stop_after:
                raise KeyboardInterrupt
            self.patches.append(patches[index])
            CLOCK.seconds += RENDER_S
            yield index, sound


@pytest.fixture(scope="module")
def renderer(params: config.Params) -> Iterator[Renderer]:
    with Renderer(params.audio, 1) as host:
        yield host


@pytest.fixture(scope="module")
def note(params: config.Params, renderer: Renderer) -> RecordedNote:
    patch = sampling.draw("nonlinear", "test", 3, 5, params.sample)
    clip = renderer.render([patch])[0]
    assert isinstance(clip, np.ndarray)
    return RecordedNote(clip, RATE, patch.note, patch.gate_s, (patch.note, patch.note + 12), ())


@pytest.fixture(scope="module")
def parts() -> tuple[Any, Any]:
    return tiny.model().eval(), RackProxy(8000, 0.4)


def search(
    params: config.Params,
    note: RecordedNote,
    parts: tuple[Any, Any],
    host: Any,
    known: FeatureTable | None = None,
    changes: dict[str, Any] | None = None,
    clips: Any = None,
    **options: Any,
) -> tuple[search_search.Search, list[tuple[str, float]]]:
    """A search and its progress reports: (step, best MSS)."""
    reports: list[tuple[str, float]] = []
    small = {
        "candidates": 3,
        "proposals": 4,
        "notes": 2,
        "neighbours": 2,
        "seconds": 6.0,
        "itf_seconds": 1.0,
        "changes": 2,
    }
    settings = params.unmix.model_copy(update=small | (changes or {}))
    itf = params.itf.model_copy(update={"steps": 3, "clip_s": 0.3})
    resources = search_search.SearchResources(*parts, host, known, clips)

    def report(step: str, best: Candidate | None) -> None:
        reports.append((step, np.inf if best is None else best.mss_db))

    return search_search.Search(
        note, resources, settings, itf, search_search.SearchOptions(**options), report
    ), reports


def test_the_answer_is_the_nearest_of_all_that_was_rendered(params, note, parts, renderer):
    host = Host(renderer)
    found, reports = search(params, note, parts, host, polish_s=1.0)
    answer = found.run()
    assert answer.renders == len(host.patches) and not answer.interrupted
    proposals = [c.mss_db for c in answer.candidates if c.source == "proposal"]
    assert len(proposals) == 3 and answer.best.mss_db <= min(proposals)
    assert answer.best.mss_db == pytest.approx(
        metrics_sound.mss(answer.best.audio, note.clip, RATE), abs=1e-3
    )
    assert answer.best.patch.digest in {p.digest for p in host.patches}
    values = [mss for _, mss in reports if np.isfinite(mss)]
    assert values == sorted(values, reverse=True), "the best never gets worse"
    assert [db for *_, db in answer.curve] == sorted((db for *_, db in answer.curve), reverse=True)
    assert list(dict.fromkeys(step for step, _ in reports))[:4] == [
        "propose",
        "proposal",
        "refine",
        "refined",
    ]


def test_nothing_begins_when_the_time_is_up(params, note, parts, renderer):
    """However little time there is, one proposal is rendered.

    However slow the host, no more is waited for after the time.
    """
    found, reports = search(params, note, parts, Host(renderer), changes={"seconds": 0.0})
    answer = found.run()
    assert [step for step, _ in reports] == ["propose", "proposal"]
    assert answer.renders == 1 and not answer.interrupted and answer.best.source == "proposal"


def test_the_best_patch_rendered_again_is_the_sound_it_was_judged_by(params, note, parts, renderer):
    found, _ = search(params, note, parts, Host(renderer), polish_s=0.0)
    best = found.run().best
    again = renderer.render([best.patch.canonical()])[0]
    assert metrics_sound.mss(again, best.audio, RATE) < 0.05


def test_every_render_of_a_constrained_search_keeps_the_constraints(params, note, parts, renderer):
    constraints = Constraints.parse(
        ["saturator.drive=12", "wavetable.filter_1_type=Highpass", "wavetable.amp_attack=0.01"],
        "Saturator>Reverb",
    )
    host = Host(renderer)
    found, _ = search(params, note, parts, host, constraints=constraints, polish_s=2.0)
    answer = found.run()
    assert len(host.patches) > 6
    for patch in host.patches:
        forced = constraints.apply(patch)
        assert np.array_equal(forced.knobs, patch.knobs)
        assert np.array_equal(forced.choices, patch.choices)
        assert forced.effects == patch.effects
    assert answer.best.patch.effects == ("Saturator", "Reverb")


@pytest.mark.parametrize("renders", [1, 2, 4])
def test_ctrl_c_returns_the_best_so_far(params, note, parts, renderer, renders: int):
    host = Host(renderer, stop_after=renders)
    answer = search(params, note, parts, host)[0].run()
    assert answer.interrupted and answer.renders == renders
    assert answer.best.mss_db == min(c.mss_db for c in answer.candidates)


def test_a_host_that_fails_later_leaves_the_best_so_far(params, note, parts, renderer):
    class Failing(Host):
        def map(self, patches: list[Patch]) -> Iterator[tuple[int, Any]]:
            try:
                yield from super().map(patches)
            except KeyboardInterrupt:
                raise HostError("no host is left.") from None

    answer = search(params, note, parts, Failing(renderer, stop_after=2))[0].run()
    assert answer.renders == 2 and not answer.interrupted and not answer.thorough
    assert answer.failure is not None and answer.failure.endswith("no host is left.")
    assert answer.best.mss_db == min(c.mss_db for c in answer.candidates)
    with pytest.raises(HostError, match="no host is left"):
        search(params, note, parts, Failing(renderer, stop_after=0))[0].run()


def test_a_search_cancelled_from_another_thread_ends_with_the_best_so_far(
    params, note, parts, renderer
):
    class Cancelling(Host):
        def map(self, patches: list[Patch]) -> Iterator[tuple[int, Any]]:
            for answer in super().map(patches):
                yield answer
                if len(self.patches) == 2:
                    thread = threading.Thread(target=found.cancel)
                    thread.start()
                    thread.join()

    host = Cancelling(renderer)
    found, reports = search(params, note, parts, host, polish_s=300.0)
    answer = found.run()
    assert answer.interrupted and answer.renders == len(host.patches) == 3, (
        "it ends within one render"
    )
    assert answer.best.mss_db == min(db for *_, db in answer.curve) and reports


def test_a_search_cancelled_before_it_began_is_an_interrupt(params, note, parts, renderer):
    found, _ = search(params, note, parts, Host(renderer))
    found.cancel()
    with pytest.raises(KeyboardInterrupt):
        found.run()


def test_ctrl_c_before_the_first_render_is_an_interrupt(params, note, parts, renderer):
    with pytest.raises(KeyboardInterrupt):
        search(params, note, parts, Host(renderer, stop_after=0))[0].run()


def test_fast_renders_a_few_proposals_and_nothing_else(params, note, parts, renderer):
    host = Host(renderer)
    answer = search(params, note, parts, host, fast=True)[0].run()
    assert answer.renders == params.unmix.fast_candidates and answer.best.source == "proposal"
    assert not answer.thorough


def test_fast_renders_as_many_candidates_as_are_asked_for(params, note, parts, renderer):
    asked = params.unmix.fast_proposals * params.unmix.fast_notes + 2
    assert (
        search(params, note, parts, Host(renderer), fast=True, candidates=asked)[0].run().renders
        == asked
    )


def test_changes_are_refined_for_no_more_steps_than_the_person_allows(
    params, note, parts, renderer, monkeypatch
):
    found, _ = search(
        params, note, parts, Host(renderer), changes={"changes_refined": 1, "changes_steps": 15}
    )
    asked: list[int] = []
    monkeypatch.setattr(
        found.refiner,
        "refine",
        lambda patches, seconds, itf, distances: asked.append(itf.steps) or list(patches),
    )
    found.pool.render([Patch.init(note.note, note.gate_s)], "proposal")
    found.local_search.run(found.seconds + 0.5)
    assert asked and set(asked) == {found.context.itf.steps} and found.context.itf.steps < 15


def test_a_gate_that_was_misheard_is_found(params, renderer, parts):
    """An echo or a reverb hides when the key was let go.

    Other gates are changes like any other, unless the user gave the gate.
    """
    true = Patch.init(50, 0.5).with_values({"wavetable.amp_release": 0.1})
    clip = renderer.render([true])[0]
    for told, gates in (((), (1.0, 0.5)), (("gate_s",), (1.0,))):
        wrong = RecordedNote(clip, RATE, 50, 1.0, (50,), (), given=told, gates_s=gates)
        found, _ = search(
            params, wrong, parts, Host(renderer), changes={"seconds": 60.0, "changes": 8}
        )
        found.pool.render([replace(true, gate_s=1.0)], "proposal")
        found.local_search.run(found.seconds + 20.0)
        assert (found.pool.best.patch.gate_s == 0.5) is (not told)
        assert not told or found.pool.best.patch.gate_s == 1.0


def test_a_step_of_refinement_is_judged_by_the_host_and_ends_where_it_no_longer_helps(
    params, note, parts, renderer
):
    host = Host(renderer)
    found, _ = search(params, note, parts, host, changes={"seconds": 300.0})
    start = found.pool.render([Patch.init(note.note, note.gate_s)], "proposal")[0]
    (line,), rounds = [start], 0
    while line.patch.digest not in found.refiner.converged:
        (line,), before, rounds = found.refiner.refine_round([line], 300.0), line, rounds + 1
        assert line.mss_db <= before.mss_db and np.array_equal(
            line.patch.choices, start.patch.choices
        )
    assert rounds < 200 and found.pool.best.mss_db == line.mss_db
    assert line.mss_db == pytest.approx(metrics_sound.mss(line.audio, note.clip, RATE), abs=1e-3)


def test_interpolation_starts_and_ends_at_the_two_patches():
    start, end = (Patch.init(50, 0.5).with_values({"wavetable.osc_1_pos": x}) for x in (0.2, 0.6))
    column = RACK.knob_index["wavetable.osc_1_pos"]
    line = [line_search.interpolate(start, end, share) for share in (0.0, 0.5, 1.0, 2.0)]
    values = [patch.knobs[column] for patch in line]
    assert values[0] == pytest.approx(0.2, abs=1e-5) and values[2] == pytest.approx(0.6, abs=1e-5)
    assert values == sorted(values) and values[3] < 1.0
    others = np.arange(RACK.n_knobs) != column
    assert all(np.array_equal(patch.knobs[others], start.knobs[others]) for patch in line)


def test_without_itf_and_polish_only_proposals_are_rendered(params, note, parts, renderer):
    answer = search(params, note, parts, Host(renderer), itf=False, polish_s=0.0, candidates=5)[
        0
    ].run()
    assert answer.renders == 5 and {c.source for c in answer.candidates} == {"proposal"}


def test_polish_of_the_true_patch_with_moved_knobs_comes_nearer(params, renderer, parts):
    """From a start a little off, the last search alone improves on the host."""
    true = Patch.init(50, 0.5).with_values(
        {"wavetable.osc_1_pos": 0.7, "wavetable.filter_1_freq": 0.5}
    )
    clip = renderer.render([true])[0]
    start = true.with_values({"wavetable.osc_1_pos": 0.6, "wavetable.filter_1_freq": 0.65})
    found, _ = search(
        params, RecordedNote(clip, RATE, 50, 0.5, (50,), ()), parts, Host(renderer), polish_s=6.0
    )
    found.pool.render([start], "proposal")
    before = found.pool.best.mss_db
    found.budget.end_s = found.seconds + 6.0
    polish.polish(found.context, found.budget, found.pool)
    assert found.pool.best.mss_db < 0.95 * before and found.pool.best.source == "polished"


def test_the_nearest_training_render_of_a_training_clip_is_itself(parts, params, note, renderer):
    """So a sound of the training set is found again, whatever the network thinks of it."""
    table = Patches.stack(
        [sampling.draw("full", "train", i, 9, params.sample) for i in range(3)], "full", "train"
    )
    sounds = renderer.render(list(table))
    posteriors = [PatchPosterior.of(parts[0], sound) for sound in sounds]
    known = FeatureTable(
        table,
        (np.concatenate([e.features.numpy() for e in posteriors]).astype(np.float16),),
        parts[0].spec,
    )
    assert [int(posterior.nearest(known, 1, 0)[0]) for posterior in posteriors] == [0, 1, 2]
    again = replace(
        note, clip=sounds[1], note=table[1].note, notes=(table[1].note,), gate_s=table[1].gate_s
    )
    host = Host(renderer)
    found, _ = search(
        params, again, parts, host, known, polish_s=0.0, itf=False, candidates=64
    )  # all: the proxy here is untrained
    assert found.run().best.mss_db < 0.05


@pytest.fixture(scope="module")
def training(parts, params, renderer) -> tuple[FeatureTable, Any]:
    """Five training clips: their features, and their sounds."""
    table = Patches.stack(
        [sampling.draw("full", "train", i, 21, params.sample) for i in range(5)], "full", "train"
    )
    sounds = renderer.render(list(table))
    posteriors = [PatchPosterior.of(parts[0], sound) for sound in sounds]
    known = FeatureTable(
        table,
        (np.concatenate([e.features.numpy() for e in posteriors]).astype(np.float16),),
        parts[0].spec,
    )
    return known, SimpleNamespace(patches=table, audio=lambda row: sounds[row])


NEAR = {"neighbours": 1, "shortlist": 5, "proposals": 2}


def test_the_answer_is_never_further_than_the_nearest_training_render(
    parts, params, note, renderer, training
):
    """Whatever network and proxy think, its patch is rendered as it is.

    With sounds at hand, nearest means by MSS.
    """
    known, clips = training
    nearest_db = min(metrics_sound.mss(clips.audio(row), note.clip, RATE) for row in range(5))
    wrong = replace(note, note=note.note + 5, notes=(note.note + 5,))
    host = Host(renderer)
    found, _ = search(
        params, wrong, parts, host, known, NEAR, polish_s=0.0, itf=False, candidates=1, clips=clips
    )
    assert found.run().best.mss_db <= nearest_db + 0.05
    rendered_first = {patch.digest for patch in host.patches}
    assert len(rendered_first) == 2 and rendered_first & {patch.digest for patch in known.patches}


def test_a_note_and_a_gate_that_a_person_told_stay(parts, params, note, renderer, training):
    known, clips = training
    told = replace(note, note=47, notes=(47,), gate_s=0.4, given=("note", "gate_s"))
    host = Host(renderer)
    search(params, told, parts, host, known, NEAR, clips=clips, polish_s=1.0)[0].run()
    assert len(host.patches) > 6 and {(p.note, p.gate_s) for p in host.patches} == {(47, 0.4)}


def test_a_host_that_renders_nothing_is_an_error(params, note, parts):
    class Deaf:
        def map(self, patches: list[Patch]) -> Iterator[tuple[int, Any]]:
            return iter((i, "refused") for i in range(len(patches)))

    with pytest.raises(HostError, match="rendered none"):
        search(params, note, parts, Deaf(), polish_s=0.0)[0].run()


def test_refinement_stops_in_time_with_states_no_further_than_their_start(params, note, parts):
    patches = [sampling.draw("dry", "train", i, 4, params.sample) for i in range(2)]
    distance = finetune.target_distance(parts[1], note.clip, RATE, 0.3)
    itf = params.itf.model_copy(update={"steps": 10_000, "clip_s": 0.3})
    locked = np.zeros(RACK.n_knobs, dtype=bool)
    locked[RACK.knob_index["wavetable.osc_1_pos"]] = True
    looks: list[float] = []

    def look() -> None:
        looks.append(CLOCK.seconds)
        CLOCK.seconds += STEP_S

    refined = refinement.refine(
        parts[1],
        note.clip,
        patches,
        itf,
        locked,
        sample_rate=RATE,
        distances=lambda _: distance,
        seconds=1.0,
        progress=look,
    )
    assert len(looks) >= 10 and len(refined) == 2
    before, after = (
        finetune.rank(parts[1], note.clip, p, sample_rate=RATE, clip_s=0.3, distance=distance)
        for p in (patches, refined)
    )
    assert (after <= before + 1e-5).all() and (after < before).any()
    for old, new in zip(patches, refined, strict=True):
        assert np.array_equal(old.knobs[locked], new.knobs[locked])
        assert np.array_equal(old.choices, new.choices) and np.array_equal(old.chain, new.chain)


def test_similarity_is_100_at_the_same_sound_and_0_at_chance():
    assert search_search.similarity(0.0, 15.4) == 100.0
    assert search_search.similarity(7.7, 15.4) == pytest.approx(50.0)
    assert search_search.similarity(40.0, 15.4) == 0.0
