"""The fault mode itself: what its words mean, and that one seed is one run of bad luck."""

from __future__ import annotations

import time

import pytest

from unmixer_core.errors import ConfigError
from unmixer_core.headless.faults.faults import FAULTS, Fault
from unmixer_core.headless.faults.faulty_link import FaultyLink


class Inner:
    """A link that has `arrivals` to hand out and keeps what is sent."""

    def __init__(self, n: int) -> None:
        self.arrivals = [(bytes([i]), "127.0.0.1") for i in range(n)]
        self.sent: list[bytes] = []

    def receive(self, timeout_s: float):
        if self.arrivals:
            return self.arrivals.pop(0)
        time.sleep(min(timeout_s, 0.002))
        return None

    def send(self, datagram: bytes, ip: str) -> None:
        self.sent.append(datagram)

    def close(self) -> None:
        pass


def heard(text: str, n: int = 40, seed: int = 3, within_s: float = 0.03) -> list[int]:
    """Numbers of the datagrams that get through the fault, in their order."""
    fault = Fault.parse(text)
    link = FaultyLink(Inner(n), {fault.name: fault.settings}, seed)
    result, give_up_s = [], time.monotonic() + within_s
    while time.monotonic() < give_up_s:
        if (arrival := link.receive(0.01)) is not None:
            result.append(arrival[0][0])
    return result


def test_a_fault_is_parsed_with_its_defaults() -> None:
    assert Fault.parse("late:ms=20").settings == {"chance": FAULTS["late"]["chance"], "ms": 20.0}
    assert Fault.parse("no_device:name=EQ Eight").settings == {"name": "EQ Eight"}
    assert Fault.parse("stuck").settings["take"] == 0.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("flood", "no fault 'flood'; known are crash"),
        ("loss:rate=0.1", "loss has no setting 'rate'; it has chance"),
        ("loss:chance=often", "'chance=often' needs a number"),
    ],
)
def test_what_is_wrong_with_a_fault_is_said(text, words) -> None:
    with pytest.raises(ConfigError, match=words):
        Fault.parse(text)


def test_each_fault_of_the_wire_does_what_its_name_says() -> None:
    everything = list(range(40))
    assert heard("latency:ms=1") == everything
    assert heard("loss:chance=1") == []
    assert sorted(heard("duplicate:chance=1")) == sorted(everything * 2)
    assert heard("silence:after=11") == everything[:10]
    assert heard("error:every=2") == everything[::2]
    late = heard("reorder:chance=0.5,ms=5")
    assert sorted(late) == everything and late != everything


def test_one_seed_is_one_run_of_bad_luck() -> None:
    assert (
        heard("loss:chance=0.5", seed=1)
        == heard("loss:chance=0.5", seed=1)
        != heard("loss:chance=0.5", seed=2)
    )
