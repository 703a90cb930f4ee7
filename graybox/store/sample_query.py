"""Filtering and sorting samples by whole columns: no Python loop over samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graybox.errors import Invalid, NotFound
from graybox.store.sample_columns import SplitColumns

SORT_COLUMNS = ("sample_id", "origin", "label", "prediction", "loss", "encounters", "last_age", "discarded")
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class SampleFilter:
    """All conditions that are set must hold.

    origin: a split's name. wrong: the prediction differs from (or, False, equals) the label; a sample without either is
    neither. min_loss, max_loss: both inclusive; a sample without a loss matches neither. labels, predictions: any of
    these classes. id_contains: part of the sample's id.
    """

    origin: str = ""
    discarded: bool | None = None
    wrong: bool | None = None
    min_loss: float | None = None
    max_loss: float | None = None
    labels: tuple[int, ...] = ()
    predictions: tuple[int, ...] = ()
    id_contains: str = ""


@dataclass(frozen=True)
class Selection:
    """Samples in order. split: int16 [m], an index into `splits` (names); row: int64 [m]."""

    split: NDArray[np.int16]
    row: NDArray[np.int64]
    splits: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.row)


def select(
    splits: Sequence[SplitColumns], criteria: SampleFilter, sort_by: str = "", descending: bool = False
) -> Selection:
    """The samples that match, sorted; ties, and everything where sort_by is empty, by split and row, ascending.

    Samples without a loss come last in both directions. Raises Invalid for an unknown column or a bound that is not a
    number, NotFound for an unknown origin.
    """
    names = tuple(columns.name for columns in splits)
    _check(names, criteria, sort_by)
    matches = [_matching(columns, criteria) for columns in splits]
    row = np.concatenate([np.zeros(0, np.int64), *matches])
    split = np.repeat(np.arange(len(splits), dtype=np.int16), [len(match) for match in matches])
    if sort_by and len(row):
        order = _order(splits, matches, split, sort_by, descending)
        split, row = split[order], row[order]
    return Selection(split, row, names)


def _check(names: Sequence[str], criteria: SampleFilter, sort_by: str) -> None:
    if sort_by and sort_by not in SORT_COLUMNS:
        raise Invalid(f"samples cannot be sorted by {sort_by!r}; columns are {', '.join(SORT_COLUMNS)}")
    if criteria.origin and criteria.origin not in names:
        raise NotFound(f"there is no split {criteria.origin!r}; there are {', '.join(names) or 'none yet'}")
    for name in ("min_loss", "max_loss"):
        bound = getattr(criteria, name)
        if bound is not None and math.isnan(bound):
            raise Invalid(f"{name} is a number, not {bound}")


def _matching(columns: SplitColumns, criteria: SampleFilter) -> NDArray[np.int64]:
    """Ascending rows of one split."""
    if criteria.origin and criteria.origin != columns.name:
        return np.zeros(0, dtype=np.int64)
    mask = np.ones(columns.count, dtype=bool)
    if criteria.discarded is not None:
        mask &= columns.discarded == criteria.discarded
    if criteria.wrong is not None:
        mask &= columns.rightness() == (0 if criteria.wrong else 1)
    if criteria.min_loss is not None:
        mask &= columns.loss >= _bound(criteria.min_loss)
    if criteria.max_loss is not None:
        mask &= columns.loss <= _bound(criteria.max_loss)
    if criteria.labels:
        mask &= np.isin(columns.truth(), criteria.labels)
    if criteria.predictions:
        mask &= np.isin(columns.prediction, criteria.predictions)
    if criteria.id_contains:
        mask &= _ids_containing(columns.count, criteria.id_contains)
    return np.flatnonzero(mask)


def _bound(value: float) -> np.float32:
    """A bound in the column's own type, so that a loss shown as 0.1 lies within 0.1 to 0.1."""
    if math.isinf(value):
        return np.float32(value)
    return np.float32(min(max(value, -_LARGEST), _LARGEST))


def _ids_containing(count: int, part: str) -> NDArray[np.bool_]:
    if not (part.isascii() and part.isdecimal()):
        return np.zeros(count, dtype=bool)
    ids = np.arange(count).astype(f"S{len(str(max(count - 1, 0)))}")
    return np.asarray(np.char.find(ids, part.encode()) >= 0)


def _order(
    splits: Sequence[SplitColumns],
    matches: Sequence[NDArray[np.int64]],
    split: NDArray[np.int16],
    sort_by: str,
    descending: bool,
) -> NDArray[np.int64]:
    key: NDArray[Any]
    if sort_by == "sample_id":
        key = np.concatenate(matches)
    elif sort_by == "label":
        key = np.concatenate([columns.truth(match) for columns, match in zip(splits, matches, strict=True)])
    elif sort_by == "origin":
        ranks = np.argsort(np.argsort([columns.name for columns in splits], kind="stable"), kind="stable")
        key = ranks[split]
    else:
        key = np.concatenate([getattr(columns, sort_by)[match] for columns, match in zip(splits, matches, strict=True)])
    if key.dtype == np.bool_:
        key = key.astype(np.int8)
    # Negated rather than reversed: ties stay in order of split and row, and NaN stays last. ~ cannot overflow.
    if descending:
        key = -key if key.dtype.kind == "f" else ~key
    return np.argsort(key, kind="stable")
