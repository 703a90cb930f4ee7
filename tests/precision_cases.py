"""Networks in float32 and under autocast, on every device there is, and how far their answers may be off."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from graybox.structure.change import Change
from graybox.tracking import TrackingMode
from tests.structure_oracles import consumed, difference, logits, masked, tensors
from tests.surgery_cases import ADAM, Desk, Make

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


@dataclass(frozen=True)
class Precision:
    """How a network with float32 parameters is run."""

    device: str
    autocast: bool

    def __str__(self) -> str:
        return f"{self.device}-{'autocast' if self.autocast else 'float32'}"

    def forward(self) -> AbstractContextManager[Any]:
        """The region in which the forward pass belongs."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.autocast)

    @property
    def tolerance(self) -> float:
        """How far the answers of two networks that are the same may be apart, relative to the largest logit.

        float32: the same up to 72 products are added up in another order, which is worth sqrt(72) roundings of half
        an eps a layer, in up to eight layers one after the other: 32 eps. Autocast: sums are float32 too, so that
        another order only tips single roundings of a layer's results, by an eps of theirs; sqrt(8 layers) of them
        and some room: 4 eps.
        """
        return 4 * torch.finfo(torch.bfloat16).eps if self.autocast else 32 * torch.finfo(torch.float32).eps

    @property
    def visible(self) -> float:
        """What shows that something changed. With autocast the tolerance is 3 % of the largest logit, so that there is
        no room for more than a few times that."""
        return (8 if self.autocast else 1000) * self.tolerance


PRECISIONS = [Precision(device, autocast) for device in DEVICES for autocast in (False, True)]
Answers = dict[Precision, torch.Tensor]
AUTOCAST = [precision for precision in PRECISIONS if precision.autocast]


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    """For a file that imports it: on CUDA, float32 is float32, and a kernel does the same twice."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield


class PreciseDesk(Desk):
    """A desk whose network is float32, on the device of a precision and trained in it. layer: the only one that edits
    are looked for in, where that matters."""

    def __init__(
        self, topology: str, precision: Precision, make: Make = ADAM, *, layer: str = "", steps: int = 3
    ) -> None:
        self.precision, self.layer = precision, layer
        super().__init__(topology, make, steps=0, dtype=torch.float32)
        self.plain.to(precision.device)
        self.x = self.network.example_input = self.x.to(precision.device)
        if precision.device != "cpu":  # what Adagrad makes beforehand goes to its parameters' device
            self.optimizer.load_state_dict(self.optimizer.state_dict())
        self.train(steps)

    def layers(self) -> list[str]:
        return [self.layer] if self.layer else super().layers()

    def backward(self, scaler: torch.amp.GradScaler | None = None) -> None:
        """Gradients on random data, the same in every desk; statistics are taken."""
        self.network.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(100 + self.steps)
            x = type(self.plain).example(6)
        self.network.set_tracking_mode(TrackingMode.TRAIN)
        self.optimizer.zero_grad()
        with self.precision.forward():
            leaves = tree_leaves(self.network(x.to(self.precision.device)))
            loss = torch.stack([leaf.float().square().mean() for leaf in leaves]).sum()
        (loss if scaler is None else scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        self.network.set_tracking_mode(TrackingMode.DISABLED)
        self.network.eval()
        self.steps += 1

    def train(self, steps: int = 1) -> None:
        for _ in range(steps):
            self.backward()
            self.optimizer.step()

    def answers(self, network: nn.Module | None = None) -> Answers:
        """What the network, or a copy of it that was changed, answers in evaluation and in training mode, in every
        precision of the device: float64 on the CPU."""
        network = self.plain if network is None else network
        found = {}
        for precision in PRECISIONS:
            if precision.device != self.precision.device:
                continue
            with precision.forward(), torch.no_grad():
                evaluated = logits(network, self.x)
                # Running statistics are written to copies.
                buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
                trained = torch.func.functional_call(network.train(), buffers, (self.x,))
            network.eval()
            parts = [evaluated, *(leaf.flatten() for leaf in tree_leaves(trained))]
            found[precision] = torch.cat([part.to("cpu", torch.float64) for part in parts])
        return found

    def without(self, change: Change) -> nn.Module:
        """A copy in which the neurons are masked that the change removes."""
        if self.precision.device == "cpu":
            return masked(self.plain, change)
        return masked(copy.deepcopy(self.plain).cpu(), change).to(self.precision.device)

    def on_cpu(self) -> Any:
        """With network and optimizer on the CPU, by the names that a desk has for them; copies where they are not."""
        if self.precision.device == "cpu":
            return self
        copied = copy.copy(self)
        copied.plain, copied.optimizer = copy.deepcopy((self.plain, self.optimizer))
        copied.network = copied.plain.cpu()
        for state in copied.optimizer.state.values():
            state.update({key: value.cpu() for key, value in state.items() if isinstance(value, torch.Tensor)})
        return copied

    def rely_on(self, change: Change) -> None:
        """Let the network listen more to neurons that a change removes, or to half of those that it moves: under
        autocast a network would not show much that it does without one of many."""
        with torch.no_grad():
            for name, axis in consumed(self.plain, change).items():
                weight = tensors(self.plain)[name]
                indices = axis.removed if len(axis.removed) else axis.source[: axis.size // 2]
                factors = torch.ones(axis.size).index_fill_(0, torch.from_numpy(indices), 10.0)
                weight.mul_(
                    factors.view([-1 if dim == axis.axis else 1 for dim in range(weight.dim())]).to(weight.device)
                )


def check_same(edited: Answers, expected: Answers) -> None:
    """Two networks are the same, in every precision."""
    for precision, answer in edited.items():
        error = difference(answer, expected[precision])
        assert error <= precision.tolerance, f"{precision}: off by {error:.3g} of the largest logit"


def check_differs(one: Answers, other: Answers) -> None:
    """Two networks differ so much that nobody takes them for the same, in every precision."""
    for precision, answer in one.items():
        seen = difference(answer, other[precision])
        assert seen >= precision.visible, f"{precision}: only {seen:.3g} of the largest logit"
