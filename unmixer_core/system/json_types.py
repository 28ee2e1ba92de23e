"""What JSON gives: the one place where a value may be anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

#: A JSON object that may be changed, and one that is only read.
Json: TypeAlias = dict[str, Any]
JsonView: TypeAlias = Mapping[str, Any]
