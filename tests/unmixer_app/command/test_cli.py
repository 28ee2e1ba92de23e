"""The command as a person runs it.

`python -m unmixer_app ...` in a process of its own, with a tiny untrained model.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests import hostile, processes
from tests.model import tiny
from unmixer_app.answer import folder as answer_folder
from unmixer_app.answer import patch_file
from unmixer_app.command import cli, single
from unmixer_app.command import unmix as unmix_command
from unmixer_core import config
from unmixer_core.errors import UnmixerError
from unmixer_core.model import checkpoint
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.recording import sound_file
from unmixer_core.system.json_types import Json

REPO = Path(__file__).resolve().parents[3]
WITHIN_S = 100


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models/full and models/proxy of an untrained model."""
    folder = tmp_path_factory.mktemp("models")
    checkpoint.save(folder / "full", tiny.model(), tiny.section(tiny.MODEL), {})
    RackProxy(8000, 0.4).save(folder / "proxy")
    return folder / "full"


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    (tmp_path / "sample.wav").write_bytes(hostile.encoded(hostile.tone(0.6, 50.0, channels=2)))
    return tmp_path / "sample.wav"


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "unmixer_app", *map(str, words)]


def unmix(*words: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs to its end; whatever it was asked, it leaves no traceback and no process."""
    process = subprocess.Popen(
        command(*words),
        cwd=REPO,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    out, err = process.communicate(timeout=WITHIN_S)
    assert process.returncode == status, err
    assert "Traceback" not in err
    assert processes.in_group(process.pid) == []
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_an_answer_is_a_folder_with_everything_in_it(sample: Path, model: Path, tmp_path: Path):
    out = tmp_path / "answer"
    locks = ("--lock", "saturator.drive=12", "--chain", "Saturator>Reverb")
    done = unmix(
        sample,
        "--out",
        out,
        "--model",
        model,
        "--polish",
        1,
        "--itf-steps",
        2,
        "--candidates",
        3,
        "--json",
        *locks,
    )
    document = json.loads(done.stdout)
    assert document == json.loads((out / "patch.json").read_text(encoding="utf-8"))
    assert document["model"]["origin"] == "local" and "local model, " in done.stderr
    assert document["model"]["sha256"] in (out / "report.html").read_text(encoding="utf-8")
    assert (
        document["chain"] == ["Saturator", "Reverb"]
        and document["seconds"] > 0
        and document["note"] in (38, 50, 62)
    )
    assert patch_file.read(out / "patch.json").digest == document["digest"]
    drive = document["devices"][1]["knobs"]["drive"]
    assert drive["physical"] == pytest.approx(12.0, abs=1e-3) and set(drive) >= {
        "unit",
        "raw",
        "intervals",
    }
    item = document["devices"][0]["choices"]["osc_1_wavetable"]
    assert sum(item["probabilities"].values()) == pytest.approx(1.0, abs=1e-3)
    levels = [
        np.sqrt(np.mean(soundfile.read(out / name)[0] ** 2))
        for name in ("rerender.wav", "input.wav")
    ]
    assert levels[0] == pytest.approx(levels[1], rel=0.01)
    assert json.loads((out / "answer.vital").read_text())["settings"]["distortion_on"] == 1.0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<audio") >= 2 and "Similarity" in page and "Saturator" in page
    assert patch_file.read(out / "candidates" / "01.json").effects == ("Saturator", "Reverb")
    assert (out / "candidates" / "01.wav").exists()


def test_a_patch_renders_to_the_sound_of_the_answer(sample: Path, model: Path, tmp_path: Path):
    unmix(sample, "--out", tmp_path / "answer", "--model", model, "--fast")
    unmix("render", tmp_path / "answer" / "patch.json", tmp_path / "again.wav")
    again, rate = soundfile.read(tmp_path / "again.wav")
    first, _ = soundfile.read(tmp_path / "answer" / "rerender.wav")
    assert rate == 44100 and again.shape == first.shape
    assert np.corrcoef(again[:, 0], first[:, 0])[0, 1] > 0.99


def test_a_folder_is_a_batch_that_goes_on_where_it_stopped(model: Path, tmp_path: Path):
    folder, out = tmp_path / "sounds", tmp_path / "out"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.wav").write_bytes(hostile.encoded(hostile.tone(0.4, 50.0)))
    (folder / "deep" / "a.flac").write_bytes(hostile.encoded(hostile.tone(0.4, 45.0), "FLAC"))
    (folder / "broken.wav").write_bytes(b"no sound")
    (folder / "notes.txt").write_text("not a sound")
    words = (folder, "--out", out, "--model", model, "--fast")

    def rows() -> dict[str, Json]:
        with (out / "summary.csv").open(encoding="utf-8", newline="") as file:
            return {row["file"]: row for row in csv.DictReader(file)}

    unmix(*words, status=1)
    first = rows()
    assert {name: row["status"] for name, row in first.items()} == {
        "a.wav": "ok",
        "broken.wav": "error",
        "deep/a.flac": "ok",
    }
    assert "cannot be read as audio" in first["broken.wav"]["message"]
    stamp = (out / "a-wav" / "patch.json").stat().st_mtime_ns
    (folder / "broken.wav").write_bytes(hostile.encoded(hostile.tone(0.4, 47.0)))
    unmix(*words)
    assert (out / "a-wav" / "patch.json").stat().st_mtime_ns == stamp, (
        "what was finished is not done again"
    )
    assert rows()["a.wav"] == first["a.wav"] and rows()["broken.wav"]["status"] == "ok"


def test_ctrl_c_writes_the_best_so_far_and_leaves_no_process(
    sample: Path, model: Path, tmp_path: Path
):
    out = tmp_path / "answer"
    words = command(sample, "--out", out, "--model", model, "--polish", 300, "--no-itf")
    process = subprocess.Popen(
        words,
        cwd=REPO,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    begun = time.perf_counter()
    while time.perf_counter() - begun < WITHIN_S:
        line = process.stderr.readline()
        if "changes" in line or "polishing" in line:
            break
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the hosts hear it too
    _, words_after = process.communicate(timeout=30)
    assert process.returncode == 0 and "Traceback" not in words_after, words_after
    document = json.loads((out / "patch.json").read_text(encoding="utf-8"))
    assert (
        document["interrupted"] and patch_file.read(out / "patch.json").digest == document["digest"]
    )
    assert processes.in_group(process.pid) == []


HOSTILE = (
    "nan.wav",
    "rate-1.wav",
    "pipe.wav",
    "line\nbreak.wav",
    "escape\x1b[31m.wav",
    "ten-gigabytes.wav",
    "missing.wav",
    "fuzzed-23.mp3",  # whose decoder has words of its own
    "fuzzed-83.mp3",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_sentence(name: str, model: Path, tmp_path: Path):
    dict(hostile.cases())[name](tmp_path / name)
    done = unmix(tmp_path / name, "--out", tmp_path / "o", "--model", model, "--fast", status=1)
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_a_header_that_claims_ten_gigabytes_is_read_for_what_is_there(model: Path, tmp_path: Path):
    dict(hostile.cases())["claims-10000000000.wav"](tmp_path / "a.wav")
    unmix(tmp_path / "a.wav", "--out", tmp_path / "o", "--model", model, "--fast")
    assert (tmp_path / "o" / "patch.json").exists()


def test_a_sound_and_a_folder_whose_names_are_no_utf8_are_answered(model: Path, tmp_path: Path):
    sound, out = tmp_path / os.fsdecode(b"caf\xe9.wav"), tmp_path / os.fsdecode(b"r\xe9ponse")
    sound.write_bytes(hostile.encoded(hostile.tone(0.4, 50.0)))
    done = unmix(sound, "--out", out, "--model", model, "--fast", "--json")
    document = json.loads(done.stdout)
    assert document["input"]["file"].endswith("caf?.wav") and (out / "r-ponse.vital").exists()
    assert "caf?.wav" in (out / "report.html").read_text(encoding="utf-8")
    unmix("render", out / "patch.json", out / "again.wav")
    assert sound_file.read(out / "again.wav").rate == 44100
    failed = unmix("render", out / "patch.json", sound / "again.wav", status=1)
    assert failed.stderr.startswith("error: File exists: ") and len(failed.stderr.splitlines()) == 1


def test_a_recording_in_the_folder_of_its_answer_stays(sample: Path, model: Path):
    sample = sample.rename(sample.with_name("input.wav"))
    before = sample.read_bytes()
    done = unmix(sample, "--out", sample.parent, "--model", model, status=1)
    assert "would replace" in done.stderr and len(done.stderr.splitlines()) == 1
    assert sample.read_bytes() == before and [path.name for path in sample.parent.iterdir()] == [
        "input.wav"
    ]


def test_an_answer_that_cannot_be_written_after_all_is_one_sentence(
    sample: Path, model: Path, tmp_path: Path
):
    out = tmp_path / "answer"
    answer_folder.claim(out, sample)
    (out / "rerender.wav").mkdir()
    done = unmix(sample, "--out", out, "--model", model, "--fast", status=1)
    assert done.stderr.splitlines()[-1] == f"error: Is a directory: {out / 'rerender.wav'}."
    assert not (out / "patch.json").exists() and not list(out.rglob(".*.tmp"))


def test_a_folder_without_sounds_is_refused(model: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    done = unmix(tmp_path / "empty", "--model", model, status=1)
    assert done.stderr.startswith("error: ") and "holds no sound files" in done.stderr


def test_an_answer_that_cannot_be_written_is_refused_before_the_search(sample: Path, model: Path):
    done = unmix(sample, "--out", sample, "--model", model, status=1)
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1


def test_without_a_model_the_error_says_how_to_train_one(sample: Path, tmp_path: Path):
    done = unmix(sample, "--model", tmp_path / "nowhere", status=1)
    assert done.stderr == (
        f"error: there is no trained model in {tmp_path / 'nowhere'}; run `make repro` to "
        f"train one.\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--note", "128"],
        ["--gate", "0"],
        ["--gate", "nan"],
        ["--candidates", "1.5"],
        ["--polish", "-1"],
        ["--itf-steps", "x"],
    ],
)
def test_a_wrong_number_is_refused_by_the_option(
    words: list[str], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as end:
        cli.run(["sample.wav", *words])
    assert end.value.code == 2 and words[0] in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--lock", "nothing=1"], ["--chain", "Wah"]])
def test_a_wrong_constraint_is_one_sentence(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert cli.run(["sample.wav", *words]) == 1
    assert capsys.readouterr().err.startswith(f"error: {words[0]}")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            OSError(28, "No space left on device", "a\nb\x1b[31m.wav"),
            "No space left on device: a?b?[31m.wav.",
        ),
        (OSError(28, "No space left on device"), "No space left on device."),
        (OSError(36, "File name too long", "x" * 5000), "x."),
        (
            UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed"),
            "a name holds characters",
        ),
        (UnmixerError("bad\x1b[31m name\n" * 3), "bad?[31m name bad?[31m name bad?[31m name"),
    ],
)
def test_every_error_is_one_short_line(
    error: Exception,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def fail(words: object) -> int:
        raise error

    monkeypatch.setattr(unmix_command, "run", fail)
    assert cli.run(["sample.wav"]) == 1
    said = capsys.readouterr().err
    assert (
        sentence in said
        and len(said.splitlines()) == 1
        and said.strip().isprintable()
        and len(said) < 300
    )


@pytest.mark.parametrize(
    ("name", "kept"), [("a.wav", True), ("a.WAV", True), ("a.aiff", True), ("a.flac", False)]
)
def test_a_loud_patch_is_saved_without_clipping(name: str, kept: bool, tmp_path: Path) -> None:
    loud = (1.31 * np.sin(np.linspace(0.0, 60.0, 4000))).astype(np.float32)
    said = single.save(tmp_path / name, np.stack([loud, -loud]), 8000)
    saved, _ = soundfile.read(tmp_path / name, dtype="float32")
    if kept:
        np.testing.assert_array_equal(saved, np.stack([loud, -loud], axis=1))
        assert said == ""
    else:
        np.testing.assert_allclose(saved[:, 0], loud / np.abs(loud).max(), atol=1e-4)
        assert said == (
            f"{name} is 2.3 dB quieter than the patch, which this format would clip; .wav keeps it."
        )
        assert single.save(tmp_path / name, np.stack([loud, loud]) / 2.0, 8000) == ""


def test_render_and_push_hand_the_trace_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(single, "render", lambda *given: seen.append(given[2]))
    monkeypatch.setattr(single, "push", lambda _, **given: seen.append(given["trace"]))
    assert (
        cli.run(["render", "a.json", "a.wav", "--trace", "t.jsonl"])
        == cli.run(["push", "a.json", "--trace", "t.jsonl"])
        == 0
    )
    assert seen == [Path("t.jsonl")] * 2


@pytest.mark.parametrize("words", [["render", "nothing.json", "out.wav"], ["push", "nothing.json"]])
def test_a_missing_patch_is_one_sentence(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert cli.run(words) == 1
    assert capsys.readouterr().err.startswith("error: nothing.json cannot be read as a patch")


def test_the_similarity_scale_is_that_of_params(params: config.Params):
    assert params.unmix.poor_db < params.unmix.chance_db


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        cli.run(["--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0
    for name, command in cli.COMMANDS.items():
        assert f"  {name:<8} {command.summary}\n" in said


@pytest.mark.parametrize("name", ["render", "push", "serve"])
def test_a_file_named_like_a_command_can_be_unmixed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / name).write_bytes(b"no sound")
    monkeypatch.chdir(tmp_path)
    assert cli.run([f"./{name}"]) == 1
    assert f"{name} cannot be read as audio" in capsys.readouterr().err


def test_serve_takes_host_and_port(monkeypatch: pytest.MonkeyPatch):
    from unmixer_app import serve

    seen: list[object] = []
    monkeypatch.setenv("UNMIXER_SERVE_QUEUE", "7")
    monkeypatch.setattr(serve, "main", lambda environ: seen.append(environ) or 0)
    assert cli.run(["serve", "--host", "::1", "--port", "81"]) == 0
    assert seen[0]["UNMIXER_SERVE_HOST"] == "::1" and seen[0]["UNMIXER_SERVE_PORT"] == "81"
    assert seen[0]["UNMIXER_SERVE_QUEUE"] == "7"


def test_local_is_the_model_of_this_checkout():
    options = unmix_command.parser().parse_args(["a.wav", "--model", "local"])
    assert options.model == REPO / "models" / "full"
