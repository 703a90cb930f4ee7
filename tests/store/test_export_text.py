"""What is written as CSV and JSON lines is read back by others as what it was."""

from __future__ import annotations

import csv
import io
import json
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graybox.store import export_text
from graybox.store.export_columns import ExportColumn, exported
from graybox.store.export_text import csv_parts, csv_text, json_line_parts
from graybox.store.query import Column
from tests.store.exported_columns import TEXTS, columns, expected


def chosen(data: st.DataObject, found: list[Column]) -> tuple[np.ndarray, list[ExportColumn], dict[str, list[Any]]]:
    count = len(found[0])
    rows = np.array(data.draw(st.lists(st.integers(0, count - 1), max_size=40)) if count else [], dtype=np.int64)
    made = [part for column in found for part in exported(column, rows)]
    return rows, made, {name: cells for column in found for name, cells in expected(column, rows).items()}


@given(columns(), st.data(), st.sampled_from([1, 3, 8_192]))
def test_csv_is_read_back_by_pandas(found: list[Column], data: st.DataObject, slice_rows: int) -> None:
    rows, made, wanted = chosen(data, found)
    with patch.object(export_text, "SLICE_ROWS", slice_rows):
        content = b"".join(csv_parts(made))
    frame = pd.read_csv(
        io.BytesIO(content), keep_default_na=False, na_values=[""],
        dtype={each.name: "string" for each in made if each.texts is not None},
    )  # fmt: skip
    assert list(frame) == list(wanted) and len(frame) == len(rows)
    for each in made:
        cells = [None if pd.isna(cell) else cell for cell in frame[each.name].tolist()]
        if each.values.dtype == np.float32 and each.texts is None:
            # As text it is the shortest that is read as the very same float32.
            cells = [None if cell is None else float(np.float32(cell)) for cell in cells]
        # pandas takes an empty text for none.
        assert cells == [None if cell == "" else cell for cell in wanted[each.name]], each.name


@given(columns(), st.data())
def test_csv_is_read_back_by_the_standard_library(found: list[Column], data: st.DataObject) -> None:
    rows, made, wanted = chosen(data, found)
    lines = list(csv.reader(io.StringIO(b"".join(csv_parts(made)).decode(), newline="")))
    assert lines[0] == list(wanted) and len(lines) == len(rows) + 1
    for place, each in enumerate(made):
        if each.texts is not None:
            assert [line[place] for line in lines[1:]] == [cell or "" for cell in wanted[each.name]]


@given(columns(), st.data(), st.sampled_from([1, 3, 8_192]))
def test_json_lines_are_read_back_by_json(found: list[Column], data: st.DataObject, slice_rows: int) -> None:
    rows, made, wanted = chosen(data, found)
    with patch.object(export_text, "SLICE_ROWS", slice_rows):
        content = b"".join(json_line_parts(made))
    assert content.isascii() and content.count(b"\n") == len(rows) == len(content.splitlines())

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    lines = [json.loads(line, parse_constant=refuse) for line in content.splitlines()]
    for each in made:
        cells = [line[each.name] for line in lines]
        if each.values.dtype == np.float32 and each.texts is None:
            cells = [None if cell is None else float(np.float32(cell)) for cell in cells]
        assert cells == wanted[each.name], each.name
    assert all(list(line) == list(wanted) for line in lines)


@given(TEXTS)
def test_a_text_is_one_cell(text: str) -> None:
    assert next(csv.reader(io.StringIO(f"{csv_text(text)},1", newline=""))) == [text, "1"]


def test_how_it_looks() -> None:
    made = [
        ExportColumn("loss", np.array([0.1, np.nan, np.inf, 1], np.float32), np.array([False, True, False, False])),
        ExportColumn("label", np.array([0, -1, 1, 0])),
        ExportColumn("label_name", np.array([0, -1, 1, 0]), np.array([False, True, False, False]), ("=cat", 'a "b"')),
        ExportColumn("correct", np.array([True, False, False, True]), np.array([False, False, True, False])),
    ]
    assert b"".join(csv_parts(made)).decode() == (
        'loss,label,label_name,correct\r\n0.1,0,=cat,True\r\n,-1,,False\r\ninf,1,"a ""b""",\r\n1.0,0,=cat,True\r\n'
    )
    assert b"".join(json_line_parts(made)).decode() == (
        '{"loss":0.1,"label":0,"label_name":"=cat","correct":true}\n'
        '{"loss":null,"label":-1,"label_name":null,"correct":false}\n'
        '{"loss":1e999,"label":1,"label_name":"a \\"b\\"","correct":null}\n'
        '{"loss":1.0,"label":0,"label_name":"=cat","correct":true}\n'
    )


@pytest.mark.parametrize("null", [False, True])
def test_a_single_empty_column_has_as_many_lines_as_rows(null: bool) -> None:
    one = ExportColumn("x", np.array([-1, -1] if null else [0, 0]), np.array([null, null]), ("",))
    assert b"".join(csv_parts([one])) == b'x\r\n""\r\n""\r\n'
    assert len(pd.read_csv(io.BytesIO(b"".join(csv_parts([one]))))) == 2


def test_a_long_table_comes_in_pieces_that_do_not_grow_with_it() -> None:
    made = [ExportColumn(f"c{number}", np.arange(100_000) * 7) for number in range(4)]
    parts = list(csv_parts(made))
    assert len(parts) == 1 + -(-100_000 // export_text.SLICE_ROWS)
    assert max(map(len, parts)) < 8_192 * 4 * 8
    assert pd.read_csv(io.BytesIO(b"".join(parts)))["c3"].tolist() == (np.arange(100_000) * 7).tolist()
