"""The control surface: finds AbletonOSC among the running ones and adds our addresses to it, or
opens a port of its own.

AbletonOSC owns UDP 11000, and two scripts cannot. So we register handlers on its server, as its own
handlers do; they are put there again every second, because /live/api/reload drops them. If
AbletonOSC cannot be found for a while (Live hides control surfaces from each other in some
versions), we listen on 11002; the client tries both. A port that was opened stays open when
AbletonOSC turns up after all: somebody may be talking to it.
"""

from __future__ import annotations

import logging
from typing import Any

import Live
from ableton.v2.control_surface import ControlSurface

from .operations import Operations
from .osc import Port

log = logging.getLogger(__name__)  # Live writes it to its Log.txt

OWN_PORT, REPLY_PORT = 11002, 11001
TICKS_BETWEEN_LOOKS = 10
LOOKS_BEFORE_OWN_PORT = 5


class UnmixerCompanion(ControlSurface):
    """Lives as long as it is chosen in Live's settings."""

    def __init__(self, c_instance: Any) -> None:
        super().__init__(c_instance)
        self.connected = True
        self._operations = Operations(lambda: self.song)
        self._port: Port | None = None
        self._ticks = self._looks = 0
        self._announced = ""
        self.schedule_message(1, self._tick)

    def disconnect(self) -> None:
        self.connected = False
        if self._port is not None:
            self._port.close()
            self._port = None
        super().disconnect()

    def _tick(self) -> None:
        """Every 100 ms.

        Nothing is raised here: Live drops a scheduled function that raises, and we would be silent.
        """
        if not self.connected:
            return
        try:
            self._work()
        except Exception as error:  # whatever another script, or Live, makes of being looked at
            self._announce(f"goes on after an error: {type(error).__name__}: {error}")
        self._ticks += 1
        self.schedule_message(1, self._tick)

    def _work(self) -> None:
        if self._port is not None:
            self._port.process(self._operations.answer)
        if self._ticks % TICKS_BETWEEN_LOOKS == 0:
            self._look()

    def _look(self) -> None:
        server = _abletonosc_server()
        if server is not None:
            for address in self._operations.addresses:
                server.add_handler(address, _Handler(self, server, self._operations, address))
            self._looks = 0
            self._announce("answers through AbletonOSC")
            return
        self._looks += 1
        if self._port is None and self._looks >= LOOKS_BEFORE_OWN_PORT:
            try:
                self._port = Port(OWN_PORT, REPLY_PORT)
            except OSError as error:
                self._announce(f"found no AbletonOSC and could not open port {OWN_PORT}: {error}")
            else:
                self._announce(f"found no AbletonOSC and listens on port {OWN_PORT}")

    def _announce(self, text: str) -> None:
        """Says in Live's status line and log what is so from now on, once."""
        if text != self._announced:
            self._announced = text
            log.info("UnmixerCompanion %s", text)
            self.show_message(f"UnmixerCompanion {text}")


class _Handler:
    """One address on AbletonOSC's server.

    A returned tuple is sent to the sender under the same address.

    AbletonOSC has no way to take a handler off again. So when the companion is no longer chosen, it
    says what AbletonOSC says of an address that nobody registered.
    """

    def __init__(
        self, surface: UnmixerCompanion, server: Any, operations: Operations, address: str
    ) -> None:
        self._surface, self._server, self._operations, self._address = (
            surface,
            server,
            operations,
            address,
        )

    def __call__(self, arguments: list[Any]) -> tuple[Any, ...] | None:
        if not self._surface.connected:
            self._server.send("/live/error", (f"Unknown OSC address: {self._address}",))
            return None
        address, answer = self._operations.answer(self._address, tuple(arguments))
        if address == self._address:
            return answer
        self._server.send(address, answer)
        return None


def _abletonosc_server() -> Any:
    """AbletonOSC's OSCServer, recognised by what it can do; None when it is not (yet) there."""
    for surface in Live.Application.get_application().control_surfaces:
        server = getattr(surface, "osc_server", None)
        if server is not None and hasattr(server, "add_handler") and hasattr(server, "send"):
            return server
    return None
