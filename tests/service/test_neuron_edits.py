"""Every operation on neurons over the wire: what is asked is what is done, refusals, dry runs, selections, undo."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest

from graybox import neuron_ops as ops
from graybox.commands import EditNeurons
from graybox.proto import experiment_service_pb2 as pb
from tests.service.toy_neurons import PAIRED, ToyNetwork
from tests.service.toy_owner import ToyOwner
from tests.service.wire_client import WireClient, npy

INVALID = grpc.StatusCode.INVALID_ARGUMENT
KERNELS = np.arange(18, dtype=np.float32).reshape(2, 1, 3, 3)

EDITS: list[tuple[dict[str, Any], ops.NeuronEdit]] = [
    ({"operation": pb.FREEZE, "neuron_ids": [2]}, ops.Freeze("0", (2,))),
    ({"operation": pb.FREEZE_BIAS, "neuron_ids": [1, 3]}, ops.FreezeBias("0", (1, 3))),
    ({"operation": pb.FREEZE_INCOMING, "layer_id": "fc", "neuron_ids": [5]}, ops.FreezeIncoming("fc", (5,))),
    ({"operation": pb.UNFREEZE}, ops.Unfreeze("0")),
    ({"operation": pb.CHANGE_LEARNING_RATE, "learning_rate": 0.5}, ops.SetLearningRate("0", (), 0.5)),
    ({"operation": pb.REINITIALIZE, "perturbation_ratio": 0.25}, ops.Reinitialize("0", (), 0.25)),
    ({"operation": pb.ZEROFY, "neuron_ids": [0]}, ops.Zerofy("0", (0,))),
    (
        {"operation": pb.ZEROFY, "layer_id": "1", "neuron_ids": [0], "incoming_ids": [3, 1]},
        ops.Zerofy("1", (0,), (3, 1)),
    ),
    ({"operation": pb.ZEROFY, "from_frozen": True}, ops.Zerofy("0", (), (), True)),
    ({"operation": pb.ZEROFY, "from_older": True}, ops.Zerofy("0", (), (), False, True)),
    (
        {"operation": pb.OVERRIDE_WEIGHTS, "neuron_ids": [3, 0], "values_npy": npy(KERNELS)},
        ops.OverrideWeights("0", (3, 0), KERNELS),
    ),
    (
        {"operation": pb.OVERRIDE_WEIGHTS, "neuron_ids": [1, 2], "values": range(18), "values_shape": [2, 1, 3, 3]},
        ops.OverrideWeights("0", (1, 2), KERNELS.astype(float)),
    ),
    ({"operation": pb.OVERRIDE_BIASES, "values": [1, 2, 3, 4]}, ops.OverrideBiases("0", (), np.arange(1.0, 5.0))),
    ({"operation": pb.SORT_BY_STAT}, ops.SortByStat("0")),
    ({"operation": pb.SORT_BY_STAT, "statistic": "age", "descending": False}, ops.SortByStat("0", (), "age", False)),
    ({"operation": pb.REMOVE_NEURONS, "neuron_ids": [1]}, ops.RemoveNeurons("0", (1,))),
    ({"operation": pb.REMOVE_NEURONS, "neuron_ids": [1], "allow_inexact": True}, ops.RemoveNeurons("0", (1,), True)),
    ({"operation": pb.ADD_NEURONS, "count": 3}, ops.AddNeurons("0", count=3)),
    (
        {"operation": pb.ADD_NEURONS, "count": 2, "skip_initialization": True, "allow_inexact": True},
        ops.AddNeurons("0", (), 2, True, True),
    ),
]


def state(network: ToyNetwork) -> list[np.ndarray]:
    names = ("weight", "bias", "frozen", "rate", "bias_frozen", "incoming_frozen")
    return [getattr(layer, name) for layer in network.layers for name in names]


def same(one: ToyNetwork, other: ToyNetwork) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(state(one), state(other), strict=True))


def undo(sequence: int = 0) -> pb.ExperimentCommandRequest:
    return pb.ExperimentCommandRequest(undo_operation=pb.UndoOperation(journal_sequence=sequence), get_journal=True)


def test_every_operation_is_tried() -> None:
    assert {fields["operation"] for fields, _ in EDITS} == set(pb.NeuronOperation.values()) - {0}


@pytest.mark.parametrize(("fields", "edit"), EDITS, ids=lambda value: getattr(value, "kind", None))
def test_what_is_asked_is_what_is_done_and_undone(
    client: WireClient, owner: ToyOwner, fields: dict[str, Any], edit: ops.NeuronEdit
) -> None:
    before, expected = owner.network.copy(), owner.network.copy()
    expected.apply(edit)
    request = pb.ManipulateWeightsRequest(**{"layer_id": "0", **fields})

    request.dry_run = True
    dry = client.call("ManipulateWeights", request)
    assert dry.success and dry.details.touches and not dry.journal_sequence
    assert same(owner.network, before)

    request.dry_run = False
    answer = client.call("ManipulateWeights", request)
    assert answer.success and not answer.HasField("details")
    assert [command.edit for command in owner.applied if isinstance(command, EditNeurons)] == [edit, edit]
    assert same(owner.network, expected)
    assert dry.details.parameters_after == owner.network.parameters()

    back = client.call("ExperimentCommand", undo(answer.journal_sequence))
    assert back.success, back.message
    assert same(owner.network, before)
    states = [(entry.sequence, entry.undo_state, entry.undoes) for entry in back.journal_entries]
    assert states == [(1, pb.REDO_NEXT, 0), (2, pb.UNDO_STATE_UNSPECIFIED, 1)]
    assert back.journal_sequence == 2


def test_a_dry_run_tells_the_plan_as_data(client: WireClient) -> None:
    request = pb.ManipulateWeightsRequest(
        operation=pb.REMOVE_NEURONS, layer_id="conv1", neuron_ids=[3, 0, 1], dry_run=True
    )
    plan = client.call("ManipulateWeights", request).details
    touches = [(t.tensor, t.axis, [(r.first, r.last) for r in t.indices], t.number_of_indices) for t in plan.touches]
    assert touches == [
        ("conv1.weight", 0, [(0, 1), (3, 3)], 3),
        (f"{PAIRED}.weight", 1, [(0, 1), (3, 3)], 3),
    ]
    assert [(n.layer_name, n.number_of_neurons) for n in plan.neurons] == [("conv1", 3)]
    # conv1 4x1x3x3 + 4, conv2 6x4x3x3 + 6, fc 3x6 + 3; one neuron of conv1 is left
    assert (plan.parameters_before, plan.parameters_after) == (40 + 222 + 21, 10 + 60 + 21)
    assert (plan.multiply_adds_before, plan.multiply_adds_after) == (36 + 216 + 18, 9 + 54 + 18)
    assert not plan.HasField("measured") and not plan.inexact
    request.measure = True
    measured = client.call("ManipulateWeights", request).details.measured
    assert (measured.max_abs, measured.relative_to_largest, measured.samples) == (0.25, 0.125, 8)


def test_a_plan_says_why_it_is_inexact(client: WireClient) -> None:
    answer = client.ManipulateWeights(operation=pb.SORT_BY_STAT, layer_id="0", dry_run=True)
    assert list(answer.details.inexact) == ["a normalisation mixes the channels"]


def test_a_refusal_says_what_can_go_together(client: WireClient, owner: ToyOwner) -> None:
    before = owner.fingerprint()
    answer = client.ManipulateWeights(operation=pb.REMOVE_NEURONS, layer_id="1", neuron_ids=[3, 4])
    assert (answer.success, answer.run_id) == (False, owner.run.run_id)
    assert "in pairs" in answer.message
    (layer,) = answer.together
    assert (layer.layer_name, [(r.first, r.last) for r in layer.neurons]) == (PAIRED, [(2, 5)])
    refused = client.ManipulateWeights(operation=pb.REMOVE_NEURONS, layer_id="0")
    assert not refused.success and "keep at least one" in refused.message and not refused.together
    assert owner.fingerprint() == before


def test_neurons_by_what_they_are(client: WireClient, owner: ToyOwner) -> None:
    def freeze(**fields: Any) -> list[list[int]]:
        for layer in owner.layers:
            layer.frozen[:] = False
        answer = client.ManipulateWeights(operation=pb.FREEZE, selection=pb.NeuronSelection(**fields))
        assert answer.success, answer.message
        return [np.flatnonzero(layer.frozen).tolist() for layer in owner.layers]

    # rates: 0 1/3 2/3 1, 0 1/5 2/5 3/5 4/5 1, 0 1/2 1
    assert freeze(all_layers=True) == [[0, 1, 2, 3], [0, 1, 2, 3, 4, 5], [0, 1, 2]]
    assert freeze(all_layers=True, health=pb.DEAD) == [[0], [0], [0]]
    assert freeze(layer_ids=["0", PAIRED], lowest=4) == [[0, 1], [0, 1], []]
    assert freeze(layer_ids=["fc"], lowest=1, highest=True, statistic="trigger_rate") == [[], [], [2]]
    assert freeze(layer_ids=["1"], share=0.5) == [[], [0, 1, 2], []]
    assert freeze(all_layers=True, neuron_ids=[1]) == [[1], [1], [1]]
    (entry,) = client.ExperimentCommand(get_journal=True, journal_after=5).journal_entries
    assert '"neurons": [1]' in entry.arguments_json, "the journal keeps indices"


def test_whole_layers_are_selected_for_sorting_and_growing(client: WireClient, owner: ToyOwner) -> None:
    both = pb.NeuronSelection(layer_ids=["0", "1"])
    assert client.ManipulateWeights(operation=pb.ADD_NEURONS, count=2, selection=both).success
    assert [layer.weight.shape[:2] for layer in owner.layers] == [(6, 1), (8, 6), (3, 8)]
    assert client.ManipulateWeights(operation=pb.SORT_BY_STAT, selection=both).success


def test_a_selection_that_matches_nothing_is_refused(client: WireClient, owner: ToyOwner) -> None:
    before = owner.fingerprint()
    nothing = pb.NeuronSelection(layer_ids=["fc"], neuron_ids=[2], health=pb.DEAD)
    answer = client.ManipulateWeights(operation=pb.REMOVE_NEURONS, selection=nothing)
    assert not answer.success and "no neuron" in answer.message
    assert owner.fingerprint() == before


@pytest.mark.parametrize(
    ("selection", "fields"),
    [
        ({}, {}),
        ({"layer_ids": ["0"], "all_layers": True}, {}),
        ({"layer_ids": [""]}, {}),
        ({"layer_ids": ["0"]}, {"layer_id": "0"}),
        ({"layer_ids": ["0"]}, {"neuron_ids": [0]}),
        ({"layer_ids": ["0"], "lowest": 0}, {}),
        ({"layer_ids": ["0"], "share": 0.0}, {}),
        ({"layer_ids": ["0"], "share": 1.5}, {}),
        ({"layer_ids": ["0"], "share": float("nan")}, {}),
        ({"layer_ids": ["0"], "highest": True}, {}),
        ({"layer_ids": ["0"], "statistic": "trigger_rate"}, {}),
        ({"layer_ids": ["0"], "lowest": 1, "statistic": "__class__"}, {}),
        ({"layer_ids": ["0"], "health": 99}, {}),
        ({"layer_ids": ["0"], "neuron_ids": [1, 1]}, {}),
        ({"layer_ids": ["0"], "neuron_ids": [-1]}, {}),
        ({"layer_ids": ["0"], "lowest": 1}, {"operation": pb.SORT_BY_STAT}),
        ({"layer_ids": ["0"], "neuron_ids": [1]}, {"operation": pb.ADD_NEURONS, "count": 1}),
        ({"layer_ids": ["0"]}, {"operation": pb.FREEZE_INCOMING}),
        ({"layer_ids": ["0"]}, {"operation": pb.OVERRIDE_BIASES, "values": [1]}),
    ],
)
def test_a_bad_selection_changes_nothing(
    client: WireClient, owner: ToyOwner, selection: dict[str, Any], fields: dict[str, Any]
) -> None:
    before = owner.fingerprint()
    chosen = pb.NeuronSelection(**selection)
    request = pb.ManipulateWeightsRequest(**{"operation": pb.FREEZE, "selection": chosen, **fields})
    code, details = client.status_of("ManipulateWeights", request)
    assert code is INVALID
    assert len(details) > 10
    assert owner.fingerprint() == before


# -- undo


def test_two_people_do_not_undo_twice(client: WireClient, owner: ToyOwner) -> None:
    first = client.ManipulateWeights(operation=pb.FREEZE, layer_id="0", neuron_ids=[1])
    second = client.ManipulateWeights(operation=pb.FREEZE, layer_id="0", neuron_ids=[2])
    early = client.call("ExperimentCommand", undo(first.journal_sequence))
    assert not early.success and "comes first" in early.message
    assert client.call("ExperimentCommand", undo(second.journal_sequence)).success
    again = client.call("ExperimentCommand", undo(second.journal_sequence))
    assert not again.success
    assert owner.layers[0].frozen.tolist() == [False, True, False, False]
    assert [entry.undo_state for entry in again.journal_entries][:2] == [pb.UNDO_NEXT, pb.REDO_NEXT]
    assert client.call("ExperimentCommand", undo()).success
    assert not owner.layers[0].frozen.any()
    nothing = client.call("ExperimentCommand", undo())
    assert not nothing.success and "nothing to undo" in nothing.message


def test_an_undo_sent_twice_with_one_id_is_applied_once(client: WireClient, owner: ToyOwner) -> None:
    for neuron in (1, 2):
        client.ManipulateWeights(operation=pb.FREEZE, layer_id="0", neuron_ids=[neuron])
    request = undo()
    request.command_id = "once"
    answers = [client.call("ExperimentCommand", request) for _ in range(2)]
    assert [answer.journal_sequence for answer in answers] == [3, 3]
    assert owner.layers[0].frozen.tolist() == [False, True, False, False]


def test_samples_and_hyper_parameters_are_undone_in_turn(client: WireClient, owner: ToyOwner) -> None:
    before = owner.fingerprint()
    rate = pb.HyperParameterChange(hyper_parameters=pb.HyperParameters(learning_rate=0.5))
    client.ExperimentCommand(hyper_parameter_change=rate)
    client.EditDataSample(stat_name="discarded", samples_ids=["3"], bool_value=True)
    client.ManipulateWeights(operation=pb.REMOVE_NEURONS, layer_id="0", neuron_ids=[0])
    assert [client.call("ExperimentCommand", undo(sequence)).success for sequence in (3, 2, 1)] == [True] * 3
    assert owner.hyper_parameters["learning_rate"] == 0.01
    assert not owner.samples.splits["train"].discarded.any()
    assert len(owner.layers[0].bias) == 4
    assert owner.fingerprint() != before, "the journal has grown"


def test_a_negative_sequence_is_malformed(client: WireClient) -> None:
    assert client.status_of("ExperimentCommand", undo(-1))[0] is INVALID
