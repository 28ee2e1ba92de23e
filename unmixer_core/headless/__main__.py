"""`python -m unmixer_core.headless`: the embedded host.

Prints `ready` when it listens; SIGTERM ends it.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from pathlib import Path

from unmixer_core.errors import ConfigError, UnmixerError
from unmixer_core.headless.faults.faults import FAULTS, Fault, install
from unmixer_core.headless.server.server import OscServer
from unmixer_core.headless.song.template import TEMPLATES
from unmixer_core.system.environment import integer


def main() -> int:
    """Run the host until it is stopped; the exit status."""
    try:
        parser = _parser()
    except ConfigError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    options = parser.parse_args()
    logging.basicConfig(
        level=options.log_level.upper(), format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        faults = [Fault.parse(text) for text in options.fault]
        server = OscServer(
            options.recordings,
            host=options.host,
            port=options.port,
            reply_port=options.reply_port,
            workers=options.workers,
            tick_s=options.tick_ms / 1000.0,
            sample_rate=options.sample_rate,
            parent_pid=options.parent_pid,
            layout=options.stock or options.template,
            has_companion=not options.stock,
            latency_samples=options.latency_samples,
            auto_filter_2=options.auto_filter_2,
        )
        if faults:
            install(server, faults, options.fault_seed)
    except (UnmixerError, OSError) as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: server.stop())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.serve()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m unmixer_core.headless", description=__doc__)
    parser.add_argument(
        "--host",
        default=os.environ.get("UNMIXER_OSC_HOST", "127.0.0.1"),
        help="address to listen on",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=integer("UNMIXER_OSC_PORT", 11000, 0, 65535),
        help="UDP port to listen on",
    )
    parser.add_argument(
        "--reply-port",
        type=int,
        default=integer("UNMIXER_OSC_REPLY_PORT", 11001, 0, 65535),
        help="the client's port",
    )
    parser.add_argument(
        "--recordings", type=Path, default=Path("recordings"), help="folder for recorded WAV files"
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="renders that may run at the same time"
    )
    parser.add_argument(
        "--tick-ms",
        type=float,
        default=0.0,
        help="answer in ticks of this length (100 imitates Live)",
    )
    parser.add_argument("--sample-rate", type=int, default=44100)
    parser.add_argument(
        "--stock",
        nargs="?",
        choices=TEMPLATES,
        const="tracks",
        default="",
        help=(
            "as Live without the companion script: no /unmixer addresses, but a prepared "
            "template set"
        ),
    )
    parser.add_argument(
        "--template",
        choices=TEMPLATES,
        default="",
        help="a prepared template set, with the companion",
    )
    parser.add_argument(
        "--latency-samples",
        type=int,
        default=0,
        help="notes sound this much late (tests alignment)",
    )
    parser.add_argument(
        "--auto-filter-2", action="store_true", help="Auto Filter as Live 12.2 and later inserts it"
    )
    parser.add_argument("--parent-pid", type=int, help="end when this process is gone")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME[:KEY=VALUE,...]",
        help=f"go wrong, for tests: {', '.join(FAULTS)}",
    )
    parser.add_argument("--fault-seed", type=int, default=0, help="of the faults' chances")
    parser.add_argument("--log-level", default="warning")
    return parser


if __name__ == "__main__":
    sys.exit(main())
