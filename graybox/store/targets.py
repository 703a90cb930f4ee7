"""Labels that are no single class (numbers, several classes, masks, boxes) and what was predicted of them, per sample.

A column takes memory only where the split's labels are of a kind that needs it. Bytes per sample: numbers 8 (target and
prediction); several classes two times a bit for each class and one more; masks the same and 8 for the two scores; boxes
4, and a bit for each class and one more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graybox.store import class_sets
from graybox.store.sample_scores import Scores

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]

TARGET = "target:"
"""What the keys of `SampleTargets.state` and `of_data` begin with."""


class LabelKind(StrEnum):
    """What the labels of a split are."""

    NONE = "none"
    """Not known (yet)."""
    CLASS = "class"
    CLASSES = "classes"
    NUMBER = "number"
    MASK = "mask"
    BOXES = "boxes"


_KINDS = tuple(LabelKind)
_FLOAT = np.dtype("<f4")
OF_DATA: dict[str, tuple[np.dtype[Any], Any]] = {
    "number": (_FLOAT, np.nan),
    "classes": (np.dtype("u1"), 0),
    "boxes": (np.dtype("<i4"), -1),
}
"""Columns that the data set tells, with their types and what they hold before they are known. classes is of shape
[samples, bytes] (see class_sets.py), the others [samples]. boxes: how many."""
ANSWERED: dict[str, tuple[np.dtype[Any], Any]] = {
    "predicted": (_FLOAT, np.nan),
    "predicted_classes": (np.dtype("u1"), 0),
    "pixel_accuracy": (_FLOAT, np.nan),
    "iou": (_FLOAT, np.nan),
}
"""Columns that training changes, likewise."""
SETS = ("classes", "predicted_classes")
SCORES = ("pixel_accuracy", "iou")
COLUMNS = {**OF_DATA, **ANSWERED}
_KIND = "kind"


@dataclass(frozen=True)
class Labels:
    """The labels of some samples. columns: by names of OF_DATA, each [n, ...]."""

    kind: LabelKind
    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def take(self, index: NDArray[Any]) -> Labels:
        """Those of some of the samples: int64 [m] or bool [n]."""
        return Labels(self.kind, {name: column[index] for name, column in self.columns.items()})


@dataclass(frozen=True)
class Answers:
    """What was predicted of some samples. columns: by names of ANSWERED, each [n, ...]."""

    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class SampleTargets:
    """One split's labels beyond classes. kind: what they are. Only the store changes it; the arrays are to be read
    only, and None where the split has no such column."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.kind = LabelKind.NONE
        self._columns: dict[str, NDArray[Any]] = {}

    def column(self, name: str) -> NDArray[Any] | None:
        """One of COLUMNS; None where there is none."""
        return self._columns.get(name)

    def error(self) -> Floats | None:
        """What was predicted less the target, float32 [samples]; NaN where either is not known, None without
        numbers."""
        number, predicted = self.column("number"), self.column("predicted")
        if number is None:
            return None
        return np.full(self.count, np.nan, dtype=np.float32) if predicted is None else predicted - number

    def is_known(self, rows: Rows) -> NDArray[np.bool_]:
        """Whether the label of each is known, bool [n]."""
        columns = self._columns  # read once: another one comes in its place when it grows
        if "number" in columns:
            return np.asarray(~np.isnan(columns["number"][rows]))
        if "classes" in columns:
            return class_sets.known(columns["classes"][rows])
        return np.zeros(len(rows), dtype=bool)

    def right(self, rows: Rows | slice = slice(None)) -> NDArray[np.int8]:
        """int8: 1 where exactly the sample's classes were predicted, 0 where not, -1 where either is not known or the
        labels are no sets of classes."""
        wanted, found = self.column("classes"), self.column("predicted_classes")
        if self.kind is not LabelKind.CLASSES or wanted is None or found is None:
            return np.full(self.count, -1, dtype=np.int8)[rows]
        return class_sets.equal(wanted[rows], found[rows])

    def learn(self, rows: Rows, labels: Labels) -> None:
        """Note what the data set says; the first labels make the kind of the split, those of another are left out."""
        if self.kind not in (LabelKind.NONE, labels.kind):
            return
        self.kind = labels.kind
        self._write(rows, labels.columns)

    def answer(self, rows: Rows, answers: Answers) -> None:
        """Note what was predicted; the last of a row that comes twice counts."""
        self._write(rows, answers.columns)

    def of_data(self) -> dict[str, NDArray[Any]]:
        """Copies of what the data set says, and the kind; {} where nothing is known."""
        found = {TARGET + name: column.copy() for name, column in self._columns.items() if name in OF_DATA}
        if self.kind is not LabelKind.NONE:
            found[TARGET + _KIND] = np.array([_KINDS.index(self.kind)], dtype=np.int8)
        return found

    def set_of_data(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Replace what the data set says by what `of_data` answered."""
        kind = state.get(TARGET + _KIND)
        self.kind = LabelKind.NONE if kind is None else _KINDS[int(kind[0])]
        self._replace(OF_DATA, state)

    def state(self, copy: Callable[[NDArray[Any]], NDArray[Any]] = np.array) -> dict[str, NDArray[Any]]:
        """Copies of what was predicted, by "target:NAME"."""
        return {TARGET + name: copy(column) for name, column in self._columns.items() if name in ANSWERED}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Replace what was predicted by what `state` answered."""
        self._replace(ANSWERED, state)

    def _replace(self, names: Mapping[str, Any], state: Mapping[str, NDArray[Any]]) -> None:
        kept = {name: column for name, column in self._columns.items() if name not in names}
        new = {n: np.array(state[TARGET + n], dtype=names[n][0]) for n in names if TARGET + n in state}
        self._columns = {**kept, **new}

    def _write(self, rows: Rows, columns: Mapping[str, NDArray[Any]]) -> None:
        for name, values in columns.items():
            column = self._columns.get(name)
            if name in SETS:
                width = values.shape[1] if column is None else max(values.shape[1], column.shape[1])
                values = class_sets.widened(values, width)
                # Another array where it grows, as readers look at the present one without a lock.
                none = np.zeros((self.count, 1), dtype=np.uint8)
                column = class_sets.widened(none if column is None else column, width)
            elif column is None:
                kind, unseen = COLUMNS[name]
                column = np.full(self.count, unseen, dtype=kind)
            column[rows] = values
            if self._columns.get(name) is not column:
                self._columns = {**self._columns, name: column}


def note_right(scores: Scores, rows: Rows, right: NDArray[np.int8], age: int) -> None:
    """What samples' scores remember of being right: int8 [n] as `SampleTargets.right` answers it. The last of a row
    that comes twice counts."""
    known = right >= 0
    if not known.any():
        return
    rows, last = np.unique(rows[known][::-1], return_index=True)
    now = right[known][::-1][last] > 0
    scores.forgetting[rows] += scores.right[rows] & ~now
    first = scores.first_learnt[rows]
    scores.first_learnt[rows] = np.where(now & (first < 0), age, first)
    scores.right[rows] = now


def is_target(key: str) -> bool:
    """Whether a key of a state is one of `SampleTargets.state`."""
    return key.startswith(TARGET) and key[len(TARGET) :] in ANSWERED


def fits(key: str, shape: tuple[int, ...], count: int) -> bool:
    """Whether an array under a key of `SampleTargets.state` can be that of so many samples."""
    if key[len(TARGET) :] in SETS:
        return len(shape) == 2 and shape[0] == count and 1 <= shape[1] <= class_sets.MAX_CLASSES // 8 + 1
    return shape == (count,)


def checked_columns(
    columns: Mapping[str, NDArray[Any]], known: Mapping[str, tuple[np.dtype[Any], Any]], count: int
) -> dict[str, NDArray[Any]]:
    """Columns of `count` samples, contiguous and in their types. Raises ValueError for one that is none or does not
    fit."""
    found = {}
    for name, column in columns.items():
        if name not in known:
            raise ValueError(f"{name!r} is no column of labels; there are {', '.join(known)}")
        if not fits(TARGET + name, column.shape, count):
            raise ValueError(f"{name!r} of {count} samples has shape {list(column.shape)}")
        found[name] = np.ascontiguousarray(column, dtype=known[name][0])
    return found
