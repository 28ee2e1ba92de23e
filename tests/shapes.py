"""Shapes checked while tests run: a tensor that is not what an annotation says is an error."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped

from unmixer_core import ddsp, dsp, model, proxy, training

typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float
PACKAGES = (dsp, ddsp, model, proxy, training)
PREFIXES = tuple(f"{package.__name__}." for package in PACKAGES)

#: A module or class, the name of a function in it, and that function with its shapes checked.
Checked = tuple[ModuleType | type, str, Callable[..., Any]]


def modules_of(package: ModuleType) -> list[ModuleType]:
    """A package and its modules, those of its packages included."""
    prefix = f"{package.__name__}."
    names = [module.name for module in pkgutil.walk_packages(package.__path__, prefix)]
    return [package, *(importlib.import_module(name) for name in names)]


def checked(modules: list[ModuleType]) -> list[Checked]:
    """Every name in these modules that is a function or class of ours, its functions checked."""
    replaced: list[Checked] = []
    for module in modules:
        for name, value in vars(module).items():
            if inspect.isfunction(value) and value.__module__.startswith(PREFIXES):
                replaced.append((module, name, jaxtyped(value, typechecker=typechecker)))
            elif inspect.isclass(value) and value.__module__ == module.__name__:
                replaced.extend(checked_methods(value))
    return replaced


def checked_methods(owner: type) -> Iterator[Checked]:
    """The methods that a class defines itself."""
    if getattr(owner, "_is_protocol", False):
        return
    for name, value in vars(owner).items():
        if inspect.isfunction(value) and value.__module__ == owner.__module__:
            yield owner, name, jaxtyped(value, typechecker=typechecker)


MODULES = [module for package in PACKAGES for module in modules_of(package)]
CHECKED = checked(MODULES)
