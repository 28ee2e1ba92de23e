"""The ordered list of every learned knob and choice of Wavetable and the effects.

It also says which of them are audible in a patch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from unmixer_core.errors import StageError
from unmixer_core.schema.devices import CLASS_NAMES, EFFECTS, TABLES, WAVETABLE, Device
from unmixer_core.schema.knob import Choice, Condition, Knob

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.integer]
#: A modulation amount this close to zero (in unit, around 0.5) is inaudible.
SILENT_AMOUNT = 0.02


@dataclass(frozen=True)
class KnobRef:
    """A knob at its place in the list: `id` is "wavetable.osc_1_pos".

    `device` is 0 for Wavetable and effect id + 1 for an effect.
    """

    id: str
    device: int
    knob: Knob


@dataclass(frozen=True)
class ChoiceRef:
    """A choice at its place in the list."""

    id: str
    device: int
    choice: Choice


@dataclass(frozen=True)
class _Gate:
    """Conditions as arrays: control i is audible while choice columns[i] is an allowed item."""

    controls: IntArray
    columns: IntArray
    allowed: BoolArray


class Rack:
    """All learned controls in order. Shapes below: K = n_knobs, C = n_choices."""

    def __init__(self, synth: Device, effects: tuple[Device, ...]) -> None:
        self.synth = synth
        self.effects = effects
        self.devices = (synth, *effects)
        self._check_tables()
        self.knobs = [
            KnobRef(f"{d.key}.{k.key}", i, k) for i, d in enumerate(self.devices) for k in d.knobs
        ]
        self.choices = [
            ChoiceRef(f"{d.key}.{c.key}", i, c)
            for i, d in enumerate(self.devices)
            for c in d.choices
        ]
        self.knob_index = {ref.id: i for i, ref in enumerate(self.knobs)}
        self.choice_index = {ref.id: i for i, ref in enumerate(self.choices)}
        self.device_of_knob = np.array([ref.device for ref in self.knobs])
        self.device_of_choice = np.array([ref.device for ref in self.choices])
        self.effect_names = tuple(d.name for d in effects)
        self.effect_keys = tuple(d.key for d in effects)
        self.sizes = tuple(len(ref.choice.items) for ref in self.choices)
        self.knob_defaults = np.array([ref.knob.default for ref in self.knobs], dtype=np.float32)
        self.choice_defaults = np.array(
            [ref.choice.default for ref in self.choices], dtype=np.int64
        )

    def _check_tables(self) -> None:
        for device in self.devices:
            if device.name not in TABLES or device.name not in CLASS_NAMES:
                raise StageError(
                    f'schema/tables.json has no parameter table for the device "{device.name}".'
                )

    @property
    def n_knobs(self) -> int:
        """Number of knobs of all devices, K."""
        return len(self.knobs)

    @property
    def n_choices(self) -> int:
        """Number of choices of all devices, C."""
        return len(self.choices)

    @cached_property
    def digest(self) -> str:
        """16 hex digits that change with any control, its range, its law or its place."""
        description = [
            [
                d.key,
                d.name,
                d.fixed,
                [[asdict(k), type(k.law).__name__] for k in d.knobs],
                [asdict(c) for c in d.choices],
            ]
            for d in self.devices
        ]
        return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]

    def devices_on(self, chain: IntArray) -> BoolArray:
        """Mask of the devices in a patch, Wavetable first.

        chain [..., MAX_EFFECTS] of effect ids (−1 = none) → bool [..., 1 + number of effects].
        """
        chain = np.asarray(chain)
        present = (chain[..., None] == np.arange(len(self.effects))).any(axis=-2)
        return np.concatenate([np.ones((*chain.shape[:-1], 1), dtype=bool), present], axis=-1)

    def active(
        self, choices: IntArray, chain: IntArray, knobs: NDArray[np.floating] | None = None
    ) -> tuple[BoolArray, BoolArray]:
        """Masks of the audible controls.

        choices [..., C] item indices, chain [..., MAX_EFFECTS] effect ids (−1 padded), knobs
        [..., K] unit or None → knob mask [..., K], choice mask [..., C]. Without `knobs`, an
        envelope or LFO counts as audible whatever its amounts are.
        """
        choices = np.asarray(choices)
        on = self.devices_on(chain)
        knob_mask = on[..., self.device_of_knob]
        choice_mask = on[..., self.device_of_choice]
        for mask, gates in ((knob_mask, self._knob_gates), (choice_mask, self._choice_gates)):
            for gate in gates:
                mask[..., gate.controls] &= gate.allowed[
                    np.arange(len(gate.controls)), choices[..., gate.columns]
                ]
        if knobs is not None:
            self._silence_unmodulated(knob_mask, np.asarray(knobs))
        return knob_mask, choice_mask

    def _silence_unmodulated(self, knob_mask: BoolArray, knobs: NDArray[np.floating]) -> None:
        for i in range(self.n_knobs):
            if amounts := self._amounts[i]:
                moved = np.abs(knobs[..., amounts] - 0.5) > SILENT_AMOUNT
                knob_mask[..., i] &= (moved & knob_mask[..., amounts]).any(axis=-1)

    @cached_property
    def _amounts(self) -> list[list[int]]:
        """Per knob, the columns of the amounts that make it audible."""
        return [
            [
                self.knob_index[f"{self.devices[ref.device].key}.{key}"]
                for key in ref.knob.modulated_by
            ]
            for ref in self.knobs
        ]

    @cached_property
    def _knob_gates(self) -> list[_Gate]:
        return self._gates([(ref.device, ref.knob.when) for ref in self.knobs])

    @cached_property
    def _choice_gates(self) -> list[_Gate]:
        return self._gates([(ref.device, ref.choice.when) for ref in self.choices])

    def _gates(self, conditions: list[tuple[int, tuple[Condition, ...]]]) -> list[_Gate]:
        """The n-th gate holds every control's n-th condition."""
        gates = []
        for depth in range(max(len(when) for _, when in conditions)):
            rows = [
                (i, device, when[depth])
                for i, (device, when) in enumerate(conditions)
                if len(when) > depth
            ]
            columns = [
                self.choice_index[f"{self.devices[device].key}.{condition.key}"]
                for _, device, condition in rows
            ]
            allowed = np.zeros((len(rows), max(self.sizes)), dtype=bool)
            for row, (_, _, condition) in enumerate(rows):
                allowed[row, list(condition.items)] = True
            gates.append(_Gate(np.array([i for i, _, _ in rows]), np.array(columns), allowed))
        return gates


RACK = Rack(WAVETABLE, EFFECTS)
