"""The fault matrix: every fault of a host ends in the right sound or a named error, soon, and
leaves no process behind.

Real client, real host processes. A case renders a few patches while its host misbehaves; each patch
must come back equal to the bit to what a faultless host gives, or as an error that names what
happened. `right` and `named` say which; where chance decides, either may come, but never another
sound. The last test counts what was gone through.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from tests.processes import with_words
from unmixer_core.errors import HostError
from unmixer_core.headless.faults.faults import FAULTS
from unmixer_core.live.farm import hosts, supervisor
from unmixer_core.live.host import RenderFailure
from unmixer_core.live.renderer import Renderer
from unmixer_core.live.session import recorder, recordings
from unmixer_core.schema.patch import Patch

pytestmark = pytest.mark.skipif(
    find_spec("vita") is None, reason="the embedded host sounds through vita"
)
AUDIO = SimpleNamespace(sample_rate=44100, clip_s=0.25, velocity=100)
WITHIN_S = 45.0
PATIENCE = (1.0, 6.0)
RIGHT, EITHER = "right", ""
outcomes: Counter[str] = Counter()


@dataclass(frozen=True)
class Case:
    """`faults` (and options) as on the command line; `expected`.

    RIGHT, words of the error, or EITHER; `n` patches.
    """

    faults: str
    expected: str = RIGHT
    lanes: int = 2
    n: int = 3

    @property
    def options(self) -> list[str]:
        return [
            part
            for word in self.faults.split()
            for part in ((word,) if word.startswith("--") else ("--fault", word))
        ]


CASES = [
    # the wire
    Case("latency:ms=5"),
    Case("latency:ms=25"),
    Case("loss:chance=0.02", EITHER),
    Case("loss:chance=0.06", EITHER),
    Case("duplicate:chance=0.3", EITHER),
    Case("duplicate:chance=1", EITHER),
    Case("late:chance=0.03,ms=350", EITHER),
    Case("late:chance=0.15,ms=350", EITHER),
    Case("reorder:chance=0.2", EITHER),
    Case("reorder:chance=1,ms=20", EITHER),
    Case("error:every=50", EITHER),
    Case("error:every=15", EITHER),
    Case("stray:every=10"),
    Case("junk:every=5"),
    Case(
        "loss:chance=0.02 duplicate:chance=0.1 late:chance=0.02,ms=350 reorder:chance=0.1 "
        "stray:every=30",
        EITHER,
    ),
    # the host
    Case("dialog:after=70,s=0.5"),
    Case("dialog:after=20,s=0.5"),
    Case("dialog:after=70,s=600", "did not answer|said nothing", n=1),
    Case("silence:after=10", "did not answer|said nothing", n=1),
    Case("silence:after=70", "did not answer|said nothing|lost", n=1),
    Case("crash:take=2,once={once}"),
    Case("crash:take=1,once={once}"),
    Case("crash:take=1", "ended by signal 9", n=1),
    Case("crash:take=2", lanes=1),
    Case("crash:take=2", EITHER),  # with every take of the other lane, when those last as long
    Case("crash:note=46", "ended by signal 9"),
    Case("stuck:take=2", EITHER),
    Case("stuck", "did not end", n=1),
    Case("no_device:name=Phaser-Flanger", "cannot insert Phaser-Flanger", n=1),
    Case("no_device:name=Wavetable", "cannot insert Wavetable", n=1),
    Case("no_parameter:name=Osc{space}1{space}Pos", "has no parameter 'Osc 1 Pos'", n=1),
    Case("no_companion", EITHER),  # refused, or rendered as far as stock AbletonOSC goes
    Case("version:major=11", "Live 11.0 answers", n=1),
    # the file
    Case("realtime"),
    Case("full_disk", "No space left on device", n=1),
    Case("full_disk:take=2"),
    Case("missing", "cannot be read", n=1),
    Case("missing:take=2"),
    Case("locked", "cannot be read", n=1),
    Case("locked:take=1,s=0.05"),
    Case("short", "has 5512 samples, but 11025 are wanted", n=1),
    Case("short:take=2"),
    Case("long"),
    Case("cut", "samples, but 11025 are wanted", n=1),
    Case("rate", "48000 Hz, but 44100 Hz is wanted", n=1),
    Case("rate:take=1,hz=22050"),
    Case("earlier:take=2", lanes=1),
    Case("earlier", EITHER, lanes=1),
    Case("earlier:take=2"),
    Case("earlier", EITHER),
    Case("stale", "written .* before this take|an earlier one recorded", n=1),
    Case("stale:take=2"),
    # somebody at Live
    Case("delete_track:take=2,track=4,once={once}"),
    Case("delete_track:take=2,track=5,once={once}"),
    Case("delete_track:take=2,track=0,once={once}"),
    Case("delete_track:track=4", "were moved, renamed or deleted", n=1),
    Case("rename_track:take=1,track=6,once={once}"),
    Case("rename_track:take=1,track=5,once={once}"),
    Case("delete_device:take=1,track=4,device=2,once={once}"),
    Case("delete_device:take=2,track=4,device=0,once={once}"),
    Case("knob:take=1"),
    Case(
        "knob", "was moved while it was recorded", lanes=1, n=1
    ),  # another lane would render it right
    Case("property:take=1"),
    Case("property:take=1,name=oscillator_1_wavetable_index,value=7"),
    Case("property:take=2,name=oscillator_1_effect_mode,value=2"),
    Case("property:take=1,name=filter_routing,value=2"),
    Case("property", "unison_mode was changed from 0 to 1 while it was recorded", lanes=1, n=1),
    Case("modulation:take=1"),
    Case(
        "modulation:take=2,target=Filter{space}1{space}Freq,source=LFO{space}2"
    ),  # an amount that no patch names
    Case("modulation", "LFO 1 -> Osc 1 Pos was changed from 0 to 0.75", lanes=1, n=1),
    Case("property:take=1,track=5,once={once} --stock", lanes=1),
    Case(
        "property:track=5 --stock", "unison_mode on track .* was changed from 0 to 1", lanes=1, n=1
    ),
    Case("tempo:take=1"),
    Case("tempo", "tempo", n=1),
    # two at once
    Case("tempo:take=2 crash:take=3,once={once} loss:chance=0.01", EITHER),
]


def patches() -> list[Patch]:
    chains = [["Saturator", "Delay"], [], ["Reverb", "Saturator"]]
    return [
        Patch.init(45 + i, 0.1, chain).with_values({"saturator.drive": 0.9})
        for i, chain in enumerate(chains)
    ]


@pytest.fixture(scope="module")
def right() -> list[np.ndarray]:
    with Renderer(AUDIO, n_hosts=1, lanes=2) as renderer:
        return renderer.render(patches())


def shorten(monkeypatch: pytest.MonkeyPatch, times: float = 1.0) -> None:
    """The client's patience, made for a Live whose menus freeze it, cut to the length of a test.

    `times` as much of it.
    """
    monkeypatch.setenv("UNMIXER_OSC_TIMEOUT_S", str(0.3 * times))
    monkeypatch.setattr(recordings, "FILE_WITHIN_S", 0.15 * times)
    monkeypatch.setattr(recorder, "SLACK_S", 1.2 * times)
    monkeypatch.setattr(recorder, "START_WITHIN_S", 0.8 * times)
    monkeypatch.setattr(supervisor, "PAUSE_S", 0.02)
    monkeypatch.setattr(supervisor, "HOST_TRIES", 3)
    monkeypatch.setattr(hosts, "STOP_WITHIN_S", 0.3 * times)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose patience has the length of a test."""
    shorten(monkeypatch)


@pytest.mark.parametrize(
    "case", CASES, ids=[re.sub(r"[{}]|,once=\S+", "", case.faults) for case in CASES]
)
def test_a_fault_ends_in_the_right_sound_or_a_named_error(
    case, right, tmp_path, monkeypatch
) -> None:
    """A wrong sound is one at once.

    Another error than the expected one may be the test's impatience on a busy machine, which takes
    a host that was not scheduled for a third of a second for a silent one: then again, with more
    patience.
    """
    for times in PATIENCE:
        shorten(monkeypatch, times)
        folder = tmp_path / f"{times:g}"
        folder.mkdir()
        errors, lasted_s = gone_through(case, right, folder)
        wrong = unexpected(case, errors) or (
            f"it took {lasted_s:.1f} s" if lasted_s > WITHIN_S * times else ""
        )
        if not wrong:
            break
    assert not wrong, wrong
    outcomes["named error" if errors else "right"] += 1


def gone_through(case: Case, right: list[np.ndarray], folder: Path) -> tuple[list[str], float]:
    """The errors of one try, and its seconds.

    Asserts that no sound is wrong, none is missing and no process is left.
    """
    options = [text.format(once=folder / "once", space=" ") for text in case.options]
    start_s, errors, results, others = time.monotonic(), [], {}, host_processes()
    try:
        with Renderer(AUDIO, n_hosts=1, lanes=case.lanes, host_options=options) as renderer:
            for i, result in renderer.map(patches()[: case.n]):
                results[i] = result
    except HostError as error:
        errors.append(str(error))
    lasted_s = time.monotonic() - start_s
    errors += [result.reason for result in results.values() if isinstance(result, RenderFailure)]
    for i, result in results.items():
        if not isinstance(result, RenderFailure):
            np.testing.assert_array_equal(result, right[i], err_msg=f"patch {i}")
    assert errors or len(results) == case.n
    for error in errors:
        assert error.endswith((".", "?")) and len(error.split()) > 5, error
    assert not psutil.wait_procs(host_processes() - others, timeout=30.0)[1], (
        "a host or render worker of this case still runs"
    )
    return errors, lasted_s


def unexpected(case: Case, errors: list[str]) -> str:
    """The errors, when they are not what the case expects."""
    if case.expected == RIGHT:
        return " | ".join(errors)
    if case.expected != EITHER and not any(re.search(case.expected, error) for error in errors):
        return f"not {case.expected!r}: {' | '.join(errors)}"
    return ""


def host_processes() -> set[psutil.Process]:
    """Hosts and render workers below this process; other tests' fixtures may keep some, too."""
    return set(with_words("unmixer_core.headless", recursive=True))


def test_every_fault_of_the_host_is_in_the_matrix() -> None:
    committed = {
        words[0]
        for case in CASES
        for words in (w.split(":") for w in case.faults.split())
        if "--" not in words[0]
    }
    assert committed == set(FAULTS)


def test_the_matrix_is_counted(capsys) -> None:
    """Every case that ran ended one way or the other.

    The count is printed whatever pytest captures.
    """
    with capsys.disabled():
        sys.stdout.write(
            f"\nfault matrix: {len(CASES)} cases of {len(FAULTS)} faults; outcomes "
            f"{dict(outcomes)}\n"
        )
    assert len(CASES) >= 60 and sum(outcomes.values()) in (0, len(CASES))
