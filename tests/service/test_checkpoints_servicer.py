"""RestoreCheckpoint over the wire."""

from __future__ import annotations

import grpc
import pytest

from graybox.proto import experiment_service_pb2 as pb
from graybox.snapshot import TrainerState
from tests.service.toy_owner import ToyOwner
from tests.service.wire_client import WireClient


@pytest.fixture
def saved(client: WireClient, owner: ToyOwner) -> None:
    for _ in range(2):
        owner.train(5)
        client.ExperimentCommand(save_checkpoint_operation=pb.SaveCheckpointOperation())


@pytest.mark.usefixtures("saved")
@pytest.mark.parametrize(
    ("reference", "step", "branch"),
    [("cafe", 10, 1), ("cafe@@step=5", 5, 1), ("cafe@@weights_step=5", 5, 0), ("000001", 5, 1)],
)
def test_each_way_to_name_a_checkpoint(
    client: WireClient, owner: ToyOwner, reference: str, step: int, branch: int
) -> None:
    answer = client.RestoreCheckpoint(experiment_hash=reference)
    assert answer.success
    assert answer.message == f"back at step {step}"
    assert answer.branch == branch == owner.branch
    assert answer.journal_sequence == 3
    assert owner.state is TrainerState.PAUSED


@pytest.mark.usefixtures("saved")
@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("", grpc.StatusCode.INVALID_ARGUMENT),
        ("@@step=5", grpc.StatusCode.INVALID_ARGUMENT),
        ("../../etc/passwd", grpc.StatusCode.INVALID_ARGUMENT),
        ("beef", grpc.StatusCode.NOT_FOUND),
        ("cafe@@step=6", grpc.StatusCode.NOT_FOUND),
        ("000009", grpc.StatusCode.NOT_FOUND),
    ],
)
def test_a_checkpoint_that_is_not_there(
    client: WireClient, owner: ToyOwner, reference: str, code: grpc.StatusCode
) -> None:
    before = owner.fingerprint()
    request = pb.RestoreCheckpointRequest(experiment_hash=reference)
    assert client.status_of("RestoreCheckpoint", request)[0] is code
    assert owner.fingerprint() == before


@pytest.mark.usefixtures("saved")
def test_restoring_twice_with_one_id_makes_one_branch(client: WireClient, owner: ToyOwner) -> None:
    answers = [client.RestoreCheckpoint(experiment_hash="cafe", command_id="once") for _ in range(2)]
    assert answers[0] == answers[1]
    assert owner.branch == 1
