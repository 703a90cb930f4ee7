from __future__ import annotations

import copy
import io
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim

from graybox.errors import Refused
from graybox.model_with_ops import DepType, NetworkWithOps
from graybox.modules_with_ops import LinearWithNeuronOps
from graybox.optimizer_with_ops import ELEMENTWISE, OptimizerWithOps, scaled_update, young_steps
from tests.small_networks import (
    ELEMENTWISE_OPTIMIZERS,
    ChainNet,
    Optimizers,
    bits,
    built,
    differences,
    everything,
    give_gradients,
    one_thread,  # noqa: F401
    operated,
    rows_of,
    train_step,
)

COUPLING: Optimizers = {
    "LBFGS": lambda p: optim.LBFGS(p, lr=0.1, max_iter=3),
    "Adafactor": lambda p: optim.Adafactor(p, lr=0.05),
}
WITHOUT_DECAY = {"Adam", "NAdam", "Adamax", "RMSprop", "Rprop", "Adagrad decay"}
FROZEN = {"conv1": [1, 3], "conv2": [0], "fc1": [2, 5], "fc2": [1]}


def freeze(model: NetworkWithOps) -> None:
    for name, neurons in FROZEN.items():
        model.find_layer(name)[1].frozen[neurons] = True


def frozen_bits(model: NetworkWithOps) -> list[bytes]:
    return [
        bits(rows) for name, neurons in FROZEN.items() for rows in rows_of(model, model.find_layer(name)[1], neurons)
    ]


def other_entries(model: NetworkWithOps) -> list[torch.Tensor]:
    found = []
    for name, neurons in FROZEN.items():
        layer = model.find_layer(name)[1]
        rest = [i for i in range(layer.neuron_count) if i not in neurons]
        found += rows_of(model, layer, rest)
    return found


def make_step(model: NetworkWithOps, optimizer: optim.Optimizer, x: torch.Tensor) -> None:
    def closure() -> float:
        optimizer.zero_grad()
        loss = (model(x) - torch.tensor([3.0, -3.0, 0.5])).square().mean()
        loss.backward()
        return float(loss.detach())

    if isinstance(optimizer, optim.LBFGS):
        optimizer.step(closure)
    else:
        closure()
        optimizer.step()


def test_every_optimizer_that_is_told_to_work_entry_by_entry_is_tested() -> None:
    kinds = {type(make([nn.Parameter(torch.zeros(2))])) for make in ELEMENTWISE_OPTIMIZERS.values()}
    assert kinds == set(ELEMENTWISE)


@pytest.mark.parametrize("name", [*ELEMENTWISE_OPTIMIZERS, *COUPLING])
def test_frozen_neurons_keep_their_bits_over_100_steps_of_training(name: str) -> None:
    torch.manual_seed(0)
    model = built(ChainNet)
    optimizer, wrapper, _ = operated(model, {**ELEMENTWISE_OPTIMIZERS, **COUPLING}[name])
    xs = [ChainNet.example(6) for _ in range(4)]
    for i in range(5):
        make_step(model, optimizer, xs[i % 4])
    freeze(model)
    wrapper.refresh()
    before, others = frozen_bits(model), other_entries(model)
    statistics = model.bn1.running_mean.clone()  # type: ignore[union-attr, operator]
    for i in range(100 if name != "LBFGS" else 34):
        make_step(model, optimizer, xs[i % 4])
    assert frozen_bits(model) == before
    moved = sum(int((a != b).sum()) for a, b in zip(others, other_entries(model), strict=True))
    assert moved > 0.5 * sum(a.numel() for a in others)  # behind a dead ReLU, nothing moves
    assert bool((model.bn1.running_mean != statistics).all())  # type: ignore[union-attr]
    for name_ in FROZEN:
        model.find_layer(name_)[1].frozen[:] = False
    wrapper.refresh()
    make_step(model, optimizer, xs[0])
    assert sum(a != b for a, b in zip(before, frozen_bits(model), strict=True)) > 0


@pytest.mark.parametrize("name", ELEMENTWISE_OPTIMIZERS)
def test_a_freeze_changes_no_bit_of_the_other_neurons_updates(name: str) -> None:
    plain, model = built(ChainNet), built(ChainNet)
    plain_optimizer = ELEMENTWISE_OPTIMIZERS[name](plain.parameters())
    freeze(model)
    optimizer, _, _ = operated(model, ELEMENTWISE_OPTIMIZERS[name])
    before = frozen_bits(model)
    for step in range(100):
        # The same gradients for both: in training, others' gradients of course depend on what is frozen.
        give_gradients(plain, step)
        give_gradients(model, step)
        plain_optimizer.step()
        optimizer.step()
    assert frozen_bits(model) == before != frozen_bits(plain)
    assert [bits(t) for t in other_entries(model)] == [bits(t) for t in other_entries(plain)]
    if name in WITHOUT_DECAY:  # the optimizer's own state goes on; with weight decay it depends on the weights
        for p, q in zip(plain.parameters(), model.parameters(), strict=True):
            for key, value in plain_optimizer.state[p].items():
                assert torch.equal(value, optimizer.state[q][key]), key


def test_muon_leaves_frozen_rows_alone() -> None:
    if not hasattr(optim, "Muon"):
        pytest.fail("this version of torch has no Muon; the project needs one that does")
    torch.manual_seed(0)
    model = TwoLayers(bias=False)
    model.one.frozen[1] = True
    optimizer, _, _ = operated(model, lambda p: optim.Muon(p, lr=0.01))
    before = model.one.weight.detach().clone()
    for _ in range(20):
        train_step(model, optimizer, torch.randn(5, 3))
    assert torch.equal(model.one.weight[1], before[1]) and not torch.equal(model.one.weight[0], before[0])


class TwoLayers(NetworkWithOps):
    def __init__(self, inputs: int = 3, hidden: int = 4, bias: bool = True) -> None:
        super().__init__()
        self.one = LinearWithNeuronOps(inputs, hidden, bias=bias)
        self.two = LinearWithNeuronOps(hidden, 2, bias=bias)
        self.register_dependencies([(self.one, self.two, DepType.INCOMING)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.two(torch.relu(self.one(x)))
        return answer


@pytest.mark.parametrize("name", [n for n in ELEMENTWISE_OPTIMIZERS if "foreach" not in n])
def test_a_closure_may_make_the_gradients_within_the_step(name: str) -> None:
    make = ELEMENTWISE_OPTIMIZERS[name]
    models = [TwoLayers(), TwoLayers()]
    models[1].load_state_dict(models[0].state_dict())
    kept = models[0].one.weight[1].detach().clone()
    pairs = [operated(m, make) for m in models]
    x = torch.randn(6, 3)
    for step in range(4):
        if step == 2:
            for model, (_, wrapper, _) in zip(models, pairs, strict=True):
                model.one.frozen[1] = True
                wrapper.refresh()
                kept = model.one.weight[1].detach().clone()
                wrapper.renew(model.one.weight, 0, torch.tensor([0]))
        train_step(models[0], pairs[0][0], x)

        def closure() -> torch.Tensor:
            loss: torch.Tensor = models[1](x).square().mean()
            loss.backward()
            return loss

        pairs[1][0].zero_grad(set_to_none=True)
        pairs[1][0].step(closure)  # type: ignore[arg-type]
    assert torch.equal(models[1].one.weight[1], kept)
    assert [bits(p) for p in models[0].parameters()] == [bits(p) for p in models[1].parameters()]


# -- per-neuron learning rates -------------------------------------------------------------------------


def within_one_unit(old: torch.Tensor, unscaled: torch.Tensor, rate: float, new: torch.Tensor) -> bool:
    """old + rate * (unscaled - old) in exact arithmetic, against `new`, in units in the last place of the result; where
    it cancels, of the larger operand in float64, in which it is computed."""
    for o, u, n in zip(old.flatten().tolist(), unscaled.flatten().tolist(), new.flatten().tolist(), strict=True):
        exact = Fraction(o) + Fraction(rate) * (Fraction(u) - Fraction(o))
        kind = np.float32 if new.dtype is torch.float32 else np.float64
        unit = float(np.spacing(kind(abs(float(exact)))))
        cancelled = float(np.spacing(max(abs(o), abs(u), abs(rate * (u - o)))))
        if abs(Fraction(n) - exact) > Fraction(max(unit, 2 * cancelled)):
            return False
    return True


@settings(max_examples=60, deadline=None)
@given(
    rate=st.one_of(st.sampled_from([0.0, 0.5, 1.0, 2.0, 1e-12]), st.floats(0, 4)),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 10_000),
)
def test_a_scaled_update_is_rounded_once(
    rate: float, shape: list[int], dtype: torch.dtype, scale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    old = torch.randn(shape, generator=generator, dtype=dtype)
    unscaled = old + scale * torch.randn(shape, generator=generator, dtype=dtype)
    new = scaled_update(old, unscaled, torch.full((shape[0],), rate, dtype=torch.float64))
    assert new.dtype == dtype and within_one_unit(old, unscaled, rate, new)
    if rate == 0:
        assert bits(new) == bits(old)
    if rate == 1 and dtype is torch.float32 and scale == 1:
        assert bits(new) == bits(unscaled)


def test_nothing_gets_into_a_frozen_row_from_a_broken_update() -> None:
    old = torch.tensor([[1.0, -0.0], [1.0, 2.0]])
    broken = torch.full((2, 2), float("nan"))
    new = scaled_update(old, broken, torch.tensor([0.0, 0.5], dtype=torch.float64))
    assert bits(new[0]) == bits(old[0]) and bool(new[1].isnan().all())


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(list(ELEMENTWISE_OPTIMIZERS)),
    rates=st.lists(st.floats(0, 3), min_size=4, max_size=4),
    inputs=st.integers(1, 4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    before=st.integers(0, 5),
)
def test_a_neurons_learning_rate_scales_the_optimizers_own_update(
    name: str, rates: list[float], inputs: int, dtype: torch.dtype, before: int
) -> None:
    make = ELEMENTWISE_OPTIMIZERS[name]
    torch.manual_seed(0)
    model = TwoLayers(inputs).to(dtype)
    optimizer, _, _ = operated(model, make)
    for step in range(before):
        give_gradients(model, step)
        optimizer.step()
    twin = copy.deepcopy(model)
    unscaled = make(twin.parameters())
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        # Not by load_state_dict, which rounds NAdam's and ASGD's numbers per tensor to the parameter's type.
        if p in optimizer.state:
            unscaled.state[q] = copy.deepcopy(optimizer.state[p])
    old = copy.deepcopy(model.state_dict())
    for neuron, rate in enumerate(rates):
        model.one.set_per_neuron_learning_rate([neuron], rate)  # takes effect without a word to the optimizer
    for each in (model, twin):
        give_gradients(each, 99)
    optimizer.step()
    unscaled.step()
    for key in ("one.weight", "one.bias"):
        for neuron, rate in enumerate(rates):
            new = model.state_dict()[key][neuron]
            assert within_one_unit(old[key][neuron], twin.state_dict()[key][neuron], rate, new), (key, neuron)
    assert bits(model.two.weight) == bits(twin.two.weight)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):  # the moments follow the true gradient
        for key, value in unscaled.state[q].items():
            if isinstance(value, torch.Tensor) and key != "ax":
                assert torch.equal(value, optimizer.state[p][key]), key


# -- entries that start anew ---------------------------------------------------------------------------


def renewed(
    make: Callable[[Any], optim.Optimizer], axis: int, steps_before: int, dtype: torch.dtype = torch.float64
) -> tuple[TwoLayers, optim.Optimizer, OptimizerWithOps, torch.Tensor]:
    """A network whose entries [1, 3] along `axis` of the first layer's weight have just started anew."""
    torch.manual_seed(0)
    model = TwoLayers(5, 6).to(dtype)
    optimizer, wrapper, _ = operated(model, make)
    for step in range(steps_before):
        give_gradients(model, step)
        optimizer.step()
    index = torch.tensor([1, 3])
    with torch.no_grad():
        model.one.weight.index_fill_(axis, index, 0.25)
    wrapper.renew(model.one.weight, axis, index)
    return model, optimizer, wrapper, index


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", ELEMENTWISE_OPTIMIZERS)
def test_new_entries_are_updated_as_by_a_fresh_optimizer_and_the_others_as_if_nothing_had_happened(
    name: str, axis: int
) -> None:
    make = ELEMENTWISE_OPTIMIZERS[name]
    model, optimizer, _, index = renewed(make, axis, 300)
    rest = torch.tensor([i for i in range(model.one.weight.shape[axis]) if i not in index.tolist()])
    leaf = nn.Parameter(model.one.weight.detach().index_select(axis, index).clone())
    fresh = make([leaf])
    untouched, _, _, _ = renewed(make, axis, 0)
    plain = make(untouched.parameters())
    for step in range(300):
        give_gradients(untouched, step)
        plain.step()
    for step in range(300, 320):
        for each in (model, untouched):
            give_gradients(each, step)
        assert model.one.weight.grad is not None
        leaf.grad = model.one.weight.grad.index_select(axis, index)
        before = model.one.weight.detach().index_select(axis, index).clone(), leaf.detach().clone()
        optimizer.step()
        plain.step()
        fresh.step()
        ours = model.one.weight.detach().index_select(axis, index)
        torch.testing.assert_close(ours, leaf.detach(), rtol=1e-13, atol=1e-15)
        largest = float((leaf.detach() - before[1]).abs().max())
        assert float((ours - before[0]).abs().max()) <= largest * (1 + 1e-9)
    others = model.one.weight.detach().index_select(axis, rest)
    assert bits(others) == bits(untouched.one.weight.detach().index_select(axis, rest))
    for key, value in plain.state[untouched.one.weight].items():
        found = optimizer.state[model.one.weight][key]
        if isinstance(value, torch.Tensor) and value.shape == model.one.weight.shape:
            assert bits(found.index_select(axis, rest)) == bits(value.index_select(axis, rest)), key
        else:
            assert found == value, key
    for p, q in ((model.one.bias, untouched.one.bias), (model.two.weight, untouched.two.weight)):
        assert bits(p) == bits(q)


def test_zeroed_moments_alone_would_not_do() -> None:
    """Why new entries have an optimizer of their own: this is what the test before guards against."""
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = optim.Adam([parameter], lr=0.01)
    for _ in range(300):
        parameter.grad = torch.ones(1)
        optimizer.step()
    for value in optimizer.state[parameter].values():
        if value.dim():
            value.zero_()
    before = parameter.detach().clone()
    for _ in range(5):
        parameter.grad = torch.ones(1)
        optimizer.step()
    assert float((before - parameter.detach()).abs()) > 1.5 * 5 * 0.01


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.Adam(p, lr=0.01, betas=(0.5, 0.9)),
        lambda p: optim.NAdam(p, lr=0.01, betas=(0.5, 0.9)),
        lambda p: optim.Adamax(p, lr=0.01, betas=(0.5, 0.9)),
        lambda p: optim.RAdam(p, lr=0.01, betas=(0.5, 0.9)),
    ],
)
def test_new_entries_grow_up_without_a_jump(make: Callable[[Any], optim.Optimizer]) -> None:
    model, optimizer, wrapper, index = renewed(make, 0, 100)
    leaf = nn.Parameter(model.one.weight.detach()[index].clone())
    fresh = make([leaf])
    young = young_steps(optimizer, optimizer.param_groups[0])
    assert 90 < young < 110
    for step in range(young + 20):
        assert bool(wrapper.state_dict()) == (step < young)
        give_gradients(model, step)
        assert model.one.weight.grad is not None
        leaf.grad = model.one.weight.grad[index]
        before = model.one.weight.detach()[index].clone(), leaf.detach().clone()
        optimizer.step()
        fresh.step()
        ours, theirs = model.one.weight.detach()[index] - before[0], leaf.detach() - before[1]
        # NAdam's schedule of the momentum goes on for a hundred thousand steps; its updates differ a little for ever.
        tolerance = 0.05 if isinstance(optimizer, optim.NAdam) else 1e-3
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * 0.01)


def test_how_long_new_entries_are_young() -> None:
    def steps(make: Callable[[Any], optim.Optimizer]) -> int:
        optimizer = make([nn.Parameter(torch.zeros(2))])
        return young_steps(optimizer, optimizer.param_groups[0])

    assert 9_000 < steps(ELEMENTWISE_OPTIMIZERS["AdamW"]) < 11_000
    assert steps(lambda p: optim.Adam(p, betas=(0.9, 0.9999))) > 90_000
    assert steps(lambda p: optim.Adam(p, betas=(0.0, 0.0))) == 1
    names = ["SGD nesterov", "RMSprop all", "Adadelta", "Rprop", "Adagrad"]
    assert [steps(ELEMENTWISE_OPTIMIZERS[name]) for name in names] == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("name", ["Adam", "SGD nesterov", "NAdam", "ASGD"])
def test_the_latest_start_counts_where_rows_and_columns_cross(name: str) -> None:
    make = ELEMENTWISE_OPTIMIZERS[name]
    model, optimizer, wrapper, _ = renewed(make, 0, 50)
    weight = model.one.weight
    fresh: dict[str, tuple[nn.Parameter, optim.Optimizer, Callable[[torch.Tensor], torch.Tensor]]] = {}

    def start(label: str, axis: int, entries: list[int], pick: Callable[[torch.Tensor], torch.Tensor]) -> None:
        wrapper.renew(weight, axis, torch.tensor(entries))
        leaf = nn.Parameter(pick(weight.detach()).clone())
        fresh[label] = (leaf, make([leaf]), pick)

    def advance(steps: range) -> None:
        for step in steps:
            give_gradients(model, step)
            for leaf, own, pick in fresh.values():
                assert weight.grad is not None
                leaf.grad = pick(weight.grad).clone()
                own.step()
            optimizer.step()

    start("row 1", 0, [1], lambda w: w[1, [0, 1, 3, 4]])
    advance(range(50, 60))
    start("column 2, later", 1, [2], lambda w: w[[0, 1, 2, 5], 2])
    advance(range(60, 70))
    start("row 3, latest, starts a second time", 0, [3, 4], lambda w: w[[3, 4]])
    held = [(entry["axis"], entry["indices"].tolist()) for entry in wrapper.state_dict()]
    # Each entry is held once along each axis; what is grown up (SGD, after a step) no longer.
    assert held == ([(0, [3, 4])] if name.startswith("SGD") else [(0, [1]), (1, [2]), (0, [3, 4])])
    advance(range(70, 90))
    for label, (leaf, _, pick) in fresh.items():
        torch.testing.assert_close(pick(weight.detach()), leaf.detach(), rtol=1e-12, atol=1e-14, msg=label)


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


def test_a_new_entry_without_a_gradient_waits() -> None:
    model, optimizer, wrapper, index = renewed(ELEMENTWISE_OPTIMIZERS["Adam"], 0, 10)
    before = model.one.weight.detach().clone()
    optimizer.zero_grad()
    optimizer.step()
    assert torch.equal(model.one.weight, before) and wrapper.state_dict()[0]["steps"] == 0
    give_gradients(model, 1)
    optimizer.step()
    first = (model.one.weight.detach() - before)[index].abs()
    torch.testing.assert_close(first, torch.full_like(first, 0.01), rtol=1e-5, atol=0)  # as long as the learning rate


def test_before_the_first_step_all_entries_are_fresh_anyway() -> None:
    _, _, wrapper, _ = renewed(ELEMENTWISE_OPTIMIZERS["Adam"], 0, 0)
    assert wrapper.state_dict() == []


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
