"""A report holds every row that it was given and needs nothing from outside."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from unmixer_core.report import plots
from unmixer_core.report.html import Report, number, player, png

TABLE = pd.DataFrame(
    {"mss_db": [6.1, 18.6, np.nan], "n": [100, 100, 3]},
    index=["nearest", "random <b>", "prediction"],
)
TONE = np.tile(0.2 * np.sin(np.arange(22050) * 0.06), (2, 1)).astype(np.float32)


def sample() -> Report:
    report = Report("A & B")
    report.heading("Table")
    report.text("words > numbers")
    report.table(TABLE, "median", best={"mss_db": "min"})
    report.figure(plots.boxes({"a": [1.0, 2.0], "b": []}, "dB"), "boxes")
    report.players({"target": TONE, "prediction": TONE}, 44100)
    return report


def test_every_row_and_value_is_in_both_forms() -> None:
    report = sample()
    for word in ("nearest", "prediction", "6.1", "18.6", "100"):
        assert word in report.html() and word in report.markdown()


def test_the_page_fetches_nothing() -> None:
    page = sample().html()
    words = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    assert not re.search(r"https?:|//[a-z]|<script|<link|@import|url\(", words)
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]{0,30})', page))


def test_text_is_escaped() -> None:
    page = sample().html()
    assert "A &amp; B" in page and "random &lt;b&gt;" in page and "words &gt; numbers" in page


def test_the_best_cell_is_marked_once_and_unmeasured_cells_are_dashes() -> None:
    page = sample().html()
    assert page.count('class="best"') == 1 and '<td class="best">6.1</td>' in page
    assert "<td>-</td>" in page


def test_a_player_holds_the_clip_at_the_common_peak() -> None:
    quiet, loud = (
        re.search(r"base64,([^\"]+)", player(gain * TONE, 44100)) for gain in (0.01, 3.0)
    )
    assert quiet and loud
    sounds = [soundfile.read(io.BytesIO(base64.b64decode(found[1])))[0] for found in (quiet, loud)]
    assert sounds[0].shape == (22050, 2)
    assert (
        np.abs(sounds[0]).max()
        == pytest.approx(np.abs(sounds[1]).max(), abs=0.03)
        == pytest.approx(0.89, abs=0.06)
    )
    assert len(quiet[1]) < 60_000


def test_players_survive_silence() -> None:
    assert "data:audio/ogg" in player(np.zeros((2, 4410), dtype=np.float32), 44100)


def test_write_makes_both_files(tmp_path: Path) -> None:
    sample().write(tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"report.html", "report.md"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [(float("nan"), "-"), (0.12345, "0.123"), (12345.6, "12346"), (3, "3"), ("x", "x")],
)
def test_numbers_read_well(value: object, shown: str) -> None:
    assert number(value) == shown


def test_pictures_are_drawn_for_every_kind_of_value() -> None:
    figures = [
        plots.spectrograms({"a": TONE, "silence": np.zeros((2, 300))}, 44100),
        plots.confusion(np.eye(3) * 4, ["a", "b", "c"], ["a", "b", "c"]),
        plots.reliability(np.array([[0.1, np.nan], [0.5, 0.9]])),
        plots.bars({"a": 0.2, "b": 0.5}, "MAE", {"a": 0.3}),
        plots.curves({"one": ([1.0], [2.0]), "two": ([0, 1], [2, 1])}, "s", "dB"),
    ]
    assert all(base64.b64decode(png(figure)).startswith(b"\x89PNG") for figure in figures)


def test_a_spectrogram_peaks_at_the_tones_bin_and_keeps_the_floor() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(44100) / 44100)[None]
    picture = plots.spectrogram_db(tone)
    assert abs(int(picture.mean(axis=1).argmax()) - 1000 * 1024 / 44100) <= 1
    assert picture.max() == 0.0 and picture.min() >= plots.FLOOR_DB


def test_reliability_is_the_diagonal_for_a_calibrated_model() -> None:
    figure = plots.reliability(np.random.default_rng(2).uniform(size=20_000))
    line = figure.axes[0].lines[1]
    assert np.asarray(line.get_ydata()) == pytest.approx(np.asarray(line.get_xdata()), abs=0.02)
