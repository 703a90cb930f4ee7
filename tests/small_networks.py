"""Small networks, optimizers and oracles that the tests of the core share."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.nn import functional as F

from graybox.model_with_ops import DepType, NetworkWithOps
from graybox.modules_with_ops import (
    BatchNorm2dWithNeuronOps,
    Conv2dWithNeuronOps,
    Intermediary,
    LinearWithNeuronOps,
    NeuronLayer,
)
from graybox.optimizer_with_ops import OptimizerWithOps
from graybox.surgery import Surgeon


class ChainNet(NetworkWithOps):
    """conv-bn-relu-pool twice, flattened from 2 x 2 positions, two linear layers; [batch, 2, 8, 8] -> [batch, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = Conv2dWithNeuronOps(2, 4, 3, padding=1)
        self.bn1 = BatchNorm2dWithNeuronOps(4)
        self.conv2 = Conv2dWithNeuronOps(4, 5, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2dWithNeuronOps(5)
        self.fc1 = LinearWithNeuronOps(5 * 2 * 2, 6)
        self.fc2 = LinearWithNeuronOps(6, 3)
        self.register_dependencies(
            [
                (self.conv1, self.bn1, DepType.SAME),
                (self.bn1, self.conv2, DepType.INCOMING),
                (self.conv2, self.bn2, DepType.SAME),
                (self.bn2, self.fc1, DepType.INCOMING),
                (self.fc1, self.fc2, DepType.INCOMING),
            ]
        )

    def forward(self, x: torch.Tensor, intermediary: Intermediary | None = None) -> torch.Tensor:
        self.maybe_update_age(x)
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x, intermediary=intermediary))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x, intermediary=intermediary))), 2)
        x = F.relu(self.fc1(x.flatten(1), intermediary=intermediary))
        logits: torch.Tensor = self.fc2(x, intermediary=intermediary)
        return logits

    @staticmethod
    def example(batch: int = 7, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(batch, 2, 8, 8, dtype=dtype)


class ResidualNet(NetworkWithOps):
    """A stem and one residual block, flattened from 4 x 4 positions; [batch, 2, 4, 4] -> [batch, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv2dWithNeuronOps(2, 4, 3, padding=1)
        self.conv1 = Conv2dWithNeuronOps(4, 6, 3, padding=1)
        self.bn1 = BatchNorm2dWithNeuronOps(6)
        self.conv2 = Conv2dWithNeuronOps(6, 4, 3, padding=1)
        self.bn2 = BatchNorm2dWithNeuronOps(4)
        self.head = LinearWithNeuronOps(4 * 4 * 4, 3)
        self.register_dependencies(
            [
                (self.stem, self.conv1, DepType.INCOMING),
                (self.stem, self.head, DepType.INCOMING),
                (self.conv1, self.bn1, DepType.SAME),
                (self.bn1, self.conv2, DepType.INCOMING),
                (self.conv2, self.bn2, DepType.SAME),
                (self.bn2, self.head, DepType.INCOMING),
            ]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.maybe_update_age(x)
        x = F.relu(self.stem(x))
        x = F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        logits: torch.Tensor = self.head(x.flatten(1))
        return logits

    @staticmethod
    def example(batch: int = 7, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(batch, 2, 4, 4, dtype=dtype)


class SequenceNet(NetworkWithOps):
    """Linear layers on a sequence, flattened at the end; [batch, 5, 3] -> [batch, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = LinearWithNeuronOps(3, 4)
        self.mix = LinearWithNeuronOps(4, 6)
        self.head = LinearWithNeuronOps(5 * 6, 2)
        self.register_dependencies([(self.embed, self.mix, DepType.INCOMING), (self.mix, self.head, DepType.INCOMING)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.maybe_update_age(x)
        x = torch.tanh(self.mix(F.relu(self.embed(x))))
        logits: torch.Tensor = self.head(x.flatten(1))
        return logits

    @staticmethod
    def example(batch: int = 7, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(batch, 5, 3, dtype=dtype)


Optimizers = dict[str, Callable[[Any], optim.Optimizer]]

ELEMENTWISE_OPTIMIZERS: Optimizers = {
    "SGD": lambda p: optim.SGD(p, lr=0.05),
    "SGD decay": lambda p: optim.SGD(p, lr=0.05, weight_decay=0.1),
    "SGD nesterov": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "SGD dampening": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.5, maximize=True),
    "Adam": lambda p: optim.Adam(p, lr=0.01),
    "Adam amsgrad": lambda p: optim.Adam(p, lr=0.01, amsgrad=True, weight_decay=0.1),
    "Adam foreach": lambda p: optim.Adam(p, lr=0.01, foreach=True),
    "AdamW": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "AdamW fused": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1, fused=True),
    "NAdam": lambda p: optim.NAdam(p, lr=0.01),
    "RAdam": lambda p: optim.RAdam(p, lr=0.01, weight_decay=0.01),
    "Adamax": lambda p: optim.Adamax(p, lr=0.01),
    "Adagrad": lambda p: optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.1),
    "Adagrad decay": lambda p: optim.Adagrad(p, lr=0.05, lr_decay=0.01, initial_accumulator_value=0.2),
    "Adadelta": lambda p: optim.Adadelta(p, lr=1.0, weight_decay=0.01),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.01),
    "RMSprop all": lambda p: optim.RMSprop(p, lr=0.01, centered=True, momentum=0.9, weight_decay=0.01),
    "Rprop": lambda p: optim.Rprop(p, lr=0.01),
    "ASGD": lambda p: optim.ASGD(p, lr=0.05, lambd=0.01, weight_decay=0.01, t0=5),
}
"""Every class in `graybox.optimizer_with_ops.ELEMENTWISE`, with its options on and off."""


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """For a file that imports it: on tensors this small, threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@contextmanager
def kept_random_state(seed: int = 0) -> Iterator[None]:
    """Seed torch for a while."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def built(kind: type[NetworkWithOps], seed: int = 0, dtype: torch.dtype = torch.float32) -> NetworkWithOps:
    """A network with the same weights for the same seed, and running statistics that are not neutral."""
    with kept_random_state(seed):
        model = kind().to(dtype)
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.uniform_(-0.3, 0.3)
                    assert module.running_mean is not None and module.running_var is not None
                    module.running_mean.uniform_(-0.2, 0.2)
                    module.running_var.uniform_(0.5, 1.5)
    return model


def operated(
    model: NetworkWithOps, make: Callable[[Any], optim.Optimizer]
) -> tuple[optim.Optimizer, OptimizerWithOps, Surgeon]:
    optimizer = make(model.parameters())
    wrapper = OptimizerWithOps(optimizer, model)
    return optimizer, wrapper, Surgeon(model, wrapper)


def give_gradients(model: nn.Module, seed: int) -> None:
    """The same random gradients for the same seed, whatever the weights are."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def train_step(model: nn.Module, optimizer: optim.Optimizer, x: torch.Tensor) -> None:
    """A step on a loss that has a gradient everywhere."""
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


def everything(model: NetworkWithOps, optimizer: optim.Optimizer, wrapper: OptimizerWithOps) -> dict[str, Any]:
    """A copy of all that an edit might touch, random states included."""
    names = {id(p): name for name, p in model.named_parameters()}
    state = {f"model/{name}": value.clone() for name, value in model.state_dict().items()}
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            copied = value.clone() if isinstance(value, torch.Tensor) else value
            state[f"optimizer/{names[id(parameter)]}/{key}"] = copied
    for number, entry in enumerate(wrapper.state_dict()):
        state.update({f"young/{number}/{key}": value for key, value in flattened(entry).items()})
    for name, layer in model.named_layers():
        state.update({f"layer/{name}/{key}": value for key, value in flattened(layer.ops_state()).items()})
    return {**state, **random_state()}


def random_state() -> dict[str, Any]:
    return {
        "random/torch": torch.get_rng_state(),
        "random/numpy": repr(np.random.get_state()),
        "random/python": repr(random.getstate()),
    }


def flattened(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat.update(flattened(item, f"{prefix}{key}/") if isinstance(item, dict) else {f"{prefix}{key}": item})
    return flat


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names of what is not the same, bit for bit."""
    return [name for name in {**before, **after} if not _same(before.get(name), after.get(name))]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and bits(one) == bits(other)
    return bool(one == other)


def bits(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())


def rows_of(model: NetworkWithOps, layer: NeuronLayer, neurons: list[int]) -> list[torch.Tensor]:
    """Copies of the rows of all parameters that belong to neurons, normalisation included."""
    return [p.detach()[neurons].clone() for p in model.neuron_parameters(layer)]


@contextmanager
def masked(model: NetworkWithOps, layer: NeuronLayer, neurons: tuple[int, ...]) -> Iterator[None]:
    """The network with these neurons zeroed in what every consumer gets."""

    def mask(consumer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        x, *others = inputs
        x = x.clone()
        if x.dim() == 4:
            x[:, list(neurons)] = 0
        elif x.dim() == 3 or x.shape[1] == layer.neuron_count:
            x[..., list(neurons)] = 0
        elif isinstance(layer, LinearWithNeuronOps):
            x.view(x.shape[0], -1, layer.neuron_count)[:, :, list(neurons)] = 0
        else:
            x.view(x.shape[0], layer.neuron_count, -1)[:, list(neurons)] = 0
        return (x, *others)

    hooks = [consumer.register_forward_pre_hook(mask) for consumer in model.consumers(layer)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
