"""The `unmix` command: what it detects, how long it takes, how much memory it needs.

    python -m benchmarks.unmix.command [--detect 300] [--clips 4] [--data data] [--model
    models/full]

Detection: onset, note (octave errors apart) and gate of training renders, written to a file behind
some silence like a recording. With `pip install praat-parselmouth` also the notes that Praat finds,
by autocorrelation and by subharmonic summation. Command: out-of-domain sounds (benchmarks/outside),
un-mixed by `python -m unmixer_app`, by default and with --fast, each in its own process. Measured
are the start-up until the search begins, the seconds of the answer after that, and the largest
memory of the process and its hosts together (unique set sizes, sampled). benchmarks/unmix/bars.py
measures how good the answers are. The last line is one JSON object; `bars` holds the bar of each
figure.
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

import numpy as np
import psutil

from benchmarks.bound import held
from unmixer_core import audio, config
from unmixer_core.dataset import clips as dataset_clips
from unmixer_core.recording import note as recording_note
from unmixer_core.schema.notes import hz_to_midi
from unmixer_core.system.json_types import Json

#: Seconds of silence before a clip in its file.
LEAD_S = 0.2
#: The range that Praat searches, which holds all notes of the training renders.
LOWEST_HZ = 30.0
HIGHEST_HZ = 2000.0
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
    result: Json = {}
    if options.detect:
        result |= detection(
            dataset_clips.Clips.open(options.data / "renders"),
            options.detect,
            config.load("params.yaml"),
        )
    if options.clips:
        result |= command(options)
    sys.stdout.write(json.dumps(result | {"bars": held(result, BARS)}) + "\n")


def detection(clips: dataset_clips.Clips, n: int, params: config.Params) -> Json:
    """Return, per phase, shares of right notes and octave errors, and errors of gate and onset."""
    result = {}
    for phase in ("dry", "full"):
        rows = clips.patches.where(phase=phase, split="train")
        rows = rows[np.linspace(0, len(rows) - 1, min(n, len(rows))).astype(int)]
        detected = [_detected(clips.audio(int(row)), params) for row in rows]
        patches = [clips.patches[int(row)] for row in rows]
        pairs = list(zip(detected, patches, strict=True))
        note_error = np.array([one.note - patch.note for one, patch in pairs])
        gate_error_s = np.abs([one.gate_s - patch.gate_s for one, patch in pairs])
        onset_error_s = [abs(one.about["start_s"] - LEAD_S) for one in detected]
        among_candidates = [patch.note in one.notes for one, patch in pairs]
        sounds = [one.clip.mean(axis=0) for one in detected]
        notes = [patch.note for patch in patches]
        result[phase] = praat(sounds, notes, params.audio.sample_rate) | {
            "clips": len(rows),
            "note": float((note_error == 0).mean()),
            "octave_error": float(((note_error % 12 == 0) & (note_error != 0)).mean()),
            "note_among_candidates": float(np.mean(among_candidates)),
            "gate_median_error_s": float(np.median(gate_error_s)),
            "gate_within_50_ms": float((gate_error_s < 0.05).mean()),
            "onset_median_error_s": float(np.median(onset_error_s)),
        }
    return {"detection": result}


def praat(sounds: Sequence[np.ndarray], notes: Sequence[int], rate: int) -> Json:
    """Return shares of right notes of Praat's two trackers; empty where Praat is not installed."""
    try:
        import parselmouth
    except ImportError:
        return {}

    def autocorrelation(sound: parselmouth.Sound) -> parselmouth.Pitch:
        return sound.to_pitch_ac(pitch_floor=LOWEST_HZ, pitch_ceiling=HIGHEST_HZ)

    def subharmonic_summation(sound: parselmouth.Sound) -> parselmouth.Pitch:
        return sound.to_pitch_shs(
            minimum_pitch=LOWEST_HZ,
            maximum_frequency_component=6000.0,
            ceiling=HIGHEST_HZ,
            time_step=0.01,
        )

    wanted = np.array(notes)
    result = {}
    for name, method in {"praat_ac": autocorrelation, "praat_shs": subharmonic_summation}.items():
        medians_hz = []
        for sound in sounds:
            pitch = method(parselmouth.Sound(sound.astype(float), rate))
            track_hz = pitch.selected_array["frequency"]
            voiced = track_hz > 0  # Praat writes 0 where it finds no pitch
            medians_hz.append(np.median(track_hz[voiced]) if voiced.any() else np.nan)
        apart = np.round(hz_to_midi(np.array(medians_hz))) - wanted
        result[f"{name}_note"] = float((apart == 0).mean())
        result[f"{name}_octave_error"] = float(((apart % 12 == 0) & (apart != 0)).mean())
    return result


def _detected(clip: np.ndarray, params: config.Params) -> recording_note.RecordedNote:
    rate = params.audio.sample_rate
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.wav"
        delayed = np.pad(clip, [(0, 0), (round(LEAD_S * rate), 0)])
        audio.write(path, delayed, rate, "FLOAT")
        return recording_note.detect_note(
            path,
            rate=rate,
            clip_s=params.audio.clip_s,
            note_range=(params.sample.note_low, params.sample.note_high),
        )


def command(options: argparse.Namespace) -> Json:
    """Run the command on out-of-domain sounds, a process each; return medians and the worst."""
    sounds = sorted(OUTSIDE.glob("*.flac"))
    chosen = [sounds[i] for i in np.linspace(0, len(sounds) - 1, options.clips).astype(int)]
    result: dict[str, Json] = {}
    for name, words in {"default": [], "fast": ["--fast"]}.items():
        with tempfile.TemporaryDirectory() as folder:
            runs = [run_once(path, Path(folder) / path.stem, words, options) for path in chosen]
        result[name] = {}
        for key in ("start_up_s", "answer_s", "peak_gib"):
            values = [run[key] for run in runs]
            median = round(float(np.median(values)), 2)
            result[name][key] = {"median": median, "most": round(max(values), 2)}
    return {"command": result}


def run_once(
    path: Path, out: Path, words: list[str], options: argparse.Namespace
) -> dict[str, float]:
    """Run one process; return its seconds before and of the search, and its memory."""
    model = ["--model", str(options.model)] if options.model else []
    start = time.perf_counter()
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
            start_up_s = time.perf_counter() - start
        sys.stderr.write(line)
    status = process.wait()
    peak_gib = watch.stop()
    if status:
        raise SystemExit(f"error: unmix ended with status {status} on {path}.")
    answer = json.loads((out / "patch.json").read_text(encoding="utf-8"))
    return {"start_up_s": start_up_s, "answer_s": answer["seconds"], "peak_gib": peak_gib}


class Memory(threading.Thread):
    """Samples the largest memory of a process and all its children, without shared pages."""

    def __init__(self, pid: int, every_s: float = 0.25) -> None:
        super().__init__(daemon=True)
        self.root = psutil.Process(pid)
        self.every_s = every_s
        self.peak = 0
        self.ended = threading.Event()
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
        """End sampling and return the peak in GiB."""
        self.ended.set()
        self.join()
        return self.peak / 2**30


if __name__ == "__main__":
    main()
