from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from graybox.errors import Invalid, NotFound
from graybox.store.query import Column, ColumnTable, Kind, parse, rows
from graybox.store.query.columns import Table


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.arange(3), Kind.NUMBER),
        (np.arange(3, dtype=np.uint8), Kind.NUMBER),
        (np.arange(3, dtype=np.float16), Kind.NUMBER),
        ([1, None, 2.5], Kind.NUMBER),
        ([True, False, True], Kind.BOOL),
        ([True, None, False], Kind.BOOL),
        (["a", "b", "a"], Kind.TEXT),
        (["a", None, float("nan")], Kind.TEXT),
        ([None, None, None], Kind.TEXT),
        (np.array(["a", "b", "c"]), Kind.TEXT),
        (pd.Series(["a", None, "b"], dtype="string").to_numpy(dtype=object), Kind.TEXT),
        (Column("other", Kind.CLASS, np.arange(3)), Kind.CLASS),
    ],
)
def test_an_array_is_a_column_of_what_it_holds(values: object, kind: Kind) -> None:
    table = ColumnTable({"x": values})  # type: ignore[dict-item]
    assert len(table) == 3 and list(table.names()) == ["x"] and list(table.tags()) == []
    assert table.column("x").kind is kind and table.column("x").name == "x"


def test_none_among_values_is_null() -> None:
    table = ColumnTable({"n": [1, None, 2.5], "b": [True, None, False], "t": ["a", None, ""], "f": [0.5, np.nan, 1]})
    for name in ("n", "b", "t", "f"):
        assert rows(parse(f"{name} is null"), table).tolist() == [1]
        assert rows(parse(f"{name} is not null"), table).tolist() == [0, 2]
        assert rows(parse(f"sortby {name} desc"), table).tolist()[-1] == 1


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"a": np.arange(3), "b": np.arange(4)}, "column 'b' has 4 rows, the table has 3"),
        ({"a": np.zeros((2, 2))}, r"column 'a' .*shape \[rows\].* float64 \[2, 2\]"),
        ({"a": np.zeros(2, dtype=complex)}, "column 'a' has shape .*, not complex128"),
        ({"a": ["x", 1]}, "column 'a' holds texts, but also a int"),
        ({"a": [["x"], "y", None]}, "column 'a' holds texts, but also something else: unhashable"),
        ({"a": lambda: [1]}, "a table of functions alone needs a length"),
    ],
)
def test_what_is_no_column_is_refused(columns: dict, problem: str) -> None:
    if "unhashable" in problem:
        objects = np.empty(3, dtype=object)
        objects[:] = columns["a"]
        columns = {"a": objects}
    with pytest.raises(Invalid, match=problem):
        ColumnTable(columns)


def test_wrong_columns_are_refused_by_themselves() -> None:
    with pytest.raises(Invalid, match=r"values of column 'a' \(class\) have shape \[rows\] and are integers"):
        Column("a", Kind.CLASS, np.array([0.5]))
    with pytest.raises(Invalid, match=r"values of column 'a' \(bool\)"):
        Column("a", Kind.BOOL, np.array([1]))
    with pytest.raises(Invalid, match=r"null of column 'a' is bool \[2\], not bool \[1\]"):
        Column("a", Kind.NUMBER, np.array([1, 2]), null=np.array([True]))
    with pytest.raises(Invalid, match=r"values of column 'a' \(text\)"):
        Column("a", Kind.TEXT, np.array([0, 1]))
    with pytest.raises(Invalid, match=r"values of column 'a' \(text\)"):
        Column("a", Kind.TEXT, np.array(["x"], dtype=object), texts=("x",))
    assert len(Column("a", Kind.CLASS, np.array([]))) == 0


def test_tags_and_aliases() -> None:
    with pytest.raises(Invalid, match="tag 't' has 2 rows, the table has 3"):
        ColumnTable({"a": [1, 2, 3]}, {"t": [True, False]})
    with pytest.raises(Invalid, match=r"tag 't' is bool of shape \[rows\], not int64 \[3\]"):
        ColumnTable({"a": [1, 2, 3]}, {"t": [1, 0, 1]})
    with pytest.raises(Invalid, match="alias 'id' is for column 'b', which the table does not have"):
        ColumnTable({"a": [1]}, aliases={"id": "b"})
    table = ColumnTable({"a": [1, 2]}, {"t": [True, False]}, aliases={"id": "a"})
    assert table.column("id") is table.column("a")
    assert table.tag("t").tolist() == [True, False]
    with pytest.raises(NotFound, match="there is no column 'c'; there are a"):
        table.column("c")
    with pytest.raises(NotFound, match="there is no tag 'c'; there are t"):
        table.tag("c")


def test_late_columns_are_held_to_the_length() -> None:
    table = ColumnTable({"a": lambda: np.arange(3), "b": lambda: np.arange(2)}, length=3)
    assert rows(parse("a > 0"), table).tolist() == [1, 2]
    with pytest.raises(Invalid, match="column 'b' has 2 rows, the table has 3"):
        rows(parse("b > 0"), table)


def test_any_object_with_the_methods_is_a_table() -> None:
    class Neurons:
        """Two neurons; `id` is known and not listed."""

        def __len__(self) -> int:
            return 2

        def names(self) -> list[str]:
            return ["trigger_rate", "layer_type"]

        def column(self, name: str) -> Column:
            if name == "trigger_rate":
                return Column(name, Kind.NUMBER, np.array([0.005, 0.5]))
            if name == "layer_type":
                return Column(name, Kind.TEXT, np.array([0, 0]), texts=("Conv2d",))
            if name == "id":
                return Column(name, Kind.NUMBER, np.array([0, 1]))
            raise KeyError(name)

        def tags(self) -> list[str]:
            return []

        def tag(self, name: str) -> np.ndarray:
            raise NotFound(name)

    table: Table = Neurons()
    assert rows(parse("trigger_rate < 0.01 and layer_type == 'Conv2d' and id >= 0"), table).tolist() == [0]
    with pytest.raises(Invalid, match="no column 'age'; there are trigger_rate, layer_type"):
        rows(parse("age > 1"), table)
    with pytest.raises(Invalid, match="no tag 'x'; there are none"):
        rows(parse("tag:x"), table)


def test_a_table_of_the_wrong_length_is_noticed() -> None:
    class Short(ColumnTable):
        def __len__(self) -> int:
            return 2

    table = Short({"a": [1, 2, 3]}, {"t": [True, False, True]})
    with pytest.raises(Invalid, match="column 'a' has 3 rows, the table has 2"):
        rows(parse("a > 1"), table)
    with pytest.raises(Invalid, match="tag 't' has 3 rows, the table has 2"):
        rows(parse("tag:t"), table)


def test_text_columns_of_many_texts() -> None:
    """Sorting a few rows looks at their texts only; codes out of range are null."""
    texts = tuple(f"t{number:04}" for number in range(2_000, 0, -1))
    codes = np.array([5, 1_999, -1, 7, 2_500, 5], dtype=np.int16)
    table = ColumnTable({"t": Column("t", Kind.TEXT, codes, texts=texts)})
    assert rows(parse("sortby t"), table).tolist() == [1, 3, 0, 5, 2, 4]
    assert rows(parse("t is null"), table).tolist() == [2, 4]
    assert rows(parse("t == 't1995'"), table).tolist() == [0, 5]
    assert rows(parse("t != 't1995'"), table).tolist() == [1, 3]
    assert rows(parse("t like 't19%'"), table).tolist() == [0, 3, 5]
    only_null = ColumnTable({"t": Column("t", Kind.TEXT, np.array([-1, -1]), texts=("a", "b", "c", "d", "e"))})
    assert rows(parse("sortby t"), only_null).tolist() == [0, 1]
    twice = ColumnTable({"t": Column("t", Kind.TEXT, np.array([1, 0, 2]), texts=("b", "b", "a"))})
    assert rows(parse("sortby t"), twice).tolist() == [2, 0, 1]
    assert rows(parse("t == 'b'"), twice).tolist() == [0, 1]
