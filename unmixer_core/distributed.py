"""One training run over several processes: plain DDP under torchrun, on one machine or many.

A stage that finds UNMIXER_NPROC above 1 starts itself again under torchrun (`launch`); several
nodes take torchrun's own variables (PET_NNODES, PET_NODE_RANK, PET_RDZV_ENDPOINT ...). Every rank
takes the rows rank, rank + world, ... of the same batches with the same noise (`noise`), batch
normalisation reads the statistics of the whole batch, and gradients are averaged before the
optimiser clips them: so the loss curve is that of one process up to rounding, and a run may be
continued by another number of ranks. Rank 0 alone writes and logs. CUDA speaks NCCL, a CPU gloo.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from unmixer_core.errors import StageError
from unmixer_core.system import environment

Item = TypeVar("Item")
PATIENCE = timedelta(minutes=30)
LOST = "the connection to another rank was lost"


@dataclass(frozen=True)
class Ranks:
    """This process's place among `world`; with a world of one nothing is ever sent."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def rows(self, total: int) -> slice:
        """This rank's rows of `total`."""
        return slice(self.rank, total, self.world)

    def count(self, total: int) -> int:
        """How many they are."""
        return len(range(self.rank, total, self.world))

    def weight(self, total: int) -> float:
        """What a mean over this rank's rows counts, so that the mean over ranks is the mean over
        all rows.
        """
        return self.world * self.count(total) / total

    def summed(self, values: Mapping[str, float]) -> dict[str, float]:
        """Sum over ranks of numbers that all of them have under the same names."""
        if self.world == 1:
            return dict(values)
        total = torch.tensor(list(values.values()), dtype=torch.float64, device=_wire())
        dist.all_reduce(total)
        return dict(zip(values, total.tolist(), strict=True))

    def same(self, value: Item) -> Item:
        """Rank 0's value."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, 0, device=_wire())
        return box[0]

    def together(self, mine: Sequence[Item]) -> list[Item]:
        """The results for `items[rank::world]` of every rank → those for all items, in order."""
        if self.world == 1:
            return list(mine)
        parts: list[Any] = [None] * self.world
        dist.all_gather_object(parts, list(mine))
        found = [part[i] for i in range(max(map(len, parts))) for part in parts if i < len(part)]
        return found

    def same_noise(self, device: torch.device | str) -> None:
        """Go on with rank 0's random state, where ranks have drawn different amounts."""
        if self.world == 1:
            return
        cuda = torch.device(device).type == "cuda"
        state, cuda_state = self.same(
            (torch.get_rng_state(), torch.cuda.get_rng_state(device) if cuda else None)
        )
        torch.set_rng_state(state)
        if cuda_state is not None:
            torch.cuda.set_rng_state(cuda_state, device)

    def wrapped(self, module: nn.Module) -> nn.Module:
        """The module under DDP, its batch normalisation over all ranks' rows.

        By itself in a world of one.
        """
        if self.world == 1:
            return module
        if next(module.parameters()).is_cuda:
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        else:
            _synchronise(module)
        return DistributedDataParallel(module, forward_sync_buffers=False)


ALONE = Ranks()


def _wire() -> torch.device:
    """Where tensors must lie to be sent."""
    return (
        torch.device("cuda", torch.cuda.current_device())
        if dist.get_backend() == "nccl"
        else torch.device("cpu")
    )


def here() -> Ranks:
    """The place that torchrun gave this process."""
    return Ranks(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


@contextmanager
def joined(device: torch.device | str) -> Iterator[Ranks]:
    """The ranks of this run, connected.

    Raises StageError when another rank ends before its time.
    """
    ranks, device = here(), torch.device(device)
    if ranks.world == 1:
        yield ranks
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        with _mortal():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        yield ranks
        dist.barrier()
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error).lower():
            raise StageError(f"{LOST} ({str(error).splitlines()[0][:120]}).") from error
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def _mortal() -> Iterator[None]:
    """Within it SIGTERM ends this process at once.

    A rank that waits for one that will never come runs no Python.
    """
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# --- batch normalisation over all ranks' rows -------------------------------------------------


class _Sum(torch.autograd.Function):
    """Sum over ranks, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class SyncedBatchNorm(_BatchNorm):
    """Batch normalisation by the moments of every rank's rows, on any device (torch's own
    SyncBatchNorm is CUDA only).

    Moments are summed in float64, so that their difference loses nothing that float32 had.
    """

    @classmethod
    def of(cls, other: _BatchNorm) -> SyncedBatchNorm:
        """The same layer, parameters and running statistics shared."""
        made = cls(other.num_features, other.eps, other.momentum)
        made.weight, made.bias = other.weight, other.bias
        made.running_mean, made.running_var = other.running_mean, other.running_var
        made.num_batches_tracked = other.num_batches_tracked
        return made.train(other.training)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of axes after [rows, features]."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        x = input.to(
            torch.promote_types(input.dtype, torch.float32)
        )  # a bfloat16 square holds too little
        count = torch.tensor([x.numel() / x.shape[1]], dtype=torch.float64)
        moments = [x.sum(axes, dtype=torch.float64), x.square().sum(axes, dtype=torch.float64)]
        first, second, n = _Sum.apply(torch.cat([*moments, count])).split(
            [x.shape[1], x.shape[1], 1]
        )
        mean = first / n
        variance = (second / n - mean.square()).clamp_min(0.0)
        self._remember(mean.detach(), (variance * n / (n - 1)).detach())
        shape = (1, -1, *[1] * (x.ndim - 2))
        scale = self.weight * (variance + self.eps).rsqrt().to(x)
        return ((x - mean.to(x).view(shape)) * scale.view(shape) + self.bias.view(shape)).to(
            input.dtype
        )

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert (
            self.running_mean is not None
            and self.running_var is not None
            and self.num_batches_tracked is not None
        )
        share = self.momentum or 0.1
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(variance.to(self.running_var), share)
        self.num_batches_tracked += 1


def _synchronise(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, SyncedBatchNorm.of(child))
        else:
            _synchronise(child)


# --- starting ---------------------------------------------------------------------------------


def wanted() -> int:
    """How many ranks this process shall start: UNMIXER_NPROC; 1 where it is itself one.

    Raises ConfigError.
    """
    ranks = environment.integer("UNMIXER_NPROC", 1, 1)
    return 1 if "RANK" in os.environ else ranks


def several() -> bool:
    """Whether this process has to start ranks.

    More than one here, or this is one node of several.
    """
    return wanted() > 1 or ("PET_NNODES" in os.environ and "RANK" not in os.environ)


def launch(program: Sequence[str], again: str) -> None:
    """Run `program` (["-m", module, ...] or [file, ...]) as `wanted()` ranks under torchrun and
    wait for them.

    Args:
        again: the command that continues, for the error's sentence.

    Raises:
        StageError: a rank ended before its time; says which one and why.
    """
    import logging

    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // wanted())))
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    alone = [] if any(name.startswith("PET_") for name in os.environ) else ["--standalone"]
    try:
        run(
            parse_args([*alone, "--nproc-per-node", str(wanted()), "--max-restarts", "0", *program])
        )
    except SignalException as stopped:
        if stopped.sigval == signal.SIGINT:
            raise KeyboardInterrupt from stopped
        sys.exit(128 + stopped.sigval)
    except ChildFailedError as error:
        raise StageError(_what_ended(error.failures, again)) from error


def _what_ended(failures: Mapping[int, Any], again: str) -> str:
    """One sentence on the rank that the others' end followed from."""
    stopped_by_us = (-signal.SIGTERM, 128 + signal.SIGTERM)
    killed = {
        rank: f
        for rank, f in failures.items()
        if f.exitcode < 0 and f.exitcode not in stopped_by_us
    }
    spoke = {
        rank: f
        for rank, f in failures.items()
        if LOST not in _said(f) and f.exitcode not in stopped_by_us
    }
    rank, failure = min((killed or spoke or failures).items(), key=lambda item: item[1].timestamp)
    if killed:
        how = f"was killed by {signal.Signals(-failure.exitcode).name}"
    elif said := _said(failure):
        how = f"stopped: {said.strip().rstrip('.')}"
    else:
        how = f"ended with status {failure.exitcode} (what it said is above)"
    return f"rank {rank} {how}; finished epochs are kept, `{again}` goes on after the last of them."


def _said(failure: Any) -> str:
    """The sentence that a rank left by `report`, or nothing."""
    message = (
        failure.error_file_data.get("message")
        if isinstance(failure.error_file_data, dict)
        else None
    )
    return str(message["message"]).split("Error: ", 1)[-1] if isinstance(message, dict) else ""


def report(error: Exception) -> None:
    """Leave a rank's error for the process that started it."""
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    get_error_handler().record_exception(error)
