"""AbletonOSC's addresses as functions of their arguments.

What stock AbletonOSC offers, over our object model.

A handler takes the message's arguments and returns the reply's arguments, or None where Live
answers nothing. It may raise: the server reports the words, as AbletonOSC does. The order of checks
follows AbletonOSC's code, so that the same mistake gets the same words (see
../shared/live/transcript.jsonl).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from unmixer_core.headless.song.song import (
    SCENES,
    ArgumentError,
    ClipSlot,
    Note,
    RoutingType,
    Song,
    SongClip,
    SongDevice,
    Track,
    at,
)

Args = Sequence[Any]
Handler = Callable[[Args], Args | None]
VERSION = (12, 3)
DEFAULT_NOTE_SPAN = (0, 127, -8192.0, 16384.0)  # AbletonOSC's default misses pitch 127
SONG_ORDER = ("can_redo", "can_undo", "is_playing", "song_length", "session_record_status")
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
SLOT_READS = (
    "has_clip",
    "controls_other_clips",
    "is_group_slot",
    "is_playing",
    "is_triggered",
    "playing_status",
    "will_record_on_start",
)
CLIP_READS = (
    "end_time",
    "file_path",
    "has_groove",
    "is_audio_clip",
    "is_midi_clip",
    "is_overdubbing",
    "is_playing",
    "is_recording",
    "is_triggered",
    "length",
    "playing_position",
    "sample_length",
    "start_time",
    "will_record_on_start",
)
ROUTINGS = (
    "input_routing_type",
    "input_routing_channel",
    "output_routing_type",
    "output_routing_channel",
)
CHANNELS = ("Pre FX", "Post FX", "Post Mixer")


def handlers(
    song: Song, fire: Callable[[ClipSlot, Args], None], log_level: str = "info"
) -> dict[str, Handler]:
    """Every stock address. `fire(slot, arguments)` launches a clip or a recording."""
    table: dict[str, Handler] = {
        "/live/test": lambda _: ("ok",),
        "/live/application/get/version": lambda _: VERSION,
        "/live/application/get/average_process_usage": lambda _: (3.5,),
        "/live/api/get/log_level": lambda _: (log_level,),
        "/live/api/set/log_level": lambda args: _ignore(args[0]),
        "/live/api/reload": lambda _: None,
        "/live/api/show_message": lambda args: _ignore(args[0]),
    }
    table |= _song(song) | _tracks(song) | _slots(song, fire) | _clips(song, fire) | _devices(song)
    return table


#: What an address does to the object it names, given the arguments behind the ids.
Action = Callable[[Any, Args], Args | None]


def _ignore(_: Any) -> None:
    return None


def _get(name: str) -> Action:
    """Answers an attribute as AbletonOSC reads it.

    One that raises (a fold state of a plain track) is nil.
    """

    def read(target: Any, _: Args) -> Args:
        try:
            return (getattr(target, name),)
        except RuntimeError:
            return (None,)

    return read


def _set(name: str) -> Action:
    return lambda target, rest: target.assign(name, rest[0])


def _each(items: str, name: str) -> Action:
    """Answers one attribute of each thing in the list `items` of the object."""
    return lambda target, _: tuple(getattr(item, name) for item in getattr(target, items))


# Song


def _song(song: Song) -> dict[str, Handler]:
    table: dict[str, Handler] = {}
    for name in (*SONG_ORDER, *sorted(Song.rules)):
        table[f"/live/song/get/{name}"] = partial(_get(name), song)
    for name in Song.rules:
        table[f"/live/song/set/{name}"] = partial(_set(name), song)
    table["/live/song/get/num_tracks"] = lambda _: (len(song.tracks),)
    table["/live/song/get/track_names"] = partial(_track_names, song)
    table["/live/song/get/num_scenes"] = lambda _: (SCENES,)
    table["/live/song/get/scenes/name"] = lambda _: ("",) * SCENES
    table["/live/song/get/cue_points"] = lambda _: ()
    table["/live/song/get/track_data"] = partial(_track_data, song)
    for verb in ("start", "continue"):
        table[f"/live/song/{verb}_playing"] = lambda _: setattr(song, "is_playing", True)
    table["/live/song/stop_playing"] = lambda _: _stop(song)
    table["/live/song/stop_all_clips"] = lambda _: _stop_clips(song.tracks)
    table["/live/song/create_audio_track"] = lambda args: song.create_track(False, *args)
    table["/live/song/create_midi_track"] = lambda args: song.create_track(True, *args)
    table["/live/song/delete_track"] = lambda args: song.delete_track(_integer(args[0]))
    table["/live/song/duplicate_track"] = lambda args: song.duplicate_track(_integer(args[0]))
    return table


def _integer(value: Any) -> int:
    """Song methods pass their argument on to Boost.Python, which takes no float for an int."""
    if not isinstance(value, int):
        raise ArgumentError("Python argument types did not match C++ signature")
    return value


def _stop(song: Song) -> None:
    song.is_playing = False
    _stop_clips(song.tracks)


def _stop_clips(tracks: Sequence[Track]) -> None:
    for track in tracks:
        track.playing_slot_index = -1
        for slot in track.clip_slots:
            if slot.clip is not None:
                slot.clip.is_playing = False


def _track_names(song: Song, args: Args) -> Args:
    first, last = args if args else (0, len(song.tracks))
    return tuple(
        at(song.tracks, i).name for i in range(first, len(song.tracks) if last == -1 else last)
    )


def _track_data(song: Song, args: Args) -> Args:
    first, last, *properties = args
    result: list[Any] = []
    for i in range(first, len(song.tracks) if last == -1 else last):
        track = song.track(i)
        for item in properties:
            owner, name = item.split(".")
            if item == "track.num_devices":
                result.append(len(track.devices))
            elif owner == "track":
                result.append(getattr(track, name))
            elif owner == "clip":
                result += [
                    None if slot.clip is None else getattr(slot.clip, name)
                    for slot in track.clip_slots
                ]
            elif owner == "clip_slot":
                result += [getattr(slot, name) for slot in track.clip_slots]
            elif owner == "device":
                result += [getattr(device, name) for device in track.devices]
    return tuple(result)


# Tracks


def _tracks(song: Song) -> dict[str, Handler]:
    def on(function: Callable[[Track, Args], Args | None], echo: bool = True) -> Handler:
        """A handler whose first argument is a track index.

        `*` means every track for a setter, the first for a getter.
        """

        def handle(args: Args) -> Args | None:
            indices = range(len(song.tracks)) if args[0] == "*" else [int(args[0])]
            for i in indices:
                answer = function(song.track(i), args[1:])
                if answer is not None:
                    return (i, *answer) if echo else answer
            return None

        return handle

    table: dict[str, Handler] = {}
    for name in (*TRACK_READS, *Track.rules):
        table[f"/live/track/get/{name}"] = on(_get(name))
    for name in Track.rules:
        table[f"/live/track/set/{name}"] = on(_set(name))
    for name in ROUTINGS:
        table[f"/live/track/get/{name}"] = on(_get_routing(name))
        table[f"/live/track/set/{name}"] = on(_set_routing(song, name))
        table[f"/live/track/get/available_{name}s"] = on(_get_routings(song, name))
    table["/live/track/get/num_devices"] = on(lambda track, _: (len(track.devices),))
    for name in ("name", "type", "class_name", "can_have_chains"):
        table[f"/live/track/get/devices/{name}"] = on(_each("devices", name))
    for name in ("name", "length", "color"):
        table[f"/live/track/get/clips/{name}"] = on(_of_clips(name))
    table["/live/track/stop_all_clips"] = on(lambda track, _: _stop_clips([track]))
    table["/live/track/delete_device"] = on(
        lambda track, rest: track.devices.remove(at(track.devices, int(rest[0])))
    )
    table["/live/track/delete_clip"] = on(
        lambda track, rest: at(track.clip_slots, int(rest[0])).delete_clip()
    )
    return table


def _of_clips(name: str) -> Action:
    return lambda track, _: tuple(
        None if s.clip is None else getattr(s.clip, name) for s in track.clip_slots
    )


def _routings(song: Song, track: Track, name: str) -> tuple[str, ...]:
    """Display names that the routing attribute `name` of a track may take."""
    if name.endswith("type"):
        return tuple(song.routing_types(track, name.startswith("input")))
    return ("All Channels",) if track.is_midi else CHANNELS


def _get_routings(song: Song, name: str) -> Action:
    return lambda track, _: _routings(song, track, name)


def _get_routing(name: str) -> Action:
    return lambda track, _: (getattr(track, name).display_name,)


def _set_routing(song: Song, name: str) -> Action:
    """Matched on the display name; an unknown one is silently ignored (AbletonOSC only logs it)."""

    def route(track: Track, rest: Args) -> None:
        if rest[0] in _routings(song, track, name):
            setattr(track, name, RoutingType(rest[0]))

    return route


# Clip slots and clips


def _slots(song: Song, fire: Callable[[ClipSlot, Args], None]) -> dict[str, Handler]:
    def on(function: Callable[[ClipSlot, Args], Args | None]) -> Handler:
        def handle(args: Args) -> Args | None:
            track, slot = int(args[0]), int(args[1])
            answer = function(at(song.track(track).clip_slots, slot), args[2:])
            return None if answer is None else (track, slot, *answer)

        return handle

    def duplicate(slot: ClipSlot, rest: Args) -> None:
        target = at(song.track(int(rest[0])).clip_slots, int(rest[1]))
        if slot.clip is None:
            raise RuntimeError("Slot is empty")
        target.clip = _copy(slot.clip)

    table = {
        f"/live/clip_slot/get/{name}": on(_get(name)) for name in (*SLOT_READS, *ClipSlot.rules)
    }
    table["/live/clip_slot/set/has_stop_button"] = on(_set("has_stop_button"))
    table["/live/clip_slot/fire"] = on(fire)
    table["/live/clip_slot/stop"] = on(lambda slot, _: _stop_clips([slot.track]))
    table["/live/clip_slot/create_clip"] = on(lambda slot, rest: slot.create_clip(rest[0]))
    table["/live/clip_slot/delete_clip"] = on(lambda slot, _: slot.delete_clip())
    table["/live/clip_slot/duplicate_clip_to"] = on(duplicate)
    return table


def _copy(clip: SongClip) -> SongClip:
    twin = SongClip(clip.length, clip.is_midi_clip)
    twin.__dict__.update(clip.__dict__, notes=list(clip.notes))
    return twin


def _clips(song: Song, fire: Callable[[ClipSlot, Args], None]) -> dict[str, Handler]:
    def on(function: Callable[[Any, Args], Args | None], of_slot: bool = False) -> Handler:
        """A handler of a clip; an empty slot's clip is None and complains as Python does."""

        def handle(args: Args) -> Args | None:
            track, number = int(args[0]), int(args[1])
            slot = at(song.track(track).clip_slots, number)
            answer = function(slot if of_slot else slot.clip, args[2:])
            return None if answer is None else (track, number, *answer)

        return handle

    table = {f"/live/clip/get/{name}": on(_get(name)) for name in (*CLIP_READS, *SongClip.rules)}
    table |= {f"/live/clip/set/{name}": on(_set(name)) for name in SongClip.rules}
    table["/live/clip/fire"] = on(fire, of_slot=True)
    table["/live/clip/stop"] = on(lambda slot, _: _stop_clips([slot.track]), of_slot=True)
    table["/live/clip/get/notes"] = on(_get_notes)
    table["/live/clip/add/notes"] = on(_add_notes)
    table["/live/clip/remove/notes"] = on(_remove_notes)
    return table


def _span(rest: Args, verb: str) -> tuple[int, int, float, float]:
    if len(rest) not in (0, 4):
        raise ValueError(
            f"Invalid number of arguments for /clip/{verb}/notes. Either 0 or 4 arguments must be "
            f"passed."
        )
    return rest or DEFAULT_NOTE_SPAN  # type: ignore[return-value]


def _notes_of(clip: SongClip | None, method: str) -> SongClip:
    if clip is None:
        raise AttributeError(f"'NoneType' object has no attribute '{method}'")
    if not clip.is_midi_clip:
        raise RuntimeError("Only MIDI clips have notes")
    return clip


def _get_notes(clip: SongClip | None, rest: Args) -> Args:
    span = _span(rest, "get")
    notes = _notes_of(clip, "get_notes_extended").notes_between(*span)
    return tuple(
        value for n in notes for value in (n.pitch, n.start_time, n.duration, n.velocity, n.mute)
    )


def _add_notes(clip: SongClip | None, rest: Args) -> None:
    notes = []
    for i in range(0, len(rest), 5):
        pitch, start, duration, velocity, mute = rest[i : i + 5]
        if not isinstance(pitch, int) or isinstance(start, str) or isinstance(duration, str):
            raise ArgumentError(
                "Python argument types in MidiNoteSpecification.__init__ did not match C++ "
                "signature"
            )
        notes.append(Note(pitch, float(start), float(duration), float(velocity), bool(mute)))
    _notes_of(clip, "add_new_notes").notes.extend(notes)


def _remove_notes(clip: SongClip | None, rest: Args) -> None:
    span = _span(rest, "remove")
    gone = _notes_of(clip, "remove_notes_extended").notes_between(*span)
    assert clip is not None
    clip.notes = [note for note in clip.notes if note not in gone]


# Devices


def _devices(song: Song) -> dict[str, Handler]:
    def on(function: Callable[[SongDevice, Args], Args | None]) -> Handler:
        def handle(args: Args) -> Args | None:
            track, number = int(args[0]), int(args[1])
            answer = function(at(song.track(track).devices, number), args[2:])
            return None if answer is None else (track, number, *answer)

        return handle

    def every(read: Callable[[SongDevice, Any], Any]) -> Handler:
        return on(lambda device, _: tuple(read(device, p) for p in device.parameters))

    def one(read: Callable[[SongDevice, Any], Any]) -> Handler:
        return on(
            lambda device, rest: (int(rest[0]), read(device, at(device.parameters, int(rest[0]))))
        )

    def name_of(_: SongDevice, parameter: Any) -> str:
        return parameter.name

    table = {f"/live/device/get/{name}": on(_get(name)) for name in ("name", "class_name", "type")}
    table["/live/device/get/num_parameters"] = on(lambda device, _: (len(device.parameters),))
    table["/live/device/get/parameters/name"] = every(name_of)
    table["/live/device/get/parameters/value"] = every(SongDevice.value)
    table["/live/device/get/parameters/min"] = every(lambda _, p: float(p.minimum))
    table["/live/device/get/parameters/max"] = every(lambda _, p: float(p.maximum))
    table["/live/device/get/parameters/is_quantized"] = every(lambda _, p: bool(p.quantized))
    table["/live/device/get/parameter/name"] = one(name_of)
    table["/live/device/get/parameter/value"] = one(SongDevice.value)
    table["/live/device/get/parameter/value_string"] = one(SongDevice.text)
    table["/live/device/set/parameter/value"] = on(_set_parameter)
    table["/live/device/set/parameters/value"] = on(_set_parameters)
    return table


def _set_parameter(device: SongDevice, rest: Args) -> None:
    index, value = rest[:2]
    device.set_value(at(device.parameters, int(index)), value)


def _set_parameters(device: SongDevice, rest: Args) -> None:
    """From parameter 0 on; not atomic: a bad value loses the tail."""
    for index, value in enumerate(rest):
        device.set_value(at(device.parameters, index), value)
