"""Facts of the machine that a stage runs on: compute threads, the device, peak memory.

UNMIXER_DEVICE and UNMIXER_THREADS set the first two. torch is imported only where a device is asked
for.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from unmixer_core.errors import ConfigError
from unmixer_core.system import environment

if TYPE_CHECKING:
    import torch
#: GOMP_SPINCOUNT, some 10 to 50 microseconds: threads that sleep at once (OMP_WAIT_POLICY=PASSIVE)
#: make a training step 1.7 times as long, and ones that spin for milliseconds, as is usual, take
#: the cores from render hosts.
SPIN = "20000"


def peak_memory_mib() -> float:
    """Largest resident size of this process and of its finished children.

    0 where the system does not say (Windows).
    """
    try:
        import resource
    except ImportError:
        return 0.0
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return (
        max(
            resource.getrusage(who).ru_maxrss
            for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        / unit
    )


# --- machine facts ----------------------------------------------------------------------------


def threads() -> int:
    """Compute threads of this process.

    UNMIXER_THREADS, else the cores it may use, shared among the ranks of one machine. Tells torch
    if that is loaded.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    cores = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    given = os.environ.get("UNMIXER_THREADS", "")
    count = environment.integer("UNMIXER_THREADS", cores, 1)
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN)
    if given:
        os.environ["OMP_NUM_THREADS"] = given  # for a torch that is imported later
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
    return count


def device() -> torch.device:
    """UNMIXER_DEVICE (cpu, cuda, cuda:1, mps), else a CUDA GPU where there is one, else the CPU.

    Each rank of a machine gets a GPU of its own.
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
            f"UNMIXER_DEVICE = {given!r} cannot be used here ({reason}), it must be cpu or a "
            f"device that torch sees."
        ) from None
