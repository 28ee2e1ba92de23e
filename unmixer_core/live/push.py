"""One patch into Live to be played there, or out of it as sound.

What `unmix push` and `unmix render` do.

    # a new MIDI track with Wavetable and the chain; every value read back
    report = push(patch)
    # float32 [2, samples] through Live, or an embedded host if none is named
    clip = render(patch, params.audio)

Pushed tracks stay; if anything fails, what was made is deleted again. Nothing else in the set is
changed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unmixer_core import config
from unmixer_core.errors import HostError, ReadbackMismatch
from unmixer_core.live.farm.pool import Clip
from unmixer_core.live.host import RenderFailure
from unmixer_core.live.osc import wire
from unmixer_core.live.osc.client import Client, Timing
from unmixer_core.live.osc.transport import Endpoint, Transport, connect
from unmixer_core.live.renderer import Renderer
from unmixer_core.live.session.session import probe
from unmixer_core.live.session.setup import companion_lanes, stock_lanes
from unmixer_core.live.track.frozen import FrozenTrack, ValueDifference, read_frozen
from unmixer_core.live.track.lane import Lane
from unmixer_core.live.track.stock import build_lanes
from unmixer_core.live.track.tracks import CAPTURE, Tracks
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK

SYNTH = RACK.synth.name
SENDS_ONLY = "Sends Only"


@dataclass(frozen=True)
class Pushed:
    """One value in Live's own scale (on/off and items count from 0).

    What was asked for, and what Live keeps.
    """

    device: str
    parameter: str
    wanted: float
    kept: float

    @property
    def good(self) -> bool:
        return wire.same(self.wanted, self.kept)


@dataclass(frozen=True)
class PushReport:
    """`tracks`: names of the tracks that hold the patch; `frozen`.

    Controls that this host has otherwise (stock AbletonOSC).
    """

    live: str
    tracks: tuple[str, ...]
    chain: tuple[str, ...]
    values: tuple[Pushed, ...]
    frozen: tuple[ValueDifference, ...] = ()

    def __str__(self) -> str:
        chain = " > ".join((SYNTH, *self.chain))
        kept = (
            f"; not set, as stock AbletonOSC cannot: {'; '.join(map(str, self.frozen))}"
            if self.frozen
            else ""
        )
        return (
            f"{self.live}: {chain} on {', '.join(self.tracks)}, {len(self.values)} values set "
            f"and read back{kept}"
        )


def push(
    patch: Patch,
    endpoint: Endpoint | None = None,
    *,
    name: str = "",
    adapt: bool = False,
    trace: Path | None = None,
) -> PushReport:
    """Writes `patch` to a new track called `name` in the Live that the environment or `endpoint`
    names, and reads all back.

    `adapt`: what stock AbletonOSC cannot set is left as the template has it and reported, instead
    of raising ChoiceFrozen. Raises ReadbackMismatch when a value does not stay, and other
    HostErrors.
    """
    return asyncio.run(push_async(patch, endpoint, name=name, adapt=adapt, trace=trace))


def render(patch: Patch, audio: config.Audio, *, trace: Path | None = None) -> Clip:
    """One patch → float32 [2, samples], through Live when UNMIXER_LIVE_HOST names one, an embedded
    host otherwise.

    Raises HostError when it cannot be rendered.
    """
    with Renderer(audio, n_hosts=1, lanes=1, trace=trace) as renderer:
        (clip,) = renderer.render([patch])
    if isinstance(clip, RenderFailure):
        raise HostError(str(clip))
    return clip


async def push_async(
    patch: Patch,
    endpoint: Endpoint | None = None,
    *,
    name: str = "",
    adapt: bool = False,
    trace: Path | None = None,
    transport: Transport | None = None,
    timing: Timing | None = None,
) -> PushReport:
    """`push` inside an event loop; `transport` and `timing` for tests."""
    endpoint = endpoint or Endpoint.from_environment()
    client = Client(transport or connect(endpoint, trace), str(endpoint), timing)
    tracks = Tracks(client, secrets.token_hex(2))
    try:
        info = await probe(client, endpoint)
        lane = await (
            _insert(client, tracks, patch)
            if info.inserts
            else _copy(client, tracks, patch, info.companion)
        )
        await lane.prepare()
        different = _adapt(patch, lane.frozen) if adapt else ()
        await lane.inspect()
        await lane.apply(lane.frozen.apply(patch) if lane.frozen and adapt else patch)
        await lane.verify()
        values = tuple(Pushed(*reading) for reading in lane.readings())
        _require(values)
        names = await _rename(client, tracks, name or f"Un-mixed {patch.digest[:6]}")
        return PushReport(
            f"Live {info.version[0]}.{info.version[1]}", names, patch.effects, values, different
        )
    except BaseException:
        await _withdraw(tracks)
        raise
    finally:
        client.close()


async def _insert(client: Client, tracks: Tracks, patch: Patch) -> Lane:
    """A new MIDI track at the end of the set with the devices of the patch."""
    title = tracks.name(0)
    first = await tracks.make([title], midi=[True])
    (lane,) = await companion_lanes(client, [first], [(title, "")], (SYNTH, *patch.effects))
    return lane


async def _copy(client: Client, tracks: Tracks, patch: Patch, companion: str) -> Lane:
    """Copies of the template's tracks, of which only the last one sounds on the main track."""
    (place,) = await build_lanes(client, tracks, 1, (SYNTH, *patch.effects))
    frozen = None if companion else await read_frozen(client, place.track, place.names[SYNTH])
    (lane,) = await stock_lanes(client, [place], frozen)
    for device in (SYNTH, *patch.effects)[:-1]:
        await tracks.set(place.tracks[device], "output_routing_type", SENDS_ONLY)
    await tracks.set(place.tracks[CAPTURE], "arm", 0)
    return lane


def _adapt(patch: Patch, frozen: FrozenTrack | None) -> tuple[ValueDifference, ...]:
    return frozen.differences(patch) if frozen else ()


def _require(values: Sequence[Pushed]) -> None:
    for value in values:
        if not value.good:
            raise ReadbackMismatch(
                f"{value.device}'s {value.parameter} was set to {value.wanted:g}, but reads back "
                f"as {value.kept:g}."
            )


async def _rename(client: Client, tracks: Tracks, title: str) -> tuple[str, ...]:
    """Gives the tracks their final names, in set order, so that they count as the user's.

    The capture track goes.
    """
    found = await tracks.find()
    for name, index in sorted(found.items(), key=lambda item: -item[1]):
        part = name.removeprefix(tracks.name(0)).strip()
        if part == CAPTURE or part.endswith("spare"):
            await client.send(("/live/song/delete_track", (index,)))
    final = {}
    for name, index in (await tracks.find()).items():
        part = name.removeprefix(tracks.name(0)).strip()
        final[index] = f"{title} {part}".rstrip()
        if not await tracks.rename(index, final[index]):
            raise ReadbackMismatch(
                f"track {index + 1} was renamed to {final[index]!r}, but Live keeps another name."
            )
    return tuple(final[index] for index in sorted(final))


async def _withdraw(tracks: Tracks) -> None:
    try:
        await tracks.delete()
    except HostError:
        pass  # the host is gone; what is wrong with it is on its way to the user
