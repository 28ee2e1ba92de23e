"""Fault injection in the embedded host, to test clients.

    python -m unmixer_core.headless --fault loss:chance=0.05 --fault crash:take=2 --fault-seed 7

`install` puts wrappers around a server's link, its recordings and single addresses. The rest of the
host has no code for faults. Takes (recordings) are counted from 1; `take=0` means every take,
`note=60` the takes of one note. `once=FILE` limits a fault of takes to one: the first host that
injects it creates the file, and a host that finds the file does not inject it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from unmixer_core.errors import ConfigError
from unmixer_core.headless.faults.faulty_link import LINK_FAULTS, FaultyLink
from unmixer_core.headless.faults.faulty_takes import TAKE_FAULTS, FaultyTakes
from unmixer_core.headless.server.server import OscServer
from unmixer_core.headless.song.values import Args, Handler

Settings = Mapping[str, float | str]
ADDRESS_FAULTS: dict[str, dict[str, float | str]] = {
    "no_device": {"name": "Reverb"},  # Live has no such device: inserting it fails
    "no_parameter": {
        "name": "Volume"
    },  # another version of Live has another name for the parameter
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
        """The fault that a text `NAME[:key=value,...]` describes.

        Raises ConfigError for an unknown name or key, or a value that is no number.
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
    """Inject the faults into `server`. `seed` is that of their random generator."""
    by_name = {fault.name: fault.settings for fault in faults}
    gone = [fault.settings["name"] for fault in faults if fault.name == "no_parameter"]
    link_faults = {name: by_name[name] for name in by_name if name in LINK_FAULTS}
    server.link = FaultyLink(server.link, link_faults, seed)
    take_faults = {name: by_name[name] for name in by_name if name in TAKE_FAULTS}
    takes = FaultyTakes(server.pool, server.song, take_faults)
    server.recorder.pool = takes
    _change_reply(server.live, "/live/clip/get/file_path", takes.named)
    if "no_device" in by_name:
        _refuse_device(server, str(by_name["no_device"]["name"]))
    if "no_parameter" in by_name:
        _change_reply(
            server.live, "/live/device/get/parameters/name", lambda reply: _renamed(reply, gone)
        )
    if "version" in by_name:
        version = (int(by_name["version"]["major"]), int(by_name["version"]["minor"]))
        _change_reply(server.live, "/live/application/get/version", lambda _: version)
    if "no_companion" in by_name:
        server.companion.clear()


def _change_reply(table: dict[str, Handler], address: str, change: Callable[[Args], Args]) -> None:
    """Apply `change` to each reply of an address."""
    right = table[address]

    def handle(args: Args) -> Args | None:
        reply = right(args)
        return None if reply is None else change(reply)

    table[address] = handle


def _renamed(reply: Args, gone: Sequence[object]) -> Args:
    """The reply, with another name for each parameter in `gone`."""
    return tuple(f"{value!s} (renamed)" if value in gone else value for value in reply)


def _refuse_device(server: OscServer, name: str) -> None:
    right = server.companion["/unmixer/track/insert_device"]

    def insert(args: Args) -> Args:
        if args[1] == name:
            raise RuntimeError(f"Device {name} not found.")
        return right(args)

    server.companion["/unmixer/track/insert_device"] = insert
