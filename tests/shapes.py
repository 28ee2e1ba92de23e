"""Shapes checked while tests run: a tensor that is not what an annotation says is an error."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped

from unmixer_core import ddsp, dsp

typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float
PACKAGES = (dsp, ddsp)


def modules_of(package: ModuleType) -> list[ModuleType]:
    """A package and its modules."""
    names = [found.name for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")]
    return [package, *(importlib.import_module(name) for name in names)]


def checked(modules: list[ModuleType]) -> list[tuple[ModuleType, str, Callable[..., Any]]]:
    """Every name in these modules that is a function of dsp or ddsp, and that function with its
    shapes checked.
    """
    ours = tuple(f"{package.__name__}." for package in PACKAGES)
    return [
        (module, name, jaxtyped(value, typechecker=typechecker))
        for module in modules
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__.startswith(ours)
    ]


MODULES = [module for package in PACKAGES for module in modules_of(package)]
CHECKED = checked(MODULES)
