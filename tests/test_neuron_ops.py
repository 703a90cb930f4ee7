from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graybox.errors import Invalid
from graybox.neuron_ops import (
    EDITS,
    AddNeurons,
    Freeze,
    FreezeBias,
    FreezeIncoming,
    NeuronEdit,
    OverrideBiases,
    OverrideWeights,
    Reinitialize,
    RemoveNeurons,
    Select,
    SetLearningRate,
    Several,
    SortByStat,
    Unfreeze,
    Zerofy,
    edit_from_json,
    select_from_json,
)

names = st.text(max_size=8)
neurons = st.lists(st.integers(0, 500), unique=True, max_size=6).map(tuple)
values = st.lists(st.lists(st.floats(-1e30, 1e30), min_size=2, max_size=2), min_size=1, max_size=4)
single_edits: st.SearchStrategy[NeuronEdit] = st.one_of(
    st.builds(Freeze, names, neurons),
    st.builds(Unfreeze, names, neurons),
    st.builds(FreezeBias, names, neurons),
    st.builds(FreezeIncoming, names, neurons),
    st.builds(SetLearningRate, names, neurons, rate=st.floats(0, 1e300)),
    st.builds(
        Reinitialize,
        names,
        neurons,
        perturbation_ratio=st.none() | st.floats(0, 1, exclude_min=True, exclude_max=True),
        zero_outgoing=st.booleans(),
    ),
    st.builds(Zerofy, names, neurons, neurons, st.booleans(), st.booleans()),
    st.builds(OverrideWeights, names, neurons, values=values),
    st.builds(OverrideBiases, names, neurons, values=st.lists(st.integers(-9, 9), min_size=1, max_size=4)),
    st.builds(SortByStat, names, neurons, names, st.booleans()),
    st.builds(RemoveNeurons, names, neurons, st.booleans()),
    st.builds(AddNeurons, names, st.just(()), st.integers(1, 99), st.booleans(), st.booleans()),
)
edits = single_edits | single_edits.map(lambda edit: Several(edits=(edit, edit)))


@given(edit=edits)
def test_an_edit_round_trips_through_json(edit: NeuronEdit) -> None:
    again = edit_from_json(json.loads(json.dumps(edit.to_json())), edit.arrays())
    assert again == edit and type(again) is type(edit) and hash(again) == hash(edit)


def test_every_kind_is_known_by_its_own_name() -> None:
    assert {kind: edit.kind for kind, edit in EDITS.items()} == {kind: kind for kind in EDITS}
    assert sorted(EDITS) == [
        "add_neurons", "change_learning_rate", "freeze", "freeze_bias", "freeze_incoming", "override_biases",
        "override_weights", "reinitialize", "remove_neurons", "several", "sort_by_stat", "unfreeze", "zerofy",
    ]  # fmt: skip


def test_large_values_lie_beside_the_json() -> None:
    large = np.linspace(0, 1, 2_000).reshape(2, 1_000)
    edit = Several(edits=(OverrideWeights("a", (0, 1), large), OverrideWeights("b", (2,), [[1.0]])))
    written = json.dumps(edit.to_json())
    assert len(written) < 500 and set(edit.arrays()) == {"0/values"}
    assert edit_from_json(json.loads(written), edit.arrays()) == edit
    with pytest.raises(Invalid, match="malformed neuron edit 'override_weights'"):
        edit_from_json(json.loads(written))


def test_overrides_are_compared_by_value_and_cannot_be_changed() -> None:
    given = np.array([[1.0, 2.0]])
    edit = OverrideWeights("a", (0,), given)
    given[0, 0] = 9.0
    assert edit == OverrideWeights("a", (0,), [[1, 2]]) != OverrideWeights("a", (0,), [[1, 3]])
    assert edit != OverrideBiases("a", (0,), [[1, 2]])
    with pytest.raises(ValueError, match="read-only"):
        edit.values[0, 0] = 3.0


@pytest.mark.parametrize("kind", [OverrideWeights, OverrideBiases])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "needs a box of numbers"),
        ([], "needs a box of numbers"),
        ([[1.0], [2.0, 3.0]], "needs a box of numbers"),
        (["a"], "needs a box of numbers"),
        ([True], "needs a box of numbers"),
        ([1 + 2j], "needs a box of numbers"),
        ([[1.0, float("nan")]], "finite numbers only"),
        ([float("-inf")], "finite numbers only"),
    ],
)
def test_an_override_takes_finite_numbers(kind: type[Any], given: Any, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        kind("conv", (1,), given)


@pytest.mark.parametrize("rate", [-0.1, float("nan"), float("inf"), -float("inf")])
def test_a_learning_rate_out_of_range_is_invalid(rate: float) -> None:
    with pytest.raises(Invalid, match="0 or more"):
        SetLearningRate("conv", (1,), rate=rate)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, 1.5, float("nan"), float("inf")])
def test_a_perturbation_out_of_range_is_invalid(ratio: float) -> None:
    with pytest.raises(Invalid, match="between 0 and 1"):
        Reinitialize("conv", (1,), perturbation_ratio=ratio)


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "2", float("nan")])
def test_a_number_of_neurons_to_add_is_a_positive_whole_number(count: Any) -> None:
    with pytest.raises(Invalid, match="whole number of 1 or more"):
        AddNeurons("conv", count=count)


@pytest.mark.parametrize("kind", [Freeze, Unfreeze, SetLearningRate, Reinitialize, RemoveNeurons, FreezeIncoming])
def test_a_neuron_named_twice_is_invalid(kind: type[NeuronEdit]) -> None:
    with pytest.raises(Invalid, match="name a neuron twice"):
        kind("conv", (1, 2, 1))


def test_an_incoming_neuron_named_twice_is_invalid() -> None:
    with pytest.raises(Invalid, match=r"incoming neurons .* name a neuron twice"):
        Zerofy("conv", (1,), (2, 2))


def test_neurons_to_add_have_no_numbers() -> None:
    with pytest.raises(Invalid, match="no numbers yet"):
        AddNeurons("conv", (1,))


@pytest.mark.parametrize("parts", [(), (Freeze("a"), Unfreeze("a")), (Several(edits=(Freeze("a"),)),)])
def test_several_edits_are_of_one_kind(parts: tuple[NeuronEdit, ...]) -> None:
    with pytest.raises(Invalid, match="of one kind"):
        Several(edits=parts)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "unknown neuron edit None; known are add_neurons, change_learning_rate, freeze"),
        ({"kind": "melt", "layer": "conv"}, "unknown neuron edit 'melt'"),
        ({"kind": "freeze"}, "malformed neuron edit 'freeze'"),
        ({"kind": "freeze", "layer": "conv", "rate": 2.0}, "malformed neuron edit 'freeze'"),
        ({"kind": "change_learning_rate", "layer": "conv", "rate": -1.0}, "0 or more"),
        ({"kind": "change_learning_rate", "layer": "conv", "rate": "fast"}, "malformed neuron edit"),
        ({"kind": "freeze", "layer": "conv", "neurons": ["x"]}, "malformed neuron edit"),
        ({"kind": "freeze", "layer": "conv", "neurons": None}, "malformed neuron edit"),
        ({"kind": "several"}, "malformed neuron edit 'several'"),
        ({"kind": "several", "edits": [{"kind": "thaw"}]}, "unknown neuron edit 'thaw'"),
        ({"kind": "override_biases", "layer": "conv"}, "malformed neuron edit 'override_biases'"),
        ({"kind": "zerofy", "layer": "conv", "incoming": 3}, "malformed neuron edit 'zerofy'"),
    ],
)
def test_malformed_json_is_invalid(value: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        edit_from_json(value)


def test_the_same_edit_elsewhere() -> None:
    edit = Reinitialize("a", (1,), 0.5, True)
    assert edit.at("b", (2, 3)) == Reinitialize("b", (2, 3), 0.5, True)


@given(
    select=st.builds(
        Select,
        layers=st.lists(names, max_size=3).map(tuple),
        neurons=neurons,
        lowest=st.none() | st.integers(1, 9),
        statistic=names,
        highest=st.booleans(),
        health=names,
    )
)
def test_a_selection_round_trips_through_json(select: Select) -> None:
    assert select_from_json(json.loads(json.dumps(select.to_json()))) == select


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lowest": 0}, "1 or more"),
        ({"lowest": 1.5}, "1 or more"),
        ({"share": 0.0}, "above 0 and is at most 1"),
        ({"share": 1.1}, "above 0 and is at most 1"),
        ({"share": float("nan")}, "above 0 and is at most 1"),
        ({"lowest": 2, "share": 0.5}, "not both"),
        ({"neurons": (1, 1)}, "name a neuron twice"),
    ],
)
def test_a_selection_that_makes_no_sense_is_invalid(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        Select(**options)
    with pytest.raises(Invalid):
        select_from_json(options)


def test_a_selection_by_a_function_has_no_json() -> None:
    with pytest.raises(Invalid, match="resolve it"):
        Select(predicate=lambda neuron: neuron.age > 3).to_json()


def test_an_edit_is_immutable() -> None:
    with pytest.raises(AttributeError):
        Freeze("conv", (1,)).layer = "other"  # type: ignore[misc]


def test_the_vocabulary_is_free_of_torch() -> None:
    code = "import sys, graybox.neuron_ops; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
