"""What goes wrong becomes the status or the answer that the contract says, over the wire."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import grpc
import pytest

from graybox.commands import Command, Outcome
from graybox.errors import DeadlinePassed, GrayboxError, Invalid, NotFound, Refused, StorageError, Unsupported
from graybox.proto import experiment_service_pb2 as pb
from graybox.service.errors import MAX_DETAIL_BYTES, clean
from graybox.service.server import serve
from graybox.service.settings import Settings
from tests.service.toy_owner import ToyOwner
from tests.service.wire_client import WireClient


class Failing:
    """An owner that answers every command with one exception."""

    def __init__(self) -> None:
        self.failure: Exception = AssertionError("no failure was chosen")

    def submit(
        self, command: Command, *, command_id: str = "", actor: str = "", timeout: float | None = None
    ) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        future.set_exception(self.failure)
        return future


@pytest.fixture
def failing() -> Failing:
    return Failing()


@pytest.fixture
def client(owner: ToyOwner, failing: Failing) -> Iterator[WireClient]:
    backend = owner.backend()
    backend.commands = failing
    running = serve(backend, Settings(port=0))
    with WireClient(running.address, running.tokens.control[0]) as made:
        yield made
    running.stop(grace=0)


# Every RPC that asks the owner: (method, request, whether its answer has room for success and a message).
ASKING: list[tuple[str, Any, bool]] = [
    ("ExperimentCommand", pb.ExperimentCommandRequest(save_checkpoint_operation=pb.SaveCheckpointOperation()), True),
    ("RestoreCheckpoint", pb.RestoreCheckpointRequest(experiment_hash="cafe"), True),
    ("EditDataSample", pb.DataEditRequest(stat_name="discarded", samples_ids=["1"]), True),
    ("ManipulateWeights", pb.ManipulateWeightsRequest(operation=pb.FREEZE, layer_id="0"), True),
    ("GetWeights", pb.GetWeightsRequest(layer_id="0"), False),
    ("GetActivations", pb.GetActivationsRequest(layer_id="0", sample_id="0"), False),
]


@pytest.mark.parametrize(("method", "request_", "has_success"), ASKING)
@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (Invalid("the reason ü"), grpc.StatusCode.INVALID_ARGUMENT),
        (NotFound("the reason ü"), grpc.StatusCode.NOT_FOUND),
        (DeadlinePassed("the reason ü"), grpc.StatusCode.ABORTED),
        (Unsupported("the reason ü"), grpc.StatusCode.UNIMPLEMENTED),
        (Refused("the reason ü"), None),
        (StorageError("the reason ü"), None),
        (GrayboxError("the reason ü"), None),
    ],
)
def test_each_error_has_its_answer(
    client: WireClient,
    failing: Failing,
    method: str,
    request_: Any,
    has_success: bool,
    failure: Exception,
    status: grpc.StatusCode | None,
) -> None:
    failing.failure = failure
    if status is None and has_success:
        answer = client.call(method, request_)
        assert not answer.success
        assert answer.message == "the reason ü"
        return
    if status is None:
        storage = isinstance(failure, StorageError)
        status = grpc.StatusCode.INTERNAL if storage else grpc.StatusCode.FAILED_PRECONDITION
    assert client.status_of(method, request_) == (status, "the reason ü")


@pytest.mark.parametrize(("method", "request_", "_has_success"), ASKING)
def test_a_defect_is_logged_and_told_by_its_number_only(
    client: WireClient,
    failing: Failing,
    caplog: pytest.LogCaptureFixture,
    method: str,
    request_: Any,
    _has_success: bool,
) -> None:
    failing.failure = KeyError("inner secret")
    with caplog.at_level(logging.ERROR, logger="graybox.service"):
        code, details = client.status_of(method, request_)
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in details
    found = re.search(r"internal error ([0-9a-f]{8})", details)
    assert found
    (record,) = (r for r in caplog.records if r.name == "graybox.service")
    assert found[1] in record.getMessage()
    assert method in record.getMessage()
    assert record.exc_info
    assert "inner secret" in str(record.exc_info[1])


def test_a_long_reason_is_shortened_to_what_a_status_carries(client: WireClient, failing: Failing) -> None:
    failing.failure = NotFound("ü" * 100_000)
    code, details = client.status_of("GetWeights", pb.GetWeightsRequest(layer_id="0"))
    assert code is grpc.StatusCode.NOT_FOUND
    assert details.endswith("ü...")
    assert len(details.encode()) <= MAX_DETAIL_BYTES


def test_a_reason_that_utf8_cannot_carry_arrives_all_the_same(client: WireClient, failing: Failing) -> None:
    failing.failure = Refused("file \udcff.png\nis broken")
    answer = client.RestoreCheckpoint(experiment_hash="cafe")
    assert answer.message == "file ?.png\nis broken"
    code, details = client.status_of("GetWeights", pb.GetWeightsRequest(layer_id="0"))
    assert (code, details) == (grpc.StatusCode.FAILED_PRECONDITION, "file ?.png\nis broken")
    assert clean("fine ü") == "fine ü"
