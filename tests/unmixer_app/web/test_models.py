"""Which network and proxy a search takes.

The one trained here, else the one that ships with the project.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from unmixer_app.answer import tools
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
    assert tools.find_models(models=models) == (
        models / "pretrained",
        models / "pretrained" / "proxy",
    )


def test_what_was_trained_here_comes_first_and_brings_its_own_proxy(models: Path):
    place(models / "full", models / "proxy")
    assert tools.find_models(models=models) == (models / "full", models / "proxy")


@pytest.mark.parametrize("missing", ["full/model.json", "proxy/proxy.json"])
def test_half_a_training_is_not_used(models: Path, missing: str):
    place(models / "full", models / "proxy")
    (models / missing).unlink()
    assert tools.find_models(models=models)[0] == models / "pretrained"


def test_a_folder_that_is_named_is_the_only_one(models: Path, tmp_path: Path):
    place(tmp_path / "mine" / "full", tmp_path / "mine" / "proxy")
    assert tools.find_models(tmp_path / "mine" / "full", models) == (
        tmp_path / "mine" / "full",
        tmp_path / "mine" / "proxy",
    )
    with pytest.raises(ConfigError, match=r"no trained model in .+other; run `make repro`"):
        tools.find_models(tmp_path / "other", models)


def test_the_shipped_weights_answer_unless_another_model_is_asked_for(
    models: Path, monkeypatch: pytest.MonkeyPatch
):
    place(models / "full", models / "proxy")
    monkeypatch.setattr(tools, "SHIPPED", models / "pretrained")
    monkeypatch.setattr(tools, "ROOT", models.parent)
    models.rename(models.parent / "models")
    here = models.parent / "models"
    monkeypatch.setattr(tools, "SHIPPED", here / "pretrained")
    assert tools.find_models()[0] == here / "pretrained"
    assert tools.find_models(Path("local")) == (here / "full", here / "proxy")


def test_a_service_may_be_given_the_models_folder_itself(models: Path):
    assert tools.find_models(models=models / "pretrained")[0] == models / "pretrained"


def test_the_card_names_the_weights(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    card = tools.model_card(tmp_path)
    assert card["kind"] == "local" and card["sha256"].startswith("ba7816bf8f01")
    assert "local weights" in tools.model_sentence(card) and str(tmp_path) in card["folder"]
    assert tools.model_card(tools.SHIPPED)["kind"] == "shipped"


def test_without_any_model_it_says_where_it_looked(tmp_path: Path):
    with pytest.raises(
        ConfigError, match=r"full or .+pretrained; run `make repro` to train one\.$"
    ):
        tools.find_models(models=tmp_path)
