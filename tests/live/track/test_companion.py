"""The remote script on a model of Live's song.

Replies, errors with the request's id, repeated requests, its own OSC.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from unmixer_core.live.osc import wire

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "remote_script"))
from UnmixerCompanion import osc
from UnmixerCompanion.operations import ERROR, Operations


class Mode:
    """An enumeration as Boost makes them: an int cannot be assigned, but makes one."""

    def __init__(self, value=0):
        self.value = value

    def __int__(self):
        return self.value


class Wavetable:
    name = "Wavetable"
    visible_modulation_target_names = ("Osc 1 Pos",)
    oscillator_wavetable_categories = ("Basics", "Noise")
    oscillator_1_wavetable_index = 0
    _mode = Mode()

    def __init__(self):
        self.parameters = [
            SimpleNamespace(name=name) for name in ("Osc 1 Pos", "Filter 1 Freq", "Osc 1 Transp")
        ]
        self.amounts = {}

    @property
    def unison_mode(self):
        return self._mode

    @unison_mode.setter
    def unison_mode(self, value):
        if isinstance(value, int):
            raise TypeError("Python argument types did not match C++ signature")
        self._mode = value

    def is_parameter_modulatable(self, parameter):
        return "Transp" not in parameter.name

    def add_parameter_to_modulation_matrix(self, parameter):
        self.visible_modulation_target_names += (parameter.name,)
        return len(self.visible_modulation_target_names) - 1

    def set_modulation_value(self, row, column, amount):
        self.amounts[row, column] = amount

    def get_modulation_value(self, row, column):
        return self.amounts.get((row, column), 0.0)


class Track:
    def __init__(self):
        self.devices = [Wavetable()]

    def insert_device(self, name, position):
        if name == "Nonsense":
            raise ValueError(f"Device {name} not found.")
        self.devices.insert(position, SimpleNamespace(name=name))

    def delete_device(self, index):
        del self.devices[index]


class Song:
    """`before`: move_device counts the position before the device is taken out, as some Live
    versions may.
    """

    def __init__(self, before=False):
        self.tracks, self.before = [Track()], before

    def move_device(self, device, target, position):
        start = target.devices.index(device)
        target.devices.remove(device)
        target.devices.insert(position - (self.before and start < position), device)


@pytest.fixture(params=[False, True])
def operations(request):
    song = Song(request.param)
    return Operations(lambda: song), song.tracks[0]


def test_devices_are_inserted_moved_and_deleted_by_index(operations):
    companion, track = operations
    for i, name in enumerate(("A", "B", "C"), start=1):
        assert companion.answer("/unmixer/track/insert_device", (i, 0, name, i)) == (
            "/unmixer/track/insert_device",
            (i, 0, i),
        )
    assert companion.answer("/unmixer/track/move_device", (10, 0, 1, 3))[1] == (10, 0, 3)
    assert [device.name for device in track.devices] == ["Wavetable", "B", "C", "A"]
    assert companion.answer("/unmixer/track/move_device", (11, 0, 3, 2))[1] == (11, 0, 2)
    assert companion.answer("/unmixer/track/delete_device", (12, 0, 1))[1] == (12, 0, 1)
    assert [device.name for device in track.devices] == ["Wavetable", "A", "C"]


def test_a_repeated_request_is_answered_again_and_not_carried_out_again(operations):
    companion, track = operations
    answers = [
        companion.answer("/unmixer/track/insert_device", (7, 0, "Reverb", 1)) for _ in range(3)
    ]
    assert answers[0] == answers[1] == answers[2] and len(track.devices) == 2


@pytest.mark.parametrize(
    ("address", "arguments", "words"),
    [
        ("/unmixer/track/insert_device", (0, "Nonsense", 1), "no device named 'Nonsense'"),
        ("/unmixer/track/insert_device", (4, "Reverb", 1), "no track 4"),
        ("/unmixer/track/move_device", (0, 5, 1), "no device 5"),
        ("/unmixer/device/set", (0, 0, "color", 1), "'color'"),
        ("/unmixer/device/set_modulation", (0, 0, "Filter 1 Freq", "Sun", 0.5), "'Sun'"),
        (
            "/unmixer/device/set_modulation",
            (0, 0, "Osc 1 Transp", "Env 2", 0.5),
            "cannot be modulated",
        ),
        ("/unmixer/device/set_modulation", (0, 0, "Osc 1 Pos", "Env 2", 1.5), "-1..1"),
        ("/unmixer/track/delete_device", (), "was called with"),
    ],
)
def test_an_error_carries_the_request_and_one_sentence(operations, address, arguments, words):
    where, (request, named, sentence) = operations[0].answer(address, (99, *arguments))
    assert (where, request, named) == (ERROR, 99, address) and words in sentence


def test_wavetable_is_set_and_read_back(operations):
    companion, _ = operations
    assert (
        companion.answer("/unmixer/device/set", (1, 0, 0, "oscillator_1_wavetable_index", 5))[1][-1]
        == 5
    )
    assert companion.answer("/unmixer/device/set", (2, 0, 0, "unison_mode", 1))[1] == (
        2,
        0,
        0,
        "unison_mode",
        1,
    )
    names = companion.answer("/unmixer/device/get", (3, 0, 0, "oscillator_wavetable_categories"))[1]
    assert names == (3, 0, 0, "oscillator_wavetable_categories", "Basics", "Noise")
    targets = companion.answer("/unmixer/device/get", (7, 0, 0, "visible_modulation_target_names"))[
        1
    ]
    assert targets[3:] == ("visible_modulation_target_names", "Osc 1 Pos")
    target = (0, 0, "Filter 1 Freq", "LFO 1")
    assert companion.answer("/unmixer/device/get_modulation", (4, *target))[1][-1] == 0.0
    assert companion.answer("/unmixer/device/set_modulation", (5, *target, -0.25))[1] == (
        5,
        *target,
        -0.25,
    )
    assert companion.answer("/unmixer/device/get_modulation", (6, *target))[1][-1] == -0.25


def test_many_values_are_read_at_once(operations):
    companion, track = operations
    companion.answer("/unmixer/device/set", (1, 0, 0, "oscillator_1_wavetable_index", 5))
    companion.answer("/unmixer/device/set_modulation", (2, 0, 0, "Osc 1 Pos", "LFO 1", 0.5))
    asked = (
        2,
        "unison_mode",
        "oscillator_1_wavetable_index",
        "Osc 1 Pos",
        "LFO 1",
        "Filter 1 Freq",
        "Env 2",
    )
    assert companion.answer("/unmixer/device/get_all", (3, 0, 0, *asked))[1] == (
        3,
        0,
        0,
        0,
        5,
        0.5,
        0.0,
    )
    assert (
        len(track.devices[0].visible_modulation_target_names) == 1
    )  # to look at a cell adds no row
    for bad in ((3, "unison_mode"), (0, "Osc 1 Pos"), (1, "oscillator_1_wavetables"), (1, "name")):
        assert companion.answer("/unmixer/device/get_all", (bad[0] + 10, 0, 0, *bad))[0] == ERROR
        companion._answers.clear()


def test_its_osc_is_that_of_the_client():
    message = ("/unmixer/device/set", (1, "name", 2.5, True, False, "ü"))
    data = osc.encode(*message)
    assert data == wire.encode(*message) and list(osc.decode(data)) == [message] == wire.decode(
        data
    )
    assert list(osc.decode(wire.bundle([data, data]))) == [message, message]
