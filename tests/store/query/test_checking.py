from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from graybox.store.query import Column, ColumnTable, Kind, Query, QueryError, check, parse, rows
from tests.store.query.random_queries import queries
from tests.store.query.random_tables import Case, tables

COUNT = 4
TABLE = ColumnTable(
    {
        "loss": np.array([0.1, 0.2, np.nan, 3.0], dtype=np.float32),
        "last_loss": np.arange(4.0),
        "label": Column("label", Kind.CLASS, np.array([0, 1, -1, 2]), names=("cat", "dog", "owl")),
        "prediction": Column("prediction", Kind.CLASS, np.array([0, 2, 1, -1]), names=("cat", "dog", "owl")),
        "cluster": Column("cluster", Kind.CLASS, np.array([0, 1, 2, 3])),
        "origin": ["train", "val", None, "cat"],
        "discarded": [True, False, None, False],
        "flag": [True, False, True, True],
        "cat": ["x", "val", "y", "cat"],
        "it's": np.arange(4),
    },
    {"difficult": np.array([True, False, False, False])},
)


@pytest.mark.parametrize(
    ("text", "position", "problem"),
    [
        ("los > 1", 0, "there is no column 'los'; do you mean loss"),
        ("Loss > 1", 0, "there is no column 'Loss'; do you mean loss"),
        ("loss > 0 and lastloss > 1", 13, "there is no column 'lastloss'; do you mean last_loss"),
        ("zzz > 1", 0, "there is no column 'zzz'; there are loss, last_loss, label"),
        ("sortby los", 7, "there is no column 'los'; do you mean loss"),
        ("show mean(los)", 10, "there is no column 'los'"),
        ("show count by lable", 14, "there is no column 'lable'; do you mean label"),
        ("tag:dificult", 0, "there is no tag 'dificult'; do you mean tag:difficult"),
        ("tag:zzz", 0, "there is no tag 'zzz'; there are tag:difficult"),
        ("label == dog", 9, "there is no column 'dog'.* \\(a text stands in single quotes: 'dog'\\)"),
        ("origin != train", 10, "a text stands in single quotes: 'train'"),
        ("loss > 'abc'", 7, "loss holds numbers and cannot be compared with the text 'abc'"),
        ("'abc' < loss", 0, "loss holds numbers and cannot be compared with the text 'abc'"),
        ("loss > origin", 7, "loss holds numbers and cannot be compared with origin, which holds texts"),
        ("loss > label + 1", 7, "\\+ needs numbers, and label holds classes"),
        ("origin + 1 > 2", 0, "\\+ needs numbers, and origin holds texts"),
        ("-origin > 2", 1, "a sign needs numbers, and origin holds texts"),
        ("abs(discarded) > 2", 4, "abs needs numbers, and discarded is true or false"),
        ("mean(origin) > 2", 5, "mean needs numbers, and origin holds texts"),
        ("loss * 'x' > 2", 7, "\\* needs numbers, and the text 'x' is a text"),
        (
            "discarded > 3",
            12,
            "discarded is true or false and cannot be compared with the number 3; compare it with true",
        ),
        ("discarded == 1", 13, "compare it with true or false"),
        ("discarded < true", 12, "true and false have no order; compare them by == or !=, not by <"),
        ("loss", 0, "loss holds numbers; a condition such as loss > 0 is expected"),
        ("loss > 1 or origin", 12, "origin holds texts; a condition such as origin == 'abc' is expected"),
        ("not label", 4, "label holds classes; a condition such as label == 0 is expected"),
        ("label == 'cta'", 9, "label has no class 'cta'; do you mean cat"),
        ("label in ('cat', 'bird')", 17, "label has no class 'bird'; there are cat, dog, owl"),
        ("label < 'cat'", 8, "the names of classes are compared by == or !=, not by <"),
        ("label < prediction", 8, "the names of classes are compared by == or !=, not by <"),
        ("label == discarded", 9, "label holds classes and cannot be compared with discarded, which is true or false"),
        ("label > p95", 8, "label holds classes, which have no quantiles"),
        ("cluster == 'cat'", 11, "the classes of cluster have no names; compare it with a class's number"),
        ("cluster like 'cat'", 8, "the classes of cluster have no names"),
        ("loss like 'x'", 5, "like is for texts, and loss holds numbers"),
        ("'x' like 'x'", 0, "'like' needs a column on its left"),
        ("'x' == 'x'", 7, "two texts are compared; a column is expected on one side"),
        ("'a' between 'a' and 'b'", None, "two texts are compared"),
        ("1 in (1, 2)", 0, "'in' needs a column on its left"),
        ("1 is null", 0, "'is null' needs a column on its left"),
        ("loss in (1, 'x')", 12, "loss holds numbers; the list has the text 'x' in it"),
        ("origin in ('x', 1)", 16, "origin holds texts; the list has the number 1 in it"),
        ("discarded in (true, 1)", 20, "discarded is true or false; the list has the number 1"),
        ("loss in (true)", 9, "the list has true in it"),
        ("loss between 'a' and 'b'", 13, "loss holds numbers and cannot be compared with the text 'a'"),
        ("discarded between true and false", 18, "true and false have no order"),
        ("3 > p95", 4, "that of the other side, which has no column"),
        ("origin > p95", 9, "origin holds texts and cannot be compared with a quantile"),
        ("sortby 1", 7, "sortby needs columns"),
        ("sortby origin + 1", 7, "\\+ needs numbers"),
        ("show accuracy(loss, label)", 14, "accuracy needs columns of classes, and loss holds numbers"),
        ("show confusion(label, origin)", 22, "confusion needs columns of classes, and origin holds texts"),
        ("show mean(label)", 10, "mean needs numbers, and label holds classes"),
        ("show histogram(3)", 15, "histogram needs a column"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place(text: str, position: int | None, problem: str) -> None:
    query = parse(text)
    with pytest.raises(QueryError, match=problem) as caught:
        check(query, TABLE)
    if position is not None:
        assert caught.value.position == position
        assert caught.value.excerpt == text[position : position + 24]
    with pytest.raises(QueryError, match=problem):
        rows(query, TABLE) if query.show is None else check(query, TABLE)


def test_show_names_the_columns_that_it_needs() -> None:
    table = ColumnTable({"label": Column("label", Kind.CLASS, np.array([0]))})
    for what in ("confusion", "accuracy"):
        with pytest.raises(
            QueryError, match=f"no column 'prediction'.*{what} compares label with prediction, {what}\\(a, b\\)"
        ):
            check(parse(f"show {what}"), table)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('origin == "train"', [0]),  # no such column: a text
        ('origin == "cat"', [1, 3]),  # a column of that name: rows in which the two are equal
        ('origin == ("cat")', [1, 3]),
        ("origin == 'cat'", [3]),
        ('origin in ("cat")', [3]),  # a list has no columns
        ('origin like "cat"', [3]),
        ('"it\'s" > 2', [3]),
        ('label == "dog"', [1]),
        ('"origin" between "a" and "u"', [0, 3]),
        ("'train' == origin", [0]),
        ("'train' < origin", [1]),
        ("label == 1", [1]),
        ("label >= 1", [1, 3]),
        ("1 < label", [3]),
        ("label == 99", []),
        ("label in ('cat', 2)", [0, 3]),
        ("label between 1 and 2", [1, 3]),
        ("label == loss * 0 + 1", [1]),
        ("label == prediction", [0]),
        ("label != prediction", [1]),
        ("label == cluster", [0, 1]),
        ("label == cat or label == origin", []),
        ("loss == 0.1", [0]),  # in float32, as it is shown
        ("loss in (0.1, 0.2)", [0, 1]),
        ("loss between 0.1 and 0.1", [0]),
        ("loss * 1 == 0.1", []),  # calculated in double precision
        ("loss < 1e300", [0, 1, 3]),
        ("discarded", [0]),
        ("not discarded", [1, 2, 3]),
        ("discarded == false", [1, 3]),
        ("discarded != true", [1, 3]),
        ("discarded is null", [2]),
        ("discarded == flag", [0, 1]),
        ("discarded != flag", [3]),
        ("mean(flag) == 0.75 and true", [0, 1, 2, 3]),
        ("loss != 3", [0, 1]),
        ("not loss == 3", [0, 1, 2]),
        ("loss not in (3)", [0, 1]),
        ("not loss in (3)", [0, 1, 2]),
        ("loss not between 1 and 4", [0, 1]),
        ("not (loss > 1)", [0, 1, 2]),
        ("loss > 1 or not loss > 1", [0, 1, 2, 3]),
        ("loss / 0 is null", [0, 1, 2, 3]),
        ("loss / last_loss is null", [0, 2]),
        ("loss % 0 is null", [0, 1, 2, 3]),
        ("log(last_loss) is null", [0]),
        ("sqrt(-last_loss) is null", [1, 2, 3]),
        ("-1 % 3 == 2 and last_loss == 0", [0]),
        ("max(last_loss, 2) == 2", [0, 1, 2]),
        ("last_loss == max(last_loss)", [3]),
        ("1 > 0 and true", [0, 1, 2, 3]),
        ("1 > 0 and false", []),
        ("true == true and 'x' == origin", []),
    ],
)
def test_what_is_found(text: str, found: list[int]) -> None:
    assert rows(parse(text), TABLE).tolist() == found


def test_a_whole_number_is_compared_exactly() -> None:
    table = ColumnTable({"id": np.array([2**53, 2**53 + 1]), "small": np.array([0, 255], dtype=np.uint8)})
    assert rows(parse(f"id == {2**53 + 1}"), table).tolist() == [1]
    assert rows(parse(f"id in ({2**53 + 1}, 0.5, 1e30)"), table).tolist() == [1]
    assert rows(parse("small < 300 and small > -1 and small != 256"), table).tolist() == [0, 1]
    assert rows(parse("small + 1 == 256"), table).tolist() == [1]
    assert rows(parse("small in (-1, 255, 256)"), table).tolist() == [1]
    assert rows(parse(f"small < {10**19 - 1}"), table).tolist() == [0, 1]


def test_long_lists_find_what_is_in_them() -> None:
    values = np.array([np.nan, -1e9, 0, 7.5, 20, 1e9, np.inf])
    items = ", ".join(str(number) for number in [20, 7.5, *range(8, 19), 0])
    for dtype, found in ((np.float64, [2, 3, 4]), (np.float32, [2, 3, 4])):
        assert rows(parse(f"x in ({items})"), ColumnTable({"x": values.astype(dtype)})).tolist() == found
    whole = ColumnTable({"x": np.array([-(2**40), 0, 7, 20, 2**40])})
    assert rows(parse(f"x in ({items})"), whole).tolist() == [1, 3]
    assert rows(parse(f"x not in ({items})"), whole).tolist() == [0, 2, 4]


def test_a_number_beyond_the_precision_of_a_column_is_no_infinity() -> None:
    table = ColumnTable({"x": np.array([np.inf, 1, -np.inf, np.nan], dtype=np.float32)})
    assert rows(parse("x > 1e300"), table).tolist() == [0]
    assert rows(parse("x < -1e300 or x in (1e300, -1e300)"), table).tolist() == [2]


@settings(max_examples=100, deadline=None)
@given(queries, tables(4))
def test_checking_and_asking_agree(query: Query, case: Case) -> None:
    check(query, case.table)
    rows(query, case.table)
    check(parse(query.text()), case.table)
