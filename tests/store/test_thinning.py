from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from graybox.store.thinning import thin

values = st.floats() | st.sampled_from([0.0, 1.0, float("nan"), float("inf"), float("-inf"), 1.7e308, -1.7e308, 5e-324])


@st.composite
def series(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    y = draw(st.lists(values, max_size=60))
    step = draw(st.sampled_from([0, 1, 3, 2**40]))
    ages = draw(st.lists(st.integers(0, step), min_size=len(y), max_size=len(y)))
    x = np.cumsum(np.array(ages, dtype=np.int64))
    if draw(st.booleans()):
        x = x[::-1]
    return x, np.array(y, dtype=np.float64)


@settings(max_examples=300, deadline=None)
@given(series(), st.integers(1, 70), st.data())
def test_what_is_shown_keeps_what_matters(
    points: tuple[NDArray[np.int64], NDArray[np.float64]], limit: int, data: st.DataObject
) -> None:
    x, y = points
    count = len(y)
    keep = data.draw(st.lists(st.integers(0, count - 1), max_size=3)) if count else []
    shown = thin(x, y, limit, keep)
    assert len(shown) == len(set(shown.tolist())) <= limit
    assert np.all(np.diff(shown) > 0)
    if count <= limit:
        assert shown.tolist() == list(range(count))
        return
    assert count - 1 in shown
    finite = y[np.isfinite(y)]
    if limit >= 3 and len(finite):
        assert finite.max() in y[shown]
        assert finite.min() in y[shown]
    if limit >= 4:
        assert 0 in shown
    if limit >= 4 + len(keep):
        assert set(keep) <= set(shown.tolist())
    if limit >= 9 + len(keep) and not np.isfinite(y).all():
        assert not np.isfinite(y[shown]).all()


def test_spikes_in_a_long_series_stay() -> None:
    generator = np.random.default_rng(0)
    y = generator.normal(size=200_000)
    spikes = generator.choice(200_000, 10, replace=False)
    y[spikes] = np.where(np.arange(10) % 2, 50.0, -50.0)
    y[777] = 60.0
    shown = thin(np.arange(200_000) * 64, y, 1000)
    assert 900 <= len(shown) <= 1000
    assert set(spikes.tolist()) | {777} <= set(shown.tolist())


def test_where_the_loss_became_nan_stays() -> None:
    y = np.linspace(2, 1, 10_000)
    y[6_000:] = np.nan
    shown = thin(np.arange(10_000), y, 100)
    assert {0, 5_999, 6_000, 9_999} <= set(shown.tolist())
    assert thin(np.arange(10), np.full(10, np.nan), 5).tolist() == [0, 9]
