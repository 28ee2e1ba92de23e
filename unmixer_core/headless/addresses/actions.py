"""Actions that several groups of addresses share: get and set an attribute, stop clips.

An action takes the object that the ids of a message name, and the arguments behind the ids. It
returns the values of the reply, or None for no reply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unmixer_core.headless.song.tracks import Track
from unmixer_core.headless.song.values import Args, Settable

#: An action on an object of any class.
Action = Callable[[object, Args], Args | None]


def get_attribute(name: str) -> Action:
    """An action that replies with an attribute, or None where Live raises RuntimeError.

    The fold state of a plain track raises, and AbletonOSC sends nil for it.
    """

    def read(target: object, _: Args) -> Args:
        try:
            return (getattr(target, name),)
        except RuntimeError:
            return (None,)

    return read


def set_attribute(name: str) -> Callable[[Settable | None, Args], None]:
    """An action that sets an attribute to the first argument."""

    def write(target: Settable | None, rest: Args) -> None:
        # An empty slot has no clip: the client gets Python's own error sentence about None.
        target.assign(name, rest[0])  # type: ignore[union-attr]

    return write


def stop_clips(tracks: Sequence[Track]) -> None:
    """Stop the clips of tracks."""
    for track in tracks:
        track.playing_slot_index = -1
        for slot in track.clip_slots:
            if slot.clip is not None:
                slot.clip.is_playing = False
