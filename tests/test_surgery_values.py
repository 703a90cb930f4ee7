"""Zerofy and the overrides: exactly the named entries change, and their optimizer state starts anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import optim

from graybox.neuron_ops import (
    Freeze,
    FreezeBias,
    FreezeIncoming,
    NeuronEdit,
    OverrideBiases,
    OverrideWeights,
    Reinitialize,
    Unfreeze,
    Zerofy,
)
from tests.small_networks import ELEMENTWISE_OPTIMIZERS, bits, differences, give_gradients, one_thread  # noqa: F401
from tests.surgery_cases import Desk, optimizer_state, values


def check_exactly(desk: Desk, edit: NeuronEdit, expected: dict[str, torch.Tensor]) -> None:
    """expected: by tensor name, where entries change (bool)."""
    before, moments = values(desk.network), optimizer_state(desk)
    desk.do(edit)
    after = values(desk.network)
    for name, old in before.items():
        changed = expected.get(name, torch.zeros(old.shape, dtype=torch.bool))
        assert bits(old[~changed]) == bits(after[name][~changed]), name
        assert not changed.any() or bool((old[changed] != after[name][changed]).all()), name
    for name, state in optimizer_state(desk).items():
        changed = expected.get(name, torch.zeros(before[name].shape, dtype=torch.bool))
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and value.dim():
                assert bits(value[~changed]) == bits(moments[name][key][~changed])
                assert not changed.any() or float(value[changed].abs().max()) == 0


def entries(desk: Desk, name: str, *index: Any) -> torch.Tensor:
    chosen = torch.zeros(desk.plain.get_parameter(name).shape, dtype=torch.bool)
    chosen[index] = True
    return chosen


def test_whole_neurons_are_zeroed() -> None:
    desk = Desk("Chain")
    expected = {
        "conv1.weight": entries(desk, "conv1.weight", [0, 2]),
        "conv1.bias": entries(desk, "conv1.bias", [0, 2]),
    }
    check_exactly(desk, Zerofy("conv1", (0, 2)), expected)
    assert float(desk.plain.get_parameter("conv1.weight").detach()[[0, 2]].abs().max()) == 0


def test_chosen_connections_are_zeroed() -> None:
    desk = Desk("Chain")
    check_exactly(
        desk, Zerofy("conv2", (1, 2), (0, 3)), {"conv2.weight": entries(desk, "conv2.weight", [[1], [2]], [0, 3])}
    )


def test_connections_from_frozen_neurons_are_zeroed() -> None:
    desk = Desk("Chain")
    desk.do(Freeze("conv1", (1, 3)))
    expected = {"conv2.weight": entries(desk, "conv2.weight", [[0], [2]], [1, 3])}
    check_exactly(desk, Zerofy("conv2", (0, 2), from_frozen=True), expected)


def test_connections_from_older_neurons_are_zeroed() -> None:
    desk = Desk("Chain")
    desk.do(Reinitialize("conv2", (1,)))
    desk.do(Reinitialize("conv1", (0, 2)))
    count = desk.network.find_layer("conv1")[1].neuron_count
    older = [n for n in range(count) if n not in (0, 2)]
    # Neuron 1 is as young as 0 and 2, the others are as old as the oldest: none is older than those.
    check_exactly(desk, Zerofy("conv2", from_older=True), {"conv2.weight": entries(desk, "conv2.weight", 1, older)})


def test_connections_flattened_from_several_positions_are_told_apart() -> None:
    desk = Desk("Chain")
    desk.do(Freeze("conv2", (1,)))
    weight = desk.plain.get_parameter("fc1.weight")
    per_neuron = weight.shape[1] // desk.network.find_layer("conv2")[1].neuron_count
    columns = list(range(per_neuron, 2 * per_neuron))
    check_exactly(
        desk, Zerofy("fc1", from_frozen=True), {"fc1.weight": entries(desk, "fc1.weight", slice(None), columns)}
    )


def test_a_sum_is_frozen_when_all_of_it_is() -> None:
    desk = Desk("Residual")
    structure = desk.network.structure
    name = next(n for n in desk.layers() if any(len(pairs) > 1 for pairs in structure.incoming(n)))
    column, pairs = next((i, p) for i, p in enumerate(structure.incoming(name)) if len(p) > 1)
    desk.do(Freeze(pairs[0][0], (pairs[0][1],)))
    edit = Zerofy(name, (0,), from_frozen=True)
    before = values(desk.network)
    for layer, neuron in pairs[1:]:
        desk.do(Freeze(layer, (neuron,)))
    desk.do(edit)
    changed = (values(desk.network)[f"{name}.weight"] != before[f"{name}.weight"]).nonzero()
    assert set(changed[:, 0].tolist()) == {0} and column in set(changed[:, 1].tolist())


@pytest.mark.parametrize("shape", ["all axes", "one neuron"])
def test_weights_and_biases_are_overridden(shape: str) -> None:
    desk = Desk("Chain")
    weight = desk.plain.get_parameter("conv2.weight")
    given = np.arange(weight[0].numel(), dtype=np.float64).reshape(weight.shape[1:]) + 7
    edit = OverrideWeights("conv2", (1,), given if shape == "one neuron" else given[None])
    check_exactly(desk, edit, {"conv2.weight": entries(desk, "conv2.weight", 1)})
    assert torch.equal(desk.plain.get_parameter("conv2.weight")[1], torch.from_numpy(given))
    check_exactly(desk, OverrideBiases("fc1", (3, 0), [5.0, 6.0]), {"fc1.bias": entries(desk, "fc1.bias", [0, 3])})
    assert desk.plain.get_parameter("fc1.bias").detach()[[3, 0]].tolist() == [5.0, 6.0]


def test_neurons_along_another_axis_are_overridden_and_zeroed() -> None:
    desk = Desk("Autoencoder")
    name = next(n for n, layer in desk.network.named_layers() if layer.out_axis == 1)
    weight = desk.plain.get_parameter(f"{name}.weight")
    given = np.random.default_rng(0).normal(size=(2, weight.shape[0], *weight.shape[2:]))
    desk.do(OverrideWeights(name, (2, 0), given))
    found = desk.plain.get_parameter(f"{name}.weight").detach()
    assert torch.equal(found[:, 2], torch.from_numpy(given[0])) and torch.equal(found[:, 0], torch.from_numpy(given[1]))
    desk.do(Zerofy(name, (1,)))
    assert float(desk.plain.get_parameter(f"{name}.weight").detach()[:, 1].abs().max()) == 0


def test_values_may_be_set_under_any_optimizer() -> None:
    desk = Desk("Mlp", lambda p: optim.Adafactor(p, lr=0.01), dtype=torch.float32)
    before = desk.state()
    applied = desk.do(OverrideBiases("fc1", (0,), [1.0]))
    assert differences(before, desk.state()) == ["model/fc1.bias"]
    desk.undo(applied)
    assert differences(before, desk.state()) == []


@pytest.mark.parametrize("optimizer", ["Adam amsgrad", "SGD nesterov", "AdamW fused"])
def test_each_freeze_holds_exactly_what_it_says(optimizer: str) -> None:
    desk = Desk("Chain", ELEMENTWISE_OPTIMIZERS[optimizer])
    for edit in (Freeze("conv1", (0,)), FreezeBias("fc1", (1, 2)), FreezeIncoming("fc1", (3,))):
        desk.do(edit)
    start = values(desk.network)

    def steps(count: int) -> dict[str, torch.Tensor]:
        for number in range(count):
            give_gradients(desk.network, number)
            desk.optimizer.step()
        return {name: value == start[name] for name, value in values(desk.network).items()}

    same = steps(100)
    frozen = {
        "conv1.weight": entries(desk, "conv1.weight", 0), "conv1.bias": entries(desk, "conv1.bias", 0),
        "bn1.weight": entries(desk, "bn1.weight", 0), "bn1.bias": entries(desk, "bn1.bias", 0),
        "fc1.bias": entries(desk, "fc1.bias", [1, 2]), "fc1.weight": entries(desk, "fc1.weight", slice(None), 3),
    }  # fmt: skip
    for name, parameter in desk.network.named_parameters():
        assert torch.equal(same[name], frozen.get(name, torch.zeros(parameter.shape, dtype=torch.bool))), name
    for edit in (Unfreeze("conv1"), Unfreeze("fc1", (1, 2, 3))):
        desk.do(edit)
    thawed = steps(1)
    assert not any(bool(thawed[name].any()) for name in frozen)
