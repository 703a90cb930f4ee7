"""The order of an epoch: a function of seed, epoch and the samples' weights, in which a place is a place whatever the
weights are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graybox.errors import Invalid
from graybox.randomness import hashes, mix, permutation, purpose

MAX_WEIGHT = 100.0
"""A sample is drawn at most so many times in an epoch."""
MOST_WEIGHTED = 200_000_000
"""So many samples at most may have weights: the number of a place has 63 bits."""

Rows = NDArray[np.int64]
Weights = NDArray[np.float32]


@dataclass(frozen=True)
class Position:
    """Where a stream of samples stands in the order of an epoch.

    Every sample has its own place in the order, a whole number below the number of samples; the further copies of one
    that is drawn more than once are at places of their own, behind the sample whose place it is. offset: the place,
    extra: of what stands at this place, so many numbers are used up. Both are of the order and not of the list that the
    weights of a moment make of it, so that they mean the same after the weights have changed.
    """

    epoch: int = 0
    offset: int = 0
    extra: int = 0


class EpochOrder:
    """The samples of one epoch, one after the other.

    rows: int64 [draws]. copies: int64 [draws], 0 for a sample's first draw in the epoch, or None where each is drawn
    once.
    """

    def __init__(self, epoch: int, rows: Rows, copies: Rows | None = None, keys: Rows | None = None) -> None:
        self.epoch = epoch
        self.rows = rows
        self.copies = copies
        self._keys = keys
        self._stride = 1

    @classmethod
    def of(cls, seed: int, epoch: int, count: int, *, shuffle: bool, weights: Weights | None) -> EpochOrder:
        """weights: float32 [count], from 0 to MAX_WEIGHT, or None: 1 for each. A sample of weight w is drawn w times
        in an epoch, on average over epochs: as often as the whole number in it says and, with the probability that is
        left, once more. Which epochs those are does not depend on the weights of others, nor on the order."""
        order = permutation(seed, epoch, count) if shuffle else np.arange(count)
        if weights is None:
            return cls(epoch, order)
        whole = np.floor(weights)
        chance = hashes(mix(seed, purpose("weights"), epoch), np.arange(count)) * 2.0**-64
        draws = whole.astype(np.int64) + (chance < weights - whole)
        first = np.flatnonzero(draws[order] > 0)
        rows, places, numbers, copies = [order[first]], [first], [np.zeros_like(first)], [np.zeros_like(first)]
        for copy in range(1, int(draws.max(initial=0))):
            more = np.flatnonzero(draws > copy)
            lots = hashes(mix(seed, purpose("copies"), epoch, copy), more)
            rows.append(more)
            places.append((lots % np.uint64(count)).astype(np.int64) if shuffle else more)
            numbers.append(1 + (copy - 1) * count + more)
            copies.append(np.full(len(more), copy))
        made = cls(epoch, np.concatenate(rows), np.concatenate(copies))
        made._stride = 1 + int(MAX_WEIGHT) * count
        keys = np.concatenate(places) * made._stride + np.concatenate(numbers)
        ordered = np.argsort(keys, kind="stable")
        made.rows, made.copies, made._keys = made.rows[ordered], copies_of(made)[ordered], keys[ordered]
        return made

    def index_of(self, position: Position) -> int:
        """Of the first draw from the position on."""
        if self._keys is None:
            return position.offset + (position.extra > 0)
        return int(np.searchsorted(self._keys, position.offset * self._stride + position.extra))

    def behind(self, index: int) -> Position:
        """The position behind a draw."""
        if self._keys is None:
            return Position(self.epoch, index + 1)
        place, number = divmod(int(self._keys[index]), self._stride)
        return Position(self.epoch, place, number + 1)


def copies_of(order: EpochOrder) -> Rows:
    """Which draw of its sample in the epoch each one is, int64 [draws], from 0."""
    return np.zeros(len(order.rows), dtype=np.int64) if order.copies is None else order.copies


def checked_weight(weight: float, count: int = 0) -> float:
    """Raises Invalid for what cannot be the weight of one of `count` samples."""
    if not 0 <= weight <= MAX_WEIGHT:  # not for NaN either
        raise Invalid(f"a sampling weight is a number from 0 to {MAX_WEIGHT:g}, not {weight!r:.100}")
    if count > MOST_WEIGHTED:
        raise Invalid(f"of more than {MOST_WEIGHTED:,} samples none can have a weight of its own")
    return float(np.float32(weight))


def balanced(classes: Rows, how: str) -> Weights:
    """Weights that make classes equally frequent. classes: int64 [n], of which those below 0 are none and get 1.

    how: "oversample", each class as frequent as the largest (weights of 1 and more); "undersample", as the smallest (1
    and less); "balance", as frequent as a class is on average, so that an epoch is as long as it was. Raises Invalid
    for another word, for samples without classes, and where a weight would be above MAX_WEIGHT.
    """
    known = classes[classes >= 0]
    names, counts = np.unique(known, return_counts=True)
    if how not in ("balance", "oversample", "undersample"):
        raise Invalid(f"classes are rebalanced by balance, oversample or undersample, not {how!r:.100}")
    if len(names) < 2:
        raise Invalid(f"rebalancing takes samples of two classes or more; these are of {len(names)}")
    wanted = {"balance": counts.mean(), "oversample": counts.max(), "undersample": counts.min()}[how]
    weights = (wanted / counts).astype(np.float32)
    if weights.max() > MAX_WEIGHT:
        rare = int(names[np.argmax(weights)])
        raise Invalid(
            f"class {rare} has {counts.min():,} of {len(known):,} samples and would be drawn {weights.max():,.0f} "
            f"times in an epoch; at most {MAX_WEIGHT:g} can be: leave it out of the view, or undersample"
        )
    found = np.ones(len(classes), dtype=np.float32)
    found[classes >= 0] = weights[np.searchsorted(names, known)]
    return found
