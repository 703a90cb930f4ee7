"""Exports over the wire: of live runs and of ended ones, as tables and as manifests."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from graybox.proto import experiment_service_pb2 as pb
from graybox.service import limits
from graybox.service.exports_servicer import PIECE_BYTES
from graybox.service.server import RunningServer, serve, serve_archive
from graybox.service.settings import Settings
from graybox.store.root import Root
from graybox.store.sample_table import SampleTable
from tests.patience import wait_until
from tests.service.toy_owner import CLASSES, ToyOwner
from tests.service.wire_client import WireClient
from tests.store.exported_columns import assert_is_table, frame_of


def export(client: WireClient, **fields: Any) -> tuple[pb.ExportChunk, bytes]:
    """The first piece, and the whole file."""
    pieces = client.call("ExportSamples", pb.ExportSamplesRequest(**fields))
    assert all(len(piece.data) <= PIECE_BYTES for piece in pieces)
    assert not any(piece.file_name or piece.mime_type or piece.total_rows for piece in pieces[1:])
    return pieces[0], b"".join(piece.data for piece in pieces)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", ""])
def test_every_column_of_a_live_run_is_read_back(client: WireClient, owner: ToyOwner, kind: str) -> None:
    owner.train(5)
    owner.samples.set_tag("train", "two, words", np.array([1, 5]), True)
    owner.samples.log_signal("val", "entropy", np.array([3, 4]), np.array([0.1, np.inf], np.float32))
    first, content = export(client, format=kind)
    table = SampleTable(list(owner.samples.splits.values()), CLASSES)
    assert (first.total_rows, first.file_name) == (52, f"{owner.run.run_id}-samples.{kind or 'csv'}")
    assert_is_table(frame_of(kind, content), table, np.arange(52))
    query = "loss > 0.2 and label == 'cat' sortby loss desc, id desc"
    _, content = export(client, format=kind, query=query, run_id=owner.run.run_id)
    view = client.ApplyDataQuery(query=query)
    page = client.GetDataSamples(view_id=view.view_id, records_cnt=100).data_records
    starts = {"train": 0, "val": 40}
    assert_is_table(frame_of(kind, content), table, np.array([starts[r.origin] + int(r.sample_id) for r in page]))
    assert export(client, format=kind, view_id=view.view_id)[1] == content or kind == "parquet"


def test_columns_are_chosen_and_stand_in_that_order(client: WireClient, owner: ToyOwner) -> None:
    owner.samples.set_tag("train", "hard", np.array([1]), True)
    columns = ["tag:hard", "loss", "prediction", "id", "loss"]
    _, content = export(client, columns=columns, query="split == 'train' limit 2")
    assert content.decode() == ("tag:hard,loss,prediction,prediction_name,id\r\nFalse,,-1,,0\r\nTrue,,-1,,1\r\n")


def test_nothing_found_is_a_file_all_the_same(client: WireClient) -> None:
    for kind, content in (("csv", b"id,loss\r\n"), ("jsonl", b"")):
        first, found = export(client, format=kind, columns=["id", "loss"], query="loss > 1e30")
        assert (first.total_rows, found) == (0, content) and first.mime_type
    _, found = export(client, format="parquet", columns=["id", "loss"], query="loss > 1e30")
    assert list(frame_of("parquet", found)) == ["id", "loss"]


def test_an_ended_run_is_exported_by_who_may_watch(owner: ToyOwner) -> None:
    owner.train(4)
    owner.samples.set_discarded("train", np.array([2, 3]), True)
    for store in (owner.samples, owner.metrics, owner.journal):
        store.sync()
    owner.run.update(step=4, age=32, class_names=list(CLASSES))
    archive = serve_archive(owner.root, Settings(port=0))
    try:
        with WireClient(archive.address, archive.tokens.watch[0]) as client:
            first, content = export(client, run_id=owner.run.run_id)
            manifest = json.loads(export(client, format="manifest")[1])
    finally:
        archive.stop(grace=0)
    assert first.total_rows == 52
    assert_is_table(frame_of("csv", content), SampleTable(list(owner.samples.splits.values()), CLASSES), np.arange(52))
    assert (manifest["step"], manifest["age"], manifest["class_names"]) == (4, 32, list(CLASSES))
    assert manifest["splits"]["train"]["discarded"] == [2, 3]
    assert manifest["splits"]["train"]["rows"] == [row for row in range(40) if row not in (2, 3)]


@pytest.mark.parametrize(
    ("fields", "code", "told"),
    [
        ({"format": "xlsx"}, "INVALID_ARGUMENT", "there is no format 'xlsx'; there are csv, jsonl, parquet, manifest"),
        ({"format": "manifest", "columns": ["loss"]}, "INVALID_ARGUMENT", "a manifest has no columns"),
        ({"columns": ["los"]}, "NOT_FOUND", "there is no column 'los'; do you mean loss"),
        ({"columns": ["tag:x"]}, "NOT_FOUND", "there is no column 'tag:x'"),
        ({"columns": [""]}, "NOT_FOUND", "there is no column ''"),
        ({"columns": ["x" * 300]}, "INVALID_ARGUMENT", "at most 200"),
        ({"columns": ["loss"] * 2_001}, "INVALID_ARGUMENT", "at most 2000"),
        ({"query": "los > 1"}, "INVALID_ARGUMENT", "do you mean loss"),
        ({"query": "show count"}, "INVALID_ARGUMENT", "its query has no show"),
        ({"query": "@reset"}, "INVALID_ARGUMENT", "its query has no @reset"),
        ({"query": "loss > 1", "view_id": "view-1"}, "INVALID_ARGUMENT", "not both"),
        ({"view_id": "view-1"}, "NOT_FOUND", "ask the query again"),
        ({"run_id": "nope"}, "NOT_FOUND", "no run 'nope'"),
    ],
)
def test_what_cannot_be_exported_is_told(
    client: WireClient, server: RunningServer, fields: dict[str, Any], code: str, told: str
) -> None:
    found, details = client.status_of("ExportSamples", pb.ExportSamplesRequest(**fields))
    assert (found, told in details) == (grpc.StatusCode[code], True), details
    assert server.desk.export_gate.taken == 0


class Large:
    """A run of many samples, of which an export does not fit what gRPC sends ahead."""

    def __init__(self, root: Path, count: int) -> None:
        self.owner = ToyOwner(Root(root))
        self.owner.samples.add_split("more", count, np.arange(count, dtype=np.int64) % 3, "more")
        self.server = serve(self.owner.backend(), Settings(port=0))

    def close(self) -> None:
        self.server.stop(grace=0)
        self.owner.close()


def test_a_large_export_comes_in_pieces_and_changes_meanwhile_do_not_reach_it(tmp_path: Path) -> None:
    large = Large(tmp_path / "root", 200_000)
    try:
        with WireClient(large.server.address, large.server.tokens.watch[0]) as client:
            request = pb.ExportSamplesRequest(query="split == 'more'", columns=["id", "label", "discarded"])
            pieces = client.stub.ExportSamples(request, metadata=client.metadata)
            first = next(pieces)
            large.owner.samples.set_discarded("more", np.arange(200_000), True)
            content = b"".join(piece.data for piece in pieces)
    finally:
        large.close()
    frame = frame_of("csv", content)
    assert first.total_rows == len(frame) == 200_000 and not frame["discarded"].any()
    assert frame["id"].tolist() == list(range(200_000))


def test_whoever_stops_reading_gives_the_place_back(tmp_path: Path) -> None:
    large = Large(tmp_path / "root", 200_000)
    gate = large.server.desk.export_gate
    try:
        with WireClient(large.server.address, large.server.tokens.watch[0]) as client:
            request = pb.ExportSamplesRequest(format="jsonl")
            calls = [client.stub.ExportSamples(request, metadata=client.metadata) for _ in range(limits.EXPORTS)]
            for call in calls:
                next(call)
            code, details = client.status_of("ExportSamples", request)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED and "exports are being sent already" in details
            assert client.GetDataSplits().success and client.ApplyDataQuery(query="loss > 1").success
            for call in calls:
                call.cancel()
            wait_until(lambda: gate.taken == 0, "the places to be free")
            assert len(export(client, format="jsonl", query="split == 'val'")[1].splitlines()) == 12
    finally:
        large.close()


def test_a_server_that_stops_ends_exports(tmp_path: Path) -> None:
    large = Large(tmp_path / "root", 200_000)
    with WireClient(large.server.address, large.server.tokens.watch[0]) as client:
        call = client.stub.ExportSamples(pb.ExportSamplesRequest(format="jsonl"), metadata=client.metadata)
        next(call)
        stopping = threading.Thread(target=large.close)
        stopping.start()
        with pytest.raises(grpc.RpcError):
            for _ in call:
                pass
        stopping.join()
    assert large.server.desk.export_gate.taken == 0


def test_a_curated_run_is_trained_on_by_plain_pytorch_bit_for_bit(root: Path, tmp_path: Path) -> None:
    """Discards and labels of people, over the wire; what the run trains on then, and what a manifest gives."""
    # Here and not above: the other tests do not need torch, which takes seconds to load.
    import torch
    from torch.utils.data import DataLoader

    from graybox import curated, load_manifest
    from graybox.training_step import split_batch
    from tests.service.test_sample_queries import COUNT, Running
    from tests.small_experiments import toy_data

    run = Running(root)
    try:
        lowest = run.ask("split == 'train' sortby aum limit 30").view_id
        assert run.edit(stat_name="discarded", bool_value=True, view_id=lowest).success
        wrong = run.ask("split == 'train' and not correct and not discarded or id in [5, 6, 7] and split == 'train'")
        assert run.edit(stat_name="label", string_value="2", view_id=wrong.view_id).success
        run.pause()
        first, content = export(run.client, format="manifest", query="split == 'train'")
        (tmp_path / first.file_name).write_bytes(content)
        manifest = load_manifest(tmp_path / first.file_name)
        assert (manifest.run_id, manifest.step) == (run.training.stores.run.run_id, run.training.trainer.latest().step)
        train = curated(toy_data(COUNT), manifest)
        assert len(train) == first.total_rows == COUNT - 30 and train.labels
        # From here on nobody else drives the run.
        session, batches = run.training.trainer.session, []
        while sum(len(batch.rows) for batch, _, _ in batches) < 3 * COUNT:
            batch = session.stream.next()
            batches.append((batch, *split_batch(session.experiment, batch.data, batch.rows)))
            session.stream.commit(batch)
        place = {row: number for number, row in enumerate(train.indices)}
        order = [[place[row] for row in batch.rows.tolist()] for batch, _, _ in batches]
        assert {row for rows in order for row in rows} == set(range(len(train)))
        original = toy_data(COUNT).tensors[1]
        changed = 0
        for (batch, inputs, target), (data, label) in zip(batches, DataLoader(train, batch_sampler=order), strict=True):
            assert torch.equal(data, inputs) and torch.equal(label, target)
            assert (data.dtype, label.dtype) == (inputs.dtype, target.dtype)
            changed += int((label != original[batch.rows]).sum())
        assert changed
    finally:
        run.close()
