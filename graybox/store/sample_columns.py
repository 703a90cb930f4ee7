"""What each sample of a split did, as columns: the truth in memory, changed by vectorised writes only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graybox.errors import Invalid, NotFound

Rows = NDArray[np.int64]

STATE_COLUMNS: dict[str, tuple[np.dtype[Any], Any]] = {
    "prediction": (np.dtype("<i8"), -1),
    "loss": (np.dtype("<f4"), np.nan),
    "encounters": (np.dtype("<i8"), 0),
    "last_age": (np.dtype("<i8"), -1),
    "discarded": (np.dtype("?"), False),
}
"""Columns that training changes, with their types and what they hold before a sample was seen."""

MAX_COUNT = 1 << 40
_NAME = re.compile(r"[^/\\\x00-\x1f\x7f]{1,100}")


@dataclass(frozen=True)
class SplitSummary:
    """Counts of one split. seen: met at least once; mean_loss: over finite losses, 0 where there is none; wrong: seen
    samples whose prediction differs from their label."""

    samples: int
    discarded: int
    seen: int
    mean_loss: float
    wrong: int


class SplitColumns:
    """One split's columns, each of shape [count]. All but label stay the same arrays as long as the split does.

    label: int64, -1 none. prediction: int64, -1 none yet. loss: float32, NaN not seen yet. encounters: int64.
    last_age: int64, the age when it was seen last, -1 never. discarded: bool. Only the store changes them.
    """

    def __init__(self, name: str, count: int, fingerprint: str = "", labels: ArrayLike | None = None) -> None:
        if not _NAME.fullmatch(name) or name in (".", ".."):
            raise Invalid(f"{name!r} cannot name a split; use 1 to 100 characters, without slashes")
        if not 0 <= count < MAX_COUNT:
            raise Invalid(f"split {name!r} cannot have {count} samples")
        self.name = name
        self.count = count
        self.fingerprint = fingerprint
        self.label: NDArray[np.int64] = np.full(count, -1, dtype=np.int64)
        self.prediction: NDArray[np.int64] = np.full(count, -1, dtype=np.int64)
        self.loss: NDArray[np.float32] = np.full(count, np.nan, dtype=np.float32)
        self.encounters: NDArray[np.int64] = np.zeros(count, dtype=np.int64)
        self.last_age: NDArray[np.int64] = np.full(count, -1, dtype=np.int64)
        self.discarded: NDArray[np.bool_] = np.zeros(count, dtype=bool)
        if labels is not None:
            self.label[:] = self.checked_labels(labels)

    def checked_labels(self, labels: ArrayLike) -> NDArray[np.int64]:
        """Labels as int64. Raises Invalid unless they are integers of shape [count]."""
        found = np.asarray(labels)
        if found.shape != (self.count,) or (found.dtype.kind not in "iub" and found.size):
            raise Invalid(
                f"labels of split {self.name!r} are integers of shape [{self.count}], not {found.dtype} {found.shape}"
            )
        return found.astype(np.int64)

    def checked_rows(self, rows: ArrayLike) -> Rows:
        """Rows as contiguous int64. Raises NotFound for one outside the split, Invalid for what is no row."""
        found = np.asarray(rows)
        if found.dtype != np.int64:
            if found.dtype.kind not in "iu" and found.size:
                raise Invalid(f"rows of split {self.name!r} are integers, not {found.dtype}")
            found = found.astype(np.int64)
        if found.ndim != 1:
            raise Invalid(f"rows of split {self.name!r} have shape [n], not {list(found.shape)}")
        found = np.ascontiguousarray(found)
        # As unsigned numbers the negative ones are the largest: one pass finds both kinds of stranger.
        if found.size and int(found.view(np.uint64).max()) >= self.count:
            strange = found[(found < 0) | (found >= self.count)][0]
            raise NotFound(f"split {self.name!r} has no sample {strange}; it has samples 0 to {self.count - 1}")
        return found

    def record(self, rows: Rows, losses: NDArray[np.float32], predictions: NDArray[np.int64] | None, age: int) -> None:
        """Note one batch; the arguments were checked. A row that comes twice counts twice, its last value wins."""
        self.loss[rows] = losses
        if predictions is not None:
            self.prediction[rows] = predictions
        self.last_age[rows] = age
        np.add.at(self.encounters, rows, 1)

    def discard(self, rows: Rows, value: bool) -> Rows:
        """Set the flag; the rows that changed, ascending."""
        changed = np.unique(rows[self.discarded[rows] != value])
        self.discarded[changed] = value
        return changed

    def state(self) -> dict[str, NDArray[Any]]:
        """Copies of the columns that training changes."""
        return {name: np.array(getattr(self, name)) for name in STATE_COLUMNS}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Overwrite in place the columns that training changes; without them, all samples are as never seen."""
        for name, (_, unseen) in STATE_COLUMNS.items():
            getattr(self, name)[:] = state.get(name, unseen)

    def summary(self) -> SplitSummary:
        loss = self.loss[np.isfinite(self.loss)]
        wrong = (self.prediction != self.label) & (self.prediction >= 0) & (self.label >= 0)
        return SplitSummary(
            samples=self.count,
            discarded=int(np.count_nonzero(self.discarded)),
            seen=int(np.count_nonzero(self.encounters)),
            mean_loss=float(loss.mean(dtype=np.float64)) if len(loss) else 0.0,
            wrong=int(np.count_nonzero(wrong)),
        )
