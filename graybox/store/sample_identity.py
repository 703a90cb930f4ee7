"""What is known of samples, carried over to a data set in which they stand elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graybox.store.sample_columns import STATE_COLUMNS
from graybox.store.sample_notes import CORRECTED, SIGNAL, TAG, WEIGHT
from graybox.store.targets import COLUMNS, TARGET

Rows = NDArray[np.int64]


def carried(column: NDArray[Any], source: Rows, unseen: Any) -> NDArray[Any]:
    """A column [samples, ...] of another data set: row i is what row source[i] was, or `unseen` where that is -1."""
    found = np.full((len(source), *column.shape[1:]), unseen, dtype=column.dtype)
    kept = source >= 0
    found[kept] = column[source[kept]]
    return found


def carried_state(state: Mapping[str, NDArray[Any]], source: Rows) -> dict[str, NDArray[Any]]:
    """What `SplitColumns.state` answered, or `SampleTargets.of_data`, of the samples of another data set, as `carried`.
    New samples are as never seen: without tags, signals, corrections, and of weight 1."""
    return {
        name: column if name == f"{TARGET}kind" else carried(column, source, _unseen(name, column))
        for name, column in state.items()
    }


def _unseen(name: str, column: NDArray[Any]) -> Any:
    if name in STATE_COLUMNS:
        return STATE_COLUMNS[name][1]
    if name.startswith(TARGET):
        return COLUMNS[name[len(TARGET) :]][1]
    if name.startswith(TAG):
        return False
    if name.startswith(SIGNAL):
        return np.nan
    if name == WEIGHT:
        return 1.0
    if name == CORRECTED:
        return -1
    return {"f": np.nan, "b": False}.get(column.dtype.kind, -1)  # a copied column
