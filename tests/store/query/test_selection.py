from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.errors import Invalid, NotFound
from graybox.store.query import Column, ColumnTable, Kind, Query, check, parse, rows
from tests.store.query.plain_oracle import Oracle
from tests.store.query.random_queries import conditions, sort_keys
from tests.store.query.random_tables import Case, tables


@st.composite
def scopes(draw: st.DrawFn, count: int) -> list[int] | None:
    """All rows, or some in any order."""
    if count == 0 or draw(st.booleans()):
        return None
    return draw(st.lists(st.integers(0, count - 1), unique=True))


@settings(max_examples=250, deadline=None)
@given(tables(), conditions, st.data())
def test_a_condition_means_what_it_means_row_by_row(case: Case, where: object, data: st.DataObject) -> None:
    within = data.draw(scopes(len(case)))
    oracle = Oracle(case, list(range(len(case))) if within is None else within)
    query = Query(where)  # type: ignore[arg-type]
    check(query, case.table)
    found = rows(query, case.table, within=None if within is None else np.array(within, dtype=np.int64))
    assert found.tolist() == oracle.found(query.where)
    assert found.dtype == np.int64


@settings(max_examples=120, deadline=None)
@given(tables(20), st.lists(sort_keys, min_size=1, max_size=4).map(tuple), st.none() | st.integers(0, 22), st.data())
def test_sorting_is_stable_with_null_last(case: Case, keys: object, limit: int | None, data: st.DataObject) -> None:
    within = data.draw(scopes(len(case)))
    oracle = Oracle(case, list(range(len(case))) if within is None else within)
    query = Query(sort=keys, limit=limit)  # type: ignore[arg-type]
    found = rows(query, case.table, within=None if within is None else np.array(within, dtype=np.int64))
    assert found.tolist() == oracle.ordered(oracle.scope, query.sort)[:limit]


@pytest.mark.parametrize(
    "values",
    [
        np.array([0.0, -0.0, 1.5, -2.0, 1.5, np.inf, -np.inf, np.nan], dtype=np.float32),
        np.array([0.0, -0.0, 1.5, -2.0, 1.5, np.inf, -np.inf, np.nan], dtype=np.float64),
        np.array([0, 5, 5, -3, 2**62, -(2**62), 2**62], dtype=np.int64),
        np.array([0, 2**31, 5, -(2**20), 2**30, 5], dtype=np.int64),
        np.array([127, -128, 0, 127, -128], dtype=np.int8),
        np.array([0, 2**64 - 1, 2**63, 2**64 - 1], dtype=np.uint64),
        np.array([0.5, 2.0, 0.5], dtype=np.float16),
    ],
    ids=lambda values: str(values.dtype),
)
@pytest.mark.parametrize("times", [1, 50])
@pytest.mark.parametrize("limit", [None, 3])
@pytest.mark.parametrize("descending", [False, True])
def test_every_type_of_number_sorts(values: np.ndarray, times: int, limit: int | None, descending: bool) -> None:
    column = np.tile(values, times)
    known = [row for row in range(len(column)) if column[row] == column[row]]
    plain = column.tolist()
    known.sort(key=lambda row: -plain[row] if descending else plain[row])
    expected = known + [row for row in range(len(column)) if row not in set(known)]
    query = parse(f"sortby x {'desc' if descending else 'asc'}" + ("" if limit is None else f" limit {limit}"))
    assert rows(query, ColumnTable({"x": column})).tolist() == expected[:limit]


def test_a_first_page_is_the_beginning_of_the_whole_order() -> None:
    random = np.random.default_rng(0)
    table = ColumnTable(
        {
            "x": random.integers(0, 50, 5_000),
            "y": np.where(random.random(5_000) < 0.3, np.nan, random.random(5_000)),
            "name": random.choice(["a", "b", "c"], 5_000).tolist(),
        }
    )
    for order in ("x desc, y", "y, x", "y desc", "name desc, x", "x"):
        whole = rows(parse(f"sortby {order}"), table)
        for limit in (0, 1, 7, 400, 1_300, 4_999, 9_999):
            assert np.array_equal(rows(parse(f"sortby {order} limit {limit}"), table), whole[:limit])


def test_a_sample_is_the_same_each_time_and_in_order() -> None:
    table = ColumnTable({"x": np.arange(1_000)[::-1].copy()})
    query = parse("x >= 500 sample 10%")
    found = rows(query, table, seed=3)
    assert len(found) == 50 and np.array_equal(found, np.sort(found)) and (found < 500).all()
    assert np.array_equal(found, rows(query, table, seed=3))
    assert not np.array_equal(found, rows(query, table, seed=4))
    assert set(found) <= set(rows(parse("x >= 500 sample 100"), table, seed=3))
    assert np.array_equal(rows(parse("x >= 500 sample 10% sortby x"), table, seed=3), found[::-1])
    within = np.array([7, 3, 900, 5])
    assert rows(parse("sample 3"), table, within=within).tolist() in [[7, 3, 900], [7, 3, 5], [7, 900, 5], [3, 900, 5]]
    for seed in (-1, 2**63, 2**80):
        assert len(rows(query, table, seed=seed)) == 50


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("sample 0", 0), ("sample 1", 1), ("sample 7", 7), ("sample 99", 10), ("sample 0%", 0), ("sample 1%", 1),
        ("sample 30%", 3), ("sample 29.9%", 3), ("sample 30.1%", 4), ("sample 100%", 10),
    ],
)  # fmt: skip
def test_a_percentage_is_rounded_up(text: str, size: int) -> None:
    assert len(rows(parse(text), ColumnTable({"x": np.arange(10)}))) == size


def test_every_row_is_drawn_equally_often() -> None:
    table = ColumnTable({"x": np.arange(60)})
    query = parse("sample 15")
    drawn = np.zeros(60)
    together = 0
    for seed in range(2_000):
        found = rows(query, table, seed=seed)
        drawn[found] += 1
        together += 0 in found and 1 in found
    # 500 each, with a standard deviation of 19.4; the neighbours 2,000 * 15/60 * 14/59 = 118.6 times, 10.6.
    assert (np.abs(drawn - 500) < 5 * 19.4).all()
    assert abs(together - 118.6) < 5 * 10.6


def test_quantiles_are_those_of_the_rows_in_scope() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, np.nan, np.inf, 100.0])
    table = ColumnTable({"x": values})
    assert rows(parse("x > p50"), table).tolist() == [3, 5, 6]
    assert rows(parse("x > p50 and x < 50"), table).tolist() == [3]
    assert rows(parse("x > p50"), table, within=np.array([2, 1, 0])).tolist() == [2]
    assert rows(parse("p50 < x"), table).tolist() == [3, 5, 6]
    assert rows(parse("x == p0 or x >= p100"), table).tolist() == [0, 5, 6]
    assert rows(parse("x > p50"), table, within=np.array([4])).tolist() == []


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40),
    st.floats(0, 100).map(lambda percent: round(percent, 3)),
    st.sampled_from([np.float32, np.float64]),
)
def test_a_quantile_is_that_of_numpy(values: list[float], percent: float, dtype: type) -> None:
    column = np.array(values, dtype=dtype)
    expected = np.quantile(column.astype(np.float64), percent / 100)
    table = ColumnTable({"x": column})
    for text in (f"x > p{percent:.3f}", f"x > quantile(x, {percent / 100!r})"):
        assert rows(parse(text), table).tolist() == np.flatnonzero(column > expected).tolist()


def test_a_column_is_asked_for_once_and_only_if_it_is_used() -> None:
    asked: list[str] = []

    class Counting(ColumnTable):
        def column(self, name: str) -> Column:
            asked.append(name)
            return super().column(name)

    columns = {name: np.arange(5.0) for name in ("loss", "score", "unused", "late")}
    table = Counting({**columns, "label": Column("label", Kind.CLASS, np.arange(5), names=tuple("abcde"))})
    query = parse("loss > 1 and loss < p90 and (loss > 2 or label != 'a') sortby score, loss")
    check(query, table)
    assert sorted(asked) == ["label", "loss", "score"]
    asked.clear()
    rows(query, table)
    assert sorted(asked) == ["label", "loss", "score"]


def test_columns_are_neither_changed_nor_handed_out() -> None:
    flag, loss = np.array([True, False, True]), np.array([3.0, 1.0, 2.0])
    tag = np.array([True, True, False])
    table = ColumnTable({"flag": flag, "loss": loss}, {"tag": tag})
    for text in ("flag and tag:tag", "tag:tag and flag", "not flag or loss > 1", "sortby loss desc", "sortby flag"):
        rows(parse(text), table)
    assert flag.tolist() == [True, False, True] and loss.tolist() == [3, 1, 2] and tag.tolist() == [True, True, False]


def test_rows_that_are_none_are_named() -> None:
    table = ColumnTable({"x": np.arange(3)})
    with pytest.raises(NotFound, match="no row 3; the table has 3"):
        rows(parse("x > 0"), table, within=np.array([0, 3]))
    with pytest.raises(Invalid, match=r"rows are integers of shape \[n\], not float64 \[1\]"):
        rows(parse("x > 0"), table, within=np.array([0.5]))
    assert rows(parse("x > 0"), table, within=[]).tolist() == []
    assert rows(parse("@reset"), table).tolist() == [0, 1, 2]


def test_an_alias_and_a_late_column() -> None:
    made: list[int] = []

    def late() -> list[float]:
        made.append(1)
        return [3.0, 2.0, 1.0]

    table = ColumnTable({"sample_id": np.arange(3), "late": late}, aliases={"id": "sample_id"})
    assert rows(parse("id > 0"), table).tolist() == [1, 2]
    assert made == []
    assert rows(parse("late > 1.5 sortby late"), table).tolist() == [1, 0]
    assert rows(parse("late > 2.5"), table).tolist() == [0]
    assert made == [1]
