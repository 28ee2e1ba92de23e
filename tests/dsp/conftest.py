"""Shapes are checked while the tests of this folder run."""

from __future__ import annotations

import pytest

from tests.shapes import CHECKED


@pytest.fixture(autouse=True)
def shapes_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the functions whose shapes are said for the length of a test."""
    for owner, name, function in CHECKED:
        monkeypatch.setattr(owner, name, function)
