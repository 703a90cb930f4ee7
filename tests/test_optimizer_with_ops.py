from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import optim

from graybox.errors import Refused
from graybox.model_with_ops import NetworkWithOps
from graybox.optimizer_with_ops import OptimizerWithOps
from tests.optimizer_oracles import COUPLING, TwoLayers, renewed
from tests.small_networks import (
    ELEMENTWISE_OPTIMIZERS,
    differences,
    everything,
    give_gradients,
    one_thread,  # noqa: F401
    operated,
)


class MyAdam(optim.Adam):
    """Nobody knows what a user's class does to its entries."""


@pytest.mark.parametrize(
    "make",
    [*COUPLING.values(), lambda p: MyAdam(p), lambda p: optim.SparseAdam(p)],
)
def test_optimizers_that_couple_entries_are_refused_by_name(make: Callable[[Any], optim.Optimizer]) -> None:
    model = TwoLayers()
    optimizer, wrapper, _ = operated(model, make)
    with pytest.raises(Refused, match=f"^{type(optimizer).__name__} couples"):
        wrapper.check_renewable()
    with pytest.raises(Refused):
        wrapper.renew(model.one.weight, 0, torch.tensor([0]))


def test_a_parameter_that_the_optimizer_does_not_hold_is_told_apart() -> None:
    model = TwoLayers()
    wrapper = OptimizerWithOps(optim.Adam(model.one.parameters()), model)
    assert wrapper.holds(model.one.weight) and not wrapper.holds(model.two.weight)
    model.two.frozen[0] = True
    wrapper.refresh()
    give_gradients(model, 0)
    before = model.two.weight.detach().clone()
    wrapper.optimizer.step()
    assert torch.equal(model.two.weight, before)


def test_each_group_keeps_its_own_options() -> None:
    torch.manual_seed(0)
    model = TwoLayers(5, 6)
    groups = [{"params": [model.one.weight, model.one.bias], "lr": 0.5}, {"params": list(model.two.parameters())}]
    optimizer = optim.Adam(groups, lr=0.01)
    wrapper = OptimizerWithOps(optimizer, model)
    give_gradients(model, 0)
    optimizer.step()
    wrapper.renew(model.one.weight, 0, torch.tensor([0]))
    wrapper.renew(model.two.weight, 0, torch.tensor([0]))
    before = model.one.weight[0].detach().clone(), model.two.weight[0].detach().clone()
    optimizer.param_groups[1]["lr"] = 0.02  # as a scheduler, or a person, would
    give_gradients(model, 1)
    optimizer.step()
    weights = (model.one.weight, model.two.weight)
    steps = [float((p[0].detach() - b).abs().mean()) for p, b in zip(weights, before, strict=True)]
    assert steps == pytest.approx([0.5, 0.02], rel=1e-4)


def test_detached_it_does_nothing() -> None:
    model = TwoLayers()
    model.one.frozen[:] = True
    optimizer, wrapper, _ = operated(model, ELEMENTWISE_OPTIMIZERS["SGD"])
    wrapper.detach()
    before = model.one.weight.detach().clone()
    give_gradients(model, 0)
    optimizer.step()
    assert not torch.equal(model.one.weight, before)


@pytest.mark.parametrize("name", ELEMENTWISE_OPTIMIZERS)
def test_kept_and_brought_back_midway_the_training_goes_on_with_the_same_bits(name: str) -> None:
    make = ELEMENTWISE_OPTIMIZERS[name]
    model, optimizer, wrapper, _ = renewed(make, 0, 20, torch.float32)
    wrapper.renew(model.two.weight, 1, torch.tensor([2]))
    model.one.frozen[1] = True
    model.one.set_per_neuron_learning_rate([2], 0.3)
    for step in range(20, 25):
        give_gradients(model, step)
        optimizer.step()
    buffer = io.BytesIO()
    layers = {layer_name: layer.ops_state() for layer_name, layer in model.named_layers()}
    torch.save([model.state_dict(), optimizer.state_dict(), layers, wrapper.state_dict()], buffer)

    def go_on(model: NetworkWithOps, optimizer: optim.Optimizer, wrapper: OptimizerWithOps) -> dict[str, Any]:
        for step in range(25, 35):
            give_gradients(model, step)
            optimizer.step()
        return everything(model, optimizer, wrapper)

    expected = go_on(model, optimizer, wrapper)
    buffer.seek(0)
    weights, moments, layers, young = torch.load(buffer, weights_only=True)
    again = TwoLayers(5, 6)
    its_optimizer, its_wrapper, _ = operated(again, make)
    again.load_state_dict(weights)
    its_optimizer.load_state_dict(moments)
    for layer_name, layer in again.named_layers():
        layer.load_ops_state(layers[layer_name])
    its_wrapper.load_state_dict(young)
    found = differences(expected, go_on(again, its_optimizer, its_wrapper))
    assert [what for what in found if not what.startswith("random/")] == []
    # What was kept was not written to meanwhile, and one state may be taken over twice.
    its_wrapper.load_state_dict(young)
    assert len(its_wrapper.state_dict()) == len(young)
    assert all(bool(e["steps"] == f["steps"]) for e, f in zip(young, its_wrapper.state_dict(), strict=True))
