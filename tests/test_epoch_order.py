"""The order of an epoch with weights, against counting and against a plain list."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.epoch_order import MAX_WEIGHT, EpochOrder, Position, balanced, checked_weight, copies_of
from graybox.errors import Invalid
from graybox.randomness import hashes, permutation

WEIGHTS = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.0, 1.5, 2.0, 3.75]), min_size=1, max_size=40)


def made(weights: list[float] | None, count: int, epoch: int = 0, shuffle: bool = True) -> EpochOrder:
    array = None if weights is None else np.array(weights, dtype=np.float32)
    return EpochOrder.of(7, epoch, count, shuffle=shuffle, weights=array)


@settings(max_examples=200, deadline=None)
@given(WEIGHTS, st.integers(0, 5), st.booleans())
def test_each_sample_is_drawn_as_often_as_its_weight_says(weights: list[float], epoch: int, shuffle: bool) -> None:
    order = made(weights, len(weights), epoch, shuffle)
    draws = np.bincount(order.rows, minlength=len(weights))
    whole = np.floor(weights)
    assert ((draws == whole) | ((draws == whole + 1) & (weights != whole))).all()
    for row in range(len(weights)):
        assert sorted(copies_of(order)[order.rows == row].tolist()) == list(range(draws[row]))


@pytest.mark.parametrize("weight", [0.1, 0.5, 1.0, 2.25])
def test_over_epochs_the_mean_is_the_weight(weight: float) -> None:
    draws = [np.bincount(made([weight] * 500, 500, epoch).rows, minlength=500) for epoch in range(200)]
    assert abs(np.mean(draws) - weight) < 0.01
    # Another share of the samples each time, and every sample in some epochs.
    per_sample = np.mean(draws, axis=0)
    assert abs(per_sample - weight).max() < 0.2 and (weight % 1 == 0 or per_sample.std() > 0)


def test_weights_of_one_are_no_weights() -> None:
    plain, weighted = made(None, 50), made([1.0] * 50, 50)
    assert weighted.rows.tolist() == plain.rows.tolist() == permutation(7, 0, 50).tolist()


@settings(max_examples=200, deadline=None)
@given(WEIGHTS, st.data())
def test_a_position_is_a_place_whatever_the_weights_become(weights: list[float], data: st.DataObject) -> None:
    """What is not used up at a position is what comes behind it in the order of the new weights too: nothing that keeps
    its draws is left out or comes twice."""
    count = len(weights)
    others = data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=count, max_size=count))
    order, changed = made(weights, count), made(others, count)
    cut = data.draw(st.integers(0, len(order.rows)))
    position = order.behind(cut - 1) if cut else Position(0)
    assert order.index_of(position) == cut
    draws = list(zip(order.rows.tolist(), copies_of(order).tolist(), strict=True))
    ahead = list(zip(changed.rows.tolist(), copies_of(changed).tolist(), strict=True))
    later = ahead[changed.index_of(position) :]
    both = set(draws) & set(ahead)
    assert [d for d in later if d in both] == [d for d in draws[cut:] if d in both]
    # And without a batch in between, back again is back.
    assert made(weights, count).index_of(position) == cut


def test_copies_of_a_sample_are_spread_over_the_epoch() -> None:
    weights = [1.0] * 1_000
    weights[3] = 100.0
    places = np.flatnonzero(made(weights, 1_000).rows == 3)
    assert len(places) == 100
    assert 0.4 < np.mean(places) / 1_099 < 0.6 and np.std(places) / 1_099 > 0.2


@pytest.mark.parametrize(("how", "total"), [("balance", 90), ("oversample", 180), ("undersample", 30)])
def test_balanced_classes_are_equally_frequent(how: str, total: int) -> None:
    classes = np.array([0] * 60 + [1] * 20 + [2] * 10 + [-1] * 5)
    weights = balanced(classes, how)
    sums = [weights[classes == label].sum() for label in range(3)]
    assert np.allclose(sums, total / 3, rtol=1e-6)
    assert (weights[classes < 0] == 1).all()


@pytest.mark.parametrize(
    ("classes", "how", "message"),
    [
        ([0, 1], "even", "balance, oversample or undersample"),
        ([0, 0], "balance", "two classes or more; these are of 1"),
        ([-1, -1], "balance", "two classes or more; these are of 0"),
        ([0] * 1_000 + [1], "oversample", "class 1 has 1 of 1,001"),
    ],
)
def test_what_cannot_be_balanced_is_said(classes: list[int], how: str, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        balanced(np.array(classes), how)


@pytest.mark.parametrize("weight", [-0.1, MAX_WEIGHT + 1, float("nan"), float("inf")])
def test_what_is_no_weight_is_refused(weight: float) -> None:
    with pytest.raises(Invalid, match="from 0 to 100"):
        checked_weight(weight)


def test_hashes_differ_and_are_even() -> None:
    found = hashes(5, np.arange(20_000))
    assert len(np.unique(found)) == 20_000
    assert abs((found * 2.0**-64).mean() - 0.5) < 0.01
    assert not np.array_equal(found, hashes(6, np.arange(20_000)))
