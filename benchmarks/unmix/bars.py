"""The bars of `unmix`, on many clips: in-domain test renders and out-of-domain sounds.

Resumable; run it on a quiet machine.

    python -m benchmarks.unmix.bars --inside 40 --outside 40 [--effects 28] [--seconds 600]
        [--state .unmixer/bars]
    # to decide something: never on the test split
    python -m benchmarks.unmix.bars --split valid --inside 8 --no-cma

Every sound is a file, like a person's: silence before it, note and gate not given. `unmix` runs as
the command does. It is compared with the nearest training render (exhaustive MSS; the better of the
render and its patch played at the detected note). In-domain, or with --all-rows, it is also
compared with the prediction before and after ITF + verify, and with CMA-ES on the host for as many
seconds as `unmix` took. An in-domain clip takes about two minutes, an out-of-domain clip one; the
kinds take turns. Finished clips are saved in `--state` and not run again; `--seconds` begins no
clip after that time. The last line is one JSON object: shares and medians over the finished clips,
and `bars`, which bars they meet.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.bound import held
from unmixer_app.answer import resources as answer_resources
from unmixer_app.answer.progress import ProgressLine
from unmixer_core import audio, config
from unmixer_core.comparison import benchmark, entry, out_of_domain, tables
from unmixer_core.comparison.resources import BenchmarkModels
from unmixer_core.dataset import clips as dataset_clips
from unmixer_core.features.store import FeatureTable
from unmixer_core.live.renderer import Renderer
from unmixer_core.metrics import sound
from unmixer_core.model import checkpoint
from unmixer_core.pipeline import machine, state
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.recording import note
from unmixer_core.schema.patch import Patch
from unmixer_core.scoring import neighbours as scoring_neighbours
from unmixer_core.scoring import score
from unmixer_core.scoring import targets as scoring_targets
from unmixer_core.system.json_types import Json

#: Seconds of silence before a clip in its file.
LEAD_S = 0.2
FOLDER = Path(__file__).parents[1] / "outside"
#: Methods on in-domain clips; out-of-domain ones have the two of FEW_METHODS.
METHODS = ("nearest", "no_itf", "no_itf_verify", "itf", "itf_verify", "unmix", "cma_unmix_seconds")
FEW_METHODS = ("nearest", "unmix")
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
#: The recorded note of each target, by its id.
Notes = dict[int, note.RecordedNote]


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
    add("--all-rows", action="store_true", help="every method on out-of-domain clips too")
    add("--data", type=Path, default=Path("data"))
    add("--model", type=Path)
    add("--state", type=Path, default=Path(".unmixer/bars"))
    options = parser.parse_args()
    params = config.load("params.yaml")
    targets, notes = read_targets(options, params)
    ledger = score.Ledger(options.state / f"{key(options, params)}.jsonl")
    waiting = [target for target in targets if str(target.id) not in ledger.rows]
    if waiting:
        run(waiting, notes, options, params, ledger)
    done = [target for target in targets if str(target.id) in ledger.rows]
    result = summary(benchmark.rows_of(ledger, done))
    result["waiting"] = len(targets) - len(done)
    sys.stdout.write(json.dumps(result) + "\n")


def key(options: argparse.Namespace, params: config.Params) -> str:
    """Return a digest of what the answers depend on: model, proxy, parameters, split, methods."""
    folders = answer_resources.find_models(options.model)
    about = [
        state.fingerprint(*folders),
        params.digest,
        options.split,
        options.no_cma,
        options.all_rows,
    ]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]


def read_targets(
    options: argparse.Namespace, params: config.Params
) -> tuple[list[scoring_targets.ScoreTarget], Notes]:
    """Return all targets, the kinds in turns, and the recorded note of each."""
    note_range = (params.sample.note_low, params.sample.note_high)
    settings: Json = {
        "rate": params.audio.sample_rate,
        "clip_s": params.audio.clip_s,
        "note_range": note_range,
    }
    groups = [list(inside(options, params))]
    for n, kinds in ((options.outside, ("instrument", "sample")), (options.effects, ("effects",))):
        others = out_of_domain.read(FOLDER, n, kinds=kinds, **settings) if n else []
        groups.append([(out_of_domain.target(other), other.detected) for other in others])
    targets: list[scoring_targets.ScoreTarget] = []
    notes: Notes = {}
    for turn in zip_longest(*groups):
        for pair in turn:
            if pair is not None:
                target, recorded = pair
                targets.append(target)
                notes[target.id] = recorded
    return targets, notes


def inside(
    options: argparse.Namespace, params: config.Params
) -> Iterator[tuple[scoring_targets.ScoreTarget, note.RecordedNote]]:
    """Yield clips of the split, written to a file, with the note and gate that detection finds.

    The target has the detected note and gate, and the true chain.
    """
    if not options.inside:
        return
    clips = dataset_clips.Clips.open(options.data / "renders")
    rate = params.audio.sample_rate
    note_range = (params.sample.note_low, params.sample.note_high)
    known = clips.patches.where(phase="full", split=options.split)
    for row in known[scoring_targets.spread(len(known), options.inside)].tolist():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clip.wav"
            delayed = np.pad(clips.audio(row), [(0, 0), (round(LEAD_S * rate), 0)])
            audio.write(path, delayed, rate, "FLOAT")
            recorded = note.detect_note(
                path, rate=rate, clip_s=params.audio.clip_s, note_range=note_range
            )
        target = scoring_targets.ScoreTarget(
            clip=row,
            id=int(clips.patches.id[row]),
            phase=entry.IN_DOMAIN,
            patch=Patch.init(recorded.note, recorded.gate_s, clips.patches[row].effects),
            audio=recorded.clip,
            features=sound.mss_features(recorded.clip, rate),
            baseline=True,
            detail=True,
        )
        yield target, recorded


def run(
    waiting: list[scoring_targets.ScoreTarget],
    notes: Notes,
    options: argparse.Namespace,
    params: config.Params,
    ledger: score.Ledger,
) -> None:
    """Run one clip after the other, until all are done or the time is up."""
    end_s = time.perf_counter() + options.seconds
    model, proxy = answer_resources.find_models(options.model)
    clips = dataset_clips.Clips.open(options.data / "renders")
    frames = FeatureTable.open(options.data / "features")
    rate = params.audio.sample_rate
    all_methods = [name for name in METHODS if not (options.no_cma and name.startswith("cma"))]
    retrieval = scoring_neighbours.index(clips, 0, rate, machine.threads())
    unmixer = checkpoint.load(model, machine.device()).model
    twin = RackProxy.load(proxy).to(machine.device())
    with Renderer(params.audio) as host:
        # hosts are warm before any clock runs
        host.render([waiting[0].patch, waiting[-1].patch])
        models = BenchmarkModels(
            model=unmixer,
            proxy=twin,
            frames=frames,
            clips=clips,
            host=host,
            notes=notes,
            itf=params.itf,
            unmix=params.unmix,
            sample_rate=rate,
        )
        for target in waiting:
            if time.perf_counter() > end_s:
                return
            wanted: Sequence[str] = FEW_METHODS
            if options.all_rows or target.phase == entry.IN_DOMAIN:
                wanted = all_methods
            resources = models.resources(retrieval, machine.threads(), wanted)
            benchmark.run(resources, [target], ledger)
            line = summary_line(ledger.rows[str(target.id)]["lines"], target)
            ProgressLine(f"{target.phase} {target.id}").done(line)


def summary_line(lines: list[Json], target: scoring_targets.ScoreTarget) -> str:
    """Return one clip's outcome on one line."""
    words = ", ".join(f"{line['row']} {line['mss_db']:.2f}" for line in lines)
    unmix = next(line for line in lines if line["row"] == "unmix")
    return (
        f"{words} dB; {unmix['seconds']:.0f} s; {unmix['chain']} for "
        f"{' > '.join(target.patch.effects)}"
    )


def summary(rows: pd.DataFrame) -> Json:
    """Return flat metrics, of each out-of-domain kind too, and the bars: value, wanted, met."""
    if rows.empty:
        return {}
    dry = rows[rows["phase"].isin(("instrument", "sample"))]
    flat = tables.flat_metrics(rows[rows["phase"] != "effects"])
    for kind, part in rows[rows["phase"] != entry.IN_DOMAIN].groupby("phase"):
        for name, value in tables.flat_metrics(part).items():
            flat[name.replace("outside", str(kind), 1)] = value
    if len(dry):
        medians = dry.groupby("row")["wmfcc"].median()
        flat["outside.unmix.wmfcc_of_nearest"] = float(medians["unmix"] / medians["nearest"])
    return {
        "figures": {name: round(value, 4) for name, value in flat.items()},
        "bars": held(flat, BARS),
    }


if __name__ == "__main__":
    main()
