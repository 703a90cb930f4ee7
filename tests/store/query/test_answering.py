from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.store.query import Analysis, Column, ColumnTable, Kind, Query, QueryError, answer, parse, rows
from graybox.store.query.tree import Histogram, Measure, Measures, Name, Number
from tests.store.query.plain_oracle import Oracle
from tests.store.query.random_queries import number_columns, shares, shows
from tests.store.query.random_tables import BOOLS, CLASSES, COLUMNS, NUMBERS, Case, tables

RANDOM = np.random.default_rng(0)
COUNT = 500
SOME = {
    "loss": np.where(RANDOM.random(COUNT) < 0.1, np.nan, RANDOM.exponential(size=COUNT)).astype(np.float32),
    "steps": RANDOM.integers(0, 5, COUNT),
    "label": RANDOM.integers(-1, 3, COUNT),
    "prediction": RANDOM.integers(-1, 3, COUNT),
    "flag": RANDOM.random(COUNT) < 0.3,
    "origin": RANDOM.choice(["train", "val"], COUNT).astype(object),
}
TAGS = {"hard": RANDOM.random(COUNT) < 0.2, "new": RANDOM.random(COUNT) < 0.5, "none": np.zeros(COUNT, dtype=bool)}
TABLE = ColumnTable(
    {
        **SOME,
        "label": Column("label", Kind.CLASS, SOME["label"], names=CLASSES),
        "prediction": Column("prediction", Kind.CLASS, SOME["prediction"], names=CLASSES),
    },
    TAGS,
)
FRAME = pd.DataFrame(SOME)


def asked(text: str, table: ColumnTable = TABLE) -> Analysis:
    query = parse(text)
    return answer(query, table, rows(query, table))


def same(found: Any, expected: Any) -> bool:
    """Equal up to rounding; None for NaN."""
    if found is None or expected is None or isinstance(found, str):
        return found is expected or found == expected or (found is None and math.isnan(expected))
    return math.isclose(found, expected, rel_tol=1e-6)


def test_measures_by_class_are_those_of_pandas() -> None:
    found = asked(
        "steps > 0 show count, mean(loss), std(loss), median(loss), min(loss), max(steps), quantile(loss, 0.9), "
        "mean(flag) by label"
    )
    kept = FRAME[FRAME["steps"] > 0]
    groups = kept.assign(loss=kept["loss"].astype(float)).groupby("label")
    expected = pd.DataFrame(
        {
            "count": groups.size(),
            "mean": groups["loss"].mean(),
            "std": groups["loss"].std(ddof=0),
            "median": groups["loss"].median(),
            "min": groups["loss"].min(),
            "max": groups["steps"].max(),
            "quantile": groups["loss"].quantile(0.9),
            "flag": groups["flag"].mean(),
        }
    )
    assert found.kind == "measures" and found.rows == len(kept)
    assert found.columns[:3] == ("label", "count", "mean(loss)") and found.columns[-1] == "mean(flag)"
    assert [line[0] for line in found.lines] == [*CLASSES, None]
    for line, code in zip(found.lines, [0, 1, 2, -1], strict=True):
        assert all(map(same, line[1:], expected.loc[code].tolist()))
    assert isinstance(found.lines[0][6], int)  # of a column of whole numbers


def test_accuracy_by_class_is_that_of_pandas() -> None:
    found = asked("show accuracy, accuracy(prediction, label) by label")
    known = FRAME[(FRAME["label"] >= 0) & (FRAME["prediction"] >= 0)]
    expected = (known["label"] == known["prediction"]).groupby(known["label"]).mean().tolist()
    for line, share in zip(found.lines, [*expected, math.nan], strict=True):
        assert same(line[1], share) and line[1] == line[2]
    whole = asked("show accuracy")
    assert whole.columns == ("accuracy",)
    assert same(whole.lines[0][0], (known["label"] == known["prediction"]).mean())


def test_groups_by_tag_overlap() -> None:
    found = asked("steps < 3 show count, mean(steps) by tag")
    kept = SOME["steps"] < 3
    groups = [kept & TAGS["hard"], kept & TAGS["new"], kept & ~TAGS["hard"] & ~TAGS["new"]]
    assert found.columns == ("tag", "count", "mean(steps)")
    assert [line[0] for line in found.lines] == ["hard", "new", None]  # no row has the tag "none"
    for line, group in zip(found.lines, groups, strict=True):
        assert line[1] == group.sum() and same(line[2], SOME["steps"][group].mean())
    assert found.notes == ("a row counts under each of its tags",)


def test_groups_by_other_kinds() -> None:
    by_text = asked("show count by origin")
    assert by_text.lines == tuple(sorted(FRAME["origin"].value_counts().to_dict().items()))
    by_bool = asked("show count by flag")
    assert by_bool.lines == ((False, int((~SOME["flag"]).sum())), (True, int(SOME["flag"].sum())))
    by_number = asked("show count by steps")
    assert by_number.lines == tuple(enumerate(np.bincount(SOME["steps"]).tolist()))
    assert all(type(line[0]) is int for line in by_number.lines)
    assert asked('show count by "tag"', ColumnTable({"tag": [0.5, 0.5, None]})).lines == ((0.5, 2), (None, 1))


def test_confusion_is_that_of_crosstab() -> None:
    found = asked("steps > 1 show confusion")
    kept = FRAME[FRAME["steps"] > 1]
    known = kept[(kept["label"] >= 0) & (kept["prediction"] >= 0)]
    assert found.columns == ("label \\ prediction", *CLASSES)
    assert [line[0] for line in found.lines] == list(CLASSES)
    assert [list(line[1:]) for line in found.lines] == pd.crosstab(known["label"], known["prediction"]).values.tolist()
    assert found.notes == (f"{len(kept) - len(known)} rows without a label or a prediction left out",)


def test_confusion_of_columns_with_other_names() -> None:
    table = ColumnTable(
        {
            "a": Column("a", Kind.CLASS, np.array([0, 1, 1, -1, 0]), names=("cat", "dog")),
            "b": Column("b", Kind.CLASS, np.array([1, 0, 2, 0, 1]), names=("dog", "cat", "owl")),
            "c": Column("c", Kind.CLASS, np.array([0, 3, 1, 0, 0])),
        }
    )
    found = asked("show confusion(a, b)", table)
    assert found.columns == ("a \\ b", "cat", "dog", "owl")
    assert found.lines == (("cat", 2, 0, 0), ("dog", 0, 1, 1), ("owl", 0, 0, 0))
    assert asked("show accuracy(a, b)", table).lines == ((0.75,),)
    by_number = asked("show confusion(a, c)", table)
    assert by_number.columns == ("a \\ c", "cat", "dog", "3")
    assert by_number.lines == (("cat", 2, 0, 0), ("dog", 0, 1, 1), (3, 0, 0, 0))


def test_a_large_confusion_adds_up_what_it_does_not_list() -> None:
    truth = np.concatenate([np.arange(80), np.arange(45), [70, 71]])
    guess = np.concatenate([np.arange(80), np.arange(45), [0, 79]])
    table = ColumnTable(
        {name: Column(name, Kind.CLASS, each) for name, each in (("label", truth), ("prediction", guess))}
    )
    found = asked("show confusion", table)
    assert len(found.columns) == 52 and len(found.lines) == 51
    assert found.columns[-1] == found.lines[-1][0] == "others"
    matrix = np.array([line[1:] for line in found.lines])
    assert matrix.sum() == len(truth) and found.others == 30
    assert found.other_rows == int(matrix[-1].sum() + matrix[:-1, -1].sum())
    assert found.notes == (f"30 other classes, in {found.other_rows} rows, added up",)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(width=32) | st.floats(-10, 10, width=16), max_size=30),
    st.integers(1, 40),
    st.sampled_from([np.float32, np.float64]),
)
def test_a_histogram_is_that_of_numpy(values: list[float], bins: int, dtype: type) -> None:
    column = np.array(values, dtype=dtype)
    found = asked(f"show histogram(x, {bins})", ColumnTable({"x": column}))
    finite = column[np.isfinite(column)].astype(np.float64)
    assert found.columns == ("from", "to", "count")
    assert sum(int(line[2]) for line in found.lines) == len(finite)
    nulls, infinite = int(np.isnan(column).sum()), int(np.isinf(column).sum())
    assert len(found.notes) == (nulls > 0) + (infinite > 0)
    if not len(finite):
        assert found.lines == ()
        return
    try:
        counts, edges = np.histogram(finite, bins)
    except ValueError:  # floats are too coarse for as many bins
        assert 1 <= len(found.lines) <= bins
        return
    if len(found.lines) == bins:
        assert np.allclose([line[0] for line in found.lines], edges[:-1], rtol=1e-12, atol=0)
        assert found.lines[-1][1] == edges[-1]
        assert [line[2] for line in found.lines] == counts.tolist()


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ([5.0, 5.0], 3),
        ([1e308, -1e308, 1e308], 3),
        ([1e17, 1e17 + 16], 1),
        ([1e300, 1e300], 1),
        ([5e-324, 0.0], 1),
        ([0, 2**62], 3),
    ],
)
def test_histograms_of_extreme_numbers(values: list[float], lines: int) -> None:
    found = asked("show histogram(x, 3)", ColumnTable({"x": values}))
    assert len(found.lines) == lines
    assert sum(int(line[2]) for line in found.lines) == len(values)
    assert all(math.isfinite(each) for line in found.lines for each in line)  # type: ignore[arg-type]
    assert found.lines[0][0] <= min(values) and found.lines[-1][1] >= max(values)  # type: ignore[operator]


def test_histograms_of_what_is_no_number() -> None:
    found = asked("show histogram(origin)")
    assert found.lines == tuple(FRAME["origin"].value_counts().to_dict().items())
    assert asked("show histogram(flag)").lines == ((False, int((~SOME["flag"]).sum())), (True, int(SOME["flag"].sum())))
    classes = asked("show histogram(label)")
    assert classes.columns == ("label", "count")
    counts = {name: int((SOME["label"] == code).sum()) for code, name in enumerate(CLASSES)}
    assert dict(classes.lines[:-1]) == counts
    assert [line[1] for line in classes.lines[:-1]] == sorted(counts.values(), reverse=True)
    assert classes.lines[-1] == (None, int((SOME["label"] < 0).sum()))


def test_no_more_than_100_values_are_listed() -> None:
    texts = [f"t{number:03}" for number in range(150) for _ in range(1 + (number >= 140))] + [None]
    table = ColumnTable({"x": texts, "n": np.arange(len(texts))}, {f"tag{i}": np.arange(161) <= i for i in range(120)})
    found = asked("show histogram(x)", table)
    assert len(found.lines) == 101 and found.lines[0] == ("t140", 2) and found.lines[10] == ("t000", 1)
    assert found.lines[-1] == (None, 1)
    assert (found.others, found.other_rows) == (50, 50) and found.notes == ("50 others, in 50 rows",)
    groups = asked("show count by x", table)
    assert len(groups.lines) == 101 and (groups.others, groups.other_rows) == (50, 50)
    assert [line[0] for line in groups.lines[:-1]] == sorted(str(line[0]) for line in groups.lines[:-1])
    numbers = asked("show count by n", table)
    assert len(numbers.lines) == 100 and (numbers.others, numbers.other_rows) == (61, 61)
    tags = asked("show count by tag", table)
    assert [line[0] for line in tags.lines[:-1]] == [f"tag{i}" for i in range(20, 120)] and tags.others == 20


def test_the_text_is_an_aligned_table() -> None:
    table = ColumnTable({"loss": [0.5, 1.0 / 3, None], "x": ["a", "longer\nname", "a"], "flag": [True, False, True]})
    assert asked("show count, mean(loss) by x", table).text() == (
        "count, mean(loss) by x, of 3 rows\n"
        "x            count  mean(loss)\n"
        "a                2         0.5\n"
        "longer·name      1    0.333333"
    )
    assert str(asked("limit 1 show count", table)) == "count, of 1 row\ncount\n    1"
    assert asked("show count by flag", table).text().splitlines()[2] == "false      1"
    assert asked("show histogram(loss, 1)", table).text().splitlines()[-1] == "1 row without a value left out"
    assert asked("limit 0 show mean(loss)", table).text().splitlines()[-1].strip() == "null"


def test_answers_are_bounded_whatever_is_in_the_columns() -> None:
    long = ["x" * 100_000 + str(number) for number in range(300)]
    label = Column("label", Kind.CLASS, np.arange(300), names=tuple(long))
    table = ColumnTable(
        {"text": long, "label": label, "prediction": dataclasses.replace(label, name="prediction"), "n": np.arange(300)}
    )
    for show in (
        "histogram(text)",
        "count by text",
        "count, max(n) by label",
        "confusion",
        "histogram(n, 200)",
        "count by n",
    ):
        found = asked(f"show {show}", table)
        assert len(json.dumps(found.to_json(), allow_nan=False)) < 60_000
        assert len(found.text()) < 200_000


def test_an_answer_is_a_value() -> None:
    found = asked("show mean(loss), count by label")
    assert found == asked("show mean(loss), count by label") and hash(found) == hash(
        asked("show mean(loss), count by label")
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.rows = 3  # type: ignore[misc]
    written = found.to_json()
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert list(written) == [each.name for each in dataclasses.fields(found)]
    lines = tuple(map(tuple, written["lines"]))
    assert Analysis(**{**written, "columns": tuple(written["columns"]), "notes": (), "lines": lines}) == found


def test_what_shows_nothing_is_refused() -> None:
    with pytest.raises(QueryError, match="nothing is asked about the rows; add for example show count"):
        answer(parse("loss > 1"), TABLE, [0])


@settings(max_examples=150, deadline=None)
@given(tables(), shows, st.data())
def test_any_answer_is_plain_and_adds_up(case: Case, show: Any, data: st.DataObject) -> None:
    among = data.draw(st.lists(st.integers(0, len(case) - 1), unique=True) if len(case) else st.just([]))
    found = answer(Query(show=show), case.table, np.array(among, dtype=np.int64))
    assert found.rows == len(among)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False)) == found.to_json()
    assert all(type(cell) in (int, float, str, bool, type(None)) for line in found.lines for cell in line)
    assert all(len(line) == len(found.columns) for line in found.lines)
    assert found.text().startswith(found.title)
    if isinstance(show, Histogram) and isinstance(show.value, Name) and show.value.name not in NUMBERS:
        assert sum(int(str(line[-1])) for line in found.lines) == len(among)


@settings(max_examples=150, deadline=None)
@given(tables(), st.sampled_from([*COLUMNS, ""]), number_columns, shares, st.data())
def test_measures_are_those_of_plain_python(
    case: Case, by: str, column: Name, share: Number, data: st.DataObject
) -> None:
    among = data.draw(st.lists(st.integers(0, len(case) - 1), unique=True) if len(case) else st.just([]))
    asked_for = ["count", "min", "max", "mean", "median", "std"]
    measures = [Measure("count"), *(Measure(name, (column,)) for name in asked_for[1:])]
    measures += [Measure("quantile", (column, share)), Measure("mean", (Name(BOOLS[0]),))]
    found = answer(Query(show=Measures(tuple(measures), Name(by) if by else None)), case.table, among)
    groups: dict[Any, list[int]] = {}
    for row in among:
        value = case.plain[by][row] if by else ""
        groups.setdefault(None if isinstance(value, float) and not math.isfinite(value) else value, []).append(row)
    if not by:
        groups = {"": among}
    named = case.names.get(by, ())
    assert len(found.lines) == len(groups)
    for value, members in groups.items():
        label = named[value] if named and value is not None and value < len(named) else value
        line = next(each for each in found.lines if not by or (each[0] == label and type(each[0]) is type(label)))
        oracle = Oracle(case, members)
        values = oracle.finite(column)
        flags = oracle.finite(Name(BOOLS[0]))
        expected = [len(members)] + [math.nan] * 7
        if values:
            expected[1:6] = [
                min(values),
                max(values),
                float(np.mean(values)),
                float(np.median(values)),
                float(np.std(values)),
            ]
            expected[6] = float(np.quantile(values, share.value))
        if flags:
            expected[7] = float(np.mean(flags))
        cells = line[1:] if by else line
        assert all(
            (cell is None and math.isnan(number)) or math.isclose(cell, number, rel_tol=1e-6, abs_tol=1e-9)  # type: ignore[arg-type]
            for cell, number in zip(cells, expected, strict=True)
        )
