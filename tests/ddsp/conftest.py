"""Shapes are checked while the tests of this folder run."""

from __future__ import annotations

import pytest

from tests.shapes import CHECKED


@pytest.fixture(autouse=True)
def shapes_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the functions of dsp and ddsp for the length of a test."""
    for module, name, function in CHECKED:
        monkeypatch.setattr(module, name, function)
