"""The control surface: finds AbletonOSC among the running ones and adds our addresses to it, or opens a port of its own.

AbletonOSC owns UDP 11000, and two scripts cannot. So we register handlers on its server, as its own handlers do; they
are put there again every second, because /live/api/reload drops them. If AbletonOSC cannot be found for a while (Live
hides control surfaces from each other in some versions), we listen on 11002; the client tries both.
"""

from __future__ import annotations

from typing import Any

import Live
from ableton.v2.control_surface import ControlSurface

from .operations import Operations
from .osc import Port

OWN_PORT, REPLY_PORT = 11002, 11001
TICKS_BETWEEN_LOOKS = 10
LOOKS_BEFORE_OWN_PORT = 5


class UnmixerCompanion(ControlSurface):
    """Lives as long as it is chosen in Live's settings."""

    def __init__(self, c_instance: Any) -> None:
        super().__init__(c_instance)
        self._operations = Operations(lambda: self.song)
        self._port: Port | None = None
        self._ticks = self._looks = 0
        self._announced = False
        self.schedule_message(1, self._tick)

    def disconnect(self) -> None:
        if self._port is not None:
            self._port.close()
            self._port = None
        super().disconnect()

    def _tick(self) -> None:
        """Every 100 ms."""
        if self._ticks % TICKS_BETWEEN_LOOKS == 0:
            self._look()
        self._ticks += 1
        if self._port is not None:
            self._port.process(self._operations.answer)
        self.schedule_message(1, self._tick)

    def _look(self) -> None:
        server = _abletonosc_server()
        if server is not None:
            for address in self._operations.addresses:
                server.add_handler(address, _Handler(server, self._operations, address))
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
        if not self._announced:
            self._announced = True
            self.show_message(f"UnmixerCompanion {text}")
            self.log_message(f"UnmixerCompanion {text}")


class _Handler:
    """One address on AbletonOSC's server: a returned tuple is sent to the sender under the same address."""

    def __init__(self, server: Any, operations: Operations, address: str) -> None:
        self._server, self._operations, self._address = server, operations, address

    def __call__(self, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
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
