"""Units and laws: every knob's three faces agree, for floats, arrays and tensors alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from unmixer_core.schema.devices import CLASS_NAMES, TABLES
from unmixer_core.schema.rack import RACK

KNOBS = [pytest.param(ref.knob, id=ref.id) for ref in RACK.knobs]
DEVICES_JSON = Path(__file__).resolve().parents[2] / "../shared/live/devices.json"


@pytest.mark.parametrize("knob", KNOBS)
def test_unit_to_physical_round_trips_at_both_ends_and_between(knob):
    for unit in (0.0, 0.25, 0.5, 1.0):
        step = 0.5 / (knob.raw_high - knob.raw_low) if knob.integer else 1e-6
        assert abs(knob.from_physical(knob.to_physical(unit)) - unit) <= step


@pytest.mark.parametrize("knob", KNOBS)
def test_float_array_and_tensor_give_the_same_physical_value(knob):
    units = np.array([0.0, 0.5, 1.0])
    array = knob.to_physical(units)
    tensor = knob.to_physical(torch.tensor(units))
    assert np.allclose(array, [knob.to_physical(float(u)) for u in units])
    assert np.allclose(array, tensor.numpy())


@pytest.mark.parametrize("knob", KNOBS)
def test_gradient_through_the_law_is_finite_and_points_up(knob):
    unit = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64, requires_grad=True)
    knob.to_physical(unit).sum().backward()
    assert torch.isfinite(unit.grad).all() and (unit.grad > 0).all()


@pytest.mark.parametrize("knob", KNOBS)
def test_learned_range_lies_inside_lives_range(knob):
    if knob.address.kind == "modulation":
        assert (knob.raw_low, knob.raw_high) == (-1.0, 1.0)
        return
    device = next(d for d in RACK.devices if knob in d.knobs)
    parameter = next(p for p in device.table if p.name == knob.address.name)
    assert parameter.minimum <= knob.raw_low < knob.raw_high <= parameter.maximum


def test_choices_and_fixed_values_exist_in_lives_tables():
    for device in RACK.devices:
        table = {p.name: p for p in device.table}
        for name, raw in device.fixed.items():
            assert table[name].minimum <= raw <= table[name].maximum
        for choice in device.choices:
            assert len(choice.items) == len(choice.raws) == len(set(choice.items))
            if choice.address.kind == "parameter":
                assert (
                    table[choice.address.name].minimum
                    <= min(choice.raws)
                    <= max(choice.raws)
                    <= table[choice.address.name].maximum
                )


@pytest.mark.parametrize(
    ("knob_id", "raw", "physical"),
    [
        ("wavetable.amp_attack", 0.0840896, 0.001),
        ("wavetable.amp_decay", 0.415927, 0.6),
        ("wavetable.lfo_1_rate", 0.320789, 1.0),
        ("compressor.attack", 0.4, 1.0),
        ("compressor.ratio", 0.75, 4.0),
        ("compressor.threshold", 0.85, 0.0),
        ("phaser_flanger.center_freq", 0.476824, 1000.0),
        ("phaser_flanger.flange_time", 0.607528, 2.5),
        ("phaser_flanger.mod_freq", 0.361191, 0.2),
        ("delay.l_time", 0.595385, 0.375),
        ("wavetable.filter_1_freq", 1.0, 20480.0),
    ],
)
def test_laws_agree_with_factory_presets_of_live(knob_id, raw, physical):
    law = RACK.knobs[RACK.knob_index[knob_id]].knob.law
    assert law.to_physical(raw) == pytest.approx(physical, rel=1e-4, abs=1e-6)


@pytest.mark.skipif(not DEVICES_JSON.exists(), reason="../shared/live/devices.json is not here")
def test_parameter_tables_equal_the_dump_of_real_live():
    dump = json.loads(DEVICES_JSON.read_text())
    for name, table in TABLES.items():
        assert CLASS_NAMES[name] == dump[name]["class_name"]
        rows = [(p["name"], p["value"], p["min"], p["max"]) for p in dump[name]["parameters"]]
        assert [(p.name, p.default, p.minimum, p.maximum) for p in table] == rows


def test_ids_are_unique_and_widths_follow_the_list():
    assert (
        len(set(RACK.knob_index)) == RACK.n_knobs and len(set(RACK.choice_index)) == RACK.n_choices
    )
    assert RACK.n_knobs == sum(len(d.knobs) for d in RACK.devices) and len(RACK.effects) == 8
    assert ((RACK.knob_defaults >= 0) & (RACK.knob_defaults <= 1)).all()
