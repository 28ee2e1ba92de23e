"""The modulation matrix at rest, whatever preset Live loaded."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec

import pytest

from tests.live.fake_host import FakeHost, LiveError
from unmixer_core.live.farm.hosts import EmbeddedHost
from unmixer_core.live.osc.client import Client, Timing
from unmixer_core.live.track.modulation import MOVING, TARGETS, clear_matrix

CELLS = (("Filter 1 Freq", "Env 3"), ("Osc 2 Pos", "LFO 2"), ("Osc 1 Pos", "Env 2"))


@pytest.mark.skipif(find_spec("vita") is None, reason="the embedded host sounds through vita")
def test_what_a_preset_moves_is_set_to_zero():
    async def main():
        host = EmbeddedHost(44100)
        client = Client(await host.start(), "test")
        try:
            await client.companion("/unmixer/track/insert_device", 0, "Wavetable", 0)
            for cell in CELLS:
                await client.companion("/unmixer/device/set_modulation", 0, 0, *cell, 0.5)
            await clear_matrix(client, 0, 0)
            return [
                (await client.companion("/unmixer/device/get_modulation", 0, 0, *cell))[-1]
                for cell in CELLS
            ]
        finally:
            client.close()
            await host.stop()

    assert asyncio.run(main()) == [0.0, 0.0, 0.0]


def test_a_companion_that_cannot_list_the_matrix_is_no_error(tmp_path, monkeypatch):
    async def main():
        host = FakeHost(tmp_path)
        knows = host._companion

        def refuses(address, arguments):
            if TARGETS in arguments:
                raise LiveError("The companion does not know the property.")
            return knows(address, arguments)

        monkeypatch.setattr(host, "_companion", refuses)
        client = Client(host, "test", Timing(0.05, 2))
        await client.companion("/unmixer/track/insert_device", 0, "Wavetable", 0)
        await clear_matrix(client, 0, 0)
        client.close()

    asyncio.run(main())


def test_a_matrix_at_rest_is_read_and_not_written(tmp_path):
    async def main():
        host = FakeHost(tmp_path)
        client = Client(host, "test", Timing(0.05, 2))
        await client.companion("/unmixer/track/insert_device", 0, "Wavetable", 0)
        await clear_matrix(client, 0, 0)
        client.close()
        return [address for address, _ in host.heard if "modulation" in address]

    assert asyncio.run(main()) == ["/unmixer/device/get_modulation"] * len(MOVING)
