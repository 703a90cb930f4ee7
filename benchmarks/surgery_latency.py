"""How long surgery on ResNet-50 takes while it trains with Adam, on one thread, with torch-pruning in turn.

trace: from a plain network to one that can be edited. edit: plan and apply, the optimizer's state included, of one
neuron that goes or comes, inside of a block of layer3 and on the residual stream that runs through it. torch-pruning
removes the same neuron from a copy of the network that has no optimizer. The first edit of each kind in a group is told
apart: it runs the edited network once, on shapes alone.

memory: bytes of new tensors at once during an edit, over those of the tensors that it touches with their gradients and
optimizer state.

    python -m benchmarks.surgery_latency [--rounds N] [--layers L,L] [--side PIXELS]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
import torchvision
from torch import nn

from benchmarks.fresh_bytes import FreshBytes
from benchmarks.peers import Peer, version
from graybox.neuron_ops import AddNeurons, NeuronEdit, RemoveNeurons
from graybox.operable_network import operable
from graybox.optimizer_with_ops import OptimizerWithOps
from graybox.structure import Structure, structure, verification
from graybox.surgery import Surgeon

LAYERS = {"in a block of layer3": "layer3.2.conv2", "residual stream": "layer3.2.conv3"}
AIMS = {"in a block of layer3": 10.0, "residual stream": 60.0}
"""Milliseconds for planning and applying an edit."""
TRACE_AIM = 2.0
NEURON = 17


@dataclass
class Times:
    """Seconds, in order of measurement."""

    values: list[float] = field(default_factory=list)

    @contextmanager
    def one_more(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.values.append(time.perf_counter() - started)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        ranked = sorted(self.values)
        low, high = ranked[len(ranked) // 10], ranked[-1 - len(ranked) // 10]
        return f"{1e3 * self.median:8.1f} ms ({1e3 * low:.1f} to {1e3 * high:.1f})"


class Trained:
    """A network in training: it has Adam's state, and can be edited."""

    def __init__(self, network: nn.Module, images: torch.Tensor) -> None:
        self.network = operable(network, images[:1])
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-4)
        self.network.train()
        for _ in range(2):
            self.optimizer.zero_grad()
            self.network(images).square().mean().backward()
            self.optimizer.step()
        self.surgeon = Surgeon(self.network, OptimizerWithOps(self.optimizer, self.network))

    def edit(self, edit: NeuronEdit, planning: Times, applying: Times) -> None:
        with planning.one_more():
            plan = self.surgeon.plan(edit)
        with applying.one_more():
            self.surgeon.apply(plan, seed=1)

    def touched_bytes(self, edit: NeuronEdit) -> int:
        """Of the tensors that an edit touches, with their gradients and what the optimizer keeps for each entry."""
        tensors = dict(self.network.state_dict(keep_vars=True))
        total = 0
        for name in {touch.tensor for touch in self.surgeon.plan(edit).touches}:
            tensor = tensors[name]
            kept = [tensor, tensor.grad, *self.optimizer.state.get(tensor, {}).values()]
            total += sum(one.nbytes for one in kept if isinstance(one, torch.Tensor))
        return total

    def memory(self, edit: NeuronEdit) -> float:
        """The peak of new tensors during an edit over what it touches."""
        touched = self.touched_bytes(edit)
        with FreshBytes() as fresh:
            self.surgeon.apply(self.surgeon.plan(edit), seed=1)
        return float(fresh.peak / touched)


@contextmanager
def counted_traces() -> Iterator[list[str]]:
    """The list grows by one for each trace; those of an edited network that is tried out are "trial"."""
    traces: list[str] = []

    def counted(module: Any, word: str) -> Any:
        plain: Callable[..., Any] = module.trace_network

        def traced(*args: Any, **kwargs: Any) -> Any:
            traces.append(word)
            return plain(*args, **kwargs)

        return mock.patch.object(module, "trace_network", traced)

    with counted(structure, "trace"), counted(verification, "trial"):
        yield traces


def measure_traces(build: Callable[[], nn.Module], images: torch.Tensor, rounds: int) -> dict[str, Times]:
    """Of both, in turn."""
    times = {"Structure.trace": Times(), "operable": Times(), "torch-pruning": Times()}
    for _ in range(rounds):
        network, other = build(), build()
        with times["Structure.trace"].one_more():
            Structure.trace(network, images[:1])
        with times["operable"].one_more():
            operable(network, images[:1])
        with times["torch-pruning"].one_more():
            Peer(other, images[:1])
    return times


def measure_edits(trained: Trained, peer: Peer, layer: str, rounds: int) -> dict[str, Times]:
    """A neuron goes, one comes, and torch-pruning removes one, in turn; the first of each apart."""
    times: dict[str, Times] = {}
    for turn in range(rounds + 1):
        when = "" if turn else "first "
        for word, edit in (("prune", RemoveNeurons(layer, (NEURON,))), ("add", AddNeurons(layer, count=1))):
            planning = times.setdefault(f"{when}{word}: plan", Times())
            applying = times.setdefault(f"{when}{word}: apply", Times())
            trained.edit(edit, planning, applying)
            whole = times.setdefault(f"{when}{word}", Times())
            whole.values.append(planning.values[-1] + applying.values[-1])
        with times.setdefault(f"{when}torch-pruning: prune", Times()).one_more():
            peer.prune(layer, [NEURON])
    return times


def report(name: str, times: Times, aim: float | None = None, peer: Times | None = None) -> None:
    aimed = "" if aim is None else f", aim {1e3 * aim:g} ms"
    ratio = "" if peer is None else f", {times.median / peer.median:.1f} x torch-pruning"
    print(f"    {name:<24}{times}{aimed}{ratio}", flush=True)


def run(build: Callable[[], nn.Module], images: torch.Tensor, layers: dict[str, str], rounds: int) -> None:
    """All of it, printed."""
    print("trace")
    times = measure_traces(build, images, max(1, rounds // 4))
    for name in ("Structure.trace", "operable"):
        report(name, times[name], TRACE_AIM, times["torch-pruning"])
    report("torch-pruning", times["torch-pruning"])
    network = build()
    peer = Peer(copy.deepcopy(network), images[:1])
    trained = Trained(network, images)
    with counted_traces() as traces:
        for place, layer in layers.items():
            print(f"{place}: {layer}")
            times = measure_edits(trained, peer, layer, rounds)
            aim = AIMS.get(place)
            for name, found in times.items():
                aimed = None if aim is None or name not in ("prune", "add") else aim / 1e3
                report(name, found, aimed, times["torch-pruning: prune"] if name in ("prune", "add") else None)
            for word, edit in (("prune", RemoveNeurons(layer, (NEURON,))), ("add", AddNeurons(layer, count=1))):
                print(f"    memory of {word}: {trained.memory(edit):.3f} of what it touches")
    edits = 2 * (rounds + 2) * len(layers)
    print(
        f"{edits} edits, {traces.count('trace')} traces after them, {traces.count('trial')} trials of an edited network"
    )


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="How long surgery takes.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--layers", help="of another model: one in a block, one on a residual stream")
    parser.add_argument("--side", type=int, default=224, help="of an image, in pixels")
    arguments = parser.parse_args(given)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = LAYERS if arguments.layers is None else dict(zip(LAYERS, arguments.layers.split(","), strict=True))
    print(f"torch {torch.__version__}, torch-pruning {version()}, one thread; {arguments.model} with Adam")
    images = torch.randn(2, 3, arguments.side, arguments.side)
    run(lambda: torchvision.models.get_model(arguments.model, weights=None), images, layers, arguments.rounds)


if __name__ == "__main__":
    main()
