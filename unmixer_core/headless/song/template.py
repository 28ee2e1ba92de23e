"""The template tracks that a user of stock AbletonOSC prepares by hand (docs/live.md).

Together they hold every device of the schema.
"""

from __future__ import annotations

from unmixer_core.headless.song.song import Song
from unmixer_core.schema.rack import RACK

#: Layouts: one track for each effect, or all effects on one track.
TEMPLATES = ("tracks", "compact")
#: First word of a template track's name.
PREFIX = "Unmixer"


def prepare(song: Song, layout: str) -> None:
    """Append the template tracks to the set. `layout` is one of TEMPLATES."""
    _add(song, RACK.synth.name, True, [RACK.synth.name])
    if layout == "compact":
        _add(song, "effects", False, list(RACK.effect_names))
        return
    for name in RACK.effect_names:
        _add(song, name, False, [name])


def _add(song: Song, name: str, is_midi: bool, devices: list[str]) -> None:
    track = song.new_track(f"{PREFIX} {name}", is_midi)
    for device in devices:
        track.insert_device(device, -1)
    song.tracks.append(track)
