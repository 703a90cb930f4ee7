"""A request names its run: nothing that is meant for another run is done to the live one, and every answer says its
run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from graybox.proto import experiment_service_pb2 as pb
from graybox.store.root import Root
from tests.service.toy_owner import ToyOwner, make_record
from tests.service.wire_client import REQUESTS, WireClient

PAUSE = pb.HyperParameterChange(hyper_parameters=pb.HyperParameters(is_training=False))

# What only a live run can do: (method, fields), with an answer that has success and a message.
ACTING: list[tuple[str, dict[str, Any]]] = [
    ("ExperimentCommand", {"hyper_parameter_change": PAUSE}),
    ("ExperimentCommand", {"save_checkpoint_operation": pb.SaveCheckpointOperation()}),
    ("RestoreCheckpoint", {"experiment_hash": "000001"}),
    ("EditDataSample", {"stat_name": "discarded", "samples_ids": ["1"], "bool_value": True}),
    ("ManipulateWeights", {"operation": pb.FREEZE, "layer_id": "0"}),
    ("TriggerEvaluation", {"split_name": "val"}),
]
# The same, where an answer has no room for a refusal.
READING: list[tuple[str, dict[str, Any]]] = [
    ("GetWeights", {"layer_id": "0"}),
    ("GetActivations", {"layer_id": "0", "sample_id": "0"}),
    ("GetSamples", {"sample_ids": ["0"]}),
]
# Answered for a live run and for one that has ended.
TELLING: list[tuple[str, dict[str, Any]]] = [("GetEvaluationStatus", {}), ("GetDataSplits", {})]


@pytest.fixture
def other(tmp_path: Path) -> str:
    """The id of an ended run of the same root, whose checkpoint has the same id as one of the live run."""
    ended = ToyOwner(Root(tmp_path / "root"), "other")
    ended.checkpoints.add(make_record(ended, "", 0))
    ended.close()
    return ended.run.run_id


@pytest.fixture(autouse=True)
def checkpoint(owner: ToyOwner) -> None:
    owner.checkpoints.add(make_record(owner, "", 0))


@pytest.mark.parametrize(("method", "fields"), ACTING)
def test_nothing_meant_for_another_run_is_done(
    client: WireClient, owner: ToyOwner, other: str, method: str, fields: dict[str, Any]
) -> None:
    before = owner.fingerprint()
    answer = client.call(method, REQUESTS[method](run_id=other, **fields))
    assert not answer.success
    assert answer.message.startswith(f"run {other} has ended; start a backend on it to ")
    assert answer.run_id == other
    assert (owner.fingerprint(), owner.applied) == (before, [])


@pytest.mark.parametrize(("method", "fields"), READING)
def test_nothing_is_read_of_another_runs_model_or_data_set(
    client: WireClient, owner: ToyOwner, other: str, method: str, fields: dict[str, Any]
) -> None:
    code, details = client.status_of(method, REQUESTS[method](run_id=other, **fields))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert details.startswith(f"run {other} has ended; start a backend on it to ")
    assert owner.applied == []


@pytest.mark.parametrize(("method", "fields"), [*ACTING, *READING])
@pytest.mark.parametrize("named", [False, True])
def test_without_a_run_id_or_with_its_own_the_live_run_is_meant(
    client: WireClient, owner: ToyOwner, method: str, fields: dict[str, Any], named: bool
) -> None:
    live = owner.run.run_id
    answer = client.call(method, REQUESTS[method](run_id=live if named else "", **fields))
    assert getattr(answer, "success", True)
    assert answer.run_id == live


@pytest.mark.parametrize(("method", "fields"), [*ACTING, *READING, *TELLING, ("CancelEvaluation", {})])
@pytest.mark.parametrize("run_id", ["20200101-000000-nope-0000", "../root", "\u0000"])
def test_an_unknown_run_is_not_found(
    client: WireClient, owner: ToyOwner, method: str, fields: dict[str, Any], run_id: str
) -> None:
    before = owner.fingerprint()
    assert client.status_of(method, REQUESTS[method](run_id=run_id, **fields))[0] is grpc.StatusCode.NOT_FOUND
    assert owner.fingerprint() == before


@pytest.mark.parametrize(("method", "fields"), TELLING)
def test_what_is_told_is_of_the_run_that_is_named(
    client: WireClient, owner: ToyOwner, other: str, method: str, fields: dict[str, Any]
) -> None:
    for asked, run_id in (("", owner.run.run_id), (owner.run.run_id, owner.run.run_id), (other, other)):
        assert client.call(method, REQUESTS[method](run_id=asked, **fields)).run_id == run_id


def test_an_evaluation_of_another_run_is_not_cancelled(client: WireClient, owner: ToyOwner, other: str) -> None:
    assert client.TriggerEvaluation(split_name="val").success
    refused = client.CancelEvaluation(run_id=other)
    assert not refused.success and refused.message.startswith(f"run {other} has ended; start a backend on it to ")
    assert (client.GetEvaluationStatus().status, client.GetEvaluationStatus(run_id=other).status) == ("running", "idle")
    assert client.CancelEvaluation(reason="x").success and client.GetEvaluationStatus().cancelled


def test_reads_and_refusals_say_their_run(client: WireClient, owner: ToyOwner, other: str) -> None:
    live = owner.run.run_id
    assert (client.GetDataSplits().run_id, client.GetDataSplits(run_id=other).run_id) == (live, other)
    owner.hyper_parameters["training_steps_to_do"] = 0
    resume = pb.HyperParameterChange(hyper_parameters=pb.HyperParameters(is_training=True))
    refused = client.ExperimentCommand(hyper_parameter_change=resume)
    assert (refused.success, refused.run_id) == (False, live)
