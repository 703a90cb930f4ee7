"""The memory of a run's samples: columns in RAM, a checksummed log per batch, an HDF5 snapshot now and then.

On disk: samples.h5 (sample_snapshot.py documents its layout, readable by plain h5py and pandas) and the logs since,
samples-<n>.log (sample_log.py). Opening loads the snapshot and replays the logs to the last good record.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graybox.errors import Invalid, NotFound, Refused, StorageError
from graybox.store.record_log import HEADER, RecordLog, read_records
from graybox.store.sample_columns import STATE_COLUMNS, Rows, SplitColumns, SplitSummary
from graybox.store.sample_log import KIND, VERSION, apply_payload, batch_payload, discard_payload, split_payload
from graybox.store.sample_query import SampleFilter, Selection, select
from graybox.store.sample_snapshot import SplitImage, image_of, read_snapshot, write_snapshot

__all__ = ["SampleFilter", "SampleStore", "Selection", "SplitColumns", "SplitSummary"]

_log = logging.getLogger(__name__)

SNAPSHOT_NAME = "samples.h5"
_LOG_NAME = re.compile(r"samples-(\d+)\.log")
_KEPT_SELECTIONS = 8


class SampleStore:
    """The sample columns of one run. The owner writes, one thread at a time; readers look at the columns without a
    lock. `snapshot` and `sync` may run in another thread meanwhile."""

    def __init__(self, folder: Path | str, *, read_only: bool = False) -> None:
        """folder: the run's. Raises StorageError for a broken snapshot or a file that cannot be opened."""
        self.folder = Path(folder)
        self.read_only = read_only
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
        self._splits, first = read_snapshot(self.folder / SNAPSHOT_NAME)
        for number in self._log_numbers():
            if number < first:
                self._log_path(number).unlink(missing_ok=True)
        numbers = self._log_numbers() or [first]
        for number in numbers[:-1]:
            self._replay(number, self._splits)
        self._number = numbers[-1]
        self._writer = self._open_log(self._number, replay=True)
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
        self, split: str, rows: ArrayLike, losses: ArrayLike, predictions: ArrayLike | None, age: int
    ) -> None:
        """Note what one batch did: one vectorised write, one record in the log.

        rows: [n], one that comes twice counts twice and its last value wins. losses: [n], float32. predictions: [n], or
        None to leave them. Raises NotFound for an unknown split or row, Invalid for other shapes, StorageError when the
        disk refuses; nothing is changed then.
        """
        self._writable()
        code = self._code(split)
        columns = self._splits[code]
        found = columns.checked_rows(rows)
        loss = np.ascontiguousarray(losses, dtype=np.float32)
        prediction = None if predictions is None else np.ascontiguousarray(predictions, dtype=np.int64)
        if loss.shape != found.shape or (prediction is not None and prediction.shape != found.shape):
            raise Invalid(f"a batch of {len(found)} samples of {split!r} needs as many losses and predictions")
        payload = batch_payload(code, found, loss, prediction, age)
        with self._guard:
            self._writer.append(payload)
            columns.record(found, loss, prediction, age)
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
        """Copies of what training changed, for a checkpoint: "split/column" for prediction, loss, encounters, last_age
        and discarded."""
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
        wanted = _checked_state(self._splits, state)
        with self._snapshot_guard:
            number = self._number + 1
            images = [_image_with(columns, wanted[columns.name]) for columns in self._splits]
            # On disk first: memory never shows what a restart would not. The owner is here, so nothing comes between.
            with self._next_log(number) as writer:
                write_snapshot(self.folder / SNAPSHOT_NAME, images, number)
                with self._guard:
                    for columns in self._splits:
                        columns.set_state(wanted[columns.name])
                    old = self._rotate(writer, number)
                    self.discard_version += 1
                    self._version += 1
                    self._snapshot_version = self._version
            old.close()
            self._drop_logs(number)

    def snapshot(self) -> bool:
        """Write samples.h5 and begin a new log; False where nothing changed since the last one, and after `close`.

        Holds the owner only while the columns are copied. Raises StorageError when the disk refuses; the snapshot and
        the logs from before are then still there.
        """
        self._writable()
        with self._snapshot_guard:
            if self._closed or self._snapshot_version == self._version:
                return False
            number = self._number + 1
            with self._next_log(number) as writer, self._guard:
                images = [image_of(columns) for columns in self._splits]
                version = self._version
                old = self._rotate(writer, number)
            try:
                old.sync()
                write_snapshot(self.folder / SNAPSHOT_NAME, images, number)
            finally:
                old.close()
            self._snapshot_version = version
            self._drop_logs(number)
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
            signature = self._files()
            if signature == self._signature:
                return
            splits, first = read_snapshot(self.folder / SNAPSHOT_NAME)
            for number in self._log_numbers():
                if number >= first:
                    self._replay(number, splits)
            # A snapshot that came meanwhile may have taken a log away before it was read.
            if [entry for entry in self._files() if entry[0] == SNAPSHOT_NAME] == [
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

    def _log_path(self, number: int) -> Path:
        return self.folder / f"samples-{number}.log"

    def _log_numbers(self) -> list[int]:
        try:
            names = os.listdir(self.folder)
        except OSError as error:
            raise StorageError(f"cannot read the run folder {self.folder}: {error.strerror or error}") from error
        return sorted(int(match[1]) for name in names if (match := _LOG_NAME.fullmatch(name)))

    def _open_log(self, number: int, replay: bool = False) -> RecordLog:
        def take(payload: bytes) -> None:
            apply_payload(payload, self._splits)

        return RecordLog(self._log_path(number), kind=KIND, version=VERSION, replay=take if replay else None)

    def _replay(self, number: int, splits: list[SplitColumns]) -> None:
        path, reached = self._log_path(number), HEADER.size
        for end, payload in read_records(path, KIND, VERSION):
            apply_payload(payload, splits)
            reached = end
        if not self.read_only and reached < path.stat().st_size:
            _log.warning("%s is broken after byte %d; what followed there is lost", path, reached)

    @contextlib.contextmanager
    def _next_log(self, number: int) -> Iterator[RecordLog]:
        """A new log, made before the owner has to wait for anything; removed again when it was not taken."""
        writer = self._open_log(number)
        try:
            yield writer
        finally:
            if self._writer is not writer:
                writer.close()
                self._log_path(number).unlink(missing_ok=True)

    def _rotate(self, writer: RecordLog, number: int) -> RecordLog:
        old, self._writer, self._number = self._writer, writer, number
        return old

    def _drop_logs(self, first: int) -> None:
        for number in self._log_numbers():
            if number < first:
                self._log_path(number).unlink(missing_ok=True)

    def _files(self) -> tuple[tuple[str, int, int], ...]:
        found: list[tuple[str, int, int]] = []
        for name in sorted(os.listdir(self.folder)):
            if name == SNAPSHOT_NAME or _LOG_NAME.fullmatch(name):
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(self.folder / name)
                    found.append((name, status.st_ino, status.st_size))
        return tuple(found)


def _image_with(columns: SplitColumns, state: Mapping[str, NDArray[Any]]) -> SplitImage:
    whole = {
        name: state.get(name, np.full(columns.count, unseen, dtype=kind))
        for name, (kind, unseen) in STATE_COLUMNS.items()
    }
    return SplitImage(columns.name, columns.count, columns.fingerprint, {"label": columns.label, **whole})


def _checked_state(splits: list[SplitColumns], state: Mapping[str, ArrayLike]) -> dict[str, dict[str, NDArray[Any]]]:
    """The state by split and column, in the columns' own types."""
    wanted: dict[str, dict[str, NDArray[Any]]] = {columns.name: {} for columns in splits}
    counts = {columns.name: columns.count for columns in splits}
    for key, value in state.items():
        name, _, column = key.rpartition("/")
        if column not in STATE_COLUMNS:
            raise Invalid(f"{key!r} is no sample column; a key is split/column, of {', '.join(STATE_COLUMNS)}")
        if name not in counts:
            _log.warning("left out %s: there is no split %s any more", key, name)
            continue
        array = np.asarray(value)
        if array.shape != (counts[name],):
            raise Invalid(f"{key!r} has shape {list(array.shape)}, but the split has {counts[name]} samples")
        wanted[name][column] = array.astype(STATE_COLUMNS[column][0])
    return wanted
