"""The samples of one or several splits as a table that queries are asked of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graybox.errors import Invalid, NotFound
from graybox.store import target_columns
from graybox.store.query import Column, ColumnTable, Kind, Query, rows
from graybox.store.query.tree import Name, SortKey
from graybox.store.sample_columns import STATE_COLUMNS, SplitColumns
from graybox.store.sample_query import Selection
from graybox.store.sample_scores import DEVIATIONS

_DESCRIPTIONS = {
    "id": "number of the sample in its split",
    "split": "train, val, ...",
    "label": "the true class, as a person corrected it where one did",
    "original_label": "the true class as the data set has it",
    "corrected": "whether a person corrected the label",
    "prediction": "the class that was predicted last",
    "correct": "whether the last prediction was the label",
    "loss": "the loss when it was seen last",
    "encounters": "how often it was seen",
    "last_age": "samples that the model had seen when it saw this one last",
    "discarded": "whether it is left out of training",
    "weight": "how often an epoch of training draws it; 1 unless somebody says otherwise",
    "loss_mean": "mean loss over all encounters",
    "loss_std": "standard deviation of its losses",
    "confidence": "probability of the true class at the last encounter",
    "confidence_mean": "mean probability of the true class over all encounters",
    "confidence_std": "its deviation: the variability of data maps",
    "margin": "logit of the true class less the largest of the others, at the last encounter",
    "margin_std": "deviation of the margin",
    "aum": "area under the margin: mean margin over all encounters; low for mislabelled samples",
    "forgetting": "how often it was predicted right and the next time wrong",
    "first_learnt": "samples that the model had seen when it predicted this one right for the first time",
}
COLUMNS = tuple(_DESCRIPTIONS)
"""Columns that every run has, in the order in which they are shown."""
_UNSEEN_BELOW_0 = ("last_age", "first_learnt")


class SampleTable(ColumnTable):
    """Rows of all splits one after the other; row r of split s is number start of s + r. Columns are put together when
    a query uses them, and are then those of that moment."""

    def __init__(self, splits: Sequence[SplitColumns], class_names: Sequence[str] = ()) -> None:
        self.splits = tuple(splits)
        self.class_names = tuple(class_names)
        self.starts = np.concatenate([[0], np.cumsum([columns.count for columns in splits])]).astype(np.int64)
        names = list(COLUMNS)
        names += target_columns.names_of(splits)
        for columns in splits:
            names += [name for name in (*columns.notes.signals, *columns.notes.copies) if name not in names]
        tags = dict.fromkeys(tag for columns in splits for tag in columns.notes.tags)
        super().__init__(
            {name: self._lazily(name) for name in names},
            {tag: self._tag(tag) for tag in tags},
            aliases={"sample_id": "id", "origin": "split"},
            length=int(self.starts[-1]),
        )

    def column(self, name: str) -> Column:
        if name not in self.names() and (name == target_columns.KEY or target_columns.has_class(name)):
            return target_columns.column_of(name, self.splits, self.class_names)  # of which there are too many to list
        return super().column(name)

    def kind(self, name: str) -> Kind:
        """What a column of `names` holds, told without putting it together."""
        own = None if self._noted(name) else target_columns.kind_of(name)
        return own or kind_of(name, self.splits)

    def fresh(self, name: str) -> Column:
        """A column of this very moment, which is not kept; for who needs each once. Raises NotFound."""
        return self._column(name) if name in self.names() else self.column(name)

    def selection(self, numbers: NDArray[np.int64]) -> Selection:
        """Rows of the table as rows of splits, in the same order."""
        split = (np.searchsorted(self.starts, numbers, side="right") - 1).astype(np.int16)
        return Selection(split, numbers - self.starts[split], tuple(columns.name for columns in self.splits))

    def numbers(self, selection: Selection) -> NDArray[np.int64]:
        """Rows of splits as rows of the table, in the same order."""
        start = {columns.name: int(self.starts[number]) for number, columns in enumerate(self.splits)}
        starts = np.array([start[name] for name in selection.splits], dtype=np.int64)
        return selection.row + starts[selection.split] if len(selection) else selection.row

    def sorted(self, selection: Selection, column: str, descending: bool) -> Selection:
        """The same samples, by a column; those without a value last. Raises QueryError for an unknown column."""
        query = Query(sort=(SortKey(Name(column), descending),))
        return self.selection(rows(query, self, within=self.numbers(selection)))

    def _lazily(self, name: str) -> Callable[[], Column]:
        return lambda: self._column(name)

    def _column(self, name: str) -> Column:
        if target_columns.kind_of(name) is not None and not self._noted(name):
            return target_columns.column_of(name, self.splits, self.class_names)
        kind = kind_of(name, self.splits)
        description = _DESCRIPTIONS.get(name, "")
        if name == "split":
            values: NDArray[Any] = np.repeat(np.arange(len(self.splits)), [columns.count for columns in self.splits])
            return Column(name, kind, values, description, names=tuple(columns.name for columns in self.splits))
        parts = [values_of(columns, name) for columns in self.splits]
        null = None
        if kind is Kind.BOOL and name != "correct":
            # Of a split that came since it was copied, nothing is known.
            null = _together([np.full(len(part), part.dtype != np.bool_) for part in parts])
            parts = [part if part.dtype == np.bool_ else np.zeros(len(part), dtype=bool) for part in parts]
        values = _together(parts)
        if name in _UNSEEN_BELOW_0:
            null = values < 0
        if name == "correct":
            null = values < 0
            values = values > 0
        names = self.class_names if kind is Kind.CLASS else ()
        return Column(name, kind, values, description, names=names, null=null)

    def _noted(self, name: str) -> bool:
        return any(name in columns.notes.signals or name in columns.notes.copies for columns in self.splits)

    def _tag(self, tag: str) -> NDArray[np.bool_]:
        found = [columns.notes.tags.get(tag, np.zeros(columns.count, dtype=bool)) for columns in self.splits]
        return _together(found)


def description_of(name: str) -> str:
    """What a column is, for people; empty for one that somebody logged or copied."""
    return _DESCRIPTIONS.get(name) or target_columns.DESCRIPTIONS.get(name, "")


def kind_of(name: str, splits: Sequence[SplitColumns]) -> Kind:
    """Of a column of samples."""
    if name in ("split", "label", "original_label", "prediction"):
        return Kind.CLASS
    if name in ("discarded", "corrected", "correct"):
        return Kind.BOOL
    for columns in splits:
        copied = columns.notes.copies.get(name)
        if copied is not None and copied.dtype == np.bool_:
            return Kind.BOOL
    return Kind.NUMBER


def values_of(columns: SplitColumns, name: str) -> NDArray[Any]:
    """A column of one split as numbers [count]; NaN or (label, prediction, ages) -1 for what is unknown. "correct" is
    1, 0, or -1 unknown. Raises NotFound."""
    notes = columns.notes
    if name == "id":
        return np.arange(columns.count)
    if name == "label":
        return columns.truth()
    if name == "original_label":
        return columns.label
    if name == "weight":
        return notes.weights()
    if name == "corrected":
        corrected = notes.corrected
        return np.zeros(columns.count, dtype=bool) if corrected is None else corrected >= 0
    if name == "correct":
        return columns.rightness()
    noted = notes.signals.get(name, notes.copies.get(name))  # read once: the owner may take them away
    if noted is not None:
        return noted
    if target_columns.kind_of(name) is Kind.NUMBER:
        return target_columns.numbers_of(columns, name)
    if name in COLUMNS and (name in STATE_COLUMNS or name in DEVIATIONS):
        return columns.column(name)
    if name in COLUMNS:
        raise NotFound(f"column {name!r} is not kept per split")
    return np.full(columns.count, np.nan, dtype=np.float32)  # another split has it


def check_copied(splits: Sequence[SplitColumns], source: str) -> None:
    """Raises NotFound for what is no column of any split, Invalid for one that holds texts."""
    tag = source.removeprefix("tag:")
    if tag != source:
        known = list(dict.fromkeys(tag for columns in splits for tag in columns.notes.tags))
        if tag not in known:
            raise NotFound(f"there is no tag {tag[:100]!r} to copy; there are {', '.join(known) or 'none yet'}")
        return
    own = [name for columns in splits for name in (*columns.notes.signals, *columns.notes.copies)]
    names = [n for n in dict.fromkeys((*COLUMNS, *target_columns.names_of(splits), *own)) if n != "split"]
    if source in names and target_columns.is_text(source):
        raise Invalid(f"column {source!r} holds texts; only columns of numbers, classes and true or false are copied")
    if source not in names:
        raise NotFound(f"there is no column {source[:100]!r} to copy; there are {', '.join(names)}, and tag:NAME")


def copied_column(columns: SplitColumns, source: str, kind: Kind) -> NDArray[Any]:
    """What a copy of a column of this kind holds, in a split that has it or not: numbers [count]; of a tag
    ("tag:NAME"), bool."""
    tag = source.removeprefix("tag:")
    if tag != source:
        known = columns.notes.tags.get(tag)
        return np.zeros(columns.count, dtype=bool) if known is None else known.copy()
    found = np.array(values_of(columns, source))
    if kind is Kind.BOOL and source != "correct" and found.dtype != np.bool_:
        return np.zeros(columns.count, dtype=bool)
    return found


def _together(parts: list[NDArray[Any]]) -> NDArray[Any]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros(0)
