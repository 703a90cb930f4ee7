"""Who keeps what the samples of one data set did: the data set itself while nothing trains on it, or a run's store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graybox.store.sample_columns import Rows, SplitColumns
from graybox.store.sample_note_writer import check_column_name

if TYPE_CHECKING:
    from graybox.store.samples import SampleStore

Losses = NDArray[np.float32]
Predictions = NDArray[np.int64]


class SampleKeeper(Protocol):
    """Columns, and the ways to change them. The arguments were checked: rows int64 [n] of this data set."""

    @property
    def columns(self) -> SplitColumns:
        """The columns as they are now, to be read only."""
        ...

    def record(self, rows: Rows, losses: Losses, predictions: Predictions | None, age: int) -> None:
        """Note one batch: losses float32 [n], predictions int64 [n] or None to leave them."""
        ...

    def set_discarded(self, rows: Rows, value: bool) -> int:
        """Discard samples or take them back; how many changed."""
        ...

    def log(self, name: str, rows: Rows, values: Losses) -> None:
        """Note a number for each of some samples, float32 [n]."""
        ...

    def replace(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Overwrite all that training changes with what `SplitColumns.state` answered."""
        ...


class OwnSamples:
    """Columns in memory, without a run."""

    def __init__(self, columns: SplitColumns) -> None:
        self._columns = columns

    @property
    def columns(self) -> SplitColumns:
        return self._columns

    def record(self, rows: Rows, losses: Losses, predictions: Predictions | None, age: int) -> None:
        self._columns.record(rows, losses, predictions, age)

    def set_discarded(self, rows: Rows, value: bool) -> int:
        return len(self._columns.discard(rows, value))

    def log(self, name: str, rows: Rows, values: Losses) -> None:
        check_column_name(self._columns, name, known=self._columns.notes.signals)
        self._columns.notes.log(name, rows, values)

    def replace(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._columns.set_state(state)


class StoredSamples:
    """One split of a run's store.

    discard: what discards samples in its place, (rows, value) -> how many changed: the run's trainer, which journals
    it. None: the store, which a restored checkpoint or a replay would take back.
    """

    def __init__(self, store: SampleStore, split: str, discard: Callable[[Rows, bool], int] | None = None) -> None:
        self._store = store
        self._split = split
        self._discard = discard

    @property
    def columns(self) -> SplitColumns:
        return self._store.splits[self._split]

    def record(self, rows: Rows, losses: Losses, predictions: Predictions | None, age: int) -> None:
        self._store.record_batch(self._split, rows, losses, predictions, age)

    def set_discarded(self, rows: Rows, value: bool) -> int:
        if self._discard is not None:
            return self._discard(rows, value)
        return len(self._store.set_discarded(self._split, rows, value))

    def log(self, name: str, rows: Rows, values: Losses) -> None:
        self._store.log_signal(self._split, name, rows, values)

    def replace(self, state: Mapping[str, NDArray[Any]]) -> None:
        changed = {f"{self._split}/{name}": column for name, column in state.items()}
        self._store.load_state({**self._store.state(), **changed})


def untouched(columns: SplitColumns) -> bool:
    """Whether no sample was met, predicted or discarded yet."""
    return not (columns.encounters.any() or columns.discarded.any() or (columns.prediction >= 0).any())
