"""What belongs to the machine a service runs on: address, token, limits.

Read from the environment once, at the start.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from unmixer_core.errors import ConfigError
from unmixer_core.live.osc.transport import Endpoint
from unmixer_core.system.environment import integer

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20


@dataclass(frozen=True)
class ServiceSettings:
    """`token`: what a client must send; "" = none is asked for, which only loopback allows.

    `names`: Host headers that are answered besides the address itself. `models`: a model's
    folder, or a folder with full/ and proxy/, or with pretrained/. `rate`: requests a second and
    client, five times as many at once.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str = ""
    names: tuple[str, ...] = ()
    folder: Path = ROOT / ".unmixer" / "service"
    models: Path = ROOT / "models" / "pretrained"
    workers: int = 1
    threads: int = 1
    queue: int = 64
    upload_bytes: int = 64 * MIB
    keep_s: float = 7 * 24 * 3600.0
    keep_bytes: int = 2048 * MIB
    rate: float = 20.0
    live: Endpoint = field(default_factory=Endpoint)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> ServiceSettings:
        """Raises ConfigError naming the variable.

        Where others can come from, a token is made up if none is given.
        """
        number = partial(integer, environ=environ)
        cores = os.cpu_count() or 1
        threads = number("UNMIXER_THREADS", min(cores, 2), 1, 1024)
        host = environ.get("UNMIXER_SERVE_HOST") or cls.host
        names = tuple(
            name.strip().lower()
            for name in environ.get("UNMIXER_SERVE_NAMES", "").split(",")
            if name.strip()
        )
        token = environ.get("UNMIXER_SERVE_TOKEN", "")
        if token and not (
            len(token) >= 16 and token.isascii() and token.isprintable() and " " not in token
        ):
            raise ConfigError(
                "UNMIXER_SERVE_TOKEN must be at least 16 printable ASCII characters without spaces."
            )
        upload_mib = number("UNMIXER_SERVE_UPLOAD_MIB", cls.upload_bytes // MIB, 1, 2048)
        keep_hours = number("UNMIXER_SERVE_KEEP_HOURS", int(cls.keep_s / 3600), 1, 1_000_000)
        keep_mib = number("UNMIXER_SERVE_KEEP_MIB", cls.keep_bytes // MIB, 1, 1 << 30)
        rate = number("UNMIXER_SERVE_RATE", int(cls.rate), 1, 100_000)
        return cls(
            host=host,
            port=number("UNMIXER_SERVE_PORT", cls.port, 0, 65535),
            token=token or (secrets.token_urlsafe(24) if _reachable(host, names) else ""),
            names=names,
            folder=Path(environ.get("UNMIXER_SERVE_FOLDER") or cls.folder),
            models=Path(environ.get("UNMIXER_SERVE_MODELS") or cls.models),
            workers=number("UNMIXER_SERVE_WORKERS", max(1, cores // threads), 1, 256),
            threads=threads,
            queue=number("UNMIXER_SERVE_QUEUE", cls.queue, 1, 100_000),
            upload_bytes=upload_mib * MIB,
            keep_s=keep_hours * 3600.0,
            keep_bytes=keep_mib * MIB,
            rate=float(rate),
            live=Endpoint.from_environment(environ),
        )

    @property
    def reachable(self) -> bool:
        """Whether requests may come from other machines.

        Directly, or through a reverse proxy under another name.
        """
        return _reachable(self.host, self.names)

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the page.

        The token travels in the fragment, which no server logs.
        """
        wild = self.host in ("0.0.0.0", "::")
        host = "127.0.0.1" if wild else f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/{f'#token={self.token}' if self.token else ''}"


def loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _reachable(host: str, names: tuple[str, ...]) -> bool:
    return not all(loopback(name) for name in (host, *names))
