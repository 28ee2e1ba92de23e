"""The `/live/song` addresses of AbletonOSC."""

from __future__ import annotations

from functools import partial
from typing import cast

from unmixer_core.headless.addresses.actions import get_attribute, set_attribute, stop_clips
from unmixer_core.headless.addresses.tracks import clip_attributes
from unmixer_core.headless.song.song import Song
from unmixer_core.headless.song.tracks import SCENES, Track
from unmixer_core.headless.song.values import Args, ArgumentError, Handler, OscValue, at

#: Properties of the song that can only be read.
SONG_READS = ("can_redo", "can_undo", "is_playing", "song_length", "session_record_status")


def handlers(song: Song) -> dict[str, Handler]:
    """The handler of each `/live/song` address."""
    table: dict[str, Handler] = {}
    for name in (*SONG_READS, *sorted(Song.rules)):
        table[f"/live/song/get/{name}"] = partial(get_attribute(name), song)
    for name in Song.rules:
        table[f"/live/song/set/{name}"] = partial(set_attribute(name), song)
    table["/live/song/get/num_tracks"] = lambda _: (len(song.tracks),)
    table["/live/song/get/track_names"] = partial(_track_names, song)
    table["/live/song/get/num_scenes"] = lambda _: (SCENES,)
    table["/live/song/get/scenes/name"] = lambda _: ("",) * SCENES
    table["/live/song/get/cue_points"] = lambda _: ()
    table["/live/song/get/track_data"] = partial(_track_data, song)
    for verb in ("start", "continue"):
        table[f"/live/song/{verb}_playing"] = lambda _: setattr(song, "is_playing", True)
    table["/live/song/stop_playing"] = lambda _: _stop(song)
    table["/live/song/stop_all_clips"] = lambda _: stop_clips(song.tracks)
    table["/live/song/create_audio_track"] = lambda args: song.create_track(False, *args)
    table["/live/song/create_midi_track"] = lambda args: song.create_track(True, *args)
    table["/live/song/delete_track"] = lambda args: song.delete_track(_require_int(args[0]))
    table["/live/song/duplicate_track"] = lambda args: song.duplicate_track(_require_int(args[0]))
    return table


def _require_int(value: OscValue) -> int:
    """The value, which must be an int. Raises ArgumentError, as Boost.Python for a float."""
    if not isinstance(value, int):
        raise ArgumentError("Python argument types did not match C++ signature")
    return value


def _stop(song: Song) -> None:
    song.is_playing = False
    stop_clips(song.tracks)


def _track_names(song: Song, args: Args) -> Args:
    """Names of the tracks in [first, last); last = −1 means to the end."""
    # A float is not converted: `range` raises the error that AbletonOSC sends.
    first, last = cast("tuple[int, int]", args if args else (0, len(song.tracks)))
    if last == -1:
        last = len(song.tracks)
    return tuple(at(song.tracks, i).name for i in range(first, last))


def _track_data(song: Song, args: Args) -> Args:
    """Properties of the tracks in [first, last), track by track; last = −1 means to the end."""
    first, last, *properties = cast("tuple[int, int, *tuple[str, ...]]", args)
    if last == -1:
        last = len(song.tracks)
    result: list[OscValue] = []
    for i in range(first, last):
        track = song.track(i)
        for item in properties:
            result += _track_property(track, item)
    return tuple(result)


def _track_property(track: Track, item: str) -> list[OscValue]:
    """Values of `owner.name` in a track: one a track, or one a clip, slot or device."""
    owner, name = item.split(".")
    if item == "track.num_devices":
        return [len(track.devices)]
    if owner == "track":
        return [getattr(track, name)]
    if owner == "clip":
        return clip_attributes(track, name)
    if owner == "clip_slot":
        return [getattr(slot, name) for slot in track.clip_slots]
    if owner == "device":
        return [getattr(device, name) for device in track.devices]
    return []
