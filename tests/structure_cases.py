"""The small networks with their structures, and what tests ask of them again and again."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn

from graybox.errors import Refused
from graybox.structure import Structure
from graybox.structure.change import Change
from tests.structure_dependence import Dependence, dependence
from tests.structure_oracles import made, tensors
from tests.topologies import TOPOLOGIES
from tests.topology import Topology

EVERY = pytest.mark.parametrize("name", TOPOLOGIES)
HOOKED = pytest.mark.parametrize("name", [name for name, kind in TOPOLOGIES.items() if kind.hooked and not kind.mixing])


@cache
def traced(name: str) -> tuple[Topology, torch.Tensor, Structure]:
    """One for all tests that change nothing."""
    network, x = made(TOPOLOGIES[name])
    return network, x, Structure.trace(network, x[:2])


@cache
def cut(name: str) -> Dependence:
    network, x, _ = traced(name)
    return dependence(network, x)


def neurons_of(network: nn.Module, structure: Structure, layer: str) -> int:
    known = structure.layers[layer]
    return tensors(network)[known.weight].shape[known.out_axis]


def answered(edit: Callable[[], Change]) -> Change | Refused:
    """A change or a refusal with a reason, never anything else."""
    try:
        return edit()
    except Refused as refusal:
        assert len(str(refusal)) > 10
        return refusal


def unit(refusal: Refused, neuron: int) -> list[int]:
    """The neurons that a refusal says can go together, [] where it names none."""
    together = getattr(refusal, "details", {}).get("together", [])
    assert not together or (neuron in together and len(together) > 1)
    return list(together)
