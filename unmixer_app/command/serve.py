"""`unmix serve`: the service and its web page."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from unmixer_core.errors import UnmixerError


def run(words: Sequence[str]) -> int:
    """Run the service until Ctrl-C; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="unmix serve",
        description="The service and its web page. The environment sets the "
        "rest; docs/environment.md lists the variables.",
    )
    parser.add_argument("--host", help="address to listen on (UNMIXER_SERVE_HOST, 127.0.0.1)")
    parser.add_argument("--port", help="port to listen on (UNMIXER_SERVE_PORT, 8000)")
    options = parser.parse_args(words)
    environ = dict(os.environ)
    if options.host is not None:
        environ["UNMIXER_SERVE_HOST"] = options.host
    if options.port is not None:
        environ["UNMIXER_SERVE_PORT"] = options.port
    try:
        from unmixer_app import serve
    except ModuleNotFoundError as error:
        raise UnmixerError(
            f"the service needs the package {error.name}; "
            f"run `pip install -r requirements-serve.txt`."
        ) from None
    return serve.main(environ)
