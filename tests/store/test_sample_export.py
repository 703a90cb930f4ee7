from __future__ import annotations

import subprocess
import sys
import tracemalloc
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graybox.errors import Invalid, NotFound
from graybox.store import export_text
from graybox.store.query import QueryError
from graybox.store.sample_columns import Ratings, SplitColumns
from graybox.store.sample_export import FORMATS, Origin, check_format, export_samples, find
from graybox.store.sample_notes import checked_note_name
from graybox.store.sample_table import SampleTable
from tests.conftest import REPOSITORY
from tests.store.exported_columns import TEXTS, assert_is_table, frame_of

ORIGIN = Origin("run-1", 3, 24, 1)


def is_name(text: str) -> bool:
    try:
        checked_note_name(text, "tag")
    except Invalid:
        return False
    return True


NOTES = TEXTS.filter(is_name) | st.sampled_from(["=1+1", "@x", "-1", "a,b", 'q"q', "naïve", "limit"])


@st.composite
def tables(draw: st.DrawFn) -> SampleTable:
    """Two splits that saw anything, with notes of people."""
    splits = []
    for name in ("train", "val, too"):
        count = draw(st.integers(0, 12))
        labels = draw(hnp.arrays(np.int64, count, elements=st.integers(-1, 3)))
        columns = SplitColumns(name, count, "fingerprint", labels)
        for _ in range(draw(st.integers(0, 3)) if count else 0):
            rows = draw(hnp.arrays(np.int64, st.integers(1, count), elements=st.integers(0, count - 1)))
            size = st.just(len(rows))
            ratings = Ratings(draw(hnp.arrays("f4", size)), draw(hnp.arrays("f4", size)))
            with np.errstate(all="ignore"):
                predictions = draw(hnp.arrays(np.int64, size, elements=st.integers(-1, 3)))
                columns.record(rows, draw(hnp.arrays("f4", size)), predictions, draw(st.integers(0, 2**40)), ratings)
        everyone = np.arange(count)
        columns.discarded[:] = draw(hnp.arrays(np.bool_, count))
        columns.notes.correct(everyone, draw(hnp.arrays(np.int64, count, elements=st.integers(-1, 3))))
        columns.notes.weigh(everyone, draw(hnp.arrays("f4", count, elements=st.floats(0, 100, width=32))))
        for tag in draw(st.lists(NOTES, max_size=2, unique=True)):
            columns.notes.tag(tag, np.flatnonzero(draw(hnp.arrays(np.bool_, count))), True)
        for signal in draw(st.lists(NOTES, max_size=2, unique=True)):
            columns.notes.log(signal, everyone, draw(hnp.arrays("f4", count)))
        if draw(st.booleans()):
            columns.notes.copy(
                "then", columns.column(draw(st.sampled_from(["loss", "discarded", "encounters"]))).copy()
            )
        splits.append(columns)
    return SampleTable(splits, draw(st.just(()) | st.lists(TEXTS.filter(bool), min_size=4, max_size=4, unique=True)))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_file_holds_every_column_of_the_table(kind: str) -> None:
    @settings(max_examples=30)
    @given(tables(), st.sampled_from(["", "encounters > 0", "sortby loss desc, id desc", "sample 50%"]))
    def check(table: SampleTable, query: str) -> None:
        with np.errstate(all="ignore"):
            text, found = find(query, table)
            export = export_samples(table, found, text, ORIGIN, kind)
            content = b"".join(export.parts)
            if len(found) or kind != "jsonl":
                assert_is_table(frame_of(kind, content), table, table.numbers(found))
        assert (export.total_rows, export.mime_type) == (len(found), FORMATS[kind].mime_type)

    check()


def small() -> SampleTable:
    train = SplitColumns("train", 5, labels=np.array([0, 1, -1, 1, 0]))
    train.notes.tag("hard", np.array([1, 2]), True)
    return SampleTable([train], ("cat", "dog"))


def written(table: SampleTable, *columns: str, query: str = "") -> str:
    text, found = find(query, table)
    return b"".join(export_samples(table, found, text, ORIGIN, "csv", columns).parts).decode()


def test_columns_by_another_name_are_there_once() -> None:
    table = small()
    assert written(table, "sample_id", "id", "origin", query="limit 1") == "id,split\r\n0,train\r\n"
    assert written(table, "tag:hard", "label", query="id < 3") == (
        "tag:hard,label,label_name\r\nFalse,0,cat\r\nTrue,1,dog\r\nTrue,-1,\r\n"
    )


def test_what_is_not_there_is_told_with_what_is_near() -> None:
    for column, told in (("los", "do you mean loss"), ("tag:hrad", "do you mean tag:hard"), ("label_name", "label")):
        with pytest.raises(NotFound, match=told):
            written(small(), column)
    with pytest.raises(Invalid, match="there is no format 'CSV'; there are csv, jsonl, parquet, manifest"):
        check_format("CSV")
    assert check_format("") == "csv"
    for query in ("show count", "loss > 1 show count", "@reset", "@overview"):
        with pytest.raises(QueryError, match="an export has samples"):
            find(query, small())


def test_what_changes_afterwards_is_not_in_the_file() -> None:
    for kind in FORMATS:
        table = small()
        _, found = find("", table)
        before = b"".join(export_samples(table, found, "", ORIGIN, kind).parts)
        export = export_samples(table, found, "", ORIGIN, kind)
        train = table.splits[0]
        train.discarded[:] = True
        train.loss[:] = 7
        train.notes.correct(np.arange(5), np.ones(5, np.int64))
        train.notes.tag("hard", np.arange(5), True)
        after = b"".join(export.parts)
        if kind == "manifest":  # which has a time in it
            before, after = (content.partition(b'"class_names"')[2] for content in (before, after))
        assert after == before or kind == "parquet"
        if kind == "parquet":
            frame = frame_of(kind, after)
            assert not frame["discarded"].any() and frame["loss"].isna().all() and frame["tag:hard"].sum() == 2


def test_memory_does_not_grow_with_the_file() -> None:
    """While it is written, beside the copy of its columns."""

    def most(count: int, kind: str) -> tuple[int, int]:
        """Bytes of the file, and the most that were taken at once."""
        table = SampleTable([SplitColumns("train", count, labels=np.arange(count) % 10)], tuple("abcdefghij"))
        export = export_samples(table, find("", table)[1], "", ORIGIN, kind)
        tracemalloc.start()
        size = sum(map(len, export.parts))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size, peak

    with patch.object(export_text, "SLICE_ROWS", 200):
        for kind in ("csv", "jsonl"):
            most(200, kind)  # what is kept from the first time on
            (little, peak), (much, later) = most(400, kind), most(4_000, kind)
            assert much > 9 * little and later < 1.5 * peak, kind


def test_only_parquet_loads_what_writes_it() -> None:
    code = """
import sys
import numpy as np
from graybox.store.sample_columns import SplitColumns
from graybox.store.sample_export import Origin, export_samples, find
from graybox.store.sample_table import SampleTable
table = SampleTable([SplitColumns("train", 5)])
found = find("", table)[1]
for kind in ("csv", "jsonl", "manifest", "parquet"):
    list(export_samples(table, found, "", Origin("r"), kind).parts)
    print(kind, "pyarrow" in sys.modules, "torch" in sys.modules)
"""
    done: Any = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "csv False False", "jsonl False False", "manifest False False", "parquet True False",
    ]  # fmt: skip
