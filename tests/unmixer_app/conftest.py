"""One service for all tests that talk to one; tests/conftest.py keeps them in one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unmixer_app.serving import Server, live, models, served


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Iterator[Server]:
    with (
        live() as environ,
        served(tmp_path_factory.mktemp("service") / "data", model_folder, **environ) as running,
    ):
        yield running


@pytest.fixture(scope="session")
def answered(server: Server) -> str:
    """A job with an answer of three effects."""
    identity = server.unmix(name="pluck.wav", chain="Saturator>Delay>Reverb")
    assert server.ended(identity)["state"] == "done"
    return identity
