"""Parameter files: read, merged with a profile, checked, and rewritten with their comments kept."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import getitem
from pathlib import Path

from pydantic import ValidationError

from unmixer_core.config.contradictions import contradictions
from unmixer_core.config.sections import Params
from unmixer_core.config.sentences import sentences
from unmixer_core.config.yaml12 import read_yaml
from unmixer_core.errors import ConfigError
from unmixer_core.system import files
from unmixer_core.system.json_types import Json, JsonView


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check a parameter file.

    ConfigError if it is missing or no YAML, or a key or value is wrong.
    """
    return validate(read_yaml(path), source=str(path))


def load_profile(profile: str | Path, base: str | Path = "params.yaml") -> Params:
    """The parameters of `base` with the partial overrides of `profile` on top.

    Errors name the profile.
    """
    return validate(merge(read_yaml(base), read_yaml(profile)), source=str(profile))


def with_values(params: Params, values: JsonView) -> Params:
    """A checked copy: `with_values(params, {"loss.lambda_s": 0.5})`."""
    return validate(merge(params.model_dump(), nest(values)), source="with_values")


def validate(data: JsonView, *, source: str) -> Params:
    """Return the sections of plain nested data; `source` names the data in the error.

    Raises:
        ConfigError: a key or a value is wrong, or two values contradict each other.
    """
    try:
        params = Params.model_validate(_tuples(data))
    except ValidationError as error:
        raise ConfigError(f"{source}: {'; '.join(sentences(error, Params))}") from None
    wrong = list(contradictions(params))
    if wrong:
        raise ConfigError(f"{source}: {'; '.join(wrong)}")
    return params


def merge(base: JsonView, over: JsonView) -> Json:
    """`base` with the leaves of `over` on top; lists are replaced whole."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = (
            merge(below, value)
            if isinstance(below, Mapping) and isinstance(value, Mapping)
            else value
        )
    return merged


def nest(values: JsonView) -> Json:
    """{"a.b": 1} -> {"a": {"b": 1}}."""
    nested: Json = {}
    for dotted, value in values.items():
        for key in reversed(dotted.split(".")):
            value = {key: value}
        nested = merge(nested, value)
    return nested


def flatten(data: JsonView, prefix: str = "") -> Json:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: Json = {}
    for key, value in data.items():
        flat |= (
            flatten(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return flat


def _tuples(value: object) -> object:
    """The same nested data with tuples for lists."""
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_tuples(item) for item in value)
    return value


def apply_profile(profile: str | Path, params_path: str | Path = "params.yaml") -> Json:
    """Write a profile's overrides into a parameter file, its comments kept.

    Returns what changed, by dotted key.
    """
    load_profile(profile, params_path)
    from ruamel.yaml import YAML  # comes with DVC; keeps comments

    editor = YAML()
    editor.preserve_quotes, editor.width = True, 4096
    document = editor.load(Path(params_path).read_text(encoding="utf-8"))
    before, over = flatten(read_yaml(params_path)), flatten(read_yaml(profile))
    for dotted, value in over.items():
        *parents, last = dotted.split(".")
        reduce(getitem, parents, document)[last] = value
    with files.replacing(Path(params_path)) as temporary:
        editor.dump(document, temporary)
        load(temporary)
    return {key: value for key, value in over.items() if before.get(key) != value}
