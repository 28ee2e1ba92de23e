"""Which hosts there are: embedded ones and real Live, from the environment or from hosts.yaml,
which git does not track.

    hosts:
      - embedded: 2                  # processes of our own on this machine (under Ray: wherever a
        core is free)
      - live: 192.168.1.20           # a machine that runs Live with AbletonOSC
        lanes: 4
        recordings: "D:/Sets=/mnt/studio"
        delete_recordings: true
        node: 192.168.1.20           # under Ray: the node that speaks with it

UNMIXER_HOSTS names such a file, or lists hosts:
`embedded,embedded,192.168.1.20,192.168.1.21:11000`. The machine decides who renders, never what: no
stage's hash knows of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unmixer_core.config.yaml12 import read_yaml
from unmixer_core.errors import ConfigError
from unmixer_core.live.osc.transport import Endpoint
from unmixer_core.live.session.recordings import PathMap
from unmixer_core.system.environment import integer

EMBEDDED_LANES, LIVE_LANES = 2, 4
FILE = Path(__file__).resolve().parents[3] / "hosts.yaml"
EMBEDDED = "embedded"
KEYS: dict[str, type] = {
    EMBEDDED: int,
    "live": str,
    "name": str,
    "lanes": int,
    "port": int,
    "reply_port": int,
    "companion_port": int,
    "recordings": str,
    "delete_recordings": bool,
    "node": str,
}
PORTS = ("port", "reply_port", "companion_port")


@dataclass(frozen=True)
class HostSpec:
    """One host.

    `live` is None for a process of our own, which gets `options` on its command line; `node`: for
    Ray.
    """

    name: str
    live: Endpoint | None = None
    lanes: int = EMBEDDED_LANES
    options: tuple[str, ...] = ()
    recordings: str = ""
    delete_recordings: bool = False
    node: str = ""


def embedded(
    n: int, lanes: int | None = None, options: Sequence[str] = (), node: str = ""
) -> list[HostSpec]:
    """`n` processes of our own."""
    return [
        HostSpec(f"embedded host {i + 1}", None, lanes or EMBEDDED_LANES, tuple(options), node=node)
        for i in range(n)
    ]


def configured(environ: Mapping[str, str] = os.environ, file: Path = FILE) -> list[HostSpec] | None:
    """UNMIXER_HOSTS, else UNMIXER_LIVE_HOST, else hosts.yaml; None when nobody says anything.

    Embedded ones then.

    Raises ConfigError that names what is wrong and where.
    """
    text = environ.get("UNMIXER_HOSTS", "").strip()
    if text.endswith((".yaml", ".yml")):
        return _read(Path(text))
    if text and text != EMBEDDED:
        return _finish([_word(word.strip(), environ) for word in text.split(",")])
    if environ.get("UNMIXER_LIVE_HOST"):
        return [_from_environment(environ)]
    return _read(file) if file.exists() and not text else None


def sounds(environ: Mapping[str, str] = os.environ, file: Path = FILE) -> list[str]:
    """What kinds of hosts render, each once.

    "embedded", "live", or the address that UNMIXER_LIVE_HOST names.
    """
    specs = configured(environ, file)
    if specs is None:
        return [EMBEDDED]
    if not environ.get("UNMIXER_HOSTS", "").replace(EMBEDDED, "") and environ.get(
        "UNMIXER_LIVE_HOST"
    ):
        return [environ["UNMIXER_LIVE_HOST"]]
    return sorted({"live" if spec.live else EMBEDDED for spec in specs})


def _from_environment(environ: Mapping[str, str]) -> HostSpec:
    recordings = environ.get("UNMIXER_LIVE_RECORDINGS", "")
    PathMap.parse(recordings, "UNMIXER_LIVE_RECORDINGS")
    endpoint = Endpoint.from_environment(environ)
    delete = environ.get("UNMIXER_LIVE_DELETE_RECORDINGS") == "1"
    return HostSpec(
        f"Live at {endpoint}",
        endpoint,
        live_lanes(environ),
        recordings=recordings,
        delete_recordings=delete,
    )


def live_lanes(environ: Mapping[str, str] = os.environ) -> int:
    """UNMIXER_LIVE_LANES, the tracks that record side by side in Live."""
    return integer("UNMIXER_LIVE_LANES", LIVE_LANES, 1, environ=environ)


def _word(word: str, environ: Mapping[str, str]) -> HostSpec:
    """`embedded`, `host` or `host:port`; the rest as the environment says for one Live."""
    if word == EMBEDDED:
        return embedded(1)[0]
    host, _, port = word.partition(":")
    if not host:
        raise ConfigError(
            f"UNMIXER_HOSTS is {environ['UNMIXER_HOSTS']!r}, but 'embedded' and addresses, "
            f"separated by commas, are "
            "expected, or the name of a .yaml file."
        )
    ports = {"UNMIXER_OSC_PORT": port} if port else {}
    return _from_environment({**environ, "UNMIXER_LIVE_HOST": host, **ports})


def _read(path: Path) -> list[HostSpec]:
    data = read_yaml(path)
    entries = data.get("hosts")
    if set(data) != {"hosts"} or not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path} must hold one list named 'hosts' with at least one host in it.")
    specs: list[HostSpec] = []
    for i, entry in enumerate(entries):
        specs += _entry(entry, f"hosts[{i}] of {path}")
    return _finish(specs)


def _entry(entry: Any, where: str) -> list[HostSpec]:
    """One item of the list: a Live, or a number of embedded hosts."""
    if not isinstance(entry, dict) or (EMBEDDED in entry) == ("live" in entry):
        raise ConfigError(
            f"{where} must be a mapping with either 'embedded: <how many>' or 'live: <address>'."
        )
    for key, value in entry.items():
        if key not in KEYS:
            raise ConfigError(f"{where} has an unknown key {key!r}; known are {', '.join(KEYS)}.")
        if not _fits(key, value):
            raise ConfigError(f"{key} in {where} is {value!r}, but {_wanted(key)} is expected.")
    if EMBEDDED in entry:
        return embedded(entry[EMBEDDED], entry.get("lanes"), node=entry.get("node", ""))
    PathMap.parse(entry.get("recordings", ""), f"recordings in {where}")
    endpoint = Endpoint(entry["live"], **{key: entry[key] for key in PORTS if key in entry})
    return [
        HostSpec(
            entry.get("name") or f"Live at {endpoint}",
            endpoint,
            entry.get("lanes", LIVE_LANES),
            recordings=entry.get("recordings", ""),
            delete_recordings=entry.get("delete_recordings", False),
            node=entry.get("node", ""),
        )
    ]


def _fits(key: str, value: Any) -> bool:
    if KEYS[key] is not int:
        return isinstance(value, KEYS[key])
    highest = 65535 if key in PORTS else 1024
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= highest


def _wanted(key: str) -> str:
    if key in PORTS:
        return "a port number (1 to 65535)"
    return {int: "a whole number from 1 to 1024", bool: "true or false", str: "text"}[KEYS[key]]


def _finish(specs: list[HostSpec]) -> list[HostSpec]:
    """Names told apart, and reply ports shared where several Lives answer to one.

    Raises ConfigError for a Live named twice.
    """
    lives = [spec.live for spec in specs if spec.live]
    places = [(live.host, live.reply_port or live.port) for live in lives]
    for place in places:
        if places.count(place) > 1:
            raise ConfigError(
                f"Live at {place[0]} is in the list of hosts twice; lanes, not hosts, share one "
                f"Live."
            )
    finished, n = [], 0
    for spec in specs:
        if spec.live is None:
            n += 1
            finished.append(replace(spec, name=f"embedded host {n}"))
        else:
            finished.append(replace(spec, live=replace(spec.live, shared=len(lives) > 1)))
    return finished
