"""`unmix serve`: the page and the API on this machine."""

from __future__ import annotations

import argparse
import os
from importlib import import_module, util

from unmixer_app.command.parsing import Command, port
from unmixer_core.errors import UnmixerError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Address and port; everything else is named by UNMIXER_SERVE_* (docs/environment.md)."""
    parser.add_argument("--host", help="address to listen on (default: UNMIXER_SERVE_HOST)")
    parser.add_argument("--port", type=port, help="port (default: UNMIXER_SERVE_PORT, else 8000)")


def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    if util.find_spec("fastapi") is None or util.find_spec("uvicorn") is None:
        raise UnmixerError(
            "the page needs more packages: run `pip install -r requirements-serve.txt`."
        )
    if options.host:
        os.environ["UNMIXER_SERVE_HOST"] = options.host
    if options.port is not None:
        os.environ["UNMIXER_SERVE_PORT"] = str(options.port)
    # Imported by name: the layers of the command stand below the service's.
    status: int = import_module("unmixer_app.serve").main()
    return status


COMMAND = Command("Start the page and the API, at http://127.0.0.1:8000", add_arguments, run)
