"""The part of the sample store that keeps it on disk: the log that is written to, snapshots, whole states, the end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graybox.store.record_log import RecordLog
from graybox.store.sample_changes import ChangeReader
from graybox.store.sample_columns import BYTES_A_SAMPLE
from graybox.store.sample_compaction import Compaction
from graybox.store.sample_log_files import SampleLogFiles
from graybox.store.sample_snapshot import write_snapshot
from graybox.store.sample_state import checked_state, image_with


class Durability(ChangeReader):
    """What `SampleStore` inherits. `snapshot`, `sync` and `close` may run in another thread than the owner's."""

    discard_version: int
    _files: SampleLogFiles
    _guard: threading.Lock

    def _begin_writing(self, writer: RecordLog, number: int) -> None:
        """writer: the log of this number, which is written to from now on."""
        self._writer = writer
        self._number = number
        self._full: list[RecordLog] = []
        """Logs of before that may not be on the disk yet."""
        self._snapshot_guard = threading.Lock()
        self._snapshot_version = -1
        self._compaction = Compaction(self._files)
        self._closed = False

    def _writable(self) -> None:
        raise NotImplementedError

    def state(self) -> dict[str, NDArray[Any]]:
        """Copies of what training and people changed, for a checkpoint: "split/column" for STATE_COLUMNS, and what
        `SampleNotes.state` and `SampleTargets.state` answer."""
        return self.copied(np.array)()

    def copied(self, copy: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[], dict[str, NDArray[Any]]]:
        """What answers the state as it is now, later: the memory is copied by `copy`, and columns are taken out of it
        when they are asked for."""
        with self._guard:
            parts = [(columns.name, columns.copied(copy)) for columns in self._splits]
        return lambda: {f"{split}/{name}": column for split, found in parts for name, column in found().items()}

    def load_state(self, state: Mapping[str, ArrayLike]) -> None:
        """Replace all columns by what `state` answered, then write a snapshot and begin a new log.

        A split that the state does not know becomes as never seen; one that only the state knows is left out, with a
        warning. Raises Invalid when shapes do not fit, StorageError when the disk refuses; nothing is changed then.
        """
        self._writable()
        wanted = checked_state(self._splits, state)
        with self._compaction.held_off(), self._snapshot_guard:
            number = self._number + 1
            images = [image_with(columns, wanted[columns.name]) for columns in self._splits]
            # On disk first: memory never shows what a restart would not. The owner is here, so nothing comes between.
            with self._next_log(number) as writer:
                write_snapshot(self._files.snapshot, images, number)
                self._begin_history()
                with self._guard:
                    for columns in self._splits:
                        columns.set_state(wanted[columns.name])
                    self._rotate(writer, number)
                    self.discard_version += 1
                    self._version += 1
                    self._snapshot_version = self._version
                self._begin_history()
            self._let_go_of_full()
            self._files.drop_before(number)

    def snapshot(self) -> bool:
        """Write samples.h5 and begin a new log; False where nothing changed since the last one, after `close`, and
        where `close` or `load_state` came meanwhile.

        What is written is worked out anew from the snapshot and the logs of before, by a process of its own unless it
        is small, so that the owner waits for nothing. Raises StorageError when the disk refuses or the process fails;
        the snapshot and the logs from before are then still there.
        """
        self._writable()
        with self._snapshot_guard:
            if self._closed or self._snapshot_version == self._version:
                return False
            number = self._number + 1
            with self._next_log(number) as writer, self._guard:
                version = self._version
                self._rotate(writer, number)
            for log in tuple(self._full):
                log.sync()
            self._let_go_of_full()
            size = sum(columns.count for columns in self._splits) * BYTES_A_SAMPLE
            if not self._compaction.run(number, size):
                return False
            self._snapshot_version = version
            self._files.drop_before(number)
            return True

    def sync(self) -> None:
        """Wait until what was written before this call is on the disk."""
        if not self.read_only:
            with self._guard:
                logs = (*self._full, self._writer)
            for log in logs:
                log.sync()

    def close(self) -> None:
        """Sync and close; the columns stay readable. Writes no snapshot of its own, and ends one that is at work."""
        if not self.read_only:
            with self._compaction.held_off(), self._snapshot_guard:
                self._closed = True
                try:
                    self.sync()
                finally:
                    self._let_go_of_full()
                    self._writer.close()

    @contextlib.contextmanager
    def _next_log(self, number: int) -> Iterator[RecordLog]:
        """A new log, made before the owner has to wait for anything; removed again when it was not taken."""
        writer = self._files.open(number)
        try:
            yield writer
        finally:
            if self._writer is not writer:
                writer.close()
                self._files.path(number).unlink(missing_ok=True)

    def _rotate(self, writer: RecordLog, number: int) -> None:
        """Under the guard."""
        self._full.append(self._writer)
        self._writer, self._number = writer, number

    def _let_go_of_full(self) -> None:
        with self._guard:
            full, self._full = self._full, []
        for log in full:
            log.close()
