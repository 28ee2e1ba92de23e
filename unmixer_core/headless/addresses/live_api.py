"""The addresses of stock AbletonOSC, each with its handler.

A handler takes the arguments of a request and returns those of the reply, or None where Live sends
none. It may raise: the server sends the words of the error, as AbletonOSC does. The order of checks
follows AbletonOSC's code, so that the same mistake gets the same words
(../shared/live/transcript.jsonl).
"""

from __future__ import annotations

from collections.abc import Callable

from unmixer_core.headless.addresses import clips, devices, songs, tracks
from unmixer_core.headless.song.song import Song
from unmixer_core.headless.song.tracks import ClipSlot
from unmixer_core.headless.song.values import Args, Handler, OscValue

#: The version of Live that this host imitates.
VERSION = (12, 3)


def handlers(
    song: Song, fire: Callable[[ClipSlot, Args], None], log_level: str = "info"
) -> dict[str, Handler]:
    """The handler of each stock address. `fire(slot, arguments)` launches a clip or a recording."""
    table: dict[str, Handler] = {
        "/live/test": lambda _: ("ok",),
        "/live/application/get/version": lambda _: VERSION,
        "/live/application/get/average_process_usage": lambda _: (3.5,),
        "/live/api/get/log_level": lambda _: (log_level,),
        "/live/api/set/log_level": lambda args: _ignore(args[0]),
        "/live/api/reload": lambda _: None,
        "/live/api/show_message": lambda args: _ignore(args[0]),
    }
    table |= songs.handlers(song)
    table |= tracks.handlers(song)
    table |= clips.slot_handlers(song, fire)
    table |= clips.clip_handlers(song, fire)
    table |= devices.handlers(song)
    return table


def _ignore(_: OscValue) -> None:
    """Accept an argument that has no effect here."""
