"""The memory of a run's samples: columns in RAM, a checksummed log per batch, an HDF5 snapshot now and then.

On disk: samples.h5 (sample_snapshot.py documents its layout, readable by plain h5py and pandas) and the logs since,
samples-<n>.log (sample_log.py). Opening loads the snapshot and replays the logs to the last good record.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graybox.errors import Invalid, NotFound, Refused
from graybox.store.sample_columns import Ratings, Rows, SplitColumns, SplitSummary
from graybox.store.sample_durability import Durability
from graybox.store.sample_keys import SampleKeys, attach_keys, keys_path, write_keys
from graybox.store.sample_log import (
    batch_payload,
    discard_payload,
    learnt_payload,
    split_payload,
)
from graybox.store.sample_log_files import SNAPSHOT_NAME, SampleLogFiles
from graybox.store.sample_note_writer import NoteWriter
from graybox.store.sample_query import SampleFilter, Selection, select
from graybox.store.sample_snapshot import read_snapshot
from graybox.store.target_writer import TargetWriter

__all__ = ["SampleFilter", "SampleStore", "Selection", "SplitColumns", "SplitSummary"]

_log = logging.getLogger(__name__)

_KEPT_SELECTIONS = 8


class SampleStore(NoteWriter, TargetWriter, Durability):
    """The sample columns of one run. The owner writes, one thread at a time; readers look at the columns without a
    lock. `snapshot` and `sync` may run in another thread meanwhile."""

    def __init__(self, folder: Path | str, *, read_only: bool = False) -> None:
        """folder: the run's. Raises StorageError for a broken snapshot or a file that cannot be opened."""
        self.folder = Path(folder)
        self.read_only = read_only
        self.before_change: Callable[[], None] = lambda: None
        """Called before any column is changed, or replaced by another one."""
        self._files = SampleLogFiles(self.folder, read_only=read_only)
        self.discard_version = 0
        self._splits: list[SplitColumns] = []
        self._codes: dict[str, int] = {}
        self._guard = threading.Lock()
        self._version = 0
        self._begin_history()
        self._summary: tuple[int, dict[str, SplitSummary]] | None = None
        self._selections: OrderedDict[tuple[SampleFilter, str, bool], tuple[int | str, Selection]] = OrderedDict()
        self._signature: tuple[tuple[str, int, int], ...] | None = None
        if read_only:
            self.refresh()
            return
        self._splits, first = read_snapshot(self._files.snapshot)
        self._files.drop_before(first)
        numbers = self._files.numbers() or [first]
        for number in numbers[:-1]:
            self._files.replay(number, self._splits)
        self._begin_writing(self._files.open(numbers[-1], self._splits), numbers[-1])
        attach_keys(self.folder, self._splits)
        self._codes = {columns.name: code for code, columns in enumerate(self._splits)}

    @property
    def splits(self) -> dict[str, SplitColumns]:
        """The splits by name, in the order they were added."""
        return {columns.name: columns for columns in self._splits}

    # Writing, by the owner

    def add_split(
        self,
        name: str,
        count: int,
        labels: NDArray[np.int64] | None = None,
        fingerprint: str = "",
        keys: SampleKeys | None = None,
    ) -> SplitColumns:
        """The columns of a split: those found on disk when count and fingerprint fit, else new ones.

        labels: int64 [count], -1 none; None keeps those on disk. fingerprint: what identifies the data and its order.
        keys: the samples' own names, where they have any. Where they do not fit, what was known of the split's samples
        is dropped, with a warning in the log: its rows mean other samples now (see sample_identity.py for what can be
        carried over). Raises Invalid for a bad name, count or labels, StorageError when the disk refuses.
        """
        self._writable()
        code = self._codes.get(name, len(self._splits))
        found = self._splits[code] if code < len(self._splits) else None
        if found is not None and found.count == count and found.fingerprint == fingerprint:
            self._keep_keys(found, keys)
            if labels is not None:
                self._relabel(code, found.checked_labels(labels))
            return found
        made = SplitColumns(name, count, fingerprint, labels)
        self._keep_keys(made, keys)
        with self._guard:
            if found is not None and (keys is None or found.keys is None):  # else the caller carries over what is known
                _log.warning(
                    "split %s was %d samples (%s) and is %d (%s): its statistics and discards begin anew",
                    name, found.count, found.fingerprint, count, fingerprint,
                )  # fmt: skip
            self._writer.append(split_payload(code, made, anew=True))
            self._splits = [*self._splits[:code], made, *self._splits[code + 1 :]]
            self._codes[name] = code
            self._begin_history()
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
            columns.changed[found] = self._version + 1
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
                columns.changed[found[new]] = self._version + 1
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
                columns.changed[changed] = self._version + 1
                columns.discard(changed, value)
                self._version += 1
                self.discard_version += 1
        return changed

    # Reading, by any thread

    def select(self, criteria: SampleFilter, sort_by: str = "", descending: bool = False) -> Selection:
        """The samples that match, sorted: see `sample_query.select`. Kept until a sample changes."""
        key = (criteria, sort_by, descending)
        # What no change of a sample makes another one is kept as long as the splits are.
        version = self._history if not sort_by and criteria == SampleFilter(origin=criteria.origin) else self._version
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
        """Counts per split. Kept until a sample changes."""
        version, kept = self._version, self._summary
        if kept is None or kept[0] != version:
            kept = self._summary = (version, {columns.name: columns.summary() for columns in self._splits})
        return dict(kept[1])

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
        attach_keys(self.folder, splits)
        self._begin_history()  # who reads just now is not to know the columns under the name of what comes
        with self._guard:
            self._splits = splits
            self._codes = {columns.name: code for code, columns in enumerate(splits)}
            self._signature = signature
            self._begin_history(hashlib.sha256(repr(signature).encode()).hexdigest()[:16])
            self._version += 1
            self.discard_version += 1

    # Inside

    def _relabel(self, code: int, labels: NDArray[np.int64]) -> None:
        columns = self._splits[code]
        differ = columns.label != labels
        if differ.any():
            with self._guard:
                self._writer.append(split_payload(code, columns, anew=False, labels=labels))
                columns.changed[differ] = self._version + 1
                columns.label = labels
                self._version += 1

    def _keep_keys(self, columns: SplitColumns, keys: SampleKeys | None) -> None:
        """Keep the names of samples in a file of their own, once."""
        path = keys_path(self.folder, columns.name, columns.fingerprint)
        if keys is not None and path is not None:
            if len(keys) != columns.count:
                raise Invalid(f"{columns.count} samples of {columns.name!r} need as many names, not {len(keys)}")
            columns.keys = keys
            if not path.exists():
                write_keys(path, keys)

    def _writable(self) -> None:
        if self.read_only:
            raise Refused(f"the samples in {self.folder} are open for reading only")
        self.before_change()

    def _code(self, split: str) -> int:
        code = self._codes.get(split)
        if code is None:
            raise NotFound(f"there is no split {split!r}; there are {', '.join(self._codes) or 'none yet'}")
        return code
