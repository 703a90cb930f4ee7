"""What each operator does to atoms: the registry of rules, and what a rule can ask and say.

A rule gets the operator's arguments and its output, and answers the layout of the output (or one for each of several).
An operator without a rule fixes the atoms it meets, by name: what it touches can neither go nor get company.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from graybox.structure.layout import Array, Atoms, Block, Layout

Layouts = Layout | Sequence[Layout | None] | None
Rule = Callable[["Tracing", "Call"], Layouts]

RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of some operators (names as "aten::relu", without the "aten::")."""

    def add(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return add


@dataclass(frozen=True)
class Call:
    """One call of an operator: arguments by name as its schema says, defaults filled in."""

    name: str
    arguments: Mapping[str, Any]
    out: Any

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.arguments.get(name, default)


@dataclass
class Contraction:
    """A weight multiplied with activations. inputs: atoms of what each index along `in_axis` (for a grouped
    convolution: each input channel) consumes, None for the network's input. order: of the call."""

    weight: str
    out_axis: int
    in_axis: int
    groups: int
    inputs: Array | None
    order: int
    multiplicity: float
    """Multiply-adds for each entry of the weight, for the whole example."""
    training: bool = False
    """Seen in training mode."""

    def arrays(self) -> list[Array]:
        """All atoms that it holds."""
        return [atoms for atoms in (self.inputs, self.times) if atoms is not None]

    def follow(self, follow: Callable[[Array], Array]) -> None:
        """Exchange them."""
        self.inputs = None if self.inputs is None else follow(self.inputs)
        self.times = None if self.times is None else follow(self.times)

    times: Array | None = None
    """Atoms of other neurons, for each of which it multiplies once more (tokens mixed channel by channel)."""


@dataclass
class Norm:
    """A normalisation's tensor along whose `axis` lie the atoms `inputs`. role: gain, shift, mean or var."""

    tensor: str
    axis: int
    role: str
    inputs: Array
    order: int

    def arrays(self) -> list[Array]:
        """All atoms that it holds."""
        return [self.inputs]

    def follow(self, follow: Callable[[Array], Array]) -> None:
        """Exchange them."""
        self.inputs = follow(self.inputs)


@dataclass
class Tracing:
    """What a trace has found so far."""

    atoms: Atoms = field(default_factory=Atoms)
    contractions: list[Contraction] = field(default_factory=list)
    norms: list[Norm] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)
    numbers: list[tuple[str, tuple[float, ...]]] = field(default_factory=list)
    """Numbers that the code calculates with, in order: one that depends on how many neurons there are shows."""
    owners: dict[int, tuple[str, int]] = field(default_factory=dict)
    """(tensor, axis) by the first atom of every axis of every parameter and buffer."""
    sizes: dict[tuple[str, int], int] = field(default_factory=dict)
    order: int = 0
    layouts: Any = None
    """Layouts by tensor, set by the tracer."""

    def layout(self, value: Any) -> Layout:
        """Of a tensor; numbers are wild."""
        if not isinstance(value, torch.Tensor):
            return Layout((), wild=True)
        known = self.layouts.get(value)
        return Layout(tuple(value.shape)) if known is None else known

    def apply(self, call: Call) -> Layouts:
        """The layouts of a call's output."""
        self.order += 1
        known = RULES.get(call.name)
        if known is not None:
            return known(self, call)
        tensors = tensors_in(call.arguments.values())
        if not tensors:
            return _factory(call)
        touched = [layout for layout in map(self.layout, tensors) if layout.blocks]
        if touched:
            self.unknown[call.name] = self.unknown.get(call.name, 0) + 1
            for layout in touched:
                self.atoms.fix_layout(layout, f"the operator {call.name!r} has no rule that says what it does to them")
        return None

    # -- what several rules need ---------------------------------------------------------------------

    def together(self, shape: Sequence[int], operands: Sequence[Layout], *, fresh: bool) -> Layout:
        """The layout of an elementwise result: broadcast, and united where several have atoms.

        fresh: where several activations meet (a sum), the result is a new tensor of theirs, not the first one's.
        """
        rank = len(shape)
        wild = all(operand.wild for operand in operands)
        # The atoms of the result are those of the activation itself, not of a factor on it.
        operands = sorted(operands, key=lambda o: (o.origin is not None, math.prod(o.shape) != math.prod(shape)))
        blocks: list[Block] = []
        covering: list[set[int]] = []
        for operand in operands:
            shift = rank - len(operand.shape)
            # A dimension of size 1 that is broadcast says nothing.
            moved = [Block(tuple(dim + shift for dim in block.dims), block.atoms) for block in operand.blocks]
            covering.append({dim for block in moved for dim in block.dims})
            blocks += moved
        for operand, own in zip(operands, covering, strict=True):
            if operand.wild:
                continue
            shift = rank - len(operand.shape)
            sized = {dim + shift for dim, size in enumerate(operand.shape) if size > 1}
            for block in blocks:
                bare = set(block.dims) & sized - own
                if bare:
                    self.atoms.fix(block.atoms, "they meet a tensor whose size is fixed (the input or a constant)")
        merged = self.atoms.merge(blocks)
        if fresh and sum(1 for operand in operands if operand.blocks and not operand.origin) > 1:
            arrays = {id(block.atoms): block.atoms for block in blocks}
            if len({array.tobytes() for array in arrays.values()}) > 1:
                merged = tuple(self._renewed(block) for block in merged)
        elif not fresh and len(blocks) > len(merged):
            kept = np.concatenate([block.atoms.reshape(-1) for block in merged])
            self.atoms.absorbed += [block.atoms[~np.isin(block.atoms, kept)] for block in blocks]
        return Layout(tuple(shape), merged, wild)

    def _renewed(self, block: Block) -> Block:
        atoms = self.atoms.new(block.atoms.shape)
        self.atoms.unite(atoms, block.atoms)
        return Block(block.dims, atoms)

    def consume(self, layout: Layout, dims: Sequence[int], *, exact: bool, why: str) -> Layout:
        """The layout after reducing some dimensions (kept, with size 1). Exact for a sum, to which a neuron that is
        gone and one that is zero contribute the same."""
        dims = [dim % max(1, len(layout.shape)) for dim in dims]
        blocks = []
        for block in layout.blocks:
            inside = [axis for axis, dim in enumerate(block.dims) if dim in dims]
            if inside and exact:
                self.atoms.summed.append((block.atoms.reshape(-1), why))
            elif inside:
                self.mix(block, inside, why)
            left = self.atoms.collapse(block, dims) if len(inside) < len(block.dims) else None
            if left is not None:
                blocks.append(left)
        shape = tuple(1 if dim in dims else size for dim, size in enumerate(layout.shape))
        return Layout(shape, tuple(blocks), layout.wild)

    def mix(self, block: Block, axes: Sequence[int], why: str, tensor: str = "") -> None:
        """Entries along some axes of a block influence each other beyond a sum."""
        rest = [axis for axis in range(block.atoms.ndim) if axis not in axes]
        groups = 1
        for axis in rest:
            groups *= block.atoms.shape[axis]
        self.atoms.mixed.append((block.atoms.transpose([*rest, *axes]).reshape(groups, -1), why, tensor))


def tensors_in(values: Any) -> list[torch.Tensor]:
    """All tensors among arguments, those in lists included."""
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += tensors_in(value)
    return found


CONSTANT = ("zeros", "ones", "full", "empty", "empty_strided", "scalar_tensor", "rand", "randn", "bernoulli", "normal")
"""Factories whose result is the same, or drawn anew, at every index."""


def _factory(call: Call) -> Layouts:
    out = call.out
    if call.name not in CONSTANT:
        return None  # numbers that tell places apart, such as a range
    if isinstance(out, torch.Tensor):
        return Layout(tuple(out.shape), wild=True)
    if isinstance(out, (list, tuple)):
        return [Layout(tuple(o.shape), wild=True) if isinstance(o, torch.Tensor) else None for o in out]
    return None


def squeezed(layout: Layout, dims: Sequence[int]) -> Layout:
    """Without some dimensions of size 1."""
    gone = {dim % max(1, len(layout.shape)) for dim in dims}
    kept = [dim for dim in range(len(layout.shape)) if dim not in gone]
    return layout.moved({dim: i for i, dim in enumerate(kept)}, [layout.shape[dim] for dim in kept])
