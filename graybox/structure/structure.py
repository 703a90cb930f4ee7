"""Which entries of which tensors belong to which neurons, and what an edit of the structure does to all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from graybox.errors import NotFound, Refused
from graybox.structure import changes, connections
from graybox.structure.change import Change, Fill, Follower, Outgoing, Reading, WeightedLayer
from graybox.structure.classes import Classes, with_copies
from graybox.structure.holders import Axis, Holder, find_holders
from graybox.structure.inverse import REMEMBERED, GroupAtoms, inverse, returned
from graybox.structure.layers import find_layers, tensor_owners
from graybox.structure.layout import Array, Layout
from graybox.structure.rules import Contraction
from graybox.structure.tracer import OUTPUT, Trace, trace_network
from graybox.structure.verification import CALCULATES, Verdict


class Structure:
    """Built by `Structure.trace`, or from what the user declared. Changes only by `commit`."""

    def __init__(
        self,
        network: nn.Module,
        trace: Trace,
        example: Any = None,
        remake: Callable[[], Trace] | None = None,
        *,
        declared: bool = False,
    ) -> None:
        self.network = network
        self.declared = declared
        self.example = example
        self._remake = remake
        self.modules = dict(network.named_modules())
        self.owners = tensor_owners(self.modules)
        self._parameters = {name for name, _ in network.named_parameters()}
        self.verdicts: dict[tuple[object, ...], Verdict] = {}
        self._take(trace)
        self.groups, self._group_of = _groups(self.own, self.classes)
        self.layers = find_layers(self.modules, self.contractions, self.own, self.classes.of)
        self.fills = self._find_fills()

    @classmethod
    def trace(cls, network: nn.Module, example: Any) -> Structure:
        """Watch the network run on an example input (a tensor, a tuple of arguments or a dict of keyword arguments).

        Raises Invalid when it cannot be run on it.
        """
        return cls(network, trace_network(network, example), example, lambda: trace_network(network, example))

    def _take(self, trace: Trace) -> None:
        tracing = trace.tracing
        self.classes = Classes(tracing.atoms)
        self.notes = tuple(trace.notes)
        self.unknown_operators = tuple(sorted(tracing.unknown))
        self.contractions = _without_repeats(tracing.contractions)
        self.norms = tracing.norms
        self.numbers = tracing.numbers
        self.cuts = tracing.atoms.cuts
        self.shapes = {name: tuple(value.shape) for name, value in trace.tensors.items()}
        self.own: dict[Axis, Array] = {
            (name, block.dims[0]): block.atoms for name, layout in trace.own.items() for block in layout.blocks
        }
        self._inputs = trace.inputs
        self._holders: list[list[Holder]] = []
        self._removals: list[tuple[GroupAtoms, GroupAtoms]] = []
        self._outputs: dict[str, bool] = {}
        self._observed: list[tuple[str, Contraction]] | None = None
        self._input_axes: dict[str, int] = {}
        self._readings: dict[str, tuple[Array | None, Contraction | None, Array | None, Reading | None]] = {}

    # -- looking -------------------------------------------------------------------------------------

    def layer(self, name: str) -> WeightedLayer:
        """Raises NotFound for a name that no layer has."""
        if name not in self.layers:
            raise NotFound(f"no layer {name!r} with neurons; there are {', '.join(self.layers) or 'none'}")
        return self.layers[name]

    def labels(self, tensor: str, axis: int) -> Array | None:
        """The class of each entry of an axis; None where an axis has none (it is of length 1)."""
        atoms = self.own.get((tensor, axis))
        return None if atoms is None else self.classes.of[atoms]

    def neuron_labels(self, name: str) -> Array:
        """The class of each neuron of a layer. Raises NotFound, or Refused for a layer of one neuron."""
        layer = self.layer(name)
        labels = self.labels(layer.weight, layer.out_axis)
        if labels is None:
            raise Refused(f"{name} has one neuron only, which has to stay alone")
        return labels

    def is_output(self, name: str) -> bool:
        """Whether a layer's neurons are the network's output."""
        if name not in self._outputs:  # no edit makes one, or unmakes it
            self._outputs[name] = self._is_output(name)
        return self._outputs[name]

    def _is_output(self, name: str) -> bool:
        layer = self.layer(name)
        labels = self.labels(layer.weight, layer.out_axis)
        if labels is None:  # one neuron: the output, where nothing else consumes it
            return name == list(self.layers)[-1]
        return self.classes.why_fixed(labels) == OUTPUT

    def group_number(self, tensor: str, axis: int) -> int:
        """Which group of axes, all of which share classes with one another, this one is in."""
        return self._group_of[tensor, axis]

    def group_of(self, tensor: str, axis: int) -> list[Axis]:
        """All axes of tensors that share a class with this one, itself included."""
        return self.groups[self._group_of[tensor, axis]]

    def is_parameter(self, tensor: str) -> bool:
        """Whether a tensor is a parameter, not a buffer."""
        return tensor in self._parameters

    def parameter_count(self) -> int:
        """Of the whole network."""
        return sum(math.prod(self.shapes[name]) for name in self._parameters)

    def multiply_adds(
        self, shapes: Mapping[str, tuple[int, ...]] | None = None, length: Callable[[Array], int] = len
    ) -> int:
        """Of the layers with weights, for one sample of the example input; 0 where there is none.

        shapes: of tensors that are to be taken for others than they are. length: how many are left of some atoms.
        """
        known = shapes or {}
        total = 0.0
        for c in self.contractions:
            if not c.training:  # such as an auxiliary head
                times = 1 if c.times is None else length(c.times)
                total += c.multiplicity * times * math.prod(known.get(c.weight, self.shapes[c.weight]))
        return round(total / _batch(self.example))

    def followers(self, layer: str) -> list[Follower]:
        """Tensors of normalisations that carry exactly this layer's neurons, and no other's."""
        return connections.followers(self, layer)

    def outgoing(self, layer: str, neurons: Sequence[int]) -> Outgoing:
        """The entries of weights that multiply some of a layer's neurons, and the layers that are summed with it."""
        return connections.outgoing(self, layer, neurons)

    def incoming(self, layer: str) -> list[tuple[tuple[str, int], ...]]:
        """For each index along a layer's incoming axis the (layer, neuron) pairs that feed it; () for the input."""
        return connections.incoming(self, layer)

    def reading(self, layer: str) -> Reading | None:
        """Where a layer's neurons are seen as the next weighted layer consumes them; None where nothing sees them."""
        rows = self.own.get((self.layer(layer).weight, self.layer(layer).out_axis))
        known = self._readings.get(layer)
        # Arrays of atoms are exchanged, never changed, when an edit touches them.
        if known is not None and known[0] is rows and (known[1] is None or known[1].inputs is known[2]):
            return known[3]
        found = connections.reading(self, layer)
        contraction = None if found is None else dict(self.observed_inputs())[found.reader]
        self._readings[layer] = (rows, contraction, None if contraction is None else contraction.inputs, found)
        return found

    def observed_inputs(self) -> list[tuple[str, Contraction]]:
        """(module name, contraction) of the layers whose module gets as input what its weight multiplies."""
        if self._observed is None:
            self._observed = []
            first: dict[Axis, Contraction] = {}
            for contraction in self.contractions:
                first.setdefault((contraction.weight, contraction.out_axis), contraction)
            for name, layer in self.layers.items():
                given, mine = self._inputs.get(name), first.get((layer.weight, layer.out_axis))
                axis = None if given is None or mine is None else _axis_with(given, mine.inputs)
                if axis is not None and mine is not None:
                    self._observed.append((name, mine))
                    self._input_axes[name] = axis
            self._observed.sort(key=lambda pair: pair[1].order)
        return self._observed

    def input_axis(self, layer: str) -> int:
        """Along which axis of its module's input a layer's incoming neurons lie: 1, or -1 for the last."""
        self.observed_inputs()
        return self._input_axes[layer]

    def marked_atoms(self, atoms: Array) -> Array:
        """bool [number of atoms]: which are among these."""
        marks = np.zeros(self.classes.of.size, dtype=bool)
        marks[atoms] = True
        return marks

    # -- changes -------------------------------------------------------------------------------------

    def together(self, layer: str, neurons: Sequence[int]) -> list[int]:
        """The smallest set of a layer's neurons, with these among them, that can go together."""
        return changes.together(self, layer, neurons)

    def removal(self, layer: str, neurons: Sequence[int]) -> Change:
        """What goes when some neurons of a layer go. Raises NotFound, Invalid or Refused, with what can go together as
        `details["together"]` where that is more than was asked for."""
        return changes.removal(self, layer, neurons)

    def addition(self, layer: str, count: int) -> Change:
        """What comes when a layer gets `count` more neurons. Raises NotFound, Invalid or Refused, with the size of a
        group as `details["together"]` where only whole groups can come."""
        return changes.addition(self, layer, count)

    def reordering(self, layer: str, order: Sequence[int]) -> Change:
        """What moves when a layer's neurons are put in another order: order[i] is the old index at place i. Raises
        NotFound, Invalid or Refused."""
        return changes.reordering(self, layer, order)

    def insertion(self, change: Change) -> Change:
        """The exact inverse of a change that was committed; later ones were taken back before."""
        return inverse(self, change)

    def commit(self, change: Change) -> None:
        """The change was made to the tensors (and the modules' attributes): follow it."""
        if not change.axes:
            return
        known = self.layers[change.layer]
        group = self._group_of[known.weight, known.out_axis]
        if not change.classes:  # an inverse: what came back has no atoms, unless they are remembered
            self._take_back(change, group)
            return
        if CALCULATES in change.inexact:  # with other numbers from now on
            self.refresh()
            return
        classes = np.asarray(change.classes)
        labels = self.classes.of
        flags = self.classes.flags(classes)
        cloned = np.flatnonzero(flags[labels]) if change.kind == "add" else labels[:0]
        first = self.classes.clone(cloned, classes, change.copies) if change.kind == "add" else 0
        memo: dict[int, Array] = {}

        def follow(atoms: Array) -> Array:
            if id(atoms) not in memo:
                hit = flags[labels[atoms]]
                memo[id(atoms)] = followed(atoms, hit) if hit.any() else atoms
            return memo[id(atoms)]

        def followed(atoms: Array, hit: Array) -> Array:
            if change.kind == "remove":
                return np.asarray(atoms[~hit])
            if change.kind == "reorder":
                source = changes.moved_or_refused(labels[atoms], classes, np.asarray(change.targets), change.layer)
                return np.asarray(atoms[source])
            like, copy = with_copies(hit, change.copies)
            new = atoms[like]
            fresh = copy > 0
            new[fresh] = first + (copy[fresh] - 1) * cloned.size + np.searchsorted(cloned, new[fresh])
            return np.asarray(new)

        before = self._atoms(group)
        for place in self.groups[group]:
            self.own[place] = follow(self.own[place])
        for holder in self._holders[group]:
            holder.follow(follow)
        if change.kind == "add":
            self.classes.part_copies(first, change.copies)
        self._reshape(change)
        if change.kind == "remove":
            self._removals = [*self._removals[1 - REMEMBERED :], (before, self._atoms(group))]

    def _take_back(self, change: Change, group: int) -> None:
        before = returned(self._removals, change, self._atoms(group)) if change.kind == "add" else None
        if before is None:
            self.refresh()
            return
        before.put_back(self.own)
        self._reshape(change)

    def _atoms(self, group: int) -> GroupAtoms:
        """Of a group, as they are now."""
        self.observed_inputs()  # asked of the layouts of before, which do not follow
        self._holders = self._holders or find_holders(
            self.classes, self.own, self.groups, self.contractions, self.norms
        )
        return GroupAtoms(self.own, self.groups[group], self._holders[group])

    def _reshape(self, change: Change) -> None:
        for axis in change.axes:
            shape = list(self.shapes[axis.tensor])
            shape[axis.axis] = axis.source.size
            self.shapes[axis.tensor] = tuple(shape)

    def refresh(self) -> None:
        """Look at the network anew: its tensors were changed from outside."""
        assert self._remake is not None
        self._take(self._remake())
        self.groups, self._group_of = _groups(self.own, self.classes)
        self.layers = find_layers(self.modules, self.contractions, self.own, self.classes.of)

    def _find_fills(self) -> dict[Axis, Fill]:
        fills: dict[Axis, Fill] = {}
        for norm in self.norms:
            fills[norm.tensor, norm.axis] = connections.ROLE_FILLS[norm.role]
        for layer in self.layers.values():
            fills[layer.weight, layer.out_axis] = Fill.INIT
            if layer.bias is not None:
                fills[layer.bias, 0] = Fill.INIT
        for layer in self.layers.values():
            if layer.in_axis >= 0:
                fills[layer.weight, layer.in_axis] = Fill.ZERO
        return fills


def _without_repeats(contractions: Sequence[Contraction]) -> list[Contraction]:
    """Evaluation and training see the same ones; what only training sees (an auxiliary head) is kept."""
    counts: dict[tuple[str, int], int] = {}
    kept = []
    for contraction in contractions:
        key = (contraction.weight, contraction.out_axis)
        if not contraction.training:
            counts[key] = counts.get(key, 0) + 1
        elif key in counts:
            continue
        kept.append(contraction)
    return kept


def _groups(own: Mapping[Axis, Array], classes: Classes) -> tuple[list[list[Axis]], dict[Axis, int]]:
    """Axes that share classes, directly or through others."""
    parent = {axis: axis for axis in own}

    def root(axis: Axis) -> Axis:
        while parent[axis] != axis:
            parent[axis] = parent[parent[axis]]
            axis = parent[axis]
        return axis

    axes = list(own)
    first = np.full(int(classes.of.max()) + 1 if classes.of.size else 0, -1, dtype=np.int64)
    for number, axis in enumerate(axes):
        labels = classes.of[own[axis]]
        for known in np.unique(first[labels]):
            if known >= 0:
                parent[root(axis)] = root(axes[int(known)])
        first[labels[first[labels] < 0]] = number
    found: dict[Axis, list[Axis]] = {}
    for axis in axes:
        found.setdefault(root(axis), []).append(axis)
    groups = list(found.values())
    return groups, {axis: number for number, group in enumerate(groups) for axis in group}


def _axis_with(layout: Layout, atoms: Array | None) -> int | None:
    """The axis of a module's input along which these atoms lie: 1 or the last one."""
    if atoms is None:
        return None
    for dim, axis in ((1, 1), (len(layout.shape) - 1, -1)):
        block = layout.block(dim) if dim < len(layout.shape) else None
        if block is not None and block.dims == (dim,) and np.array_equal(block.atoms, atoms):
            return axis
    return None


def _batch(example: Any) -> int:
    for leaf in tree_leaves(example):
        if isinstance(leaf, torch.Tensor) and leaf.dim():
            return max(1, int(leaf.shape[0]))
    return 1
