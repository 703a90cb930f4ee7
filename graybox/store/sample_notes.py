"""What people and their code noted of samples: tags, corrected labels, weights, logged signals, copied columns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graybox.errors import Invalid, NotFound, Refused

Rows = NDArray[np.int64]

MAX_NOTES = 256
"""So many tags, and so many other columns, at most: each takes memory for every sample."""
FAILED, BAD_LOSS = "failed", "bad_loss"
RESERVED_TAGS = (FAILED, BAD_LOSS)
"""Tags that training itself gives: to samples that cannot be loaded or used, and to those whose loss is no finite
number. People only take them away."""
_NAME = re.compile(r"[^/\\:\x00-\x1f\x7f]{1,100}")
TAG, SIGNAL, COPY, CORRECTED, WEIGHT = "tag:", "signal:", "copy:", "corrected", "weight"
"""What the keys of `SampleNotes.state` begin with, or are."""


class SampleNotes:
    """Columns that come and go, each of shape [count].

    tags: bool by name. signals: float32 by name, NaN where nothing was logged. copies: columns copied by a person, by
    name, of any plain type. corrected: int64, the label that a person put in the place of the data set's, -1 none; None
    as long as there is none at all. weight: float32, how often an epoch draws the sample; None as long as all are 1.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.tags: dict[str, NDArray[np.bool_]] = {}
        self.signals: dict[str, NDArray[np.float32]] = {}
        self.copies: dict[str, NDArray[Any]] = {}
        self.corrected: NDArray[np.int64] | None = None
        self.weight: NDArray[np.float32] | None = None

    def tag(self, name: str, rows: Rows, value: bool) -> Rows:
        """Give samples a tag or take it from them; the rows that changed, ascending. A tag that no sample has any more
        is gone."""
        column = self.tags.get(name)
        if column is None:
            if not value or not len(rows):
                return rows[:0]
            self.check_room_for_tag(name)
            column = np.zeros(self.count, dtype=bool)
        changed = np.unique(rows[column[rows] != value])
        # Another array, as readers look at the present ones without a lock, and dictionaries likewise.
        column = column.copy()
        column[changed] = value
        tags = {**self.tags, name: column}
        if not value and not column.any():
            del tags[name]
        self.tags = tags
        return changed

    def correct(self, rows: Rows, labels: NDArray[np.int64]) -> None:
        """Put labels in the place of the data set's: int64 [n], -1 for that of the data set again."""
        column = np.full(self.count, -1, dtype=np.int64) if self.corrected is None else self.corrected.copy()
        column[rows] = labels
        self.corrected = column if (column >= 0).any() else None

    def corrections(self, rows: Rows) -> NDArray[np.int64]:
        """The corrected labels of some rows, -1 none."""
        return np.full(len(rows), -1, dtype=np.int64) if self.corrected is None else self.corrected[rows]

    def weigh(self, rows: Rows, weights: NDArray[np.float32]) -> None:
        """How often an epoch draws samples: [n], 0 or more."""
        column = np.ones(self.count, dtype=np.float32) if self.weight is None else self.weight.copy()
        column[rows] = weights
        self.weight = column if (column != 1).any() else None

    def weights(self, rows: Rows | slice = slice(None)) -> NDArray[np.float32]:
        """How often an epoch draws some samples, float32 [n]."""
        known = self.weight  # read once: the owner may take it away
        return np.ones(self.count, dtype=np.float32)[rows] if known is None else known[rows]

    def log(self, name: str, rows: Rows, values: NDArray[np.float32]) -> None:
        """Note a number for each of some samples; the last of a row that comes twice counts."""
        column = self.signals.get(name)
        if column is None:
            self.check_room_for_column()
            column = np.full(self.count, np.nan, dtype=np.float32)
            self.signals = {**self.signals, name: column}
        column[rows] = values

    def copy(self, name: str, values: NDArray[Any]) -> None:
        """Keep a column under a name."""
        self.check_room_for_column()
        self.copies = {**self.copies, name: values}

    def held(self, name: str) -> NDArray[Any]:
        """A copied column or a signal, to be read only. Raises NotFound."""
        self.check_droppable(name)
        return self.copies[name] if name in self.copies else self.signals[name]

    def drop(self, name: str) -> NDArray[Any]:
        """Forget a copied column or a signal; what it held. Raises NotFound."""
        found = self.held(name)
        if name in self.copies:
            self.copies = {key: value for key, value in self.copies.items() if key != name}
        else:
            self.signals = {key: value for key, value in self.signals.items() if key != name}
        return found

    def check_droppable(self, name: str) -> None:
        """Raises NotFound unless a column of this name was copied or logged."""
        if name not in self.copies and name not in self.signals:
            known = ", ".join([*self.copies, *self.signals]) or "none yet"
            raise NotFound(f"there is no column {name!r} that was copied or logged; there are {known}")

    def state(self) -> dict[str, NDArray[Any]]:
        """Copies of all, by "tag:NAME", "signal:NAME", "copy:NAME", "corrected" and "weight"."""
        return {key: column.copy() for key, column in self.columns().items()}

    def columns(self) -> dict[str, NDArray[Any]]:
        """What `state` copies, to be read only."""
        found: dict[str, NDArray[Any]] = {TAG + name: column for name, column in self.tags.items()}
        found |= {SIGNAL + name: column for name, column in self.signals.items()}
        found |= {COPY + name: column for name, column in self.copies.items()}
        if self.corrected is not None:
            found[CORRECTED] = self.corrected
        if self.weight is not None:
            found[WEIGHT] = self.weight
        return found

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Replace all by what `state` answered."""
        self.tags = {key[len(TAG) :]: np.array(v, dtype=bool) for key, v in state.items() if key.startswith(TAG)}
        self.signals = {
            key[len(SIGNAL) :]: np.array(v, dtype=np.float32) for key, v in state.items() if key.startswith(SIGNAL)
        }
        self.copies = {key[len(COPY) :]: np.array(v) for key, v in state.items() if key.startswith(COPY)}
        self.corrected = np.array(state[CORRECTED], dtype=np.int64) if CORRECTED in state else None
        self.weight = np.array(state[WEIGHT], dtype=np.float32) if WEIGHT in state else None

    def check_room_for_tag(self, name: str) -> None:
        """Raises Refused where there are as many tags as there may be; for RESERVED_TAGS there is always room."""
        if len(self.tags) >= MAX_NOTES and name not in RESERVED_TAGS:
            raise Refused(f"there are {MAX_NOTES} tags already; remove one before another one is made")

    def check_room_for_column(self) -> None:
        """Raises Refused where there are as many copied and logged columns as there may be."""
        if len(self.signals) + len(self.copies) >= MAX_NOTES:
            raise Refused(f"there are {MAX_NOTES} columns already; delete one before another one is made")


def is_note(key: str) -> bool:
    """Whether a key of a state is one of `SampleNotes.state`."""
    return key in (CORRECTED, WEIGHT) or key.startswith((TAG, SIGNAL, COPY))


def checked_note_name(name: str, what: str) -> str:
    """Raises Invalid for what cannot name a tag or a column."""
    if not _NAME.fullmatch(name) or name != name.strip() or name in (".", ".."):
        raise Invalid(
            f"{name[:100]!r} cannot name a {what}; use 1 to 100 characters, not . or .., without slashes, colons, "
            "control characters and spaces at the ends"
        )
    return name
