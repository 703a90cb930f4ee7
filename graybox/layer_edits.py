"""Edits of one layer on its own: its weight, bias, records and flags, whatever comes before or after it.

Meant for a layer outside of a network. Within one, what feeds it and what consumes it have to follow: use the
network's own `prune`, `add_neurons` and so on, or `graybox.surgery`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from graybox.errors import Invalid, NotFound, Refused
from graybox.index_selection import selected
from graybox.neuron_identity import UNKNOWN
from graybox.structure.attributes import attributes_for

if TYPE_CHECKING:
    from graybox.modules_with_ops import NeuronLayer

ROW_FLAGS = {"frozen": 0.0, "bias_frozen": 0.0, "neuron_learning_rate": 1.0, "neuron_identity": UNKNOWN}
COLUMN_FLAGS = {"incoming_frozen": 0.0, "incoming_learning_rate": 1.0, "incoming_identity": UNKNOWN}
"""What a layer knows of each of its neurons, and of each incoming one; and what a new one starts with."""


class LayerEdits:
    """What a layer with neurons can do to itself. Parameters are replaced, never resized in place."""

    # A part of NeuronLayer only, which mypy takes for a wrong type of self: hence the exceptions.

    def reorder(self: NeuronLayer, indices: Iterable[int]) -> None:  # type: ignore[misc]
        """Put the neurons into another order: indices[i] is the old index at place i."""
        _exchange(self, 0, _permutation(indices, self.neuron_count))

    def prune(self: NeuronLayer, indices: Iterable[int]) -> None:  # type: ignore[misc]
        """Remove neurons. Raises NotFound for one that is not there, Refused when none would be left."""
        _exchange(self, 0, _without(self.check_neurons(indices), self.neuron_count))

    def add_neurons(self: NeuronLayer, n: int, skip_initialization: bool = False) -> None:  # type: ignore[misc]
        """Append neurons, by own initialisation, or zero with skip_initialization."""
        _exchange(self, 0, _with_more(self.neuron_count, n), None if skip_initialization else "own")

    def reset(  # type: ignore[misc]
        self: NeuronLayer,
        indices: Iterable[int],
        skip_initialization: bool = False,
        perturbation_ratio: float | None = None,
    ) -> None:
        """Neurons start anew: by own initialisation, zero with skip_initialization, or each weight times 1 + u, u
        uniform in (-perturbation_ratio, perturbation_ratio). Their statistics are forgotten."""
        index = self.check_neurons(indices)
        _renew(self, 0, index, skip_initialization, perturbation_ratio)
        self.records.reset(index.tolist())

    def reorder_incoming_neurons(self: NeuronLayer, indices: Iterable[int]) -> None:  # type: ignore[misc]
        """Put the incoming neurons into another order."""
        _exchange(self, 1, _permutation(indices, self.incoming_places))

    def prune_incoming_neurons(self: NeuronLayer, indices: Iterable[int]) -> None:  # type: ignore[misc]
        """Remove the connections from some incoming neurons."""
        _exchange(self, 1, _without(self.check_incoming(indices), self.incoming_places))

    def add_incoming_neurons(self: NeuronLayer, n: int, skip_initialization: bool = False) -> None:  # type: ignore[misc]
        """Append incoming neurons, connected by own initialisation, or by zero with skip_initialization."""
        _exchange(self, 1, _with_more(self.incoming_places, n), None if skip_initialization else "own")

    def reset_incoming_neurons(  # type: ignore[misc]
        self: NeuronLayer,
        indices: Iterable[int],
        skip_initialization: bool = False,
        perturbation_ratio: float | None = None,
    ) -> None:
        """The connections from some incoming neurons start anew, as in `reset`."""
        _renew(self, 1, self.check_incoming(indices), skip_initialization, perturbation_ratio)


def _permutation(indices: Iterable[int], count: int) -> torch.Tensor:
    order = torch.as_tensor(list(indices), dtype=torch.int64)
    if sorted(order.tolist()) != list(range(count)):
        raise Invalid(f"an order names each of the {count} once, from 0 on")
    return order


def _without(gone: torch.Tensor, count: int) -> torch.Tensor:
    kept = torch.tensor([i for i in range(count) if i not in set(gone.tolist())], dtype=torch.int64)
    if not kept.numel():
        raise Refused("all of them would go; keep at least one")
    return kept


def _with_more(count: int, more: int) -> torch.Tensor:
    if more < 1:
        raise Invalid(f"the number to add is 1 or more, not {more}")
    return torch.cat([torch.arange(count), torch.full((more,), -1)])


def _axes(layer: NeuronLayer, side: int) -> dict[str, int]:
    """side 0: the neurons'; 1: the incoming ones'. By parameter name, the axis along which they lie."""
    if side == 1:
        if layer.in_axis < 0 or int(getattr(layer, "groups", 1)) > 1:
            raise Refused("this layer's incoming neurons cannot be edited on their own (it is grouped, or a table)")
        return {"weight": layer.in_axis}
    if int(getattr(layer, "groups", 1)) > 1:
        raise Refused("the neurons of a grouped convolution cannot be edited on their own; edit them in their network")
    bias = getattr(layer, "bias", None)
    return {"weight": layer.out_axis, **({"bias": 0} if isinstance(bias, torch.Tensor) else {})}


@torch.no_grad()
def _exchange(layer: NeuronLayer, side: int, source: torch.Tensor, fill: str | None = None) -> None:
    axes = _axes(layer, side)
    new: dict[str, nn.Parameter] = {}
    for name, axis in axes.items():
        old: Any = layer._parameters[name]
        new[name] = nn.Parameter(selected(old.detach(), axis, source.numpy()), requires_grad=old.requires_grad)
        if old.grad is not None:
            new[name].grad = selected(old.grad, axis, source.numpy())
    for name, value in new.items():
        layer._parameters[name] = value
    shapes = {name: tuple(value.shape) for name, value in layer._parameters.items() if value is not None}
    for name, number in attributes_for(layer, shapes, None).items():
        setattr(layer, name, number)
    for name, default in (ROW_FLAGS if side == 0 else COLUMN_FLAGS).items():
        old = getattr(layer, name)
        kept = old[source.clamp(min=0)]
        kept[source < 0] = old.new_tensor(default)
        setattr(layer, name, kept)
    if side == 0:
        layer.records.carry(source)
    else:
        layer.records.carry_incoming(source, layer.in_axis)
    fresh = (source < 0).nonzero().flatten()
    if fill == "own" and fresh.numel():
        _renew(layer, side, fresh, False, None)
    layer.ledger.flags_version += 1


@torch.no_grad()
def _renew(
    layer: NeuronLayer, side: int, index: torch.Tensor, skip_initialization: bool, perturbation_ratio: float | None
) -> None:
    if perturbation_ratio is not None and not 0.0 < perturbation_ratio < 1.0:
        raise Invalid(f"a perturbation ratio lies between 0 and 1, both excluded, not {perturbation_ratio}")
    own = {} if skip_initialization or perturbation_ratio is not None else layer.own_initialization()
    for name, axis in _axes(layer, side).items():
        value: Any = layer._parameters[name]
        where = index.to(value.device)
        if perturbation_ratio is not None:
            rows = value.index_select(axis, where)
            fresh = rows * (1 + (torch.rand_like(rows) * 2 - 1) * perturbation_ratio)
        elif own:
            fresh = own[name].index_select(axis, where)
        else:
            fresh = torch.zeros_like(value.index_select(axis, where))
        value.index_copy_(axis, where, fresh)


class NormEdits:
    """The same for a normalisation: gain, shift and running statistics of its neurons."""

    def reorder(self: Any, indices: Iterable[int]) -> None:
        """Put the neurons into another order: indices[i] is the old index at place i."""
        _exchange_norm(self, _permutation(indices, self.neuron_count))

    def prune(self: Any, indices: Iterable[int]) -> None:
        """Remove neurons. Raises NotFound for one that is not there, Refused when none would be left."""
        _exchange_norm(self, _without(_checked(indices, self.neuron_count), self.neuron_count))

    def add_neurons(self: Any, n: int, skip_initialization: bool = False) -> None:
        """Append neurons: gain 1, shift 0, mean 0, variance 1. A normalisation has no other initialisation to skip."""
        _exchange_norm(self, _with_more(self.neuron_count, n))

    def reset(
        self: Any, indices: Iterable[int], skip_initialization: bool = False, perturbation_ratio: float | None = None
    ) -> None:
        """Neurons start anew: gain 1, shift 0, mean 0, variance 1; or, perturbed, gain and shift times 1 + u."""
        index = _checked(indices, self.neuron_count)
        with torch.no_grad():
            for name, neutral in NEUTRAL.items():
                value = getattr(self, name)
                if value is None:
                    continue
                if perturbation_ratio is None:
                    value.index_fill_(0, index.to(value.device), neutral)
                elif isinstance(value, nn.Parameter):
                    rows = value[index.to(value.device)]
                    value[index.to(value.device)] = rows * (1 + (torch.rand_like(rows) * 2 - 1) * perturbation_ratio)


NEUTRAL = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}


def _checked(indices: Iterable[int], count: int) -> torch.Tensor:
    index = torch.as_tensor(list(indices), dtype=torch.int64)
    wrong = [int(i) for i in index if not 0 <= int(i) < count]
    if wrong:
        raise NotFound(f"no neuron {wrong[0]} in this layer: it has {count}, numbered from 0")
    return index


@torch.no_grad()
def _exchange_norm(norm: Any, source: torch.Tensor) -> None:
    for name, neutral in NEUTRAL.items():
        old = getattr(norm, name)
        if old is None:
            continue
        new = selected(old.detach(), 0, source.numpy(), old.new_full((int((source < 0).sum()),), neutral))
        if isinstance(old, nn.Parameter):
            norm._parameters[name] = nn.Parameter(new, requires_grad=old.requires_grad)
            if old.grad is not None:
                norm._parameters[name].grad = selected(old.grad, 0, source.numpy())
        else:
            norm._buffers[name] = new
    norm.num_features = len(source)
