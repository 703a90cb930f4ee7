"""weights_lab.py as a user starts it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.patience import PATIENCE, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]


@contextmanager
def dashboard(root: Path, port: int, *flags: str) -> Iterator[tuple[str, Path]]:
    """(address, log) of a running dashboard, which must end well on Ctrl-C."""
    log = root.parent / f"dashboard-{port}.log"
    command = [sys.executable, "weights_lab.py", "--root_directory", str(root), "--port", str(port), *flags]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_until(
            lambda: process.poll() is not None or re.search(r"Dash is running on \S+\n", log.read_text()),
            "the address of the dashboard",
        )
        assert process.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}", log
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def fetch(address: str, data: bytes | None = None, **headers: str) -> tuple[int, str, dict[str, str]]:
    """(status, text, headers) of one request."""
    request = urllib.request.Request(address, data, {name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return (
                answer.status,
                answer.read().decode("utf-8", "replace"),
                {k.lower(): v for k, v in answer.headers.items()},
            )
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode("utf-8", "replace"), {}
