"""The start_listen and stop_listen addresses.

A listener sends a value at once, and again after each change, under the address of the getter.

There is one client, as in AbletonOSC. The name, class and type of a device are sent without ids,
which is a bug of AbletonOSC. Live calls its listeners; this host compares values instead: after
every datagram, every tick, and every quarter of a second in between. A listener belongs to an
index (track 3), not to an object.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from unmixer_core.headless.song.values import Args, Handler, OscValue

PARAMETER = "/live/device/get/parameter/value"
#: Parts of the getters that AbletonOSC has no listener for.
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
#: First parts of the getters that have a listener.
LISTENED = (
    "/live/song/get/",
    "/live/track/get/",
    "/live/clip_slot/get/",
    "/live/clip/get/",
    "/live/device/get/",
)
#: Getters whose listeners send the value without ids.
WITHOUT_IDS = tuple(f"/live/device/get/{name}" for name in ("name", "class_name", "type"))


class Listeners:
    """The listeners of one client. Adds the two addresses of each getter to the table `live`.

    `send(address, arguments)` sends a value to the client.
    """

    def __init__(self, live: dict[str, Handler], send: Callable[[str, Args], None]) -> None:
        self._live = live
        self._send = send
        #: The last reply of each getter with its ids.
        self._last: dict[tuple[str, tuple[OscValue, ...]], Args | None] = {}
        getters = [address for address in live if _has_listener(address)]
        for getter in getters:
            live[getter.replace("/get/", "/start_listen/")] = partial(self._start, getter)
            live[getter.replace("/get/", "/stop_listen/")] = partial(self._stop, getter)

    def send_changes(self) -> None:
        """Send the values that have changed; end the listeners whose object no longer exists."""
        for (getter, ids), before in list(self._last.items()):
            try:
                now = self._live[getter](ids)
            except Exception:
                del self._last[getter, ids]
                continue
            if now != before:
                self._last[getter, ids] = now
                self._send_reply(getter, ids, now)

    def _start(self, getter: str, ids: Args) -> None:
        if getter == PARAMETER and not all(isinstance(i, int) for i in ids):
            raise ValueError("Invalid index type")
        now = self._live[getter](ids)
        self._last[getter, tuple(ids)] = now
        self._send_reply(getter, ids, now)

    def _stop(self, getter: str, ids: Args) -> None:
        self._last.pop((getter, tuple(ids)), None)

    def _send_reply(self, getter: str, ids: Args, reply: Args | None) -> None:
        if reply is None:
            return
        if getter in WITHOUT_IDS:
            reply = reply[len(ids) :]
        self._send(getter, reply)
        if getter == PARAMETER:
            text = f"{PARAMETER}_string"
            self._send(text, self._live[text](ids) or ())


def _has_listener(address: str) -> bool:
    if address == f"{PARAMETER}_string" or any(part in address for part in NOT_LISTENED):
        return False
    return address.startswith(LISTENED) and not address.endswith("/parameter/name")
