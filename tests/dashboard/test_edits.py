"""What the buttons of the model page ask of the wire."""

from __future__ import annotations

from typing import Any

import pytest

from graybox.dashboard.pages.model.edits import FREE, OPERATIONS, OPTIONS, STATISTICS, STRUCTURAL, edit_request, indices
from graybox.proto import experiment_service_pb2 as pb

CHOSEN = {"run": "r", "layer": "1", "neurons": [2, 5], "query": None}
NOTHING = {"run": "r", "layer": "1", "neurons": [], "query": None}


@pytest.mark.parametrize("button", sorted({*OPERATIONS, *STRUCTURAL} - FREE))
def test_an_edit_needs_a_selection_because_none_means_all_on_the_wire(button: str) -> None:
    with pytest.raises(ValueError, match="at least one neuron"):
        edit_request(button, NOTHING, {"neuron-learning-rate": "1"})


def test_every_operation_that_needs_no_array_has_a_button() -> None:
    asked = {*OPERATIONS.values(), *STRUCTURAL.values()}
    assert set(pb.NeuronOperation.values()) - asked == {0, pb.OVERRIDE_WEIGHTS, pb.OVERRIDE_BIASES}


@pytest.mark.parametrize(
    ("button", "options", "fields"),
    [
        ("freeze", {}, {"neuron_ids": [2, 5]}),
        ("freeze-bias", {}, {"neuron_ids": [2, 5]}),
        ("freeze-incoming", {"incoming-neurons": "0, 4-6"}, {"neuron_ids": [0, 4, 5, 6]}),
        ("unfreeze", {"perturbation-ratio": "0.5"}, {"neuron_ids": [2, 5]}),
        ("reinitialise", {}, {"neuron_ids": [2, 5]}),
        (
            "reinitialise",
            {"perturbation-ratio": " 0.25 ", "zero-outgoing": True},
            {"neuron_ids": [2, 5], "perturbation_ratio": 0.25, "zero_outgoing": True},
        ),
        ("zerofy", {}, {"neuron_ids": [2, 5]}),
        (
            "zerofy",
            {"zerofy-incoming": "3", "zerofy-from-frozen": True, "zerofy-from-older": True},
            {"neuron_ids": [2, 5], "incoming_ids": [3], "from_frozen": True, "from_older": True},
        ),
        ("set-learning-rate", {"neuron-learning-rate": "0"}, {"neuron_ids": [2, 5], "learning_rate": 0.0}),
        ("remove-neurons", {}, {"neuron_ids": [2, 5]}),
        ("add-neurons", {"add-count": "3"}, {"count": 3}),
        ("sort-neurons", {"sort-statistic": "mean"}, {"statistic": "mean", "descending": True}),
        ("sort-neurons", {"sort-ascending": True}, {"statistic": "trigger_rate", "descending": False}),
    ],
)
def test_what_a_button_asks(button: str, options: dict[str, Any], fields: dict[str, Any]) -> None:
    operation = {**OPERATIONS, **STRUCTURAL}[button]
    expected = pb.ManipulateWeightsRequest(operation=operation, layer_id="1", **fields)
    assert edit_request(button, CHOSEN, {name: options.get(name) for name in OPTIONS}) == expected


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ({}, {}),
        ({"health": "dead"}, {"health": pb.DEAD}),
        (
            {"amount": 12.5, "unit": "percent", "statistic": "weight_norm", "highest": False, "health": ""},
            {"share": 0.125, "statistic": "weight_norm"},
        ),
        (
            {"amount": 4, "unit": "neurons", "statistic": "trigger_rate", "highest": True, "health": "redundant"},
            {"lowest": 4, "statistic": "trigger_rate", "highest": True, "health": pb.REDUNDANT},
        ),
    ],
)
def test_a_selection_over_all_layers(query: dict[str, Any], fields: dict[str, Any]) -> None:
    asked = edit_request("remove-neurons", {**NOTHING, "query": {"health": "", **query}}, {})
    assert asked.selection == pb.NeuronSelection(all_layers=True, **fields)
    assert not asked.layer_id and not asked.neuron_ids
    grown = edit_request("add-neurons", {**NOTHING, "query": {"health": "dead"}}, {"add-count": "2"})
    assert grown.selection == pb.NeuronSelection(all_layers=True), "whole layers grow, whatever their neurons are"


@pytest.mark.parametrize(
    ("button", "options", "says"),
    [
        ("reinitialise", {"perturbation-ratio": "much"}, "between 0 and 1, not 'much'"),
        ("set-learning-rate", {"neuron-learning-rate": "slow"}, "number of 0 or more.* not 'slow'"),
        ("set-learning-rate", {"neuron-learning-rate": None}, "number of 0 or more"),
        ("add-neurons", {"add-count": "0"}, "1 or more, not '0'"),
        ("add-neurons", {"add-count": "2.5"}, "1 or more"),
        ("freeze-incoming", {"incoming-neurons": ""}, "none was written"),
        ("freeze-incoming", {"incoming-neurons": "7-3"}, "written as 3, 5-9"),
        ("zerofy", {"zerofy-incoming": "x"}, "written as 3, 5-9"),
        ("freeze-incoming", {"incoming-neurons": "0-2000000000"}, "At most"),
    ],
)
def test_what_cannot_be_meant_says_why(button: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        edit_request(button, CHOSEN, options)


def test_incoming_connections_are_those_of_one_layer() -> None:
    with pytest.raises(ValueError, match="one layer"):
        edit_request("freeze-incoming", {**NOTHING, "query": {"health": "dead"}}, {"incoming-neurons": "1"})
    with pytest.raises(ValueError, match="layer first"):
        edit_request("freeze", None, {})


def test_numbers_as_people_write_them() -> None:
    assert indices("3, 5-9") == [3, 5, 6, 7, 8, 9]
    assert indices(" 4 4,2-3 ") == [2, 3, 4]
    assert STATISTICS["trigger_rate"]
