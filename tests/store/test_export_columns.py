from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graybox.store.export_columns import as_utf8, exported, exported_tag
from graybox.store.query import Column, Kind
from tests.store.exported_columns import columns, expected


@given(columns(), st.data())
def test_columns_hold_what_the_table_has(found: list[Column], data: st.DataObject) -> None:
    count = len(found[0])
    rows = np.array(data.draw(st.lists(st.integers(0, count - 1), max_size=20)) if count else [], dtype=np.int64)
    for column in found:
        cells: dict[str, list[object]] = {}
        for made in exported(column, rows):
            assert len(made) == len(rows)
            listed = (
                made.values.tolist()
                if made.texts is None
                else [made.texts[code] if code >= 0 else None for code in made.values]
            )
            nulls = [False] * len(rows) if made.null is None else made.null.tolist()
            cells[made.name] = [None if null else cell for cell, null in zip(listed, nulls, strict=True)]
            assert not np.shares_memory(made.values, column.values)
        assert cells == expected(column, rows)


def test_the_names_of_classes_give_way_to_a_column_that_is_called_so() -> None:
    label = Column("label", Kind.CLASS, np.array([1, -1]), names=("cat", "dog"))
    rows = np.arange(2)
    assert [made.name for made in exported(label, rows, ("label", "loss"))] == ["label", "label_name"]
    taken = ("label", "label_name", "label_name_")
    assert [made.name for made in exported(label, rows, taken)] == ["label", "label_name__"]


def test_what_utf_8_cannot_carry_becomes_a_question_mark() -> None:
    label = Column("label", Kind.CLASS, np.array([0]), names=("caf\udce9",))
    assert exported(label, np.array([0]))[1].texts == ("caf?",)
    assert as_utf8("naïve ☃") == "naïve ☃"


def test_a_tag_is_a_column_of_true_and_false() -> None:
    made = exported_tag("hard", np.array([True, False, True]), np.array([2, 1]))
    assert (made.name, made.values.tolist(), made.null) == ("tag:hard", [True, False], None)


@pytest.mark.parametrize("count", [1, 127, 128, 40_000])
def test_any_number_of_classes_has_its_names(count: int) -> None:
    label = Column("label", Kind.CLASS, np.arange(count), names=tuple(map(str, range(count))))
    _, names = exported(label, np.arange(count))
    assert names.texts is not None and [names.texts[code] for code in names.values] == list(label.names)
