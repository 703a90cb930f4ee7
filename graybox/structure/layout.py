"""Atoms, and how the dimensions of a tensor are made of them.

Every index of every axis of every parameter gets an atom. An operator passes atoms on and unites those that can only go
together. What is united in the end is a class: entries that are removed or added as one.

The atoms of a tensor lie in blocks, each over one dimension or, after a reshape, over several at once (heads and their
features). An element of the tensor exists as long as its atom in each block does. Dimensions without a block (batch,
positions) have nothing to do with neurons.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Block:
    """atoms: int64 with one axis for each of `dims`, which ascend and are longer than 1."""

    dims: tuple[int, ...]
    atoms: Array

    def over(self, dims: Sequence[int]) -> Array:
        """The atoms with an axis for each of `dims` (a superset, ascending), of length 1 where the block has none."""
        shape, own = [], iter(self.atoms.shape)
        for dim in dims:
            shape.append(next(own) if dim in self.dims else 1)
        return self.atoms.reshape(shape)

    def without(self, drop: Iterable[int]) -> Block | None:
        """The block's first slice along some dimensions, which have been united."""
        gone = set(drop) & set(self.dims)
        if not gone:
            return self
        where = tuple(0 if dim in gone else slice(None) for dim in self.dims)
        dims = tuple(dim for dim in self.dims if dim not in gone)
        return Block(dims, np.asarray(self.atoms[where])) if dims else None


@dataclass(frozen=True)
class Layout:
    """How a tensor of this shape is made of atoms; each dimension in at most one block.

    wild: made by a factory (zeros, arange), so that its sizes come from the code and follow whatever it meets.
    origin: (name, axis of each dimension) of the parameter or buffer that this is, but for a transposition.
    """

    shape: tuple[int, ...]
    blocks: tuple[Block, ...] = ()
    wild: bool = False
    origin: tuple[str, tuple[int, ...]] | None = None

    def block(self, dim: int) -> Block | None:
        """The block that covers a dimension."""
        for block in self.blocks:
            if dim in block.dims:
                return block
        return None

    def moved(self, where: dict[int, int], shape: Sequence[int]) -> Layout:
        """Dimensions renumbered: old -> new. Blocks over one that is not named must have been dealt with."""
        blocks = []
        for block in self.blocks:
            if all(dim in where for dim in block.dims):
                dims = [where[dim] for dim in block.dims]
                order = sorted(range(len(dims)), key=dims.__getitem__)
                blocks.append(Block(tuple(dims[i] for i in order), block.atoms.transpose(order)))
        return Layout(tuple(shape), tuple(blocks), self.wild)

    def plain(self) -> Layout:
        """The same without its origin."""
        return replace(self, origin=None) if self.origin else self


@dataclass
class Atoms:
    """Makes atoms, and keeps what the operators say about them."""

    count: int = 0
    pairs: list[tuple[Array, Array]] = field(default_factory=list)
    fixed: list[tuple[Array, str]] = field(default_factory=list)
    mixed: list[tuple[Array, str, str]] = field(default_factory=list)
    """(atoms [groups, members], what mixes them, tensor name): exact only where whole groups go."""
    absorbed: list[Array] = field(default_factory=list)
    """What was multiplied into other activations, and goes on under their atoms."""
    summed: list[tuple[Array, str]] = field(default_factory=list)
    """What is added up with weight 1: one that is gone is one that is zero, but one that comes changes the sum."""
    cuts: list[tuple[int, ...]] = field(default_factory=list)
    """Shapes that the code gives tensors by a view, in order."""
    grids: list[Array] = field(default_factory=list)
    """Dimensions that the code cuts into several: what goes must be whole hyperplanes along one of them."""

    def new(self, shape: Sequence[int]) -> Array:
        """Fresh atoms."""
        count = math.prod(shape)
        atoms = np.arange(self.count, self.count + count, dtype=np.int64).reshape(shape)
        self.count += count
        return atoms

    def unite(self, a: Array, b: Array) -> None:
        """These go together, entry by entry (broadcast)."""
        if a is b:
            return
        a, b = np.broadcast_arrays(a, b)
        a, b = a.reshape(-1), b.reshape(-1)
        if not np.array_equal(a, b):
            self.pairs.append((a, b))

    def unite_along(self, atoms: Array, axes: Iterable[int]) -> None:
        """All along some axes go together."""
        first: tuple[slice | int, ...] = tuple(
            slice(0, 1) if axis in set(axes) else slice(None) for axis in range(atoms.ndim)
        )
        self.unite(atoms, atoms[first])

    def fix(self, atoms: Array, reason: str) -> None:
        """These can neither go nor get company."""
        self.fixed.append((atoms.reshape(-1), reason))

    def fix_layout(self, layout: Layout, reason: str, dims: Iterable[int] | None = None) -> None:
        """All atoms of a tensor, or of the blocks over some of its dimensions."""
        wanted = set(range(len(layout.shape))) if dims is None else set(dims)
        for block in layout.blocks:
            if wanted & set(block.dims):
                self.fix(block.atoms, reason)

    def merge(self, blocks: Iterable[Block]) -> tuple[Block, ...]:
        """Blocks of which several may cover a dimension, united into some of which only one does."""
        kept: list[Block] = []
        for block in blocks:
            new: Block | None = block
            for other in list(kept):
                if new is None or not set(new.dims) & set(other.dims):
                    continue
                kept.remove(other)
                new = self._joined(other, new)
            if new is not None:
                kept.append(new)
        return tuple(kept)

    def _joined(self, a: Block, b: Block) -> Block | None:
        dims = sorted({*a.dims, *b.dims})
        self.unite(a.over(dims), b.over(dims))
        if set(a.dims) >= set(b.dims):
            return a
        if set(b.dims) >= set(a.dims):
            return b
        # Each runs through all of the other's own dimensions, so that only what they share tells entries apart.
        return a.without(set(a.dims) - set(b.dims))

    def collapse(self, block: Block, dims: Iterable[int]) -> Block | None:
        """A block without some of its dimensions: all along them go together, and go on under atoms of their own."""
        gone = set(dims) & set(block.dims)
        if not gone:
            return block
        self.unite_along(block.atoms, [axis for axis, dim in enumerate(block.dims) if dim in gone])
        left = block.without(gone)
        if left is None:
            return None
        atoms = self.new(left.atoms.shape)
        self.unite(atoms, left.atoms)
        return Block(left.dims, atoms)

    def recut(self, layout: Layout, shape: Sequence[int]) -> Layout:
        """The layout of the same numbers in the same order, in another shape."""
        shape = tuple(shape)
        self.cuts.append(shape)
        if layout.shape == shape:
            return layout
        cuts = _cuts(layout.shape, shape)
        blocks: list[Block] = []
        for block in layout.blocks:
            touched = [(old, new) for old, new in cuts if set(old) & set(block.dims)]
            old = [dim for olds, _ in touched for dim in olds]
            new = [dim for _, news in touched for dim in news]
            sizes = [layout.shape[dim] for dim in old]
            atoms = np.broadcast_to(block.over(old), sizes).reshape([shape[dim] for dim in new])
            recut = _lean(Block(tuple(new), atoms))
            if recut is None:
                continue
            if len(recut.dims) > len(block.dims):
                self.grids.append(recut.atoms)
            blocks.append(recut)
        return Layout(shape, self.merge(blocks), layout.wild)


def _lean(block: Block) -> Block | None:
    """Without the dimensions along which the atoms do not change."""
    dims, atoms = list(block.dims), block.atoms
    for axis in reversed(range(len(dims))):
        first = atoms[(slice(None),) * axis + (slice(0, 1),)]
        if atoms.shape[axis] == 1 or (atoms == first).all():
            atoms = np.squeeze(first, axis)
            del dims[axis]
    return Block(tuple(dims), np.ascontiguousarray(atoms)) if dims else None


def _cuts(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Runs of old and new dimensions that hold the same numbers; dimensions of size 1 are in none."""
    olds = [dim for dim, size in enumerate(old) if size != 1]
    news = [dim for dim, size in enumerate(new) if size != 1]
    cuts, i, j = [], 0, 0
    while i < len(olds) and j < len(news):
        a, b = [olds[i]], [news[j]]
        size_a, size_b = old[olds[i]], new[news[j]]
        i, j = i + 1, j + 1
        while size_a != size_b:
            if size_a < size_b:
                size_a *= old[olds[i]]
                a.append(olds[i])
                i += 1
            else:
                size_b *= new[news[j]]
                b.append(news[j])
                j += 1
        cuts.append((a, b))
    return cuts
