"""`unmix` on 200 malformed or hostile inputs (tests/hostile.py), each in a process of its own, as a
person runs it.

    python -m benchmarks.unmix.hostile [--model models/full] [--jobs 2] [--every 4] [--first 0]

Each must end within --limit seconds with an answer's folder, or with one sentence on stderr and no
folder; without a traceback and without a process left behind. The last line is one JSON object;
`wrong` names those that did not.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bound import held
from tests import hostile, processes

REPO = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Outcome:
    """How `unmix` ended on one input; kind: "answer", "refused", or what went wrong."""

    name: str
    kind: str
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--every", type=int, default=1, help="one case of so many")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument(
        "--limit", type=float, default=120.0, help="seconds after which a process hangs"
    )
    options = parser.parse_args()
    cases = list(hostile.cases())[options.first :: options.every]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        for place, (name, make) in enumerate(cases):
            (Path(folder) / f"{place:03d}").mkdir()
            make(Path(folder) / f"{place:03d}" / name)
        places = [Path(folder) / f"{place:03d}" / name for place, (name, _) in enumerate(cases)]
        outcomes = []
        for outcome in pool.map(lambda path: run_once(path, options), places):
            outcomes.append(outcome)
            sys.stderr.write(
                f"{len(outcomes)}/{len(places)} {outcome.name}: {outcome.kind}, "
                f"{outcome.seconds:.1f} s\n"
            )
    kinds = [outcome.kind for outcome in outcomes]
    result = {
        "inputs": len(outcomes),
        "answers": kinds.count("answer"),
        "refused": kinds.count("refused"),
        "wrong": {o.name: o.kind for o in outcomes if o.kind not in ("answer", "refused")},
        "longest_s": round(max(outcome.seconds for outcome in outcomes), 1),
    }
    figures = {"wrong": float(len(result["wrong"])), "inputs": float(len(outcomes))}
    bars = {"wrong": ("<=", 0.0)}
    if options.every == 1 and not options.first:
        bars["inputs"] = (">=", 200.0)
    sys.stdout.write(json.dumps(result | {"bars": held(figures, bars)}) + "\n")


def run_once(path: Path, options: argparse.Namespace) -> Outcome:
    """Run `unmix` on one file and judge how it ended."""
    out = path.parent / "answer"
    words = [sys.executable, "-m", "unmixer_app", str(path), "--out", str(out), "--fast"]
    if options.model:
        words += ["--model", str(options.model)]
    start = time.perf_counter()
    process = subprocess.Popen(
        words,
        cwd=REPO,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, stderr = process.communicate(timeout=options.limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return Outcome(path.name, "hangs", time.perf_counter() - start)
    kind = kind_of(process.returncode, stderr, out, processes.in_group(process.pid))
    return Outcome(path.name, kind, time.perf_counter() - start)


def kind_of(status: int, stderr: str, out: Path, left: list[int]) -> str:
    """Return an outcome's kind. out: the answer's folder. left: processes that still run."""
    if left:
        return f"leaves processes {left}"
    if "Traceback" in stderr:
        return "traceback"
    if status == 0:
        return "answer" if (out / "patch.json").exists() else "no answer"
    sentence = stderr.startswith("error: ") and len(stderr.splitlines()) == 1
    if status == 1 and sentence and not out.exists():
        return "refused"
    return f"status {status}: {stderr[-200:]!r}"


if __name__ == "__main__":
    main()
