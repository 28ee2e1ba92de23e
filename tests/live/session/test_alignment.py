"""The calibration click: what a host comes late is measured once, and taken off every take
after.
"""

from __future__ import annotations

import asyncio
from importlib.util import find_spec

import numpy as np
import pytest

from unmixer_core.errors import RecordingError
from unmixer_core.live.farm.hosts import EmbeddedHost
from unmixer_core.live.session.alignment import REFERENCE_S, RISE, onset_offset
from unmixer_core.live.session.session import Session
from unmixer_core.live.session.take import Take
from unmixer_core.schema.patch import Patch

RATE = 44100
PATCH = Patch.init(50, 0.2, ["Saturator", "Delay"])


def click(onset):
    """A decaying tone that begins at sample `onset`."""
    clip = np.zeros((2, 8000), np.float32)
    clip[:, onset:] = 0.5 * np.exp(-np.arange(8000 - onset) / 500)
    return clip


@pytest.mark.parametrize("late", [-10, 0, 3, 100, 2205])
def test_the_offset_is_the_distance_to_the_reference(late):
    measured = onset_offset(click(round(REFERENCE_S * RATE) + late), RATE)
    assert measured == (late if abs(late) > 4 else 0)


def test_a_sound_that_was_there_before_the_take_cannot_be_placed():
    assert onset_offset(click(0), RATE) is None


def test_level_does_not_matter_and_silence_is_named():
    assert onset_offset(0.01 * click(500), RATE) == onset_offset(click(500), RATE)
    with pytest.raises(RecordingError, match="click is silent"):
        onset_offset(np.zeros((2, 1000), np.float32), RATE)
    assert 0.0 < RISE < 1.0


@pytest.mark.skipif(find_spec("vita") is None, reason="the embedded host sounds through vita")
@pytest.mark.parametrize("options", [(), ("--stock",)], ids=["companion", "stock"])
def test_a_host_that_sounds_late_gives_the_clip_of_one_that_does_not(options):
    offsets, reference = asyncio.run(takes(options))
    assert offsets == [0]
    offsets, late = asyncio.run(takes((*options, "--latency-samples", "331"), lanes=2))
    assert offsets == [331, 331]
    np.testing.assert_array_equal(late, reference)


async def takes(options, lanes=1):
    host = EmbeddedHost(RATE, options)
    try:
        transport = await host.start()
        take = Take(RATE, 0.4)
        async with await Session.open(
            host.endpoint,
            take,
            lanes=lanes,
            transport=transport,
            calibrate=True,
            own_folder=host.recordings,
        ) as session:
            offsets = [recorder.offset_samples for recorder in session.recorders]
            return offsets, await session.render(lanes - 1, PATCH)
    finally:
        await host.stop()
