"""Runs the dashboard: one process, one event loop, one worker."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import sys
from collections.abc import Sequence

import uvicorn

from graybox.dashboard.app import create_app
from graybox.dashboard.archive import Archive
from graybox.dashboard.hub import Hub
from graybox.dashboard.security import TOKEN_PARAMETER, Gate, new_token
from graybox.dashboard.settings import Settings, SettingsError, read_settings

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of weights_lab.py. Returns the exit code: 2, after one line, for what cannot be done."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        settings = read_settings(sys.argv[1:] if arguments is None else arguments, os.environ)
        listener = listen(settings.host, settings.port)
    except SettingsError as error:
        print(f"graybox dashboard: {error}", file=sys.stderr)
        return 2
    try:
        asyncio.run(serve(settings, listener))
    except KeyboardInterrupt:
        pass
    finally:
        listener.close()
    return 0


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises SettingsError, in one line, where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(f"port {port} on {host} is in use; choose another with --port") from None
        raise SettingsError(f"cannot serve on {host}:{port}: {error.strerror or error}") from None
    listener.setblocking(False)
    return listener


async def serve(settings: Settings, listener: socket.socket) -> None:
    """Serve on a bound socket until a signal ends it."""
    hub = Hub(settings, archive=Archive(settings.root))
    token = "" if settings.on_loopback else new_token()
    app = create_app(hub)
    config = uvicorn.Config(
        Gate(app.server, token),
        log_level="warning",
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=3,
        server_header=False,
        ws="none",
    )
    server = _Server(config, settings, listener.getsockname()[1], token)
    await server.serve(sockets=[listener])


class _Server(uvicorn.Server):
    """Says where it is once it answers."""

    def __init__(self, config: uvicorn.Config, settings: Settings, port: int, token: str) -> None:
        super().__init__(config)
        self._settings = settings
        self._port = port
        self._login = token

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.started:
            return
        url = Settings(root=self._settings.root, host=self._settings.host, port=self._port).url
        print(f"Dash is running on {url}", flush=True)
        if self._login:
            print(
                f"Reachable from other machines, so a login is needed (not encrypted): open "
                f"{url}?{TOKEN_PARAMETER}={self._login}",
                flush=True,
            )
