"""The files in a run's folder that sample columns are read from: one snapshot, and the logs since."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from pathlib import Path

from graybox.errors import StorageError
from graybox.store.record_log import HEADER, RecordLog, read_records
from graybox.store.sample_columns import SplitColumns
from graybox.store.sample_log import KIND, VERSION, apply_payload

_log = logging.getLogger(__name__)

SNAPSHOT_NAME = "samples.h5"
_LOG_NAME = re.compile(r"samples-(\d+)\.log")


class SampleLogFiles:
    """samples.h5 and samples-<n>.log of one folder."""

    def __init__(self, folder: Path, *, read_only: bool) -> None:
        self.folder = folder
        self.read_only = read_only

    @property
    def snapshot(self) -> Path:
        """Where the snapshot is, or will be."""
        return self.folder / SNAPSHOT_NAME

    def path(self, number: int) -> Path:
        """Where a log is, or will be."""
        return self.folder / f"samples-{number}.log"

    def numbers(self) -> list[int]:
        """Of the logs that there are, ascending. Raises StorageError when the folder cannot be read."""
        try:
            names = os.listdir(self.folder)
        except OSError as error:
            raise StorageError(f"cannot read the run folder {self.folder}: {error.strerror or error}") from error
        return sorted(int(match[1]) for name in names if (match := _LOG_NAME.fullmatch(name)))

    def open(self, number: int, into: list[SplitColumns] | None = None) -> RecordLog:
        """Open a log for appending, or begin it. into: do to these columns what it holds already."""
        replay = None if into is None else lambda payload: apply_payload(payload, into)
        return RecordLog(self.path(number), kind=KIND, version=VERSION, replay=replay)

    def replay(self, number: int, splits: list[SplitColumns]) -> None:
        """Do to the columns what a log says, up to the first record that is broken."""
        path, reached = self.path(number), HEADER.size
        for end, payload in read_records(path, KIND, VERSION):
            apply_payload(payload, splits)
            reached = end
        if not self.read_only and reached < path.stat().st_size:
            _log.warning("%s is broken after byte %d; what followed there is lost", path, reached)

    def drop_before(self, first: int) -> None:
        """Remove the logs that a snapshot holds."""
        for number in self.numbers():
            if number < first:
                self.path(number).unlink(missing_ok=True)

    def bytes_of_logs(self) -> int:
        """What all of them hold together."""
        return sum(size for name, _, size in self.signature() if name != SNAPSHOT_NAME)

    def signature(self) -> tuple[tuple[str, int, int], ...]:
        """Differs once any of the files was written to: (name, inode, size) of each."""
        found: list[tuple[str, int, int]] = []
        for name in sorted(os.listdir(self.folder)):
            if name == SNAPSHOT_NAME or _LOG_NAME.fullmatch(name):
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(self.folder / name)
                    found.append((name, status.st_ino, status.st_size))
        return tuple(found)
