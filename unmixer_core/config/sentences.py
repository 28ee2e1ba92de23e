"""What pydantic finds wrong, in words a person can act on.

`loss.lambda_s = 'a lot' is not allowed, it must be a number ≥ 0.0`
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel, ValidationError


def sentences(error: ValidationError, root: type[BaseModel]) -> Iterator[str]:
    """One phrase per mistake: dotted name, value, what is allowed."""
    for found in error.errors():
        path = [str(part) for part in found["loc"]]
        dotted, value = ".".join(path), found["input"]
        if found["type"] == "extra_forbidden":
            yield (
                f"{dotted} = {_shown(value)} is an unknown key, allowed here: {_known(root, path)}"
            )
        elif found["type"] == "missing":
            yield f"{dotted} is missing, it must be {_allowed(_annotation(root, path))}"
        elif found["type"] == "value_error":
            # Our own validators begin their sentence with the field's name.
            yield f"{dotted}.{found['msg'].removeprefix('Value error, ')}"
        else:
            yield (
                f"{dotted} = {_shown(value)} is not allowed, it must be "
                f"{_allowed(_annotation(root, path))}"
            )


def _shown(value: object) -> str:
    text = repr(list(value)) if isinstance(value, tuple) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _known(root: type[BaseModel], path: list[str]) -> str:
    owner = _annotation(root, path[:-1])
    names = (
        list(owner.model_fields) if isinstance(owner, type) and issubclass(owner, BaseModel) else []
    )
    close = difflib.get_close_matches(path[-1], names, n=1)
    return ", ".join(names) + (f" (did you mean {close[0]}?)" if close else "")


def _annotation(root: type[BaseModel], path: list[str]) -> Any:
    """The declared type at a dotted path, with its range.

    An index into a list gives the item's type.
    """
    kind: Any = root
    for part in path:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields[part]
            kind = (
                Annotated[(field.annotation, *field.metadata)]
                if field.metadata
                else field.annotation
            )
        else:
            arguments = typing.get_args(_plain(kind))
            kind = arguments[min(int(part), len(arguments) - 1) if Ellipsis not in arguments else 0]
    return kind


def _plain(kind: Any) -> Any:
    return typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_SIGNS = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}


def _allowed(kind: Any) -> str:
    """A type and its range in words: "a number ≥ 0.0 and ≤ 1.0"."""
    plain, marks = (
        _plain(kind),
        typing.get_args(kind)[1:] if typing.get_origin(kind) is Annotated else (),
    )
    limits = [(_SIGNS[type(mark)], mark) for mark in marks if type(mark) in _SIGNS]
    bounds = [f"{sign} {getattr(mark, name)}" for (name, sign), mark in limits]
    bounds += [f"at least {mark.min_length} items" for mark in marks if isinstance(mark, MinLen)]
    bounds += [f"at most {mark.max_length} items" for mark in marks if isinstance(mark, MaxLen)]
    return f"{_noun(plain)} {' and '.join(bounds)}".strip()


def _noun(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        return f"a list of ({_allowed(arguments[0])})"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(
            "nothing (null)" if item is type(None) else _allowed(item) for item in arguments
        )
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "a section with " + ", ".join(kind.model_fields)
    return _WORDS.get(kind, str(kind))
