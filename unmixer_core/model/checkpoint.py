"""A model on disk: weights as safetensors, and beside them, as JSON, everything needed to build
it and trust it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from unmixer_core.errors import SchemaMismatch, StageError
from unmixer_core.features.frames import FeatureSpec
from unmixer_core.model.unmixer import ModelSettings, Unmixer
from unmixer_core.schema.rack import RACK

REBUILD = "dvc repro train_dry train_fx train_full"
SETTINGS = tuple(ModelSettings.__annotations__)


@dataclass(frozen=True)
class Checkpoint:
    """A model and what is known of it: its settings, and what the training wrote beside it."""

    model: Unmixer
    settings: ModelSettings
    about: dict[str, Any]


def save(folder: Path, model: Unmixer, settings: ModelSettings, about: Mapping[str, Any]) -> None:
    """Write model.safetensors (weights and feature normalisation) and model.json, each written
    then moved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "model.safetensors.tmp"
    save_file(
        {name: value.detach().contiguous().cpu() for name, value in model.state_dict().items()},
        temporary,
    )
    os.replace(temporary, folder / "model.safetensors")
    document = {
        "schema": RACK.digest,
        "features": asdict(model.spec),
        "model": {name: getattr(settings, name) for name in SETTINGS},
        "about": dict(about),
    }
    temporary = folder / "model.json.tmp"
    temporary.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, folder / "model.json")


def load(folder: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Build the model of a folder, ready for inference.

    Raises:
        StageError: the folder holds no complete model.
        SchemaMismatch: it was trained on another list of devices and knobs.
    """
    try:
        document = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "model.safetensors")
    except FileNotFoundError as error:
        raise StageError(
            f"there is no model in {folder} ({Path(error.filename or '').name}); run `{REBUILD}`."
        ) from None
    except (OSError, ValueError, SafetensorError) as error:
        raise StageError(
            f"the model in {folder} cannot be read ({error}); run `{REBUILD}`."
        ) from error
    if document.get("schema") != RACK.digest:
        raise SchemaMismatch(f"the model in {folder}", document.get("schema"), RACK.digest, REBUILD)
    settings: Any = SimpleNamespace(
        **{"stops": False} | document["model"]
    )  # models had no atoms before the word was
    model = Unmixer(FeatureSpec(**document["features"]), settings)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:  # torch lists every parameter
        raise StageError(
            f"the model in {folder} is of another version of this code; run `{REBUILD}`."
        ) from error
    return Checkpoint(model.to(device).eval(), settings, document["about"])
