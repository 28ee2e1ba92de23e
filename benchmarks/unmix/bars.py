"""The bars of `unmix`, on many clips: in-domain test renders and sounds from outside.

Resumable; run it on a quiet machine.

    python -m benchmarks.unmix.bars --inside 40 --outside 40 [--effects 28] [--seconds 600]
        [--state .unmixer/bars]
    # to decide something: never on the test split
    python -m benchmarks.unmix.bars --split valid --inside 8 --no-cma

Every sound is a file, as a person's: silence before it, note and gate not told. `unmix` runs as the
command does; beside it stands the nearest training render (exhaustive MSS; as it is or played at
the heard note, the better). In-domain or with --all-rows the prediction stands there too, before
and after ITF + verify, and CMA-ES on the host with the seconds that `unmix` took. About two minutes
an in-domain clip, one a clip from outside; the kinds take turns. A clip that is finished is kept in
`--state` and not done again; `--seconds` stops before the next clip. The last line is one JSON
object: shares and medians over the clips that are there, and `bars`, which bars they meet.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.bound import held
from unmixer_app.answer import tools
from unmixer_app.answer.progress import Progress
from unmixer_core import audio, config
from unmixer_core.comparison import methods, out_of_domain, tables
from unmixer_core.comparison import tools as comparison_tools
from unmixer_core.dataset import clips as dataset_clips
from unmixer_core.features.store import FeatureTable
from unmixer_core.live.renderer import Renderer
from unmixer_core.metrics import sound
from unmixer_core.model import checkpoint
from unmixer_core.pipeline import machine, state
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.recording import note
from unmixer_core.schema.patch import Patch
from unmixer_core.scoring import score

LEAD_S = 0.2
FOLDER = Path(__file__).parents[1] / "outside"
ROWS = ("nearest", "no_itf", "no_itf_verify", "itf", "itf_verify", "unmix", "cma_unmix_seconds")
BARS = {
    "itf_verify.gain": (">=", 0.15),
    "itf_verify.share_improved": (">=", 0.85),
    "itf_verify.share_worse": ("<=", 0.0),
    "unmix.seconds": ("<=", 60.0),
    "unmix.of_nearest": ("<=", 0.5),
    "unmix.beats_cma_unmix_seconds": (">=", 0.6),
    "unmix.pair_order": (">=", 0.6),
    "outside.unmix.of_nearest": ("<=", 0.85),
    "outside.unmix.beats_nearest": (">=", 0.7),
    "outside.unmix.wmfcc_of_nearest": ("<", 1.0),
    "effects.unmix.pair_order": (">=", 0.4),
}
Heards = dict[int, note.RecordedNote]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--inside", type=int, default=40, help="full-chain clips of the split")
    add("--outside", type=int, default=40, help="instruments and samples")
    add("--effects", type=int, default=28, help="instruments through pedalboard's effects")
    add("--split", choices=("test", "valid"), default="test")
    add("--seconds", type=float, default=np.inf, help="no clip is begun after these")
    add("--no-cma", action="store_true")
    add("--all-rows", action="store_true", help="every contestant on clips from outside too")
    add("--data", type=Path, default=Path("data"))
    add("--model", type=Path)
    add("--state", type=Path, default=Path(".unmixer/bars"))
    options = parser.parse_args()
    params = config.load("params.yaml")
    targets, heard = asked(options, params)
    ledger = score.Ledger(options.state / f"{key(options, params)}.jsonl")
    waiting = [target for target in targets if str(target.id) not in ledger.rows]
    if waiting:
        compete(waiting, heard, options, params, ledger)
    done = [target for target in targets if str(target.id) in ledger.rows]
    sys.stdout.write(
        json.dumps(summary(methods.results(ledger, done)) | {"waiting": len(targets) - len(done)})
        + "\n"
    )


def key(options: argparse.Namespace, params: config.Params) -> str:
    """Names what the answers depend on: model, proxy, parameters, split, contestants."""
    folders = tools.find_models(options.model)
    about = [
        state.fingerprint(*folders),
        params.digest,
        options.split,
        options.no_cma,
        options.all_rows,
    ]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]


def asked(
    options: argparse.Namespace, params: config.Params
) -> tuple[list[score.ScoreTarget], Heards]:
    """All targets, the kinds in turns, and what was heard of each."""
    note_range = (params.sample.note_low, params.sample.note_high)
    settings: dict[str, Any] = {
        "rate": params.audio.sample_rate,
        "clip_s": params.audio.clip_s,
        "note_range": note_range,
    }
    groups = [list(inside(options, params))]
    for n, kinds in ((options.outside, ("instrument", "sample")), (options.effects, ("effects",))):
        found = out_of_domain.read(FOLDER, n, kinds=kinds, **settings) if n else []
        groups.append([(out_of_domain.target(other), other.heard) for other in found])
    turns = [pair for turn in zip_longest(*groups) for pair in turn if pair is not None]
    return [target for target, _ in turns], {target.id: heard for target, heard in turns}


def inside(
    options: argparse.Namespace, params: config.Params
) -> Iterator[tuple[score.ScoreTarget, note.RecordedNote]]:
    """Clips of the split, as written to a file and listened to.

    The target is what was heard, its chain the truth.
    """
    clips, rate = dataset_clips.Clips.open(options.data / "renders"), params.audio.sample_rate
    known = clips.patches.where(phase="full", split=options.split)
    for row in known[score.spread(len(known), options.inside)].tolist() if options.inside else ():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clip.wav"
            audio.write(
                path, np.pad(clips.audio(row), [(0, 0), (round(LEAD_S * rate), 0)]), rate, "FLOAT"
            )
            note_range = (params.sample.note_low, params.sample.note_high)
            one = note.detect_note(
                path, rate=rate, clip_s=params.audio.clip_s, note_range=note_range
            )
        patch = Patch.init(one.note, one.gate_s, clips.patches[row].effects)
        features = sound.mss_features(one.clip, rate)
        yield (
            score.ScoreTarget(
                row,
                int(clips.patches.id[row]),
                methods.INSIDE,
                patch,
                one.clip,
                features,
                True,
                True,
            ),
            one,
        )


def compete(
    waiting: list[score.ScoreTarget],
    heard: Heards,
    options: argparse.Namespace,
    params: config.Params,
    ledger: score.Ledger,
) -> None:
    """One clip after the other, until all are done or the time is up."""
    end_s = time.perf_counter() + options.seconds
    model, proxy = tools.find_models(options.model)
    clips, frames = (
        dataset_clips.Clips.open(options.data / "renders"),
        FeatureTable.open(options.data / "features"),
    )
    rate = params.audio.sample_rate
    inside_rows = [row for row in ROWS if not (options.no_cma and row.startswith("cma"))]
    retrieval = score.index(clips, 0, rate, machine.threads())
    unmixer, twin = (
        checkpoint.load(model, machine.device()).model,
        RackProxy.load(proxy).to(machine.device()),
    )
    with Renderer(params.audio) as host:
        host.render([waiting[0].patch, waiting[-1].patch])
        ring = comparison_tools.BenchmarkHosts(
            unmixer, twin, frames, clips, host, heard, params.itf, params.unmix, rate
        )
        for target in waiting:
            rows = (
                inside_rows
                if options.all_rows or target.phase == methods.INSIDE
                else ("nearest", "unmix")
            )
            if time.perf_counter() > end_s:
                return
            methods.run(ring.tools(retrieval, machine.threads(), rows), [target], ledger)
            Progress(f"{target.phase} {target.id}").done(
                summary_line(ledger.rows[str(target.id)]["lines"], target)
            )


def summary_line(lines: list[dict[str, Any]], target: score.ScoreTarget) -> str:
    """One clip's outcome on one line."""
    found = {line["row"]: line for line in lines}
    words = ", ".join(f"{row} {line['mss_db']:.2f}" for row, line in found.items())
    return (
        f"{words} dB; {found['unmix']['seconds']:.0f} s; {found['unmix']['chain']} for "
        f"{' > '.join(target.patch.effects)}"
    )


def summary(rows: pd.DataFrame) -> dict[str, Any]:
    """Flat numbers, those of each kind from outside too, and the bars: value, wanted, met."""
    if rows.empty:
        return {}
    dry = rows[rows["phase"].isin(("instrument", "sample"))]
    flat = tables.verdict(rows[rows["phase"] != "effects"])
    for kind, part in rows[rows["phase"] != methods.INSIDE].groupby("phase"):
        flat |= {
            name.replace("outside", str(kind), 1): value
            for name, value in tables.verdict(part).items()
        }
    if len(dry):
        medians = dry.groupby("row")["wmfcc"].median()
        flat["outside.unmix.wmfcc_of_nearest"] = float(medians["unmix"] / medians["nearest"])
    return {
        "figures": {name: round(value, 4) for name, value in flat.items()},
        "bars": held(flat, BARS),
    }


if __name__ == "__main__":
    main()
