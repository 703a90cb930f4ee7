from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graybox.errors import Invalid
from graybox.neuron_ops import EDITS, Freeze, NeuronEdit, Reinitialize, SetLearningRate, Unfreeze, edit_from_json

names = st.text(max_size=8)
neurons = st.lists(st.integers(0, 500), unique=True, max_size=6).map(tuple)
edits = st.one_of(
    st.builds(Freeze, names, neurons),
    st.builds(Unfreeze, names, neurons),
    st.builds(SetLearningRate, names, neurons, rate=st.floats(0, 1e300)),
    st.builds(
        Reinitialize,
        names,
        neurons,
        perturbation_ratio=st.none() | st.floats(0, 1, exclude_min=True, exclude_max=True),
        zero_outgoing=st.booleans(),
    ),
)


@given(edit=edits)
def test_an_edit_round_trips_through_json(edit: NeuronEdit) -> None:
    again = edit_from_json(json.loads(json.dumps(edit.to_json())))
    assert again == edit and type(again) is type(edit) and hash(again) == hash(edit)


def test_every_kind_is_known_by_its_own_name() -> None:
    assert {kind: edit.kind for kind, edit in EDITS.items()} == {kind: kind for kind in EDITS}
    assert set(EDITS.values()) == set(NeuronEdit.__subclasses__())


@pytest.mark.parametrize("rate", [-0.1, float("nan"), float("inf"), -float("inf")])
def test_a_learning_rate_out_of_range_is_invalid(rate: float) -> None:
    with pytest.raises(Invalid, match="0 or more"):
        SetLearningRate("conv", (1,), rate=rate)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, 1.5, float("nan"), float("inf")])
def test_a_perturbation_out_of_range_is_invalid(ratio: float) -> None:
    with pytest.raises(Invalid, match="between 0 and 1"):
        Reinitialize("conv", (1,), perturbation_ratio=ratio)


@pytest.mark.parametrize("kind", [Freeze, Unfreeze, SetLearningRate, Reinitialize])
def test_a_neuron_named_twice_is_invalid(kind: type[NeuronEdit]) -> None:
    with pytest.raises(Invalid, match="name a neuron twice"):
        kind("conv", (1, 2, 1))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "unknown neuron edit None; known are change_learning_rate, freeze"),
        ({"kind": "melt", "layer": "conv"}, "unknown neuron edit 'melt'"),
        ({"kind": "freeze"}, "malformed neuron edit 'freeze'"),
        ({"kind": "freeze", "layer": "conv", "rate": 2.0}, "malformed neuron edit 'freeze'"),
        ({"kind": "change_learning_rate", "layer": "conv", "rate": -1.0}, "0 or more"),
        ({"kind": "change_learning_rate", "layer": "conv", "rate": "fast"}, "malformed neuron edit"),
        ({"kind": "freeze", "layer": "conv", "neurons": ["x"]}, "malformed neuron edit"),
        ({"kind": "freeze", "layer": "conv", "neurons": None}, "malformed neuron edit"),
    ],
)
def test_malformed_json_is_invalid(value: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        edit_from_json(value)


def test_an_edit_is_immutable() -> None:
    with pytest.raises(AttributeError):
        Freeze("conv", (1,)).layer = "other"  # type: ignore[misc]


def test_the_vocabulary_is_free_of_torch() -> None:
    code = "import sys, graybox.neuron_ops; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
