"""Several ranks do what one process does.

The same curve, the same files, and no finished epoch lost with a killed one.

Tolerance, as documented in docs/scale.md: sums over ranks are added in another order than sums over
a batch, so values agree to float32 rounding at first and drift apart slowly: within 2e-4 after one
epoch here, 2e-3 after all of them (the toy's spectral gradients reach 1e12, which makes it a hard
case).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests import ranks as toy
from tests.model import tiny
from tests.training.test_phase import FakeTerm
from unmixer_core import distributed
from unmixer_core.distributed import Ranks
from unmixer_core.errors import ConfigError
from unmixer_core.model import noise
from unmixer_core.training import objective, phase
from unmixer_core.training.curriculum import Schedule, batches_of

REPO = Path(__file__).resolve().parents[1]


def start(out: Path, world: int, **variables: str) -> subprocess.CompletedProcess[str]:
    """The toy stage on `world` ranks."""
    out.mkdir(exist_ok=True)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PET_", "TORCHELASTIC"))
    }
    return subprocess.run(
        [sys.executable, "tests/ranks.py", "--out", str(out)],
        cwd=REPO,
        env={**environment, "UNMIXER_NPROC": str(world), **variables},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def alone(out: Path) -> Path:
    """The same in this process."""
    out.mkdir(exist_ok=True)
    toy.train(out)
    return out


def curve(out: Path) -> list[tuple[int, dict[str, float]]]:
    return [
        (step, values)
        for step, values in json.loads((out / "curve.json").read_text(encoding="utf-8"))["rows"]
    ]


def losses_of(values: dict[str, float]) -> dict[str, float]:
    """What is a loss; gradient norms before clipping (up to 1e12 here) are no part of the curve."""
    return {
        name: v
        for name, v in values.items()
        if name.endswith(("knobs", "choices", "chain", "present", "loss"))
    }


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return alone(tmp_path_factory.mktemp("single") / "out")


def test_two_ranks_reproduce_the_curve_of_one_process(tmp_path: Path, single: Path) -> None:
    done = start(tmp_path, 2)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "two ranks say no more than one"
    pairs = list(zip(curve(single), curve(tmp_path), strict=True))
    assert len(pairs) > 8 and any("train.spectral" in values for (_, values), _ in pairs)
    for (step, one), (other_step, two) in pairs:
        assert step == other_step and set(one) == set(two)
        assert losses_of(two) == pytest.approx(losses_of(one), rel=1e-4), f"step {step}"
    spectral = [
        [values["train.spectral"] for _, values in curve(out) if "train.spectral" in values]
        for out in (single, tmp_path)
    ]
    assert spectral[0] == pytest.approx(spectral[1], rel=1e-4), (
        "the same clips, heard through the same noise"
    )
    weights = [torch.load(out / "weights.pt", weights_only=True) for out in (single, tmp_path)]
    assert (
        all(torch.isfinite(x).all() for x in weights[1].values())
        and weights[0].keys() == weights[1].keys()
    )


def test_a_killed_rank_is_named_and_one_process_goes_on_after_the_last_epoch(
    tmp_path: Path, single: Path
) -> None:
    killed = start(tmp_path, 2, RANKS_KILL="1:2")
    assert killed.returncode == 1
    (said,) = [line for line in killed.stderr.splitlines() if line.startswith("error:")]
    assert "rank 1 was killed by SIGKILL" in said and "UNMIXER_NPROC=2 dvc repro" in said
    assert "Traceback" not in killed.stderr and not (tmp_path / "curve.json").exists()
    assert torch.load(tmp_path / "state" / "epoch.pt", weights_only=True)["progress"]["epoch"] == 2
    alone(tmp_path)
    first = curve(tmp_path)[0][0]
    rest = [(step, values) for step, values in curve(single) if step >= first]
    assert first > 10 and [step for step, _ in rest] == [step for step, _ in curve(tmp_path)]
    for (_, one), (_, two) in zip(rest, curve(tmp_path), strict=True):
        assert losses_of(two) == pytest.approx(losses_of(one), rel=1e-4)


def test_an_error_of_one_rank_is_said_once_and_by_its_rank(tmp_path: Path) -> None:
    (tmp_path / "missing").touch()
    done = start(tmp_path, 2)
    assert done.returncode == 1
    assert [
        line
        for line in done.stderr.splitlines()
        if "rank 1 stopped: this rank cannot go on" in line
    ] != []
    assert done.stderr.count("error:") == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize("given", ["0", "two", "-1"])
def test_a_wrong_number_of_ranks_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("UNMIXER_NPROC", given)
    with pytest.raises(ConfigError, match="UNMIXER_NPROC"):
        distributed.wanted()


def test_a_rank_starts_no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMIXER_NPROC", "4")
    assert distributed.several()
    monkeypatch.setenv("RANK", "0")
    assert distributed.wanted() == 1 and not distributed.several()


def test_ranks_share_every_row_once_and_their_weighted_means_make_the_whole_mean() -> None:
    values = np.random.default_rng(1).random(13)
    parts = [(Ranks(r, 4), values[Ranks(r, 4).rows(13)]) for r in range(4)]
    assert sorted(np.concatenate([part for _, part in parts])) == sorted(values)
    assert np.mean([ranks.weight(13) * part.mean() for ranks, part in parts]) == pytest.approx(
        values.mean()
    )
    assert all(ranks.count(13) == len(part) for ranks, part in parts)


def test_batches_hold_a_clip_for_every_rank_and_do_not_change_where_they_already_do() -> None:
    for n in range(8, 60):
        batches = batches_of(np.arange(n), 8, 5)
        assert np.array_equal(np.concatenate(batches), np.arange(n)) and min(map(len, batches)) >= 5
        if n % 8 == 0 or n % 8 >= 5:
            assert [len(b) for b in batches] == [len(b) for b in batches_of(np.arange(n), 8)]
    with pytest.raises(ConfigError, match="9 ranks"):
        Schedule(tiny.data(), tiny.section(tiny.PHASE, batch=8), 9).batches(0)


def test_shared_noise_is_the_batchs_and_alone_nothing_changes() -> None:
    def drawn() -> torch.Tensor:
        torch.manual_seed(3)
        return noise.draw(torch.randn, (6, 2))

    whole = drawn()
    for rank in range(2):
        with noise.share(Ranks(rank, 2).rows(6), 6):
            torch.manual_seed(3)
            assert torch.equal(noise.draw(torch.randn, (3, 2)), whole[rank::2])
    ours, torchs = noise.Dropout(0.3), nn.Dropout(0.3)
    x, kept = torch.ones(6, 5), []
    for layer in (ours, torchs):
        torch.manual_seed(4)
        kept.append(layer(x))
    with noise.share(slice(1, 6, 2), 6):
        torch.manual_seed(4)
        assert torch.equal(ours(x[:3]), kept[0][1::2]) and torch.equal(*kept)
        assert torch.equal(ours.eval()(x[:3]), x[:3])


def test_bf16_leaves_the_hyperbolic_parts_in_float64(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[str, torch.dtype] = {}
    model = tiny.model()
    logits = model.chain.space.logits
    monkeypatch.setattr(
        type(model.chain.space),
        "logits",
        lambda self, *x: (seen.update(point=x[0].dtype), logits(*x))[1],
    )
    model.neck[0].register_forward_hook(lambda *x: seen.update(neck=x[2].dtype))
    monkeypatch.setenv("UNMIXER_PRECISION", "bf16")
    report = phase.fit(
        model,
        tiny.data(),
        tiny.settings(phase={"epochs": 1}),
        state=tmp_path,
        log=tiny.Silent(),
        proxy_term=FakeTerm(),
    )
    assert all(np.isfinite(value) for value in report.values())
    monkeypatch.setenv("UNMIXER_PRECISION", "fp8")
    with pytest.raises(ConfigError, match="UNMIXER_PRECISION"):
        objective.autocast(torch.device("cpu"))
    assert seen["point"] == torch.float64
    assert model.neck[0].weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({}, False)],
)
def test_a_cpu_trains_in_bf16_where_it_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: bool
) -> None:
    monkeypatch.delenv("UNMIXER_PRECISION")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    objective._computes_in_bf16.cache_clear()
    try:
        assert isinstance(objective.autocast(torch.device("cpu")), torch.autocast) is expected
    finally:
        objective._computes_in_bf16.cache_clear()


def test_shared_batch_norm_sums_bf16_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far from zero, where the squares of bfloat16 would lose the variance."""
    monkeypatch.setattr(
        torch.distributed, "all_reduce", lambda _: None
    )  # one rank's sums are the whole
    x = (100.0 + torch.randn(64, 3, 5)).bfloat16()
    ours, theirs = distributed.SyncedBatchNorm.of(nn.BatchNorm1d(3)), nn.BatchNorm1d(3)
    y = ours(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), theirs(x.float()), atol=0.03, rtol=0.02)
