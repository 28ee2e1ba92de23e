"""What both kinds of proxy are: a module that plays patches, and a folder that describes it."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NotRequired, Protocol, Self, TypedDict, runtime_checkable

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unmixer_core.errors import SchemaMismatch, StageError
from unmixer_core.proxy.controls import Chain, Choices, PerPatch
from unmixer_core.schema.rack import RACK
from unmixer_core.system import files

WEIGHTS = "proxy.safetensors"
DESCRIPTION = "proxy.json"
REBUILD = "dvc repro --force train_proxy"


class ProxyDescription(TypedDict):
    """What is needed to build a saved proxy again, as proxy.json holds it."""

    schema: str
    kind: str
    sample_rate: int
    clip_s: float
    #: Of the neural proxy alone.
    width: NotRequired[int]
    draws: NotRequired[str]


@runtime_checkable
class Proxy(Protocol):
    """G_proxy: patch → sound, with a gradient to every knob, choice weight and chain slot."""

    #: Hz, and seconds of sound unless a call says otherwise.
    sample_rate: int
    clip_s: float
    #: False after `eval()`.
    training: bool

    def __call__(
        self,
        knobs: Float[Tensor, "batch knobs"],
        choices: Choices,
        chain: Chain,
        note: PerPatch,
        gate_s: PerPatch,
        clip_s: float | None = None,
    ) -> Float[Tensor, "batch 2 time"]:
        """Sound of a batch of patches; see `ProxyModule.forward`."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """The constants that calibration found."""
        ...

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode."""
        ...

    def eval(self) -> Self:
        """Switch to evaluation mode."""
        ...


class ProxyModule(nn.Module):
    """Base of both kinds of proxy: patch → sound, differentiable."""

    KIND: ClassVar[str]

    def __init__(self, sample_rate: int, clip_s: float) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.clip_s = clip_s

    @abstractmethod
    def forward(
        self,
        knobs: Float[Tensor, "batch knobs"],
        choices: Choices,
        chain: Chain,
        note: PerPatch,
        gate_s: PerPatch,
        clip_s: float | None = None,
    ) -> Float[Tensor, "batch 2 time"]:
        """Sound of a batch of patches, at the host's level.

        Args:
            knobs: values in unit.
            choices: item indices, or for each choice the weights of its items.
            chain: effect ids (−1 = end), or weights of the effects and of the end (last).
            note: MIDI notes, which may be fractional.
            gate_s: how long the key is held, in seconds.
            clip_s: seconds of sound; None: the proxy's own.
        """

    def description(self) -> ProxyDescription:
        """What is needed to build the module again."""
        return {
            "schema": RACK.digest,
            "kind": self.KIND,
            "sample_rate": self.sample_rate,
            "clip_s": self.clip_s,
        }

    def save(self, folder: Path) -> None:
        """Write the weights as safetensors, and the description with the schema's digest."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {key: value.contiguous() for key, value in self.state_dict().items()}
        with files.replacing(folder / WEIGHTS) as temporary:
            save_file(weights, temporary)
        files.write_text(folder / DESCRIPTION, json.dumps(self.description(), indent=2) + "\n")

    def restore(self, folder: Path) -> None:
        """Read the weights that `save` wrote.

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
        except RuntimeError as error:  # torch's own message lists every parameter
            raise StageError(
                f"the proxy in {folder} is of another version of this code; run `{REBUILD}`."
            ) from error


def described(folder: Path) -> ProxyDescription:
    """Read the description of a saved proxy.

    Raises:
        StageError: there is none, or it is damaged.
        SchemaMismatch: it was saved under another schema.
    """
    path = folder / DESCRIPTION
    if not path.exists():
        raise StageError(f"{folder} holds no proxy; run `dvc repro train_proxy`.")
    try:
        description: ProxyDescription = json.loads(path.read_text(encoding="utf-8"))
        schema = description["schema"]
    except (OSError, ValueError, KeyError) as error:
        raise StageError(
            f"the proxy in {folder} cannot be read ({error!r}); run `{REBUILD}`."
        ) from error
    if schema != RACK.digest:
        raise SchemaMismatch(str(folder), schema, RACK.digest, REBUILD)
    return description
