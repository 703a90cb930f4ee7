"""The child process that serves runs that have ended: the same contract, read from disk, no training inside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from pathlib import Path

from graybox.dashboard.endpoint import Endpoint

log = logging.getLogger(__name__)

_START_SECONDS = 60.0
_STOP_SECONDS = 5.0
_RETRY_SECONDS = (1.0, 5.0, 30.0)


class Archive:
    """Keeps one archive server alive beside the dashboard. It ends when its standard input closes, thus with us.

    command: the program to run; by default the archive service over `root`. Without it the dashboard still shows the
    live run, so a failure to start is logged, not raised.
    """

    def __init__(self, root: Path, command: list[str] | None = None) -> None:
        self._command = command or [
            sys.executable,
            "-m",
            "graybox.service.archive",
            "--root_directory",
            str(root),
            "--port",
            "0",
        ]
        self._root = root
        self._endpoint: Endpoint | None = None
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None

    def find(self) -> Endpoint | None:
        """Where the child listens; None while it starts or has failed."""
        return self._endpoint

    def describe(self) -> str:
        """What it reads, for people."""
        return f"the archive of {self._root}"

    def start(self) -> None:
        """Start the child in the background of the running event loop."""
        self._task = asyncio.ensure_future(self._keep_alive())

    async def stop(self) -> None:
        """Close the child's standard input and wait for it; it is killed when it does not end by itself."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._endpoint = None
        if self._process is not None:
            await _end(self._process)
            self._process = None

    async def _keep_alive(self) -> None:
        attempt = 0
        while True:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    start_new_session=True,  # Ctrl-C is for us; the child ends with its standard input
                )
                self._endpoint = await _announced(self._process)
                if self._endpoint is not None:
                    attempt = 0
                    log.info("ended runs are read at %s", self._endpoint.address)
                    await self._process.wait()
                self._endpoint = None
                await _end(self._process)
            except OSError as error:
                log.warning("the archive service cannot be started: %s", error)
            delay = _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)]
            attempt += 1
            log.warning("the archive service ended; ended runs come back when it does (next try in %g s)", delay)
            await asyncio.sleep(delay)


async def _announced(process: asyncio.subprocess.Process) -> Endpoint | None:
    """The endpoint the child prints as one JSON line; None when it ends or says nothing sensible in time."""
    assert process.stdout is not None
    try:
        # Not wait_for: up to Python 3.11 it loses a cancellation that comes with the answer, and who stops us waits on.
        async with asyncio.timeout(_START_SECONDS):
            line = await process.stdout.readline()
        content = json.loads(line)
        return Endpoint(str(content["address"]), str(content["token"]))
    except (TimeoutError, ValueError, KeyError, TypeError):
        return None


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
