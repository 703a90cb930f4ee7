"""`graybox demo`: backend and dashboard on the default experiment, started together and stopped together."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, SimpleQueue

from graybox.cli.arguments import DASHBOARD_PORT, DEFAULT_ROOT, LOOPBACK, free_port, port_number, report
from graybox.cli.children import STOPPED_AS_ASKED, Child
from graybox.cli.signals import on_stop_signals
from graybox.errors import GrayboxError
from graybox.service.listening import check_address
from graybox.service.settings import settings_from_environment
from graybox.store.root import Root

START_SECONDS = 180.0
BACKEND_STOP_SECONDS = 60.0
"""Enough for the step that is running and a checkpoint on a slow disk."""
DASHBOARD_STOP_SECONDS = 20.0
"""More than it gives the requests under way and the archive together."""
LOOK_EVERY_SECONDS = 0.1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="graybox demo", description="backend and dashboard on the default experiment")
    made.add_argument("--root_directory", "--root-directory", default=DEFAULT_ROOT, metavar="DIR")
    made.add_argument("--port", type=port_number, default=DASHBOARD_PORT, help="of the page (default: %(default)s)")
    made.add_argument(
        "--backend_port", "--backend-port", type=port_number, help="default: GRPC_BACKEND_PORT, else 50051"
    )
    made.add_argument("--new_run", "--new-run", action="store_true", help="start a new run, keep the last one")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Blocks until Ctrl-C, SIGTERM, or the end of one of the two. Answers the exit code."""
    try:
        arguments = parser().parse_args(argv)
        root = Root(Path(arguments.root_directory)).path
        port = arguments.port or free_port()
        rpc_port = settings_from_environment(host=LOOPBACK, port=arguments.backend_port).port or free_port()
        check_address(LOOPBACK, port, "choose another with --port")
        check_address(LOOPBACK, rpc_port, "choose another with --backend_port")
    except GrayboxError as error:
        return report("demo", error)
    return Demo(root, port=port, backend_port=rpc_port, new_run=arguments.new_run).run()


class Demo:
    """The two processes. One object, one run."""

    def __init__(self, root: Path, *, port: int, backend_port: int, new_run: bool = False) -> None:
        self.root = root
        self.port = port
        self.backend_port = backend_port
        self.new_run = new_run
        # A signal handler may interrupt any line, and SimpleQueue is made to be used from there.
        self._signals: SimpleQueue[int] = SimpleQueue()

    def run(self) -> int:
        """Starts both, says where they are, and waits. Answers the exit code: 0 after a clean stop."""
        on_stop_signals(lambda number, _: self._signals.put(number))
        backend, dashboard = self._start()
        try:
            return self._watch(backend, dashboard)
        finally:
            for child in (backend, dashboard):
                child.kill()
                child.close()

    def _start(self) -> tuple[Child, Child]:
        # Both at once: each spends its first seconds importing, and neither needs the other for that.
        os.environ.setdefault("GRAYBOX_LOG_LEVEL", "WARNING")
        root = f"--root_directory={self.root}"
        rpc = ["backend", root, f"--host={LOOPBACK}", f"--port={self.backend_port}"]
        if self.new_run:
            rpc.append("--new_run")
        backend = Child("backend", rpc, self.root / "backend.log")
        page = ["dashboard", root, f"--host={LOOPBACK}", f"--port={self.port}"]
        dashboard = Child("dashboard", page, self.root / "dashboard.log")
        return backend, dashboard

    def _watch(self, backend: Child, dashboard: Child) -> int:
        give_up = time.monotonic() + START_SECONDS
        announced = False
        while True:
            for child, other in ((backend, dashboard), (dashboard, backend)):
                if child.exit_code is not None:
                    return self._one_died(child, other)
            if not announced and self._both_answer(backend):
                announced = True
                print(f"Graybox is running: open http://{LOOPBACK}:{self.port}/ (Ctrl-C stops it)", flush=True)
            if not announced and time.monotonic() > give_up:
                print(f"graybox demo: nothing answered within {START_SECONDS:.0f} s", file=sys.stderr)
                self._stop(backend, dashboard)
                return 1
            with contextlib.suppress(Empty):
                self._signals.get(timeout=LOOK_EVERY_SECONDS)
                return self._stop(backend, dashboard)

    def _both_answer(self, backend: Child) -> bool:
        try:
            # The backend writes this file when its server stands; an older one may still lie there.
            written = json.loads((self.root / "backend.json").read_bytes())
        except (OSError, ValueError):
            return False
        return written.get("pid") == backend.pid and _accepts(self.backend_port) and _answers_http(self.port)

    def _one_died(self, dead: Child, other: Child) -> int:
        code = dead.exit_code or 0
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        print(
            f"graybox demo: the {dead.name} ended by itself ({how}; see above, and {dead.log}), "
            f"so the {other.name} is stopped too",
            file=sys.stderr,
        )
        self._end(other, signal.SIGINT if other.name == "backend" else signal.SIGTERM)
        return code if code > 0 else 1

    def _stop(self, backend: Child, dashboard: Child) -> int:
        print("Stopping: the backend writes its checkpoint (Ctrl-C again: at once).", file=sys.stderr, flush=True)
        backend.send(signal.SIGINT)
        dashboard.send(signal.SIGTERM)
        self._end(backend, None)
        self._end(dashboard, None)
        failed = [child for child in (backend, dashboard) if child.exit_code not in STOPPED_AS_ASKED]
        for child in failed:
            print(f"graybox demo: the {child.name} did not stop cleanly (exit code {child.exit_code})", file=sys.stderr)
        return 1 if failed else 0

    def _end(self, child: Child, number: signal.Signals | None) -> None:
        """Sends the signal, waits as long as this child may take, and kills it when it takes longer or is hurried."""
        if number is not None:
            child.send(number)
        patience = BACKEND_STOP_SECONDS if child.name == "backend" else DASHBOARD_STOP_SECONDS
        give_up = time.monotonic() + patience
        while not child.wait(LOOK_EVERY_SECONDS):
            if time.monotonic() > give_up or not self._signals.empty():
                child.kill()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _answers_http(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2.0)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
