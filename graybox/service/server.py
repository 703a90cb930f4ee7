"""The gRPC server: binds, checks who calls, and hands requests to the servicers."""

from __future__ import annotations

import ipaddress
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

from graybox.errors import Refused
from graybox.proto import experiment_service_pb2_grpc as pb_grpc
from graybox.service import limits
from graybox.service.announcement import Announcement
from graybox.service.backend import Backend
from graybox.service.desk import Desk
from graybox.service.experiment_servicer import ExperimentServicer
from graybox.service.listening import ADVICE, check_address
from graybox.service.security import RightsInterceptor, Tokens, make_tokens
from graybox.service.settings import Settings
from graybox.service.tls import server_credentials
from graybox.store.root import Root

log = logging.getLogger("graybox.service")

MAX_CALLS = 200
"""Calls at once, running or waiting for a thread; more are answered RESOURCE_EXHAUSTED."""


class RunningServer:
    """A server that answers until `stop`."""

    def __init__(
        self,
        server: grpc.Server,
        desk: Desk,
        workers: ThreadPoolExecutor,
        *,
        host: str,
        port: int,
        tokens: Tokens,
    ) -> None:
        self._server = server
        self.desk = desk
        self._workers = workers
        self._announcement: Announcement | None = None
        self._stopping = threading.Lock()
        self.port = port
        """The port it listens on, the chosen one where 0 was asked for."""
        self.address = _join(_reachable(host), port)
        """"host:port" as a client on this machine reaches it."""
        self.tokens = tokens

    def announce(self, announcement: Announcement) -> None:
        """Publishes where it is, until it stops."""
        announcement.publish()
        self._announcement = announcement

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it has stopped, at most timeout seconds; whether it still runs."""
        return self._server.wait_for_termination(timeout)

    def stop(self, grace: float = 2.0) -> None:
        """Takes no new calls, gives running ones `grace` seconds, ends the others. More than once is fine."""
        with self._stopping:
            if self._announcement is not None:
                self._announcement.withdraw()
                self._announcement = None
            # Ending a call wakes the thread that waits on its behalf, so that none is left behind.
            self._server.stop(grace).wait()
            self._workers.shutdown(wait=True)
            self.desk.close()


def serve(backend: Backend, settings: Settings) -> RunningServer:
    """Puts a live backend, and the other runs of its root, on the wire, and announces it in ROOT/backend.json.

    Raises Refused when the port is taken, Invalid for a host or certificates that do not work, StorageError when
    backend.json cannot be written.
    """
    running = _start(Desk(backend.root, backend), settings)
    try:
        running.announce(
            Announcement(
                backend.root.path,
                address=running.address,
                tokens=running.tokens,
                run_id=backend.run.run_id,
                tls=settings.tls is not None,
            )
        )
    except BaseException:
        running.stop(grace=0)
        raise
    log.info("listening on %s", running.address)
    if not _is_loopback(settings.host):
        log.warning(
            "listening on %s, which other machines may reach; every call needs a token%s",
            _join(settings.host, running.port),
            "" if settings.tls else ", but without GRPC_TLS_ENABLED tokens and data travel unencrypted",
        )
    return running


def serve_archive(root: Root, settings: Settings) -> RunningServer:
    """Puts the runs of a root on the wire as they are on disk, without any backend; not announced in backend.json."""
    return _start(Desk(root, None), settings)


def _start(desk: Desk, settings: Settings) -> RunningServer:
    credentials = server_credentials(settings.tls) if settings.tls else None
    check_address(settings.host, settings.port)
    tokens = make_tokens(settings)
    workers = ThreadPoolExecutor(limits.WORKERS, thread_name_prefix="graybox-rpc")
    server = grpc.server(
        workers,
        interceptors=[RightsInterceptor(tokens)],
        maximum_concurrent_rpcs=MAX_CALLS,
        options=(
            ("grpc.max_send_message_length", settings.max_message_bytes),
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            ("grpc.so_reuseport", 0),  # a second backend on the same port must fail, not share its calls
        ),
    )
    pb_grpc.add_ExperimentServiceServicer_to_server(ExperimentServicer(desk), server)
    wanted = _join(settings.host, settings.port)
    try:
        if credentials is None:
            port = server.add_insecure_port(wanted)
        else:
            port = server.add_secure_port(wanted, credentials)
    except RuntimeError as error:
        workers.shutdown()
        desk.close()
        raise Refused(f"cannot listen on {wanted}; {ADVICE}") from error
    server.start()
    return RunningServer(server, desk, workers, host=settings.host, port=port, tokens=tokens)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _reachable(host: str) -> str:
    """What a client on this machine connects to: a wildcard is no address to connect to."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host)


def _join(host: str, port: int) -> str:
    bare = host.strip("[]")
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"
