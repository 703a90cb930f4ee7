"""Neurons that come, go and move, on all topologies with optimizers chosen in turn: compared with what must be so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.utils._pytree import tree_leaves

from graybox.neuron_ops import (
    AddNeurons,
    Freeze,
    FreezeIncoming,
    RemoveNeurons,
    SetLearningRate,
    SortByStat,
)
from graybox.randomness import seeded
from tests.small_networks import (
    ELEMENTWISE_OPTIMIZERS,
    bits,
    differences,
    one_thread,  # noqa: F401
)
from tests.structure_oracles import EXACT, VISIBLE, check_attributes, difference, logits, masked
from tests.surgery_cases import (
    Desk,
    addition,
    check_followed,
    optimizer_state,
    removal,
    sorting,
    values,
)
from tests.topologies import TOPOLOGIES

# What cannot be edited at all, and is refused with a reason (see the tests of the structure).
FIXED = {"Recurrent", "SoftFeatures", "ConstantShift", "Cumulated", "FixedHalf", "GroupsInCode", "PartInPlace"}
NAMES = sorted(set(TOPOLOGIES) - FIXED)
UNREMOVABLE = {"RootMeanSquare", "SizeAsNumber"}
UNGROWABLE = {"RootMeanSquare", "SizeAsNumber", "Summed", "PlainProduct", "Mirrored"}
UNSORTABLE = {"GroupsOfGroups", "Mirrored"}
OPTIMIZERS = list(ELEMENTWISE_OPTIMIZERS)


def pairs(shift: int, but: set[str]) -> list[Any]:
    """Each topology with an optimizer, another one for each kind of edit; but those that refuse this kind."""
    chosen = [(name, OPTIMIZERS[(i + shift) % len(OPTIMIZERS)]) for i, name in enumerate(NAMES) if name not in but]
    return [pytest.param(*pair, id="-".join(pair)) for pair in chosen]


def fresh_state(desk: Desk) -> dict[str, float]:
    defaults = desk.optimizer.defaults
    return {"sum": defaults.get("initial_accumulator_value", 0.0), "step_size": defaults["lr"]}


@pytest.mark.parametrize(("topology", "name"), pairs(0, UNREMOVABLE))
def test_without_neurons_the_network_is_the_masked_one(topology: str, name: str) -> None:
    desk = Desk(topology, ELEMENTWISE_OPTIMIZERS[name])
    plan = desk.planned(removal)
    assert plan.change is not None
    whole, expected = logits(desk.network, desk.x), logits(masked(desk.plain, plan.change), desk.x)
    before = optimizer_state(desk)
    desk.surgeon.apply(plan, seed=1)
    assert difference(logits(desk.network, desk.x), expected) <= EXACT
    assert difference(whole, expected) >= VISIBLE or topology in (
        "MultiheadAttention",
        "HeadsFixed",
        "SpatialAttention",
    )
    check_followed(plan, before, desk, fresh_state(desk))
    check_attributes(desk.plain)
    assert plan.parameters_after == desk.network.get_parameter_count() < plan.parameters_before
    desk.train(2)


@pytest.mark.parametrize(("topology", "name"), pairs(5, UNGROWABLE))
def test_with_new_neurons_the_function_is_the_same(topology: str, name: str) -> None:
    desk = Desk(topology, ELEMENTWISE_OPTIMIZERS[name])
    plan = addition(desk)
    assert plan.change is not None
    expected, before = logits(desk.network, desk.x), optimizer_state(desk)
    desk.surgeon.apply(plan, seed=1)
    assert difference(logits(desk.network, desk.x), expected) <= EXACT
    check_followed(plan, before, desk, fresh_state(desk))
    check_attributes(desk.plain)
    assert plan.parameters_after == desk.network.get_parameter_count() > plan.parameters_before
    desk.train(2)


@pytest.mark.parametrize(("topology", "name"), pairs(11, UNSORTABLE))
def test_in_another_order_the_function_is_the_same(topology: str, name: str) -> None:
    desk = Desk(topology, ELEMENTWISE_OPTIMIZERS[name])
    plan = sorting(desk)
    expected, before, old = logits(desk.network, desk.x), optimizer_state(desk), values(desk.network)
    desk.surgeon.apply(plan, seed=1)
    assert difference(logits(desk.network, desk.x), expected) <= EXACT
    assert any(not torch.equal(old[k], v) for k, v in values(desk.network).items())
    check_followed(plan, before, desk, {})
    desk.train(2)


# -- what a new neuron is ----------------------------------------------------------------------------------


def test_new_neurons_have_their_layers_own_initialisation_and_learn_from_the_second_step() -> None:
    desk = Desk("Chain")
    layer: Any = desk.network.find_layer("conv1")[1]
    desk.do(AddNeurons("conv1", count=2), seed=9)
    with seeded(9):
        fresh = nn.Conv2d(layer.in_channels, 2, layer.kernel_size, dtype=torch.float64)
    assert torch.equal(layer.weight[-2:], fresh.weight) and torch.equal(layer.bias[-2:], fresh.bias)
    columns, rows = desk.network.get_submodule("conv2").weight, layer.weight
    assert float(columns.detach()[:, -2:].abs().max()) == 0
    started = rows.detach()[-2:].clone()
    desk.train()
    assert float(columns.detach()[:, -2:].abs().min()) > 0, "the outgoing connections learn at once"
    assert torch.equal(rows.detach()[-2:], started), "the incoming ones have nothing to learn from yet"
    desk.train()
    assert not torch.equal(rows.detach()[-2:], started)


def test_new_neurons_without_initialisation_are_zero() -> None:
    desk = Desk("Chain")
    desk.do(AddNeurons("conv1", count=3, skip_initialization=True))
    layer: Any = desk.network.find_layer("conv1")[1]
    assert float(layer.weight.detach()[-3:].abs().max()) == float(layer.bias.detach()[-3:].abs().max()) == 0
    assert float(layer.weight.detach()[:-3].abs().min()) > 0


def test_the_seed_alone_decides_new_weights_and_random_states_stay() -> None:
    def grown(seed: int, noise: int) -> bytes:
        desk = Desk("Residual")
        torch.manual_seed(noise)
        np.random.seed(noise)
        before = desk.state()
        desk.surgeon.apply(addition(desk), seed)
        assert not [name for name in differences(before, desk.state()) if name.startswith("random/")]
        return b"".join(bits(p) for p in desk.network.parameters())

    assert grown(3, 1) == grown(3, 2) != grown(4, 1)


# -- flags and statistics ------------------------------------------------------------------------------------


def test_flags_and_statistics_follow_their_neurons() -> None:
    desk = Desk("Chain")
    one, two = (desk.network.find_layer(name)[1] for name in ("conv1", "conv2"))
    desk.do(Freeze("conv1", (3,)))
    desk.do(SetLearningRate("conv1", (1,), rate=0.25))
    desk.do(FreezeIncoming("conv2", (3,)))
    rates, ages = one.train_dataset_tracker.rates().tolist(), one.train_dataset_tracker.ages().tolist()
    count = one.neuron_count
    desk.do(RemoveNeurons("conv1", (0,)))
    assert one.frozen.nonzero().tolist() == [[2]] and one.neuron_learning_rate[0] == 0.25
    assert two.incoming_frozen.nonzero().tolist() == [[2]]
    assert one.train_dataset_tracker.rates().tolist() == rates[1:]
    desk.do(AddNeurons("conv1", count=2))
    assert one.frozen.tolist() == [*[False] * 2, True, *[False] * (count - 4), False, False]
    assert one.neuron_learning_rate[-2:].tolist() == [1.0, 1.0] and not two.incoming_frozen[-2:].any()
    assert one.train_dataset_tracker.ages().tolist() == [*ages[1:], 0, 0]
    order = tuple(reversed(range(count + 1)))
    desk.do(SortByStat("conv1", order))
    assert one.frozen[order.index(2)] and int(one.frozen.sum()) == 1
    assert two.incoming_frozen[order.index(2)] and int(two.incoming_frozen.sum()) == 1
    assert one.train_dataset_tracker.rates().tolist() == [[*rates[1:], 0, 0][i] for i in order]
    desk.train(2)
    assert one.train_dataset_tracker.ages()[0] == 12, "what comes is counted from now on"


def test_frozen_neurons_stay_as_they_are_through_edits_and_training() -> None:
    desk = Desk("Residual", ELEMENTWISE_OPTIMIZERS["Adam amsgrad"])
    plan = desk.planned(removal)
    layer: Any = desk.network.find_layer(plan.layer)[1]
    desk.do(Freeze(plan.layer, (3,)))
    frozen = layer.weight.detach()[3].clone()
    desk.do(plan.edit)
    desk.train(3)
    desk.surgeon.apply(addition(desk), 1)
    desk.train(3)
    place = int(layer.frozen.nonzero()[0, 0])
    kept = layer.weight.detach()[place]
    if kept.shape == frozen.shape:
        assert torch.equal(kept, frozen)
    assert place == 2 and int(layer.frozen.sum()) == 1


def test_sorting_by_what_neurons_did() -> None:
    desk = Desk("Chain")
    layer: Any = desk.network.find_layer("conv2")[1]
    rates = layer.train_dataset_tracker.rates()
    assert len(set(rates.tolist())) > 1
    desk.do(SortByStat("conv2"))
    assert layer.train_dataset_tracker.rates().tolist() == sorted(rates.tolist(), reverse=True)
    desk.do(SortByStat("conv2", descending=False))
    assert layer.train_dataset_tracker.rates().tolist() == sorted(rates.tolist())


# -- the loop around goes on ---------------------------------------------------------------------------------


def test_parameters_are_replaced_so_that_an_old_graph_still_works() -> None:
    desk = Desk("Chain")
    old: Any = desk.network.find_layer("conv1")[1].weight
    desk.network.train()
    loss = sum(leaf.square().mean() for leaf in tree_leaves(desk.network(desk.x)))
    assert isinstance(loss, torch.Tensor)
    shape = tuple(old.shape)
    desk.do(RemoveNeurons("conv1", (0,)))
    desk.do(AddNeurons("conv1", count=1))
    loss.backward()
    assert tuple(old.shape) == tuple(old.grad.shape) == shape
    assert desk.network.find_layer("conv1")[1].weight is not old


def test_gradients_marks_and_whether_a_parameter_learns_follow() -> None:
    desk = Desk("Chain")
    weight: Any = desk.plain.get_parameter("conv1.weight")
    gradient = weight.grad.clone()
    weight.no_weight_decay = True
    desk.plain.get_parameter("conv2.weight").requires_grad_(False)
    desk.do(RemoveNeurons("conv1", (1,)))
    kept = [i for i in range(gradient.shape[0]) if i != 1]
    weight = desk.plain.get_parameter("conv1.weight")
    assert torch.equal(weight.grad, gradient[kept]) and weight.no_weight_decay is True
    assert desk.plain.get_parameter("conv2.weight").requires_grad is False
    desk.do(AddNeurons("conv1", count=2))
    weight = desk.plain.get_parameter("conv1.weight")
    assert torch.equal(weight.grad[:-2], gradient[kept]) and float(weight.grad[-2:].abs().max()) == 0


def test_memory_formats_and_number_types_are_kept() -> None:
    desk = Desk("Chain", dtype=torch.bfloat16)
    desk.plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for edit in (
        RemoveNeurons("conv1", (1,)),
        AddNeurons("conv1", count=3),
        SortByStat("conv1", statistic="weight_norm"),
    ):
        desk.do(edit)
        for name in ("conv1", "conv2"):
            weight = desk.plain.get_parameter(f"{name}.weight")
            assert weight.is_contiguous(memory_format=torch.channels_last), name
            assert weight.dtype is torch.bfloat16
            moment = desk.optimizer.state[weight]["exp_avg"]
            assert moment.shape == weight.shape and moment.stride() == weight.stride()
    desk.train()


def test_schedulers_and_gradient_scalers_go_on() -> None:
    desk = Desk("Chain", ELEMENTWISE_OPTIMIZERS["AdamW"], dtype=torch.float32)
    scheduler = optim.lr_scheduler.StepLR(desk.optimizer, 2, 0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    groups = desk.optimizer.param_groups
    rate = groups[0]["lr"]
    for number in range(6):
        if number == 3:
            desk.do(RemoveNeurons("conv1", (0,)))
        desk.optimizer.zero_grad()
        loss = sum(leaf.square().mean() for leaf in tree_leaves(desk.network(desk.x)))
        scaler.scale(loss).backward()  # type: ignore[union-attr]
        scaler.step(desk.optimizer)
        scaler.update()
        scheduler.step()
    assert desk.optimizer.param_groups is groups and groups[0]["lr"] == rate / 8
    assert all(float(state["step"]) == 9 for p, state in desk.optimizer.state.items() if p.dim() > 2)


def test_an_edit_works_before_the_first_step() -> None:
    desk = Desk("Chain", steps=0)
    before = desk.state()
    applied = [desk.do(e) for e in (RemoveNeurons("conv1", (0,)), AddNeurons("conv1", count=2))]
    assert not desk.optimizer.state
    for each in reversed(applied):
        desk.undo(each)
    assert differences(before, desk.state()) == []
    desk.do(RemoveNeurons("conv1", (0,)))
    desk.train()


def test_a_parameter_that_the_optimizer_does_not_hold_is_edited_too() -> None:
    desk = Desk("Chain", lambda parameters: optim.Adam(list(parameters)[-2:], lr=0.01))
    before = desk.state()
    applied = desk.do(RemoveNeurons("conv1", (0,)))
    desk.train()
    desk.undo(applied)
    shapes = {name: value.shape for name, value in before.items() if name.startswith("model/")}
    assert shapes == {f"model/{name}": value.shape for name, value in desk.network.state_dict().items()}


def test_listeners_are_told_after_the_edit() -> None:
    desk = Desk("Chain")
    seen: list[int] = []
    desk.network.register_hook_fn_for_architecture_change(lambda model: seen.append(model.structure.parameter_count()))
    desk.do(Freeze("conv1"))
    applied = desk.do(RemoveNeurons("conv1", (0,)))
    desk.undo(applied)
    assert seen == [applied.plan.parameters_after, applied.plan.parameters_before]
