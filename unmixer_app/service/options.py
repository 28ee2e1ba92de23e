"""The options of a job, as the store holds them, and the `Request` made from them."""

from __future__ import annotations

from pathlib import Path

from unmixer_app.answer.request import Request
from unmixer_core import config
from unmixer_core.errors import ConfigError
from unmixer_core.inference.constraints import Constraints
from unmixer_core.system.json_types import JsonView


def constraints(options: JsonView) -> Constraints:
    """`lock` (CONTROL=VALUE words) and `chain`. Raises ConfigError in words of the API."""
    try:
        return Constraints.parse(options.get("lock") or (), options.get("chain"))
    except ConfigError as error:
        raise ConfigError(str(error).replace("--", "")) from None


def request(options: JsonView, params: config.Params, model: Path | None = None) -> Request:
    """Options that were not given are as params.yaml says. Raises ConfigError."""
    return Request(
        note=options.get("note"),
        gate_s=options.get("gate_s"),
        candidates=options.get("candidates"),
        itf_steps=options.get("itf_steps"),
        itf=options.get("itf", True),
        fast=options.get("fast", False),
        polish_s=options.get("polish_s"),
        constraints=constraints(options),
        push=False,
        json=False,
        model=model,
        params=params,
    )
