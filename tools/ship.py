"""Put the model of a finished run into models/pretrained, with its proxy, its numbers and where it
came from.

python tools/ship.py                # this tree's models/full, models/proxy and metrics
python tools/ship.py ~/unmixing     # those of a run made by tools/run_profile.py

`unmix` uses models/pretrained where no model was trained. Weights are stored as float16 (9 MB
instead of 18).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file

REPO = Path(__file__).resolve().parents[1]
SHIPPED = (
    ("median MSS of the one-shot prediction, full chains, dB", "full.prediction.mss_db"),
    (
        "... of the per-clip better nearest training render, where it was rendered at the note too",
        "full.nearest.mss_db",
    ),
    ("... ratio of both on the clips that have both", "full.prediction.mss_db_vs_nearest"),
    ("effects, macro-F1 with one threshold each", "full.effects.f1"),
    ("... of always naming every effect", "full.effects.always"),
    ("order of audible pairs where both were found", "full.chain.pair_order_present"),
    ("chain exact up to audible classes", "full.chain.exact_audible"),
    ("wavetable of oscillator 1", "full.wavetable_accuracy"),
    ("filter type", "full.filter_accuracy"),
    ("90 % intervals that hold the knob", "full.coverage_90"),
)


def halved(source: Path, target: Path) -> None:
    """A weight file with float32 as float16.

    Float64 (points of the ball) and integers as they are.
    """
    weights = load_file(source)
    save_file(
        {name: x.half() if x.dtype == torch.float32 else x for name, x in weights.items()}, target
    )


def card(run: Path, commit: str) -> str:
    """The model card, in Markdown."""
    params = yaml.safe_load((run / "params.yaml").read_text(encoding="utf-8"))
    found = json.loads((run / "metrics" / "evaluate.json").read_text(encoding="utf-8"))
    about = json.loads((run / "models" / "full" / "model.json").read_text(encoding="utf-8"))
    sample, made = params["sample"], params["proxy_clips"]
    lines = [
        "# The shipped model",
        "",
        "What `unmix` uses until `make repro` has trained a model here. Written by `python "
        "tools/ship.py`.",
        "",
        f"- **Made by** `dvc repro` with the parameters in params.yaml beside this file, at "
        f"commit {commit}; schema "
        f"{about['schema'][:16]}.",
        f"- **Data** {sample['n_full']} full-chain, {sample['n_nonlinear']} non-linear and "
        f"{sample['n_dry']} dry clips rendered by "
        f"the embedded host (Vital over AbletonOSC), {made['n_full']}, {made['n_nonlinear']} and "
        f"{made['n_dry']} by the proxy; "
        "all drawn from this project's own prior, no recordings.",
        "- **For** sounds of one note; real Live sounds different from the embedded host, so "
        "expect less there.",
        "- **License** GPL-3.0-or-later, as the project.",
        "",
        "| frozen test split, host re-render, no ITF | |",
        "|---|---|",
        *(f"| {words} | {found[key]:.3f} |" for words, key in SHIPPED if key in found),
        "",
    ]
    return "\n".join(lines)


def ship(run: Path, target: Path) -> None:
    """Write `target` from a finished run. Raises FileNotFoundError when the run is not complete."""
    (target / "proxy").mkdir(parents=True, exist_ok=True)
    halved(run / "models" / "full" / "model.safetensors", target / "model.safetensors")
    shutil.copyfile(run / "models" / "full" / "model.json", target / "model.json")
    for name in ("proxy.safetensors", "proxy.json"):
        shutil.copyfile(run / "models" / "proxy" / name, target / "proxy" / name)
    shutil.copyfile(run / "params.yaml", target / "params.yaml")
    (target / "README.md").write_text(card(run, commit_of(run)), encoding="utf-8")


def commit_of(run: Path) -> str:
    """The short commit that the run's folder stands at, or "unknown"."""
    command = ["git", "rev-parse", "--verify", "--quiet", "--short", "HEAD"]
    return (
        subprocess.run(command, cwd=run, capture_output=True, text=True, check=False).stdout.strip()
        or "unknown"
    )


def main(arguments: list[str]) -> int:
    """The exit status."""
    run = Path(arguments[0]).expanduser().resolve() if arguments else REPO
    try:
        ship(run, REPO / "models" / "pretrained")
    except FileNotFoundError as error:
        sys.stderr.write(
            f"error: {run} holds no finished run ({Path(error.filename or '').name} is missing).\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
