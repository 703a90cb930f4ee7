from __future__ import annotations

from typing import Any

import pytest
import torch

from graybox.comparison.movement import movement, relative
from graybox.neuron_ops import AddNeurons, RemoveNeurons, SortByStat
from tests.comparison.test_structure import payload
from tests.small_networks import one_thread  # noqa: F401
from tests.surgery_cases import Desk

INF = float("inf")


def by_hand(old: torch.Tensor, new: torch.Tensor) -> float:
    return float((new - old).norm() / old.norm())


def test_each_neuron_and_layer_by_hand() -> None:
    desk = Desk("Chain")
    before = payload(desk)
    desk.train(3)
    after = payload(desk)
    found = movement(before, after, top=100)
    expected: dict[tuple[str, int], float] = {}
    for name, layer in desk.network.named_layers():
        rows = [
            torch.cat([each["model"][f"{name}.weight"].flatten(1), each["model"][f"{name}.bias"][:, None]], 1)
            for each in (before, after)
        ]
        assert found.layers[name] == pytest.approx(by_hand(*rows))
        for neuron in range(layer.neuron_count):
            expected[name, neuron] = by_hand(rows[0][neuron], rows[1][neuron])
    assert {(m.layer, m.a): m.change for m in found.neurons} == pytest.approx(expected)
    assert all(m.a == m.b for m in found.neurons)
    assert [m.change for m in found.neurons] == sorted(expected.values(), reverse=True)
    assert [m.change for m in movement(before, after, top=4).neurons] == [m.change for m in found.neurons[:4]]
    assert set(found.tensors) == {f"bn{n}.{k}" for n in "12" for k in ("weight", "bias", "running_mean", "running_var")}
    assert found.tensors["bn1.running_mean"] == pytest.approx(
        by_hand(before["model"]["bn1.running_mean"], after["model"]["bn1.running_mean"])
    )


def test_nothing_moved() -> None:
    desk = Desk("Residual")
    found = movement(payload(desk), payload(desk))
    assert found.neurons == [] and set(found.layers.values()) == {0.0} and set(found.tensors.values()) == {0.0}


@pytest.mark.parametrize("edit", ["remove", "add", "sort", "all"])
def test_an_edit_alone_moves_no_neuron_that_was_there(edit: str) -> None:
    """They are matched with themselves, and so are their connections."""
    desk = Desk("Chain")
    before = payload(desk)
    if edit in ("remove", "all"):
        desk.do(RemoveNeurons("conv1", (0, 2)))
        desk.do(RemoveNeurons("fc1", (3,)))
    if edit in ("add", "all"):
        desk.do(AddNeurons("conv2", count=2))
    if edit in ("sort", "all"):
        desk.do(SortByStat("conv1", statistic="weight_norm"))
        desk.do(SortByStat("fc1", statistic="weight_norm"))
    found = movement(before, payload(desk))
    assert set(found.layers) == {"conv1", "conv2", "fc1", "fc2"}
    assert found.neurons == [] and max(found.layers.values()) == 0


def test_what_moved_after_an_edit_is_told_by_both_numbers() -> None:
    desk = Desk("Chain")
    before = payload(desk)
    desk.do(RemoveNeurons("conv2", (0, 1)))
    with torch.no_grad():
        desk.plain.get_parameter("conv2.weight")[1] *= 1.5
        desk.plain.get_parameter("conv2.bias")[1] *= 1.5
    (only,) = movement(before, payload(desk)).neurons
    assert (only.layer, only.a, only.b) == ("conv2", 3, 1) and only.change == pytest.approx(0.5)


@pytest.mark.parametrize(
    "topology", ["BagOfWords", "Transformer", "UNet", "Grouped", "Functional", "GroupedTransposed"]
)
def test_layers_of_other_kinds(topology: str) -> None:
    desk = Desk(topology)
    before = payload(desk)
    with torch.no_grad():
        for parameter in desk.network.parameters():
            parameter.mul_(1.25)
    found = movement(before, payload(desk), top=1000)
    assert found.layers and all(change == pytest.approx(0.25) for change in found.layers.values())
    learnt = {name for name, _ in desk.plain.named_parameters()}
    assert all(change == pytest.approx(0.25) for name, change in found.tensors.items() if name in learnt)
    counted = {name: layer.neuron_count for name, layer in desk.network.named_layers() if name in found.layers}
    assert len(found.neurons) == sum(counted.values())


def test_from_zero_and_to_zero() -> None:
    assert relative(torch.tensor(0.0), torch.tensor(0.0)) == 0
    assert relative(torch.tensor(2.0), torch.tensor(0.0)) == INF
    desk = Desk("Mlp", steps=0)
    name = desk.layers()[0]
    before: Any = payload(desk)
    before["model"][f"{name}.weight"][0] = 0
    before["model"][f"{name}.bias"][0] = 0
    found = movement(before, payload(desk))
    assert found.neurons[0].change == INF and found.neurons[0].a == 0 and len(found.neurons) == 1
    back = movement(payload(desk), before)
    assert back.neurons[0].change == 1


def test_weights_that_cannot_be_matched_are_left_out() -> None:
    desk = Desk("Mlp", steps=0)
    before, after = payload(desk), payload(desk)
    name = desk.layers()[0]
    after["model"][f"{name}.weight"] = after["model"][f"{name}.weight"][..., None].repeat(1, 1, 3)
    assert name not in movement(before, after).layers
    del after["model"][f"{name}.weight"]
    assert name not in movement(before, after).layers
