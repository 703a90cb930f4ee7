"""Who goes with whom and who feeds whom, compared with what differentiation finds; and the figures of a change."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from graybox.errors import Refused
from graybox.structure.change import Change, WeightedLayer
from tests.small_networks import one_thread  # noqa: F401
from tests.structure_cases import EVERY, HOOKED, answered, cut, neurons_of, traced, unit
from tests.structure_dependence import axis_of
from tests.structure_oracles import CONVOLUTIONS, EXACT, TRANSPOSED, apply_change, difference, logits, tensors
from tests.topologies import TOPOLOGIES

# -- who goes with whom ----------------------------------------------------------------------------------


@HOOKED
def test_those_go_that_feed_the_same_input(name: str) -> None:
    """No neuron more, of whatever layer, and no neuron less than differentiation says."""
    network, _, structure = traced(name)
    for layer in structure.layers:
        for neuron in range(neurons_of(network, structure, layer)):
            answer = answered(lambda layer=layer, neuron=neuron: structure.removal(layer, [neuron]))  # type: ignore[misc]
            asked = [neuron]
            if isinstance(answer, Refused):
                asked = unit(answer, neuron)
                if not asked:
                    continue
                answer = structure.removal(layer, asked)
            gone = {(key, int(i)) for key, indices in answer.neurons.items() for i in indices}
            least = cut(name).closure({(layer, i) for i in asked})
            # Of Repeated two layers share a normalisation, which no gradient tells.
            if layer in network.verdicts and network.verdicts[layer] == "exact" and name != "Repeated":
                assert gone == least, f"{layer}[{neuron}]"
            assert gone >= least, f"{layer}[{neuron}]"
            assert not gone & cut(name).seen


@HOOKED
def test_incoming_names_those_that_feed_each_column(name: str) -> None:
    _, _, structure = traced(name)
    for layer, known in structure.layers.items():
        if known.in_axis < 0 or known.groups > 1:
            continue
        found = [set(column) for column in structure.incoming(layer)]
        assert found == cut(name).feeds[layer], layer


@EVERY
def test_without_outgoing_connections_a_neuron_has_no_influence(name: str) -> None:
    """With the entries zeroed that `outgoing` names, the neuron's own weights do not matter; with them they do."""
    network, x, structure = traced(name)
    for layer, verdict in network.verdicts.items():
        if verdict != "exact":
            continue
        outgoing = structure.outgoing(layer, [1])
        zeroed = copy.deepcopy(network)
        own = structure.layers[layer]
        with torch.no_grad():
            for region in outgoing.regions:
                tensor = tensors(zeroed)[region.tensor]
                tensor[grid(tensor, region.where)] = 0
        if outgoing.joined:
            # They are summed with others, whose connections stay.
            assert set(outgoing.joined) < set(structure.layers) and layer not in outgoing.joined
            continue
        assert outgoing.regions, layer
        assert difference(redrawn(zeroed, own, x), logits(zeroed, x)) <= EXACT, layer
        assert difference(redrawn(network, own, x), logits(network, x)) > EXACT, layer


def redrawn(network: nn.Module, layer: WeightedLayer, x: torch.Tensor) -> torch.Tensor:
    """The logits once the weights of the layer's neuron 1 are other ones."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        tensors(other)[layer.weight].select(layer.out_axis, 1).normal_()
    return logits(other, x)


@HOOKED
def test_joined_are_those_that_feed_an_input_together(name: str) -> None:
    network, _, structure = traced(name)
    for layer, verdict in network.verdicts.items():
        if verdict == "exact":
            expected = {other for other, _ in cut(name).closure({(layer, 1)}, depthwise=False)} - {layer}
            assert set(structure.outgoing(layer, [1]).joined) == expected, layer


def grid(tensor: torch.Tensor, where: object) -> tuple[torch.Tensor, ...]:
    places = [torch.as_tensor(where.get(axis, np.arange(size))) for axis, size in enumerate(tensor.shape)]  # type: ignore[attr-defined]
    return tuple(torch.meshgrid(*places, indexing="ij"))


def test_followers_are_the_normalisations_of_one_layer_alone() -> None:
    names = ["weight", "bias", "running_mean", "running_var"]
    chain = traced("Chain")[2]
    assert [(f.tensor, f.axis) for f in chain.followers("conv1")] == [(f"bn1.{key}", 0) for key in names]
    assert chain.followers("fc1") == []
    dense = traced("Dense")[2]
    assert [f.tensor for f in dense.followers("stem")] == [f"norms.0.{key}" for key in names]
    assert dense.followers("convs.0") == []
    residual = traced("Residual")[2]
    assert [f.tensor for f in residual.followers("conv2")] == [f"bn2.{key}" for key in names]
    assert residual.followers("stem") == []


# -- figures ---------------------------------------------------------------------------------------------


@EVERY
def test_parameters_are_counted(name: str) -> None:
    network, _, structure = traced(name)
    for layer in structure.layers:
        for edit in (lambda: structure.removal(layer, [0]), lambda: structure.addition(layer, 2)):  # noqa: B023
            answer = answered(edit)
            if isinstance(answer, Change):
                assert answer.parameters_before == sum(p.numel() for p in network.parameters())
                assert answer.parameters_after == sum(p.numel() for p in apply_change(network, answer).parameters())


@pytest.mark.parametrize("name", [name for name, kind in TOPOLOGIES.items() if kind.hooked and not kind.both_modes])
def test_multiply_adds_are_counted(name: str) -> None:
    network, x, structure = traced(name)
    for layer in structure.layers:
        answer = answered(lambda layer=layer: structure.removal(layer, [0]))  # type: ignore[misc]
        if isinstance(answer, Change):
            assert answer.multiply_adds_before == multiply_adds(network, x)
            assert answer.multiply_adds_after == multiply_adds(apply_change(network, answer), x)


def multiply_adds(network: nn.Module, x: torch.Tensor) -> int:
    """One for each entry of a weight and each place where it is used, for one sample; counted while it runs."""
    counts: list[int] = []

    def count(module: nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        assert isinstance(module.weight, torch.Tensor)
        side = given[0] if isinstance(module, TRANSPOSED) else output
        places = side.numel() // side.shape[axis_of(module)] // len(x)
        counts.append(places * module.weight.numel())

    weighted = [m for m in network.modules() if isinstance(m, (nn.Linear, *CONVOLUTIONS, *TRANSPOSED))]
    handles = [module.register_forward_hook(count) for module in weighted]
    logits(network, x)
    for handle in handles:
        handle.remove()
    return sum(counts)
