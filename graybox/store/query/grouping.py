"""Splitting the rows in scope into groups by a column or by tags."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graybox.store.query.analysis import MAX_LINES, Cell
from graybox.store.query.columns import Column, Kind
from graybox.store.query.ordering import ascending
from graybox.store.query.scope import Rows, Scope
from graybox.store.query.tree import Name

_CELL_LENGTH = 200
_SMALL_RANGE = 1 << 16  # of integers, which are counted faster than sorted


@dataclass(frozen=True)
class Group:
    """rows: ascending positions in scope."""

    label: Cell
    rows: Rows


@dataclass(frozen=True)
class Groups:
    """others, other_rows: groups that are not listed, and the rows in them."""

    listed: list[Group]
    others: int = 0
    other_rows: int = 0


@dataclass(frozen=True)
class Categories:
    """A column as whole numbers. codes: int64 [rows] of values in ascending order, -1 null. count: of the different
    values. label: of a code. by_label: whether the labels' order is meant, and not that of the codes."""

    codes: NDArray[np.int64]
    count: int
    label: Callable[[int], Cell]
    by_label: bool = False

    def counts(self) -> NDArray[np.int64]:
        """int64 [count]: the rows of each."""
        return np.bincount(self.codes[self.codes >= 0], minlength=self.count)

    def rank(self, code: int) -> Any:
        """What to sort codes by."""
        return self.label(code) if self.by_label else code


def by_column(name: Name, scope: Scope) -> Groups:
    """One group for each value, the 100 largest; last, if there are any, the rows without one."""
    categories = categories_of(name, scope)
    counts = categories.counts()
    kept = most_frequent(counts, MAX_LINES)
    order = ascending(categories.codes)
    codes = categories.codes[order]
    groups = []
    for code in sorted(kept.tolist(), key=categories.rank):
        first, last = np.searchsorted(codes, (code, code + 1))
        groups.append(Group(categories.label(code), order[first:last]))
    nulls = order[: np.searchsorted(codes, 0)]
    if len(nulls):
        groups.append(Group(None, nulls))
    return Groups(groups, int(np.count_nonzero(counts)) - len(kept), int(counts.sum() - counts[kept].sum()))


def by_tags(scope: Scope) -> Groups:
    """One group for each tag that any row has, the 100 largest; last, if there are any, the rows without a tag."""
    tagged = np.zeros(scope.count, dtype=bool)
    found: list[Group] = []
    for tag in scope.table.tags():
        mask = scope.tag(tag)
        tagged |= mask
        found.append(Group(short(tag), np.flatnonzero(mask)))
    sizes = np.array([len(group.rows) for group in found], dtype=np.int64)
    kept = sorted(most_frequent(sizes, MAX_LINES).tolist())
    groups = [found[index] for index in kept]
    untagged = np.flatnonzero(~tagged)
    if len(untagged):
        groups.append(Group(None, untagged))
    return Groups(groups, int(np.count_nonzero(sizes)) - len(kept), int(sizes.sum() - sizes[kept].sum()))


def most_frequent(counts: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """The places of the largest counts above 0, largest first, ties in order."""
    order = np.argsort(-counts, kind="stable")[:most]
    return order[counts[order] > 0]


def categories_of(name: Name, scope: Scope) -> Categories:
    """Classes by number, texts by alphabet, numbers by size, false before true."""
    column = scope.column(name)
    if column.kind is Kind.TEXT:
        texts = scope.texts(name)
        return _categories(texts.codes, texts.null(), lambda code: short(texts.texts[code]), by_label=True)
    null = np.zeros(scope.count, dtype=bool) if column.null is None else column.null
    if column.kind is Kind.BOOL:
        return _categories(column.values.view(np.uint8), null, bool)
    if column.kind is Kind.CLASS:
        return _categories(column.values, null | (column.values < 0), lambda code: class_label(column, code))
    if column.values.dtype.kind == "f":
        null = null | ~np.isfinite(column.values)
    return _categories(column.values, null, lambda value: value)


def class_label(column: Column, number: int) -> Cell:
    """Its name, or the number where it has none."""
    return short(column.names[number]) if number < len(column.names) else number


def short(text: str) -> str:
    """What a cell holds of a long text."""
    return text if len(text) <= _CELL_LENGTH else text[: _CELL_LENGTH - 1] + "…"


def _categories(
    values: NDArray[Any], null: NDArray[np.bool_], label: Callable[[Any], Cell], by_label: bool = False
) -> Categories:
    known = np.flatnonzero(~null)
    different, inverse = different_values(values[known])
    codes = np.full(len(values), -1, dtype=np.int64)
    codes[known] = inverse
    return Categories(codes, len(different), lambda code: label(different[code].item()), by_label)


def different_values(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The different values, ascending, and for each value which of them it is."""
    if values.dtype.kind in "iu" and values.size:
        least = int(values.min())
        if int(values.max()) - least < _SMALL_RANGE:
            shifted = (values - values.dtype.type(least)).astype(np.int64)
            there = np.bincount(shifted) > 0
            different = np.flatnonzero(there) + least
            return different, (np.cumsum(there) - 1)[shifted]
    different, inverse = np.unique(values, return_inverse=True)
    return different, inverse
