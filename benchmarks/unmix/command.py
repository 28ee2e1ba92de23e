"""The `unmix` command itself.

What it hears, how long it takes to start and to answer, how much memory it needs.

    python -m benchmarks.unmix.command [--detect 300] [--clips 4] [--data data] [--model
    models/full]

Detection: onset, note (octave errors apart) and gate of training renders written behind some
silence, as a recording is; beside the note Praat's, by autocorrelation and by subharmonic
summation, where `pip install praat-parselmouth` was done. Command: sounds from outside
(benchmarks/outside), un-mixed by `python -m unmixer_app`, by default and with --fast, in a process
of its own: start-up until it begins to search, seconds of the answer after that, memory of the
process and its hosts together at its largest (unique set sizes, sampled). How good the answers are:
benchmarks/unmix/bars.py. The last line is one JSON object; `bars` says what each figure is held to.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.bound import held
from unmixer_core import audio, config
from unmixer_core.dataset import clips as dataset_clips
from unmixer_core.recording import note as recording_note

LEAD_S = 0.2
LOWEST_HZ, HIGHEST_HZ = 30.0, 2000.0
OUTSIDE = Path(__file__).parents[1] / "outside"
BARS = {
    f"command.{name}.{key}.most": ("<=", bar)
    for name, answer_s in (("default", 60.0), ("fast", 3.0))
    for key, bar in (("start_up_s", 8.0), ("answer_s", answer_s), ("peak_gib", 3e9 / 2**30))
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--detect", type=int, default=300)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--model", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {}
    if options.detect:
        result |= detection(
            dataset_clips.Clips.open(options.data / "renders"),
            options.detect,
            config.load("params.yaml"),
        )
    if options.clips:
        result |= command(options)
    sys.stdout.write(json.dumps(result | {"bars": held(result, BARS)}) + "\n")


def detection(clips: dataset_clips.Clips, n: int, params: config.Params) -> dict[str, Any]:
    """Per phase: shares of right notes and of right notes up to octaves, among candidates, and
    the gate's error.
    """
    result = {}
    for phase in ("dry", "full"):
        rows = clips.patches.where(phase=phase, split="train")
        rows = rows[np.linspace(0, len(rows) - 1, min(n, len(rows))).astype(int)]
        found = [(_heard(clips.audio(int(row)), params), clips.patches[int(row)]) for row in rows]
        note = np.array([h.note - p.note for h, p in found])
        gate_s = np.abs([h.gate_s - p.gate_s for h, p in found])
        sounds = [h.clip.mean(axis=0) for h, _ in found]
        result[phase] = praat(sounds, [p.note for _, p in found], params.audio.sample_rate) | {
            "clips": len(rows),
            "note": float((note == 0).mean()),
            "octave_error": float(((note % 12 == 0) & (note != 0)).mean()),
            "note_among_candidates": float(np.mean([p.note in h.notes for h, p in found])),
            "gate_median_error_s": float(np.median(gate_s)),
            "gate_within_50_ms": float((gate_s < 0.05).mean()),
            "onset_median_error_s": float(
                np.median([abs(h.about["start_s"] - LEAD_S) for h, _ in found])
            ),
        }
    return {"detection": result}


def praat(sounds: Sequence[np.ndarray], notes: Sequence[int], rate: int) -> dict[str, Any]:
    """Shares of right notes of the best-kept tracker there is for Python, by both of its methods.

    Empty without it.
    """
    try:
        import parselmouth
    except ImportError:
        return {}
    wanted, result = np.array(notes), {}
    limits = {"ceiling": HIGHEST_HZ, "time_step": 0.01}
    for name, method in {
        "praat_ac": lambda sound: sound.to_pitch_ac(
            pitch_floor=LOWEST_HZ, pitch_ceiling=HIGHEST_HZ
        ),
        "praat_shs": lambda sound: sound.to_pitch_shs(
            minimum_pitch=LOWEST_HZ, maximum_frequency_component=6000.0, **limits
        ),
    }.items():
        tracks = (
            method(parselmouth.Sound(sound.astype(float), rate)).selected_array["frequency"]
            for sound in sounds
        )
        medians = np.array(
            [np.median(track[track > 0]) if (track > 0).any() else np.nan for track in tracks]
        )
        apart = np.round(69.0 + 12.0 * np.log2(medians / 440.0)) - wanted
        result[f"{name}_note"] = float((apart == 0).mean())
        result[f"{name}_octave_error"] = float(((apart % 12 == 0) & (apart != 0)).mean())
    return result


def _heard(clip: np.ndarray, params: config.Params) -> recording_note.RecordedNote:
    rate = params.audio.sample_rate
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.wav"
        audio.write(path, np.pad(clip, [(0, 0), (round(LEAD_S * rate), 0)]), rate, "FLOAT")
        return recording_note.detect_note(
            path,
            rate=rate,
            clip_s=params.audio.clip_s,
            note_range=(params.sample.note_low, params.sample.note_high),
        )


def command(options: argparse.Namespace) -> dict[str, Any]:
    """Medians and the worst over sounds from outside, a process each."""
    sounds = sorted(OUTSIDE.glob("*.flac"))
    chosen = [sounds[i] for i in np.linspace(0, len(sounds) - 1, options.clips).astype(int)]
    result = {}
    for name, words in {"default": [], "fast": ["--fast"]}.items():
        with tempfile.TemporaryDirectory() as folder:
            runs = [one(path, Path(folder) / path.stem, words, options) for path in chosen]
        result[name] = {
            key: {
                "median": round(float(np.median([run[key] for run in runs])), 2),
                "most": round(max(run[key] for run in runs), 2),
            }
            for key in ("start_up_s", "answer_s", "peak_gib")
        }
    return {"command": result}


def one(path: Path, out: Path, words: list[str], options: argparse.Namespace) -> dict[str, float]:
    """One process: seconds until it proposes, seconds of its answer as patch.json tells them,
    memory.
    """
    model = ["--model", str(options.model)] if options.model else []
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "unmixer_app", str(path), "--out", str(out), *words, *model],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    watch = Memory(process.pid)
    start_up_s = 0.0
    for line in process.stderr:
        if not start_up_s and "proposing" in line:
            start_up_s = time.perf_counter() - begun
        sys.stderr.write(line)
    status = process.wait()
    peak_gib = watch.stop()
    if status:
        raise SystemExit(f"error: unmix ended with status {status} on {path}.")
    answer = json.loads((out / "patch.json").read_text(encoding="utf-8"))
    return {"start_up_s": start_up_s, "answer_s": answer["seconds"], "peak_gib": peak_gib}


class Memory(threading.Thread):
    """Largest memory of a process and all its children together, sampled.

    Pages that are theirs alone.
    """

    def __init__(self, pid: int, every_s: float = 0.25) -> None:
        super().__init__(daemon=True)
        self.root, self.every_s, self.peak, self.ended = (
            psutil.Process(pid),
            every_s,
            0,
            threading.Event(),
        )
        self.start()

    def run(self) -> None:
        while not self.ended.wait(self.every_s):
            self.peak = max(self.peak, self._now())

    def _now(self) -> int:
        total = 0
        try:
            for process in (self.root, *self.root.children(recursive=True)):
                total += process.memory_full_info().uss
        except psutil.Error:
            return 0
        return total

    def stop(self) -> float:
        """GiB."""
        self.ended.set()
        self.join()
        return self.peak / 2**30


if __name__ == "__main__":
    main()
