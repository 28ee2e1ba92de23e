"""The embedded host's fault mode.

What can go wrong with a host, on demand, so that tests can see what a client makes of it.

    python -m unmixer_core.headless --fault loss:chance=0.05 --fault crash:take=2 --fault-seed 7

`install` puts wrappers around a server's wire, its recordings and single addresses; nothing else of
the host knows of faults. Takes (recordings) are counted from 1; `take=0` means every take,
`note=60` those of one note. `once=FILE` makes a fault on takes spend itself: the first host that
commits it leaves the file behind, and hosts that find it there behave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unmixer_core.errors import ConfigError
from unmixer_core.headless.faults.faulty_link import LINK_FAULTS, FaultyLink
from unmixer_core.headless.faults.faulty_takes import TAKE_FAULTS, FaultyTakes
from unmixer_core.headless.server.server import OscServer
from unmixer_core.system.json_types import Json

Settings = Mapping[str, float | str]
ADDRESS_FAULTS: dict[str, dict[str, float | str]] = {
    "no_device": {"name": "Reverb"},  # the browser has no such device: inserting it is refused
    "no_parameter": {"name": "Volume"},  # another version of Live calls the parameter otherwise
    "no_companion": {},  # stock AbletonOSC
    "version": {"major": 11.0, "minor": 0.0},  # another version of Live
}
#: Every fault's name and its settings with their defaults.
FAULTS = LINK_FAULTS | TAKE_FAULTS | ADDRESS_FAULTS


@dataclass(frozen=True)
class Fault:
    """One fault with all its settings."""

    name: str
    settings: Settings

    @classmethod
    def parse(cls, text: str) -> Fault:
        """`NAME[:key=value,...]`.

        Raises ConfigError for a name or key that is not known, or a value that is no number.
        """
        name, _, rest = text.partition(":")
        if name not in FAULTS:
            raise ConfigError(f"There is no fault {name!r}; known are {', '.join(sorted(FAULTS))}.")
        settings = dict(FAULTS[name])
        for part in filter(None, rest.split(",")):
            key, _, value = part.partition("=")
            if key not in settings:
                raise ConfigError(
                    f"Fault {name} has no setting {key!r}; it has {', '.join(settings) or 'none'}."
                )
            settings[key] = value if isinstance(settings[key], str) else _number(part, value)
        return cls(name, settings)


def _number(part: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ConfigError(f"{part!r} needs a number behind the equals sign.") from None


def install(server: OscServer, faults: Sequence[Fault], seed: int = 0) -> None:
    """Makes `server` commit the faults; chances are drawn from `seed`."""
    by_name = {fault.name: fault.settings for fault in faults}
    gone = [fault.settings["name"] for fault in faults if fault.name == "no_parameter"]
    server.link = FaultyLink(
        server.link, {name: s for name, s in by_name.items() if name in LINK_FAULTS}, seed
    )
    takes = FaultyTakes(
        server.pool, server.song, {name: s for name, s in by_name.items() if name in TAKE_FAULTS}
    )
    server.recorder.pool = takes
    _answer(server.live, "/live/clip/get/file_path", lambda reply: takes.named(reply))
    if "no_device" in by_name:
        _refuse_device(server, str(by_name["no_device"]["name"]))
    if "no_parameter" in by_name:
        _answer(
            server.live, "/live/device/get/parameters/name", lambda reply: _renamed(reply, gone)
        )
    if "version" in by_name:
        version = (int(by_name["version"]["major"]), int(by_name["version"]["minor"]))
        _answer(server.live, "/live/application/get/version", lambda _: version)
    if "no_companion" in by_name:
        server.companion.clear()


def _answer(table: Json, address: str, change: Any) -> None:
    """Puts `change` between an address's reply and the wire."""
    right = table[address]
    table[address] = lambda args: change(right(args))


def _renamed(reply: Sequence[Any], gone: Sequence[object]) -> tuple[Any, ...]:
    return tuple(f"{value} (renamed)" if value in gone else value for value in reply)


def _refuse_device(server: OscServer, name: str) -> None:
    right = server.companion["/unmixer/track/insert_device"]

    def insert(args: Sequence[Any]) -> Sequence[Any]:
        if args[1] == name:
            raise RuntimeError(f"Device {name} not found.")
        return right(args)

    server.companion["/unmixer/track/insert_device"] = insert
