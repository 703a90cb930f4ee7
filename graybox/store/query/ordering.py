"""Sorting rows by several keys: stable, null last in either direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]

_SMALL_RANGE = 1 << 16  # of integers, which NumPy sorts by their digits in linear time
_HALF_RANGE = 1 << 31
_LOW_BITS = 0xFFFFFFFF  # positions are below: arrays of more than 4e9 rows are not sorted here
_SHORT = 4  # how much shorter than all a first page is to be worth a search for it


@dataclass(frozen=True)
class Key:
    """values: numbers [n], smaller ones first. null: bool [n] or None, which come last; NaN is marked there, too."""

    values: NDArray[Any]
    null: NDArray[np.bool_] | None = None


def key_of(values: NDArray[Any], null: NDArray[np.bool_] | None, descending: bool) -> Key:
    """null: where there is no value, beside NaN."""
    if values.dtype.kind == "b":
        values = values.view(np.uint8)
    if values.dtype.kind == "f":
        missing = np.isnan(values)
        null = missing if null is None else missing | null
    if null is not None and not null.any():
        null = None
    if descending:
        # Negated rather than reversed, so that ties stay in order. ~ cannot overflow.
        values = -values if values.dtype.kind == "f" else ~values
    return Key(values, null)


def ordered(keys: Sequence[Key], count: int, first: int | None = None) -> Positions:
    """0 to count - 1 by the keys, of which the first decides first; ties in ascending order. first: only so many."""
    order = np.arange(count, dtype=np.int64)
    if first is not None and keys and first * _SHORT < count:
        order = _shortlist(keys[0], first)
    for key in reversed(keys):
        order = _stable(key, order)
    return order if first is None else order[:first]


def _shortlist(key: Key, first: int) -> Positions:
    """Ascending positions, among which are the first ones by this key and all that tie with the last of them."""
    known = np.arange(len(key.values)) if key.null is None else np.flatnonzero(~key.null)
    if first == 0 or len(known) <= first:
        return np.arange(len(key.values), dtype=np.int64)[: len(key.values) if first else 0]
    values = key.values if key.null is None else key.values[known]
    last = np.partition(values, first - 1)[first - 1]
    return np.asarray(known[values <= last])


def _stable(key: Key, order: Positions) -> Positions:
    values = key.values[order]
    if key.null is None:
        return order[ascending(values)]
    null = key.null[order]
    known = np.flatnonzero(~null)
    return np.concatenate([order[known[ascending(values[known])]], order[null]])


def ascending(values: NDArray[Any]) -> Positions:
    """A stable argsort of numbers without NaN."""
    digits: NDArray[np.int64] | None = None
    if values.dtype.kind in "iu" and values.size:
        least = int(values.min())
        span = int(values.max()) - least
        if span < _SMALL_RANGE:
            # The low 16 bits tell such values apart, whatever their type and sign.
            return np.argsort(values.astype(np.uint16) - np.uint16(least & 0xFFFF), kind="stable")
        if span < _HALF_RANGE:
            digits = (values - values.dtype.type(least)).astype(np.int64)
    elif values.dtype == np.float32:
        digits = _float_digits(values)
    return _ties_in_order(values, np.argsort(values)) if digits is None else _by_digits(digits)


def _float_digits(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Integers of 32 bits in the order of the floats: the bits of one, which below 0 count backwards."""
    bits = (values + np.float32(0)).view(np.int32)  # the sum makes 0 of -0
    return (bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))).astype(np.int64)


def _by_digits(digits: NDArray[np.int64]) -> Positions:
    """Value and position in one number each, which is sorted faster than either with the other."""
    packed = (digits << 32) | np.arange(len(digits), dtype=np.int64)
    packed.sort()
    return packed & _LOW_BITS


def _ties_in_order(values: NDArray[Any], order: Positions) -> Positions:
    """The fast sort leaves ties in any order: runs of equal values are numbered, and sorted by position within."""
    ranked = values[order]
    ties = ranked[1:] == ranked[:-1]
    if not ties.any():
        return order
    tied = np.flatnonzero(np.concatenate([ties, [False]]) | np.concatenate([[False], ties]))
    run = np.cumsum(~np.concatenate([[False], ties])[tied])
    packed = (run << 32) | order[tied]
    packed.sort()
    order[tied] = packed & _LOW_BITS
    return order
