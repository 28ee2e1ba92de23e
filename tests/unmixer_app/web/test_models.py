"""Which network and proxy a search takes.

The one that ships with the project, or a local one where it is asked for.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from unmixer_app.answer import resources as answer_resources
from unmixer_core.errors import ConfigError


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """models/ as it is cloned: what ships, and nothing else."""
    place(tmp_path / "pretrained", tmp_path / "pretrained" / "proxy")
    return tmp_path


def place(network: Path, proxy: Path) -> None:
    for folder, name in ((network, "model.json"), (proxy, "proxy.json")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")


def test_a_fresh_clone_uses_what_ships(models: Path):
    assert answer_resources.find_models(models=models) == (
        models / "pretrained",
        models / "pretrained" / "proxy",
    )


def test_what_was_trained_here_is_used_only_where_it_is_asked_for(models: Path):
    place(models / "full", models / "proxy")
    assert answer_resources.find_models(models=models)[0] == models / "pretrained"
    assert answer_resources.find_models(models / "full", models) == (
        models / "full",
        models / "proxy",
    )
    assert answer_resources.service_model(models) == models / "full"
    assert answer_resources.service_model(models / "pretrained") == models / "pretrained"


@pytest.mark.parametrize("missing", ["full/model.json", "proxy/proxy.json"])
def test_half_a_training_is_not_used(models: Path, missing: str):
    place(models / "full", models / "proxy")
    (models / missing).unlink()
    assert answer_resources.service_model(models) == models / "pretrained"


def test_the_answer_names_its_model(models: Path):
    (models / "pretrained" / "model.safetensors").write_bytes(b"weights")
    named = answer_resources.model_identity(models / "pretrained")
    assert named["origin"] == "local" and named["folder"].endswith("/pretrained")
    assert named["folder"].count("/") == 1 and named["sha256"][
        :12
    ] in answer_resources.model_sentence(named)
    assert answer_resources.model_identity(None)["origin"] == "shipped"


def test_a_folder_that_is_named_is_the_only_one(models: Path, tmp_path: Path):
    place(tmp_path / "mine" / "full", tmp_path / "mine" / "proxy")
    assert answer_resources.find_models(tmp_path / "mine" / "full", models) == (
        tmp_path / "mine" / "full",
        tmp_path / "mine" / "proxy",
    )
    with pytest.raises(ConfigError, match=r"no trained model in .+other; run `make repro`"):
        answer_resources.find_models(tmp_path / "other", models)


def test_without_any_model_it_says_where_it_looked(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"pretrained; run `make repro` to train one\.$"):
        answer_resources.find_models(models=tmp_path)
