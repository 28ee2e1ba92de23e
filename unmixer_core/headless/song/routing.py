"""The signal path from track to track.

An audio track records the track that its input routing names, as in Live. It passes its input on
through its own devices only while its monitoring is "In". Live offers no input that would close a
loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unmixer_core.headless.song.devices import SongDevice
    from unmixer_core.headless.song.song import Song
    from unmixer_core.headless.song.tracks import Track

#: Live's monitoring state In.
MONITOR_IN = 0
#: The input channel before the devices of the source track.
PRE_FX = "Pre FX"


def source_of(song: Song, track: Track) -> Track | None:
    """The track that feeds `track`; None for an external input or no input."""
    name = track.input_routing_type.display_name
    for other in song.tracks:
        if other.name == name and other is not track:
            return other
    return None


def downstream(song: Song, track: Track) -> set[str]:
    """Names of the tracks that `track` feeds, directly or through others."""
    return {other.name for other in song.tracks if track in _upstream(song, other)}


def signal_path(song: Song, capture: Track) -> tuple[Track | None, list[SongDevice]]:
    """The MIDI track that feeds `capture`, and the devices that the sound passes, in their order.

    (None, []) when no sound reaches `capture`.
    """
    devices: list[SongDevice] = []
    receiver = capture
    for track in _upstream(song, capture):
        if receiver is not capture and receiver.current_monitoring_state != MONITOR_IN:
            break
        if receiver.input_routing_channel.display_name != PRE_FX:
            devices = track.devices + devices
        if track.is_midi:
            return track, devices
        receiver = track
    return None, []


def _upstream(song: Song, track: Track) -> list[Track]:
    """The tracks that feed `track`, from its direct source back to the first one."""
    found: list[Track] = []
    while not track.is_midi:
        source = source_of(song, track)
        if source is None or source in found:
            break
        found.append(source)
        track = source
    return found
