"""Run the pipeline with a profile in a copy of the working tree, whose params.yaml, dvc.lock and
metrics stay put.

python tools/run_profile.py profiles/smoke.yaml  # in a temporary folder, then removed
python tools/run_profile.py profiles/studio.yaml /mnt/big  # in a folder that stays
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]


def copy_tree(target: Path) -> None:
    """Tracked and new files as they are now; nothing that git ignores, no dvc.lock."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPO,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (REPO / name).is_file() and name != "dvc.lock":
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, target / name)


def run(profile: Path, target: Path) -> None:
    """The whole pipeline in `target`; CalledProcessError if a step fails."""
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    environment.pop("DVC_ROOT", None)
    copy_tree(target)
    for command in (
        [
            "git",
            "init",
            "--quiet",
        ],  # at this tree's commit, by which MLflow groups runs and ship.py names them
        ["git", "fetch", "--quiet", "--depth=1", str(REPO), "HEAD"],
        ["git", "reset", "--quiet", "FETCH_HEAD"],
        [sys.executable, "-m", "unmixer_core.config", "apply", str(profile)],
        ["dvc", "repro"],
        ["dvc", "status"],  # "up to date": a second repro would do nothing
    ):
        subprocess.run(command, cwd=target, check=True, env=environment)


def main(arguments: list[str]) -> int:
    """The exit status."""
    if len(arguments) not in (1, 2):
        sys.stderr.write("usage: python tools/run_profile.py PROFILE [FOLDER]\n")
        return 2
    profile = Path(arguments[0]).resolve()
    try:
        if len(arguments) == 2:
            run(profile, Path(arguments[1]).resolve())
        else:
            with tempfile.TemporaryDirectory(prefix="unmixer-") as folder:
                run(profile, Path(folder))
    except subprocess.CalledProcessError as error:
        sys.stderr.write(
            f"error: `{' '.join(map(str, error.cmd))}` ended with status {error.returncode}.\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
