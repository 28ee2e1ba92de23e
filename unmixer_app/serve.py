"""`unmix serve`: the service and its page at http://127.0.0.1:8000. `main` only assembles."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Security
from fastapi.responses import FileResponse
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles

from unmixer_app.service.service import Service
from unmixer_app.service.settings import ServiceSettings
from unmixer_app.service.store import Store
from unmixer_app.web import faults
from unmixer_app.web.gate import Gate
from unmixer_app.web.routes import router
from unmixer_core.errors import UnmixerError

PAGE = Path(__file__).resolve().parent / "page"
#: Uvicorn's own bound, which it answers with plain text: above the gate's of requests, for
#: connections that never ask.
CONNECTIONS = 512
GOODBYE_S = 2
#: For the OpenAPI document; it refuses nothing itself.
BEARER = HTTPBearer(
    auto_error=False,
    description="Asked for by the gate where the service can be reached from other machines.",
)
ABOUT = (
    "From a sound to the Ableton Live patch that makes it. Upload a sound, follow its job, take "
    "the patch; or render, "
    "describe and push patches. Every answer that is not a success holds one sentence under "
    "`detail`."
)


def create_app(settings: ServiceSettings, service: Service | None = None) -> FastAPI:
    """The ASGI application.

    Its lifespan runs `service`, or opens one of its own: raises ConfigError when that cannot be.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running() if service else Service.open(settings) as app.state.service:
            yield

    app = FastAPI(
        title="Neural Un-Mixer",
        version="0.1.0",
        description=ABOUT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        form_limits={"max_files": 1, "max_fields": 256, "max_part_size": 4096},
        license_info={"name": "GPL-3.0-or-later"},
    )
    faults.install(app)
    app.include_router(router, dependencies=[Security(BEARER)])
    app.get("/", include_in_schema=False)(_index)
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    app.add_middleware(
        Gate,
        settings=settings,
        page=("/page", "/favicon.ico"),
        count=lambda method, status: app.state.service.meters.requested(method, status),
        admit=lambda: faults.refusal(app.state.service),
    )
    return app


async def _index() -> FileResponse:
    return FileResponse(PAGE / "index.html")


def main(environ: Mapping[str, str] = os.environ) -> int:
    """The exit status: 0 after Ctrl-C, 1 when it cannot start (one sentence on stderr)."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        settings = ServiceSettings.from_environment(environ)
        with Store.open(settings.folder, settings.queue) as store:
            server = HttpServer(settings, Service(settings, store))
            with suppress(KeyboardInterrupt):  # uvicorn has shut down and raises it again
                server.run()
            return 0 if server.started else 1
    except UnmixerError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


class HttpServer(uvicorn.Server):
    """Tells where it is once it is there."""

    def __init__(self, settings: ServiceSettings, service: Service) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(settings, service),
                host=settings.host,
                port=settings.port,
                log_level="warning",
                access_log=False,
                limit_concurrency=CONNECTIONS,
                timeout_graceful_shutdown=GOODBYE_S,
                server_header=False,
                proxy_headers=False,
            )
        )
        self.settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            sys.stderr.write(
                f"The Un-Mixer is at {replace(self.settings, port=port).url} (Ctrl-C ends it)\n"
            )
            if self.settings.reachable:
                sys.stderr.write(
                    "It can be reached from other machines: whoever has the token in that address "
                    "may use it.\n"
                )


if __name__ == "__main__":
    sys.exit(main())
