"""A stage is a function: `run_stage(main)` fills it from argv and params.yaml, tracks it, shows
progress, writes its metrics.

    def main(patches: Path, renders: Path, audio: config.Audio) -> dict[str, float]: ...

    if __name__ == "__main__":
        run_stage(main)

Parameters annotated `Path` come from the command line (`--patches data/patches.parquet`), those
annotated with a section of `config` from params.yaml, a `StageLog` is the run's logger. What main
returns goes to `--metrics FILE`. An `UnmixerError` or a full disk ends the stage with one sentence
on stderr and status 1. Machine facts are environment variables: UNMIXER_DEVICE, UNMIXER_THREADS,
UNMIXER_TRACKING, and UNMIXER_NPROC for stages that run on several ranks. torch is imported only
where a stage asks for a device or for ranks.
"""

from __future__ import annotations

import argparse
import errno
import inspect
import os
import signal
import sys
import time
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from unmixer_core import config
from unmixer_core.errors import StageError, UnmixerError
from unmixer_core.pipeline import tracking
from unmixer_core.pipeline.json_file import rounded, write_json
from unmixer_core.pipeline.log import StageLog, first_rank
from unmixer_core.pipeline.machine import peak_memory_mib, threads
from unmixer_core.pipeline.state import _release_states
from unmixer_core.system.json_types import Json, JsonView

Main = Callable[..., JsonView | None]


def run_stage(
    main: Main | Mapping[str, Main], argv: list[str] | None = None, *, ranks: bool = False
) -> NoReturn:
    """Run a stage's main as the process's purpose and exit.

    0, 1 (one sentence on stderr) or 130/143 (interrupted).

    Args:
        main: the stage's function, or several by name where one script serves several stages
        (`--phase NAME`). ranks: main can share its work with other processes (`distributed`); with
        UNMIXER_NPROC above 1 it does.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    given = sys.argv[1:] if argv is None else argv
    phase, arguments = _phase(main, given) if isinstance(main, Mapping) else ("", given)
    chosen = main[phase] if isinstance(main, Mapping) else main
    name = stage_name(chosen, phase)
    try:
        if not (ranks and _as_ranks(chosen, given, name)):
            execute(chosen, arguments, name)
    except UnmixerError as error:
        _say(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: what was finished is kept, the next run continues.\n")
        sys.exit(130)
    except Exception as error:
        if not _disk_is_full(error):
            raise
        words = " ".join(str(error).split())
        _say(
            StageError(
                f"the disk is full ({words}); make room and run `dvc repro` again: what was "
                f"finished is kept."
            )
        )
        sys.exit(1)
    finally:
        signal.signal(
            signal.SIGTERM, signal.SIG_DFL
        )  # an end that is under way is not interrupted with a traceback
    sys.exit(0)


def _phase(mains: Mapping[str, Main], argv: list[str]) -> tuple[str, list[str]]:
    """What `--phase` says, and the other words of the command line."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--phase", choices=mains, required=True)
    found, rest = parser.parse_known_args(argv)
    return found.phase, rest


def _as_ranks(main: Main, argv: list[str], name: str) -> bool:
    """Run the stage as several ranks where that is asked for, and wait for them; whether it was."""
    if os.environ.get("UNMIXER_NPROC", "1") == "1" and "PET_NNODES" not in os.environ:
        return False
    from unmixer_core import distributed

    if not distributed.several():
        return False
    threads()
    spec = main.__globals__.get("__spec__")
    program = ["-m", spec.name] if spec else [str(main.__globals__["__file__"])]
    again = f"UNMIXER_NPROC={distributed.wanted()} dvc repro {name}"
    distributed.launch([*program, *argv], again)
    return True


def _say(error: UnmixerError) -> None:
    """The sentence on stderr; a rank leaves it to the process that started it, which speaks for
    all.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        from unmixer_core import distributed

        distributed.report(error)
    else:
        sys.stderr.write(f"error: {error}\n")


def _disk_is_full(error: BaseException | None) -> bool:
    """Whether that is what an error, or one it came from, is about.

    Libraries in C and Rust say it only in words.
    """
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(
            words in str(error)
            for words in ("No space left on device", "disk is full", "Disk quota exceeded")
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def execute(main: Main, argv: list[str], name: str | None = None) -> Json:
    """`run_stage` without the exits: the metrics as written.

    Raises what main raises, and ConfigError before it.
    """
    name = name or stage_name(main)
    kinds = _parameters(main)
    paths, metrics_path = _paths(name, kinds, argv)
    params = config.load("params.yaml")
    keys = config.sections()
    sections = {key: config.section(params, kind) for key, kind in kinds.items() if kind in keys}
    threads()
    read = [keys[type(values)] for values in sections.values()]
    tracker = (
        tracking.Tracker(tracking.open_record(name, params, read)) if tracking.enabled() else None
    )
    logs = {key: StageLog(tracker) for key, kind in kinds.items() if kind is StageLog}
    started, status, metrics = time.monotonic(), "FAILED", {}
    try:
        metrics = rounded(main(**paths, **sections, **logs) or {})
        if metrics_path and first_rank():
            write_json(metrics_path, metrics)
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        _release_states(remove=status == "FINISHED")
        if tracker:
            tracker.metrics(
                {
                    "run.seconds": time.monotonic() - started,
                    "run.peak_memory_mib": peak_memory_mib(),
                }
            )
            tracker.close(status, metrics)
    return metrics


def stage_name(main: Main, phase: str = "") -> str:
    """DVC's name for the stage, else that of the module that holds main, with the phase if it
    serves several.
    """
    spec = main.__globals__.get("__spec__")
    module = spec.name if spec else main.__module__
    own = module.rsplit(".", 1)[-1]
    return os.environ.get("DVC_STAGE") or (f"{own}_{phase}" if phase else own)


def _parameters(main: Main) -> dict[str, type]:
    hints = typing.get_type_hints(main)
    kinds = {name: hints.get(name, object) for name in inspect.signature(main).parameters}
    for name, kind in kinds.items():
        if kind not in (Path, StageLog) and kind not in config.sections():
            raise TypeError(
                f"{main.__module__}.main({name}: {kind}): only Path, StageLog and config sections "
                f"can be filled"
            )
    return kinds


def _paths(
    name: str, kinds: Mapping[str, type], argv: list[str]
) -> tuple[dict[str, Path], Path | None]:
    parser = argparse.ArgumentParser(prog=f"python -m stages.{name}", allow_abbrev=False)
    for key, kind in kinds.items():
        if kind is Path:
            parser.add_argument(f"--{key.replace('_', '-')}", dest=key, type=Path, required=True)
    parser.add_argument(
        "--metrics", dest="__metrics", type=Path, help="JSON file for what the stage returns"
    )
    found = vars(parser.parse_args(argv))
    metrics = found.pop("__metrics")
    for path in found.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    return found, metrics
