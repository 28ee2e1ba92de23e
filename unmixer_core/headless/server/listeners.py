"""start_listen and stop_listen.

The value at once, then whenever it has changed, under the getter's address.

As in AbletonOSC there is one client: who starts to listen last to a property is the one that hears
of it. A device's name, class and type come without the ids, which is AbletonOSC's own slip. Where
Live calls back, we look: after every datagram, every tick, and every quarter of a second in
between. A listener belongs to a place (track 3), not to a thing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

Args = Sequence[Any]
Handler = Callable[[Args], Args | None]
PARAMETER = "/live/device/get/parameter/value"
NOT_LISTENED = (
    "/parameters/",
    "/devices/",
    "/clips/",
    "/available_",
    "_routing_",
    "/notes",
    "/num_",
    "/track_",
    "/scenes/",
    "/cue_",
)
LISTENED = (
    "/live/song/get/",
    "/live/track/get/",
    "/live/clip_slot/get/",
    "/live/clip/get/",
    "/live/device/get/",
)
WITHOUT_IDS = tuple(f"/live/device/get/{name}" for name in ("name", "class_name", "type"))


class Listeners:
    """Adds the addresses to the table `live`; `send(address, arguments)` says a value."""

    def __init__(self, live: dict[str, Handler], send: Callable[[str, Args], None]) -> None:
        self._live, self._send = live, send
        self._said: dict[tuple[str, tuple[Any, ...]], Args | None] = {}
        for getter in [address for address in live if _is_listened(address)]:
            live[getter.replace("/get/", "/start_listen/")] = partial(self._start, getter)
            live[getter.replace("/get/", "/stop_listen/")] = partial(self._stop, getter)

    def look(self) -> None:
        """Says what has changed; a place that is gone is listened to no longer."""
        for (getter, ids), before in list(self._said.items()):
            try:
                now = self._live[getter](ids)
            except Exception:
                del self._said[getter, ids]
                continue
            if now != before:
                self._said[getter, ids] = now
                self._say(getter, ids, now)

    def _start(self, getter: str, ids: Args) -> None:
        if getter == PARAMETER and not all(isinstance(i, int) for i in ids):
            raise ValueError("Invalid index type")
        now = self._live[getter](ids)
        self._said[getter, tuple(ids)] = now
        self._say(getter, ids, now)

    def _stop(self, getter: str, ids: Args) -> None:
        self._said.pop((getter, tuple(ids)), None)

    def _say(self, getter: str, ids: Args, reply: Args | None) -> None:
        if reply is None:
            return
        self._send(getter, reply[len(ids) :] if getter in WITHOUT_IDS else reply)
        if getter == PARAMETER:
            text = f"{PARAMETER}_string"
            self._send(text, self._live[text](ids) or ())


def _is_listened(address: str) -> bool:
    if address == f"{PARAMETER}_string" or any(part in address for part in NOT_LISTENED):
        return False
    return address.startswith(LISTENED) and not address.endswith("/parameter/name")
