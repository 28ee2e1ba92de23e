"""A stage is a function: `run(main)` fills it from argv and params.yaml, tracks it, shows progress, writes its metrics.

    def main(patches: Path, renders: Path, audio: config.Audio, log: stage.Log) -> dict[str, float]: ...

    if __name__ == "__main__":
        stage.run(main)

Parameters annotated `Path` come from the command line (`--patches data/patches.parquet`), those annotated with a
section of `config` from params.yaml, a `Log` is the run's logger. What main returns goes to `--metrics FILE`. An
`UnmixerError` or a full disk ends the stage with one sentence on stderr and status 1. Machine facts are environment variables:
UNMIXER_DEVICE, UNMIXER_THREADS, UNMIXER_TRACKING, and UNMIXER_NPROC for stages that run on several ranks. torch is
imported only where a stage asks for a device or for ranks.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import inspect
import json
import math
import os
import shutil
import signal
import sys
import time
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from filelock import FileLock, Timeout

from unmixer_core import config, tracking
from unmixer_core.errors import ConfigError, StageError, UnmixerError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from matplotlib.figure import Figure

Item = TypeVar("Item")
QUIET_SECONDS = 10.0
SPIN = "20000"
"""GOMP_SPINCOUNT, some 10 to 50 microseconds: threads that sleep at once (OMP_WAIT_POLICY=PASSIVE) make a training step 1.7
times as long, and ones that spin for milliseconds, as is usual, take the cores from render hosts."""
_held: list[tuple[FileLock, Path, bool]] = []


class Log:
    """Where a stage reports. Without a tracker (tests, UNMIXER_TRACKING=off) everything but progress goes nowhere."""

    def __init__(self, tracker: tracking.Tracker | None = None) -> None:
        self._tracker = tracker

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Numbers of this moment; with a step they form a curve."""
        if self._tracker:
            self._tracker.metrics(values, step)

    def figure(self, name: str, figure: Figure) -> None:
        """A matplotlib figure, kept as plots/<name>.png."""
        if self._tracker:
            path = self._tracker.new_file(f"{name}.png")
            figure.savefig(path, dpi=100, bbox_inches="tight")
            self._tracker.artifact(path, "plots")

    def audio(self, name: str, audio: np.ndarray, sample_rate: int) -> None:
        """A clip, kept as audio/<name>.wav. Shape: audio [channel, time] in -1..1."""
        if self._tracker:
            import soundfile

            path = self._tracker.new_file(f"{name}.wav")
            soundfile.write(path, audio.T, sample_rate)
            self._tracker.artifact(path, "audio")

    def text(self, name: str, text: str) -> None:
        """A text file `name` with its extension, for example report.md."""
        if self._tracker:
            path = self._tracker.new_file(name)
            path.write_text(text, encoding="utf-8")
            self._tracker.artifact(path)

    def artifact(self, path: str | Path) -> None:
        """A copy of a file or folder as it is now."""
        if self._tracker:
            self._tracker.artifact(Path(path))

    def progress(self, items: Iterable[Item], total: int | None = None, desc: str = "") -> Iterator[Item]:
        """The same items, with a bar (rate, time left) on a terminal, else one line every ten seconds; the first of several
        ranks alone shows it.
        """
        if not first_rank():
            return iter(items)
        if total is None and hasattr(items, "__len__"):
            total = len(items)  # type: ignore[arg-type]
        if sys.stderr.isatty():
            from tqdm import tqdm

            return iter(tqdm(items, total=total, desc=desc, dynamic_ncols=True, smoothing=0.1))
        return _lines(items, total, desc)


def _lines(items: Iterable[Item], total: int | None, desc: str) -> Iterator[Item]:
    started = spoken = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - spoken >= QUIET_SECONDS or (done == total and spoken > started):
            spoken = now
            sys.stderr.write(progress_line(desc, done, total, now - started) + "\n")
            sys.stderr.flush()


def progress_line(desc: str, done: int, total: int | None, seconds: float) -> str:
    """ "render 120/600 · 4.10/s · 1:57 left"."""
    rate = done / max(seconds, 1e-9)
    shown = f"{desc} {done}".strip() + (f"/{total}" if total else "") + f" · {rate:.3g}/s"
    if not total or done >= total:
        return f"{shown} · {_clock(seconds)} taken"
    return f"{shown} · {_clock((total - done) / rate)} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


# --- running -----------------------------------------------------------------------------------------------------


def run(
    main: Callable[..., Mapping[str, Any] | None], argv: list[str] | None = None, *, ranks: bool = False
) -> NoReturn:
    """Run a stage's main as the process's purpose and exit: 0, 1 (one sentence on stderr) or 130/143 (interrupted).

    ranks: main can share its work with other processes (`distributed`); with UNMIXER_NPROC above 1 it does.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    arguments = sys.argv[1:] if argv is None else argv
    try:
        if not (ranks and _as_ranks(main, arguments)):
            execute(main, arguments)
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
        _say(StageError(f"the disk is full ({words}); make room and run `dvc repro` again: what was finished is kept."))
        sys.exit(1)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # an end that is under way is not interrupted with a traceback
    sys.exit(0)


def _as_ranks(main: Callable[..., Any], argv: list[str]) -> bool:
    """Run the stage as several ranks where that is asked for, and wait for them; whether it was."""
    if os.environ.get("UNMIXER_NPROC", "1") == "1" and "PET_NNODES" not in os.environ:
        return False
    from unmixer_core import distributed

    if not distributed.several():
        return False
    threads()
    spec, name = main.__globals__.get("__spec__"), stage_name(main)
    program = ["-m", spec.name] if spec else [str(main.__globals__["__file__"])]
    again = f"UNMIXER_NPROC={distributed.wanted()} dvc repro {name}"
    distributed.launch([*program, *argv], again)
    return True


def _say(error: UnmixerError) -> None:
    """The sentence on stderr; a rank leaves it to the process that started it, which speaks for all."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        from unmixer_core import distributed

        distributed.report(error)
    else:
        sys.stderr.write(f"error: {error}\n")


def _disk_is_full(error: BaseException | None) -> bool:
    """Whether that is what an error, or one it came from, is about; libraries in C and Rust say it only in words."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(error) for words in ("No space left on device", "disk is full", "Disk quota exceeded")):
            return True
        error = error.__cause__ or error.__context__
    return False


def first_rank() -> bool:
    """Whether this is the process that writes and speaks: the only one, or the first of several ranks."""
    return os.environ.get("RANK", "0") == "0"


def execute(main: Callable[..., Mapping[str, Any] | None], argv: list[str]) -> dict[str, Any]:
    """`run` without the exits: the metrics as written. Raises what main raises, and ConfigError before it."""
    name = stage_name(main)
    kinds = _parameters(main)
    paths, metrics_path = _paths(name, kinds, argv)
    params = config.load("params.yaml")
    keys = config.sections()
    sections = {key: config.section(params, kind) for key, kind in kinds.items() if kind in keys}
    threads()
    read = [keys[type(values)] for values in sections.values()]
    tracker = tracking.Tracker(tracking.open_record(name, params, read)) if tracking.enabled() else None
    logs = {key: Log(tracker) for key, kind in kinds.items() if kind is Log}
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
            tracker.metrics({"run.seconds": time.monotonic() - started, "run.peak_memory_mib": peak_memory_mib()})
            tracker.close(status, metrics)
    return metrics


def stage_name(main: Callable[..., Any]) -> str:
    """DVC's name for the stage, else the module that holds main."""
    spec = main.__globals__.get("__spec__")
    module = spec.name if spec else main.__module__
    return os.environ.get("DVC_STAGE") or module.rsplit(".", 1)[-1]


def _parameters(main: Callable[..., Any]) -> dict[str, type]:
    hints = typing.get_type_hints(main)
    kinds = {name: hints.get(name, object) for name in inspect.signature(main).parameters}
    for name, kind in kinds.items():
        if kind not in (Path, Log) and kind not in config.sections():
            raise TypeError(f"{main.__module__}.main({name}: {kind}): only Path, Log and config sections can be filled")
    return kinds


def _paths(name: str, kinds: Mapping[str, type], argv: list[str]) -> tuple[dict[str, Path], Path | None]:
    parser = argparse.ArgumentParser(prog=f"python -m stages.{name}", allow_abbrev=False)
    for key, kind in kinds.items():
        if kind is Path:
            parser.add_argument(f"--{key.replace('_', '-')}", dest=key, type=Path, required=True)
    parser.add_argument("--metrics", dest="__metrics", type=Path, help="JSON file for what the stage returns")
    found = vars(parser.parse_args(argv))
    metrics = found.pop("__metrics")
    for path in found.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    return found, metrics


def rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested metrics as JSON can hold them: floats to six significant digits, non-finite ones as null, keys sorted."""
    return {str(key): _rounded(values[key]) for key in sorted(values, key=str)}


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return rounded(value)
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    number = float(value)
    return (float(f"{number:.6g}") if not number.is_integer() else number) if math.isfinite(number) else None


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Sorted, indented JSON, written beside the target and moved onto it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(values, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def peak_memory_mib() -> float:
    """Largest resident size of this process and of its finished children; 0 where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return 0.0
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / unit


# --- machine facts -----------------------------------------------------------------------------------------------


def threads() -> int:
    """Compute threads of this process: UNMIXER_THREADS, else the cores it may use, shared among the ranks of one machine.
    Tells torch if that is loaded.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    given = os.environ.get("UNMIXER_THREADS", "")
    if given and not (given.isdigit() and int(given) > 0):
        raise ConfigError(f"UNMIXER_THREADS = {given!r} is not allowed, it must be a whole number ≥ 1.")
    count = int(given) if given else cores
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN)
    if given:
        os.environ["OMP_NUM_THREADS"] = given  # for a torch that is imported later
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
    return count


def device() -> torch.device:
    """UNMIXER_DEVICE (cpu, cuda, cuda:1, mps), else a CUDA GPU where there is one, else the CPU. Each rank of a machine gets
    a GPU of its own.
    """
    import torch

    threads()
    given = os.environ.get("UNMIXER_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    if given == "cuda" and "LOCAL_RANK" in os.environ:
        given = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        torch.empty(1, device=given)
        return torch.device(given)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"UNMIXER_DEVICE = {given!r} cannot be used here ({reason}), it must be cpu or a device that torch sees."
        ) from None


# --- resumable state ---------------------------------------------------------------------------------------------


def state_dir(stage: str, key: Mapping[str, Any], *, keep: bool = False) -> Path:
    """A folder for half-finished work of one stage with one set of inputs, outside DVC's outs (DVC deletes those).

    It is `.unmixer/<stage>-<hash of key>` and locked for this process: another process that wants the same work (a
    queued experiment, an orphan of a killed `dvc repro`) waits. Removed when the stage succeeds, unless `keep`.

    Args:
        key: everything the work depends on: parameters, seeds, digests of inputs; JSON-able values and config sections.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=_plain).encode()).hexdigest()[:16]
    folder = tracking.project_root() / ".unmixer" / f"{stage}-{digest}"
    if not first_rank():
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StageError(f"{folder} cannot be made: {error.strerror or error}.") from None
    lock = FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        sys.stderr.write(f"waiting for another process that works in {folder} ...\n")
        lock.acquire()
        folder.mkdir(exist_ok=True)
    _held.append((lock, folder, keep))
    return folder


def fingerprint(*folders: Path) -> str:
    """SHA-256 over what identifies the folders a phase depends on: their JSON, parquet and safetensors files."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".parquet", ".safetensors")):
            digest.update(path.name.encode())
            with path.open("rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, config.Section) else str(value)


def _release_states(*, remove: bool) -> None:
    while _held:
        lock, folder, keep = _held.pop()
        if remove and not keep:
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()
