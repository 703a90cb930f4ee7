from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim

from graybox.errors import Invalid, Refused
from graybox.optimizer_with_ops import OptimizerWithOps
from graybox.scalings import Scaling
from tests.optimizer_oracles import (
    ALL,
    COUPLING,
    OneParameter,
    ScalarOracle,
    TwoLayers,
    exchanged,
    per_entry,
    random_source,
)
from tests.small_networks import (
    ELEMENTWISE_OPTIMIZERS,
    bits,
    give_gradients,
    one_thread,  # noqa: F401
    operated,
)


def test_every_elementwise_optimizer_is_here() -> None:
    classes = {type(make([nn.Parameter(torch.zeros(2))])) for make in ALL.values()}
    assert {optim.SGD, optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam, optim.Adamax} <= classes
    assert {optim.Adagrad, optim.Adadelta, optim.RMSprop, optim.Rprop, optim.ASGD} <= classes


@pytest.mark.parametrize("name", ALL)
def test_edits_with_training_between_are_as_if_each_entry_had_its_own_optimizer_since_its_birth(name: str) -> None:
    check_against_single_numbers(name, (3, 4), seed=1, edits=7)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(list(ALL)),
    shape=st.sampled_from([(5,), (1,), (2, 3), (4, 1), (2, 2, 2), (2, 1, 2, 2)]),
    seed=st.integers(0, 10_000),
    edits=st.integers(1, 6),
)
def test_any_sequence_of_edits_on_any_shape(name: str, shape: tuple[int, ...], seed: int, edits: int) -> None:
    check_against_single_numbers(name, shape, seed, edits)


def check_against_single_numbers(name: str, shape: tuple[int, ...], seed: int, edits: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = OneParameter((2,), shape)
    optimizer, wrapper, _ = operated(model, ALL[name])
    oracle = ScalarOracle(model.p1, ALL[name])

    def step() -> None:
        gradient = torch.randn(model.p1.shape, generator=generator, dtype=torch.float64)
        if float(torch.rand((), generator=generator)) < 0.1:
            model.p0.grad, model.p1.grad = torch.ones(2, dtype=torch.float64), None  # a step without a gradient here
        else:
            model.p0.grad, model.p1.grad = None, gradient
        optimizer.step()
        oracle.step(model.p1.grad)

    for _ in range(edits):
        for _ in range(int(torch.randint(0, 4, (), generator=generator))):
            step()
        axis = int(torch.randint(len(shape), (), generator=generator))
        if model.p1.numel() > 30:
            source = random_source(model.p1.shape[axis], generator, "remove permute")
        else:
            source = random_source(model.p1.shape[axis], generator)
        before = {key: value.numpy().copy() for key, value in per_entry(optimizer, model.p1).items()}
        model.p1 = exchanged(wrapper, model.p1, axis, source, generator)
        kept = np.flatnonzero(np.array(source) >= 0)
        after = per_entry(optimizer, model.p1)
        assert after.keys() == before.keys()
        for key, value in before.items():
            expected = np.take(value, np.array(source)[kept], axis)
            assert np.take(after[key].numpy(), kept, axis).tobytes() == expected.tobytes()
        oracle.exchange(axis, source, model.p1.detach())
        torch.testing.assert_close(model.p1.detach(), oracle.values(), rtol=1e-9, atol=1e-12)
    for _ in range(4):
        step()
        torch.testing.assert_close(model.p1.detach(), oracle.values(), rtol=1e-9, atol=1e-12)
    for key, value in per_entry(optimizer, model.p1).items():
        torch.testing.assert_close(value, oracle.state(key), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_the_first_updates_of_new_entries_are_a_fresh_optimizers(name: str) -> None:
    make = ALL[name]
    generator = torch.Generator().manual_seed(3)
    model = OneParameter((4, 3), dtype=torch.float32)
    optimizer, wrapper, _ = operated(model, make)
    for step in range(200):
        give_gradients(model, step)
        optimizer.step()
    model.p0 = exchanged(wrapper, model.p0, 0, [0, -1, 3, -1], generator)
    leaf = nn.Parameter(model.p0.detach()[[1, 3]].clone())
    fresh = make([leaf])
    for step in range(5):
        give_gradients(model, step)
        assert model.p0.grad is not None
        leaf.grad = model.p0.grad[[1, 3]].clone()
        optimizer.step()
        fresh.step()
        torch.testing.assert_close(model.p0.detach()[[1, 3]], leaf.detach(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ALL)
def test_what_is_kept_of_young_entries_brings_them_back_as_they_were(name: str) -> None:
    """Removed while young, trained on without them, then brought back: they go on from where they were."""
    make = ALL[name]
    generator = torch.Generator().manual_seed(5)
    model = OneParameter((4, 3))
    optimizer, wrapper, _ = operated(model, make)

    def step(oracle: ScalarOracle | None = None) -> None:
        model.p0.grad = torch.randn(model.p0.shape, generator=generator, dtype=torch.float64)
        optimizer.step()
        if oracle is not None:
            oracle.step(model.p0.grad)

    for _ in range(5):
        step()
    wrapper.renew_at(model.p0, {})  # all of them are young, so that each entry's own count of steps is kept
    oracle = ScalarOracle(model.p0, make)
    step(oracle)
    column = torch.tensor([1])
    wrapper.renew(model.p0, 1, column)
    for row in range(4):
        oracle.renew((row, 1), model.p0[row, 1])
    step(oracle)
    rows = torch.tensor([2, 0])
    kept = wrapper.entries(model.p0, 0, rows), wrapper.young_at(model.p0, {0: rows}), model.p0.detach()[rows]
    removed = oracle.entries[rows.tolist()]
    model.p0 = exchanged(wrapper, model.p0, 0, [1, 3], generator)
    oracle.entries = oracle.entries[[1, 3]]
    for _ in range(3):
        step(oracle)
    model.p0 = exchanged(wrapper, model.p0, 0, [-1, 0, -1, 1], generator)
    wrapper.put_entries(model.p0, 0, rows, kept[0])
    wrapper.put_young_at(model.p0, {0: rows}, kept[1])
    with torch.no_grad():
        model.p0[rows] = kept[2]
    oracle.entries = np.stack([removed[1], oracle.entries[0], removed[0], oracle.entries[1]])
    for _ in range(4):
        step(oracle)
        torch.testing.assert_close(model.p0.detach(), oracle.values(), rtol=1e-9, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(["Adam", "SGD dampening", "AdamW fused", "NAdam"]), seed=st.integers(0, 10_000))
def test_edits_that_are_taken_back_at_once_leave_no_trace(name: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = OneParameter((3, 4))
    optimizer, wrapper, _ = operated(model, ALL[name])
    for number in range(4):
        give_gradients(model, number)
        optimizer.step()
        size = model.p0.shape[number % 2]
        model.p0 = exchanged(wrapper, model.p0, number % 2, random_source(size, generator), generator)
    before, state, young = model.p0.detach().clone(), optimizer.state_dict(), wrapper.state_dict()
    undo: list[tuple[int, torch.Tensor, Any, Any, torch.Tensor, int]] = []
    for _ in range(3):
        axis = int(torch.randint(2, (), generator=generator))
        size = model.p0.shape[axis]
        source = random_source(size, generator, "remove")
        gone = torch.tensor([i for i in range(size) if i not in source], dtype=torch.int64)
        kept = wrapper.entries(model.p0, axis, gone), wrapper.young_at(model.p0, {axis: gone})
        undo.append((axis, gone, *kept, model.p0.detach().index_select(axis, gone), size))
        model.p0 = exchanged(wrapper, model.p0, axis, source, generator)
    for axis, gone, entries, kept_young, values, size in reversed(undo):
        left = iter(range(size))
        back = [-1 if i in gone.tolist() else next(left) for i in range(size)]
        model.p0 = exchanged(wrapper, model.p0, axis, back, generator)
        wrapper.put_entries(model.p0, axis, gone, entries)
        wrapper.put_young_at(model.p0, {axis: gone}, kept_young)
        with torch.no_grad():
            model.p0.index_copy_(axis, gone, values)
    assert bits(model.p0) == bits(before)
    for key, value in state["state"][0].items():
        assert bits(optimizer.state_dict()["state"][0][key]) == bits(value), key
    assert plain(wrapper.state_dict()) == plain(young)


def plain(value: Any) -> Any:
    """Tensors as lists, to compare."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


# -- edges ---------------------------------------------------------------------------------------------


def test_it_takes_the_same_place_in_the_same_group() -> None:
    model = OneParameter((2, 3), (3,), (3, 2))
    groups = [{"params": [model.p0, model.p1], "lr": 0.5}, {"params": [model.p2], "lr": 0.25}]
    optimizer = optim.SGD(groups, momentum=0.9)
    wrapper = OptimizerWithOps(optimizer, model)
    dicts, lists = list(optimizer.param_groups), [group["params"] for group in optimizer.param_groups]
    give_gradients(model, 0)
    optimizer.step()
    old, generator = model.p1, torch.Generator().manual_seed(0)
    value = old.detach().clone()
    model.p1 = exchanged(wrapper, old, 0, [2, 0], generator)
    assert all(a is b for a, b in zip(dicts, optimizer.param_groups, strict=True))
    assert all(a is b["params"] for a, b in zip(lists, optimizer.param_groups, strict=True))
    assert [id(p) for p in dicts[0]["params"]] == [id(model.p0), id(model.p1)]
    assert wrapper.holds(model.p1) and not wrapper.holds(old) and old not in optimizer.state
    assert torch.equal(old, value) and old.grad is not None and old.grad.shape == (3,)
    assert optimizer.state_dict()["param_groups"][0]["params"] == [0, 1]


def test_a_parameter_that_the_optimizer_does_not_hold_is_left_alone() -> None:
    model = OneParameter((2,), (3,))
    optimizer = optim.LBFGS([model.p0])
    wrapper = OptimizerWithOps(optimizer, model)
    model.p1 = exchanged(wrapper, model.p1, 0, [2, -1], torch.Generator())
    assert [p.shape for p in optimizer.param_groups[0]["params"]] == [(2,)] and not optimizer.state


class MySGD(optim.SGD):
    """Nobody knows what a user's class does to its entries."""


@pytest.mark.parametrize("make", [*COUPLING.values(), optim.SparseAdam, optim.Muon, MySGD])
def test_optimizers_that_couple_entries_are_refused_by_name_and_nothing_is_changed(
    make: Callable[[Any], optim.Optimizer],
) -> None:
    model = TwoLayers(bias=False)
    optimizer, wrapper, _ = operated(model, make)
    old = model.one.weight
    assert isinstance(old, nn.Parameter)
    with pytest.raises(Refused, match=f"^{type(optimizer).__name__} couples"):
        wrapper.exchange(old, nn.Parameter(old.detach()[:2].clone()), 0, torch.tensor([0, 1]))
    assert wrapper.holds(old)


def test_a_differentiable_optimizer_is_refused() -> None:
    model = OneParameter((2, 3))
    wrapper = OptimizerWithOps(optim.Adam(model.parameters(), differentiable=True), model)
    with pytest.raises(Refused, match="differentiable=True"):
        exchanged(wrapper, model.p0, 0, [1], torch.Generator())


@pytest.mark.parametrize(
    ("shape", "axis", "source", "message"),
    [
        ((2, 3), 0, [0, 2], "names indices of 2 entries"),
        ((2, 3), 0, [0, -2], "or -1 for a new one"),
        ((2, 3), 0, [0, 1, -1], r"has the shape \(2, 3\) where \(3, 3\) is right"),
        ((2, 2), 0, [0, 1], r"has the shape \(2, 2\) where \(2, 3\) is right"),
        ((2, 3), 2, [0], "no axis 2"),
    ],
)
def test_what_does_not_fit_is_refused(shape: tuple[int, ...], axis: int, source: list[int], message: str) -> None:
    model = OneParameter((2, 3))
    optimizer, wrapper, _ = operated(model, ELEMENTWISE_OPTIMIZERS["Adam"])
    give_gradients(model, 0)
    optimizer.step()
    old = model.p0
    with pytest.raises(Invalid, match=message):
        wrapper.exchange(old, nn.Parameter(torch.zeros(shape, dtype=torch.float64)), axis, torch.tensor(source))
    assert wrapper.holds(old) and optimizer.state[old]["exp_avg"].shape == (2, 3)


@pytest.mark.parametrize("name", ["AdamW fused", "Adam foreach", "RMSprop all"])
def test_the_state_keeps_the_parameters_memory_format(name: str) -> None:
    """A fused step walks over memory: state laid out in another way would be mixed up."""
    model = OneParameter((4, 3, 2, 2), dtype=torch.float32)
    model.p0 = nn.Parameter(model.p0.detach().contiguous(memory_format=torch.channels_last))
    optimizer, wrapper, _ = operated(model, ELEMENTWISE_OPTIMIZERS[name])
    twin = nn.Parameter(model.p0.detach().clone())
    plain_optimizer = ELEMENTWISE_OPTIMIZERS[name]([twin])
    order, left = torch.tensor([2, 0, 1]), torch.tensor([0, 1, 2, 3])

    def step(seed: int) -> None:
        gradient = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
        selected = gradient.index_select(1, order if model.p0.shape[0] < 4 else torch.arange(3))[left]
        model.p0.grad = selected.contiguous(memory_format=torch.channels_last)
        twin.grad = gradient.contiguous(memory_format=torch.channels_last)
        optimizer.step()
        plain_optimizer.step()

    step(0)
    for axis, source in ((0, torch.tensor([3, 1])), (1, order)):
        value = model.p0.detach().index_select(axis, source).contiguous(memory_format=torch.channels_last)
        new = nn.Parameter(value)
        wrapper.exchange(model.p0, new, axis, source)
        model.p0 = new
    left = torch.tensor([3, 1])
    for seed in range(1, 5):
        step(seed)
    assert all(value.stride() == model.p0.stride() for value in per_entry(optimizer, model.p0).values())
    expected = twin.detach()[left].index_select(1, order)
    torch.testing.assert_close(model.p0.detach(), expected, rtol=1e-6, atol=1e-7)


def test_nothing_holds_on_to_what_was_replaced() -> None:
    model = ScaledTwice((4, 3))
    optimizer, wrapper, _ = operated(model, ELEMENTWISE_OPTIMIZERS["Adam"])
    for step in range(2):
        give_gradients(model, step)
        optimizer.step()
        wrapper.renew(model.p0, 0, torch.tensor([step]))
    gone = [weakref.ref(model.p0), *(weakref.ref(value) for value in per_entry(optimizer, model.p0).values())]
    model.p0 = exchanged(wrapper, model.p0, 0, [3, 1, -1, 0], torch.Generator().manual_seed(0))
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3


class ScaledTwice(OneParameter):
    """A network whose rows are scaled, whatever their number."""

    def update_scalings(self) -> list[Scaling]:
        return [Scaling(self.p0, 0, torch.full((len(self.p0),), 0.5, dtype=torch.float64))]
