"""Every public function says the shape of every tensor that it takes and gives, and is held to
it.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import AbstractArray, TypeCheckError

from tests.shapes import MODULES
from unmixer_core.dsp import delays, filters
from unmixer_core.system.json_types import Json, JsonView


def public(module: ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Functions, and methods of classes, that a module itself defines under a public name."""
    for name, value in vars(module).items():
        plain = inspect.unwrap(value) if callable(value) else value
        if name.startswith("_") or getattr(plain, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(plain):
            yield name, plain
        elif inspect.isclass(plain):
            yield name, plain
            methods = (
                m
                for m in vars(plain).values()
                if inspect.isfunction(m) and m.__qualname__.startswith(name)
            )
            yield from ((m.__qualname__, m) for m in methods if not m.__name__.startswith("_"))


PUBLIC = [
    pytest.param(function, id=f"{module.__name__.rpartition('.')[2]}.{name}")
    for module in MODULES
    for name, function in public(module)
]


def leaves(hint: object) -> Iterator[object]:
    """The types an annotation is made of.

    Those of a union, a tuple, a callable's arguments and result.
    """
    if typing.get_origin(hint) is np.ndarray:  # NumPy's shape is Any; this is about tensors
        return
    if hint in (Json, JsonView):  # what JSON gives holds no tensor
        return
    parts = hint if isinstance(hint, list) else typing.get_args(hint)
    if not parts:
        yield hint
    for part in parts:
        yield from leaves(part)


def shapeless(function: Callable[..., Any]) -> list[str]:
    """Arguments (or fields) and results that are tensors of any shape, or of which nothing is
    said.
    """
    hints = typing.get_type_hints(function)
    names = list(inspect.get_annotations(function))  # a class's own, not those of nn.Module
    if inspect.isfunction(function):
        names = [name for name in inspect.signature(function).parameters if name != "self"] + [
            "return"
        ]
    return [name for name in names if not any_shape_said(hints.get(name, torch.Tensor))]


def any_shape_said(hint: object) -> bool:
    return torch.Tensor not in list(leaves(hint)) and typing.Any not in list(leaves(hint))


def test_the_whole_package_is_looked_at() -> None:
    names = {case.id for case in PUBLIC}
    assert len(MODULES) == 51 and len(names) > 100
    assert {
        "core.midi_to_hz",
        "spectral.mel_bank",
        "fft.Circle",
        "fft.Circle.frequencies_hz",
    } <= names


@pytest.mark.parametrize("function", PUBLIC)
def test_every_tensor_has_a_shape(function: Callable[..., Any]) -> None:
    missing = shapeless(function)
    assert not missing, (
        f"{function.__qualname__}: give {', '.join(missing)} a shape, as in Float[Tensor, 'batch "
        f"time']"
    )
    assert inspect.getdoc(function)


def test_a_function_without_shapes_is_found() -> None:
    def bare(
        audio: torch.Tensor, rate: float, more: tuple[torch.Tensor, ...], other=None
    ) -> torch.Tensor: ...

    assert shapeless(bare) == ["audio", "more", "other", "return"]
    assert issubclass(typing.get_type_hints(filters.bell_response)["return"], AbstractArray)


def test_another_shape_than_the_annotation_s_is_refused() -> None:
    audio, one = torch.zeros(2, 2, 64), torch.ones(2)
    settings = (0.01 * one, 0.5 * one, 100.0 * one, 1000.0 * one, 0.0 * one)
    assert delays.feedback_delay(audio, *settings, sample_rate=8000).shape == audio.shape
    with pytest.raises(TypeCheckError, match="audio"):
        delays.feedback_delay(audio[0], *settings, sample_rate=8000)
