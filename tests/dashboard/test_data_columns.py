"""The columns of the table of samples."""

from __future__ import annotations

from graybox.dashboard.pages.data.columns import ALWAYS_SEEN, OWN, SHOWN_FIRST, TITLES, choices, definitions
from graybox.dashboard.samples_query import OTHER
from graybox.store.sample_table import COLUMNS

KNOWN = [
    {"name": "id", "kind": "number", "description": "its number"},
    {"name": "aum", "kind": "number", "description": "area under the margin"},
    {"name": "my.entropy", "kind": "number", "description": ""},
    {"name": "was odd", "kind": "bool", "description": ""},
]


def shown(chosen: list[str], known: list[dict[str, str]]) -> list[str]:
    return [column.get("colId") or column["field"] for column in definitions(chosen, known)]


def test_chosen_columns_show_in_a_fixed_order_and_unknown_ones_do_not() -> None:
    always = ["thumbnail", "sample_id", "origin", "label", "prediction", "loss"]
    assert shown([], KNOWN) == always
    assert shown(["discarded", "tags", f"{OTHER}my.entropy", f"{OTHER}aum", f"{OTHER}gone", "encounters"], KNOWN) == [
        *always, f"{OTHER}aum", f"{OTHER}my.entropy", "encounters", "tags", "discarded",
    ]  # fmt: skip


def test_before_a_run_tells_its_columns_the_usual_ones_show() -> None:
    assert set(SHOWN_FIRST) <= {*shown(list(SHOWN_FIRST), [])}


def test_every_column_that_can_be_shown_is_offered_once() -> None:
    offered = [box.value for box in choices(KNOWN)]
    assert offered == [*OWN, f"{OTHER}aum", f"{OTHER}my.entropy", f"{OTHER}was odd"]
    assert shown(offered, KNOWN)[6:] == [*offered[4:], "encounters", "last_age", "tags", "discarded"]


def test_numbers_stand_right_and_explain_themselves() -> None:
    columns = {
        column["colId"]: column
        for column in definitions([box.value for box in choices(KNOWN)], KNOWN)
        if "colId" in column
    }
    assert columns[f"{OTHER}aum"]["type"] == "rightAligned" and "type" not in columns[f"{OTHER}was odd"]
    assert columns[f"{OTHER}aum"]["headerTooltip"] == "aum: area under the margin"
    assert columns[f"{OTHER}my.entropy"]["headerName"] == "my.entropy"


def test_every_column_of_the_store_has_a_title_or_is_shown_in_another_way() -> None:
    assert {*COLUMNS} == {*TITLES} | ALWAYS_SEEN
