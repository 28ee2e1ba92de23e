"""The companion inside Live: found by no test in Live itself, so Live's part is played here as its
own code has it.

The base class has what `ableton.v2.control_surface.ControlSurface` has in Live 12 (no
`log_message`), drops a scheduled function that raises, and forgets the rest when it is
disconnected. AbletonOSC's server calls a handler with the list of a message's arguments, sends back
the tuple that it returns, and cannot take a handler off.
"""

from __future__ import annotations

import importlib
import random
import socket
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder

from tests.live.track.test_companion import Song
from unmixer_core.live.osc import wire

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "remote_script"))
from UnmixerCompanion.operations import ERROR, Operations

#: Every address of the companion, and of each kind of error one.
REQUESTS = [
    ("/unmixer/get/version", (1,)),
    ("/unmixer/track/insert_device", (2, 0, "Reverb", 1)),
    ("/unmixer/track/insert_device", (3, 0, "Nonsense", 1)),
    ("/unmixer/track/insert_device", (4, 0, "Delay", 2)),
    ("/unmixer/track/move_device", (5, 0, 2, 1)),
    ("/unmixer/track/delete_device", (6, 0, 2)),
    ("/unmixer/track/delete_device", (7, 9, 2)),
    ("/unmixer/device/set", (8, 0, 0, "oscillator_1_wavetable_index", 5)),
    ("/unmixer/device/get", (9, 0, 0, "oscillator_wavetable_categories")),
    ("/unmixer/device/set_modulation", (10, 0, 0, "Filter 1 Freq", "LFO 1", -0.25)),
    ("/unmixer/device/get_modulation", (11, 0, 0, "Filter 1 Freq", "LFO 1")),
    (
        "/unmixer/device/get_all",
        (12, 0, 0, 1, "oscillator_1_wavetable_index", "Filter 1 Freq", "LFO 1"),
    ),
    ("/unmixer/device/get_all", ()),
]
ADDRESSES = Operations(Song).addresses


class Live:
    """What a control surface sees of Live. `tick()` is Live's timer of 100 ms."""

    def __init__(self) -> None:
        self.song, self.surfaces, self.messages, self.scheduled, self.dropped = (
            Song(),
            [],
            [],
            [],
            [],
        )

    def tick(self, n=1):
        for _ in range(n):
            due, self.scheduled = self.scheduled, []
            for callback in due:
                try:
                    callback()
                except Exception as error:
                    self.dropped.append(error)


class AbletonOSC:
    """Its control surface, and the server in it."""

    def __init__(self):
        self.osc_server, self._callbacks, self.said = self, {}, []

    def add_handler(self, address, handler):
        self._callbacks[address] = handler

    def reload(self):
        self._callbacks = {}

    def send(self, address, params=(), remote_addr=None):
        builder = OscMessageBuilder(address)
        for value in params:
            builder.add_arg(value)
        self.said += wire.decode(builder.build().dgram)

    def hear(self, datagram):
        """Answers one message; the answers are taken out of `said`."""
        message, self.said = OscMessage(datagram), []
        if message.address not in self._callbacks:
            self.send("/live/error", (f"Unknown OSC address: {message.address}",))
        elif (reply := self._callbacks[message.address](message.params)) is not None:
            assert isinstance(reply, tuple)
            self.send(message.address, reply)
        return self.said


@pytest.fixture
def live(monkeypatch):
    live = Live()

    class ControlSurface:
        def __init__(self, c_instance=None):
            self._c_instance = c_instance

        @property
        def song(self):
            return self._c_instance.song()

        def show_message(self, message):
            self._c_instance.show_message(message)

        def schedule_message(self, delay_in_ticks, callback, parameter=None):
            assert delay_in_ticks == 1 and callable(callback)
            live.scheduled.append(callback)

        def disconnect(self):
            live.scheduled.clear()

    modules = {
        name: ModuleType(name)
        for name in ("Live", "ableton", "ableton.v2", "ableton.v2.control_surface")
    }
    application = SimpleNamespace(
        get_application=lambda: SimpleNamespace(control_surfaces=tuple(live.surfaces))
    )
    modules["Live"].Application = application
    modules["ableton.v2.control_surface"].ControlSurface = ControlSurface
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "UnmixerCompanion.surface", raising=False)
    yield live
    sys.modules.pop("UnmixerCompanion.surface", None)
    assert not live.dropped, "a scheduled function raised, so Live would run it no more"


@pytest.fixture
def answers():
    """The client's socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.bind(("127.0.0.1", 0))
        ours.settimeout(5.0)
        yield ours


@pytest.fixture
def module(live, answers, monkeypatch):
    """surface.py, with free ports in place of 11002 and 11001."""
    surface = importlib.import_module("UnmixerCompanion.surface")
    monkeypatch.setattr(surface, "OWN_PORT", free_port())
    monkeypatch.setattr(surface, "REPLY_PORT", answers.getsockname()[1])
    return surface


@pytest.fixture
def companion(live, module):
    """The companion as Live makes it when it is chosen; unchosen at the end."""
    c_instance = SimpleNamespace(song=lambda: live.song, show_message=live.messages.append)
    made = importlib.import_module("UnmixerCompanion").create_instance(c_instance)
    live.surfaces += [None, made]
    yield made
    made.disconnect()


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def bound(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return True
        return False


def ticks_until_own_port(module):
    """The first look is in the first tick."""
    return (module.LOOKS_BEFORE_OWN_PORT - 1) * module.TICKS_BETWEEN_LOOKS + 1


def asked_at_port(live, module, answers, address, arguments):
    answers.sendto(wire.encode(address, arguments), ("127.0.0.1", module.OWN_PORT))
    live.tick()
    return wire.decode(answers.recv(65536))


# -- through AbletonOSC ------------------------------------------------------------------------


def test_it_is_found_among_the_surfaces_and_carries_every_address(live, companion):
    busy = SimpleNamespace(name="AbletonOSC whose port is taken")  # it has no osc_server then
    server = AbletonOSC()
    live.surfaces += [busy, SimpleNamespace(osc_server=None), server]
    live.tick()
    assert set(server._callbacks) == set(ADDRESSES)
    assert {address for address, _ in REQUESTS} == set(ADDRESSES)
    assert live.messages == ["UnmixerCompanion answers through AbletonOSC"]


@pytest.mark.parametrize("moment", range(10))
def test_after_a_reload_the_addresses_are_back_within_a_second(live, module, companion, moment):
    server = AbletonOSC()
    live.surfaces.append(server)
    live.tick(1 + moment)
    server.reload()
    assert server.hear(wire.encode("/unmixer/get/version", (1,)))[0][0] == "/live/error"
    live.tick(module.TICKS_BETWEEN_LOOKS)
    assert set(server._callbacks) == set(ADDRESSES)
    assert server.hear(wire.encode("/unmixer/get/version", (2,)))[0][1][0] == 2
    assert len(live.messages) == 1


def test_both_ways_give_the_answers_of_the_operations(live, module, companion, answers):
    song = Song()
    operations = Operations(lambda: song)
    expected = [operations.answer(*request) for request in REQUESTS]
    live.tick(ticks_until_own_port(module))
    through_port = [asked_at_port(live, module, answers, *request) for request in REQUESTS]

    live.song, companion._operations._answers = Song(), type(companion._operations._answers)()
    server = AbletonOSC()
    live.surfaces.append(server)
    live.tick(module.TICKS_BETWEEN_LOOKS)
    through_abletonosc = [server.hear(wire.encode(*request)) for request in REQUESTS]
    assert through_abletonosc == through_port == [[answer] for answer in expected]
    assert sum(answer[0] == ERROR for answer in expected) == 3


def test_an_error_goes_to_the_errors_address_with_the_request(live, companion):
    server = AbletonOSC()
    live.surfaces.append(server)
    live.tick()
    asked = wire.encode("/unmixer/track/delete_device", (77, 0, 5))
    assert (
        server._callbacks["/unmixer/track/delete_device"]([78, 0, 5]) is None
    )  # nothing under its own address
    ((address, (request, named, sentence)),) = server.hear(asked)
    assert (address, request, named) == (
        ERROR,
        77,
        "/unmixer/track/delete_device",
    ) and "no device 5" in sentence


def test_another_set_is_spoken_of_as_soon_as_it_is_loaded(live, companion):
    server = AbletonOSC()
    live.surfaces.append(server)
    live.tick()
    live.song = Song()
    live.song.tracks.clear()
    ((address, arguments),) = server.hear(
        wire.encode("/unmixer/track/insert_device", (1, 0, "Delay", 1))
    )
    assert address == ERROR and "the set has 0" in arguments[2]


# -- on a port of its own ----------------------------------------------------------------------


def test_without_abletonosc_it_waits_a_while_and_then_opens_its_port(
    live, module, companion, answers
):
    live.tick(ticks_until_own_port(module) - 1)
    assert not bound(module.OWN_PORT) and not live.messages
    live.tick()
    assert bound(module.OWN_PORT)
    assert asked_at_port(live, module, answers, "/unmixer/get/version", (5,))[0][1][0] == 5
    assert live.messages == [
        f"UnmixerCompanion found no AbletonOSC and listens on port {module.OWN_PORT}"
    ]


def test_a_start_of_abletonosc_in_time_keeps_the_port_closed(live, module, companion):
    live.tick(ticks_until_own_port(module) - 1)
    live.surfaces.append(AbletonOSC())
    live.tick(100)
    assert not bound(module.OWN_PORT)
    live.surfaces.pop()  # unchosen: the looks are counted anew
    live.tick(ticks_until_own_port(module) - 1)
    assert not bound(module.OWN_PORT)
    live.tick(module.TICKS_BETWEEN_LOOKS)
    assert bound(module.OWN_PORT)


def test_a_port_that_is_taken_is_said_once_and_opened_when_it_is_free(
    live, module, companion, answers
):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", module.OWN_PORT))
        live.tick(ticks_until_own_port(module) + 100)
        (said,) = live.messages
        assert f"could not open port {module.OWN_PORT}" in said
    live.tick(module.TICKS_BETWEEN_LOOKS)
    assert asked_at_port(live, module, answers, "/unmixer/get/version", (5,))[0][1][0] == 5
    assert live.messages[1:] == [
        f"UnmixerCompanion found no AbletonOSC and listens on port {module.OWN_PORT}"
    ]


def test_abletonosc_that_turns_up_later_answers_beside_the_port_and_nothing_is_done_twice(
    live, module, companion, answers
):
    live.tick(ticks_until_own_port(module))
    request = ("/unmixer/track/insert_device", (9, 0, "Reverb", 1))
    first = asked_at_port(live, module, answers, *request)
    server = AbletonOSC()
    live.surfaces.append(server)
    live.tick(module.TICKS_BETWEEN_LOOKS)
    assert (
        server.hear(wire.encode(*request))
        == asked_at_port(live, module, answers, *request)
        == first
    )
    assert len(live.song.tracks[0].devices) == 2
    assert live.messages[-1] == "UnmixerCompanion answers through AbletonOSC"


def test_no_datagram_ends_the_port(live, module, companion, answers):
    """Messages and bundles with bytes changed, cut off and added, and bundles in bundles beyond
    Python's depth.
    """
    live.tick(ticks_until_own_port(module))
    chance = random.Random(3)
    seeds = [wire.encode(*request) for request in REQUESTS]
    seeds += [wire.bundle([seed, seed]) for seed in seeds]
    garbage = [
        b"",
        b"#bundle\0",
        b"#bundle\0" + bytes(8) + (-40).to_bytes(4, "big", signed=True) + seeds[0],
    ]
    deep = seeds[0]
    while len(deep) < 60000:
        deep = b"#bundle\0" + bytes(8) + len(deep).to_bytes(4, "big") + deep
    for _ in range(600):
        datagram = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(4)):
            datagram[chance.randrange(len(datagram))] = chance.randrange(256)
        garbage.append(
            bytes(datagram[: chance.choice((len(datagram), chance.randrange(len(datagram))))])
        )
    for n, datagram in enumerate([*garbage, deep]):
        answers.sendto(datagram, ("127.0.0.1", module.OWN_PORT))
        if n % 50 == 0:
            live.tick()
    live.tick(2)
    answers.settimeout(0.0)
    while _heard(answers):
        pass
    answers.settimeout(5.0)
    assert asked_at_port(live, module, answers, "/unmixer/get/version", (5,))[0][1][0] == 5


def _heard(ours):
    try:
        return ours.recv(65536)
    except BlockingIOError:
        return b""


def test_a_socket_that_only_fails_does_not_stop_live(live, module, companion):
    live.tick(ticks_until_own_port(module))
    companion._port._socket.close()
    live.tick(3)
    assert live.scheduled


# -- what else happens in Live -----------------------------------------------------------------


def test_another_script_that_cannot_be_looked_at_does_not_end_it(live, module, companion):
    class Broken:
        @property
        def osc_server(self):
            raise RuntimeError("changes cannot be triggered by notifications")

    live.surfaces.append(Broken())
    live.tick(30)
    (said,) = live.messages
    assert "changes cannot be triggered" in said
    live.surfaces[-1] = server = AbletonOSC()
    live.tick(module.TICKS_BETWEEN_LOOKS)
    assert set(server._callbacks) == set(ADDRESSES)


def test_once_unchosen_it_closes_its_port_and_does_nothing_more(live, module, companion):
    live.tick(ticks_until_own_port(module))
    late = list(live.scheduled)
    companion.disconnect()
    assert not bound(module.OWN_PORT) and not live.scheduled
    for tick in late * 100:  # a Live that had these under way
        tick()
    assert not bound(module.OWN_PORT) and not live.scheduled
    companion.disconnect()


def test_once_unchosen_abletonosc_answers_as_if_it_had_never_been_there(live, companion):
    server = AbletonOSC()
    unknown = server.hear(wire.encode("/unmixer/get/version", (1,)))
    live.surfaces.append(server)
    live.tick()
    devices = len(live.song.tracks[0].devices)
    companion.disconnect()
    assert server.hear(wire.encode("/unmixer/get/version", (1,))) == unknown
    for address, arguments in REQUESTS:
        assert server.hear(wire.encode(address, arguments))[0][0] == "/live/error"
    assert len(live.song.tracks[0].devices) == devices


def test_chosen_again_it_is_back(live, module, companion):
    server = AbletonOSC()
    live.surfaces.append(server)
    live.tick()
    companion.disconnect()
    again = module.UnmixerCompanion(companion._c_instance)
    live.tick()
    assert server.hear(wire.encode("/unmixer/get/version", (1,)))[0][0] == "/unmixer/get/version"
    again.disconnect()
