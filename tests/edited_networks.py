"""Networks after edits, for tests of what leaves Graybox: chosen at random, each allowed or refused."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import nn

from graybox.errors import GrayboxError
from graybox.neuron_ops import AddNeurons, Freeze, NeuronEdit, RemoveNeurons, SortByStat
from graybox.operable_network import operable
from graybox.optimizer_with_ops import OptimizerWithOps
from graybox.surgery import Surgeon
from tests.surgery_cases import Desk


def edit_at_random(surgeon: Surgeon, layers: list[str], seed: int, count: int = 6) -> list[NeuronEdit]:
    """Apply so many edits, as far as they are allowed; those that were made."""
    draw = random.Random(seed)
    made: list[NeuronEdit] = []
    for number in range(count):
        layer = draw.choice(layers)
        edits: list[NeuronEdit] = [
            RemoveNeurons(layer, (draw.randrange(3),)),
            AddNeurons(layer, count=draw.choice((1, 2, 4))),
            Freeze(layer, (draw.randrange(2),)),
            SortByStat(layer, statistic="weight_norm"),
        ]
        edit = draw.choice(edits)
        try:
            surgeon.apply(surgeon.plan(edit), seed=number)
        except GrayboxError as error:
            together = error.details.get("together")
            if not isinstance(edit, RemoveNeurons) or not together:
                continue
            try:
                surgeon.apply(surgeon.plan(RemoveNeurons(layer, tuple(together))), seed=number)
            except GrayboxError:
                continue
        made.append(edit)
    return made


def edited(topology: str, seed: int = 0, count: int = 10) -> Desk:
    """One of the small networks after a few steps and edits; in evaluation mode, in double precision."""
    desk = Desk(topology, steps=1)
    edit_at_random(desk.surgeon, desk.layers(), seed, count)
    return desk


def watched(plain: nn.Module, x: torch.Tensor, seed: int = 0, count: int = 5) -> Any:
    """A larger network with neurons, after edits; in evaluation mode."""
    network = operable(plain.eval(), x[:1])
    surgeon = Surgeon(network, OptimizerWithOps(torch.optim.SGD(network.parameters(), 0.1), network))
    assert edit_at_random(surgeon, [name for name, _ in network.named_layers()], seed, count)
    network.eval()
    return network


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of everything in its state_dict."""
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}
