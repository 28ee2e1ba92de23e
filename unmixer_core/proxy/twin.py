"""What every kind of proxy is.

A module that sounds patches at a rate, and a folder that says which kind it holds.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unmixer_core.errors import SchemaMismatch, StageError
from unmixer_core.schema.rack import RACK

WEIGHTS, DESCRIPTION = "proxy.safetensors", "proxy.json"
REBUILD = "dvc repro --force train_proxy"


class Proxy(Protocol):
    """G_proxy: patch -> sound, with a gradient to every knob, choice weight and chain slot."""

    #: Hz, and seconds of sound unless a call says otherwise.
    sample_rate: int
    clip_s: float
    #: False after `eval()`.
    training: bool

    def __call__(
        self,
        knobs: Tensor,
        choices: Tensor | Sequence[Tensor],
        chain: Tensor,
        note: Tensor,
        gate_s: Tensor,
        clip_s: float | None = None,
    ) -> Tensor:
        """Audio [batch, 2, samples]; shapes of the arguments as in `ProxyModule.forward`."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """The constants that calibration found."""
        ...

    def train(self, mode: bool = True) -> Self: ...

    def eval(self) -> Self: ...


class ProxyModule(nn.Module):
    """A stand-in for the host: patch → sound, with a gradient to every knob, choice weight and
    chain slot.
    """

    KIND: ClassVar[str]

    def __init__(self, sample_rate: int, clip_s: float) -> None:
        super().__init__()
        self.sample_rate, self.clip_s = sample_rate, clip_s

    @abstractmethod
    def forward(
        self,
        knobs: Tensor,
        choices: Tensor | Sequence[Tensor],
        chain: Tensor,
        note: Tensor,
        gate_s: Tensor,
        clip_s: float | None = None,
    ) -> Tensor:
        """Sound of a batch of patches.

        knobs [batch, K] in unit; choices LongTensor [batch, C] or C weight tensors [batch, items];
        chain LongTensor [batch, 8] of effect ids (−1 = end) or slot weights [batch, 8, 9] (last =
        end); note [batch] (MIDI, may be fractional), gate_s [batch] → audio [batch, 2, clip_s ·
        sample_rate] at the host's level.
        """

    def description(self) -> dict[str, Any]:
        """What must be known to build the module again."""
        return {
            "schema": RACK.digest,
            "kind": self.KIND,
            "sample_rate": self.sample_rate,
            "clip_s": self.clip_s,
        }

    def save(self, folder: Path) -> None:
        """Weights as safetensors, and a description that carries the kind and the schema's
        digest.
        """
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {key: value.contiguous() for key, value in self.state_dict().items()}, folder / WEIGHTS
        )
        (folder / DESCRIPTION).write_text(
            json.dumps(self.description(), indent=2) + "\n", encoding="utf-8"
        )

    def restore(self, folder: Path) -> None:
        """The weights that `save` wrote.

        Raises:
            StageError: they are missing, damaged, or of a proxy with other parameters
                (an older version of this code).
        """
        try:
            self.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, SafetensorError) as error:
            raise StageError(
                f"the proxy in {folder} cannot be read ({error}); run `{REBUILD}`."
            ) from error
        except RuntimeError as error:  # torch lists every parameter
            raise StageError(
                f"the proxy in {folder} is of another version of this code; run `{REBUILD}`."
            ) from error


def described(folder: Path) -> dict[str, Any]:
    """The description of a saved proxy.

    Raises StageError when there is none or it is damaged, SchemaMismatch when the schema is
    another.
    """
    path = folder / DESCRIPTION
    if not path.exists():
        raise StageError(f"{folder} holds no proxy; run `dvc repro train_proxy`.")
    try:
        description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        schema = description["schema"]
    except (OSError, ValueError, KeyError) as error:
        raise StageError(
            f"the proxy in {folder} cannot be read ({error!r}); run `{REBUILD}`."
        ) from error
    if schema != RACK.digest:
        raise SchemaMismatch(str(folder), schema, RACK.digest, REBUILD)
    return description
