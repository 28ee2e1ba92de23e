"""Parameters by name: drift of indices and classes, and what is missing named."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from unmixer_core.errors import HostError, ParameterMissing
from unmixer_core.live.track.names import (
    DEVICE_ON,
    DRIFT,
    SINCE,
    TABLE_FROM,
    accepted_classes,
    needed_parameters,
    table,
)
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


AUTO_FILTER_2 = {
    DEVICE_ON: (0.0, 1.0),
    "Frequency": (0.0, 1.0),
    "Resonance": (0.0, 1.0),
    "Morph": (0.0, 1.0),
    "Type": (0.0, 9.0),
    "Slope": (0.0, 1.0),
    "Circuit": (0.0, 3.0),
    "Drive": (0.0, 1.0),
    "LFO Amount": (0.0, 1.0),
    "Env Amount": (-1.0, 1.0),
    "Dry/Wet": (0.0, 1.0),
}


def auto_filter_2(**ranges):
    """Its table, with other ranges for some names."""
    rows = AUTO_FILTER_2 | {name.replace("_", " "): span for name, span in ranges.items()}
    return table(
        DEVICES["Auto Filter"], "AutoFilter2", list(rows), *zip(*rows.values(), strict=True)
    )


def test_auto_filter_2_takes_every_value_on_its_own_scale():
    device = DEVICES["Auto Filter"]
    assert "AutoFilter2" in accepted_classes(device)
    found = auto_filter_2()
    assert (
        needed_parameters(device) - {"Filter Circuit - LP/HP", "Filter Circuit - BP/NO/Morph"}
        <= found.slots.keys()
    )
    assert found.slots["Frequency"].to_host(69.0) == pytest.approx(
        0.4475, abs=1e-3
    )  # 440 Hz on 20 Hz..20 kHz
    assert found.slots["Drive"].to_host(12.0) == pytest.approx(0.5)
    assert found.slots["Resonance"].to_host(0.8) == pytest.approx(0.8)
    assert [found.slots["Filter Type"].to_host(float(i)) for i in range(4)] == [0.0, 1.0, 2.0, 3.0]
    assert (
        found.slots["LFO Amount"].to_host(0.0) == found.slots["Env. Modulation"].to_host(0.0) == 0.0
    )
    assert {found.names[i]: value for i, value in found.neutral.items()} == {
        "Circuit": 0.0,
        "Dry/Wet": 1.0,
    }


def test_other_scales_of_auto_filter_2_are_converted_or_refused():
    assert auto_filter_2(Frequency=(20.0, 20000.0)).slots["Frequency"].to_host(
        69.0
    ) == pytest.approx(440.0, rel=1e-5)
    assert auto_filter_2(Frequency=(20.0, 135.0), Drive=(0.0, 24.0)).slots["Drive"].to_host(
        12.0
    ) == pytest.approx(12.0)
    assert (
        auto_filter_2(LFO_Amount=(-30.0, 30.0), Env_Amount=(-127.0, 127.0))
        .slots["LFO Amount"]
        .to_host(0.0)
        == 0.0
    )
    for ranges in (
        {"Resonance": (0.0, 2.0)},
        {"Type": (0.0, 11.0)},
        {"Slope": (0.0, 3.0)},
        {"Drive": (-24.0, 24.0)},
    ):
        with pytest.raises(ParameterMissing, match="runs from .*Live 12.2 and later"):
            auto_filter_2(**ranges)
    with pytest.raises(
        ParameterMissing, match="'Env Amount' runs from 0 to 1"
    ):  # its middle may be 0.5: not off at 0
        auto_filter_2(Env_Amount=(0.0, 1.0))


def test_a_resonance_beyond_the_new_scale_is_refused_and_not_clamped():
    with pytest.raises(
        HostError, match="Auto Filter's Resonance should become 1.2, but runs from 0 to 1"
    ):
        auto_filter_2().slots["Resonance"].to_host(1.2)
    assert auto_filter_2(Resonance=(0.0, 1.25)).slots["Resonance"].to_host(1.2) == pytest.approx(
        1.2
    )


def test_values_stay_inside_the_range_the_host_reports():
    slot = table(DEVICES["Saturator"], "Saturator", *columns(DEVICES["Saturator"])).slots["Drive"]
    assert slot.to_host(1.0 + 1e-9) <= slot.maximum and slot.to_host(-1e-9) >= slot.minimum


def test_a_parameter_that_was_renamed_in_place_is_found_under_both_names():
    drive = Parameter("Gain", 0.0, -1.0, 1.0, False)
    utility = SimpleNamespace(
        name="Utility",
        class_name="StereoGain",
        table=(Parameter(DEVICE_ON, 1.0, 0.0, 1.0, True), drive),
        knobs=(),
        choices=(),
        fixed={"Gain": 0.0},
    )
    for name in ("Gain", "Output"):
        found = table(
            utility, "StereoGain", [DEVICE_ON, "Other", name], [0.0, 0.0, -1.0], [1.0, 1.0, 1.0]
        )
        assert found.slots["Gain"].index == 2


def test_all_that_is_missing_is_named_with_the_live_that_has_it():
    reverb = DEVICES["Reverb"]
    with pytest.raises(
        ParameterMissing, match="'Decay Time'.*Reverb of Live 12.1 has it.*Also missing: Predelay"
    ):
        table(reverb, "Reverb", *columns(reverb, drop=("Decay Time", "Predelay")))
    assert set(SINCE) == set(TABLE_FROM) == set(DEVICES)
    names, minima, maxima = columns(reverb, drop=("Decay Time",))
    maxima[names.index("Predelay")] = 250.0
    with pytest.raises(
        ParameterMissing, match=r"'Decay Time'.*Also missing: Predelay \(runs from 0 to 250\)"
    ):
        table(reverb, "Reverb", names, minima, maxima)


#: What ../shared/live/abletonosc.md says of where a table comes from; of the others only that the
#: dump is of about 12.1.
FACTS = {
    "Auto Filter": "12.1",  # "Live ≤ 12.1"; as AutoFilter2 12.2
    "Saturator": "12.1",  # "12.1 redesign"
    "Chorus-Ensemble": "12.2",  # not in the dump of about 12.1: names from presets of 12.2.5
}


@pytest.mark.parametrize("device", RACK.devices, ids=lambda device: device.key)
def test_the_live_that_a_missing_parameter_is_said_to_be_in_is_the_one_our_table_is_from(device):
    for name in needed_parameters(device):
        with pytest.raises(ParameterMissing) as missing:
            table(device, device.class_name, *columns(device, drop=(name,)))
        assert f"{device.name} of Live {FACTS.get(device.name, '12.1')} has it" in str(
            missing.value
        )


def test_of_a_newer_class_the_live_that_brought_it_is_named():
    rows = {name: span for name, span in AUTO_FILTER_2.items() if name != "Frequency"}
    with pytest.raises(
        ParameterMissing, match=r"class AutoFilter2.*Auto Filter of Live 12\.2 has it"
    ):
        table(DEVICES["Auto Filter"], "AutoFilter2", list(rows), *zip(*rows.values(), strict=True))
    assert DRIFT["AutoFilter2"].since in SINCE["Auto Filter"]
