"""Drawing rows at random, the same ones each time."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from graybox.store.query.tree import Sample

Rows = NDArray[np.int64]

_STEP = 0x9E3779B97F4A7C15
_ALL_BITS = (1 << 64) - 1


def sample_size(sample: Sample, count: int) -> int:
    """How many of `count` rows: a percentage is rounded up, so that something is left of anything."""
    if not sample.as_percent:
        return min(int(sample.amount), count)
    return min(-int(-Fraction(repr(sample.amount)) * count // 100), count)


def drawn(rows: Rows, size: int, seed: int) -> Rows:
    """Positions in `rows` of `size` of them, ascending.

    Each row of the table has a lot that depends on its number and the seed alone, and the smallest lots win. So a
    larger sample has the smaller one in it, and a row that still matches tomorrow is still drawn if few others came.
    """
    if size >= len(rows):
        return np.arange(len(rows), dtype=np.int64)
    chosen = np.argpartition(_lots(rows, seed), size)[:size]
    chosen.sort()
    return chosen


def _lots(rows: Rows, seed: int) -> NDArray[np.uint64]:
    """uint64 [n], different for different rows."""
    start = _mixed(np.array([seed & _ALL_BITS], dtype=np.uint64))
    return _mixed(rows.astype(np.uint64) * np.uint64(_STEP) + start)


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64-bit numbers that leaves no trace of their order (the finaliser of SplitMix64)."""
    mixed = numbers.copy()
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed
