"""Fewer points of a long series, such that it still looks the same: extremes, ends and gaps stay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tsdownsample import MinMaxLTTBDownsampler  # type: ignore[import-untyped, unused-ignore]

Indices = NDArray[np.int64]

_downsampler: Any = MinMaxLTTBDownsampler()  # type: ignore[no-untyped-call, unused-ignore]
_SMALLEST = 3
"""The fewest points that LTTB can be asked for."""


def thin(x: NDArray[np.int64], y: NDArray[np.float64], limit: int, keep: Iterable[int] = ()) -> Indices:
    """Which points to show, ascending indices, at most limit (1 or more) of them.

    x, y: shape [n], x in samples of age, y any values, NaN and infinities among them.
    keep: indices that matter to people (points with a note).

    All points where n is no more than limit. Otherwise by MinMaxLTTB (Van Der Donckt et al. 2023, "MinMaxLTTB:
    Leveraging MinMax-Preselection to Scale LTTB") over the finite points, plus, as far as limit allows and in this
    order: the last point, the greatest and the smallest, the first, those of `keep`, and where values cease to be
    finite.
    """
    count = len(y)
    if count <= limit:
        return np.arange(count)
    chosen = dict.fromkeys(_important(y, limit, keep))
    picked = np.fromiter(list(chosen)[:limit], np.int64)
    finite = np.flatnonzero(np.isfinite(y))
    room = limit - len(picked)
    if room <= 0:
        return np.sort(picked)
    return np.union1d(picked, _by_shape(x, y, finite, room))


def _important(y: NDArray[np.float64], limit: int, keep: Iterable[int]) -> list[int]:
    finite = np.isfinite(y)
    found = [len(y) - 1]
    if finite.any():
        found += [int(np.argmax(np.where(finite, y, -np.inf))), int(np.argmin(np.where(finite, y, np.inf)))]
    found += [0, *keep]
    broken = ~finite
    if broken.any():
        starts = np.flatnonzero(broken & ~np.concatenate(([False], broken[:-1])))
        most = max(limit // 4, 1)
        if len(starts) > most:
            starts = starts[np.linspace(0, len(starts) - 1, most).astype(np.int64)]
        found += starts.tolist()
    return found


def _by_shape(x: NDArray[np.int64], y: NDArray[np.float64], among: Indices, limit: int) -> Indices:
    """At most limit of the indices `among`."""
    if len(among) <= limit:
        return among
    if limit < _SMALLEST:
        return among[:0]
    order = among
    ages = x[among]
    if np.any(ages[1:] < ages[:-1]):
        order = among[np.argsort(ages, kind="stable")]
    # Scaled to at most 1, because LTTB multiplies: areas of values near the largest float would overflow.
    values = y[order]
    largest = np.abs(values).max()
    if largest > 1e100:
        values = values / largest
    picks = _downsampler.downsample(np.ascontiguousarray(x[order]), np.ascontiguousarray(values), n_out=limit)
    chosen: Indices = order[picks.astype(np.int64)]
    return chosen
