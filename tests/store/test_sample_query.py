from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.errors import Invalid, NotFound
from graybox.store.sample_columns import SplitColumns
from graybox.store.sample_query import SORT_COLUMNS, SampleFilter, select

losses = st.sampled_from([0.1, 0.5, 0.5, 1e30, math.nan, math.inf, -1.0])


@st.composite
def split(draw: st.DrawFn, name: str) -> SplitColumns:
    count = draw(st.integers(0, 15))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=count, max_size=count))

    made = SplitColumns(name, count, "", np.array(column(st.integers(-1, 2)), dtype=np.int64))
    made.set_state(
        {
            "prediction": np.array(column(st.integers(-1, 2)), dtype=np.int64),
            "loss": np.array(column(losses), dtype=np.float32),
            "encounters": np.array(column(st.integers(0, 2)), dtype=np.int64),
            "last_age": np.array(column(st.sampled_from([-1, 64, 2**62])), dtype=np.int64),
            "discarded": np.array(column(st.booleans()), dtype=bool),
        }
    )
    return made


filters = st.builds(
    SampleFilter,
    origin=st.sampled_from(["", "", "val"]),
    discarded=st.none() | st.booleans(),
    wrong=st.none() | st.booleans(),
    min_loss=st.none() | st.sampled_from([0.1, 0.5, -math.inf, 1e300, -1e300]),
    max_loss=st.none() | st.sampled_from([0.1, 0.5, math.inf, 1e300, -1e300]),
    labels=st.sampled_from([(), (), (1,), (0, 2, 77)]),
    predictions=st.sampled_from([(), (), (1,), (-1, 2)]),
    id_contains=st.sampled_from(["", "", "1", "12", "x", "١", "0"]),
)


def matches(columns: SplitColumns, row: int, wanted: SampleFilter) -> bool:
    loss = float(columns.loss[row])
    label, prediction = int(columns.label[row]), int(columns.prediction[row])
    below, above = wanted.min_loss, wanted.max_loss
    return (
        wanted.origin in ("", columns.name)
        and wanted.discarded in (None, bool(columns.discarded[row]))
        and (wanted.wrong is None or (label >= 0 and prediction >= 0 and (label != prediction) == wanted.wrong))
        and (below is None or loss >= below - abs(below) * 1e-6)
        and (above is None or loss <= above + abs(above) * 1e-6)
        and (not wanted.labels or label in wanted.labels)
        and (not wanted.predictions or prediction in wanted.predictions)
        and wanted.id_contains in str(row)
    )


def key(splits: list[SplitColumns], place: tuple[int, int], sort_by: str) -> Any:
    columns, row = splits[place[0]], place[1]
    if sort_by == "sample_id":
        return row
    if sort_by == "origin":
        return columns.name
    return getattr(columns, sort_by)[row].item()


@settings(max_examples=250, deadline=None)
@given(st.data(), filters, st.sampled_from(["", *SORT_COLUMNS]), st.booleans())
def test_selecting_equals_a_plain_loop(data: st.DataObject, wanted: SampleFilter, sort_by: str, down: bool) -> None:
    splits = [data.draw(split(name)) for name in ("val", "train", "test")]
    expected = [
        (index, row)
        for index, columns in enumerate(splits)
        for row in range(columns.count)
        if matches(columns, row, wanted)
    ]
    if sort_by:
        known = [place for place in expected if key(splits, place, sort_by) == key(splits, place, sort_by)]
        unknown = [place for place in expected if place not in known]
        ranks = sorted({key(splits, place, sort_by) for place in known}, reverse=down)
        expected = sorted(known, key=lambda place: ranks.index(key(splits, place, sort_by))) + unknown
    found = select(splits, wanted, sort_by, down)
    assert list(zip(found.split.tolist(), found.row.tolist(), strict=True)) == expected
    assert found.split.dtype == np.int16 and found.row.dtype == np.int64
    assert found.splits == ("val", "train", "test")
    assert len(found) == len(expected)


def test_what_cannot_be_asked_is_named() -> None:
    splits = [SplitColumns("train", 3)]
    with pytest.raises(Invalid, match="cannot be sorted by 'colour'; columns are sample_id, origin"):
        select(splits, SampleFilter(), "colour")
    with pytest.raises(NotFound, match="no split 'val'; there are train"):
        select(splits, SampleFilter(origin="val"))
    with pytest.raises(Invalid, match="max_loss is a number"):
        select(splits, SampleFilter(max_loss=math.nan))
    assert len(select([], SampleFilter(), "loss")) == 0
