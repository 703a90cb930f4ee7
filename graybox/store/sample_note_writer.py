"""The part of the sample store that writes what people and their code note of samples."""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graybox.errors import Invalid
from graybox.store.record_log import RecordLog
from graybox.store.sample_columns import STATE_COLUMNS, Rows, SplitColumns
from graybox.store.sample_log import (
    column_payload,
    labels_payload,
    signal_payload,
    tag_payload,
    weights_payload,
)
from graybox.store.sample_notes import checked_note_name
from graybox.store.sample_scores import DEVIATIONS
from graybox.store.target_columns import DESCRIPTIONS as TARGET_NAMES

TAKEN_NAMES = frozenset(
    (*STATE_COLUMNS, "label", "id", "sample_id", "origin", "split", "tag", "tags", *DEVIATIONS,
     "correct", "wrong", "original_label", "corrected", "weight", *TARGET_NAMES)
)  # fmt: skip
"""Names that no column of a person's may have."""


class NoteWriter:
    """What `SampleStore` inherits: each change is one record in the log, and then made in memory."""

    discard_version: int
    _guard: threading.Lock
    _writer: RecordLog
    _splits: list[SplitColumns]
    _version: int

    def _code(self, split: str) -> int:
        raise NotImplementedError

    def _writable(self) -> None:
        raise NotImplementedError

    def set_tag(self, split: str, tag: str, rows: ArrayLike, value: bool) -> Rows:
        """Give samples a tag or take it from them; the rows that changed, ascending. Durable after `sync`.

        Raises Invalid for what cannot name a tag, NotFound for an unknown split or row, Refused for one tag too many,
        StorageError when the disk refuses; nothing is changed then.
        """
        code, columns, found = self._about(split, rows)
        checked_note_name(tag, "tag")
        with self._guard:
            present = columns.notes.tags.get(tag)
            old = np.zeros(len(found), dtype=bool) if present is None else present[found]
            changed: Rows = np.unique(found[old != value])
            if len(changed):
                if present is None:
                    columns.notes.check_room_for_tag(tag)
                self._writer.append(tag_payload(code, tag, changed, value))
                columns.changed[changed] = self._version + 1
                columns.notes.tag(tag, changed, value)
                self._version += 1
        return changed

    def correct_labels(self, split: str, rows: ArrayLike, labels: ArrayLike) -> tuple[Rows, NDArray[np.int64]]:
        """Put labels in the place of the data set's: int64 [n], -1 for that of the data set again. Answers (rows that
        changed, what they had before: -1 the data set's). Durable after `sync`.

        Raises NotFound for an unknown split or row, Invalid for what is no label, StorageError when the disk refuses;
        nothing is changed then.
        """
        code, columns, found = self._about(split, rows)
        wanted = np.ascontiguousarray(labels, dtype=np.int64)
        if wanted.shape != found.shape or (wanted < -1).any():
            raise Invalid(f"{len(found)} samples of {split!r} need as many labels, of 0 or more (-1: the data set's)")
        with self._guard:
            old = columns.notes.corrections(found)
            differ = old != wanted
            changed, before = found[differ], old[differ]
            if len(changed):
                self._writer.append(labels_payload(code, changed, wanted[differ]))
                columns.changed[changed] = self._version + 1
                columns.notes.correct(changed, wanted[differ])
                self._version += 1
                self.discard_version += 1
        return changed, before

    def set_weights(self, split: str, rows: ArrayLike, weights: ArrayLike) -> tuple[Rows, NDArray[np.float32]]:
        """How often an epoch draws samples: float32 [n], 0 or more. Answers (rows that changed, their weights before).
        Durable after `sync`.

        Raises NotFound for an unknown split or row, Invalid for what is no weight, StorageError when the disk refuses;
        nothing is changed then.
        """
        code, columns, found = self._about(split, rows)
        wanted = np.ascontiguousarray(weights, dtype=np.float32)
        if wanted.shape != found.shape or not ((wanted >= 0) & (wanted < np.inf)).all():
            raise Invalid(f"{len(found)} samples of {split!r} need as many weights, of 0 or more")
        with self._guard:
            old = columns.notes.weights(found)
            differ = old != wanted
            changed, before = found[differ], old[differ]
            if len(changed):
                self._writer.append(weights_payload(code, changed, wanted[differ]))
                columns.changed[changed] = self._version + 1
                columns.notes.weigh(changed, wanted[differ])
                self._version += 1
                self.discard_version += 1
        return changed, before

    def log_signal(self, split: str, name: str, rows: ArrayLike, values: ArrayLike) -> None:
        """Note a number for each of some samples: float32 [n]. Raises as `set_tag`, and Invalid for a name that a
        column has already."""
        code, columns, found = self._about(split, rows)
        check_column_name(columns, name, known=columns.notes.signals)
        numbers = np.ascontiguousarray(values, dtype=np.float32)
        if numbers.shape != found.shape:
            raise Invalid(f"{len(found)} samples of {split!r} need as many values of {name!r}, not {numbers.shape}")
        with self._guard:
            if name not in columns.notes.signals:
                columns.notes.check_room_for_column()
            self._writer.append(signal_payload(code, name, found, numbers))
            columns.changed[_other(columns.notes.signals.get(name), found, numbers)] = self._version + 1
            columns.notes.log(name, found, numbers)
            self._version += 1

    def keep_column(self, split: str, name: str, values: NDArray[Any]) -> None:
        """Keep an array [samples] as a column of this name. Raises Invalid for a name that a column has already or an
        array that does not fit, Refused for one too many, StorageError when the disk refuses."""
        code, columns, _ = self._about(split, ())
        check_column_name(columns, name, known=())
        if values.shape != (columns.count,) or values.dtype.kind not in "iufb":
            raise Invalid(
                f"a column of split {split!r} has {columns.count} numbers, not {values.dtype} {list(values.shape)}"
            )
        with self._guard:
            columns.notes.check_room_for_column()
            self._writer.append(column_payload(code, name, values))
            columns.changed[_known(values)] = self._version + 1
            columns.notes.copy(name, values.copy())
            self._version += 1

    def drop_column(self, split: str, name: str) -> NDArray[Any]:
        """Forget a column that was kept or logged; what it held. Raises NotFound, StorageError."""
        code, columns, _ = self._about(split, ())
        with self._guard:
            columns.notes.check_droppable(name)
            self._writer.append(column_payload(code, name, None))
            columns.changed[_known(columns.notes.held(name))] = self._version + 1
            found = columns.notes.drop(name)
            self._version += 1
        return found

    def _about(self, split: str, rows: ArrayLike) -> tuple[int, SplitColumns, Rows]:
        """What a change is about, checked."""
        self._writable()
        code = self._code(split)
        columns = self._splits[code]
        return code, columns, columns.checked_rows(np.asarray(rows, dtype=np.int64) if not len(rows) else rows)  # type: ignore[arg-type]

    def check_column_name(self, split: str, name: str) -> None:
        """Raises Invalid for a name that a new column cannot have."""
        check_column_name(self._splits[self._code(split)], name)


def check_column_name(columns: SplitColumns, name: str, known: Collection[str] = ()) -> None:
    """Raises Invalid for a name that a column cannot have. known: names that are had already, rightly."""
    checked_note_name(name, "column")
    notes = columns.notes
    if name not in known and (name in TAKEN_NAMES or name in notes.signals or name in notes.copies):
        raise Invalid(f"split {columns.name!r} has a column {name!r} already; choose another name")


def _known(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of a column's values are there."""
    return np.asarray(values == values)


def _other(column: NDArray[np.float32] | None, rows: Rows, values: NDArray[np.float32]) -> Rows:
    """The rows whose value becomes another one. column: what is there, None where nothing is."""
    if column is None:
        return rows[_known(values)]
    present = column[rows]
    found: Rows = rows[(present != values) & (_known(present) | _known(values))]
    return found
