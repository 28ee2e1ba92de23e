from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.model import tiny
from unmixer_core.errors import SchemaMismatch, StageError
from unmixer_core.model import checkpoint
from unmixer_core.model.unmixer import context_of
from unmixer_core.schema.rack import RACK


@pytest.mark.parametrize("manifold", ["poincare", "euclidean"])
def test_a_saved_model_answers_as_before(tmp_path: Path, manifold: str) -> None:
    settings = tiny.section(tiny.MODEL, manifold=manifold)
    model = tiny.model(manifold=manifold).eval()
    checkpoint.save(tmp_path, model, settings, {"phase": "dry"})
    loaded = checkpoint.load(tmp_path)
    x, targets = tiny.batch()
    one, two = (m(x, targets.note, targets.gate_s) for m in (model, loaded.model))
    assert torch.equal(one.vector, two.vector)
    assert torch.equal(
        model.chain_log_probs(one, targets.chain), loaded.model.chain_log_probs(two, targets.chain)
    )
    assert loaded.about == {"phase": "dry"} and loaded.model.spec == tiny.SPEC
    assert json.loads((tmp_path / "model.json").read_text())["schema"] == RACK.digest


def test_a_model_from_before_there_were_atoms_is_read_without_them(tmp_path: Path) -> None:
    model = tiny.model(stops=False)
    checkpoint.save(tmp_path, model, tiny.section(tiny.MODEL, stops=False), {})
    document = json.loads((tmp_path / "model.json").read_text())
    del document["model"]["stops"]
    (tmp_path / "model.json").write_text(json.dumps(document))
    loaded = checkpoint.load(tmp_path).model
    x, targets = tiny.batch(2)
    belief = loaded(x, targets.note, targets.gate_s)
    assert all(mixture.stops is None for mixture in loaded.mixtures(belief, context_of(targets)))


def test_another_schema_is_refused_with_both_digests(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, tiny.model(), tiny.section(tiny.MODEL), {})
    document = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(document | {"schema": "0123abcd"}))
    with pytest.raises(SchemaMismatch, match=f"0123abcd.*{RACK.digest}.*dvc repro"):
        checkpoint.load(tmp_path)


def test_missing_and_torn_models_are_refused_with_the_command_to_run(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no model in .*dvc repro"):
        checkpoint.load(tmp_path)
    checkpoint.save(tmp_path, tiny.model(), tiny.section(tiny.MODEL), {})
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(StageError, match="cannot be read"):
        checkpoint.load(tmp_path)


def test_a_model_of_an_older_version_is_refused_in_one_sentence(tmp_path: Path) -> None:
    model = tiny.model()
    checkpoint.save(tmp_path, model, tiny.section(tiny.MODEL), {})
    renamed = {f"renamed.{name}": value.contiguous() for name, value in model.state_dict().items()}
    save_file(renamed, tmp_path / "model.safetensors")
    with pytest.raises(StageError, match="another version of this code; run `dvc repro"):
        checkpoint.load(tmp_path)
