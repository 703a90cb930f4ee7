"""Columns of every kind and content, and what a reader of a file should find of them."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graybox.store.query import Column, Kind
from graybox.store.sample_table import SampleTable

# What breaks readers: quotes, separators, ends of lines, what looks like null, a number or a formula.
ODD = [
    "",
    ",",
    '"',
    '""',
    "\n",
    "\r",
    "\r\n",
    "a\rb",
    " a ",
    "=1+1",
    "@x",
    "-1",
    "+",
    "NaN",
    "null",
    "None",
    "True",
    "1e5",
]
TEXTS = st.one_of(
    st.sampled_from(ODD), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
)
NAMES = ("plain", "a,b", 'q"uote', "two\nlines", "=formula", "naïve ☃", "{}", "last")
NUMBERS = ("f4", "f8", "i8", "i4", "i2", "u1")


@st.composite
def columns(draw: st.DrawFn) -> list[Column]:
    """Up to eight columns of the same number of rows."""
    count = draw(st.integers(0, 30))
    kinds = draw(st.lists(st.sampled_from(list(Kind)), min_size=1, max_size=len(NAMES)))
    return [draw(column(name, kind, count)) for name, kind in zip(NAMES, kinds, strict=False)]


@st.composite
def column(draw: st.DrawFn, name: str, kind: Kind, count: int) -> Column:
    null = draw(st.none() | hnp.arrays(np.bool_, count))
    if kind is Kind.NUMBER:
        return Column(name, kind, draw(hnp.arrays(draw(st.sampled_from(NUMBERS)), count)))
    if kind is Kind.BOOL:
        return Column(name, kind, draw(hnp.arrays(np.bool_, count)), null=null)
    texts = draw(st.lists(TEXTS, max_size=6, unique=True))
    if kind is Kind.TEXT and draw(st.booleans()):
        cells = [draw(st.none() | TEXTS) for _ in range(count)]
        return Column(name, kind, np.array([*cells, None], dtype=object)[:count], null=null)
    codes = draw(hnp.arrays(np.int64, count, elements=st.integers(-1, len(texts) + (kind is Kind.CLASS))))
    if kind is Kind.TEXT:
        return Column(name, kind, np.minimum(codes, len(texts) - 1), texts=tuple(texts), null=null)
    return Column(name, kind, codes, names=tuple(texts), null=null)


def expected(found: Column, rows: np.ndarray) -> dict[str, list[Any]]:
    """By the column's name in the file, its cells as plain Python values, None for null; worked out cell by cell."""
    nulls = [found.null is not None and bool(found.null[row]) for row in rows]
    cells = [found.values[row].item() if found.values.dtype != object else found.values[row] for row in rows]
    if found.kind is Kind.NUMBER:
        return {found.name: [None if cell != cell else cell for cell in cells]}
    if found.kind is Kind.BOOL:
        return {found.name: [None if null else cell for cell, null in zip(cells, nulls, strict=True)]}
    if found.kind is Kind.TEXT:
        if found.texts is not None:
            cells = [found.texts[cell] if 0 <= cell < len(found.texts) else None for cell in cells]
        return {found.name: [None if null else cell for cell, null in zip(cells, nulls, strict=True)]}
    if not found.names:
        return {found.name: cells}
    named = [
        found.names[cell] if 0 <= cell < len(found.names) and not null else None
        for cell, null in zip(cells, nulls, strict=True)
    ]
    return {found.name: cells, f"{found.name}_name": named}


def frame_of(kind: str, content: bytes) -> pd.DataFrame:
    if kind == "parquet":
        return pd.read_parquet(io.BytesIO(content))
    if kind == "jsonl":
        return pd.DataFrame([json.loads(line) for line in content.splitlines()])
    texts = ("split", "label_name", "original_label_name", "prediction_name")  # a class may be called "0"
    return pd.read_csv(io.BytesIO(content), keep_default_na=False, na_values=[""], dtype=dict.fromkeys(texts, "string"))


def assert_is_table(frame: pd.DataFrame, table: SampleTable, rows: np.ndarray) -> None:
    """Every column of the table is there, and equal."""
    assert len(frame) == len(rows)
    expected: list[str] = []
    for name in table.names():
        column = table.column(name)
        values, null = column.values[rows], None if column.null is None else column.null[rows]
        expected.append(name)
        if name == "split":
            assert frame[name].tolist() == [column.names[code] for code in values]
        elif column.values.dtype.kind == "f":
            assert frame[name].to_numpy(dtype=values.dtype).tobytes() == values.tobytes() or np.array_equal(
                frame[name].to_numpy(dtype=values.dtype), values, equal_nan=True
            )
        elif column.values.dtype.kind == "b":
            cells = [None if pd.isna(cell) else bool(cell) for cell in frame[name].tolist()]
            assert cells == [
                None if null is not None and null[place] else bool(value) for place, value in enumerate(values)
            ]
        else:
            assert frame[name].tolist() == values.tolist()
        if column.kind.value == "class" and column.names and name != "split":
            expected.append(f"{name}_name")
            named = [None if pd.isna(cell) else cell for cell in frame[f"{name}_name"].tolist()]
            assert named == [column.names[value] if value >= 0 else None for value in values]
    for tag in table.tags():
        expected.append(f"tag:{tag}")
        assert frame[f"tag:{tag}"].tolist() == table.tag(tag)[rows].tolist()
    assert list(frame) == expected
