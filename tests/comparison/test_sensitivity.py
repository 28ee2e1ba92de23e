"""Sensitivity of ITF, on a proxy and a host whose sound is linear in two knobs."""

from __future__ import annotations

import numpy as np
import pytest

from tests.comparison.test_methods import LinearHost
from tests.inference.test_finetune import RATE, patch
from unmixer_core import config
from unmixer_core.comparison import sensitivity
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.scoring.targets import ScoreTarget


@pytest.fixture()
def itf(params: config.Params) -> config.Itf:
    return params.itf.model_copy(
        update={
            "steps": 30,
            "lr": 0.2,
            "lambda_b": 0.01,
            "clip_norm": 0.0,
            "logit_limit": 5.2,
            "clip_s": 0.5,
            "try_steps": (0, 5),
            "try_lr": (0.2, 0.001),
            "try_lambda_b": (100.0,),
        }
    )


def test_one_setting_varies_at_a_time_and_the_sections_own_is_among_each(itf: config.Itf) -> None:
    found = [
        (one.name, one.value, one.itf.steps, one.itf.lr, one.itf.lambda_b)
        for one in sensitivity.variants(itf)
    ]
    assert found == [
        ("steps", 0.0, 0, 0.2, 0.01),
        ("steps", 5.0, 5, 0.2, 0.01),
        ("steps", 30.0, 30, 0.2, 0.01),
        ("lr", 0.001, 30, 0.001, 0.01),
        ("lr", 0.2, 30, 0.2, 0.01),
        ("lambda_b", 0.01, 30, 0.2, 0.01),
        ("lambda_b", 100.0, 30, 0.2, 100.0),
    ]


def test_few_steps_a_low_rate_or_a_heavy_anchor_keep_the_knobs_from_the_target(
    itf: config.Itf,
) -> None:
    """No steps change nothing; a tiny rate and a heavy anchor gain less than the section's own
    setting.
    """
    host = LinearHost()
    sound = host.render([patch(0.7, 0.3)])[0]
    target = ScoreTarget(
        1, 1, "full", patch(0.7, 0.3), sound, metrics_sound.mss_features(sound, RATE), True, True
    )
    rows = sensitivity.measure(host, host.proxy, [(target, patch(0.3, 0.7))], itf, RATE, 2)
    found = {
        (line["setting"], line["value"]): line["refined_db"] for line in rows.to_dict("records")
    }
    before = rows["before_db"].iloc[0]
    assert found["steps", 0.0] == before and found["steps", 30.0] < found["steps", 5.0] < before
    assert (
        found["lr", 0.001] > found["lr", 0.2] and found["lambda_b", 100.0] > found["lambda_b", 0.01]
    )
    assert (rows["mss_db"] <= np.minimum(rows["before_db"], rows["refined_db"]) + 1e-9).all()
    assert rows.loc[rows["own"], "setting"].tolist() == ["steps", "lr", "lambda_b"]
    assert "lr = 0.2" in sensitivity.table(rows).index
