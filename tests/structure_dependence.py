"""Which neuron feeds which input of which layer, found by differentiation; nothing of the project is used.

The network is cut at its layers: each gives, in the place of its product, random numbers of the same shape that depend
on nothing. What an input of another layer then depends on, it gets from those neurons and from no others.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from tests.structure_oracles import CONVOLUTIONS, TRANSPOSED

LAYERS = (nn.Linear, nn.Embedding, *CONVOLUTIONS, *TRANSPOSED)
Neuron = tuple[str, int]


@dataclass(frozen=True)
class Dependence:
    """feeds: by layer, for each input feature, the neurons that it is made from. seen: those in the answer itself."""

    feeds: dict[str, list[set[Neuron]]]
    seen: set[Neuron]
    depthwise: dict[str, int]
    """Neurons for each channel of a depthwise convolution, whose inputs and neurons go together."""

    def closure(self, neurons: set[Neuron], depthwise: bool = True) -> set[Neuron]:
        """The smallest set that holds these neurons and with each all that some input is made from with it.

        depthwise: together with what goes into a depthwise convolution goes what comes out of it.
        """
        groups = [group for features in self.feeds.values() for group in features if group]
        for name, multiplier in self.depthwise.items() if depthwise else ():
            for channel, group in enumerate(self.feeds[name]):
                own = {(name, channel * multiplier + place) for place in range(multiplier)}
                groups.append(group | own)
        found = set(neurons)
        while True:
            more = found.union(*(group for group in groups if group & found))
            if more == found:
                return found
            found = more


def dependence(network: nn.Module, x: torch.Tensor) -> Dependence:
    """The modules of LAYERS must do all products with weights."""
    network = copy.deepcopy(network).eval()
    names = {module: name for name, module in network.named_modules() if isinstance(module, LAYERS)}
    leaves: list[tuple[str, int, torch.Tensor]] = []
    inputs: list[tuple[nn.Module, torch.Tensor]] = []

    def cut(module: nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        leaf = torch.randn_like(output).requires_grad_()
        leaves.append((names[module], axis_of(module), leaf))
        inputs.append((module, given[0]))
        # A view: the network may change in place what a layer gives, but not a leaf.
        return leaf * 1

    handles = [module.register_forward_hook(cut) for module in names]
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(7)
        answers = tree_leaves(network(x))
        if getattr(network, "both_modes", False):
            answers += tree_leaves(network.train()(x))
        feeds: dict[str, list[set[Neuron]]] = {}
        for module, given in inputs:
            axis = axis_of(module)
            count = 0 if isinstance(module, nn.Embedding) else given.shape[axis]
            features = feeds.setdefault(names[module], [set() for _ in range(count)])
            for feature in range(count):
                features[feature] |= made_from(given.select(axis, feature), leaves)
        seen = set().union(*(made_from(answer, leaves) for answer in answers))
    for handle in handles:
        handle.remove()
    depthwise = {
        name: module.out_channels // module.groups
        for module, name in names.items()
        if isinstance(module, CONVOLUTIONS) and 1 < module.groups == module.in_channels
    }
    return Dependence(feeds, seen, depthwise)


def axis_of(module: nn.Module) -> int:
    """The axis of features of a layer's input and output."""
    return -1 if isinstance(module, (nn.Linear, nn.Embedding)) else 1


def made_from(value: torch.Tensor, leaves: list[tuple[str, int, torch.Tensor]]) -> set[Neuron]:
    if not value.requires_grad:
        return set()
    weights = torch.randn_like(value)
    gradients = torch.autograd.grad(
        (value * weights).sum(), [leaf for _, _, leaf in leaves], retain_graph=True, allow_unused=True
    )
    sizes: dict[str, set[int]] = defaultdict(set)
    for (name, axis, _), gradient in zip(leaves, gradients, strict=True):
        if gradient is not None:
            rows = gradient.movedim(axis, 0).flatten(1).abs().amax(1)
            sizes[name].update(torch.nonzero(rows).flatten().tolist())
    return {(name, neuron) for name, neurons in sizes.items() for neuron in neurons}
