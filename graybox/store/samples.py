"""The memory of a run's samples: columns in RAM, a checksummed log per batch, an HDF5 snapshot now and then.

On disk: samples.h5 (sample_snapshot.py documents its layout, readable by plain h5py and pandas) and the logs since,
samples-<n>.log (sample_log.py). Opening loads the snapshot and replays the logs to the last good record.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graybox.errors import Invalid, NotFound, Refused
from graybox.store.record_log import RecordLog
from graybox.store.sample_columns import Ratings, Rows, SplitColumns, SplitSummary
from graybox.store.sample_log import (
    batch_payload,
    discard_payload,
    learnt_payload,
    split_payload,
)
from graybox.store.sample_log_files import SNAPSHOT_NAME, SampleLogFiles
from graybox.store.sample_note_writer import NoteWriter
from graybox.store.sample_query import SampleFilter, Selection, select
from graybox.store.sample_snapshot import image_of, read_snapshot, write_snapshot
from graybox.store.sample_state import checked_state, image_with

__all__ = ["SampleFilter", "SampleStore", "Selection", "SplitColumns", "SplitSummary"]

_log = logging.getLogger(__name__)

_KEPT_SELECTIONS = 8


class SampleStore(NoteWriter):
    """The sample columns of one run. The owner writes, one thread at a time; readers look at the columns without a
    lock. `snapshot` and `sync` may run in another thread meanwhile."""

    def __init__(self, folder: Path | str, *, read_only: bool = False) -> None:
        """folder: the run's. Raises StorageError for a broken snapshot or a file that cannot be opened."""
        self.folder = Path(folder)
        self.read_only = read_only
        self._files = SampleLogFiles(self.folder, read_only=read_only)
        self.discard_version = 0
        self._splits: list[SplitColumns] = []
        self._codes: dict[str, int] = {}
        self._guard = threading.Lock()
        self._snapshot_guard = threading.Lock()
        self._closed = False
        self._version = 0
        self._snapshot_version = -1
        self._selections: OrderedDict[tuple[SampleFilter, str, bool], tuple[int, Selection]] = OrderedDict()
        self._signature: tuple[tuple[str, int, int], ...] | None = None
        if read_only:
            self.refresh()
            return
        self._splits, first = read_snapshot(self._files.snapshot)
        self._files.drop_before(first)
        numbers = self._files.numbers() or [first]
        for number in numbers[:-1]:
            self._files.replay(number, self._splits)
        self._number = numbers[-1]
        self._writer = self._files.open(self._number, self._splits)
        self._codes = {columns.name: code for code, columns in enumerate(self._splits)}

    @property
    def splits(self) -> dict[str, SplitColumns]:
        """The splits by name, in the order they were added."""
        return {columns.name: columns for columns in self._splits}

    # Writing, by the owner

    def add_split(
        self, name: str, count: int, labels: NDArray[np.int64] | None = None, fingerprint: str = ""
    ) -> SplitColumns:
        """The columns of a split: those found on disk when count and fingerprint fit, else new ones.

        labels: int64 [count], -1 none; None keeps those on disk. fingerprint: what identifies the data and its order.
        Where they do not fit, what was known of the split's samples is dropped, with a warning in the log: its rows
        mean other samples now. Raises Invalid for a bad name, count or labels, StorageError when the disk refuses.
        """
        self._writable()
        made = SplitColumns(name, count, fingerprint, labels)
        code = self._codes.get(name, len(self._splits))
        with self._guard:
            if code < len(self._splits):
                found = self._splits[code]
                if found.count == count and found.fingerprint == fingerprint:
                    if labels is not None and not np.array_equal(found.label, made.label):
                        self._writer.append(split_payload(code, made, anew=False))
                        found.label = made.label
                        self._version += 1
                    return found
                _log.warning(
                    "split %s was %d samples (%s) and is %d (%s): its statistics and discards begin anew",
                    name, found.count, found.fingerprint, count, fingerprint,
                )  # fmt: skip
            self._writer.append(split_payload(code, made, anew=True))
            self._splits = [*self._splits[:code], made, *self._splits[code + 1 :]]
            self._codes[name] = code
            self._version += 1
            self.discard_version += 1
        return made

    def record_batch(
        self,
        split: str,
        rows: ArrayLike,
        losses: ArrayLike,
        predictions: ArrayLike | None,
        age: int,
        ratings: Ratings | None = None,
    ) -> None:
        """Note what one batch did: one vectorised write, one record in the log.

        rows: [n], one that comes twice counts twice and its last value wins. losses: [n], float32. predictions: [n], or
        None to leave them. ratings: of the true classes, for the scores that need them. Raises NotFound for an
        unknown split or row, Invalid for other shapes, StorageError when the disk refuses; nothing is changed then.
        """
        self._writable()
        code = self._code(split)
        columns = self._splits[code]
        found = columns.checked_rows(rows)
        loss = np.ascontiguousarray(losses, dtype=np.float32)
        prediction = None if predictions is None else np.ascontiguousarray(predictions, dtype=np.int64)
        if loss.shape != found.shape or (prediction is not None and prediction.shape != found.shape):
            raise Invalid(f"a batch of {len(found)} samples of {split!r} needs as many losses and predictions")
        if ratings is not None and (ratings.confidence.shape != found.shape or ratings.margin.shape != found.shape):
            raise Invalid(f"a batch of {len(found)} samples of {split!r} needs as many confidences and margins")
        payload = batch_payload(code, found, loss, prediction, age, ratings)
        with self._guard:
            self._writer.append(payload)
            columns.record(found, loss, prediction, age, ratings)
            self._version += 1

    def learn_labels(self, split: str, rows: ArrayLike, labels: ArrayLike) -> None:
        """Labels [n] of a data set that tells them only when its samples are loaded, -1 none. Raises as `record_batch`;
        what is known already costs nothing."""
        code, columns, found = self._about(split, rows)
        wanted = np.ascontiguousarray(labels, dtype=np.int64)
        if wanted.shape != found.shape:
            raise Invalid(f"{len(found)} samples of {split!r} need as many labels")
        new = columns.label[found] != wanted
        if new.any():
            with self._guard:
                self._writer.append(learnt_payload(code, found[new], wanted[new]))
                columns.label[found[new]] = wanted[new]
                self._version += 1

    def set_discarded(self, split: str, rows: ArrayLike, value: bool) -> Rows:
        """Discard samples or take them back; the rows that changed, ascending. Durable after `sync`.

        Raises NotFound for an unknown split or row, StorageError when the disk refuses; nothing is changed then.
        """
        self._writable()
        code = self._code(split)
        columns = self._splits[code]
        found = columns.checked_rows(rows)
        with self._guard:
            changed = np.unique(found[columns.discarded[found] != value])
            if len(changed):
                self._writer.append(discard_payload(code, changed, value))
                columns.discard(changed, value)
                self._version += 1
                self.discard_version += 1
        return changed

    def state(self) -> dict[str, NDArray[Any]]:
        """Copies of what training and people changed, for a checkpoint: "split/column" for STATE_COLUMNS, and what
        `SampleNotes.state` answers."""
        with self._guard:
            return {
                f"{columns.name}/{name}": column for columns in self._splits for name, column in columns.state().items()
            }

    def load_state(self, state: Mapping[str, ArrayLike]) -> None:
        """Replace all columns by what `state` answered, then write a snapshot and begin a new log.

        A split that the state does not know becomes as never seen; one that only the state knows is left out, with a
        warning. Raises Invalid when shapes do not fit, StorageError when the disk refuses; nothing is changed then.
        """
        self._writable()
        wanted = checked_state(self._splits, state)
        with self._snapshot_guard:
            number = self._number + 1
            images = [image_with(columns, wanted[columns.name]) for columns in self._splits]
            # On disk first: memory never shows what a restart would not. The owner is here, so nothing comes between.
            with self._next_log(number) as writer:
                write_snapshot(self._files.snapshot, images, number)
                with self._guard:
                    for columns in self._splits:
                        columns.set_state(wanted[columns.name])
                    old = self._rotate(writer, number)
                    self.discard_version += 1
                    self._version += 1
                    self._snapshot_version = self._version
            old.close()
            self._files.drop_before(number)

    def snapshot(self) -> bool:
        """Write samples.h5 and begin a new log; False where nothing changed since the last one, and after `close`.

        What is written is worked out anew from the snapshot and the logs of before, so that the owner waits for
        nothing. Raises StorageError when the disk refuses; the snapshot and the logs from before are then still there.
        """
        self._writable()
        with self._snapshot_guard:
            if self._closed or self._snapshot_version == self._version:
                return False
            number = self._number + 1
            with self._next_log(number) as writer, self._guard:
                version = self._version
                old = self._rotate(writer, number)
            try:
                old.sync()
            finally:
                old.close()
            splits, first = read_snapshot(self._files.snapshot)
            for earlier in self._files.numbers():
                if first <= earlier < number:
                    self._files.replay(earlier, splits)
            write_snapshot(self._files.snapshot, [image_of(columns) for columns in splits], number)
            self._snapshot_version = version
            self._files.drop_before(number)
            return True

    def sync(self) -> None:
        """Wait until what was written before this call is on the disk."""
        if not self.read_only:
            with self._guard:
                writer = self._writer
            writer.sync()

    def close(self) -> None:
        """Sync and close; the columns stay readable. Writes no snapshot of its own."""
        if not self.read_only:
            with self._snapshot_guard:
                self._closed = True
                try:
                    self._writer.sync()
                finally:
                    self._writer.close()

    # Reading, by any thread

    def select(self, criteria: SampleFilter, sort_by: str = "", descending: bool = False) -> Selection:
        """The samples that match, sorted: see `sample_query.select`. Kept until a sample changes."""
        key = (criteria, sort_by, descending)
        version = self._version
        kept = self._selections.get(key)
        if kept is not None and kept[0] == version:
            return kept[1]
        selection = select(self._splits, criteria, sort_by, descending)
        with self._guard:
            self._selections[key] = (version, selection)
            while len(self._selections) > _KEPT_SELECTIONS:
                self._selections.popitem(last=False)
        return selection

    def summary(self) -> dict[str, SplitSummary]:
        """Counts per split."""
        return {columns.name: columns.summary() for columns in self._splits}

    def refresh(self) -> None:
        """Read-only: read anew what another process has written since. The columns are then new objects."""
        if not self.read_only:
            return
        for _ in range(10):
            signature = self._files.signature()
            if signature == self._signature:
                return
            splits, first = read_snapshot(self._files.snapshot)
            for number in self._files.numbers():
                if number >= first:
                    self._files.replay(number, splits)
            # A snapshot that came meanwhile may have taken a log away before it was read.
            if [entry for entry in self._files.signature() if entry[0] == SNAPSHOT_NAME] == [
                entry for entry in signature if entry[0] == SNAPSHOT_NAME
            ]:
                break
        with self._guard:
            self._splits = splits
            self._codes = {columns.name: code for code, columns in enumerate(splits)}
            self._signature = signature
            self._version += 1
            self.discard_version += 1

    # Inside

    def _writable(self) -> None:
        if self.read_only:
            raise Refused(f"the samples in {self.folder} are open for reading only")

    def _code(self, split: str) -> int:
        code = self._codes.get(split)
        if code is None:
            raise NotFound(f"there is no split {split!r}; there are {', '.join(self._codes) or 'none yet'}")
        return code

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

    def _rotate(self, writer: RecordLog, number: int) -> RecordLog:
        old, self._writer, self._number = self._writer, writer, number
        return old
