"""Samples over the wire: pages, filters, pictures, discards."""

from __future__ import annotations

import io
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from graybox.proto import experiment_service_pb2 as pb
from graybox.service.server import serve
from graybox.service.settings import Settings
from tests.service.toy_owner import CLASSES, EXPLOSIVE, SEGMENTED, SPLITS, UNREADABLE, ToyOwner
from tests.service.wire_client import WireClient

INVALID = grpc.StatusCode.INVALID_ARGUMENT
MISSING = grpc.StatusCode.NOT_FOUND


def ids(answer: pb.DataSamplesResponse) -> list[tuple[str, str]]:
    return [(record.origin, record.sample_id) for record in answer.data_records]


def test_pages_cover_every_sample_once(client: WireClient) -> None:
    everything = [(split, str(row)) for split, count in SPLITS.items() for row in range(count)]
    paged: list[tuple[str, str]] = []
    for start in range(0, 60, 15):
        answer = client.GetDataSamples(start_index=start, records_cnt=15)
        assert answer.success
        assert (answer.number_of_matches, answer.number_of_all_samples) == (52, 52)
        paged += ids(answer)
    assert paged == everything
    assert ids(client.GetDataSamples(start_index=52, records_cnt=10)) == []
    assert ids(client.GetDataSamples(start_index=2**31 - 1, records_cnt=10)) == []
    assert ids(client.GetDataSamples()) == []


def test_a_record_says_everything(client: WireClient, owner: ToyOwner) -> None:
    owner.samples.record_batch("train", np.array([4]), np.array([0.25], np.float32), np.array([2]), 48)
    owner.samples.set_discarded("train", np.array([4]), True)
    record = client.GetDataSamples(start_index=4, records_cnt=1).data_records[0]
    assert record == pb.DataRecord(
        sample_id="4", origin="train", label=1, prediction=2, loss=0.25, encounters=1, last_age=48, discarded=True,
        label_name=CLASSES[1], prediction_name=CLASSES[2], image_key="train-4",
        metadata={
            "label": "1", "prediction": "2", "loss": "0.25", "encounters": "1", "last_age": "48", "discarded": "true",
            "loss_mean": "0.25", "loss_std": "0", "forgetting": "0",
        },
        original_label=1, label_text=CLASSES[1], prediction_text=CLASSES[2], label_kind="class",
    )  # fmt: skip
    unseen = client.GetDataSamples(start_index=5, records_cnt=1).data_records[0]
    assert (unseen.prediction, unseen.last_age, unseen.encounters) == (-1, -1, 0)
    assert not unseen.HasField("loss")
    assert (unseen.prediction_name, unseen.metadata["loss"]) == ("", "")


def test_filters_and_sorting_agree_with_a_plain_loop(client: WireClient, owner: ToyOwner) -> None:
    rng = np.random.default_rng(0)
    losses, guesses = rng.random(40).astype(np.float32), rng.integers(0, 3, 40)
    owner.samples.record_batch("train", np.arange(40), losses, guesses, 8)
    owner.samples.set_discarded("train", np.arange(0, 40, 4), True)
    labels = np.arange(40) % 3
    cases: list[tuple[dict[str, Any], Any]] = [
        ({"discarded": True}, lambda i: i % 4 == 0),
        ({"discarded": False, "wrong": True}, lambda i: i % 4 and guesses[i] != labels[i]),
        ({"wrong": False}, lambda i: guesses[i] == labels[i]),
        ({"min_loss": 0.25, "max_loss": 0.75}, lambda i: 0.25 <= losses[i] <= 0.75),
        ({"labels": [0, 2], "predictions": [1]}, lambda i: labels[i] in (0, 2) and guesses[i] == 1),
        ({"id_contains": "3"}, lambda i: "3" in str(i)),
    ]
    for conditions, holds in cases:
        expected = [i for i in range(40) if holds(i)]
        assert expected, "a case that selects nothing shows nothing"
        wanted = pb.SampleFilter(origin="train", **conditions)
        answer = client.GetDataSamples(records_cnt=100, filter=wanted)
        assert ids(answer) == [("train", str(i)) for i in expected]
        assert answer.number_of_matches == len(expected)
        assert answer.number_of_discarded_samples == 10
        for descending in (False, True):
            ordered = sorted(expected, key=lambda i: -losses[i] if descending else losses[i])
            answer = client.GetDataSamples(records_cnt=100, filter=wanted, sort_by="loss", descending=descending)
            assert ids(answer) == [("train", str(i)) for i in ordered]


@pytest.mark.parametrize(
    "column", ["sample_id", "origin", "label", "prediction", "loss", "encounters", "last_age", "discarded"]
)
def test_every_column_sorts(client: WireClient, owner: ToyOwner, column: str) -> None:
    owner.train(3)
    up = client.GetDataSamples(records_cnt=100, sort_by=column)
    down = client.GetDataSamples(records_cnt=100, sort_by=column, descending=True)
    assert len(ids(up)) == len(set(ids(up))) == 52
    assert set(ids(up)) == set(ids(down))


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (pb.GetDataSamplesRequest(sort_by="__class__"), INVALID),
        (pb.GetDataSamplesRequest(filter=pb.SampleFilter(min_loss=float("nan"))), INVALID),
        (pb.GetDataSamplesRequest(filter=pb.SampleFilter(origin="nope")), MISSING),
        (pb.GetDataSamplesRequest(view_id="nope"), MISSING),
        (pb.GetDataSamplesRequest(run_id="nope"), MISSING),
        (pb.GetDataSamplesRequest(run_id="../../etc"), MISSING),
    ],
)
def test_pages_of_nothing(client: WireClient, request_: pb.GetDataSamplesRequest, code: grpc.StatusCode) -> None:
    assert client.status_of("GetDataSamples", request_)[0] is code


def test_thumbnails_come_in_parallel_and_a_bad_one_alone_is_missing(client: WireClient, owner: ToyOwner) -> None:
    answer = client.GetDataSamples(records_cnt=40, include_raw_data=True)
    assert answer.success
    for record in answer.data_records:
        if record.sample_id in (UNREADABLE, EXPLOSIVE):
            assert not record.raw_data
        else:
            assert "image_error" not in record.metadata
            assert Image.open(io.BytesIO(record.raw_data)).size == (64, 64)
    assert answer.data_records[7].metadata["image_error"] == "the file of sample 7 is cut off"
    told = answer.data_records[8].metadata["image_error"]
    assert "internal error" in told
    assert "secret" not in told
    assert 1 < len(owner.image_threads) <= 8
    assert not any(record.raw_data for record in client.GetDataSamples(records_cnt=40).data_records)


def test_thumbnails_have_the_size_that_was_asked_for(client: WireClient) -> None:
    answer = client.GetDataSamples(records_cnt=1, include_raw_data=True, resize_width=20, resize_height=30)
    image = Image.open(io.BytesIO(answer.data_records[0].raw_data))
    assert (image.size, image.format) == ((20, 30), "JPEG")


def test_masks_notes_and_overlays(client: WireClient) -> None:
    plain, segmented = client.GetSamples(sample_ids=["1", SEGMENTED]).samples
    assert (plain.segmentation_mask, plain.note, segmented.note) == (b"", "", "stretched")
    mask, picture = (Image.open(io.BytesIO(data)) for data in (segmented.segmentation_mask, segmented.image))
    assert (mask.format, mask.mode, mask.size, picture.mode) == ("PNG", "RGBA", picture.size, "L")
    over = client.GetSamples(sample_ids=[SEGMENTED, UNREADABLE], overlay=True).samples
    assert Image.open(io.BytesIO(over[0].image)).mode == "RGB"
    assert (over[1].image, over[1].segmentation_mask, over[1].note) == (b"", b"", "") and over[1].error
    for overlay, mode in ((False, "L"), (True, "RGB")):
        page = client.GetDataSamples(start_index=8, records_cnt=2, include_raw_data=True, overlay=overlay)
        record = page.data_records[1]
        assert Image.open(io.BytesIO(record.raw_data)).mode == mode
        assert record.metadata["image_note"] == "stretched"
        assert "image_note" not in page.data_records[0].metadata


def test_splits(client: WireClient) -> None:
    answer = client.GetDataSplits()
    assert answer.success
    assert list(answer.split_names) == ["train", "val"]


def test_discard_and_restore(client: WireClient, owner: ToyOwner) -> None:
    answer = client.EditDataSample(stat_name="discarded", samples_ids=["3", "5", "3"], bool_value=True)
    assert answer.success
    assert (answer.number_changed, answer.journal_sequence) == (2, 1)
    assert np.flatnonzero(owner.samples.splits["train"].discarded).tolist() == [3, 5]
    again = client.EditDataSample(stat_name="discarded", samples_ids=["3"], bool_value=True, type="EDIT_OVERRIDE")
    assert again.success
    assert again.number_changed == 0
    back = client.EditDataSample(stat_name="discarded", samples_ids=["3"], bool_value=False)
    assert back.number_changed == 1
    assert np.flatnonzero(owner.samples.splits["train"].discarded).tolist() == [5]


@pytest.mark.parametrize(
    ("origins", "train", "val"),
    [([], [1, 2], []), (["val"], [], [1, 2]), (["val", "train"], [2], [1]), (["", "val"], [1], [2])],
)
def test_one_origin_for_each_or_one_for_all_or_none(
    client: WireClient, owner: ToyOwner, origins: list[str], train: list[int], val: list[int]
) -> None:
    assert client.EditDataSample(
        stat_name="discarded", samples_ids=["1", "2"], sample_origins=origins, bool_value=True
    ).success
    assert np.flatnonzero(owner.samples.splits["train"].discarded).tolist() == train
    assert np.flatnonzero(owner.samples.splits["val"].discarded).tolist() == val


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"stat_name": ""}, INVALID),
        ({"stat_name": "loss"}, INVALID),
        ({"stat_name": "tags", "string_value": "hard"}, INVALID),
        ({"stat_name": "tags:hard"}, INVALID),
        ({"stat_name": "__copy_metadata__"}, INVALID),
        ({"stat_name": "__delete_metadata__"}, INVALID),
        ({"samples_ids": []}, INVALID),
        ({"type": "REMOVE"}, INVALID),
        ({"sample_origins": ["train"] * 3}, INVALID),
        ({"sample_origins": ["nope"]}, MISSING),
        ({"samples_ids": ["1", "40"]}, MISSING),
        ({"samples_ids": ["1", "-1"]}, MISSING),
        ({"samples_ids": ["1", "01"]}, MISSING),
        ({"samples_ids": ["1", "1.0"]}, MISSING),
        ({"samples_ids": ["1", "٣"]}, MISSING),
        ({"samples_ids": ["1", ""]}, MISSING),
        ({"samples_ids": ["1", "9" * 5000]}, MISSING),
    ],
)
def test_a_bad_edit_changes_nothing(
    client: WireClient, owner: ToyOwner, fields: dict[str, Any], code: grpc.StatusCode
) -> None:
    before = owner.fingerprint()
    request = pb.DataEditRequest(**{"stat_name": "discarded", "samples_ids": ["1"], "bool_value": True, **fields})
    assert client.status_of("EditDataSample", request)[0] is code
    assert owner.fingerprint() == before


def test_whole_pictures(client: WireClient) -> None:
    answer = client.GetSamples(sample_ids=["1", UNREADABLE, "2"], sample_origins=["val", "train", "train"])
    first, broken, last = answer.samples
    assert (first.sample_id, first.origin) == ("1", "val")
    image = Image.open(io.BytesIO(first.image))
    assert (image.size, image.format) == ((200, 200), "PNG")
    assert (broken.image, broken.error) == (b"", "the file of sample 7 is cut off")
    assert last.image
    small = client.GetSamples(sample_ids=["1"], resize_width=10, resize_height=12).samples[0]
    assert Image.open(io.BytesIO(small.image)).size == (10, 12)
    assert not client.GetSamples().samples


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (pb.GetSamplesRequest(sample_ids=["1", "99"]), MISSING),
        (pb.GetSamplesRequest(sample_ids=["1"], sample_origins=["nope"]), MISSING),
        (pb.GetSamplesRequest(sample_ids=["1"], sample_origins=["train", "val"]), INVALID),
    ],
)
def test_pictures_of_nothing(client: WireClient, request_: pb.GetSamplesRequest, code: grpc.StatusCode) -> None:
    assert client.status_of("GetSamples", request_)[0] is code


def test_a_run_without_pictures_says_so(owner: ToyOwner) -> None:
    backend = owner.backend()
    backend.images = None
    running = serve(backend, Settings(port=0))
    try:
        with WireClient(running.address, running.tokens.watch[0]) as client:
            code, details = client.status_of("GetSamples", pb.GetSamplesRequest(sample_ids=["1"]))
            assert (code, details) == (grpc.StatusCode.FAILED_PRECONDITION, "the samples of this run have no pictures")
            (record,) = client.GetDataSamples(records_cnt=1, include_raw_data=True).data_records
            assert (record.metadata["image_error"], record.image_key) == (details, "")
    finally:
        running.stop(grace=0)
