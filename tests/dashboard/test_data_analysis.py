"""What `show` tells as tables and plots: the same numbers as in the columns they were made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graybox.dashboard.pages.data import analysis
from graybox.store.query import Column, ColumnTable, Kind, answer, parse, rows

NAMES = ("cat", "<b>dog</b>", "a fish of a very very long name indeed")


def told(query: str, labels: list[int], guesses: list[int], losses: list[float | None]) -> dict[str, Any]:
    columns: dict[str, Any] = {"loss": losses}
    for name, values in (("label", labels), ("prediction", guesses)):
        columns[name] = Column(name, Kind.CLASS, np.array(values, dtype=np.int64), names=NAMES)
    table = ColumnTable(columns, tags={"odd": [bool(n % 2) for n in range(len(labels))]})
    asked = parse(query)
    return answer(asked, table, rows(asked, table)).to_json()


SAMPLES = st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 2), st.floats(0, 9, width=32)), min_size=1, max_size=40)


@given(SAMPLES)
def test_a_heat_map_has_the_counts_of_the_confusion(samples: list[tuple[int, int, float]]) -> None:
    labels, guesses, losses = (list(column) for column in zip(*samples, strict=True))
    content = told("show confusion", labels, guesses, losses)
    if not content["lines"]:
        assert "nothing to tell" in str(analysis.body(content)[0])
        return
    figure = analysis.confusion(content)
    (trace,) = figure["data"]
    down = [NAMES.index(line[0]) for line in content["lines"]]
    across = [NAMES.index(name) for name in content["columns"][1:]]
    for i, label in enumerate(down):
        row = [guess for truth, guess in zip(labels, guesses, strict=True) if truth == label and guess >= 0]
        for j, guess in enumerate(across):
            count = row.count(guess)
            assert trace["text"][i][j] == (str(count) if count else "")
            assert np.isclose(trace["z"][i][j] ** 2, count / max(len(row), 1))
            assert f"{count} of {len(row)}" in trace["customdata"][i][j]
    assert all("<b>" not in text for text in figure["layout"]["yaxis"]["ticktext"])
    assert len(figure["layout"]["xaxis"]["ticktext"]) == len(across)


@given(SAMPLES)
def test_bars_have_the_counts_of_the_bins(samples: list[tuple[int, int, float]]) -> None:
    labels, guesses, losses = (list(column) for column in zip(*samples, strict=True))
    (bars,) = analysis.histogram(told("show histogram(loss, 7)", labels, guesses, losses))["data"]
    assert sum(bars["y"]) == len(samples)
    assert all(width > 0 for width in bars["width"])
    assert bars["x"][0] <= min(losses) and bars["x"][-1] + bars["width"][-1] >= max(losses)
    figure = analysis.histogram(told("show histogram(prediction)", labels, guesses, losses))
    (bars,) = figure["data"]
    counts = dict(zip(figure["layout"]["xaxis"]["ticktext"], bars["y"], strict=True))
    assert counts.get("cat", 0) == guesses.count(0) and counts.get("none", 0) == guesses.count(-1)


def texts(component: Any) -> list[list[str]]:
    body = component.children.children[1]
    return [[str(cell.children) for cell in row.children] for row in body.children]


def test_a_table_shows_shares_counts_and_what_is_not_known() -> None:
    content = told("show count, accuracy, mean(loss) by label", [0, 0, 1], [0, 1, -1], [0.5, 1.5, None])
    assert texts(analysis.table(content)) == [["cat", "2", "50.0 %", "1"], ["<b>dog</b>", "1", "–", "–"]]
    assert analysis.title(content) == "Count, accuracy, mean(loss) by label · of 3 samples"
    by_tag = told("show count by tag", [0, 0, 1], [0, 1, -1], [0.5, 1.5, None])
    assert texts(analysis.table(by_tag)) == [["odd", "1"], ["none", "2"]]


def test_many_classes_are_told_on_hovering_and_named_now_and_then() -> None:
    size = 120
    lines = [[str(row), *(int(row == column) for column in range(size))] for row in range(size)]
    heads = ["label \\ prediction", *map(str, range(size))]
    content = {"kind": "confusion", "title": "confusion", "rows": size, "columns": heads, "lines": lines, "notes": []}
    figure = analysis.confusion(content)
    assert figure["data"][0]["texttemplate"] == ""
    assert len(figure["layout"]["xaxis"]["tickvals"]) <= 50


def test_notes_stand_below() -> None:
    content = told("show histogram(loss, 5)", [0, 0], [0, 0], [0.5, None])
    assert "1 row without a value left out" in str(analysis.body(content)[-1])
