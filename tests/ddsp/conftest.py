"""Shapes are checked while the tests of this folder run: a tensor that is not what an annotation says is an error."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped

from unmixer_core import ddsp

typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float


def modules_of(package: ModuleType) -> list[ModuleType]:
    """A package and its modules."""
    names = [found.name for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")]
    return [package, *(importlib.import_module(name) for name in names)]


def checked(modules: list[ModuleType]) -> list[tuple[ModuleType, str, Callable[..., Any]]]:
    """Every name in these modules that is one of ddsp's functions, and that function with its shapes checked."""
    return [
        (module, name, jaxtyped(value, typechecker=typechecker))
        for module in modules
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__.startswith(ddsp.__name__)
    ]


MODULES = modules_of(ddsp)
CHECKED = checked(MODULES)


@pytest.fixture(autouse=True)
def shapes_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the package's functions for the length of a test."""
    for module, name, function in CHECKED:
        monkeypatch.setattr(module, name, function)
