"""Sound that runs from track to track.

What an audio track hears through its input routing, as in Live.

An audio track passes its input on through its devices only while it is monitored (monitoring "In"),
and Live offers no input that would close a loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unmixer_core.headless.song.song import Song, SongDevice, Track

MONITOR_IN = 0
PRE_FX = "Pre FX"


def source_of(song: Song, track: Track) -> Track | None:
    """The track that `track` takes its input from; None for an outer input or none."""
    name = track.input_routing_type.display_name
    return next((other for other in song.tracks if other.name == name and other is not track), None)


def downstream(song: Song, track: Track) -> set[str]:
    """Names of the tracks that hear `track`, directly or through others."""
    return {other.name for other in song.tracks if track in _upstream(song, other)}


def sound_into(song: Song, capture: Track) -> tuple[Track | None, list[SongDevice]]:
    """The MIDI track at the start of what `capture` hears, and all devices on the way.

    (None, []) when nothing comes.
    """
    devices: list[SongDevice] = []
    listener = capture
    for track in _upstream(song, capture):
        if listener is not capture and listener.current_monitoring_state != MONITOR_IN:
            break
        if listener.input_routing_channel.display_name != PRE_FX:
            devices = track.devices + devices
        if track.is_midi:
            return track, devices
        listener = track
    return None, []


def _upstream(song: Song, track: Track) -> list[Track]:
    """From the track that feeds `track` back to where the sound begins."""
    found: list[Track] = []
    while (
        not track.is_midi and (source := source_of(song, track)) is not None and source not in found
    ):
        found.append(source)
        track = source
    return found
