"""Moving devices: the planned moves do what they promise, and are the fewest."""

from __future__ import annotations

import asyncio
from itertools import permutations

import numpy as np
import pytest

from tests.live.fake_host import FakeDevice, FakeHost
from unmixer_core.errors import DeviceMissing
from unmixer_core.live.osc.client import Client, Timing
from unmixer_core.live.track.order import CompanionOrder, plan_moves

TRACK = ("Wavetable", "A", "B", "C", "D", "E")


def carried_out(present, moves):
    order = list(present)
    for start, end in moves:
        order.insert(end, order.pop(start))
    return order


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4])
def test_the_chain_stands_in_order_behind_the_instrument(length):
    for chain in permutations(TRACK[1:], length):
        order = carried_out(TRACK, plan_moves(TRACK, chain))
        assert [name for name in order if name in chain] == list(chain)
        assert order[0] == "Wavetable" and sorted(order) == sorted(TRACK)


def test_as_few_moves_as_devices_outside_the_longest_ordered_run():
    rng = np.random.default_rng(3)
    for _ in range(50):
        present = ["Wavetable", *rng.permutation(list(TRACK[1:]))]
        chain = list(rng.permutation(list(TRACK[1:]))[: rng.integers(0, 6)])
        places = [present.index(name) for name in chain]
        runs = [0] * len(places)
        for i, place in enumerate(places):
            runs[i] = 1 + max((runs[j] for j in range(i) if places[j] < place), default=0)
        assert len(plan_moves(present, chain)) <= len(chain) - max(runs, default=0)


def test_a_chain_that_stands_needs_no_move():
    assert plan_moves(TRACK, ("A", "C", "E")) == []


@pytest.mark.parametrize(
    "before", [False, True], ids=["empty track", "a Looper of the user's default track"]
)
def test_a_class_that_we_do_not_know_is_named_and_not_inserted_again_and_again(
    before, tmp_path, monkeypatch
):
    host = FakeHost(tmp_path)
    host.tracks[0].devices += [FakeDevice("Looper", [1.0])] * before
    classes = {"Wavetable": "InstrumentVector", "Delay": "Delay2", "Looper": "Looper"}
    monkeypatch.setattr(
        host,
        "on_track_get_devices_class_name",
        lambda i: (i, *(classes[d.name] for d in host.tracks[i].devices)),
    )

    async def main():
        client = Client(host, "test", Timing(5.0))
        try:
            return await CompanionOrder(client).set_devices(0, ("Wavetable", "Delay"))
        finally:
            client.close()

    with pytest.raises(
        DeviceMissing, match="class Delay2 on track 0 for Delay, which we do not know"
    ):
        asyncio.run(main())
    inserted = [
        arguments[2] for address, arguments in host.heard if address.endswith("insert_device")
    ]
    assert inserted == ["Wavetable", "Delay"] and [d.name for d in host.tracks[0].devices] == [
        "Wavetable",
        "Delay",
    ]
