"""The remote script against Live's published type stubs.

The calls it makes exist, with these arguments and results.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from unmixer_core.live.track.frozen import UNREACHABLE
from unmixer_core.live.track.targets import FIXED_PROPERTIES

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "remote_script"))
from UnmixerCompanion.operations import LISTS, SETTABLE, SOURCES

SCRIPT = Path(__file__).resolve().parents[3] / "remote_script"
NAMES = {
    "Amp": "amp_envelope",
    "Env 2": "envelope_2",
    "Env 3": "envelope_3",
    "LFO 1": "lfo_1",
    "LFO 2": "lfo_2",
    "Velocity": "midi_velocity",
    "Key": "midi_note",
    "PB": "midi_pitch_bend",
    "Press": "midi_channel_pressure",
    "Mod": "midi_mod_wheel",
    "Random": "midi_random",
}
STANDARD = {"__future__", "collections", "logging", "socket", "struct", "typing"}


def stubs():
    try:
        return Path(str(distribution("ableton-live-stubs").locate_file("Live-stubs")))
    except PackageNotFoundError:
        pytest.skip("ableton-live-stubs is not installed (requirements-dev.txt)")


@pytest.fixture(scope="module")
def wavetable():
    """Class name → {attribute: None or its value} of the stub of Wavetable."""
    tree = ast.parse((stubs() / "WavetableDevice.pyi").read_text(encoding="utf-8"))
    return {
        node.name: dict(map(_member, node.body))
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }


def _member(node):
    if isinstance(node, ast.FunctionDef):
        return node.name, None
    if isinstance(node, ast.AnnAssign):
        return node.target.id, ast.literal_eval(node.value)
    return None, None


def test_mypy_finds_nothing_against_the_stubs():
    stubs()
    pytest.importorskip("mypy")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--no-incremental",
            f"--cache-dir={os.devnull}",
            "--config-file=",
            "--python-version=3.11",
            "--check-untyped-defs",
            "--ignore-missing-imports",
            "--package",
            "UnmixerCompanion",
        ],
        cwd=SCRIPT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_property_exists_in_live(wavetable):
    needed = {
        *SETTABLE,
        *LISTS,
        *FIXED_PROPERTIES,
        *(choice.address.name for choice in UNREACHABLE.values()),
    }
    assert needed <= wavetable["WavetableDevice"].keys()


def test_sources_and_modes_are_numbered_as_in_live(wavetable):
    assert {NAMES[source]: i for i, source in enumerate(SOURCES)} == wavetable["ModulationSource"]
    modes = UNREACHABLE["wavetable.osc_1_effect_mode"]
    assert list(modes.raws) == sorted(wavetable["EffectMode"].values())
    assert (
        wavetable["UnisonMode"]["classic"]
        == dict(
            zip(
                UNREACHABLE["wavetable.unison_mode"].items,
                UNREACHABLE["wavetable.unison_mode"].raws,
                strict=True,
            )
        )["Classic"]
    )


def test_it_imports_nothing_but_live_and_the_standard_library():
    for path in SCRIPT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 11))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            else:
                continue
            assert {name.split(".")[0] for name in modules} <= STANDARD | {"Live", "ableton"}, path
