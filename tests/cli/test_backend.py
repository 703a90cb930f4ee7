"""`graybox backend` as a user meets it: a process, its terminal, its exit code."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from graybox.cli.backend import parser
from tests.cli.conftest import TINY, Start, Write, wait_for
from tests.patience import PATIENCE


def test_the_command_line() -> None:
    given = parser().parse_args(["--experiment", "a.py:f", "--root-directory", "d", "--port", "0", "--new_run"])
    assert vars(given) == {"experiment": "a.py:f", "root_directory": "d", "host": None, "port": 0, "new_run": True}


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--experiment", "nowhere.py"], {}, "there is no experiment file 'nowhere.py' in "),
        (["--experiment", "notes.txt"], {}, "'notes.txt' is no experiment file; give FILE.py or FILE.py:FUNCTION"),
        (["--root_directory", "a-file/root"], {}, "a-file"),
        (["--port", "0"], {"GRAYBOX_LOG_LEVEL": "loud"}, "GRAYBOX_LOG_LEVEL is 'LOUD'; choose one of DEBUG, INFO"),
        ([], {"GRPC_BACKEND_PORT": "http"}, "GRPC_BACKEND_PORT='http'"),
        (["--host", "no.such.host.invalid"], {}, "no.such.host.invalid"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(
    arguments: list[str], environment: dict[str, str], message: str, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "a-file").touch()
    process = start("backend", *arguments, **{"GRPC_BACKEND_PORT": "0", **environment})
    printed, complained = process.communicate(timeout=PATIENCE)
    assert (process.returncode, printed) == (2, "")
    assert complained.startswith("graybox backend: ")
    assert message in complained
    assert complained.count("\n") == 1


def test_a_port_in_use(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for process in (start("backend", "--port", port), start("backend", GRPC_BACKEND_PORT=str(port))):
            complained = process.communicate(timeout=PATIENCE)[1]
            assert process.returncode == 2
            assert complained.startswith("graybox backend: ")
            assert complained.count("\n") == 1
            assert f"{port}" in complained and "in use" in complained and "--port" in complained


def test_a_file_that_raises_shows_the_users_part(start: Start, write: Write) -> None:
    path = write("gx_raising.py", "def get_exp():", "    return 1 / 0")
    process = start("backend", "--experiment", path, "--port", 0)
    complained = process.communicate(timeout=PATIENCE)[1].splitlines()
    assert process.returncode == 2
    assert complained[0] == "Traceback (most recent call last):"
    assert complained[1] == f'  File "{path}", line 2, in get_exp'
    assert complained[-1] == "graybox backend: gx_raising.py:2 raised ZeroDivisionError: division by zero"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_loads_ends_it_quietly(number: signal.Signals, start: Start, write: Write) -> None:
    path = write("gx_loading.py", "import pathlib, time", "pathlib.Path('loading').touch()", "time.sleep(600)")
    process = start("backend", "--experiment", path, "--port", 0)
    wait_for((path.parent / "loading").exists, "loading", process)
    process.send_signal(number)
    assert process.communicate(timeout=PATIENCE) == ("", "")
    assert process.returncode == 128 + number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_with_a_checkpoint(
    number: signal.Signals, start: Start, write: Write, free_port: Callable[[], int], root: Path
) -> None:
    path = write("gx_training.py", TINY, "def get_exp(): return build()")
    port = free_port()
    process = start("backend", "--experiment", path, "--root_directory", root, "--port", port)
    wait_for((root / "backend.json").exists, "the start of the server", process)
    announced = json.loads((root / "backend.json").read_text())
    assert announced["address"] == f"127.0.0.1:{port}"
    assert announced["pid"] == process.pid
    run = root / announced["run_id"]
    wait_for(lambda: json.loads((run / "run.json").read_text())["step"] > 0, "the first step", process)
    process.send_signal(number)
    printed, complained = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, complained
    assert f"listening on 127.0.0.1:{port}\nTo see it: graybox dashboard --root_directory {root}\n" in printed
    assert "Traceback" not in complained
    assert not (root / "backend.json").exists()
    assert list((run / "checkpoints").glob("*.pt"))
    assert json.loads((run / "run.json").read_text())["state"] == "ended"


def test_a_second_backend_in_one_root_is_refused(start: Start, write: Write, root: Path) -> None:
    path = write("gx_one_root.py", TINY, "def get_exp(): return build()")
    first = start("backend", "--experiment", path, "--root_directory", root, "--port", 0)
    wait_for((root / "backend.json").exists, "the start of the server", first)
    second = start("backend", "--experiment", path, "--root_directory", root, "--port", 0)
    complained = second.communicate(timeout=PATIENCE)[1].splitlines()
    assert second.returncode == 2
    assert complained[-1].startswith(f"graybox backend: another backend (process {first.pid}) works in {root}")
    assert "Traceback" not in "".join(complained)
    assert first.poll() is None
