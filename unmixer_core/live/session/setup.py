"""Tracks become lanes: devices put there or found there, their parameters looked up by name, the
wavetables catalogued.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from unmixer_core.errors import HostError, ParameterMissing
from unmixer_core.live.osc.client import Client
from unmixer_core.live.track.catalog import Catalog, read_catalog
from unmixer_core.live.track.device import LaneDevice
from unmixer_core.live.track.frozen import FrozenTrack
from unmixer_core.live.track.lane import Lane
from unmixer_core.live.track.names import DEVICE_OF_CLASS, Table, read_table
from unmixer_core.live.track.order import CompanionOrder
from unmixer_core.live.track.placement import OneTrack
from unmixer_core.live.track.stock import DEVICES, RoutingLane
from unmixer_core.schema.rack import RACK

Drifted = list[HostError] | None


async def companion_lanes(
    client: Client,
    tracks: Sequence[int],
    names: Sequence[tuple[str, str]],
    devices: Sequence[str] = DEVICES,
    drifted: Drifted = None,
) -> list[Lane]:
    """Inserts `devices`, Wavetable first, on each of the `tracks`; `names`.

    Of each track and its capture track.

    `drifted`: list that gets the error of each effect whose parameters differ, which is then done
    without; None raises it.

    The devices of the first lane are made alone, because reading the wavetables means
    choosing one category after the other.
    """
    catalog, known = Catalog(), dict[str, Table]()
    lanes = [
        Lane(client, OneTrack(client, CompanionOrder(client), track, pair), catalog)
        for track, pair in zip(tracks, names, strict=True)
    ]
    await _set_up_devices(lanes[0], devices, known, drifted)
    catalog.places.update(
        (await read_catalog(client, *lanes[0].place.where(RACK.synth.name))).places
    )
    await asyncio.gather(
        *(_set_up_devices(lane, tuple(lanes[0].state), known) for lane in lanes[1:])
    )
    return lanes


async def stock_lanes(
    client: Client,
    places: Sequence[RoutingLane],
    frozen: FrozenTrack | None,
    drifted: Drifted = None,
) -> list[Lane]:
    """Lanes over the copies of a template.

    `frozen` None: a companion is there that sets all, but cannot insert (Live < 12.3). `drifted` as
    for `companion_lanes`.
    """
    catalog, known = Catalog(), dict[str, Table]()
    if frozen is None:
        catalog = await read_catalog(client, *places[0].where(RACK.synth.name))
    lanes = []
    for place in places:
        lane = Lane(client, place, catalog, frozen)
        for device in place.tracks:
            if device in DEVICES:
                track, position = place.where(device)
                (class_name,) = await client.query("/live/track/get/devices/class_name", track)
                await _look_up(lane, track, position, class_name, known, drifted)
        lanes.append(lane)
    return lanes


async def _set_up_devices(
    lane: Lane, devices: Sequence[str], known: dict[str, Table], drifted: Drifted = None
) -> None:
    place = lane.place
    assert isinstance(place, OneTrack)
    place.order = await place.mover.set_devices(place.track, devices)
    classes = await lane.client.query("/live/track/get/devices/class_name", place.track)
    for position, class_name in enumerate(classes):
        await _look_up(lane, place.track, position, class_name, known, drifted)
    if drifted:
        place.order = await place.mover.set_devices(place.track, tuple(lane.state))


async def _look_up(
    lane: Lane,
    track: int,
    position: int,
    class_name: str,
    known: dict[str, Table],
    drifted: Drifted = None,
) -> None:
    """Reads a device's table once per class."""
    if class_name not in known:
        try:
            known[class_name] = await read_table(lane.client, track, position, class_name)
        except ParameterMissing as error:
            if drifted is None or DEVICE_OF_CLASS[class_name].name == RACK.synth.name:
                raise
            drifted.append(error)
            return
    lane.state[DEVICE_OF_CLASS[class_name].name] = LaneDevice(known[class_name])
