"""Pictures that take long to load occupy some of the threads, never all."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import pytest

from graybox.proto import experiment_service_pb2 as pb
from graybox.service import limits
from graybox.service.server import RunningServer, serve
from graybox.service.settings import Settings
from graybox.snapshot import SamplePicture, TrainerState
from tests.patience import PATIENCE, wait_until
from tests.service.toy_owner import ToyOwner
from tests.service.wire_client import WireClient

PAUSE = pb.HyperParameterChange(hyper_parameters=pb.HyperParameters(is_training=False))
WANTED = pb.GetSamplesRequest(sample_ids=["1"])


class SlowImages:
    """The toy's pictures, which come only when the test says so."""

    def __init__(self, owner: ToyOwner) -> None:
        self._owner = owner
        self.free = threading.Event()

    def image(self, split: str, sample_id: str, width: int, height: int, *, overlay: bool = False) -> SamplePicture:
        assert self.free.wait(2 * PATIENCE)
        return self._owner.image(split, sample_id, width, height, overlay=overlay)

    def key(self, split: str, sample_id: str) -> str:
        return self._owner.key(split, sample_id)


@pytest.fixture
def slow(owner: ToyOwner) -> Iterator[SlowImages]:
    made = SlowImages(owner)
    yield made
    made.free.set()


@pytest.fixture
def server(owner: ToyOwner, slow: SlowImages) -> Iterator[RunningServer]:
    backend = owner.backend()
    backend.images = slow
    running = serve(backend, Settings(port=0))
    yield running
    slow.free.set()
    running.stop(grace=0)


def test_the_ninth_is_sent_away_and_pause_gets_through(
    client: WireClient, owner: ToyOwner, server: RunningServer, slow: SlowImages
) -> None:
    gate = server.desk.image_gate
    # Without the gate these would take every thread there is.
    calls = [client.send("GetSamples", WANTED) for _ in range(limits.WORKERS + 4)]
    too_many = len(calls) - limits.PICTURE_READS
    wait_until(lambda: sum(call.done() for call in calls) == too_many, "what is too much to be sent away")
    assert gate.taken == limits.PICTURE_READS == 8
    refused = [call for call in calls if call.done()]
    assert {call.code() for call in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert "requests for pictures" in refused[0].details()

    page = client.GetDataSamples(records_cnt=3, include_raw_data=True)
    assert page.success
    assert [(record.raw_data, record.image_key) for record in page.data_records] == [
        (b"", f"train-{row}") for row in range(3)
    ]
    assert all("requests for pictures" in record.metadata["image_error"] for record in page.data_records)
    assert client.GetDataSamples(records_cnt=3).data_records[0].metadata.get("image_error") is None
    assert client.ExperimentCommand(hyper_parameter_change=PAUSE).success
    assert owner.state is TrainerState.PAUSED

    slow.free.set()
    assert all(call.result(PATIENCE).samples[0].image for call in calls if call not in refused)
    assert client.GetDataSamples(records_cnt=1, include_raw_data=True).data_records[0].raw_data
    assert gate.taken == 0


def test_pictures_and_the_trainer_together_leave_room_for_pause(
    client: WireClient, owner: ToyOwner, server: RunningServer
) -> None:
    save = pb.ExperimentCommandRequest(save_checkpoint_operation=pb.SaveCheckpointOperation())
    assert limits.PICTURE_READS + limits.WAITING_AT_OWNER + limits.LOGGER_READS < limits.WORKERS
    with owner.busy():
        calls = [client.send("GetSamples", WANTED) for _ in range(limits.PICTURE_READS)]
        calls += [client.send("ExperimentCommand", save) for _ in range(limits.WAITING_AT_OWNER)]
        gates = (server.desk.image_gate, server.desk.owner_gate)
        wait_until(lambda: [gate.taken for gate in gates] == [8, 12], "both gates to be full")
        pausing = client.send("ExperimentCommand", pb.ExperimentCommandRequest(hyper_parameter_change=PAUSE))
        wait_until(lambda: len(owner.timeouts) == limits.WAITING_AT_OWNER + 1, "pause to reach the trainer")
    assert pausing.result(PATIENCE).success
