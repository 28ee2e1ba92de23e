"""Laws of evaluation: what is judged, how rows are made and summarised, and that nothing
finished is measured twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from unmixer_core import config
from unmixer_core.errors import StageError
from unmixer_core.evaluation import page as evaluation_page
from unmixer_core.evaluation import proxy_gap, recovery
from unmixer_core.evaluation import summary as evaluation_summary
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.schema.patch import Patch, Patches
from unmixer_core.schema.rack import RACK
from unmixer_core.scoring import baselines, score
from unmixer_core.scoring import measures as scoring_measures
from unmixer_core.scoring import neighbours as scoring_neighbours
from unmixer_core.scoring import retrieval as scoring_retrieval
from unmixer_core.scoring import targets as scoring_targets

RATE, SECONDS = 44100, 0.25
PARAMS = config.load(Path(__file__).resolve().parents[2] / "params.yaml")
SCORE = PARAMS.score.model_copy(update={"bootstrap": 50, "confidence": 0.9, "seed": 1})
SETTINGS = PARAMS.evaluate.model_copy(
    update={"n_dry": 2, "n_nonlinear": 0, "n_full": 3, "n_baseline": 2, "n_detail": 1, "seed": 4}
)


def tone(patch: Patch) -> np.ndarray:
    """Knob osc_1_pos sets the pitch: [2, SECONDS]."""
    time_s = np.arange(int(RATE * SECONDS)) / RATE
    sound = np.sin(2 * np.pi * 220 * 2 ** (3 * patch.knob("wavetable.osc_1_pos")) * time_s)
    return np.tile(0.3 * sound * np.exp(-4 * time_s), (2, 1)).astype(np.float32)


class FakeHost:
    def __init__(self, refuse: Iterable[str] = ()) -> None:
        self.refuse, self.renders = set(refuse), 0

    def render(self, patches: list[Patch]) -> list[object]:
        self.renders += len(patches)
        return [
            SimpleNamespace(reason="refused") if p.digest in self.refuse else tone(p)
            for p in patches
        ]


def patches_at(*positions: float, effects: tuple[str, ...] = ()) -> list[Patch]:
    return [Patch.init(60, 1.0, effects).with_values({"wavetable.osc_1_pos": p}) for p in positions]


def clips() -> Patches:
    parts = [
        Patches.stack(patches_at(0.1, 0.5, 0.9, effects=("Reverb",)), "full", "train", 0),
        Patches.stack(patches_at(0.0, 1.0), "dry", "train", 3),
        Patches.stack(patches_at(0.2, 0.3, 0.4, 0.6, effects=("Reverb",)), "full", "test", 5),
        Patches.stack(patches_at(0.7, 0.8, 0.85), "dry", "test", 9),
    ]
    return Patches.concat(parts)


def prepared() -> tuple[Patches, list[scoring_targets.ScoreTarget]]:
    table = clips()
    chosen = scoring_targets.choose(table, SETTINGS)
    return table, scoring_targets.targets(lambda i: tone(table[i]), table, chosen, SETTINGS, RATE)


def perfect(test: list[scoring_targets.ScoreTarget]) -> list[score.ScoreJob]:
    """Predictions that are the truth."""
    return score.prediction_jobs(test, [t.patch for t in test], [t.patch for t in test])


def everything(
    host: FakeHost, ledger: score.Ledger
) -> tuple[pd.DataFrame, Patches, list[scoring_targets.ScoreTarget]]:
    table, test = prepared()
    train = table.where(split="train")
    retrieval = scoring_retrieval.Retrieval.build(lambda i: tone(table[i]), train, RATE)
    found = scoring_neighbours.retrieve(retrieval, test)
    jobs = score.baseline_jobs(
        test, table.select(train), {c: table[near.clips[0]] for c, near in found.items()}, seed=2
    )
    jobs += perfect(test)
    rows, _ = score.score(host, jobs, test, RATE, ledger)
    return (
        scoring_neighbours.nearest_rows(rows, test, found, lambda i: tone(table[i]), RATE),
        table,
        test,
    )


def test_only_the_first_test_clips_of_a_phase_are_judged_and_zero_means_all() -> None:
    table = clips()
    chosen = scoring_targets.choose(table, SETTINGS)
    assert {phase: len(rows) for phase, rows in chosen.items()} == {"dry": 2, "full": 3}
    assert all(table.split[rows].tolist() == ["test"] * len(rows) for rows in chosen.values())
    everything_chosen = scoring_targets.choose(
        table, SETTINGS.model_copy(update={"n_dry": 0, "n_nonlinear": 0, "n_full": 0})
    )
    assert {phase: len(rows) for phase, rows in everything_chosen.items()} == {"dry": 3, "full": 4}


def test_no_test_split_is_an_error_that_says_what_to_run() -> None:
    table = clips().select(clips().where(split="train"))
    with pytest.raises(StageError, match="dvc repro"):
        scoring_targets.targets(
            lambda i: tone(table[i]), table, scoring_targets.choose(table, SETTINGS), SETTINGS, RATE
        )


def test_baselines_and_details_are_asked_of_the_first_clips_only() -> None:
    _, test = prepared()
    full = [t for t in test if t.phase == "full"]
    assert [t.baseline for t in full] == [True, True, False] and [t.detail for t in full] == [
        True,
        False,
        False,
    ]


def test_every_row_of_the_table_is_there_for_every_phase() -> None:
    rows, *_ = everything(FakeHost(), score.Ledger(None))
    for phase in ("dry", "full"):
        assert set(evaluation_summary.ROWS) <= set(rows.loc[rows["phase"] == phase, "row"])


def test_a_perfect_prediction_scores_perfectly_and_beats_retrieval() -> None:
    rows, *_ = everything(FakeHost(), score.Ledger(None))
    flat = evaluation_summary.summarise(rows, evaluation_summary.ROWS, SCORE)
    assert flat["full.prediction.mss_db"] == pytest.approx(0.0, abs=1e-4)
    assert flat["full.prediction.rms"] == pytest.approx(1.0, abs=1e-6)
    assert flat["full.prediction.beats_nearest"] == 1.0
    assert (
        flat["full.prediction.n"] == 3
        and flat["full.random.n"] == flat["full.prediction_mode.n"] == 2
    )


def test_nearest_is_per_clip_the_better_of_both_forms() -> None:
    rows, *_ = everything(FakeHost(), score.Ledger(None))
    by = rows.pivot_table(index="id", columns="row", values="mss_db").dropna()
    assert np.allclose(by["nearest"], by[["nearest_as_is", "nearest_rerendered"]].min(axis=1))


def test_a_failed_render_counts_at_the_floor_and_is_not_dropped() -> None:
    _, test = prepared()
    host = FakeHost(refuse=[test[0].patch.digest])
    jobs = perfect(test)
    rows, _ = score.score(host, jobs, test, RATE, score.Ledger(None))
    assert len(rows) == len(jobs)
    assert (rows.loc[rows["id"] == test[0].id, "mss_db"] == baselines.UNHEARD_DB).all()


def test_a_second_run_renders_nothing_and_gives_the_same_rows(tmp_path: Path) -> None:
    path = tmp_path / "state" / "rows.jsonl"
    first, *_ = everything(FakeHost(), score.Ledger(path))
    host = FakeHost()
    second, *_ = everything(host, score.Ledger(path))
    assert host.renders == 0
    pd.testing.assert_frame_equal(first, second)


def test_an_interrupted_run_continues_and_a_torn_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    whole, *_ = everything(FakeHost(), score.Ledger(path))
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:7]) + "\n" + lines[7][:20])
    host = FakeHost()
    again, *_ = everything(host, score.Ledger(path))
    assert 0 < host.renders <= len(lines) - 7
    pd.testing.assert_frame_equal(whole, again)
    assert len(score.Ledger(path).rows) == len(lines)


def test_equal_patches_of_a_clip_are_rendered_once() -> None:
    _, test = prepared()
    host = FakeHost()
    rows, kept = score.score(
        host,
        perfect(test),
        test,
        RATE,
        score.Ledger(None),
        keep=[(row, test[0].clip) for row in evaluation_summary.ROWS],
    )
    assert host.renders == len(test) < len(rows)
    assert set(kept) == {("prediction", test[0].clip), ("prediction_mode", test[0].clip)}


def test_kept_sounds_are_what_the_host_rendered() -> None:
    _, test = prepared()
    jobs = perfect(test)
    _, kept = score.score(
        FakeHost(), jobs, test, RATE, score.Ledger(None), keep={("prediction", test[1].clip)}
    )
    assert list(kept) == [("prediction", test[1].clip)]
    assert np.array_equal(kept["prediction", test[1].clip], tone(test[1].patch))


def test_chunks_come_in_order_and_whole() -> None:
    _, test = prepared()
    jobs = perfect(test) * 5
    pairs = [
        (job, sound)
        for chunk, sounds in score.rendered(FakeHost(), jobs)
        for job, sound in zip(chunk, sounds, strict=True)
    ]
    assert [job for job, _ in pairs] == jobs
    assert all(np.array_equal(sound, tone(job.patch)) for job, sound in pairs)


def test_the_interval_of_a_median_holds_it() -> None:
    rows, *_ = everything(FakeHost(), score.Ledger(None))
    flat = evaluation_summary.summarise(rows, evaluation_summary.ROWS, SCORE)
    for name in ("full.random", "full.nearest_as_is"):
        assert flat[f"{name}.mss_db_low"] <= flat[f"{name}.mss_db"] <= flat[f"{name}.mss_db_high"]


def test_the_keys_of_the_metrics_are_stable() -> None:
    rows, *_ = everything(FakeHost(), score.Ledger(None))
    keys = set(evaluation_summary.summarise(rows, evaluation_summary.ROWS, SCORE))
    suffixes = {
        "n",
        "mss_db",
        "mss_db_low",
        "mss_db_high",
        "beats_nearest",
        "mss_db_vs_nearest",
        *scoring_measures.MEASURES,
    }
    wanted = {f"full.{row}.{suffix}" for row in evaluation_summary.ROWS for suffix in suffixes}
    wanted -= {"full.nearest.beats_nearest", "full.nearest.mss_db_vs_nearest"}
    assert {key for key in keys if key.startswith("full.")} == wanted


# What was recovered


def recovered(predicted: list[Patch] | None = None, pit: float = 0.5) -> recovery.Recovered:
    table = clips()
    true = table.select(table.where(phase="full", split="test"))
    guess = predicted or [true[i] for i in range(len(true))]
    majority = baselines.Majority.of(table.select(table.where(split="train")))
    return recovery.Recovered(true, guess, majority, np.full(true.knobs.shape, pit))


def test_the_truth_recovers_itself_and_majority_does_not() -> None:
    flat = recovery.flat(recovered(), (0.5, 0.9))
    assert flat["knob_mae"] == 0.0 and flat["class_accuracy"] == 1.0 and flat["chain.exact"] == 1.0
    assert flat["knob_mae_majority"] > 0.0 and flat["chain.levenshtein"] == 0.0
    assert flat["coverage_50"] == flat["coverage_90"] == 1.0


def test_a_pit_at_the_edge_is_covered_by_no_interval_and_an_unknown_one_is_left_out() -> None:
    assert recovery.flat(recovered(pit=0.99), (0.5, 0.9))["coverage_90"] == 0.0
    found = recovered(pit=0.99)
    found.pit[0, :] = np.nan
    found.pit[1, :] = 0.5
    assert recovery.flat(found, (0.9,))["coverage_90"] == pytest.approx(1 / 3)


def test_knobs_and_choices_that_are_never_heard_have_no_line() -> None:
    knobs, choices = recovery.knob_table(recovered()), recovery.choice_table(recovered())
    assert "reverb.decay_time" in knobs.index and "delay.feedback" not in knobs.index
    assert "saturator.type" not in choices.index and (choices["accuracy"] == 1.0).all()


def test_slot_confusion_counts_missing_and_invented_effects() -> None:
    predicted = [
        *patches_at(0.2),
        *patches_at(0.3, 0.4, effects=("Reverb", "Delay")),
        *patches_at(0.6, effects=("Reverb",)),
    ]
    counts, labels = recovery.slot_confusion(recovered(predicted))
    at = labels.index
    assert counts[at("Reverb"), at("Reverb")] == 3
    assert (
        counts[at("Reverb"), at(recovery.NONE)] == 1 and counts[at(recovery.NONE), at("Delay")] == 2
    )
    assert counts.sum() == 6


# Reports


def test_the_page_holds_every_row_and_fetches_nothing() -> None:
    rows, *_ = everything(FakeHost(), score.Ledger(None))
    flat = evaluation_summary.summarise(rows, evaluation_summary.ROWS, SCORE)
    line = {"chain": (), **dict.fromkeys(proxy_gap.COLUMNS[1:], 1.0)}
    pair = {"host": tone(patches_at(0.2)[0]), "proxy": tone(patches_at(0.3)[0])}
    gap = proxy_gap.Gap(pd.DataFrame([line], columns=proxy_gap.COLUMNS), {7: pair}, RATE)
    examples = [
        evaluation_page.Example(
            "clip-5",
            "clip 5",
            {"target": tone(patches_at(0.2)[0]), "prediction": tone(patches_at(0.3)[0])},
        )
    ]
    effects = pd.DataFrame({"f1": [0.5], "auc": [0.7]}, index=["Reverb"])
    report = evaluation_page.evaluation_page(
        flat, rows, evaluation_summary.ROWS, recovered(), effects, gap, examples, RATE
    )
    page = report.html()
    for word in (
        *evaluation_summary.ROWS,
        "Phase: dry",
        "Phase: full",
        "Proxy gap",
        "Which effects",
        "Effect chain",
        "clip 5",
    ):
        assert word in page
    assert "http" not in page and page.count("<audio") == 4 and len(page) < 3_000_000


def test_measures_of_a_sound_against_itself() -> None:
    _, test = prepared()
    values = scoring_measures.measure(test[0].audio, test[0], RATE, detail=True)
    assert (
        values["mss_db"]
        == values["wmfcc"]
        == values["sot"]
        == values["level_db"]
        == pytest.approx(0.0, abs=1e-5)
    )
    assert values["rms"] == pytest.approx(1.0)
    short = scoring_measures.measure(test[0].audio[:, :9000], test[0], RATE, detail=False)
    assert short["mss_db"] > 0 and np.isnan(short["wmfcc"])
    assert metrics_sound.mss(test[0].audio, test[0].audio, RATE) == 0.0
    assert RACK.n_knobs == len(test[0].patch.knobs)
