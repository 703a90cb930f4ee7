"""How much one request may ask for, and how many may ask at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from graybox.commands import Pause
from graybox.errors import Invalid
from graybox.proto import experiment_service_pb2 as pb
from graybox.service import limits
from graybox.service.server import RunningServer, serve
from graybox.service.settings import SMALLEST_MESSAGE_BYTES, Settings
from graybox.store.metrics import MetricSlice, MetricStore
from tests.patience import PATIENCE, wait_until
from tests.service.toy_owner import ToyOwner
from tests.service.wire_client import WireClient

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_gate_lets_in_so_many_and_again_when_they_left() -> None:
    gate = limits.Gate(1, "one at a time")
    with gate.place(), pytest.raises(limits.TooMany, match="one at a time"), gate.place():
        pass
    with pytest.raises(ZeroDivisionError), gate.place():
        raise ZeroDivisionError
    assert gate.taken == 0
    with gate.place():
        assert gate.taken == 1
    leave = gate.enter()
    with pytest.raises(limits.TooMany):
        gate.enter()
    leave()
    leave()  # once, however often it is called
    assert gate.taken == 0


@pytest.mark.parametrize("value", [-1, 11])
def test_a_range_names_its_bounds(value: int) -> None:
    assert limits.check_whole("x", 0, 0, 10) == 0
    assert limits.check_whole("x", 10, 0, 10) == 10
    with pytest.raises(Invalid, match=f"x is {value}; it must be between 0 and 10"):
        limits.check_whole("x", value, 0, 10)


class HeldMetrics(MetricStore):
    """A metric store whose reads take as long as the test wants."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.entered = threading.Semaphore(0)
        self.free = threading.Event()

    def read(self, **wanted: Any) -> MetricSlice:
        self.entered.release()
        assert self.free.wait(2 * PATIENCE)
        return super().read(**wanted)


@pytest.fixture
def held(owner: ToyOwner) -> Iterator[HeldMetrics]:
    owner.train(2)
    metrics = HeldMetrics(owner.run.path, read_only=True)
    yield metrics
    metrics.free.set()


def test_three_reads_of_the_curves_at_once(owner: ToyOwner, held: HeldMetrics) -> None:
    backend = owner.backend()
    backend.metrics = held
    running = serve(backend, Settings(port=0))
    try:
        with WireClient(running.address, running.tokens.watch[0]) as client:
            request = pb.GetLatestLoggerDataRequest()
            calls = [client.send("GetLatestLoggerData", request) for _ in range(3)]
            for _ in calls:
                assert held.entered.acquire(timeout=PATIENCE)
            code, details = client.status_of("GetLatestLoggerData", request)
            assert code is EXHAUSTED
            assert "3 GetLatestLoggerData" in details
            assert client.GetDataSplits().success, "other reads go on"
            held.free.set()
            assert [len(call.result(PATIENCE).points) for call in calls] == [4, 4, 4]
            assert len(client.GetLatestLoggerData().points) == 4
    finally:
        held.free.set()
        running.stop(grace=0)


def test_those_who_wait_for_the_trainer_leave_room_for_readers_and_for_pause(
    owner: ToyOwner, client: WireClient
) -> None:
    save = pb.ExperimentCommandRequest(save_checkpoint_operation=pb.SaveCheckpointOperation())
    pause = pb.ExperimentCommandRequest(
        hyper_parameter_change=pb.HyperParameterChange(hyper_parameters=pb.HyperParameters(is_training=False))
    )
    with owner.busy():
        waiting = [client.send("ExperimentCommand", save) for _ in range(limits.WAITING_AT_OWNER)]
        wait_until(lambda: len(owner.timeouts) == len(waiting), "all to arrive at the trainer")
        assert client.status_of("ExperimentCommand", save)[0] is EXHAUSTED
        assert client.status_of("GetWeights", pb.GetWeightsRequest(layer_id="0"))[0] is EXHAUSTED
        assert client.ExperimentCommand(get_status=True).status.state == pb.RUNNING
        pausing = client.send("ExperimentCommand", pause)
        wait_until(lambda: len(owner.timeouts) == len(waiting) + 1, "pause to arrive at the trainer")
    assert all(call.result(PATIENCE).success for call in [*waiting, pausing])
    assert sum(isinstance(command, Pause) for command in owner.applied) == 1
    assert client.GetWeights(layer_id="0").format == "npy", "their places are free again"


@pytest.mark.parametrize(
    ("method", "request_", "word"),
    [
        ("GetDataSamples", pb.GetDataSamplesRequest(records_cnt=10_001), "records_cnt"),
        ("GetDataSamples", pb.GetDataSamplesRequest(records_cnt=1_025, include_raw_data=True), "records_cnt"),
        ("GetDataSamples", pb.GetDataSamplesRequest(records_cnt=-1), "records_cnt"),
        ("GetDataSamples", pb.GetDataSamplesRequest(start_index=-1), "start_index"),
        ("GetDataSamples", pb.GetDataSamplesRequest(resize_width=-5), "resize_width"),
        ("GetDataSamples", pb.GetDataSamplesRequest(resize_height=4_097), "resize_height"),
        ("GetDataSamples", pb.GetDataSamplesRequest(filter=pb.SampleFilter(id_contains="1" * 201)), "id_contains"),
        ("GetDataSamples", pb.GetDataSamplesRequest(run_id="r" * 201), "run_id"),
        ("GetSamples", pb.GetSamplesRequest(sample_ids=["1"] * 1_025), "sample_ids"),
        ("GetSamples", pb.GetSamplesRequest(sample_ids=["1"], resize_width=10_000), "resize_width"),
        ("GetLatestLoggerData", pb.GetLatestLoggerDataRequest(max_points=-1), "max_points"),
        ("GetLatestLoggerData", pb.GetLatestLoggerDataRequest(max_points=100_001), "max_points"),
        ("GetLatestLoggerData", pb.GetLatestLoggerDataRequest(graph_name="g" * 201), "graph_name"),
        ("GetLatestLoggerData", pb.GetLatestLoggerDataRequest(cursor="c" * 201), "cursor"),
        ("GetLatestLoggerData", pb.GetLatestLoggerDataRequest(min_age=5, max_age=4), "max_age"),
        ("ExperimentCommand", pb.ExperimentCommandRequest(journal_limit=10_001), "journal_limit"),
        ("ExperimentCommand", pb.ExperimentCommandRequest(journal_after=-1), "journal_after"),
        ("ExperimentCommand", pb.ExperimentCommandRequest(actor="a" * 101), "actor"),
        ("ExperimentCommand", pb.ExperimentCommandRequest(command_id="a" * 201), "command_id"),
        ("ExperimentCommand", pb.ExperimentCommandRequest(get_single_layer_info_id="a" * 1_001), "layer"),
        ("RestoreCheckpoint", pb.RestoreCheckpointRequest(experiment_hash="a" * 201), "experiment_hash"),
        ("RestoreCheckpoint", pb.RestoreCheckpointRequest(experiment_hash="a", actor="a" * 101), "actor"),
        ("GetWeights", pb.GetWeightsRequest(layer_id="a" * 1_001), "layer_id"),
        ("ManipulateWeights", pb.ManipulateWeightsRequest(operation=pb.FREEZE, layer_id="a" * 1_001), "layer_id"),
    ],
)
def test_what_is_too_much_names_the_field(
    client: WireClient, owner: ToyOwner, method: str, request_: Any, word: str
) -> None:
    before = owner.fingerprint()
    code, details = client.status_of(method, request_)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert word in details
    assert owner.fingerprint() == before


def test_a_message_above_the_limit_is_turned_away(owner: ToyOwner) -> None:
    running: RunningServer = serve(owner.backend(), Settings(port=0, max_message_bytes=SMALLEST_MESSAGE_BYTES))
    try:
        with WireClient(running.address, running.tokens.control[0]) as client:
            ids = ["1" * 10] * 10_000
            code, _ = client.status_of("EditDataSample", pb.DataEditRequest(stat_name="discarded", samples_ids=ids))
            assert code is EXHAUSTED
            assert client.GetDataSplits().success
    finally:
        running.stop(grace=0)
