"""What an edit of the structure must do, computed without the code that makes edits.

Only the values of `graybox.structure.change` are read here. Which axis of which weight takes in neurons is known from
the classes of torch.nn, and which neuron feeds which input is found by differentiating the network that was cut at its
layers (`tests.structure_dependence`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from graybox.structure.change import AxisChange, Change, Fill
from tests.topology import Topology

EXACT = 1e-9
"""The largest difference, relative to the largest logit, between two networks that are the same."""
VISIBLE = 100 * EXACT
"""The smallest difference that shows that a mask masks something."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.LayerNorm, nn.GroupNorm)


def made(kind: type[Topology], seed: int = 0) -> tuple[Topology, torch.Tensor]:
    """(the network in float64 and evaluation mode, an input): weights that are not small, statistics calibrated."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = kind().double()
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, NORMS) and isinstance(module.weight, torch.Tensor):
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.uniform_(-0.2, 0.5)
            calibrate(network, [example(kind, 16) for _ in range(4)])
        return network.eval(), example(kind)


def calibrate(network: nn.Module, batches: list[torch.Tensor]) -> None:
    """Running statistics become the averages over some batches."""
    norms = [module for module in network.modules() if isinstance(module, NORMS) and hasattr(module, "momentum")]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # type: ignore[assignment]  # a plain average
        norm.reset_running_stats()
    network.train()
    for batch in batches:
        network(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def example(kind: type[Topology], batch: int = 8) -> torch.Tensor:
    x = kind.example(batch)
    return x.double() if x.is_floating_point() else x


def logits(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """All that the network answers in evaluation mode (and in training mode, where it asks for it), as one vector."""
    network.eval()
    with torch.no_grad():
        answers = tree_leaves(network(x))
        if getattr(network, "both_modes", False):
            answers += tree_leaves(copy.deepcopy(network).train()(x))
    return torch.cat([answer.flatten() for answer in answers])


def difference(edited: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference of two answers, relative to the largest of the expected one."""
    assert edited.shape == expected.shape
    return ((edited - expected).abs().max() / expected.abs().max()).item()


# -- tensors by name -------------------------------------------------------------------------------------


def tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers; one that is shared has its first name only."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def put(network: nn.Module, name: str, value: torch.Tensor) -> None:
    """Set a parameter or buffer wherever it is used."""
    old = tensors(network)[name]
    new: torch.Tensor = nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value
    for module in network.modules():
        for key, own in [*module._parameters.items(), *module._buffers.items()]:
            if own is old:
                setattr(module, key, new)


def in_axes(network: nn.Module) -> dict[str, int]:
    """By the name of a weight, its axis of incoming neurons."""
    names = {id(tensor): name for name, tensor in tensors(network).items()}
    found: dict[str, int] = {}
    for module in network.modules():
        if isinstance(module, (nn.Linear, *CONVOLUTIONS)):
            found[names[id(module.weight)]] = 1
        elif isinstance(module, TRANSPOSED) and module.groups == 1:
            # With groups an entry of this axis belongs to a group, which comes and goes with its outputs.
            found[names[id(module.weight)]] = 0
        elif isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            found[names[id(module.in_proj_weight)]] = 1
        elif isinstance(module, nn.RNNBase):
            found.update({names[id(p)]: 1 for key, p in module.named_parameters() if key.startswith("weight")})
    return {**found, **getattr(network, "raw_in_axes", {})}


def out_axis(module: nn.Module) -> int:
    return 1 if isinstance(module, (nn.Embedding, *TRANSPOSED)) else 0


def consumed(network: nn.Module, change: Change) -> dict[str, AxisChange]:
    """Of the axes of a change, those along which weights take neurons in, by the name of the weight."""
    axes = in_axes(network)
    return {axis.tensor: axis for axis in change.axes if axes.get(axis.tensor) == axis.axis}


# -- the network with neurons masked ---------------------------------------------------------------------


def masked(network: nn.Module, change: Change) -> nn.Module:
    """A copy in which the neurons that a change removes are masked where they are consumed.

    To multiply an input of a product by nothing, or the column that it meets, is the same. Where no weight consumes
    the neurons (queries and keys are consumed by each other), or an operator does too, they are masked where they come
    from.
    """
    copied = copy.deepcopy(network)
    columns = consumed(network, change)
    with torch.no_grad():
        for name, axis in columns.items():
            tensor = tensors(copied)[name]
            gone = torch.from_numpy(axis.removed)
            tensor.index_fill_(axis.axis, gone, 0)
        for name, neurons in change.neurons.items():
            if not columns or getattr(network, "consumed_by_operators", False):
                module = copied.get_submodule(name)
                assert isinstance(module.weight, torch.Tensor)
                module.weight.index_fill_(out_axis(module), torch.from_numpy(neurons), 0)
                if module.bias is not None:
                    module.bias[neurons] = 0
    return copied


@contextmanager
def masked_inputs(network: nn.Module, masks: Mapping[str, np.ndarray]) -> Iterator[None]:
    """The network with some input features of some modules multiplied by nothing."""

    def hook(module: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        axis = -1 if isinstance(module, nn.Linear) else 1
        return (given[0].index_fill(axis, gone[id(module)], 0), *given[1:])

    gone = {id(network.get_submodule(name)): torch.from_numpy(indices) for name, indices in masks.items()}
    handles = [network.get_submodule(name).register_forward_pre_hook(hook) for name in masks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


# -- the network with a change made ----------------------------------------------------------------------


def new_entries(tensor: torch.Tensor, axis: AxisChange, generator: torch.Generator) -> torch.Tensor:
    """What the entries of the new size are filled with, before the old ones are put in their places."""
    picked = tensor.index_select(axis.axis, torch.from_numpy(axis.like.clip(0)))
    if axis.fill is Fill.LIKE:
        return picked
    if axis.fill is Fill.INIT:
        # Shifts are positive, so that few new neurons are dead behind a ReLU.
        return torch.randn(picked.shape, generator=generator, dtype=picked.dtype) / 2 + (picked.ndim == 1)
    return torch.full_like(picked, 1.0 if axis.fill is Fill.ONE else 0.0)


def apply_change(network: nn.Module, change: Change, seed: int = 0) -> nn.Module:
    """A copy with the change made."""
    copied = copy.deepcopy(network)
    make_change(copied, change, seed)
    return copied


def make_change(network: nn.Module, change: Change, seed: int = 0) -> None:
    """Do what the words of a change say; asserts that they make sense."""
    generator = torch.Generator().manual_seed(seed)
    for axis in change.axes:
        tensor = tensors(network)[axis.tensor].detach()
        check_axis(axis, tensor)
        value = new_entries(tensor, axis, generator)
        kept = torch.from_numpy(np.flatnonzero(axis.source >= 0))
        old = tensor.index_select(axis.axis, torch.from_numpy(axis.source[axis.source >= 0]))
        put(network, axis.tensor, value.index_copy(axis.axis, kept, old))
    for attribute in change.attributes:
        module = network.get_submodule(attribute.module)
        assert getattr(module, attribute.name) == attribute.old, attribute
        assert type(attribute.new) is type(attribute.old), attribute
        setattr(module, attribute.name, attribute.new)


def check_axis(axis: AxisChange, tensor: torch.Tensor) -> None:
    size = tensor.shape[axis.axis]
    assert axis.size == size, axis
    assert axis.source.dtype == axis.like.dtype == np.int64 and axis.source.shape == axis.like.shape, axis
    assert axis.source.ndim == 1 and len(axis.source) > 0 and 0 <= axis.axis < tensor.ndim, axis
    assert axis.source.min() >= -1 and axis.source.max() < size, axis
    assert axis.like.max() < size, axis
    assert np.array_equal(axis.like[axis.source >= 0], axis.source[axis.source >= 0]), axis


def check_change(network: nn.Module, change: Change) -> None:
    """What holds for every change, whatever it does."""
    places = [(axis.tensor, axis.axis) for axis in change.axes]
    assert len(set(places)) == len(places), "an axis occurs twice"
    assert change.layer in change.neurons
    known = tensors(network)
    for axis in change.axes:
        size = known[axis.tensor].shape[axis.axis]
        old = np.sort(axis.source[axis.source >= 0])
        assert len(np.unique(old)) == len(old), f"{axis.tensor} gets an entry twice"
        if change.kind == "remove":
            assert len(axis.added) == 0 and len(axis.removed) > 0, axis
        elif change.kind == "add":
            assert len(axis.added) > 0 and len(axis.removed) == 0 and axis.like.min() >= 0, axis
        else:
            assert np.array_equal(old, np.arange(size)), axis


def check_attributes(network: nn.Module) -> None:
    """The numbers that modules keep agree with the shapes of their tensors."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            said: Any = (module.out_features, module.in_features)
            seen: Any = tuple(module.weight.shape)
        elif isinstance(module, CONVOLUTIONS):
            said = (module.out_channels, module.in_channels)
            seen = (module.weight.shape[0], module.weight.shape[1] * module.groups)
        elif isinstance(module, TRANSPOSED):
            said = (module.in_channels, module.out_channels)
            seen = (module.weight.shape[0], module.weight.shape[1] * module.groups)
        elif isinstance(module, nn.Embedding):
            said, seen = (module.num_embeddings, module.embedding_dim), tuple(module.weight.shape)
        elif isinstance(module, NORMS) and isinstance(module.weight, torch.Tensor):
            said = getattr(module, "normalized_shape", None) or (norm_size(module),)
            seen = tuple(module.weight.shape)
        elif isinstance(module, nn.PReLU):
            said, seen = module.num_parameters, module.weight.shape[0]
        else:
            continue
        assert said == seen, f"{name} says {said} and has {seen}"


def norm_size(module: nn.Module) -> int:
    return int(module.num_channels if isinstance(module, nn.GroupNorm) else module.num_features)  # type: ignore[arg-type]


def check_trains(network: nn.Module, x: torch.Tensor) -> None:
    """A step in training mode: forward, backward and update, in every branch that training has."""
    trained = copy.deepcopy(network).train()
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.01, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        answers: list[torch.Tensor] = tree_leaves(trained(x))
        torch.stack([answer.square().mean() for answer in answers]).sum().backward()
        optimizer.step()
    for name, parameter in trained.named_parameters():
        assert parameter.grad is not None and parameter.grad.shape == parameter.shape, name
    assert all(bool(torch.isfinite(parameter).all()) for parameter in trained.parameters())


# -- the oracles -----------------------------------------------------------------------------------------


def check_removal(network: nn.Module, x: torch.Tensor, change: Change, visible: bool = True) -> nn.Module:
    """The edited network, once it was found to be the masked one. visible: the mask must show in the logits."""
    check_change(network, change)
    before = {name: tensor.clone() for name, tensor in tensors(network).items()}
    edited = apply_change(network, change)
    mask = logits(masked(network, change), x)
    error = difference(logits(edited, x), mask)
    assert error <= EXACT, f"the logits are off by {error:.3g} of the largest"
    if visible:
        assert difference(logits(network, x), mask) >= VISIBLE, "the mask masks nothing, so that nothing was tested"
    check_attributes(edited)
    check_trains(edited, x)
    assert all(torch.equal(before[name], tensor) for name, tensor in tensors(network).items())
    return edited


def removal_error(network: nn.Module, x: torch.Tensor, change: Change) -> float:
    """How much more than what was removed a change changes; of a change that is said to be inexact."""
    check_change(network, change)
    edited = apply_change(network, change)
    check_attributes(edited)
    check_trains(edited, x)
    return difference(logits(edited, x), logits(masked(network, change), x))


def check_reordering(network: nn.Module, x: torch.Tensor, change: Change) -> nn.Module:
    check_change(network, change)
    edited = apply_change(network, change)
    error = difference(logits(edited, x), logits(network, x))
    assert error <= EXACT, f"the logits are off by {error:.3g} of the largest"
    assert change.attributes == (), "a new order changes no size"
    check_trains(edited, x)
    return edited


def check_addition(network: nn.Module, x: torch.Tensor, change: Change) -> nn.Module:
    """New neurons change nothing; what consumes them learns at once, and they themselves from the second step."""
    check_change(network, change)
    edited = apply_change(network, change)
    error = difference(logits(edited, x), logits(network, x))
    assert error <= EXACT, f"the logits are off by {error:.3g} of the largest"
    check_attributes(edited)
    check_trains(edited, x)
    columns = consumed(network, change)
    assert columns, "nothing consumes the new neurons"
    assert all(axis.fill is Fill.ZERO for axis in columns.values())
    # A new neuron whose random weights leave it dead does not learn; that is no fault of the change.
    fault = ""
    for seed in range(6):
        fault = learning_fault(apply_change(network, change, seed), x, change, columns)
        if not fault:
            break
    assert not fault, fault
    return edited


def learning_fault(network: nn.Module, x: torch.Tensor, change: Change, columns: Mapping[str, AxisChange]) -> str:
    """What is wrong with how new neurons learn over two steps; "" when nothing is. The network is used up."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    embeddings = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    # A weight that gives neurons and takes them in along one axis starts at nothing there, and then gives nothing.
    tied = any(id(tensors(network)[name]) in embeddings for name in columns)
    for step in range(2):
        optimizer.zero_grad()
        network.train(getattr(network, "both_modes", False))
        answers: list[torch.Tensor] = tree_leaves(network(x))
        torch.stack([(answer - 1).square().mean() for answer in answers]).sum().backward()
        outgoing, incoming = gradients(network, change, columns)
        if not (any(outgoing) if tied else all(outgoing)):
            return f"step {step}: an outgoing connection does not learn"
        if any(incoming) if step == 0 else not all(incoming):
            return f"step {step}: the incoming connections have gradients up to {incoming}"
        optimizer.step()
    return ""


def gradients(network: nn.Module, change: Change, columns: Mapping[str, AxisChange]) -> tuple[list[float], list[float]]:
    """The largest gradient of each new column, and of each new row of a weight that comes by own initialisation."""
    outgoing: list[float] = []
    incoming: list[float] = []
    parameters = dict(network.named_parameters())
    for axis in change.axes:
        column = columns.get(axis.tensor)
        parameter = parameters.get(axis.tensor)
        if parameter is None or parameter.ndim < 2 or not (column is axis or axis.fill is Fill.INIT):
            continue
        assert parameter.grad is not None
        # Where rows and columns of one weight are new, a row's entries in the new columns belong to the columns.
        grad = parameter.grad
        if column is not None and column is not axis:
            grad = grad.index_select(column.axis, torch.from_numpy(np.flatnonzero(column.source >= 0)))
        for index in axis.added:
            (outgoing if column is axis else incoming).append(grad.select(axis.axis, int(index)).abs().max().item())
    return outgoing, incoming
