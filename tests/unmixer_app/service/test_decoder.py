"""Strangers' files in a limited process.

An answer or one sentence for each, whatever it holds, and the next one is read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import hostile
from unmixer_app.service import decoder, heard_file
from unmixer_core.system.json_types import Json

REPO = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def child() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "unmixer_app.service.decoder"],
        cwd=REPO,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    assert json.loads(process.stdout.readline()) == {}
    yield process
    process.stdin.close()
    assert process.wait(10) == 0


def ask(child: subprocess.Popen[str], folder: Path, **wanted: object) -> Json:
    assert child.stdin is not None and child.stdout is not None
    request = {"folder": str(folder), "name": "my sound.wav", "note": None, "gate_s": None} | wanted
    child.stdin.write(json.dumps(request) + "\n")
    child.stdin.flush()
    answer: Json = json.loads(child.stdout.readline())
    return answer


def test_every_hostile_file_gets_an_answer_or_a_sentence_that_names_it(
    child: subprocess.Popen[str], tmp_path: Path
):
    outcomes = []
    for number, (_, make) in enumerate(
        [*hostile._headers(), *hostile._contents(), *list(hostile._fuzzed(12))]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        make(folder / decoder.UPLOAD)
        answer = ask(child, folder)
        if "done" in answer:
            heard = heard_file.read(folder)
            assert heard.note == answer["done"]["note"] and np.isfinite(heard.clip).all()
        else:
            assert "my sound.wav" in answer["failed"] and decoder.UPLOAD not in answer["failed"]
            assert (
                "\n" not in answer["failed"]
                and str(tmp_path) not in answer["failed"]
                and "broke" not in answer["failed"]
            )
        outcomes.append("done" in answer)
    assert any(outcomes) and not all(outcomes)


def test_a_note_that_is_given_is_the_note(child: subprocess.Popen[str], tmp_path: Path):
    (tmp_path / decoder.UPLOAD).write_bytes(hostile.encoded(hostile.tone(0.5, 50.0)))
    heard = ask(child, tmp_path, note=62, gate_s=0.25)["done"]
    assert (heard["note"], heard["gate_s"], heard["about"]["file"]) == (62, 0.25, "my sound.wav")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        heard_file.ABOUT,
        heard_file.CLIP,
        decoder.UPLOAD,
    ]


ATTACKS = {
    "memory": ("np.ones(1 << 30)", "too much memory"),
    "processor": ("any(None for _ in iter(int, 1))", "too long"),
    "crash": ("os.kill(os.getpid(), 11)", "broke on it"),
    "waiting": ("time.sleep(60)", "too long"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_decoder_that_is_taken_over_is_ended_and_told(attack: str, tmp_path: Path):
    """Stands in for a file that breaks libsndfile: what listening does instead of reading."""
    deed, words = ATTACKS[attack]
    script = (
        "import os, time, json, numpy as np\nfrom unmixer_app.service import decoder\n"
        "from unmixer_core import config\nfrom unmixer_core.recording import note\n"
        f"note.detect_note = lambda *_, **__: {deed}\n"
        "decoder.MEMORY_BYTES, decoder.CPU_S, decoder.WALL_S = 256 << 20, 1, 2\n"
        f"request = {{'folder': {str(tmp_path)!r}, 'name': 'x.wav', 'note': None, 'gate_s': "
        f"None}}\n"
        "params = config.load(decoder.ROOT / 'params.yaml')\n"
        "print(json.dumps(decoder._decode_in_fork(request, params)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ,
    )
    assert words in json.loads(done.stdout)["failed"], done.stderr
