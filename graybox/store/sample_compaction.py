"""The process beside training that works snapshots of samples out, and what is taken over from it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from graybox.errors import StorageError
from graybox.store.compact import compact
from graybox.store.files import remove_leftovers, sync_folder
from graybox.store.sample_log_files import SampleLogFiles

_log = logging.getLogger(__name__)

IN_THE_THREAD = 2 << 20
"""So many bytes of columns and logs are worked on in less time than a process takes to start."""


class Compaction:
    """Makes the snapshots of one run's samples. One thread calls `run`; any may call `held_off`."""

    def __init__(self, files: SampleLogFiles) -> None:
        self._files = files
        self._guard = threading.Lock()
        self._held = 0
        self._child: subprocess.Popen[str] | None = None

    def run(self, first_log: int, column_bytes: int) -> bool:
        """Put everything that the logs below `first_log` say into samples.h5. False when it was held off; the snapshot
        of before is then still there, as it is when something fails.

        column_bytes: of the columns; what is small is done in the calling thread. Raises StorageError when the disk
        refuses, a file is broken, or the process ends early.
        """
        if column_bytes + self._files.bytes_of_logs() <= IN_THE_THREAD:
            compact(self._files, first_log, self._files.snapshot)
            return True
        name = f".{self._files.snapshot.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
        target = self._files.snapshot.with_name(name)
        try:
            return self._run_child(first_log, target)
        except OSError as error:
            raise StorageError(f"the process for the snapshot of samples failed: {error}") from error
        finally:
            with contextlib.suppress(OSError):
                target.unlink(missing_ok=True)
            remove_leftovers(self._files.folder)  # of a child that was ended

    @contextlib.contextmanager
    def held_off(self) -> Iterator[None]:
        """End the process that is at work, and start none meanwhile."""
        with self._guard:
            self._held += 1
            if self._child is not None:
                self._child.kill()
        try:
            yield
        finally:
            with self._guard:
                self._held -= 1

    def _run_child(self, first_log: int, target: Path) -> bool:
        with self._guard:
            if self._held:
                return False
            child = self._child = _start(self._files.folder, first_log, target)
        try:
            told, complaints = child.communicate()
        finally:
            with self._guard:
                self._child = None
                held = self._held > 0
        if held:
            return False
        if child.returncode != 0:
            reason = complaints.strip() or f"it ended with {child.returncode}"
            raise StorageError(f"the process for the snapshot of samples failed: {reason}")
        for complaint in complaints.splitlines():
            _log.warning("%s", complaint)
        self._take_over(told, target)
        return True

    def _take_over(self, told: str, target: Path) -> None:
        try:
            size = int(json.loads(told)["bytes"])
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"the process for the snapshot of samples said {told[:100]!r}") from error
        if target.stat().st_size != size:
            raise StorageError(f"{target} has {target.stat().st_size} bytes, not the {size} that were written")
        os.replace(target, self._files.snapshot)
        sync_folder(self._files.folder)


def _start(folder: Path, first_log: int, target: Path) -> subprocess.Popen[str]:
    """A fresh interpreter that finds the same modules, started without a copy of this process. Raises OSError."""
    if not sys.executable:
        raise OSError("this Python does not know its own program")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),
        "OPENBLAS_NUM_THREADS": "1",  # or it would reserve memory for threads that have nothing to do
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-m", compact.__module__, str(folder), str(first_log), str(target), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        process_group=0,  # Ctrl-C is for training, which ends it
    )
