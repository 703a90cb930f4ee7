"""What holds on to an optimizer (schedulers, gradient scalers, a live loss) goes on through an exchange."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.amp import GradScaler
from torch.optim import lr_scheduler

from graybox.optimizer_with_ops import OptimizerWithOps
from tests.optimizer_oracles import OneParameter, TwoLayers, exchanged
from tests.small_networks import (
    ELEMENTWISE_OPTIMIZERS,
    Optimizers,
    bits,
    give_gradients,
    one_thread,  # noqa: F401
    operated,
)

SCHEDULERS: dict[str, Callable[[optim.Optimizer], Any]] = {
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, max_lr=[0.1, 0.2], total_steps=40),
    "StepLR": lambda o: lr_scheduler.StepLR(o, step_size=3, gamma=0.5),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1, factor=0.5),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, [lambda step: 1 / (1 + step), lambda step: 0.9**step]),
}
MOVING: Optimizers = {
    "SGD": lambda p: optim.SGD(p, lr=0.05, momentum=0.9),
    "Adam": lambda p: optim.Adam(p, lr=0.01),
    "AdamW tensor lr": lambda p: optim.AdamW(p, lr=torch.tensor(0.01)),
}


@pytest.mark.parametrize("scheduler_name", SCHEDULERS)
@pytest.mark.parametrize("name", MOVING)
def test_a_schedule_goes_on_as_if_nothing_had_been_removed(name: str, scheduler_name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    ours, plain = OneParameter((5, 3), (4,)), OneParameter((5, 3), (4,))

    def made(model: OneParameter) -> tuple[optim.Optimizer, Any]:
        optimizer = MOVING[name]([{"params": [model.p0]}, {"params": [model.p1], "weight_decay": 0.1}])
        return optimizer, SCHEDULERS[scheduler_name](optimizer)

    (optimizer, scheduler), (plain_optimizer, plain_scheduler) = made(ours), made(plain)
    wrapper = OptimizerWithOps(optimizer, ours)
    left = list(range(5))
    rates = set()
    for step in range(30):
        give_gradients(plain, step)
        assert plain.p0.grad is not None and plain.p1.grad is not None
        ours.p0.grad, ours.p1.grad = plain.p0.grad[left].clone(), plain.p1.grad.clone()
        for o, s in ((optimizer, scheduler), (plain_optimizer, plain_scheduler)):
            o.step()
            if scheduler_name == "ReduceLROnPlateau":
                s.step(1.0)
            else:
                s.step()
        if step in (7, 19):
            ours.p0 = exchanged(wrapper, ours.p0, 0, (source := [3, 0, 2, 1][: len(left) - 1]), generator)
            left = [left[i] for i in source]
        assert [float(g["lr"]) for g in optimizer.param_groups] == [
            float(g["lr"]) for g in plain_optimizer.param_groups
        ]
        rates.add(float(optimizer.param_groups[0]["lr"]))
        assert bits(ours.p0) == bits(plain.p0.detach()[left]) and bits(ours.p1) == bits(plain.p1)
    assert len(rates) > 2 and len(left) == 3


@pytest.mark.parametrize("scheduler_name", SCHEDULERS)
def test_new_entries_follow_the_schedule(scheduler_name: str) -> None:
    """Momentum and betas too, which OneCycleLR moves."""
    make = MOVING["Adam"]
    model = OneParameter((3, 2), (4,))
    optimizer = make([{"params": [model.p0]}, {"params": [model.p1]}])
    scheduler = SCHEDULERS[scheduler_name](optimizer)
    wrapper = OptimizerWithOps(optimizer, model)
    leaf: nn.Parameter | None = None
    for step in range(30):
        if step == 10:
            model.p0 = exchanged(wrapper, model.p0, 0, [0, 1, -1, 2], torch.Generator().manual_seed(1))
            leaf = nn.Parameter(model.p0.detach()[[2]].clone())
            fresh = make([leaf])
        give_gradients(model, step)
        if leaf is not None:
            assert model.p0.grad is not None
            leaf.grad = model.p0.grad[[2]].clone()
            options = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
            fresh.param_groups[0].update(options)
            fresh.step()
        optimizer.step()
        if scheduler_name == "ReduceLROnPlateau":
            scheduler.step(1.0)
        else:
            scheduler.step()
        if leaf is not None:
            torch.testing.assert_close(model.p0.detach()[[2]], leaf.detach(), rtol=1e-12, atol=1e-14)


# -- gradient scaler -----------------------------------------------------------------------------------


SCALED: Optimizers = {
    "SGD": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.5),
    "SGD fused": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.5, fused=True),
    "Adam": lambda p: optim.Adam(p, lr=0.01),
    "AdamW fused": lambda p: optim.AdamW(p, lr=0.01, fused=True),
    "Adam fused amsgrad": lambda p: optim.Adam(p, lr=0.01, fused=True, amsgrad=True),
    "Adagrad fused": lambda p: optim.Adagrad(p, lr=0.01, lr_decay=0.01, fused=True),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.01),
}


@pytest.mark.parametrize("unscale_first", [False, True])
@pytest.mark.parametrize("name", SCALED)
def test_a_gradient_scaler_goes_on_and_skips_what_overflows(name: str, unscale_first: bool) -> None:
    """Powers of two scale and unscale without rounding, so that training without a scaler is the oracle."""
    make = SCALED[name]
    models = [OneParameter((4, 3), (3,), dtype=torch.float32) for _ in range(2)]
    wrapped = [operated(model, make) for model in models]
    scaler = GradScaler("cpu", init_scale=1024.0, growth_interval=3)
    generators = [torch.Generator().manual_seed(2) for _ in models]
    overflows = {4, 6, 9}
    edits = {3: [0, -1, 3, 2, -1], 6: [4, 0, -1, 1], 8: [3, 0, -1, 1]}
    for step in range(14):
        if step in edits:  # new entries meet an overflow in their first step, or later
            for model, (_, wrapper, _), generator in zip(models, wrapped, generators, strict=True):
                model.p0 = exchanged(wrapper, model.p0, 0, edits[step], generator)
        x = torch.randn(models[0].p0.shape, generator=torch.Generator().manual_seed(step))
        losses = [(model.p0 * x).square().sum() + (model.p1 * x.sum()).square().sum() for model in models]
        optimizer = wrapped[0][0]
        optimizer.zero_grad()
        scaler.scale(losses[0]).backward()
        if step in overflows:
            assert models[0].p0.grad is not None
            models[0].p0.grad[0, 0] = float("inf")
        before = [p.detach().clone() for p in models[0].parameters()]
        young = [entry["indices"].tolist() for entry in wrapped[0][1].state_dict()]
        scale = scaler.get_scale()
        if unscale_first:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        if step in overflows:
            assert scaler.get_scale() == scale / 2
            assert [bits(p) for p in models[0].parameters()] == [bits(p) for p in before]
            assert [entry["indices"].tolist() for entry in wrapped[0][1].state_dict()] == young
            continue
        wrapped[1][0].zero_grad()
        losses[1].backward()
        wrapped[1][0].step()
        for p, q in zip(*(model.parameters() for model in models), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)
    for p, q in zip(*(model.parameters() for model in models), strict=True):
        for key, value in wrapped[0][0].state[p].items():
            torch.testing.assert_close(value, wrapped[1][0].state[q][key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["SGD", "AdamW fused"])
def test_gradients_that_are_scaled_already_go_along(name: str) -> None:
    """An edit between backward and step: the removed row's gradient is gone, the others' are as they were."""
    model = OneParameter((4, 3), dtype=torch.float32)
    plain = nn.Parameter(model.p0.detach()[[3, 1]].clone())
    optimizer, wrapper, _ = operated(model, SCALED[name])
    scaler = GradScaler("cpu", init_scale=256.0)
    for _ in range(2):
        optimizer.zero_grad()
        scaler.scale(model.p0.square().sum()).backward()
        if model.p0.shape[0] == 4:
            model.p0 = exchanged(wrapper, model.p0, 0, [3, 1], torch.Generator())
        scaler.step(optimizer)
        scaler.update()
    plain_optimizer = SCALED[name]([plain])
    for _ in range(2):
        plain.grad = 2 * plain.detach()
        plain_optimizer.step()
    torch.testing.assert_close(model.p0.detach(), plain.detach(), rtol=1e-6, atol=1e-7)


# -- a live loss ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Adam", "AdamW fused", "SGD nesterov"])
def test_a_loss_from_before_the_edit_neither_fails_nor_touches_the_new_parameter(name: str) -> None:
    torch.manual_seed(0)
    model = TwoLayers()
    optimizer, wrapper, _ = operated(model, ELEMENTWISE_OPTIMIZERS[name])
    give_gradients(model, 0)
    optimizer.step()
    optimizer.zero_grad()
    x = torch.randn(5, 3)
    loss = model(x).square().mean()
    expected = torch.autograd.grad(model(x).square().mean(), list(model.parameters()))
    old = dict(model.named_parameters())
    generator = torch.Generator().manual_seed(0)
    model.one.weight = exchanged(wrapper, model.one.weight, 0, [0, 2, -1], generator)
    assert model.one.bias is not None
    model.one.bias = exchanged(wrapper, model.one.bias, 0, [0, 2, -1], generator)
    model.two.weight = exchanged(wrapper, model.two.weight, 1, [0, 2, -1], generator)
    model.one.frozen, model.one.neuron_learning_rate = torch.zeros(3, dtype=torch.bool), torch.ones(3).double()
    values = {key: value.detach().clone() for key, value in model.named_parameters()}
    loss.backward()
    for (key, parameter), gradient in zip(old.items(), expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient)
        now = dict(model.named_parameters())[key]
        assert bits(now) == bits(values[key])
        assert now is parameter or now.grad is None
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()
    assert all(bits(p) != bits(values[key]) for key, p in model.named_parameters())
