"""Which samples came out otherwise: right and wrong, losses, and what people did to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
    """One sample's outcome in A and B; -1 and NaN where it is not known."""

    sample: int
    label: int
    predictions: tuple[int, int]
    losses: tuple[float, float]


@dataclass(frozen=True)
class Marked:
    """Samples that are marked in one side only: how many, and the first of them."""

    only_a: int
    only_b: int
    first_a: list[int]
    first_b: list[int]


@dataclass(frozen=True)
class SplitDifference:
    """One split that both have, sample by sample. same_data: whether sample i is the same one in both; where it is not,
    nothing else is told. seen: of how many the outcome is known. other_answers: wrong in both, with another prediction.
    accuracy, mean_loss: over the samples of which they are known in both; NaN where there is none."""

    split: str
    same_data: bool
    samples: tuple[int, int]
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
    if counts[0] != counts[1] or a.fingerprint != b.fingerprint:
        return SplitDifference(a.name, False, counts)
    right = values_of(a, "correct"), values_of(b, "correct")
    labels = np.asarray(values_of(a, "label")), np.asarray(values_of(b, "label"))
    predictions = np.asarray(values_of(a, "prediction")), np.asarray(values_of(b, "prediction"))
    known = (right[0] >= 0) & (right[1] >= 0)
    wrong, better = known & (right[0] == 1) & (right[1] == 0), known & (right[0] == 0) & (right[1] == 1)
    others = known & (right[0] == 0) & (right[1] == 0) & (predictions[0] != predictions[1])
    losses = np.asarray(values_of(a, "loss"), np.float64), np.asarray(values_of(b, "loss"), np.float64)
    measured = np.isfinite(losses[0]) & np.isfinite(losses[1])
    other_labels = np.flatnonzero(labels[0] != labels[1])
    tags = sorted({*a.notes.tags, *b.notes.tags})
    return SplitDifference(
        split=a.name,
        same_data=True,
        samples=counts,
        seen=(int(np.count_nonzero(right[0] >= 0)), int(np.count_nonzero(right[1] >= 0))),
        got_wrong=int(np.count_nonzero(wrong)),
        got_right=int(np.count_nonzero(better)),
        other_answers=int(np.count_nonzero(others)),
        accuracy=(_mean(right[0][known]), _mean(right[1][known])),
        mean_loss=(_mean(losses[0][measured]), _mean(losses[1][measured])),
        by_class=_by_class(labels[1], known, wrong, better),
        most_changed=_most_changed(labels[1], predictions, losses, measured, top),
        discarded=_marked(a.discarded, b.discarded),
        labels=len(other_labels),
        first_labels=other_labels[:FIRST].tolist(),
        weights=int(np.count_nonzero(values_of(a, "weight") != values_of(b, "weight"))),
        tags={tag: marked for tag in tags if (marked := _marked(_tag(a, tag), _tag(b, tag))) != _marked_alike()},
    )


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
            int(row),
            int(labels[row]),
            (int(predictions[0][row]), int(predictions[1][row])),
            (float(losses[0][row]), float(losses[1][row])),
        )
        for row in rows[order][change[order] > 0]
    ]


def _tag(columns: SplitColumns, tag: str) -> NDArray[np.bool_]:
    found = columns.notes.tags.get(tag)
    return np.zeros(columns.count, dtype=bool) if found is None else found


def _marked(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Marked:
    only_a, only_b = np.flatnonzero(a & ~b), np.flatnonzero(b & ~a)
    return Marked(len(only_a), len(only_b), only_a[:FIRST].tolist(), only_b[:FIRST].tolist())


def _marked_alike() -> Marked:
    return Marked(0, 0, [], [])


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else float("nan")
