"""Waiting for the trainer: deadlines, commands sent twice, clients that hang up."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import cast

import grpc
import pytest

from graybox.proto import experiment_service_pb2 as pb
from graybox.service import limits
from graybox.service.owner import seconds_left
from graybox.service.server import RunningServer
from tests.patience import PATIENCE, wait_until
from tests.service.toy_owner import ToyOwner
from tests.service.wire_client import WireClient


def save(name: str = "", command_id: str = "", actor: str = "") -> pb.ExperimentCommandRequest:
    return pb.ExperimentCommandRequest(
        save_checkpoint_operation=pb.SaveCheckpointOperation(name=name), command_id=command_id, actor=actor
    )


@pytest.mark.parametrize(("timeout", "low", "high"), [(None, 180, 180), (1000, 180, 180), (170, 50, 170)])
def test_the_smaller_of_the_calls_deadline_and_three_minutes(
    client: WireClient, owner: ToyOwner, timeout: float | None, low: float, high: float
) -> None:
    assert client.call("ExperimentCommand", save(), timeout).success
    (given,) = owner.timeouts
    assert given is not None
    assert low <= given <= high


def test_a_command_whose_time_is_over_is_aborted_and_not_applied_later(client: WireClient, owner: ToyOwner) -> None:
    before = owner.fingerprint()
    with owner.busy():
        for _ in range(100):  # on a busy machine a call may end before it has reached the trainer
            assert client.status_of("ExperimentCommand", save(command_id="late"), timeout=0.3)[0] in (
                grpc.StatusCode.DEADLINE_EXCEEDED,
                grpc.StatusCode.ABORTED,
            )
            if owner.timeouts:
                break
        time.sleep(0.4)
        again = client.send("ExperimentCommand", save(command_id="late"))
    assert again.exception(PATIENCE).code() is grpc.StatusCode.ABORTED
    assert "nothing was changed" in again.exception().details()
    assert owner.fingerprint() == before
    assert owner.applied == []


@pytest.mark.parametrize(("timeout", "margin"), [(5.0, 0.25), (20.0, 0.25), (150.0, 0.25)])
def test_the_answer_to_a_late_command_arrives_before_the_client_gives_up(
    client: WireClient, owner: ToyOwner, timeout: float, margin: float
) -> None:
    """The trainer is told a deadline that lies before the client's own, which the wire may round up."""
    assert client.call("ExperimentCommand", save(), timeout).success
    (given,) = owner.timeouts
    assert given is not None
    assert given <= timeout - margin


@pytest.mark.parametrize(("asked", "arrives"), [(0.01, 0.01), (1.0, 1.01), (2.0, 2.01), (99.0, 99.1), (150.0, 151.0)])
def test_the_margin_is_left_however_short_the_time(asked: float, arrives: float) -> None:
    """arrives: what the wire makes of it at worst."""
    context = SimpleNamespace(time_remaining=lambda: arrives)
    given = seconds_left(cast("grpc.ServicerContext", context))
    assert 0.8 * asked <= given <= asked - min(0.2, 0.1 * asked)


def test_a_command_sent_twice_is_applied_once_and_answered_twice(client: WireClient, owner: ToyOwner) -> None:
    first = client.call("ExperimentCommand", save("a", "same"))
    second = client.call("ExperimentCommand", save("a", "same"))
    assert first.success
    assert (first.message, first.journal_sequence) == (second.message, second.journal_sequence)
    assert len(owner.applied) == 1
    third = client.call("ExperimentCommand", save("a", "other"))
    assert third.journal_sequence == first.journal_sequence + 1


def test_both_commands_of_one_request_are_applied_once(client: WireClient, owner: ToyOwner) -> None:
    change = pb.HyperParameterChange(hyper_parameters=pb.HyperParameters(batch_size=4, is_training=False))
    for _ in range(2):
        assert client.ExperimentCommand(hyper_parameter_change=change, command_id="once").success
    assert [type(command).__name__ for command in owner.applied] == ["SetHyperParameters", "Pause"]


def test_who_asks_is_handed_on(client: WireClient, owner: ToyOwner) -> None:
    client.call("ExperimentCommand", save(actor="ada"))
    client.call("ExperimentCommand", save())
    client.RestoreCheckpoint(experiment_hash="cafe", actor="bob")
    client.EditDataSample(stat_name="discarded", samples_ids=["1"], bool_value=True, actor="eve")
    client.ManipulateWeights(operation=pb.FREEZE, layer_id="0", actor="joe")
    assert owner.actors == ["ada", "grpc", "bob", "eve", "joe"]


def rpc_threads() -> int:
    return sum(thread.name.startswith("graybox-rpc") for thread in threading.enumerate())


def test_clients_that_hang_up_give_their_places_back(
    owner: ToyOwner, server: RunningServer, client: WireClient
) -> None:
    gate = server.desk.owner_gate
    with owner.busy():
        for _ in range(3):
            calls = [client.send("ExperimentCommand", save(), timeout=None) for _ in range(limits.WAITING_AT_OWNER)]
            wait_until(lambda: gate.taken == limits.WAITING_AT_OWNER, "all to wait")
            for call in calls:
                call.cancel()
            wait_until(lambda: gate.taken == 0, "their places to be free")
        assert rpc_threads() <= limits.WORKERS
        assert client.GetDataSplits().success


def test_stopping_ends_calls_that_wait(owner: ToyOwner, server: RunningServer, client: WireClient) -> None:
    with owner.busy():
        call = client.send("ExperimentCommand", save(), timeout=None)
        wait_until(lambda: len(owner.timeouts) == 1, "the command to arrive")
        began = time.monotonic()
        server.stop(grace=0.1)
        assert time.monotonic() - began < 60, "it waited for the trainer, which takes minutes"
        assert call.exception(PATIENCE).code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    assert rpc_threads() == 0
