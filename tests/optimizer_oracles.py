"""Networks and oracles that the tests of the optimizer share."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import nn, optim

from graybox.model_with_ops import DepType, NetworkWithOps
from graybox.modules_with_ops import LinearWithNeuronOps
from graybox.optimizer_with_ops import OptimizerWithOps
from tests.small_networks import (
    ELEMENTWISE_OPTIMIZERS,
    Optimizers,
    give_gradients,
    one_thread,  # noqa: F401
    operated,
)

COUPLING: Optimizers = {
    "LBFGS": lambda p: optim.LBFGS(p, lr=0.1, max_iter=3),
    "Adafactor": lambda p: optim.Adafactor(p, lr=0.05),
}


MORE: Optimizers = {
    "SGD momentum fused": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.1, fused=True),
    "AdamW all": lambda p: optim.AdamW(p, lr=0.01, amsgrad=True, maximize=True, foreach=True, weight_decay=0.1),
    "Adam fused amsgrad": lambda p: optim.Adam(p, lr=0.01, amsgrad=True, fused=True, maximize=True),
    "NAdam decay": lambda p: optim.NAdam(p, lr=0.01, weight_decay=0.1, decoupled_weight_decay=True, foreach=True),
    "RAdam foreach": lambda p: optim.RAdam(p, lr=0.01, foreach=True, maximize=True, decoupled_weight_decay=True),
    "Adamax foreach": lambda p: optim.Adamax(p, lr=0.01, foreach=True, weight_decay=0.1),
    "Adagrad fused": lambda p: optim.Adagrad(p, lr=0.05, lr_decay=0.01, initial_accumulator_value=0.2, fused=True),
    "Adadelta foreach": lambda p: optim.Adadelta(p, lr=1.0, foreach=True, maximize=True),
    "RMSprop foreach": lambda p: optim.RMSprop(p, lr=0.01, centered=True, foreach=True, maximize=True),
    "Rprop foreach": lambda p: optim.Rprop(p, lr=0.01, foreach=True, maximize=True),
    "ASGD foreach": lambda p: optim.ASGD(p, lr=0.05, foreach=True, maximize=True, t0=3),
    "Adam tensor lr": lambda p: optim.Adam(p, lr=torch.tensor(0.01)),
}
ALL: Optimizers = {**ELEMENTWISE_OPTIMIZERS, **MORE}


def per_entry(optimizer: optim.Optimizer, parameter: nn.Parameter) -> dict[str, torch.Tensor]:
    state = optimizer.state.get(parameter, {})
    return {k: v for k, v in state.items() if isinstance(v, torch.Tensor) and v.shape == parameter.shape and v.dim()}


class TwoLayers(NetworkWithOps):
    def __init__(self, inputs: int = 3, hidden: int = 4, bias: bool = True) -> None:
        super().__init__()
        self.one = LinearWithNeuronOps(inputs, hidden, bias=bias)
        self.two = LinearWithNeuronOps(hidden, 2, bias=bias)
        self.register_dependencies([(self.one, self.two, DepType.INCOMING)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.two(torch.relu(self.one(x)))
        return answer


def within_one_unit(
    old: torch.Tensor, unscaled: torch.Tensor, rate: float, new: torch.Tensor, more: float = 0.0
) -> bool:
    """old + rate * (unscaled - old) in exact arithmetic, against `new`, in units in the last place of the result; where
    it cancels, of the larger operand in float64, in which it is computed. more: a further tolerance."""
    for o, u, n in zip(old.flatten().tolist(), unscaled.flatten().tolist(), new.flatten().tolist(), strict=True):
        exact = Fraction(o) + Fraction(rate) * (Fraction(u) - Fraction(o))
        kind = np.float32 if new.dtype is torch.float32 else np.float64
        unit = float(np.spacing(kind(abs(float(exact)))))
        cancelled = float(np.spacing(max(abs(o), abs(u), abs(rate * (u - o)))))
        if abs(Fraction(n) - exact) > Fraction(max(unit, 2 * cancelled) + more):
            return False
    return True


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


class ScalarOracle:
    """A parameter as single numbers: each entry is a parameter of its own, stepped by an optimizer of its own that was
    made when the entry was born. Knows nothing of tensors, axes or optimizer state."""

    def __init__(self, values: torch.Tensor, make: Callable[[Any], optim.Optimizer]) -> None:
        self._make = make
        self.entries = np.empty(values.shape, dtype=object)
        for place in np.ndindex(*values.shape):
            self.entries[place] = self._born(values[place])

    def _born(self, value: torch.Tensor) -> tuple[nn.Parameter, optim.Optimizer]:
        leaf = nn.Parameter(value.detach().clone().reshape(1))
        return leaf, self._make([leaf])

    def step(self, gradient: torch.Tensor | None) -> None:
        for place in np.ndindex(*self.entries.shape):
            leaf, own = self.entries[place]
            leaf.grad = None if gradient is None else gradient[place].reshape(1).clone()
            own.step()

    def renew(self, place: tuple[int, ...], value: torch.Tensor) -> None:
        self.entries[place] = self._born(value)

    def exchange(self, axis: int, source: list[int], values: torch.Tensor) -> None:
        """values: of the new tensor; only those of new entries are looked at."""
        self.entries = np.take(self.entries, np.maximum(source, 0), axis)
        for place in np.ndindex(*self.entries.shape):
            if source[place[axis]] < 0:
                self.entries[place] = self._born(values[place])

    def values(self) -> torch.Tensor:
        flat = [leaf.detach().reshape(()) for leaf, _ in self.entries.flatten()]
        return torch.stack(flat).reshape(self.entries.shape)

    def state(self, key: str) -> torch.Tensor:
        """Of an optimizer whose state has `key` for every entry."""
        flat = [own.state[leaf][key].reshape(()) for leaf, own in self.entries.flatten()]
        return torch.stack(flat).reshape(self.entries.shape)


def random_source(size: int, generator: torch.Generator, kinds: str = "remove insert permute all") -> list[int]:
    """How an edit might rearrange an axis of so many entries."""
    kind = kinds.split()[int(torch.randint(len(kinds.split()), (), generator=generator))]
    source = list(range(size))
    if kind in ("remove", "all") and size > 1:
        gone = int(torch.randint(1, size, (), generator=generator))
        source = sorted(torch.randperm(size, generator=generator)[gone:].tolist())
    if kind in ("permute", "all"):
        source = [source[i] for i in torch.randperm(len(source), generator=generator).tolist()]
    if kind in ("insert", "all"):
        for _ in range(int(torch.randint(1, 3, (), generator=generator))):
            source.insert(int(torch.randint(len(source) + 1, (), generator=generator)), -1)
    return source


def exchanged(
    wrapper: OptimizerWithOps, old: nn.Parameter, axis: int, source: list[int], generator: torch.Generator
) -> nn.Parameter:
    """What surgery does to one parameter: a new one with the old values, gradient and optimizer state in their places,
    and something random in the new ones."""
    index = torch.tensor(source)
    values = old.detach().index_select(axis, index.clamp(min=0))
    shape = list(values.shape)
    shape[axis] = int((index < 0).sum())
    fresh = torch.randn(shape, generator=generator, dtype=values.dtype)
    values.index_copy_(axis, (index < 0).nonzero().flatten(), fresh)
    new = nn.Parameter(values)
    if old.grad is not None:
        new.grad = old.grad.index_select(axis, index.clamp(min=0))
    wrapper.exchange(old, new, axis, index)
    return new


class OneParameter(NetworkWithOps):
    """A network that is nothing but parameters."""

    def __init__(self, *shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(11)
        for number, shape in enumerate(shapes):
            value = torch.randn(shape, generator=generator, dtype=dtype)
            self.register_parameter(f"p{number}", nn.Parameter(value))
