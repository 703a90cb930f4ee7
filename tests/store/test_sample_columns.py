from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest

from graybox.errors import Invalid, NotFound
from graybox.store.sample_columns import STATE_COLUMNS, Ratings, SplitColumns, SplitSummary


def test_a_new_split_has_seen_nothing() -> None:
    columns = SplitColumns("train", 3, "f", [1, 0, -1])
    assert columns.label.tolist() == [1, 0, -1]
    assert columns.prediction.tolist() == columns.last_age.tolist() == [-1, -1, -1]
    assert np.isnan(columns.loss).all() and columns.loss.dtype == np.float32
    assert columns.encounters.tolist() == [0, 0, 0]
    assert not columns.discarded.any()
    assert SplitColumns("val", 0).summary() == SplitSummary(0, 0, 0, 0.0, 0)


def test_repeated_rows_count_twice_and_the_last_value_wins() -> None:
    columns = SplitColumns("train", 4)
    columns.record(np.array([2, 0, 2]), np.array([1, 2, 3], np.float32), np.array([7, 8, 9]), 64)
    assert columns.encounters.tolist() == [1, 0, 2, 0]
    assert columns.loss[[0, 2]].tolist() == [2.0, 3.0]
    assert columns.prediction.tolist() == [8, -1, 9, -1]
    assert columns.last_age.tolist() == [64, -1, 64, -1]


def test_the_summary_counts() -> None:
    columns = SplitColumns("train", 5, labels=[0, 1, 1, -1, 0])
    columns.record(np.arange(4), np.array([1, 2, np.nan, 3], np.float32), np.array([0, 0, 1, 1]), 4)
    columns.discard(np.array([4, 4, 1]), True)
    assert columns.summary() == SplitSummary(samples=5, discarded=2, seen=4, mean_loss=2.0, wrong=1)


def test_rows_are_checked() -> None:
    columns = SplitColumns("train", 3)
    assert columns.checked_rows([0, 2]).tolist() == [0, 2]
    assert columns.checked_rows([]).dtype == np.int64
    assert columns.checked_rows(np.array([1], np.uint8)).dtype == np.int64
    for row in (3, -1, -(2**63), 2**62):
        with pytest.raises(NotFound, match=f"no sample {row}; it has samples 0 to 2"):
            columns.checked_rows([0, row])
    with pytest.raises(Invalid, match="integers, not float64"):
        columns.checked_rows([0.5])
    with pytest.raises(Invalid, match=r"shape \[n\]"):
        columns.checked_rows([[0]])


@pytest.mark.parametrize("name", ["", "a/b", "..", ".", "a\\b", "a\n", "x" * 101])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(Invalid, match="cannot name a split"):
        SplitColumns(name, 1)


def test_labels_and_counts_are_checked() -> None:
    with pytest.raises(Invalid, match=r"integers of shape \[2\], not int64 \(3,\)"):
        SplitColumns("train", 2, labels=[1, 2, 3])
    with pytest.raises(Invalid, match="not float64"):
        SplitColumns("train", 1, labels=[0.5])
    with pytest.raises(Invalid, match="-1 samples"):
        SplitColumns("train", -1)


@pytest.mark.parametrize("another", [copy.deepcopy, lambda columns: pickle.loads(pickle.dumps(columns))])
def test_a_copy_goes_on_by_itself(another: Callable[[SplitColumns], SplitColumns]) -> None:
    columns = SplitColumns("train", 4, labels=[0, 1, 2, 3])
    batch = (np.array([1, 2]), np.array([0.5, 2], np.float32), np.array([1, 1]))
    columns.record(*batch, 8)
    copied = another(columns)
    before = columns.state()
    copied.record(*batch, 16)
    for name, column in columns.state().items():
        np.testing.assert_array_equal(column, before[name])
    columns.record(*batch, 16)
    for name, column in columns.state().items():
        np.testing.assert_array_equal(column, copied.state()[name])
    assert copied.encounters.tolist() == copied.column("loss_count").tolist() == [0, 2, 2, 0]


def test_parts_of_columns_are_the_columns() -> None:
    columns, other = SplitColumns("train", 7), SplitColumns("train", 7)
    for age in range(3):
        rated = Ratings(np.full(2, 0.5, np.float32), np.full(2, 0.25, np.float32))
        columns.record(np.array([age, 6]), np.array([0.5, age], np.float32), np.array([1, 2]), age, rated)
    for name in STATE_COLUMNS:
        parts = [columns.part(name, slice(start, start + 3)) for start in (0, 3, 6)]
        np.testing.assert_array_equal(np.concatenate(parts), columns.column(name))
        for start, part in zip((0, 3, 6), parts, strict=True):
            other.set_part(name, slice(start, start + 3), part)
    for name, column in columns.state().items():
        np.testing.assert_array_equal(other.state()[name], column)
