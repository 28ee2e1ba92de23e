"""The page of an answer: what it shows, in words and numbers that a musician reads."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import soundfile

from unmixer_app.answer import page as answer_page
from unmixer_app.answer import patch_file
from unmixer_core.schema.patch import Patch

RATE = 44100
TONE = np.repeat(
    np.sin(2 * np.pi * 220 * np.arange(RATE // 4) / RATE, dtype=np.float32)[None], 2, axis=0
)


def page(**changes: object) -> str:
    patch = Patch.init(52, 0.25, ("Saturator", "Reverb")).with_values({"saturator.drive": 0.5})
    document = patch_file.describe(patch) | {
        "similarity": {"percent": 71.3, "mss_db": 4.4},
        "seconds": 41.0,
        "verdict": None,
        "input": {"remarks": ["It is <clipped>."]},
    }
    sounds = {answer_page.RECORDING: TONE, answer_page.PATCH: 0.25 * TONE}
    rows = [("refined", "Saturator", 5.1)]
    return answer_page.page(
        "a&b.wav", document | changes, sounds, RATE, rows, 15.4, {"a.vital": "a preset"}
    ).html()


def test_it_names_what_a_musician_looks_for_and_fetches_nothing():
    text = page()
    for words in (
        "E2 (MIDI 52)",
        "key held 250 ms",
        "Saturator",
        "Reverb",
        "71 %",
        "width:71%",
        'href="a.vital"',
        "Oscillator 1 wavetable",
    ):
        assert words in text
    assert "It is &lt;clipped&gt;." in text and "a&amp;b.wav" in text and "http" not in text


def test_a_verdict_is_there_only_where_there_is_one():
    far = answer_page.verdict(9.0, 100, 8.0)
    assert far is not None and far in page(verdict=far).replace("&#x27;", "'")
    unsure = answer_page.verdict(9.0, 3, 8.0, thorough=False)
    assert unsure is not None and "cannot" not in unsure and "Not searched enough to tell" in unsure
    assert answer_page.verdict(7.9, 3, 8.0, thorough=False) is None
    assert answer_page.verdict(7.9, 100, 8.0) is None and "cannot make" not in page()


def test_players_keep_the_levels_they_are_given():
    """So that an A/B between sounds that were matched is no loudness contest."""
    found = [
        base64.b64decode(data) for data in re.findall(r"data:audio/ogg;base64,([^\"]+)", page())
    ]
    loud, quiet = (np.abs(soundfile.read(io.BytesIO(data))[0]).max() for data in found)
    assert quiet / loud == pytest.approx(0.25, abs=0.03) and loud == pytest.approx(0.89, abs=0.05)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (13412.0, "13400"),
        (2.8512, "2.85"),
        (-0.01634, "-0.0163"),
        (100.0, "100"),
        (9.996, "10"),
        (float("nan"), "-"),
    ],
)
def test_numbers_are_plain(value: float, shown: str):
    assert answer_page.plain(value) == shown
