"""The schema's digest: the shipped weights were made under it, so it changes only with weights
of its own.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unmixer_core.schema.rack import RACK

SHIPPED = Path(__file__).resolve().parents[2] / "models" / "pretrained"


def test_the_digest_is_the_one_of_the_shipped_patches():
    assert RACK.digest == "7839a98ced82639e"


@pytest.mark.parametrize("name", ["model.json", "proxy/proxy.json"])
def test_the_shipped_weights_carry_the_digest(name: str):
    text = (SHIPPED / name).read_text(encoding="utf-8")
    assert RACK.digest in json.dumps(json.loads(text))
