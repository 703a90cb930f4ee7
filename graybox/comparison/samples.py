"""Which samples came out otherwise: right and wrong, losses, and what people did to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graybox.store.sample_columns import SplitColumns
from graybox.store.sample_table import values_of

FIRST = 10
"""So many samples are named where there may be many."""


@dataclass(frozen=True)
class Turned:
    """Samples of one class that came out otherwise. got_wrong: right in A and wrong in B; got_right: the other way."""

    label: int
    samples: int
    got_wrong: int
    got_right: int


@dataclass(frozen=True)
class LossChange:
    """One sample's outcome in A and B; -1 and NaN where it is not known. sample: its number in B."""

    sample: int
    label: int
    predictions: tuple[int, int]
    losses: tuple[float, float]


@dataclass(frozen=True)
class Marked:
    """Samples that are marked in one side only: how many, and the first of them, by their numbers in B."""

    only_a: int
    only_b: int
    first_a: list[int]
    first_b: list[int]


@dataclass(frozen=True)
class SplitDifference:
    """One split that both have, sample by sample. same_data: whether sample i is the same one in both. matched: how
    many samples both have; in other data, those of the same name. Where there is none, nothing else is told. seen: of
    how many of them the outcome is known. other_answers: wrong in both, with another prediction. accuracy, mean_loss:
    over the samples of which they are known in both; NaN where there is none."""

    split: str
    same_data: bool
    samples: tuple[int, int]
    matched: int = 0
    seen: tuple[int, int] = (0, 0)
    got_wrong: int = 0
    got_right: int = 0
    other_answers: int = 0
    accuracy: tuple[float, float] = (float("nan"), float("nan"))
    mean_loss: tuple[float, float] = (float("nan"), float("nan"))
    by_class: list[Turned] = field(default_factory=list)
    most_changed: list[LossChange] = field(default_factory=list)
    discarded: Marked = field(default_factory=lambda: Marked(0, 0, [], []))
    labels: int = 0
    first_labels: list[int] = field(default_factory=list)
    weights: int = 0
    tags: dict[str, Marked] = field(default_factory=dict)


def sample_differences(
    a: Mapping[str, SplitColumns], b: Mapping[str, SplitColumns], top: int = 20
) -> list[SplitDifference]:
    """Of all splits that both have. top: so many of the samples whose loss changed most."""
    return [split_difference(a[name], b[name], top) for name in a if name in b]


def split_difference(a: SplitColumns, b: SplitColumns, top: int) -> SplitDifference:
    """Of one split."""
    counts = a.count, b.count
    same = counts[0] == counts[1] and a.fingerprint == b.fingerprint
    rows = None if same else _same_names(a, b)
    if not same and rows is None:
        return SplitDifference(a.name, False, counts)

    def both(name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        return _of(values_of(a, name), rows, 0), _of(values_of(b, name), rows, 1)

    right, labels, predictions = both("correct"), both("label"), both("prediction")
    known = (right[0] >= 0) & (right[1] >= 0)
    wrong, better = known & (right[0] == 1) & (right[1] == 0), known & (right[0] == 0) & (right[1] == 1)
    others = known & (right[0] == 0) & (right[1] == 0) & (predictions[0] != predictions[1])
    losses = tuple(each.astype(np.float64) for each in both("loss"))
    measured = np.isfinite(losses[0]) & np.isfinite(losses[1])
    numbers = np.arange(counts[1]) if rows is None else rows[1]
    other_labels = numbers[labels[0] != labels[1]]
    weights = both("weight")
    tags = {
        tag: _marked(_of(_tag(a, tag), rows, 0), _of(_tag(b, tag), rows, 1), numbers)
        for tag in sorted({*a.notes.tags, *b.notes.tags})
    }
    return SplitDifference(
        split=a.name,
        same_data=same,
        samples=counts,
        matched=len(numbers),
        seen=(int(np.count_nonzero(right[0] >= 0)), int(np.count_nonzero(right[1] >= 0))),
        got_wrong=int(np.count_nonzero(wrong)),
        got_right=int(np.count_nonzero(better)),
        other_answers=int(np.count_nonzero(others)),
        accuracy=(_mean(right[0][known]), _mean(right[1][known])),
        mean_loss=(_mean(losses[0][measured]), _mean(losses[1][measured])),
        by_class=_by_class(labels[1], known, wrong, better),
        most_changed=_most_changed(numbers, labels[1], predictions, (losses[0], losses[1]), measured, top),
        discarded=_marked(_of(a.discarded, rows, 0), _of(b.discarded, rows, 1), numbers),
        labels=len(other_labels),
        first_labels=other_labels[:FIRST].tolist(),
        weights=int(np.count_nonzero(weights[0] != weights[1])),
        tags={tag: marked for tag, marked in tags.items() if marked.only_a or marked.only_b},
    )


def _same_names(a: SplitColumns, b: SplitColumns) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """(rows of a, rows of b) of the samples whose own name both know; None where samples have no names."""
    if a.keys is None or b.keys is None:
        return None
    there = b.keys.rows_in(a.keys)
    return there[there >= 0], np.flatnonzero(there >= 0)


def _of(column: NDArray[Any], rows: tuple[NDArray[np.int64], NDArray[np.int64]] | None, side: int) -> NDArray[Any]:
    return np.asarray(column) if rows is None else np.asarray(column)[rows[side]]


def _by_class(
    labels: NDArray[np.int64], known: NDArray[np.bool_], wrong: NDArray[np.bool_], better: NDArray[np.bool_]
) -> list[Turned]:
    """Classes of which some sample came out otherwise, those with the most first."""
    chosen = known & (labels >= 0)
    classes, index = np.unique(labels[chosen], return_inverse=True)
    totals, lost, won = (
        np.bincount(index, weights=flags[chosen].astype(np.float64), minlength=len(classes)).astype(int)
        for flags in (known, wrong, better)
    )
    found = [
        Turned(int(label), int(n), int(w), int(r))
        for label, n, w, r in zip(classes, totals, lost, won, strict=True)
        if w or r
    ]
    return sorted(found, key=lambda each: (-(each.got_wrong + each.got_right), each.label))


def _most_changed(
    numbers: NDArray[np.int64],
    labels: NDArray[np.int64],
    predictions: tuple[NDArray[np.int64], NDArray[np.int64]],
    losses: tuple[NDArray[np.float64], NDArray[np.float64]],
    measured: NDArray[np.bool_],
    top: int,
) -> list[LossChange]:
    rows = np.flatnonzero(measured)
    change = np.abs(losses[1][rows] - losses[0][rows])
    if len(rows) > top:  # few of many: without sorting them all
        chosen = np.argpartition(-change, top)[:top]
        rows, change = rows[chosen], change[chosen]
    order = np.lexsort((rows, -change))
    return [
        LossChange(
            int(numbers[row]),
            int(labels[row]),
            (int(predictions[0][row]), int(predictions[1][row])),
            (float(losses[0][row]), float(losses[1][row])),
        )
        for row in rows[order][change[order] > 0]
    ]


def _tag(columns: SplitColumns, tag: str) -> NDArray[np.bool_]:
    found = columns.notes.tags.get(tag)
    return np.zeros(columns.count, dtype=bool) if found is None else found


def _marked(a: NDArray[np.bool_], b: NDArray[np.bool_], numbers: NDArray[np.int64]) -> Marked:
    only_a, only_b = numbers[a & ~b], numbers[b & ~a]
    return Marked(len(only_a), len(only_b), only_a[:FIRST].tolist(), only_b[:FIRST].tolist())


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else float("nan")
