"""Other runs of the root, which have ended, beside the live one and without any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from graybox.proto import experiment_service_pb2 as pb
from graybox.service import desk as desks
from graybox.service.server import RunningServer, serve, serve_archive
from graybox.service.settings import Settings
from graybox.store.metrics import MetricStore
from graybox.store.root import Root
from graybox.store.samples import SampleStore
from tests.service.toy_owner import ToyOwner, make_record
from tests.service.wire_client import WireClient

FAILED = grpc.StatusCode.FAILED_PRECONDITION


@pytest.fixture
def old(tmp_path: Path) -> str:
    """The id of a run that has ended, in the root of the live one."""
    owner = ToyOwner(Root(tmp_path / "root"), "old")
    owner.train(3)
    owner.samples.set_discarded("train", np.array([2]), True)
    owner.journal.append(time_ms=1, actor="ada", kind="pause", step=3, age=24, branch=0, summary="paused")
    owner.checkpoints.add(make_record(owner, "kept", 1))
    owner.run.update(
        state="running", step=3, age=24, class_names=["cat", "dog"], metrics={"train/loss": 0.25}, device="cpu",
        experiment_hash="cafe", kind_of_problem="classification",
    )  # fmt: skip
    owner.close()
    return owner.run.run_id


@pytest.fixture(params=["live", "archive"])
def reader(request: pytest.FixtureRequest, old: str, tmp_path: Path) -> Iterator[WireClient]:
    """A client of a backend that trains another run of the root, and one of an archive of the root."""
    if request.param == "archive":
        running: RunningServer = serve_archive(Root(tmp_path / "root", read_only=True), Settings(port=0))
    else:
        owner = ToyOwner(Root(tmp_path / "root"), "young")
        running = serve(owner.backend(), Settings(port=0))
    with WireClient(running.address, running.tokens.control[0]) as client:
        yield client
    running.stop(grace=0)
    if request.param == "live":
        owner.close()


def test_an_ended_run_is_read_from_disk(reader: WireClient, old: str) -> None:
    answer = reader.ExperimentCommand(
        run_id=old, get_status=True, get_journal=True, get_checkpoints=True, get_data_records=True
    )
    assert answer.success
    assert answer.run_id == old
    status = answer.status
    assert (status.state, status.run_id, status.experiment_name) == (pb.ENDED, old, "old")
    assert (status.step, status.age, status.train_loss, status.journal_sequence) == (3, 24, 0.25, 1)
    assert list(status.class_names) == ["cat", "dog"]
    assert [(entry.actor, entry.kind) for entry in answer.journal_entries] == [("ada", "pause")]
    assert [checkpoint.name for checkpoint in answer.checkpoints] == ["kept"]
    assert answer.sample_statistics.number_of_discarded == 1


def test_its_curves_and_samples(reader: WireClient, old: str) -> None:
    points = reader.GetLatestLoggerData(run_id=old).points
    assert [point.age for point in points if point.metric_name == "loss"] == [8, 16, 24]
    assert {point.run_id for point in points} == {old}
    assert list(reader.GetDataSplits(run_id=old).split_names) == ["train", "val"]
    page = reader.GetDataSamples(run_id=old, records_cnt=3, include_raw_data=True)
    assert page.success
    assert page.run_id == old
    assert [record.discarded for record in page.data_records] == [False, False, True]
    assert [record.label_name for record in page.data_records] == ["cat", "dog", ""]
    for record in page.data_records:
        assert (record.raw_data, record.image_key) == (b"", "")
        assert "has ended" in record.metadata["image_error"]


@pytest.mark.parametrize(
    "fields",
    [
        {"get_interactive_layers": True},
        {"get_single_layer_info_id": "0"},
        {"get_hyper_parameters": True},
        {"hyper_parameter_change": pb.HyperParameterChange(hyper_parameters=pb.HyperParameters(is_training=False))},
        {"save_checkpoint_operation": pb.SaveCheckpointOperation()},
        {"load_checkpoint_operation": pb.LoadCheckpointOperation(checkpoint_id="000001")},
        {"plot_note_operation": pb.PlotNoteOperation(metric_name="loss", split_name="train", model_age=8)},
    ],
)
def test_what_needs_a_backend_says_so_and_the_rest_is_answered(
    reader: WireClient, old: str, fields: dict[str, Any]
) -> None:
    answer = reader.ExperimentCommand(run_id=old, get_status=True, **fields)
    assert not answer.success
    assert answer.message.startswith(f"run {old} has ended; start a backend on it to ")
    assert answer.status.state == pb.ENDED


def test_a_note_names_its_run(reader: WireClient, old: str) -> None:
    note = pb.PlotNoteOperation(metric_name="loss", split_name="train", model_age=8, run_id=old)
    answer = reader.ExperimentCommand(plot_note_operation=note)
    assert (answer.success, answer.run_id) == (False, old)


def test_an_unknown_run_is_not_found(reader: WireClient) -> None:
    for run_id in ("nope", "..", "../root", "/etc", ".graybox.lock", "a/b", "\u0000"):
        for method, request in (
            ("ExperimentCommand", pb.ExperimentCommandRequest(run_id=run_id, get_status=True)),
            ("GetLatestLoggerData", pb.GetLatestLoggerDataRequest(run_id=run_id)),
            ("GetDataSamples", pb.GetDataSamplesRequest(run_id=run_id)),
            ("GetDataSplits", pb.GetDataSplitsRequest(run_id=run_id)),
        ):
            assert reader.status_of(method, request)[0] is grpc.StatusCode.NOT_FOUND


def test_a_cursor_of_one_run_is_unknown_in_another(reader: WireClient, old: str, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    other = root.create_run("other")
    with_points = MetricStore(other.path)
    for step in range(9):
        with_points.append(branch=0, step=step, age=step, time_ms=0, values={("train", "loss"): 1.0})
    with_points.close()
    cursor = reader.GetLatestLoggerData(run_id=old).cursor
    answer = reader.GetLatestLoggerData(run_id=other.run_id, cursor=cursor)
    assert answer.reset
    assert len(answer.points) == 9


def test_more_runs_than_are_kept_open(reader: WireClient, old: str, tmp_path: Path) -> None:
    runs = [Root(tmp_path / "root").create_run(f"run {number}").run_id for number in range(2 * desks.OPEN_RUNS)]
    for _ in range(2):
        for run_id in [*runs, old]:
            assert reader.GetLatestLoggerData(run_id=run_id).run_id == run_id
    assert len(reader.GetLatestLoggerData(run_id=old).points) == 6


def test_what_a_backend_writes_later_is_seen(reader: WireClient, old: str, tmp_path: Path) -> None:
    cursor = reader.GetLatestLoggerData(run_id=old).cursor
    assert reader.GetDataSamples(run_id=old, filter=pb.SampleFilter(discarded=True)).number_of_matches == 1
    folder = Root(tmp_path / "root").run(old).path
    metrics, samples = MetricStore(folder), SampleStore(folder)
    metrics.append(branch=0, step=4, age=32, time_ms=0, values={("train", "loss"): 0.125})
    samples.set_discarded("train", np.array([5, 6]), True)
    samples.snapshot()
    news = reader.GetLatestLoggerData(run_id=old, cursor=cursor)
    assert ([point.age for point in news.points], news.reset) == ([32], False)
    assert reader.GetDataSamples(run_id=old, filter=pb.SampleFilter(discarded=True)).number_of_matches == 3
    metrics.close()
    samples.close()


def test_the_live_run_is_flagged_among_the_others(old: str, owner: ToyOwner, client: WireClient) -> None:
    ended, live = client.ExperimentCommand(get_runs=True).runs
    assert (ended.run_id, ended.live, ended.state, ended.age) == (old, False, pb.ENDED, 24)
    assert ended.metrics == {"train/loss": 0.25}
    assert (live.run_id, live.live, live.state) == (owner.run.run_id, True, pb.RUNNING)
    assert client.ExperimentCommand(get_status=True).run_id == owner.run.run_id
    assert client.ExperimentCommand(get_status=True, run_id=owner.run.run_id).status.state == pb.RUNNING


def test_an_archive_means_the_newest_run(old: str, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    running = serve_archive(Root(root.path, read_only=True), Settings(port=0))
    try:
        with WireClient(running.address, running.tokens.control[0]) as client:
            assert client.ExperimentCommand(get_status=True).status.run_id == old
            assert not (root.path / "backend.json").exists(), "an archive is no backend"
            newer = root.create_run("newer").run_id
            answer = client.ExperimentCommand(get_status=True, get_runs=True)
            assert answer.status.run_id == newer
            assert [(run.run_id, run.live, run.state) for run in answer.runs] == [
                (old, False, pb.ENDED),
                (newer, False, pb.ENDED),
            ]
    finally:
        running.stop(grace=0)


@pytest.mark.parametrize("exists", [True, False])
def test_an_empty_root_lists_no_runs_and_says_what_to_do(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "empty"
    if exists:
        folder.mkdir()
    running = serve_archive(Root(folder, read_only=True), Settings(port=0))
    try:
        with WireClient(running.address, running.tokens.control[0]) as client:
            answer = client.ExperimentCommand(get_runs=True)
            assert (answer.success, list(answer.runs)) == (True, [])
            answer = client.ExperimentCommand(get_status=True)
            assert not answer.success
            assert "start a backend" in answer.message
            assert not client.RestoreCheckpoint(experiment_hash="cafe").success
            assert not client.GetDataSamples().success
            for method, request in (
                ("GetLatestLoggerData", pb.GetLatestLoggerDataRequest()),
                ("GetDataSplits", pb.GetDataSplitsRequest()),
                ("GetWeights", pb.GetWeightsRequest(layer_id="0")),
            ):
                code, details = client.status_of(method, request)
                assert code is FAILED
                assert "start a backend" in details
        assert folder.exists() == exists
    finally:
        running.stop(grace=0)


def test_an_archive_answers_every_rpc_that_needs_a_backend(old: str, tmp_path: Path) -> None:
    running = serve_archive(Root(tmp_path / "root", read_only=True), Settings(port=0))
    words = f"run {old} has ended; start a backend on it to "
    try:
        with WireClient(running.address, running.tokens.control[0]) as client:
            for answer in (
                client.RestoreCheckpoint(experiment_hash="cafe"),
                client.EditDataSample(stat_name="discarded", samples_ids=["1"], bool_value=True),
                client.ManipulateWeights(operation=pb.FREEZE, layer_id="0"),
            ):
                assert not answer.success
                assert answer.message.startswith(words)
            for method, request in (
                ("GetWeights", pb.GetWeightsRequest(layer_id="0")),
                ("GetActivations", pb.GetActivationsRequest(layer_id="0", sample_id="0")),
                ("GetSamples", pb.GetSamplesRequest(sample_ids=["0"])),
            ):
                code, details = client.status_of(method, request)
                assert code is FAILED
                assert details.startswith(words)
    finally:
        running.stop(grace=0)


def test_a_broken_file_of_an_ended_run_is_named(reader: WireClient, old: str, tmp_path: Path) -> None:
    folder = Root(tmp_path / "root").run(old).path
    (folder / "journal.jsonl").write_text("nonsense\nnonsense\n")
    answer = reader.ExperimentCommand(run_id=old, get_journal=True)
    assert not answer.success
    assert "journal.jsonl" in answer.message
    code, details = reader.status_of("GetLatestLoggerData", pb.GetLatestLoggerDataRequest(run_id=old))
    assert code is grpc.StatusCode.INTERNAL
    assert "journal.jsonl" in details
