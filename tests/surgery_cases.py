"""Networks of all topologies with an optimizer and a surgeon at work on them, and what edits are compared with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn, optim
from torch.utils._pytree import tree_leaves

from graybox.errors import GrayboxError, Refused
from graybox.neuron_ops import AddNeurons, NeuronEdit, RemoveNeurons, SortByStat
from graybox.operable_network import operable
from graybox.optimizer_with_ops import OptimizerWithOps
from graybox.plan import Plan
from graybox.surgery import Applied, Surgeon
from graybox.tracking import TrackingMode
from tests.small_networks import ELEMENTWISE_OPTIMIZERS, everything
from tests.structure_oracles import made, tensors
from tests.topologies import TOPOLOGIES

Make = Callable[[Any], optim.Optimizer]
ADAM = ELEMENTWISE_OPTIMIZERS["Adam"]


class Desk:
    """A network in float64 that has made a few steps, with statistics, its optimizer and a surgeon."""

    def __init__(self, topology: str, make: Make = ADAM, *, steps: int = 3, dtype: torch.dtype = torch.float64) -> None:
        self.plain, self.x = made(TOPOLOGIES[topology])
        if dtype is not torch.float64:
            self.plain = self.plain.to(dtype)
            self.x = self.x.to(dtype) if self.x.is_floating_point() else self.x
        self.network: Any = operable(self.plain, self.x)
        self.optimizer = make(self.network.parameters())
        self.wrapper = OptimizerWithOps(self.optimizer, self.network)
        self.surgeon = Surgeon(self.network, self.wrapper)
        self.steps = 0
        self.train(steps)

    def train(self, steps: int = 1) -> None:
        """Steps on random data: the same in every desk."""
        self.network.train()
        for _ in range(steps):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(100 + self.steps)
                x = type(self.plain).example(6)
                x = x.to(self.x.dtype)
                self.network.set_tracking_mode(TrackingMode.TRAIN)
                self.optimizer.zero_grad()
                loss = sum(leaf.square().mean() for leaf in tree_leaves(self.network(x)))
                assert isinstance(loss, torch.Tensor)
                loss.backward()
                self.optimizer.step()
                self.network.set_tracking_mode(TrackingMode.DISABLED)
            self.steps += 1
        self.network.eval()

    def do(self, edit: NeuronEdit, seed: int = 5) -> Applied:
        return self.surgeon.apply(self.surgeon.plan(edit), seed)

    def undo(self, applied: Applied) -> str:
        """As after a restart: from what the journal and the blobs hold."""
        return self.surgeon.undo(json.loads(json.dumps(applied.undo)), dict(applied.arrays))

    def state(self) -> dict[str, Any]:
        """All that an edit might touch, modules' numbers included."""
        state = everything(self.network, self.optimizer, self.wrapper)
        for name, module in self.network.named_modules():
            for key, value in vars(module).items():
                numbers = value if type(value) is tuple else (value,)
                if numbers and not key.startswith("_") and all(isinstance(number, int) for number in numbers):
                    state[f"module/{name}/{key}"] = repr(value)
        return state

    def layers(self) -> list[str]:
        return [name for name, _ in self.network.named_layers()]

    def planned(self, make: Callable[[str, tuple[int, ...]], NeuronEdit]) -> Plan:
        """The plan of the first layer in which the edit can be done exactly, with all that must go along."""
        for name in self.layers():
            plan = self.planned_in(name, make)
            if plan is not None:
                return plan
        raise AssertionError("no layer of this network can be edited so")

    def planned_in(self, name: str, make: Callable[[str, tuple[int, ...]], NeuronEdit]) -> Plan | None:
        neurons: tuple[int, ...] = (1,)
        for _ in range(2):
            try:
                return self.surgeon.plan(make(name, neurons))
            except GrayboxError as error:
                together = getattr(error, "details", {}).get("together")
                if not isinstance(together, (list, tuple)):
                    return None
                neurons = tuple(together)
        return None


def removal(name: str, neurons: tuple[int, ...]) -> NeuronEdit:
    return RemoveNeurons(name, neurons)


def addition(desk: Desk, count: int = 2) -> Plan:
    """Of so many neurons, or of as many as must come together."""
    for name in desk.layers():
        for number in (count, count + 1, 4, 6, 8):
            try:
                return desk.surgeon.plan(AddNeurons(name, count=number))
            except Refused:
                continue
    raise AssertionError("no layer of this network can grow")


def sorting(desk: Desk) -> Plan:
    """Of a layer that the order of its weights' sizes really changes."""
    for name in desk.layers():
        try:
            plan = desk.surgeon.plan(SortByStat(name, statistic="weight_norm"))
        except Refused:
            continue
        if list(plan.neurons) != sorted(plan.neurons):
            return plan
    raise AssertionError("no layer of this network can be sorted")


def optimizer_state(desk: Desk) -> dict[str, dict[str, Any]]:
    """Copies, by the parameter's name."""
    names = {id(p): name for name, p in desk.network.named_parameters()}
    return {
        names[id(p)]: {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in state.items()}
        for p, state in desk.optimizer.state.items()
    }


def check_followed(plan: Plan, before: dict[str, dict[str, Any]], desk: Desk, fresh: dict[str, float]) -> None:
    """The optimizer's state is the index-selected old one, and for new entries what a fresh optimizer has.

    fresh: by key, where it is not zero.
    """
    assert plan.change is not None
    after = optimizer_state(desk)
    assert set(after) == set(before)
    shapes = {name: p.shape for name, p in desk.network.named_parameters()}
    for name, old in before.items():
        for key, value in old.items():
            expected = value
            if isinstance(value, torch.Tensor) and value.dim():
                for axis in plan.change.axes:
                    if axis.tensor == name:
                        expected = expected.index_select(axis.axis, torch.from_numpy(np.maximum(axis.source, 0)))
                        new = torch.from_numpy(np.flatnonzero(axis.source < 0))
                        expected = expected.index_fill(axis.axis, new, fresh.get(key, 0.0))
                assert after[name][key].shape == shapes[name]
                assert torch.equal(after[name][key], expected), (name, key)
            else:
                assert after[name][key] == expected, (name, key)


def values(network: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in tensors(network).items()}


@contextmanager
def failing(target: Any, name: str, after: int) -> Iterator[None]:
    """A method of an object that raises when it is called once more than `after` times, for a while."""
    original = getattr(target, name)
    calls = 0

    def broken(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == after + 1:
            raise RuntimeError("the disk is full of snow")
        return original(*arguments, **options)

    setattr(target, name, broken)
    try:
        yield
    finally:
        delattr(target, name)
