"""Parameters by name: drift of indices and classes, and what is missing named."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from unmixer_core.errors import ParameterMissing
from unmixer_core.live.resolve import DEVICE_ON, SINCE, accepted_classes, device_names, needed_parameters, table
from unmixer_core.schema.devices import Parameter
from unmixer_core.schema.rack import RACK

DEVICES = {device.name: device for device in RACK.devices}


def columns(device, drop=(), extra=()):
    rows = [("Extra", 0.0, 1.0)] * len(extra) + [
        (p.name, float(p.minimum), float(p.maximum)) for p in device.table if p.name not in drop
    ]
    return [list(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("device", RACK.devices, ids=lambda device: device.key)
def test_every_needed_parameter_is_found_where_it_is(device):
    found = table(device, device.class_name, *columns(device))
    assert needed_parameters(device) <= found.slots.keys()
    assert all(device.table[slot.index].name == name for name, slot in found.slots.items())


def test_six_more_parameters_shift_indices_and_nothing_else():
    delay = DEVICES["Delay"]
    found = table(delay, "Delay", *columns(delay, extra=range(6)))
    assert found.n_parameters == len(delay.table) + 6
    assert found.slots["Feedback"].index == 6 + [p.name for p in delay.table].index("Feedback")


def test_a_missing_parameter_is_named():
    reverb = DEVICES["Reverb"]
    with pytest.raises(ParameterMissing, match="Reverb .*'Decay Time'"):
        table(reverb, "Reverb", *columns(reverb, drop=("Decay Time",)))


def test_another_range_is_refused_rather_than_guessed_over():
    reverb = DEVICES["Reverb"]
    names, minima, maxima = columns(reverb)
    maxima[names.index("Decay Time")] = 60.0
    with pytest.raises(ParameterMissing, match="'Decay Time' runs from 0 to 60"):
        table(reverb, "Reverb", names, minima, maxima)


def test_auto_filter_2_takes_the_old_frequency_on_its_own_scale():
    device = DEVICES["Auto Filter"]
    names = [DEVICE_ON, "Frequency", "Resonance", "Type", "Slope", "Drive", "LFO Amount", "Env Amount"]
    minima, maxima = [0.0] * 8, [1.0, 1.0, 1.0, 9.0, 1.0, 1.0, 1.0, 1.0]
    assert "AutoFilter2" in accepted_classes(device) and device_names(["AutoFilter2", "Looper"]) == ("Auto Filter", "")
    try:
        found = table(device, "AutoFilter2", names, minima, maxima)
    except ParameterMissing as error:
        assert "Live 12.2 and later" in str(error)  # refused by name and range: never a guess
    else:
        assert found.slots["Frequency"].to_host(69.0) == pytest.approx(0.4475, abs=1e-3)  # 440 Hz on 20 Hz..20 kHz


def test_values_stay_inside_the_range_the_host_reports():
    slot = table(DEVICES["Saturator"], "Saturator", *columns(DEVICES["Saturator"])).slots["Drive"]
    assert slot.to_host(1.0 + 1e-9) <= slot.maximum and slot.to_host(-1e-9) >= slot.minimum


def test_a_parameter_that_was_renamed_in_place_is_found_under_both_names():
    drive = Parameter("Gain", 0.0, -1.0, 1.0, False)
    utility = SimpleNamespace(
        name="Utility", class_name="StereoGain", table=(Parameter(DEVICE_ON, 1.0, 0.0, 1.0, True), drive), knobs=(),
        choices=(), fixed={"Gain": 0.0},
    )  # fmt: skip
    for name in ("Gain", "Output"):
        found = table(utility, "StereoGain", [DEVICE_ON, "Other", name], [0.0, 0.0, -1.0], [1.0, 1.0, 1.0])
        assert found.slots["Gain"].index == 2


def test_all_that_is_missing_is_named_with_the_live_that_has_it():
    reverb = DEVICES["Reverb"]
    with pytest.raises(ParameterMissing, match="'Decay Time'.*Reverb of Live 12.0 has it.*Also missing: Predelay"):
        table(reverb, "Reverb", *columns(reverb, drop=("Decay Time", "Predelay")))
    assert set(SINCE) == set(DEVICES)
