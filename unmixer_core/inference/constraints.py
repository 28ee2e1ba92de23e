"""Constraints of a search: locked controls (`--lock`) and the effect chain (`--chain`).

    settings = ["wavetable.filter_1_type=Lowpass", "saturator.drive=12"]
    Constraints.parse(settings, "Saturator > Reverb")

Knobs are in physical units (as in patch.json), choices have Live's item names.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from unmixer_core.errors import ConfigError
from unmixer_core.schema import chain as chains
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK


@dataclass(frozen=True)
class Constraints:
    """Locked controls and the chain.

    `values`: control id → unit value of a knob or item name of a choice. `chain`: effect names in
    order, None = free.
    """

    values: dict[str, float | str] = field(default_factory=dict)
    chain: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, locks: Sequence[str] = (), chain: str | None = None) -> Constraints:
        """Read the values of the command line. Raises ConfigError that names what is allowed."""
        return cls(dict(_lock(text) for text in locks), None if chain is None else _chain(chain))

    @property
    def knobs(self) -> NDArray[np.bool_]:
        """Mask [K] of the locked knobs."""
        return np.array([ref.id in self.values for ref in RACK.knobs])

    @property
    def choices(self) -> NDArray[np.bool_]:
        """Mask [C] of the locked choices."""
        return np.array([ref.id in self.values for ref in RACK.choices])

    @property
    def any(self) -> bool:
        """Whether there is a constraint."""
        return bool(self.values) or self.chain is not None

    def apply(self, patch: Patch) -> Patch:
        """The patch with the locked controls and the chain."""
        chain = patch.chain if self.chain is None else chains.encode(self.chain)
        return replace(patch, chain=chain).with_values(self.values)


def _lock(text: str) -> tuple[str, float | str]:
    key, sign, value = (part.strip() for part in text.partition("="))
    if not sign or not value:
        raise ConfigError(
            f"--lock {text!r}: expected CONTROL=VALUE, such as wavetable.filter_1_type=Lowpass."
        )
    if key in RACK.choice_index:
        return key, _item(key, value)
    if key in RACK.knob_index:
        return key, _unit(key, value)
    close = difflib.get_close_matches(key, [*RACK.choice_index, *RACK.knob_index], n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise ConfigError(f"--lock: there is no control {key!r}.{hint}")


def _item(key: str, value: str) -> str:
    items = RACK.choices[RACK.choice_index[key]].choice.items
    for item in items:
        if item.lower() == value.lower():
            return item
    raise ConfigError(f"--lock: {key} has no item {value!r}; it has {', '.join(items)}.")


def _unit(key: str, value: str) -> float:
    knob = RACK.knobs[RACK.knob_index[key]].knob
    low, high = sorted((float(knob.to_physical(0.0)), float(knob.to_physical(1.0))))
    try:
        physical = float(value)
        unit = float(knob.from_physical(physical)) if low <= physical <= high else -1.0
    except (ValueError, OverflowError):
        unit = -1.0
    if not 0.0 <= unit <= 1.0 and not (abs(unit) < 1e-6 or abs(unit - 1.0) < 1e-6):
        raise ConfigError(
            f"--lock: {key} must be a number from {low:.4g} to {high:.4g} {knob.unit}, but got "
            f"{value!r}."
        )
    return float(np.float32(min(max(unit, 0.0), 1.0)))


def _chain(text: str) -> tuple[str, ...]:
    names = [part.strip() for part in text.replace("→", ">").split(">")]
    names = [] if names in ([""], ["none"]) else names
    known = {n.lower(): n for n in RACK.effect_names} | dict(
        zip(RACK.effect_keys, RACK.effect_names, strict=True)
    )
    for word in names:
        if word.lower() not in known:
            raise ConfigError(
                f"--chain: there is no effect {word!r}; there are {', '.join(RACK.effect_names)}, "
                f"or none."
            )
    found = tuple(known[word.lower()] for word in names)
    if len(set(found)) != len(found):
        raise ConfigError(f"--chain: an effect may occur once, but got {' > '.join(found)}.")
    return found
