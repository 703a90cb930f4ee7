"""Numbers of whole columns, some of which are null: comparing, calculating and summing them up."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ONE_BY_ONE = 8


@dataclass(frozen=True, slots=True)
class Numbers:
    """values: an array [n], or one number for all rows. null: bool [n] or None; NaN is null as well.

    A Python number is one that the query wrote: it is compared in the column's own precision, so that a loss that is
    shown as 0.1 equals 0.1. What was calculated is a float64, and compared as it is.
    """

    values: NDArray[Any] | np.float64 | int | float
    null: Mask | None = None

    def floats(self) -> NDArray[np.float64] | np.float64:
        """As float64, NaN where null. The column itself where it is just that."""
        if not isinstance(self.values, np.ndarray):
            return np.float64(self.values)
        floats = self.values.astype(np.float64, copy=False)
        return floats if self.null is None else np.where(self.null, np.nan, floats)

    def finite(self, count: int) -> NDArray[Any]:
        """Those that are neither null nor infinite, in order. count: of the rows."""
        values = self.values
        if not isinstance(values, np.ndarray):
            return np.full(count if math.isfinite(values) else 0, values, dtype=np.float64)
        keep = np.isfinite(values) if values.dtype.kind == "f" else None
        if self.null is not None:
            keep = ~self.null if keep is None else keep & ~self.null
        return values if keep is None or bool(keep.all()) else values[keep]

    def is_null(self, count: int) -> Mask:
        null = np.zeros(count, dtype=bool) if self.null is None else self.null.copy()
        if isinstance(self.values, np.ndarray):
            return null | np.isnan(self.values) if self.values.dtype.kind == "f" else null
        return np.full(count, math.isnan(self.values))


def compare(comparison: str, left: Numbers, right: Numbers, count: int) -> Mask:
    """bool [count]; false wherever either side is null."""
    first, second = _in_the_columns_type(left.values, right.values), _in_the_columns_type(right.values, left.values)
    if comparison == "!=":
        found = (first < second) | (first > second)  # unlike !=, false for NaN
    else:
        found = COMPARE[comparison](first, second)
    mask: Mask = found if isinstance(found, np.ndarray) and found.ndim else np.full(count, bool(found))
    for null in (left.null, right.null):
        if null is not None:
            mask &= ~null
    return mask


def _in_the_columns_type(value: Any, other: Any) -> Any:
    """A number that the query wrote, in the type of the column that it is compared with."""
    if not isinstance(other, np.ndarray) or other.dtype.kind != "f" or type(value) not in (int, float):
        return value
    largest = float(np.finfo(other.dtype).max)
    return other.dtype.type(min(max(float(value), -largest), largest))


def is_in(values: NDArray[Any], items: Iterable[int | float]) -> Mask:
    """bool [n]: which values are one of the items. NaN is none."""
    wanted: list[Any]
    if values.dtype.kind == "f":
        wanted = sorted({_in_the_columns_type(item, values) for item in items})
    else:
        bounds = np.iinfo(values.dtype)
        wanted = sorted({int(item) for item in items if item == int(item) and bounds.min <= item <= bounds.max})
    mask = np.zeros(len(values), dtype=bool)
    if len(wanted) <= _ONE_BY_ONE:
        for item in wanted:
            mask |= values == item
        return mask
    ordered = np.array(wanted, dtype=values.dtype)
    place = np.searchsorted(ordered, values)
    np.minimum(place, len(ordered) - 1, out=place)
    return np.asarray(ordered[place] == values)


def divide(left: Any, right: Any) -> Any:
    """Null where the divisor is 0."""
    return np.where(np.equal(right, 0), np.nan, np.divide(left, right))[()]


def logarithm(values: Any) -> Any:
    """Natural; null for what is not above 0."""
    return np.where(np.greater(values, 0), np.log(values), np.nan)[()]


ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": divide,
    "%": np.mod,
}
"""Of float64; NaN is null and makes null. The remainder has the divisor's sign, and is null where that is 0."""


def quantile(values: NDArray[Any], share: float) -> float:
    """Of finite numbers, interpolated linearly as by numpy.quantile. NaN where there are none."""
    if not len(values):
        return math.nan
    place = (len(values) - 1) * share
    low = min(math.floor(place), len(values) - 1)
    high = min(low + 1, len(values) - 1)
    parted = np.partition(values, (low, high))
    below, above, part = float(parted[low]), float(parted[high]), place - low
    step = above - below
    if not math.isfinite(step):
        return below * (1 - part) + above * part
    # From the nearer end, so that a quantile at a value is that value.
    return below + step * part if part < 0.5 else above - step * (1 - part)


def summary(function: str, values: NDArray[Any], share: float = 0.5) -> float:
    """min, max, mean, median, std (of the whole population) or quantile of finite numbers; NaN where there are none, or
    where the result is too large."""
    if not len(values):
        return math.nan
    match function:
        case "min":
            found = float(values.min())
        case "max":
            found = float(values.max())
        case "mean":
            found = float(values.mean(dtype=np.float64))
        case "std":
            found = float(values.std(dtype=np.float64))
        case "median":
            found = quantile(values, 0.5)
        case _:
            found = quantile(values, share)
    return found if math.isfinite(found) else math.nan
