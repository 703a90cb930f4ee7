"""The part of the sample store that writes labels beyond classes, and what was predicted of them."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import ArrayLike

from graybox.errors import Invalid
from graybox.store.record_log import RecordLog
from graybox.store.sample_columns import Rows, SplitColumns
from graybox.store.target_log import answers_payload, labels_payload
from graybox.store.targets import ANSWERED, OF_DATA, Answers, LabelKind, Labels, checked_columns


class TargetWriter:
    """What `SampleStore` inherits: each change is one record in the log, and then made in memory."""

    _guard: threading.Lock
    _writer: RecordLog
    _version: int

    def _about(self, split: str, rows: ArrayLike) -> tuple[int, SplitColumns, Rows]:
        raise NotImplementedError

    def learn_targets(self, split: str, rows: ArrayLike | None, labels: Labels) -> None:
        """What the data set says of some samples [n], or of all (None). The first labels make the kind of the split,
        those of another are left out. What is known already costs nothing on the disk.

        Raises NotFound for an unknown split or row, Invalid for columns that do not fit, StorageError when the disk
        refuses; nothing is changed then.
        """
        code, columns, found = self._about(split, () if rows is None else rows)
        count = columns.count if rows is None else len(found)
        try:
            checked = Labels(labels.kind, checked_columns(labels.columns, OF_DATA, count))
        except ValueError as error:
            raise Invalid(f"labels of split {split!r}: {error}") from None
        if rows is None and _says_the_same(columns, checked):
            return
        with self._guard:
            self._writer.append(labels_payload(code, None if rows is None else found, checked))
            anew = rows is None or columns.targets.kind is LabelKind.NONE  # the first ones make the kind of all
            columns.changed[slice(None) if anew else found] = self._version + 1
            columns.targets.learn(np.arange(columns.count) if rows is None else found, checked)
            self._version += 1

    def record_answers(self, split: str, rows: ArrayLike, answers: Answers, age: int) -> None:
        """What was predicted of some samples [n], when the model had seen so many. Raises as `learn_targets`."""
        code, columns, found = self._about(split, rows)
        try:
            checked = Answers(checked_columns(answers.columns, ANSWERED, len(found)))
        except ValueError as error:
            raise Invalid(f"answers of split {split!r}: {error}") from None
        with self._guard:
            self._writer.append(answers_payload(code, found, checked, age))
            columns.changed[found] = self._version + 1
            columns.record_answers(found, checked, age)
            self._version += 1


def _says_the_same(columns: SplitColumns, labels: Labels) -> bool:
    if columns.targets.kind is not labels.kind:
        return False
    for name, values in labels.columns.items():
        known = columns.targets.column(name)
        if known is None or not np.array_equal(known, values, equal_nan=True):
            return False
    return True
