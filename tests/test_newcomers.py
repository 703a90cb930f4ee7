from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn, optim

from graybox.newcomers import young_steps
from tests.optimizer_oracles import renewed
from tests.small_networks import (
    ELEMENTWISE_OPTIMIZERS,
    bits,
    give_gradients,
    one_thread,  # noqa: F401
)


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
    assert [steps(ELEMENTWISE_OPTIMIZERS[name]) for name in names] == [0, 0, 0, 0, 0]


@pytest.mark.parametrize("name", ["Adam", "SGD nesterov", "SGD dampening", "NAdam", "ASGD"])
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
    held = torch.zeros(weight.shape, dtype=torch.int64)
    for entry in wrapper.state_dict():
        index = [torch.arange(size) for size in weight.shape]
        index[entry["axis"]] = entry["indices"]
        for axis, indices in entry.get("across", {}).items():
            index[int(axis)] = indices
        held[index[0][:, None], index[1]] += 60 - int(entry["steps"])
    expected = torch.zeros_like(held)  # each entry once, and how many steps it lacks to 60
    if not name.startswith("SGD"):
        expected[1], expected[:, 2], expected[[3, 4]] = 40, 50, 60
    elif "dampening" in name:
        expected[[3, 4]] = 60  # what is grown up after a step is held no longer
    assert torch.equal(held, expected)
    advance(range(70, 90))
    for label, (leaf, _, pick) in fresh.items():
        torch.testing.assert_close(pick(weight.detach()), leaf.detach(), rtol=1e-12, atol=1e-14, msg=label)


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
