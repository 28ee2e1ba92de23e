"""The `/live/track` addresses of AbletonOSC."""

from __future__ import annotations

from collections.abc import Callable

from unmixer_core.headless.addresses.actions import get_attribute, set_attribute, stop_clips
from unmixer_core.headless.song.song import ROUTINGS, Song
from unmixer_core.headless.song.tracks import RoutingType, Track
from unmixer_core.headless.song.values import Args, Handler, OscValue, at, to_int

TrackAction = Callable[[Track, Args], Args | None]
#: Properties of a track that can only be read.
TRACK_READS = (
    "can_be_armed",
    "fired_slot_index",
    "has_audio_input",
    "has_audio_output",
    "has_midi_input",
    "has_midi_output",
    "is_foldable",
    "is_grouped",
    "is_visible",
    "output_meter_level",
    "output_meter_left",
    "output_meter_right",
    "playing_slot_index",
    "fold_state",
)
#: Tap points of an audio track's input.
CHANNELS = ("Pre FX", "Post FX", "Post Mixer")


def handlers(song: Song) -> dict[str, Handler]:
    """The handler of each `/live/track` address."""

    def on(function: TrackAction) -> Handler:
        """A handler whose first argument is a track index, or `*`.

        `*` means every track for a setter and the first track for a getter, as in AbletonOSC.
        """

        def handle(args: Args) -> Args | None:
            indices = range(len(song.tracks)) if args[0] == "*" else [to_int(args[0])]
            for i in indices:
                answer = function(song.track(i), args[1:])
                if answer is not None:
                    return (i, *answer)
            return None

        return handle

    table: dict[str, Handler] = {}
    for name in (*TRACK_READS, *Track.rules):
        table[f"/live/track/get/{name}"] = on(get_attribute(name))
    for name in Track.rules:
        table[f"/live/track/set/{name}"] = on(set_attribute(name))
    for name in ROUTINGS:
        table[f"/live/track/get/{name}"] = on(_get_routing(name))
        table[f"/live/track/set/{name}"] = on(_set_routing(song, name))
        table[f"/live/track/get/available_{name}s"] = on(_get_available(song, name))
    table["/live/track/get/num_devices"] = on(lambda track, _: (len(track.devices),))
    for name in ("name", "type", "class_name", "can_have_chains"):
        table[f"/live/track/get/devices/{name}"] = on(_of_devices(name))
    for name in ("name", "length", "color"):
        table[f"/live/track/get/clips/{name}"] = on(_of_clips(name))
    table["/live/track/stop_all_clips"] = on(lambda track, _: stop_clips([track]))
    table["/live/track/delete_device"] = on(
        lambda track, rest: track.devices.remove(at(track.devices, to_int(rest[0])))
    )
    table["/live/track/delete_clip"] = on(
        lambda track, rest: at(track.clip_slots, to_int(rest[0])).delete_clip()
    )
    return table


def clip_attributes(track: Track, name: str) -> list[OscValue]:
    """An attribute of the clip in each slot; None for an empty slot."""
    values: list[OscValue] = []
    for slot in track.clip_slots:
        values.append(None if slot.clip is None else getattr(slot.clip, name))
    return values


def _of_clips(name: str) -> TrackAction:
    return lambda track, _: tuple(clip_attributes(track, name))


def _of_devices(name: str) -> TrackAction:
    return lambda track, _: tuple(getattr(device, name) for device in track.devices)


def _routings(song: Song, track: Track, name: str) -> tuple[str, ...]:
    """Display names that the routing attribute `name` of a track accepts."""
    if name.endswith("type"):
        return tuple(song.routing_types(track, name.startswith("input")))
    return ("All Channels",) if track.is_midi else CHANNELS


def _get_available(song: Song, name: str) -> TrackAction:
    return lambda track, _: _routings(song, track, name)


def _get_routing(name: str) -> TrackAction:
    return lambda track, _: (getattr(track, name).display_name,)


def _set_routing(song: Song, name: str) -> TrackAction:
    """Set a routing by its display name. An unknown name has no effect, as in AbletonOSC."""

    def route(track: Track, rest: Args) -> None:
        if rest[0] in _routings(song, track, name):
            setattr(track, name, RoutingType(str(rest[0])))

    return route
