"""Write the results block of README.md from metrics/evaluate.json.

python tools/readme.py            # fails when the block differs from the metrics
python tools/readme.py --write    # writes the block
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- results:", "<!-- /results -->"
HEAD = (
    "<!-- results: the numbers of metrics/evaluate.json of the committed dvc.lock; `python "
    "tools/readme.py --write` -->"
)
COLUMNS = {
    "init": "init patch",
    "random": "random patch",
    "mean": "mean patch",
    "nearest_as_is": "nearest training render, as it is",
    "nearest": "nearest, better of as it is and re-rendered",
    "prediction_mode": "network alone, best guess",
    "prediction": "one-shot prediction",
}
LINES = {
    "mss_db": "median MSS, dB",
    "wmfcc": "wMFCC",
    "sot": "SOT",
    "level_db": "level-sensitive log-mel L1, dB",
    "n": "clips",
}
Values = Mapping[str, float]


def results(evaluate: Values) -> str:
    """Return the block from `BEGIN` to `END`.

    It holds no figure that depends on the machine's speed: those of `benchmark_itf` stay in
    metrics/benchmark_itf.json.
    """
    full = {
        key.removeprefix("full."): value
        for key, value in evaluate.items()
        if key.startswith("full.")
    }
    found = [
        f"| full chains, frozen test split, host re-render | {' | '.join(COLUMNS.values())} |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for measure, words in LINES.items():
        cells = [_number(full[f"{row}.{measure}"], measure) for row in COLUMNS]
        found.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join([HEAD, *found, "", _prediction(full), "", _parameters(full), END])


def _number(value: float, measure: str) -> str:
    return f"{value:.0f}" if measure == "n" else f"{value:.2f}"


def _prediction(full: Values) -> str:
    return (
        f"On the clips that have both, the one-shot prediction's median MSS is "
        f"{full['prediction.mss_db_vs_nearest']:.3f} of the "
        f"per-clip better\nnearest's, and it is the closer one on "
        f"{full['prediction.beats_nearest']:.0%} of them. It is what the "
        "proxy ranks first among the network's candidates and\nretrieved training patches "
        f"({full['prediction.from_network']:.0%} come from the network), rendered once: no "
        f"refinement, no search on the host."
    )


def _parameters(full: Values) -> str:
    lines = [
        "| of the patch, full chains | found | always the commonest | can be reached |",
        "|---|---|---|---|",
        f"| effects, macro-F1 (one threshold each) | {full['effects.f1']:.2f} | "
        f"{full['effects.always']:.2f} "
        f"| {full['effects.ceiling']:.2f} with the audible ones alone |",
        f"| effects, area under ROC | {full['effects.auc']:.2f} | 0.50 | |",
        f"| effects of the answered chain, macro-F1 | {full['chain.f1']:.2f} | "
        f"{full['chain.f1_majority']:.2f} | |",
        _bounded(full, "order of audible pairs, where both were found", "chain.pair_order_present"),
        _bounded(full, "chain exact up to audible classes", "chain.exact_audible"),
        _bounded(full, "wavetable of oscillator 1", "wavetable_accuracy"),
        _bounded(full, "filter type", "filter_accuracy"),
        f"| 90 % intervals that hold the knob | {full['coverage_90']:.2f} | | 0.90 |",
    ]
    return "\n".join(lines)


def _bounded(full: Values, words: str, key: str) -> str:
    """What was found, the majority's answer and the ceiling; blank where the metrics have none."""
    cells = (
        f"{full[key + end]:.2f}" if key + end in full else ""
        for end in ("", "_majority", "_ceiling")
    )
    return f"| {words} | {' | '.join(cells)} |"


def committed_metrics() -> str | None:
    """Return metrics/evaluate.json of the commit HEAD, None outside a git repository."""
    command = ["git", "-C", str(REPO), "show", "HEAD:./metrics/evaluate.json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def working_metrics() -> str:
    """Return metrics/evaluate.json of the working tree, as the last `dvc repro` wrote it."""
    return (REPO / "metrics" / "evaluate.json").read_text(encoding="utf-8")


def wanted(metrics: str) -> str:
    """Return README.md with the results of `metrics`, the text of an evaluate.json."""
    text = (REPO / "README.md").read_text(encoding="utf-8")
    before, rest = text.split(BEGIN, 1)
    return before + results(json.loads(metrics)) + rest.split(END, 1)[1]


if __name__ == "__main__":
    readme = REPO / "README.md"
    right = wanted(working_metrics())
    if "--write" in sys.argv:
        readme.write_text(right, encoding="utf-8")
    elif right != readme.read_text(encoding="utf-8"):
        sys.exit(
            "README.md's results are not those of metrics/evaluate.json; `python tools/readme.py "
            "--write` corrects them."
        )
