"""A ninth effect: everything derives from the schema, or refuses at the start in one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_case(case: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.schema.nine_effects", case, str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("case", ["schema", "bounds", "model", "proxy", "headless"])
def test_what_derives_from_the_schema(case: str, tmp_path: Path):
    done = run_case(case, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("no_table", 'schema/tables.json has no parameter table for the device "Gain"'),
        ("no_proxy_module", 'the proxy has no module for the effect "Gain"'),
        ("no_mapping", 'the headless voice has no mapping for the effect "Gain"'),
    ],
)
def test_what_is_missing_is_named_at_the_start(case: str, sentence: str, tmp_path: Path):
    done = run_case(case, tmp_path)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1
