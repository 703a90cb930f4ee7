"""How a data set differs from the one that a run was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graybox.store import class_sets
from graybox.store.sample_columns import Rows, SplitColumns
from graybox.store.targets import Labels


@dataclass(frozen=True)
class DataChange:
    """before, after: how many samples there were and are. source: for each of those that are now, where it was, -1 for
    a new one; None where the samples cannot be known again. reordered: whether those that stayed follow one another
    otherwise. relabelled: how many of those have another label, as far as labels are told; without a source, of those
    in the same places."""

    split: str
    before: int
    after: int
    source: Rows | None
    reordered: bool
    relabelled: int

    @property
    def new(self) -> int:
        """Samples that were not there before."""
        return max(self.after - self.before, 0) if self.source is None else int(np.count_nonzero(self.source < 0))

    @property
    def gone(self) -> int:
        """Samples that are no longer there."""
        if self.source is None:
            return max(self.before - self.after, 0)
        return self.before - int(np.count_nonzero(self.source >= 0))

    def in_words(self) -> str:
        """Such as "3 new, 1 gone, in another order, 2 with another label"."""
        parts = []
        if self.source is None:
            if self.after != self.before:
                parts.append(f"{abs(self.after - self.before):,} {'more' if self.after > self.before else 'fewer'}")
        else:
            parts += [f"{count:,} {what}" for count, what in ((self.new, "new"), (self.gone, "gone")) if count]
        if self.reordered:
            parts.append("in another order")
        if self.relabelled:
            parts.append(f"{self.relabelled:,} with another label")
        if not parts:
            parts.append("other samples or another order" if self.source is None else "another kind of data set")
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """For the journal."""
        counts = {"before": self.before, "after": self.after, "new": self.new, "gone": self.gone}
        return {**counts, "reordered": self.reordered, "relabelled": self.relabelled}


def change_of(
    known: SplitColumns, count: int, source: Rows | None, classes: np.ndarray | None, labels: Labels | None
) -> DataChange:
    """known: what the run knows. count: of samples now. source: see DataChange. classes: int64 [count] and labels: what
    the data set tells now, None where it tells nothing of the kind."""
    if source is None:
        now = then = np.arange(min(known.count, count))
    else:
        now = np.flatnonzero(source >= 0)
        then = source[now]
    other = np.zeros(len(now), dtype=bool)
    if classes is not None:
        old = known.label[then]
        other |= (old >= 0) & (old != classes[now])
    if labels is not None and labels.kind is known.targets.kind:
        other |= _differ(known, then, labels.columns, now)
    reordered = source is not None and bool((np.diff(then) < 0).any())
    return DataChange(known.name, known.count, count, source, reordered, int(np.count_nonzero(other)))


def _differ(known: SplitColumns, then: Rows, columns: Mapping[str, Any], now: Rows) -> np.ndarray:
    found = np.zeros(len(now), dtype=bool)
    for name, values in columns.items():
        before, after = known.targets.column(name), values[now]
        if before is None:
            continue
        if before.ndim == 2:
            found |= class_sets.equal(before[then], after) == 0
        else:
            found |= (before[then] != after) & ~(np.isnan(before[then]) | np.isnan(after))
    return found
