"""The archive as a process of its own: free of torch, announced on stdout, and gone with its parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from graybox.proto import experiment_service_pb2 as pb
from graybox.store.root import Root
from tests.conftest import REPOSITORY
from tests.patience import PATIENCE, wait_until
from tests.service.toy_owner import ToyOwner
from tests.service.wire_client import WireClient

ARCHIVE = [sys.executable, "-m", "graybox.service.archive", "--root_directory"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """With one run in it."""
    owner = ToyOwner(Root(tmp_path / "root"), "old")
    owner.train(3)
    owner.close()
    return tmp_path / "root"


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts processes; what is left of them ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(command: list[str], **environment: str) -> subprocess.Popen[str]:
        started.append(begun(command, environment))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def begun(command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Closes its stdin; its exit code and what it said on stderr."""
    _, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, errors


def first_line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line: dict[str, Any] = json.loads(process.stdout.readline())
    return line


def test_it_serves_the_root_and_ends_with_its_stdin(root: Path, start: Start) -> None:
    # The variables of a backend: none of them is meant for the archive.
    process = start(
        [*ARCHIVE, str(root)], GRPC_BACKEND_HOST="0.0.0.0", GRPC_BACKEND_PORT="1", GRPC_AUTH_TOKEN="t",
        GRPC_TLS_ENABLED="1",
    )  # fmt: skip
    line = first_line(process)
    assert line["address"].startswith("127.0.0.1:")
    assert line["pid"] == process.pid
    assert line["token"] == line["control_token"] != line["watch_token"]
    with WireClient(line["address"], line["token"]) as client:
        answer = client.ExperimentCommand(get_status=True, get_runs=True)
        assert answer.status.state == pb.ENDED
        assert answer.run_id == line["run_id"]
        assert len(client.GetLatestLoggerData().points) == 6
    assert finish(process) == (0, "")
    assert not (root / "backend.json").exists()


def test_it_never_imports_torch(root: Path, start: Start) -> None:
    program = (
        "import sys\n"
        "from graybox.service.archive import main\n"
        f"code = main(['--root_directory', {str(root)!r}])\n"
        "assert 'torch' not in sys.modules and 'torchvision' not in sys.modules\n"
        "sys.exit(code)\n"
    )
    process = start([sys.executable, "-c", program])
    line = first_line(process)
    with WireClient(line["address"], line["token"]) as client:
        client.ExperimentCommand(get_status=True, get_runs=True, get_journal=True, get_checkpoints=True)
        client.GetDataSamples(records_cnt=10, sort_by="loss", include_raw_data=True)
        client.GetLatestLoggerData(request_full_history=True)
    assert finish(process) == (0, "")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_it_never_outlives_a_parent_that_is_killed(root: Path, start: Start) -> None:
    program = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen({[*ARCHIVE, str(root)]!r}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "sys.stdout.write(child.stdout.readline().decode())\n"
        "sys.stdout.flush()\n"
        "time.sleep(600)\n"
    )
    parent = start([sys.executable, "-c", program])
    pid = int(first_line(parent)["pid"])
    assert is_running(pid)
    parent.kill()
    parent.communicate(timeout=PATIENCE)
    wait_until(lambda: not is_running(pid), "the archive, which has outlived its parent")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_quietly(root: Path, number: signal.Signals, start: Start) -> None:
    process = start([*ARCHIVE, str(root)])
    first_line(process)
    process.send_signal(number)
    process.wait(PATIENCE)
    assert finish(process) == (0, "")


def test_what_keeps_it_from_starting_is_said_in_one_line(root: Path, start: Start) -> None:
    first = start([*ARCHIVE, str(root)])
    port = first_line(first)["address"].rpartition(":")[2]
    second = start([*ARCHIVE, str(root), "--port", port])
    code, errors = finish(second)
    assert code == 2
    assert errors.count("\n") == 1
    assert port in errors
    assert "--port" in errors
    assert finish(first)[0] == 0
