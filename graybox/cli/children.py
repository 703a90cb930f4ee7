"""A process that the demo starts, watches and stops."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from graybox.cli import parent

DECIDED_HERE = frozenset({"GRPC_BACKEND_HOST", "GRPC_BACKEND_PORT"})
"""Variables that children do not see: whoever starts them gives both by flag, and the dashboard finds the backend by
the root directory."""

STOPPED_AS_ASKED = frozenset({0, 128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM})
"""Exit codes of a process that was asked to stop and did."""


class Child:
    """One verb of the command line in a process and process group of its own.

    In a group of its own it does not get the terminal's Ctrl-C, so that whoever started it decides the order in which
    things stop. Standard output goes to a log file, standard error to the terminal.
    """

    def __init__(self, name: str, arguments: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "graybox.cli", *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                start_new_session=True,
                env={name: value for name, value in os.environ.items() if name not in DECIDED_HERE}
                | {parent.VARIABLE: "1", "PYTHONUNBUFFERED": "1"},
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: ended by that signal."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal; one that has ended already is left alone."""
        self._process.send_signal(number)

    def wait(self, seconds: float) -> bool:
        """Whether it ended within so many seconds."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """Ends it and everything in its process group, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Lets go of the pipe; for a process that has ended."""
        if self._process.stdin is not None:
            self._process.stdin.close()
