from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graybox.errors import StorageError
from graybox.store.metric_history import ROW, MetricState, Series, rewind_payload, series_payload


def row(series: int, age: int) -> bytes:
    return ROW.pack(series, 0, age, age, 0, float(age), 0)


@given(
    st.lists(st.one_of(st.tuples(st.just("add"), st.integers(1, 4)), st.tuples(st.just("rewind"), st.integers(0, 40))))
)
def test_positions_count_all_that_was_ever_appended(actions: list[tuple[str, int]]) -> None:
    state = MetricState()
    state.apply(series_payload(Series("train", "loss", 0)))
    valid: list[int] = []  # positions of the points that count
    appended = 0
    for action, number in actions:
        if action == "add":
            state.apply(b"P" + b"".join(row(0, appended + index) for index in range(number)))
            valid += range(appended, appended + number)
            appended += number
        else:
            position = min(number, appended)
            state.rewind(position)
            valid = [point for point in valid if point < position]
        history = state.history
        assert history.rows["age"][: history.count].tolist() == valid
        assert state.position == appended
        assert history.last == ({0: len(valid) - 1} if valid else {})
        for position in range(appended + 2):
            assert state.rows_at(position) == sum(point < position for point in valid)


def test_a_reader_keeps_its_history_while_the_writer_goes_on() -> None:
    state = MetricState()
    state.apply(series_payload(Series("train", "loss", 0)))
    for age in range(2000):
        state.apply(b"P" + row(0, age))
    held = state.history
    count, rows = held.count, held.rows
    state.apply(rewind_payload(500))
    for age in range(3000):
        state.apply(b"P" + row(0, 10_000 + age))
    assert count == 2000
    np.testing.assert_array_equal(rows["age"][:count], np.arange(2000))
    assert state.history.generation == held.generation + 1


@pytest.mark.parametrize("payload", [b"X", b"P123", b"S{}", b"S[", b"R12", b"N{}", b"H\xff"])
def test_a_senseless_record_is_refused(payload: bytes) -> None:
    with pytest.raises(StorageError, match="record of the metrics log is broken"):
        MetricState().apply(payload)
