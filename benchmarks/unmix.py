"""`unmix` on test renders: detection of note and gate, and the answer beside the nearest training render.

    python -m benchmarks.unmix [--detect 300] [--clips 8] [--data data] [--model models/full] [--fast]

Detection: onset, note (octave errors apart) and gate of training renders written behind some silence, as a recording is.
Answers: full-chain test renders as WAV files, un-mixed with nothing told; MSS of the answer, of the best proposal, and of
the nearest training render as it is (exhaustive over the features' nearest 64). Seconds are wall clock, memory is the
largest of this process; its hosts are counted apart. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from unmixer_core import audio, config, listening

LEAD_S = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detect", type=int, default=300)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--fast", action="store_true")
    options = parser.parse_args()
    params, clips = config.load("params.yaml"), audio.Clips.open(options.data / "renders")
    result: dict[str, Any] = detection(clips, options.detect, params) if options.detect else {}
    if options.clips:
        result |= answers(clips, options, params)
    sys.stdout.write(json.dumps(result) + "\n")


def detection(clips: audio.Clips, n: int, params: config.Params) -> dict[str, Any]:
    """Per phase: shares of right notes and of right notes up to octaves, among candidates, and the gate's error."""
    result = {}
    for phase in ("dry", "full"):
        rows = clips.patches.where(phase=phase, split="train")
        rows = rows[np.linspace(0, len(rows) - 1, min(n, len(rows))).astype(int)]
        found = [(_heard(clips.audio(int(row)), params), clips.patches[int(row)]) for row in rows]
        note = np.array([h.note - p.note for h, p in found])
        gate_s = np.abs([h.gate_s - p.gate_s for h, p in found])
        result[phase] = {
            "clips": len(rows),
            "note": float((note == 0).mean()),
            "octave_error": float(((note % 12 == 0) & (note != 0)).mean()),
            "note_among_candidates": float(np.mean([p.note in h.notes for h, p in found])),
            "gate_median_error_s": float(np.median(gate_s)),
            "gate_within_50_ms": float((gate_s < 0.05).mean()),
            "onset_median_error_s": float(np.median([abs(h.about["start_s"] - LEAD_S) for h, _ in found])),
        }
    return {"detection": result}


def _heard(clip: np.ndarray, params: config.Params) -> listening.Heard:
    rate = params.audio.sample_rate
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.wav"
        audio.write(path, np.pad(clip, [(0, 0), (round(LEAD_S * rate), 0)]), rate, "FLOAT")
        return listening.listen(
            path, rate=rate, clip_s=params.audio.clip_s, note_range=(params.sample.note_low, params.sample.note_high)
        )


def answers(clips: audio.Clips, options: argparse.Namespace, params: config.Params) -> dict[str, Any]:
    """Medians over test clips, and how often the answer beats the nearest training render."""
    begun = time.perf_counter()
    from app import single
    from app.progress import Progress
    from unmixer_core import metrics, unmixing
    from unmixer_core.features import Features
    from unmixer_core.live.render import Renderer

    model, proxy = single.find_models(options.model)
    known, rate = Features.open(options.data / "features"), params.audio.sample_rate
    rows = clips.patches.where(phase="full", split="test")
    rows = rows[np.linspace(0, len(rows) - 1, options.clips).astype(int)]
    lines = []
    with Renderer(params.audio) as host:
        ready = single._load(model, proxy)(host)
        ready = unmixing.Tools(ready.model, ready.proxy, host, known)
        start_up_s = time.perf_counter() - begun
        for row in rows:
            clip = clips.audio(int(row))
            heard = _heard(clip, params)
            tell = Progress(f"clip {row}")
            asked = unmixing.Options(fast=options.fast)
            found = unmixing.Search(heard, ready, params.unmix, params.itf, asked, tell).run()
            target = metrics.mss_features(heard.clip, rate)
            near = found.ear.nearest(known, 64, 0)
            nearest_db = min(
                float(metrics.mss_from_features(target, metrics.mss_features(clips.audio(int(i)), rate))) for i in near
            )
            proposal_db = min(c.mss_db for c in found.candidates if c.source == "proposal")
            truth = clips.patches[int(row)]
            lines.append(
                (
                    found.best.mss_db,
                    proposal_db,
                    nearest_db,
                    found.seconds,
                    found.renders,
                    found.best.patch.note == truth.note,
                )
            )
            words = f"{found.best.mss_db:.2f} dB ({found.best.source}), proposal {proposal_db:.2f}, nearest {nearest_db:.2f}"
            tell.done(
                f"{words}, {found.renders} renders, {found.seconds:.1f} s, note {found.best.patch.note} for {truth.note}"
            )
    table = np.array(lines, dtype=float)
    names = ("mss_db", "proposal_mss_db", "nearest_mss_db", "seconds", "renders")
    result = {name: float(np.median(column)) for name, column in zip(names, table.T, strict=False)}
    result |= {
        "clips": len(table),
        "of_nearest": result["mss_db"] / result["nearest_mss_db"],
        "below_nearest": float((table[:, 0] < table[:, 2]).mean()),
        "worse_than_best_proposal": int((table[:, 0] > table[:, 1]).sum()),
        "note_of_answer": float(table[:, 5].mean()),
        "start_up_s": start_up_s,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    return {"answers": result}


if __name__ == "__main__":
    main()
