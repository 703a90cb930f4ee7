"""The oracles that judge the structure of a network find what is wrong, and nothing where all is right."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import pytest
import torch

from graybox.structure.change import Attribute, AxisChange, Change, Fill
from tests.small_networks import one_thread  # noqa: F401
from tests.structure_dependence import dependence
from tests.structure_oracles import (
    EXACT,
    apply_change,
    check_addition,
    check_removal,
    check_reordering,
    consumed,
    difference,
    example,
    logits,
    made,
    masked,
    masked_inputs,
    put,
    removal_error,
    tensors,
)
from tests.topologies import TOPOLOGIES
from tests.topologies_branches import Residual
from tests.topologies_chains import Chain, ChainWithoutNorm, MlpLayerNorm
from tests.topologies_groups import DepthwiseTwice
from tests.topologies_sequences import FeaturesLast, TiedEmbedding
from tests.topology import Topology

BN = ("weight", Fill.ONE), ("bias", Fill.NOUGHT), ("running_mean", Fill.NOUGHT), ("running_var", Fill.ONE)


def axis(tensor: str, number: int, source: Sequence[int], fill: Fill = Fill.INIT, size: int = -1) -> AxisChange:
    """size: of the axis before; `change` finds it where it is not given."""
    indices = np.asarray(source, dtype=np.int64)
    like = np.where(indices < 0, max(0, int(indices.max())), indices)
    return AxisChange(tensor, number, indices, like, fill, size)


def block(source: Sequence[int], width: int) -> list[int]:
    """Each entry as `width` entries that follow each other."""
    return [old * width + place if old >= 0 else -1 for old in source for place in range(width)]


@cache
def shapes(network: type[Topology]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors(made(network)[0]).items()}


def change(
    network: type[Topology],
    kind: str,
    layer: str,
    neurons: Sequence[int],
    axes: Sequence[AxisChange],
    attributes: Sequence[Attribute] = (),
) -> Change:
    sized = tuple(dataclasses.replace(each, size=shapes(network)[each.tensor][each.axis]) for each in axes)
    return Change(kind, layer, sized, {layer: np.asarray(neurons, dtype=np.int64)}, tuple(attributes))


def kind_of(source: Sequence[int], old: int) -> str:
    return "add" if min(source) < 0 else "remove" if len(source) < old else "reorder"


def what(source: Sequence[int], old: int) -> list[int]:
    """The neurons that a change names: those that go, those that come, or the order."""
    if kind_of(source, old) == "add":
        return [place for place, index in enumerate(source) if index < 0]
    return [index for index in range(old) if index not in source] if len(source) < old else list(source)


def resized(old: int, new: int, *places: tuple[str, str]) -> list[Attribute]:
    return [Attribute(module, name, old, new) for module, name in places if old != new]


def chain_conv2(source: Sequence[int]) -> Change:
    """conv2 of Chain: rows, BatchNorm, and blocks of four columns of fc1."""
    axes = [axis("conv2.weight", 0, source), axis("conv2.bias", 0, source)]
    axes += [axis(f"bn2.{name}", 0, source, fill) for name, fill in BN]
    axes.append(axis("fc1.weight", 1, block(source, 4), Fill.ZERO))
    size = len(source)
    attributes = resized(6, size, ("conv2", "out_channels"), ("bn2", "num_features"))
    attributes += resized(24, 4 * size, ("fc1", "in_features"))
    return change(Chain, kind_of(source, 6), "conv2", what(source, 6), axes, attributes)


def residual_stream(source: Sequence[int]) -> Change:
    """The stream of Residual: three layers write it, three read it."""
    axes = [axis(f"{layer}.weight", 0, source) for layer in ("stem", "conv2", "conv4")]
    axes += [axis(f"{layer}.bias", 0, source) for layer in ("stem", "conv2")]
    axes += [axis(f"{norm}.{name}", 0, source, fill) for norm in ("bn2", "bn4") for name, fill in BN]
    axes += [axis(f"{layer}.0.weight", 1, source, Fill.ZERO) for layer in ("conv1", "conv3")]
    axes.append(axis("head.weight", 1, block(source, 4), Fill.ZERO))
    size = len(source)
    writers = [(layer, "out_channels") for layer in ("stem", "conv2", "conv4")]
    readers = [(layer, "in_channels") for layer in ("conv1.0", "conv3.0")]
    attributes = resized(4, size, *writers, *readers, ("bn2", "num_features"), ("bn4", "num_features"))
    attributes += resized(16, 4 * size, ("head", "in_features"))
    made_change = change(Residual, kind_of(source, 4), "stem", what(source, 4), axes, attributes)
    neurons = dict.fromkeys(("stem", "conv2", "conv4"), made_change.neurons["stem"])
    return dataclasses.replace(made_change, neurons=neurons)


def features_last_mix(source: Sequence[int]) -> Change:
    """mix of FeaturesLast: one column of each of five steps for a neuron."""
    columns = [step * 6 + old if old >= 0 else -1 for step in range(5) for old in source]
    axes = [axis("mix.weight", 0, source), axis("mix.bias", 0, source), axis("head.weight", 1, columns, Fill.ZERO)]
    size = len(source)
    attributes = [*resized(6, size, ("mix", "out_features")), *resized(30, 5 * size, ("head", "in_features"))]
    return change(FeaturesLast, kind_of(source, 6), "mix", what(source, 6), axes, attributes)


def tied_stream(source: Sequence[int]) -> Change:
    """The stream of TiedEmbedding; the weight of the embedding gives and takes the neurons along one axis."""
    axes = [axis("embed.weight", 1, source, Fill.ZERO), axis("hidden.weight", 1, source, Fill.ZERO)]
    axes += [axis("back.weight", 0, source), axis("back.bias", 0, source)]
    size = len(source)
    readers = ("hidden", "in_features"), ("out", "in_features")
    attributes = resized(5, size, ("embed", "embedding_dim"), ("back", "out_features"), *readers)
    return change(TiedEmbedding, kind_of(source, 5), "embed", what(source, 5), axes, attributes)


RIGHT: Mapping[str, tuple[type[Topology], Callable[[Sequence[int]], Change], int]] = {
    "chain": (Chain, chain_conv2, 6),
    "residual": (Residual, residual_stream, 4),
    "features last": (FeaturesLast, features_last_mix, 6),
    "tied": (TiedEmbedding, tied_stream, 5),
}


def altered(right: Change, tensor: str, number: int, source: Sequence[int], fill: Fill | None = None) -> Change:
    """The same change with another idea of one axis."""
    axes = [
        axis(tensor, number, source, fill or each.fill, each.size)
        if (each.tensor, each.axis) == (tensor, number)
        else each
        for each in right.axes
    ]
    return dataclasses.replace(right, axes=tuple(axes))


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_removal_passes(name: str) -> None:
    kind, edit, size = RIGHT[name]
    network, x = made(kind)
    for gone in range(size):
        check_removal(network, x, edit([index for index in range(size) if index != gone]))
    check_removal(network, x, edit([1, size - 1]))


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_reordering_passes(name: str) -> None:
    kind, edit, size = RIGHT[name]
    network, x = made(kind)
    check_reordering(network, x, edit([*range(1, size), 0]))


@pytest.mark.parametrize("name", ["chain", "residual", "features last"])
def test_a_right_addition_passes(name: str) -> None:
    kind, edit, size = RIGHT[name]
    network, x = made(kind)
    check_addition(network, x, edit([*range(size), -1, -1]))
    check_addition(network, x, edit([0, -1, *range(1, size)]))


@pytest.mark.parametrize(
    ("name", "tensor", "number", "wrong"),
    [
        # The columns of channels that are flattened with the features last, and the other way round.
        ("chain", "fc1.weight", 1, [place * 6 + old for place in range(4) for old in (0, 1, 3, 4, 5)]),
        ("features last", "head.weight", 1, block([0, 1, 3, 4, 5], 5)),
        # Another neuron in one tensor than in the others.
        ("chain", "bn2.running_var", 0, [0, 1, 2, 3, 4]),
        ("chain", "bn2.running_mean", 0, [0, 2, 3, 4, 5]),
        ("chain", "bn2.weight", 0, [0, 1, 2, 4, 5]),
        ("chain", "conv2.bias", 0, [0, 1, 2, 3, 5]),
        ("chain", "fc1.weight", 1, block([0, 1, 2, 4, 5], 4)),
        ("residual", "conv4.weight", 0, [0, 1, 2]),
        ("residual", "conv3.0.weight", 1, [0, 2, 3]),
        ("residual", "head.weight", 1, block([1, 2, 3], 4)),
        ("tied", "hidden.weight", 1, [0, 1, 2, 4]),
        # The right ones in the wrong order.
        ("chain", "conv2.weight", 0, [1, 0, 3, 4, 5]),
    ],
)
def test_a_wrong_removal_is_found(name: str, tensor: str, number: int, wrong: list[int]) -> None:
    kind, edit, size = RIGHT[name]
    network, x = made(kind)
    right = edit([0, 1, 3, 4, 5][: size - 1] if size > 4 else [0, 1, 3])
    if name == "tied":
        right = edit([0, 1, 3, 4])
    check_removal(network, x, right)
    with pytest.raises(AssertionError, match="off by"):
        check_removal(network, x, altered(right, tensor, number, wrong))


@pytest.mark.parametrize("forgotten", ["conv2.bias", "bn2.weight", "bn2.running_var", "fc1.weight"])
def test_a_forgotten_tensor_is_found(forgotten: str) -> None:
    network, x = made(Chain)
    right = chain_conv2([0, 1, 2, 4, 5])
    wrong = dataclasses.replace(right, axes=tuple(each for each in right.axes if each.tensor != forgotten))
    with pytest.raises((RuntimeError, AssertionError)):
        check_removal(network, x, wrong)


def test_a_forgotten_attribute_is_found() -> None:
    network, x = made(Chain)
    right = chain_conv2([0, 1, 2, 4, 5])
    for index in range(len(right.attributes)):
        wrong = dataclasses.replace(right, attributes=right.attributes[:index] + right.attributes[index + 1 :])
        with pytest.raises(AssertionError, match="says"):
            check_removal(network, x, wrong)


def test_a_mask_that_masks_nothing_is_found() -> None:
    network, x = made(ChainWithoutNorm)
    with torch.no_grad():
        network.layers[0].weight[1] = 0
        network.layers[0].bias[1] = 0
    source = [0, 2, 3]
    axes = [axis("layers.0.weight", 0, source), axis("layers.0.bias", 0, source), axis("layers.3.weight", 1, source)]
    attributes = resized(4, 3, ("layers.0", "out_channels"), ("layers.3", "in_channels"))
    dead = change(ChainWithoutNorm, "remove", "layers.0", [1], axes, attributes)
    check_removal(network, x, dead, visible=False)
    with pytest.raises(AssertionError, match="nothing was tested"):
        check_removal(network, x, dead)


@pytest.mark.parametrize("name", RIGHT)
def test_a_wrong_reordering_is_found(name: str) -> None:
    kind, edit, size = RIGHT[name]
    network, x = made(kind)
    right = edit([*range(1, size), 0])
    assert len(consumed(network, right)) > 0
    for each in right.axes:
        with pytest.raises(AssertionError, match="off by"):
            check_reordering(network, x, altered(right, each.tensor, each.axis, each.source[::-1].tolist()))


def test_a_wrong_addition_is_found() -> None:
    network, x = made(Residual)
    right = residual_stream([0, 1, 2, 3, -1])
    for reader in ("conv1.0.weight", "conv3.0.weight"):
        with pytest.raises(AssertionError, match="off by"):
            check_addition(network, x, altered(right, reader, 1, [0, 1, 2, 3, -1], Fill.INIT))
        with pytest.raises(AssertionError, match="off by"):
            check_addition(network, x, altered(right, reader, 1, [0, 1, 2, -1, 3]))
    dead = dataclasses.replace(
        right, axes=tuple(each if each.fill is not Fill.INIT else zeroed(each) for each in right.axes)
    )
    with pytest.raises(AssertionError, match="does not learn"):
        check_addition(network, x, dead)


def zeroed(each: AxisChange) -> AxisChange:
    return dataclasses.replace(each, fill=Fill.ZERO)


def test_what_is_inexact_is_measured() -> None:
    network, x = made(MlpLayerNorm)
    source = [0, 1, 2, 3, 4, 5, 7]
    axes = [axis("fc1.weight", 0, source), axis("fc1.bias", 0, source), axis("fc2.weight", 1, source, Fill.ZERO)]
    axes += [axis("norm.weight", 0, source), axis("norm.bias", 0, source)]
    attributes = [*resized(8, 7, ("fc1", "out_features"), ("fc2", "in_features"))]
    attributes.append(Attribute("norm", "normalized_shape", (8,), (7,)))
    assert removal_error(network, x, change(MlpLayerNorm, "remove", "fc1", [6], axes, attributes)) > 1e-3


@pytest.mark.parametrize("name", RIGHT)
def test_masked_columns_are_masked_inputs(name: str) -> None:
    """The oracle's mask, on weights, is the one of its definition: on what the consumers get."""
    kind, edit, size = RIGHT[name]
    network, x = made(kind)
    right = edit([index for index in range(size) if index != 1])
    masks = {}
    for tensor, each in consumed(network, right).items():
        # The weight that is tied is consumed by the module that comes last.
        module = {"embed.weight": "out"}.get(tensor, tensor.removesuffix(".weight"))
        masks[module] = each.removed
    with masked_inputs(network, masks):
        expected = logits(network, x)
    assert difference(logits(masked(network, right), x), expected) <= EXACT
    assert difference(logits(network, x), expected) > EXACT


def test_a_shared_tensor_is_set_everywhere() -> None:
    network, _ = made(TiedEmbedding)
    put(network, "embed.weight", torch.ones(11, 4, dtype=torch.float64))
    assert network.out.weight is network.embed.weight
    assert network.out.weight.shape == (11, 4)


def test_new_entries_are_filled_as_told() -> None:
    network, _ = made(Chain)
    edited = apply_change(network, chain_conv2([0, 1, -1, 2, 3, 4, 5]))
    assert edited.bn2.weight[2] == edited.bn2.running_var[2] == 1
    assert edited.bn2.bias[2] == edited.bn2.running_mean[2] == 0
    assert torch.equal(edited.bn2.weight[[0, 1, 3, 4, 5, 6]], network.bn2.weight)
    assert bool((edited.conv2.weight[2] != 0).all())
    assert bool((edited.fc1.weight[:, 8:12] == 0).all())
    assert torch.equal(edited.fc1.weight[:, 12:], network.fc1.weight[:, 8:])
    like = dataclasses.replace(chain_conv2([0, -1, 1, 2, 3, 4, 5]).axes[2], fill=Fill.LIKE)
    copied = apply_change(network, change(Chain, "add", "conv2", [1], [like]))
    assert copied.bn2.weight[1] == network.bn2.weight[5]


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_every_topology_answers_and_learns(name: str) -> None:
    """What a network says of itself names layers that it has, and each of its parameters matters."""
    network, x = made(TOPOLOGIES[name])
    assert set(network.verdicts) <= {module for module, _ in network.named_modules()}
    answer = logits(network, x)
    assert answer.dtype == torch.float64 and bool(torch.isfinite(answer).all())
    network.train()
    torch.stack([leaf.square().mean() for leaf in torch.utils._pytree.tree_leaves(network(x))]).sum().backward()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []


def test_dependence_on_a_residual_stream() -> None:
    found = dependence(*made(Residual))
    assert found.feeds["conv1.0"] == [{("stem", i)} for i in range(4)]
    assert found.feeds["conv2"] == [{("conv1.0", i)} for i in range(5)]
    assert found.feeds["conv3.0"] == [{("stem", i), ("conv2", i)} for i in range(4)]
    stream = [{("stem", i), ("conv2", i), ("conv4", i)} for i in range(4)]
    assert found.feeds["head"] == [stream[i // 4] for i in range(16)]
    assert found.feeds["stem"] == [set(), set()]
    assert found.seen == {("head", i) for i in range(3)}
    assert found.closure({("conv2", 3)}) == stream[3]
    assert found.closure({("conv1.0", 2)}) == {("conv1.0", 2)}


def test_dependence_on_flat_and_depthwise_inputs() -> None:
    found = dependence(*made(FeaturesLast))
    assert found.feeds["head"] == [{("mix", i % 6)} for i in range(30)]
    found = dependence(*made(Chain))
    assert found.feeds["fc1"] == [{("conv2", i // 4)} for i in range(24)]
    found = dependence(*made(DepthwiseTwice))
    assert found.depthwise == {"depthwise.0": 2}
    assert found.closure({("depthwise.0", 5)}) == {("stem.0", 2), ("depthwise.0", 4), ("depthwise.0", 5)}


def test_examples_differ_and_may_have_any_number_of_samples() -> None:
    for kind in TOPOLOGIES.values():
        one, other = example(kind), example(kind, 5)
        assert one.shape[0] == 8 and other.shape == (5, *one.shape[1:])
        assert not torch.equal(one[:5], other)
