"""A model on disk: weights as safetensors, and beside them, as JSON, everything needed to build
it and trust it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from unmixer_core import config
from unmixer_core.errors import SchemaMismatch, StageError
from unmixer_core.features.frames import FeatureSpec
from unmixer_core.model.unmixer import Unmixer
from unmixer_core.schema.rack import RACK
from unmixer_core.system import files
from unmixer_core.system.json_types import Json, JsonView

REBUILD = "dvc repro train_dry train_fx train_full"


@dataclass(frozen=True)
class Checkpoint:
    """A model, the settings it was built with, and the record that its training left."""

    model: Unmixer
    settings: config.Model
    about: Json


def save(folder: Path, model: Unmixer, settings: config.Model, about: JsonView) -> None:
    """Write model.safetensors (weights and feature normalisation) and model.json."""
    weights = {
        name: value.detach().contiguous().cpu() for name, value in model.state_dict().items()
    }
    with files.replacing(folder / "model.safetensors") as temporary:
        save_file(weights, temporary)
    document = {
        "schema": RACK.digest,
        "features": asdict(model.spec),
        "model": settings.model_dump(),
        "about": dict(about),
    }
    text = json.dumps(document, indent=1, sort_keys=True)
    files.write_text(folder / "model.json", text + "\n")


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
    try:
        # A model file written before the key `stops` existed has no atoms.
        settings = config.Model(**({"stops": False} | document["model"]))
        model = Unmixer(FeatureSpec(**document["features"]), settings)
        model.load_state_dict(weights)
    # RuntimeError: load_state_dict found other names or shapes; its message lists every parameter.
    except (RuntimeError, ValidationError) as error:
        raise StageError(
            f"the model in {folder} is of another version of this code; run `{REBUILD}`."
        ) from error
    return Checkpoint(model.to(device).eval(), settings, document["about"])
