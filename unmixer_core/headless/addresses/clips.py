"""The `/live/clip_slot` and `/live/clip` addresses of AbletonOSC."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from unmixer_core.headless.addresses.actions import get_attribute, set_attribute, stop_clips
from unmixer_core.headless.song.clips import Note, SongClip
from unmixer_core.headless.song.song import Song
from unmixer_core.headless.song.tracks import ClipSlot
from unmixer_core.headless.song.values import (
    Args,
    ArgumentError,
    Handler,
    OscValue,
    at,
    to_float,
    to_int,
)

#: A range of notes: lowest pitch, count of pitches, first beat, length in beats.
NoteSpan = tuple[int, int, float, float]
#: AbletonOSC's default range. It omits pitch 127, as in AbletonOSC.
DEFAULT_NOTE_SPAN: NoteSpan = (0, 127, -8192.0, 16384.0)
#: Properties of a slot that can only be read.
SLOT_READS = (
    "has_clip",
    "controls_other_clips",
    "is_group_slot",
    "is_playing",
    "is_triggered",
    "playing_status",
    "will_record_on_start",
)
#: Properties of a clip that can only be read.
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


def slot_handlers(song: Song, fire: Callable[[ClipSlot, Args], None]) -> dict[str, Handler]:
    """The handler of each `/live/clip_slot` address."""

    def on(function: Callable[[ClipSlot, Args], Args | None]) -> Handler:
        def handle(args: Args) -> Args | None:
            track = to_int(args[0])
            slot = to_int(args[1])
            answer = function(at(song.track(track).clip_slots, slot), args[2:])
            return None if answer is None else (track, slot, *answer)

        return handle

    def duplicate(slot: ClipSlot, rest: Args) -> None:
        target = at(song.track(to_int(rest[0])).clip_slots, to_int(rest[1]))
        if slot.clip is None:
            raise RuntimeError("Slot is empty")
        target.clip = slot.clip.copy()

    table: dict[str, Handler] = {}
    for name in (*SLOT_READS, *ClipSlot.rules):
        table[f"/live/clip_slot/get/{name}"] = on(get_attribute(name))
    table["/live/clip_slot/set/has_stop_button"] = on(set_attribute("has_stop_button"))
    table["/live/clip_slot/fire"] = on(fire)
    table["/live/clip_slot/stop"] = on(lambda slot, _: stop_clips([slot.track]))
    table["/live/clip_slot/create_clip"] = on(lambda slot, rest: slot.create_clip(rest[0]))
    table["/live/clip_slot/delete_clip"] = on(lambda slot, _: slot.delete_clip())
    table["/live/clip_slot/duplicate_clip_to"] = on(duplicate)
    return table


def clip_handlers(song: Song, fire: Callable[[ClipSlot, Args], None]) -> dict[str, Handler]:
    """The handler of each `/live/clip` address."""

    def on_slot(function: Callable[[ClipSlot, Args], Args | None]) -> Handler:
        def handle(args: Args) -> Args | None:
            track = to_int(args[0])
            number = to_int(args[1])
            slot = at(song.track(track).clip_slots, number)
            answer = function(slot, args[2:])
            return None if answer is None else (track, number, *answer)

        return handle

    def on(function: Callable[[SongClip | None, Args], Args | None]) -> Handler:
        """A handler of a clip; the function gets None for an empty slot and raises."""
        return on_slot(lambda slot, rest: function(slot.clip, rest))

    table: dict[str, Handler] = {}
    for name in (*CLIP_READS, *SongClip.rules):
        table[f"/live/clip/get/{name}"] = on(get_attribute(name))
    for name in SongClip.rules:
        table[f"/live/clip/set/{name}"] = on(set_attribute(name))
    table["/live/clip/fire"] = on_slot(fire)
    table["/live/clip/stop"] = on_slot(lambda slot, _: stop_clips([slot.track]))
    table["/live/clip/get/notes"] = on(_get_notes)
    table["/live/clip/add/notes"] = on(_add_notes)
    table["/live/clip/remove/notes"] = on(_remove_notes)
    return table


def _span(rest: Args, verb: str) -> NoteSpan:
    """The range of notes that the arguments name, or all notes when there are none."""
    if len(rest) not in (0, 4):
        raise ValueError(
            f"Invalid number of arguments for /clip/{verb}/notes. Either 0 or 4 arguments must be "
            f"passed."
        )
    return cast("NoteSpan", rest or DEFAULT_NOTE_SPAN)


def _midi_clip(clip: SongClip | None, method: str) -> SongClip:
    """The clip. Raises Live's error when there is none or when it is an audio clip."""
    if clip is None:
        raise AttributeError(f"'NoneType' object has no attribute '{method}'")
    if not clip.is_midi_clip:
        raise RuntimeError("Only MIDI clips have notes")
    return clip


def _get_notes(clip: SongClip | None, rest: Args) -> Args:
    span = _span(rest, "get")
    notes = _midi_clip(clip, "get_notes_extended").notes_between(*span)
    values: list[OscValue] = []
    for note in notes:
        values += [note.pitch, note.start_time, note.duration, note.velocity, note.mute]
    return tuple(values)


def _add_notes(clip: SongClip | None, rest: Args) -> None:
    notes = []
    for i in range(0, len(rest), 5):
        pitch, start, duration, velocity, mute = rest[i : i + 5]
        if not isinstance(pitch, int) or isinstance(start, str) or isinstance(duration, str):
            raise ArgumentError(
                "Python argument types in MidiNoteSpecification.__init__ did not match C++ "
                "signature"
            )
        notes.append(
            Note(pitch, to_float(start), to_float(duration), to_float(velocity), bool(mute))
        )
    _midi_clip(clip, "add_new_notes").notes.extend(notes)


def _remove_notes(clip: SongClip | None, rest: Args) -> None:
    span = _span(rest, "remove")
    midi_clip = _midi_clip(clip, "remove_notes_extended")
    removed = midi_clip.notes_between(*span)
    midi_clip.notes = [note for note in midi_clip.notes if note not in removed]
