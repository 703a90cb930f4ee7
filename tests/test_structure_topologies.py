"""What the structure says of small networks of every kind, judged by oracles that know nothing of it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from graybox.errors import GrayboxError, Refused
from graybox.structure import Structure
from graybox.structure.change import Change
from tests.small_networks import bits, one_thread  # noqa: F401
from tests.structure_cases import EVERY, answered, neurons_of, traced, unit
from tests.structure_dependence import LAYERS
from tests.structure_oracles import (
    EXACT,
    TRANSPOSED,
    check_addition,
    check_removal,
    check_reordering,
    in_axes,
    made,
    out_axis,
    removal_error,
    tensors,
)
from tests.topologies import TOPOLOGIES

REASON = r".{10,}"


# -- what is found ---------------------------------------------------------------------------------------


@EVERY
def test_every_layer_is_found(name: str) -> None:
    network, _, structure = traced(name)
    known, axes = tensors(network), in_axes(network)
    names = {id(tensor): key for key, tensor in known.items()}
    for key, module in network.named_modules():
        if not isinstance(module, LAYERS) or key.endswith("out_proj"):
            continue
        if isinstance(module, TRANSPOSED) and module.groups > 1:  # followed, but no layer
            assert key not in structure.layers
            continue
        weight = names[id(module.weight)]
        layers = [layer for layer in structure.layers.values() if layer.weight == weight]
        assert layers, f"{key} is not known"
        if weight == f"{key}.weight":
            assert structure.layers[key].out_axis == out_axis(module)
            assert structure.layers[key].bias == (None if getattr(module, "bias", None) is None else f"{key}.bias")
            assert structure.layers[key].groups == getattr(module, "groups", 1)
            if not isinstance(module, nn.Embedding):
                assert structure.layers[key].in_axis == axes.get(weight, 0)
    for weight, axis in network.raw_in_axes.items():
        assert [layer.in_axis for layer in structure.layers.values() if layer.weight == weight] == [axis]
    assert set(network.verdicts) <= set(structure.layers)


@EVERY
def test_a_look_changes_nothing(name: str) -> None:
    """Not the weights, statistics, modes, gradients, hooks and random states, nor what the network is made of."""
    network, x = made(TOPOLOGIES[name])
    next(network.children()).train()
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = picture(network)
    structure = Structure.trace(network, x)
    for layer in structure.layers:
        answered(lambda layer=layer: structure.removal(layer, [0]))  # type: ignore[misc]
        answered(lambda layer=layer: structure.addition(layer, 1))  # type: ignore[misc]
    assert picture(network) == before


def picture(network: nn.Module) -> list[object]:
    found: list[object] = [bits(torch.get_rng_state()), repr(np.random.get_state()), random.getstate()]
    for key, tensor in tensors(network).items():
        grad = None if tensor.grad is None else (id(tensor.grad), bits(tensor.grad))
        found.append((key, id(tensor), tensor.requires_grad, tensor._version, bits(tensor), grad))
    for key, module in network.named_modules():
        plain = {name: value for name, value in vars(module).items() if isinstance(value, (int, str, tuple))}
        hooks = (len(module._forward_hooks), len(module._forward_pre_hooks))
        found.append((key, id(module), type(module), plain, hooks, sorted(vars(module))))
    return found


# -- removal ---------------------------------------------------------------------------------------------


@EVERY
def test_each_neuron_goes_exactly_or_not_at_all(name: str) -> None:
    """Every neuron of every layer, and what can only go together."""
    network, x, structure = traced(name)
    for layer in structure.layers:
        verdict, _, word = network.verdicts.get(layer, "any").partition(":")
        for neuron in range(neurons_of(network, structure, layer)):
            found = removed(network, x, structure, layer, [neuron])
            where = f"{layer}[{neuron}]: {found[0]} ({found[1]})"
            if "single entry" in found[1] and neurons_of(network, structure, layer) == 2:
                continue  # of two neurons both stay
            allowed = [verdict] if verdict in ("exact", "together") else verdict.split("-or-")
            assert verdict == "any" or found[0] in allowed, where
            assert verdict in ("any", "exact", "together") or word.lower() in found[1].lower(), where


def removed(
    network: nn.Module, x: torch.Tensor, structure: Structure, layer: str, neurons: list[int]
) -> tuple[str, str]:
    """(verdict, reason) of a removal, once the oracle has agreed to it."""
    answer = answered(lambda: structure.removal(layer, neurons))
    if isinstance(answer, Change):
        assert answer.kind == "remove" and answer.layer == layer
        assert answer.neurons[layer].tolist() == sorted(neurons), f"{layer}{neurons} removes {answer.neurons[layer]}"
        if not answer.inexact:
            try:
                check_removal(network, x, answer)
            except (AssertionError, RuntimeError) as error:
                raise AssertionError(f"{layer}{neurons}: {error}") from error
            return "exact", ""
        error = removal_error(network, x, answer)
        return "inexact" if error > EXACT else "inexact without need", " / ".join(answer.inexact)
    together = unit(answer, neurons[0])
    if not together:
        return "refused", str(answer)
    found = removed(network, x, structure, layer, together)
    assert found[0] == "exact" or found[0].startswith("inexact"), (
        f"{layer}{neurons} sends to {together}, which is {found}"
    )
    return "together" if found[0] == "exact" else found[0], found[1]


@EVERY
def test_several_neurons_go_at_once(name: str) -> None:
    """Unsorted, and twice the same one where that is allowed at all."""
    network, x, structure = traced(name)
    for layer, verdict in network.verdicts.items():
        size = neurons_of(network, structure, layer)
        if verdict == "exact" and size > 3:
            assert removed(network, x, structure, layer, [size - 1, 0])[0] == "exact"


@EVERY
def test_what_cannot_be_is_refused(name: str) -> None:
    """All neurons, none, and those that are not there."""
    network, _, structure = traced(name)
    for layer in structure.layers:
        size = neurons_of(network, structure, layer)
        for wrong in (list(range(size)), [], [size], [-1], [0, size + 3]):
            with pytest.raises(GrayboxError, match=REASON):
                structure.removal(layer, wrong)
        for count in (0, -1):
            with pytest.raises(GrayboxError, match=REASON):
                structure.addition(layer, count)
        for order in ([], [0] * size, list(range(size + 1)), [-1, *range(size - 1)]):
            if order != [0]:
                with pytest.raises(GrayboxError, match=REASON):
                    structure.reordering(layer, order)
    for edit in (structure.removal, structure.reordering):
        with pytest.raises(GrayboxError, match="nowhere"):
            edit("nowhere", [0])
    with pytest.raises(GrayboxError, match="nowhere"):
        structure.addition("nowhere", 1)


@EVERY
def test_the_answer_depends_on_nothing_that_was_asked_before(name: str) -> None:
    network, x, structure = traced(name)
    asked = [(layer, i) for layer in structure.layers for i in range(neurons_of(network, structure, layer))]
    expected = {key: signature(structure, *key) for key in asked}
    other = Structure.trace(network, x[:2])
    random.Random(3).shuffle(asked)
    assert {key: signature(other, *key) for key in asked} == expected


def signature(structure: Structure, layer: str, neuron: int) -> tuple[object, ...]:
    """What is answered to a removal, in a form that can be compared."""
    answer = answered(lambda: structure.removal(layer, [neuron]))
    if isinstance(answer, Refused):
        return "refused", tuple(unit(answer, neuron))
    axes = sorted((each.tensor, each.axis, tuple(each.source.tolist()), each.fill.name) for each in answer.axes)
    counts = answer.parameters_before, answer.parameters_after
    return tuple(axes), answer.inexact, counts, tuple(sorted((a.module, a.name, a.new) for a in answer.attributes))


# -- addition and order ----------------------------------------------------------------------------------


@EVERY
def test_new_neurons_change_nothing_and_learn(name: str) -> None:
    network, x, structure = traced(name)
    for layer in structure.layers:
        verdict = network.verdicts.get(layer, "any")
        for count in (1, 3):
            answer = answered(lambda layer=layer, count=count: structure.addition(layer, count))  # type: ignore[misc]
            if isinstance(answer, Refused):
                assert verdict != "exact", f"{layer} + {count}: {answer}"
                more = getattr(answer, "details", {}).get("together", 0)
                if not more:
                    continue
                count = more
                answer = structure.addition(layer, count)
            assert not verdict.startswith("refused"), f"{layer} + {count}: {verdict}"
            assert answer.kind == "add" and answer.neurons[layer].shape == (count,)
            try:
                added(network, x, answer, verdict)
            except (AssertionError, RuntimeError) as error:
                raise AssertionError(f"{layer} + {count}: {error}") from error


@EVERY
def test_two_neurons_are_left_at_least(name: str) -> None:
    """A dimension of one entry could be anything: neurons all but one are refused; all but two go, or are refused."""
    network, x, structure = traced(name)
    for layer, verdict in network.verdicts.items():
        size = neurons_of(network, structure, layer)
        answer = answered(lambda layer=layer, size=size: structure.removal(layer, range(1, size)))  # type: ignore[misc]
        assert not isinstance(answer, Change) or all(axis.source.size > 1 for axis in answer.axes)
        if verdict == "exact":
            assert isinstance(answer, Refused) and ("single entry" in str(answer) or size == 1), f"{layer}: {answer}"
        if size > 2:
            two = answered(lambda layer=layer, size=size: structure.removal(layer, range(2, size)))  # type: ignore[misc]
            if isinstance(two, Change) and not two.inexact:
                check_removal(network, x, two, visible=False)
            assert verdict != "exact" or isinstance(two, Change), f"{layer}: {two}"


def added(network: nn.Module, x: torch.Tensor, change: Change, verdict: str) -> None:
    if change.inexact:
        assert verdict != "exact", change.inexact
        if verdict == "any":
            return
        with pytest.raises(AssertionError, match="off by"):
            check_addition(network, x, change)
    else:
        check_addition(network, x, change)


@EVERY
def test_another_order_changes_nothing(name: str) -> None:
    network, x, structure = traced(name)
    for layer in structure.layers:
        verdict = network.verdicts.get(layer, "any")
        size = neurons_of(network, structure, layer)
        orders = [list(range(size))[::-1], [*range(1, size), 0]]
        for order in orders if size > 1 else []:
            answer = answered(lambda layer=layer, order=order: structure.reordering(layer, order))  # type: ignore[misc]
            if isinstance(answer, Refused):
                assert verdict != "exact", f"{layer}: {answer}"
                continue
            assert not verdict.startswith("refused:output"), layer
            assert answer.neurons[layer].tolist() == order and not answer.inexact
            try:
                check_reordering(network, x, answer)
            except (AssertionError, RuntimeError) as error:
                raise AssertionError(f"{layer} as {order}: {error}") from error


@pytest.mark.parametrize("name", ["Grouped", "Shuffled", "GroupNorms", "HeadSizeFixed", "PixelShuffled", "Gated"])
def test_what_goes_together_can_change_places_together(name: str) -> None:
    """Two units of a layer swap; a unit that swaps with another order inside is refused or exact."""
    network, x, structure = traced(name)
    layer = next(layer for layer, verdict in network.verdicts.items() if verdict == "together")
    first = unit(refused(structure, layer, 0), 0)
    size = neurons_of(network, structure, layer)
    other = next(i for i in range(size) if i not in first)
    second = unit(refused(structure, layer, other), other)
    order = np.arange(size)
    order[first], order[second] = second, first
    check_reordering(network, x, structure.reordering(layer, order.tolist()))


def refused(structure: Structure, layer: str, neuron: int) -> Refused:
    with pytest.raises(Refused) as caught:
        structure.removal(layer, [neuron])
    return caught.value
