"""Random tables, with every value once more as a plain Python object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from graybox.store.query import Column, ColumnTable, Kind

FLOATS = [0.1, 0.5, 0.5, 1.0, -1.25, 3.0, float("inf"), float("nan")]
CLASSES = ("cat", "dog", "owl")
OTHER_CLASSES = ("dog", "bird", "cat", "owl")
TEXTS = ["train", "val", "Train", "größe", "", "a%b", "it's"]
TAGS = ("hard", "two words")

NUMBERS = ("loss", "exact", "count", "small", "odd name")
BOOLS = ("discarded", "flag")
TEXT_COLUMNS = ("origin", "other")
CLASS_COLUMNS = ("label", "prediction", "species")
COLUMNS = (*NUMBERS, *BOOLS, *TEXT_COLUMNS, *CLASS_COLUMNS)


@dataclass(frozen=True)
class Case:
    """table: what queries are asked of. plain: the same by row, None for null. tags: the same by row."""

    table: ColumnTable
    plain: dict[str, list[Any]]
    tags: dict[str, list[bool]]
    names: dict[str, tuple[str, ...]]
    kinds: dict[str, Kind]
    single: frozenset[str]

    def __len__(self) -> int:
        return len(self.table)


@st.composite
def tables(draw: st.DrawFn, most: int = 12) -> Case:
    count = draw(st.integers(0, most))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=count, max_size=count))

    flags = st.booleans()
    loss = np.array(column(st.sampled_from(FLOATS)), dtype=np.float32)
    exact = np.array(column(st.sampled_from(FLOATS)), dtype=np.float64)
    counts, no_count = np.array(column(st.integers(-2, 3)), dtype=np.int64), np.array(column(flags), dtype=bool)
    small = np.array(column(st.sampled_from([0, 1, 3, 255])), dtype=np.uint8)
    odd, no_odd = np.array(column(st.sampled_from([0.5, 2.0])), dtype=np.float32), np.array(column(flags), dtype=bool)
    discarded, no_flag = np.array(column(flags), dtype=bool), np.array(column(flags), dtype=bool)
    flag = np.array(column(flags), dtype=bool)
    origin = np.array(column(st.integers(-1, len(TEXTS) - 1)), dtype=np.int32)
    other = np.array(column(st.sampled_from([None, *TEXTS])), dtype=object)
    label, prediction, species = (np.array(column(st.integers(-1, 3)), dtype=np.int64) for _ in range(3))
    tags = {name: np.array(column(flags), dtype=bool) for name in TAGS}

    columns = [
        Column("loss", Kind.NUMBER, loss),
        Column("exact", Kind.NUMBER, exact),
        Column("count", Kind.NUMBER, counts, null=no_count),
        Column("small", Kind.NUMBER, small),
        Column("odd name", Kind.NUMBER, odd, null=no_odd),
        Column("discarded", Kind.BOOL, discarded, null=no_flag),
        Column("flag", Kind.BOOL, flag),
        Column("origin", Kind.TEXT, origin, texts=tuple(TEXTS)),
        Column("other", Kind.TEXT, other),
        Column("label", Kind.CLASS, label, names=CLASSES),
        Column("prediction", Kind.CLASS, prediction, names=CLASSES),
        Column("species", Kind.CLASS, species, names=OTHER_CLASSES),
    ]
    plain = {each.name: [plain_value(each, row) for row in range(count)] for each in columns}
    return Case(
        ColumnTable({each.name: each for each in columns}, tags),
        plain,
        {name: mask.tolist() for name, mask in tags.items()},
        {each.name: each.names for each in columns},
        {each.name: each.kind for each in columns},
        frozenset(each.name for each in columns if each.values.dtype == np.float32),
    )


def plain_value(column: Column, row: int) -> Any:
    """A number, bool, text or class number; None for null."""
    value = column.values[row]
    if column.null is not None and column.null[row]:
        return None
    if column.kind is Kind.NUMBER:
        return None if value != value else value.item()
    if column.kind is Kind.BOOL:
        return bool(value)
    if column.kind is Kind.CLASS:
        return None if value < 0 else int(value)
    if column.texts is not None:
        return None if value < 0 else column.texts[value]
    return value
