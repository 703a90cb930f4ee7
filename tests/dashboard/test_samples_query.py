from __future__ import annotations

import math
from urllib.parse import parse_qs, urlsplit

import pytest

from graybox.dashboard.samples_query import COLUMNS, MAX_ROWS, OTHER, BadQuery, page_from, request_from, row_of
from graybox.proto import experiment_service_pb2 as pb


def test_what_the_grid_asks_becomes_the_wires_request() -> None:
    request = request_from(
        {
            "start": "200", "end": "300", "run": "r1", "split": "val", "status": "discarded", "wrong": "1",
            "label": "3,7", "id": " 12 ", "min_loss": "0.5", "max_loss": "2", "sort": "loss", "desc": "1",
        }
    )  # fmt: skip
    assert (request.start_index, request.records_cnt, request.run_id) == (200, 100, "r1")
    assert (request.sort_by, request.descending) == ("loss", True)
    wanted = request.filter
    assert (wanted.origin, wanted.discarded, wanted.wrong, list(wanted.labels)) == ("val", True, True, [3, 7])
    assert (wanted.id_contains, wanted.min_loss, wanted.max_loss) == ("12", 0.5, 2.0)


def test_what_is_not_asked_is_not_filtered() -> None:
    request = request_from({})
    assert (request.start_index, request.records_cnt, request.sort_by, request.descending) == (0, 100, "", False)
    for name in ("discarded", "wrong", "min_loss", "max_loss"):
        assert not request.filter.HasField(name)
    assert not request_from({"status": "in"}).filter.discarded
    assert request_from({"status": "in"}).filter.HasField("discarded")


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_can_be_sorted_by(column: str) -> None:
    assert request_from({"sort": column}).sort_by == COLUMNS[column]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"start": "x"}, "whole number"),
        ({"start": "-1"}, "from 0"),
        ({"start": "10", "end": "10"}, "below end"),
        ({"end": "99999999999"}, "from 0"),
        ({"sort": "__class__"}, "no column"),
        ({"status": "gone"}, "'in' or 'discarded'"),
        ({"label": "cat"}, "class numbers"),
        ({"min_loss": "high"}, "Loss from: give a number"),
        ({"max_loss": "nan"}, "finite"),
    ],
)
def test_a_query_that_cannot_be_meant_says_why(query: dict[str, str], says: str) -> None:
    with pytest.raises(BadQuery, match=says):
        request_from(query)


def test_a_view_has_no_other_filter_and_any_column_sorts() -> None:
    request = request_from({"view": "view-1", "run": "r1", "split": "val", "wrong": "1", "sort": f"{OTHER}my.signal"})
    assert (request.view_id, request.sort_by) == ("view-1", "my.signal")
    assert not request.HasField("filter")
    assert request_from({"sort": f"{OTHER}loss"}).sort_by == "loss"


def test_a_page_is_never_larger_than_allowed() -> None:
    assert request_from({"start": "0", "end": "100000"}).records_cnt == MAX_ROWS


def test_a_row_shows_what_is_known_and_nothing_where_nothing_is() -> None:
    record = pb.DataRecord(
        sample_id="7", origin="train", label=3, prediction=5, label_name="cat", loss=0.25, last_age=64
    )
    row = row_of(record, "r1")
    assert (row["key"], row["label"], row["prediction"], row["wrong"]) == ("train/7", "cat", "5", True)
    assert (row["loss"], row["loss_text"], row["thumbnail"]) == (0.25, "0.25", "")
    unseen = row_of(pb.DataRecord(sample_id="8", origin="val", label=-1, prediction=-1, last_age=-1), "r1")
    assert (unseen["label"], unseen["prediction"], unseen["wrong"]) == ("", "", False)
    assert (unseen["loss"], unseen["loss_text"], unseen["last_age"]) == (None, "", "")
    assert row_of(pb.DataRecord(loss=math.nan), "r1")["loss"] is None


def test_the_address_of_a_picture_holds_any_id_and_the_key_that_makes_it_immutable() -> None:
    record = pb.DataRecord(sample_id="a/b?c", origin="train", image_key="k&1")
    address = urlsplit(row_of(record, "run 1")["thumbnail"])
    assert address.path == "/thumbnail/run%201/train/a%2Fb%3Fc"
    assert parse_qs(address.query) == {"key": ["k&1"], "size": ["64"]}


def test_a_page_counts_what_matches_not_what_it_holds() -> None:
    response = pb.DataSamplesResponse(
        data_records=[pb.DataRecord(sample_id="1", origin="train")], number_of_matches=40, number_of_all_samples=400,
        number_of_discarded_samples=3,
    )  # fmt: skip
    page = page_from(response, "r1")
    assert (len(page["rows"]), page["matches"], page["all"], page["discarded"]) == (1, 40, 400, 3)


def test_a_corrected_label_names_the_one_it_replaces() -> None:
    records = [
        pb.DataRecord(sample_id="1", label=2, label_name="fish", prediction=0, prediction_name="cat", original_label=0),
        pb.DataRecord(sample_id="2", label=1, label_name="dog", prediction=-1, original_label=1, tags=["odd", "old"]),
        pb.DataRecord(sample_id="3", label=1, label_name="dog", prediction=-1, original_label=-1),
        pb.DataRecord(sample_id="4", label=1, label_name="dog", prediction=-1, original_label=7),
    ]
    for classes in ((), ("cat", "dog", "fish")):
        rows = page_from(pb.DataSamplesResponse(data_records=records), "r1", classes)["rows"]
        assert [row["original"] for row in rows] == ["cat", "", "none", "7"]
    assert [row["tags"] for row in rows] == [[], ["odd", "old"], [], []]


def test_a_label_in_words_wins_over_a_number() -> None:
    row = row_of(pb.DataRecord(label=-1, original_label=-1, label_text="cat, dog", prediction_text="3 boxes"), "r1")
    assert (row["label"], row["prediction"], row["original"]) == ("cat, dog", "3 boxes", "")
