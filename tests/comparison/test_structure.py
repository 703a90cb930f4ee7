from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from graybox.comparison.structure import layer_difference, structure_difference
from graybox.neuron_ops import AddNeurons, Freeze, RemoveNeurons, SortByStat
from tests.edited_networks import shapes
from tests.small_networks import one_thread  # noqa: F401
from tests.surgery_cases import Desk


def payload(desk: Desk, built: Any = None) -> dict[str, Any]:
    """Of a checkpoint, as far as a comparison of structures looks at it."""
    now = [[name, list(shape)] for name, shape in shapes(desk.plain).items()]
    return {
        "structure": now,
        "built": now if built is None else built,
        "layers": {name: layer.ops_state() for name, layer in desk.network.named_layers()},
        "model": {name: value.clone() for name, value in desk.plain.state_dict().items()},
    }


def state(identities: list[int], incoming: int = 2, frozen: int = 0) -> dict[str, Any]:
    return {
        "neuron_identity": torch.tensor(identities, dtype=torch.int64),
        "incoming_identity": torch.arange(incoming),
        "frozen": torch.arange(len(identities)) < frozen,
    }


@given(a=st.lists(st.integers(0, 12), unique=True, min_size=1), b=st.lists(st.integers(0, 12), unique=True, min_size=1))
def test_neurons_are_known_by_who_they_are(a: list[int], b: list[int]) -> None:
    found = layer_difference("layer", state(a), state(b))
    gone = [place for place, neuron in enumerate(a) if neuron not in b]
    new = [place for place, neuron in enumerate(b) if neuron not in a]
    common = [neuron for neuron in a if neuron in b]
    there = [neuron for neuron in b if neuron in a]
    moved = sum(x != y for x, y in zip(common, there, strict=True))
    if found is None:
        assert a == b
        return
    assert (found.gone, found.new) == (gone, new) and found.neurons == (len(a), len(b))
    assert (found.moved == 0) == (moved == 0)


def test_new_neurons_of_two_runs_are_not_the_same() -> None:
    found = layer_difference("layer", state([0, 1, -1]), state([0, 1, -1]))
    assert found is not None and found.gone == found.new == [2], "of neither is known where it came from"


def test_what_edits_did_is_told() -> None:
    desk = Desk("Chain")
    before = payload(desk)
    assert not structure_difference(before, payload(desk, before["built"])).differs
    desk.do(RemoveNeurons("conv1", (1, 3)))
    desk.do(AddNeurons("conv2", count=2))
    desk.do(Freeze("fc1", (0, 5)))
    found = structure_difference(before, payload(desk, before["built"]))
    layers = {each.layer: each for each in found.resized}
    assert found.differs and found.built_alike and found.only_a == found.only_b == {}
    assert layers["conv1"].gone == [1, 3] and layers["conv1"].new == [] and layers["conv1"].neurons == (5, 3)
    assert layers["conv2"].gone == [] and layers["conv2"].new == [6, 7] and layers["conv2"].incoming == (5, 3)
    assert layers["fc1"].frozen == (0, 2) and layers["fc1"].neurons == (7, 7)
    assert layers["fc1"].incoming == (24, 32) and "fc2" not in layers
    assert found.tensors["bn1.weight"] == ([5], [3]) and "fc2.weight" not in found.tensors
    assert found.parameters[1] == sum(value.numel() for value in desk.plain.state_dict().values())
    other = structure_difference(payload(desk, before["built"]), before)
    assert {each.layer: each for each in other.resized}["conv1"].new == [1, 3]


def test_a_sort_moves_neurons_and_changes_no_size() -> None:
    desk = Desk("Chain")
    before = payload(desk)
    old = desk.network.find_layer("conv2")[1].neuron_identity.tolist()
    desk.do(SortByStat("conv2", statistic="weight_norm"))
    new = desk.network.find_layer("conv2")[1].neuron_identity.tolist()
    found = structure_difference(before, payload(desk, before["built"]))
    (layer,) = [each for each in found.resized if each.layer == "conv2"]
    assert layer.moved == sum(x != y for x, y in zip(old, new, strict=True)) > 0
    assert found.differs and found.tensors == {} and layer.neurons == (6, 6)


def test_other_networks() -> None:
    one, other = Desk("Chain", steps=0), Desk("Residual", steps=0)
    found = structure_difference(payload(one), payload(other))
    assert not found.built_alike and found.differs
    assert set(found.only_a) == {"conv1", "fc1", "fc2"} and "stem" in found.only_b
    assert found.tensors["fc1.weight"][1] is None
