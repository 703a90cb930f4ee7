"""Rules of operators that move entries about: views, cuts, joins, indexing, padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from graybox.structure.layout import Array, Block, Layout
from graybox.structure.rules import Call, Layouts, Tracing, rule, squeezed

SLICED = "a part of them is cut out at a fixed place"


@rule("view", "reshape", "_unsafe_view", "_reshape_alias", "flatten", "unflatten", "reshape_as", "view_as")
def viewed(tracing: Tracing, call: Call) -> Layouts:
    layout = tracing.layout(call["self"])
    if call.get("dtype") is not None:
        return layout.plain()
    if tuple(call.out.shape) == layout.shape:
        return layout
    return tracing.atoms.recut(layout, call.out.shape)


@rule("permute", "transpose", "t", "transpose_", "t_", "swapaxes", "numpy_T", "movedim", "_conj", "adjoint", "mT")
def permuted(tracing: Tracing, call: Call) -> Layouts:
    layout = tracing.layout(call["self"])
    rank = len(layout.shape)
    order = list(range(rank))
    if "dims" in call.arguments:
        order = [int(dim) % rank for dim in call["dims"]]
    elif "dim0" in call.arguments:
        a, b = int(call["dim0"]) % rank, int(call["dim1"]) % rank
        order[a], order[b] = order[b], order[a]
    elif rank == 2 and call.name in ("t", "t_", "numpy_T"):
        order = [1, 0]
    moved = layout.moved({old: new for new, old in enumerate(order)}, call.out.shape)
    if layout.origin is None:
        return moved
    name, axes = layout.origin
    return replace(moved, origin=(name, tuple(axes[old] for old in order)))


@rule("squeeze", "unsqueeze", "squeeze_", "unsqueeze_")
def unit_dims(tracing: Tracing, call: Call) -> Layouts:
    return tracing.atoms.recut(tracing.layout(call["self"]), call.out.shape)


@rule("expand", "broadcast_to", "expand_as")
def expanded(tracing: Tracing, call: Call) -> Layouts:
    layout = tracing.layout(call["self"])
    shift = len(call.out.shape) - len(layout.shape)
    moved = layout.moved({dim: dim + shift for dim in range(len(layout.shape))}, call.out.shape)
    if layout.origin is None:
        return moved
    name, axes = layout.origin
    return replace(moved, origin=(name, (*[-1] * shift, *axes)))


# -- cuts ----------------------------------------------------------------------------------------------


def cut(tracing: Tracing, layout: Layout, dim: int, start: int, stop: int, step: int = 1) -> Layout:
    """Entries start:stop of a dimension. Equal pieces stay equal: their entries go together."""
    size = layout.shape[dim]
    shape = [*layout.shape]
    shape[dim] = len(range(start, stop, step))
    block = layout.block(dim)
    if shape[dim] == size or block is None:
        return replace(layout, shape=tuple(shape), origin=layout.origin if shape[dim] == size else None)
    axis = block.dims.index(dim)
    length = stop - start
    if step == 1 and length and size % length == 0 and start % length == 0:
        _pieces_together(tracing, block.atoms, axis, length)
    else:
        tracing.atoms.fix(block.atoms, SLICED)
    atoms = block.atoms[(slice(None),) * axis + (slice(start, stop, step),)]
    return _with_block(layout, shape, block, atoms)


def _with_block(layout: Layout, shape: Sequence[int], old: Block, atoms: Array) -> Layout:
    others = tuple(block for block in layout.blocks if block is not old)
    keep = [axis for axis, size in enumerate(atoms.shape) if size > 1]
    dims = tuple(old.dims[axis] for axis in keep)
    squeezed_atoms = atoms.reshape([atoms.shape[axis] for axis in keep])
    blocks = (*others, Block(dims, squeezed_atoms)) if dims else others
    return Layout(tuple(shape), blocks, layout.wild)


def _pieces_together(tracing: Tracing, atoms: Array, axis: int, length: int) -> None:
    pieces = atoms.shape[axis] // length
    apart = atoms.reshape([*atoms.shape[:axis], pieces, length, *atoms.shape[axis + 1 :]])
    tracing.atoms.unite_along(apart, [axis])


@rule("slice", "narrow")
def sliced(tracing: Tracing, call: Call) -> Layouts:
    layout = tracing.layout(call["self"])
    dim = int(call["dim"]) % len(layout.shape)
    size = layout.shape[dim]
    if call.name == "narrow":
        return cut(tracing, layout, dim, int(call["start"]), int(call["start"]) + int(call["length"]))
    start, stop, _ = slice(call.get("start"), call.get("end")).indices(size)
    return cut(tracing, layout, dim, start, stop, int(call.get("step", 1)))


@rule("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk", "split_copy", "tensor_split")
def split(tracing: Tracing, call: Call) -> Layouts:
    layout = tracing.layout(call["self"])
    dim = int(call.get("dim", 0)) % len(layout.shape)
    start, pieces = 0, []
    for piece in call.out:
        stop = start + piece.shape[dim]
        pieces.append(cut(tracing, layout, dim, start, stop))
        start = stop
    return pieces


@rule("select", "unbind")
def selected(tracing: Tracing, call: Call) -> Layouts:
    layout = tracing.layout(call["self"])
    dim = int(call["dim"]) % len(layout.shape)
    if call.name == "select":
        index = int(call["index"]) % layout.shape[dim]
        return squeezed(cut(tracing, layout, dim, index, index + 1), [dim])
    return [squeezed(cut(tracing, layout, dim, i, i + 1), [dim]) for i in range(layout.shape[dim])]


# -- joins ---------------------------------------------------------------------------------------------


@rule("cat", "concat", "concatenate")
def joined(tracing: Tracing, call: Call) -> Layouts:
    parts = [tracing.layout(tensor) for tensor in call["tensors"]]
    parts = [part for part in parts if part.shape != (0,)]
    dim = int(call.get("dim", 0)) % len(call.out.shape)
    covering = [part.block(dim) for part in parts]
    rest = [
        Layout(part.shape, tuple(b for b in part.blocks if b is not block), part.wild)
        for part, block in zip(parts, covering, strict=True)
    ]
    shape = [*call.out.shape]
    # Along the other dimensions the parts lie side by side, so that they go together.
    flat = [replace(part, shape=tuple(1 if d == dim else s for d, s in enumerate(part.shape))) for part in rest]
    base = tracing.together([1 if d == dim else s for d, s in enumerate(shape)], flat, fresh=False)
    if not any(block is not None for block in covering):
        return Layout(tuple(shape), base.blocks, all(part.wild for part in parts))
    dims = sorted({dim, *(d for block in covering if block is not None for d in block.dims)})
    pieces = []
    for part, block in zip(parts, covering, strict=True):
        sizes = [part.shape[d] for d in dims]
        if block is None:
            atoms = tracing.atoms.new([part.shape[dim] if d == dim else 1 for d in dims])
            if part.shape[dim] > 1 or not part.wild:
                tracing.atoms.fix(atoms, "they are joined with a tensor whose size is fixed")
        else:
            atoms = block.over(dims)
        pieces.append(np.broadcast_to(atoms, sizes))
    whole = Block(tuple(dims), np.concatenate(pieces, axis=dims.index(dim)))
    return Layout(tuple(shape), tracing.atoms.merge([*base.blocks, whole]))


@rule("stack")
def stacked(tracing: Tracing, call: Call) -> Layouts:
    parts = [tracing.layout(tensor) for tensor in call["tensors"]]
    dim = int(call.get("dim", 0)) % len(call.out.shape)
    base = tracing.together(parts[0].shape, parts, fresh=True)
    where = {d: d + (d >= dim) for d in range(len(parts[0].shape))}
    return base.moved(where, call.out.shape)


@rule("repeat", "tile", "repeat_interleave")
def repeated(tracing: Tracing, call: Call) -> Layouts:
    layout = tracing.layout(call.get("self", call.get("input")))
    shift = len(call.out.shape) - len(layout.shape)
    kept = []
    for block in layout.blocks:
        again = [call.out.shape[d + shift] // layout.shape[d] for d in block.dims]
        if call.name == "repeat_interleave":
            atoms = block.atoms
            for axis, times in enumerate(again):
                atoms = np.repeat(atoms, times, axis)
        else:
            atoms = np.tile(block.atoms, again)
        kept.append(Block(block.dims, atoms))
    return replace(layout, blocks=tuple(kept), origin=None).moved(
        {d: d + shift for d in range(len(layout.shape))}, call.out.shape
    )


# -- order and place -----------------------------------------------------------------------------------


@rule("roll", "flip")
def turned(tracing: Tracing, call: Call) -> Layouts:
    layout = tracing.layout(call["self"])
    dims = [int(dim) % len(layout.shape) for dim in call["dims"]] or list(range(len(layout.shape)))
    blocks = []
    for block in layout.blocks:
        axes = [axis for axis, dim in enumerate(block.dims) if dim in dims]
        if axes and call.name == "flip":
            blocks.append(Block(block.dims, np.flip(block.atoms, tuple(axes))))
            continue
        if axes:
            tracing.atoms.fix(block.atoms, "the operator 'roll' moves them by a fixed number of places")
        blocks.append(block)
    return Layout(layout.shape, tuple(blocks), layout.wild)


@rule(
    "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
    "replication_pad2d", "replication_pad3d", "pad",
)  # fmt: skip
def padded(tracing: Tracing, call: Call) -> Layouts:
    layout = tracing.layout(call["self"])
    grown = [d for d, size in enumerate(layout.shape) if call.out.shape[d] != size]
    tracing.atoms.fix_layout(layout, "they are padded to a fixed number", grown)
    blocks = []
    for block in layout.blocks:
        if not set(block.dims) & set(grown):
            blocks.append(block)
        elif call.name == "constant_pad_nd" and len(block.dims) == 1:
            (dim,) = block.dims
            before = int(call["pad"][2 * (len(layout.shape) - 1 - dim)])
            atoms = tracing.atoms.new([call.out.shape[dim]])
            tracing.atoms.fix(atoms, "they are padded to a fixed number")
            if 0 <= before <= atoms.size - block.atoms.size:
                atoms[before : before + block.atoms.size] = block.atoms
            blocks.append(Block(block.dims, atoms))
    return Layout(tuple(call.out.shape), tuple(blocks), layout.wild)


@rule("index", "_unsafe_index")
def indexed(tracing: Tracing, call: Call) -> Layouts:
    layout = tracing.layout(call["self"])
    indices = [*call["indices"], *[None] * (len(layout.shape) - len(call["indices"]))]
    used = [dim for dim, index in enumerate(indices) if index is not None]
    if any(index.dtype in (torch.bool, torch.uint8) for index in indices if index is not None):
        tracing.atoms.fix_layout(layout, "they are picked by a mask")
        return None
    tracing.atoms.fix_layout(layout, "they are looked up by a fixed index", used)
    rank = max(index.dim() for index in indices if index is not None)
    adjacent = used == list(range(used[0], used[-1] + 1))
    place = used[0] if adjacent else 0
    where, new = {}, 0
    for dim in range(len(layout.shape)):
        if new == place:
            new += rank
        if dim not in used:
            where[dim] = new
            new += 1
    kept = tuple(block for block in layout.blocks if not set(block.dims) & set(used))
    return replace(layout, blocks=kept).moved(where, call.out.shape)


@rule("index_select", "gather", "take_along_dim", "scatter", "scatter_add", "index_put", "index_put_", "index_add")
def looked_up(tracing: Tracing, call: Call) -> Layouts:
    layout = tracing.layout(call["self"])
    dim = call.get("dim")
    dims = None if dim is None else [int(dim) % max(1, len(layout.shape))]
    tracing.atoms.fix_layout(layout, f"the operator {call.name!r} looks them up by a fixed index", dims)
    if tuple(call.out.shape) == layout.shape:
        return layout.plain()
    kept = () if dims is None else tuple(block for block in layout.blocks if dims[0] not in block.dims)
    return Layout(tuple(call.out.shape), kept)


@rule("pixel_shuffle", "pixel_unshuffle")
def pixels(tracing: Tracing, call: Call) -> Layouts:
    layout = tracing.layout(call["self"])
    channel = len(layout.shape) - 3
    block = layout.block(channel)
    if block is None or len(block.dims) > 1 or call.name == "pixel_unshuffle":
        if block is not None and call.name == "pixel_unshuffle" and len(block.dims) == 1:
            factor = int(call["downscale_factor"]) ** 2
            return _with_block(layout, call.out.shape, block, np.repeat(block.atoms, factor))
        tracing.atoms.fix_layout(layout, "they are shuffled into positions", [channel])
        return None
    square = int(call["upscale_factor"]) ** 2
    together = tracing.atoms.collapse(Block((0, 1), block.atoms.reshape(-1, square)), [1])
    assert together is not None
    return _with_block(layout, call.out.shape, block, together.atoms)


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffled(tracing: Tracing, call: Call) -> Layouts:
    layout = tracing.layout(call["self"])
    groups = int(call["groups"])
    block = layout.block(1)
    if block is None or len(block.dims) > 1:
        tracing.atoms.fix_layout(layout, "they are shuffled", [1])
        return layout
    apart = block.atoms.reshape(groups, -1)
    tracing.atoms.grids.append(apart)
    return _with_block(layout, layout.shape, block, np.ascontiguousarray(apart.T).reshape(-1))


@rule("as_strided", "as_strided_", "as_strided_copy")
def restrided(tracing: Tracing, call: Call) -> Layouts:
    layout = tracing.layout(call["self"])
    if tuple(call.out.shape) == layout.shape:  # the same numbers in another order of memory
        return layout
    tracing.atoms.fix_layout(layout, "the operator 'as_strided' reads them from fixed places in memory")
    return None


@rule("new_zeros", "new_ones", "new_empty", "new_full", "new_empty_strided", "_local_scalar_dense", "sym_size")
def made(tracing: Tracing, call: Call) -> Layouts:
    out = call.out
    return Layout(tuple(out.shape), wild=True) if isinstance(out, torch.Tensor) else None
