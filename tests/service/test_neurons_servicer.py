"""ManipulateWeights, GetWeights and GetActivations over the wire."""

from __future__ import annotations

import io
import math
from typing import Any

import grpc
import numpy as np
import pytest

from graybox.commands import EditNeurons
from graybox.neuron_ops import Reinitialize
from graybox.proto import experiment_service_pb2 as pb
from tests.service.toy_owner import ToyOwner, activations
from tests.service.wire_client import WireClient, npy

INVALID = grpc.StatusCode.INVALID_ARGUMENT
MISSING = grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("layer", ["1", "features.conv2"])
def test_freeze_and_unfreeze_by_id_or_name(client: WireClient, owner: ToyOwner, layer: str) -> None:
    answer = client.ManipulateWeights(operation=pb.FREEZE, layer_id=layer, neuron_ids=[1, 4])
    assert answer.success
    assert "freeze" in answer.message
    assert "neurons [1, 4]" in answer.plan
    assert answer.journal_sequence == 1
    assert owner.layers[1].frozen.tolist() == [False, True, False, False, True, False]
    assert client.ManipulateWeights(operation=pb.UNFREEZE, layer_id=layer, neuron_ids=[1]).success
    assert owner.layers[1].frozen.tolist() == [False, False, False, False, True, False]


def test_no_neurons_means_all(client: WireClient, owner: ToyOwner) -> None:
    assert client.ManipulateWeights(operation=pb.FREEZE, layer_id="1").success
    assert owner.layers[1].frozen.all()


def test_learning_rate(client: WireClient, owner: ToyOwner) -> None:
    request = pb.ManipulateWeightsRequest(
        operation=pb.CHANGE_LEARNING_RATE, layer_id="0", neuron_ids=[2], learning_rate=0.0
    )
    assert client.call("ManipulateWeights", request).success
    assert owner.layers[0].rate.tolist() == [1, 1, 0, 1]


def test_reinitialize_hands_on_every_field(client: WireClient, owner: ToyOwner) -> None:
    client.ManipulateWeights(operation=pb.REINITIALIZE, layer_id="0", neuron_ids=[0])
    client.ManipulateWeights(
        operation=pb.REINITIALIZE, layer_id="fc", neuron_ids=[2], perturbation_ratio=0.1, zero_outgoing=True
    )
    edits = [command.edit for command in owner.applied if isinstance(command, EditNeurons)]
    assert edits == [Reinitialize("0", (0,)), Reinitialize("fc", (2,), perturbation_ratio=0.1, zero_outgoing=True)]


def test_a_dry_run_tells_the_plan_and_changes_nothing(client: WireClient, owner: ToyOwner) -> None:
    before = owner.fingerprint()
    answer = client.ManipulateWeights(operation=pb.FREEZE, layer_id="0", neuron_ids=[3], dry_run=True)
    assert answer.success
    assert answer.plan == "freeze of conv1: neurons [3]"
    assert answer.journal_sequence == 0
    assert owner.fingerprint() == before


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"operation": 0}, INVALID),
        ({"operation": 99}, INVALID),
        ({"operation": -1}, INVALID),
        ({"operation": pb.FREEZE, "layer_id": ""}, INVALID),
        ({"operation": pb.FREEZE, "layer_id": "nope"}, MISSING),
        ({"operation": pb.FREEZE, "neuron_ids": [4]}, MISSING),
        ({"operation": pb.FREEZE, "neuron_ids": [-1]}, INVALID),
        ({"operation": pb.FREEZE, "neuron_ids": [1, 1]}, INVALID),
        ({"operation": pb.FREEZE, "learning_rate": 0.5}, INVALID),
        ({"operation": pb.UNFREEZE, "zero_outgoing": True}, INVALID),
        ({"operation": pb.CHANGE_LEARNING_RATE}, INVALID),
        ({"operation": pb.CHANGE_LEARNING_RATE, "learning_rate": -0.1}, INVALID),
        ({"operation": pb.CHANGE_LEARNING_RATE, "learning_rate": math.nan}, INVALID),
        ({"operation": pb.CHANGE_LEARNING_RATE, "learning_rate": math.inf}, INVALID),
        ({"operation": pb.CHANGE_LEARNING_RATE, "learning_rate": 1.0, "perturbation_ratio": 0.5}, INVALID),
        ({"operation": pb.REINITIALIZE, "perturbation_ratio": 0.0}, INVALID),
        ({"operation": pb.REINITIALIZE, "perturbation_ratio": 1.0}, INVALID),
        ({"operation": pb.REINITIALIZE, "perturbation_ratio": math.nan}, INVALID),
        ({"operation": pb.FREEZE, "measure": True}, INVALID),
        ({"operation": pb.FREEZE, "incoming_ids": [1]}, INVALID),
        ({"operation": pb.FREEZE_INCOMING, "neuron_ids": [1]}, MISSING),
        ({"operation": pb.ZEROFY, "incoming_ids": [0, 0]}, INVALID),
        ({"operation": pb.ZEROFY, "incoming_ids": [-2]}, INVALID),
        ({"operation": pb.ZEROFY, "incoming_ids": [1]}, MISSING),
        ({"operation": pb.SORT_BY_STAT, "neuron_ids": [1]}, INVALID),
        ({"operation": pb.SORT_BY_STAT, "statistic": "x" * 201}, INVALID),
        ({"operation": pb.REMOVE_NEURONS, "neuron_ids": [0], "count": 1}, INVALID),
        ({"operation": pb.ADD_NEURONS}, INVALID),
        ({"operation": pb.ADD_NEURONS, "count": -1}, INVALID),
        ({"operation": pb.ADD_NEURONS, "count": 65_537}, INVALID),
        ({"operation": pb.ADD_NEURONS, "count": 1, "neuron_ids": [0]}, INVALID),
        ({"operation": pb.ADD_NEURONS, "count": 1, "descending": False}, INVALID),
        ({"operation": pb.OVERRIDE_BIASES}, INVALID),
        ({"operation": pb.OVERRIDE_BIASES, "values": [1.0]}, INVALID),
        ({"operation": pb.OVERRIDE_BIASES, "values": [1.0, 2.0, 3.0, math.nan]}, INVALID),
        ({"operation": pb.OVERRIDE_BIASES, "values": [1.0] * 4, "values_shape": [3]}, INVALID),
        ({"operation": pb.OVERRIDE_BIASES, "values": [1.0] * 4, "values_shape": [-2, -2]}, INVALID),
        ({"operation": pb.OVERRIDE_BIASES, "values": [1.0] * 4, "values_npy": npy(np.zeros(4))}, INVALID),
        ({"operation": pb.OVERRIDE_BIASES, "values_npy": b"not an array"}, INVALID),
        ({"operation": pb.OVERRIDE_BIASES, "values_npy": npy(np.zeros(4, complex))}, INVALID),
        ({"operation": pb.OVERRIDE_BIASES, "values_npy": npy(np.full(4, np.inf))}, INVALID),
        ({"operation": pb.OVERRIDE_WEIGHTS, "values_npy": npy(np.zeros((3, 1, 3, 3)))}, INVALID),
        ({"operation": pb.FREEZE, "selection": pb.NeuronSelection(all_layers=True)}, INVALID),
    ],
)
def test_a_bad_edit_changes_nothing(
    client: WireClient, owner: ToyOwner, fields: dict[str, Any], code: grpc.StatusCode
) -> None:
    before = owner.fingerprint()
    request = pb.ManipulateWeightsRequest(**{"layer_id": "0", **fields})
    found, details = client.status_of("ManipulateWeights", request)
    assert found is code
    assert len(details) > 10
    assert owner.fingerprint() == before


@pytest.mark.parametrize(("tensor", "attribute"), [("", "weight"), ("weight", "weight"), ("bias", "bias")])
@pytest.mark.parametrize("layer", ["1", "features.conv2"])
def test_weights_as_numpy_writes_them(
    client: WireClient, owner: ToyOwner, layer: str, tensor: str, attribute: str
) -> None:
    answer = client.GetWeights(layer_id=layer, tensor=tensor)
    assert answer.format == "npy"
    values = np.load(io.BytesIO(answer.weights_data), allow_pickle=False)
    assert values.dtype == np.float32
    assert np.array_equal(values, getattr(owner.layers[1], attribute))


def test_activations_as_little_endian_floats(client: WireClient, owner: ToyOwner) -> None:
    answer = client.GetActivations(layer_id="features.conv2", sample_id="3", origin="val")
    assert (answer.shape, answer.format) == ("6,2,2", "float32")
    values = np.frombuffer(answer.activation_data, "<f4").reshape([int(n) for n in answer.shape.split(",")])
    assert np.array_equal(values, activations(owner.layers[1], 3))


@pytest.mark.parametrize(
    ("method", "request_", "code"),
    [
        ("GetWeights", pb.GetWeightsRequest(), INVALID),
        ("GetWeights", pb.GetWeightsRequest(layer_id="nope"), MISSING),
        ("GetWeights", pb.GetWeightsRequest(layer_id="0", tensor="__class__"), INVALID),
        ("GetActivations", pb.GetActivationsRequest(sample_id="0"), INVALID),
        ("GetActivations", pb.GetActivationsRequest(layer_id="nope", sample_id="0"), MISSING),
        ("GetActivations", pb.GetActivationsRequest(layer_id="0", sample_id="40"), MISSING),
        ("GetActivations", pb.GetActivationsRequest(layer_id="0", sample_id="12", origin="val"), MISSING),
        ("GetActivations", pb.GetActivationsRequest(layer_id="0", sample_id=""), MISSING),
        ("GetActivations", pb.GetActivationsRequest(layer_id="0", sample_id="0", origin="nope"), MISSING),
    ],
)
def test_reading_what_is_not_there(client: WireClient, method: str, request_: Any, code: grpc.StatusCode) -> None:
    assert client.status_of(method, request_)[0] is code
