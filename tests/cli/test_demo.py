"""`graybox demo` as a user meets it: two real processes on the real digits, started and stopped."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graybox.cli.demo import BACKEND_STOP_SECONDS, parser
from tests.cli.conftest import Start, children_of, is_alive, wait_for
from tests.patience import PATIENCE


def test_the_command_line() -> None:
    given = parser().parse_args(["--root_directory", "d", "--port", "8060", "--backend_port", "50060"])
    assert vars(given) == {"root_directory": "d", "port": 8060, "backend_port": 50060, "new_run": False}
    assert vars(parser().parse_args([]))["port"] == 8050


@pytest.mark.parametrize("flag", ["--port", "--backend_port"])
def test_a_port_in_use_is_named_with_its_flag(flag: str, start: Start, root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start("demo", "--root_directory", root, "--port", 0, "--backend_port", 0, flag, port)
        printed, complained = process.communicate(timeout=PATIENCE)
    assert (process.returncode, printed) == (2, "")
    assert complained.startswith("graybox demo: ")
    assert str(port) in complained
    assert complained.endswith(f" with {flag}\n")
    assert list(root.glob("*.log")) == [], "nothing was started"


def test_a_root_that_cannot_be_made(start: Start, tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    process = start("demo", "--root_directory", "a-file/root", "--port", 0, "--backend_port", 0)
    complained = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 2
    assert "a-file" in complained
    assert complained.count("\n") == 1


class Running:
    """A demo that answers."""

    def __init__(self, process: subprocess.Popen[str], root: Path, port: int) -> None:
        self.process = process
        self.root = root
        self.port = port
        assert process.stdout is not None
        self.line = process.stdout.readline()
        if not self.line:
            pytest.fail(f"the demo ended with code {process.wait()}: {process.stderr and process.stderr.read()}")
        self.children = children_of(process.pid)
        self.backend: int = json.loads((root / "backend.json").read_text())["pid"]
        (self.dashboard,) = set(self.children) - {self.backend}

    def end(self) -> tuple[str, str]:
        """Waits for the end of the demo; what else it printed, and what it complained about."""
        return self.process.communicate(timeout=2 * PATIENCE)

    def nothing_is_left(self) -> bool:
        return not any(is_alive(pid) for pid in self.children)


@pytest.fixture
def running(start: Start, root: Path, free_port: Callable[[], int]) -> Iterator[Running]:
    port, backend_port = free_port(), free_port()
    process = start("demo", "--root_directory", root, "--port", port, "--backend_port", backend_port)
    demo = Running(process, root, port)
    yield demo
    for pid in demo.children:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def test_it_says_where_it_is_and_ctrl_c_stops_both(running: Running) -> None:
    assert running.line == f"Graybox is running: open http://127.0.0.1:{running.port}/ (Ctrl-C stops it)\n"
    with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/", timeout=PATIENCE) as page:
        assert page.status == 200
    running.process.send_signal(signal.SIGINT)
    printed, complained = running.end()
    assert running.process.returncode == 0, complained
    assert printed == ""
    assert complained.splitlines()[-1].startswith("Stopping: the backend writes its checkpoint")
    assert "Traceback" not in complained
    assert running.nothing_is_left()
    (run,) = running.root.glob("*/run.json")
    assert json.loads(run.read_text())["state"] == "ended"
    assert list((run.parent / "checkpoints").glob("*.pt"))
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection("127.0.0.1", running.port).request("GET", "/")


@pytest.mark.slow
def test_sigterm_stops_both(running: Running) -> None:
    running.process.send_signal(signal.SIGTERM)
    running.end()
    assert running.process.returncode == 0
    assert running.nothing_is_left()


@pytest.mark.slow
@pytest.mark.parametrize(("dead", "other"), [("backend", "dashboard"), ("dashboard", "backend")])
def test_when_one_dies_the_other_is_stopped_and_it_says_which(dead: str, other: str, running: Running) -> None:
    os.kill(getattr(running, dead), signal.SIGKILL)
    complained = running.end()[1]
    assert running.process.returncode == 1
    assert re.search(rf"the {dead} ended by itself \(signal 9; .*\), so the {other} is stopped too", complained)
    assert running.nothing_is_left()
    if other == "backend":
        (run,) = running.root.glob("*/run.json")
        assert json.loads(run.read_text())["state"] == "ended", "it was asked to stop, and had the time to"


@pytest.mark.slow
def test_children_do_not_outlive_a_demo_that_is_killed(running: Running) -> None:
    running.process.kill()
    running.process.wait()
    wait_for(running.nothing_is_left, "the end of both children")


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait(running: Running) -> None:
    os.kill(running.backend, signal.SIGSTOP)  # a backend that does not come round to stopping
    running.process.send_signal(signal.SIGINT)
    assert running.process.stderr is not None
    while not running.process.stderr.readline().startswith("Stopping: "):  # two signals at once count as one
        assert running.process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        running.process.wait(2)
    running.process.send_signal(signal.SIGINT)
    running.process.wait(BACKEND_STOP_SECONDS / 2)
    assert running.process.returncode == 1
    assert running.nothing_is_left()
