"""Rules of operators with weights: products, convolutions, normalisations, embeddings; and of pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from graybox.structure.layout import Array, Block, Layout
from graybox.structure.rules import Call, Contraction, Layouts, Norm, Tracing, rule

FIXED_SIZE = "they are multiplied with a tensor whose size is fixed (the input or a constant)"
SCALE = "a product of two activations is scaled by how many they are"


# -- products ------------------------------------------------------------------------------------------


@rule("mm", "bmm", "addmm", "baddbmm", "addmm_", "baddbmm_", "mv", "addmv", "dot", "linear", "matmul")
def product(tracing: Tracing, call: Call) -> Layouts:
    a, b, bias = _operands(tracing, call)
    batch = 1 if len(a.shape) == 3 else 0
    result = multiply(tracing, a, b, batch)
    out = Layout(tuple(call.out.shape), result.blocks) if tuple(call.out.shape) == result.shape else (
        tracing.atoms.recut(result, call.out.shape)
    )  # fmt: skip
    if bias is not None:
        out = tracing.together(call.out.shape, [out, bias], fresh=True)
    return out


def _operands(tracing: Tracing, call: Call) -> tuple[Layout, Layout, Layout | None]:
    names = {
        "mm": ("self", "mat2", None), "bmm": ("self", "mat2", None), "addmm": ("mat1", "mat2", "self"),
        "addmm_": ("mat1", "mat2", "self"), "baddbmm": ("batch1", "batch2", "self"),
        "baddbmm_": ("batch1", "batch2", "self"), "mv": ("self", "vec", None), "addmv": ("mat", "vec", "self"),
        "dot": ("self", "tensor", None), "linear": ("input", "weight", "bias"), "matmul": ("self", "other", None),
    }[call.name]  # fmt: skip
    a, b = tracing.layout(call[names[0]]), tracing.layout(call[names[1]])
    bias = tracing.layout(call[names[2]]) if names[2] is not None and call.get(names[2]) is not None else None
    if call.name == "linear":
        lead = int(np.prod(a.shape[:-1], dtype=np.int64))
        a = tracing.atoms.recut(a, (lead, a.shape[-1]))
        name, axes = b.origin or ("", (0, 1))
        b = Layout((b.shape[1], b.shape[0]), b.moved({0: 1, 1: 0}, (b.shape[1], b.shape[0])).blocks, b.wild,
                   (name, (axes[1], axes[0])) if b.origin else None)  # fmt: skip
    if len(a.shape) == 1:
        a = tracing.atoms.recut(a, (1, *a.shape))
    if len(b.shape) == 1:
        b = tracing.atoms.recut(b, (*b.shape, 1))
    return a, b, bias


def multiply(tracing: Tracing, a: Layout, b: Layout, batch: int) -> Layout:
    """The layout of a [.., n, k] times b [.., k, m], with `batch` leading dimensions in common."""
    ka, kb = batch + 1, batch
    shape = (*a.shape[:-1], b.shape[-1])
    inner_a, inner_b = a.block(ka), b.block(kb)
    kept: list[Block] = []
    inner: list[tuple[tuple[int, ...], Array]] = []
    for layout, block, k in ((a, inner_a, ka), (b, inner_b, kb)):
        free = batch if k == ka else batch + 1  # the dimension of this operand that the result keeps
        kept += [part for part in layout.blocks if part is not block]
        if block is None:
            continue
        if free in block.dims and len(block.dims) > 1:  # every row sums over all of them
            slimmer = tracing.atoms.collapse(block, [free])
            assert slimmer is not None
            block = slimmer
        # Renamed so that both call the summed dimension -1.
        dims = tuple(-1 if dim == k else dim for dim in block.dims)
        inner.append((dims, block.atoms))
    order = sorted({dim for dims, _ in inner for dim in dims if dim >= 0})
    order.append(-1)
    spread = [_spread(dims, atoms, order) for dims, atoms in inner]
    for side, other in ((inner_a, b), (inner_b, a)):
        alone = side is not None and (inner_b if side is inner_a else inner_a) is None
        if side is not None and alone and not other.wild and a.shape[-1] > 1:
            tracing.atoms.fix(side.atoms, FIXED_SIZE)
    if len(spread) == 2:
        tracing.atoms.unite(*spread)
        if not a.origin and not b.origin and len(order) == 1:
            tracing.atoms.mixed.append((spread[0].reshape(1, -1), SCALE, ""))
    for atoms in spread:
        if len(order) > 1:
            # The sum over a batch's entries belongs to the batch's index: they go together (a head).
            tracing.atoms.unite_along(atoms, [len(order) - 1])
            dims = tuple(order[:-1])
            keep = [axis for axis, size in enumerate(atoms.shape[:-1]) if size > 1]
            if keep:
                first = atoms[..., 0].squeeze()
                own = tracing.atoms.new(first.shape)
                tracing.atoms.unite(own, first)
                kept.append(Block(tuple(dims[axis] for axis in keep), own))
    # What each operand keeps: a's n at `batch`, b's m at the last place; both already are there.
    result = Layout(shape, tracing.atoms.merge(kept))
    _record_product(tracing, a, b, batch, inner_a, inner_b)
    return result


def _spread(dims: Sequence[int], atoms: Array, order: Sequence[int]) -> Array:
    position = {dim: axis for axis, dim in enumerate(dims)}
    present = [position[dim] for dim in order if dim in position]
    moved = atoms.transpose(present)
    sizes = iter(moved.shape)
    return moved.reshape([next(sizes) if dim in position else 1 for dim in order])


def _record_product(
    tracing: Tracing, a: Layout, b: Layout, batch: int, inner_a: Block | None, inner_b: Block | None
) -> None:
    for weight, k, free, other, inner in (
        (b, batch, batch + 1, a, inner_a), (a, batch + 1, batch, b, inner_b),
    ):  # fmt: skip
        if weight.origin is None or other.origin is not None:
            continue
        name, axes = weight.origin
        if axes[free] < 0 or axes[k] < 0:
            continue
        inputs = inner.atoms if inner is not None and len(inner.dims) == 1 else None
        rows = math.prod(other.shape[:batch]) * (other.shape[batch] if weight is b else other.shape[batch + 1])
        along = other.block(batch if weight is b else batch + 1)
        times = None if along is None or len(along.dims) > 1 else along.atoms
        each = float(rows) / (1 if times is None else times.size)
        tracing.contractions.append(Contraction(name, axes[free], axes[k], 1, inputs, tracing.order, each, times=times))
        return


# -- convolution ---------------------------------------------------------------------------------------


@rule("convolution", "_convolution", "convolution_overrideable", "conv2d", "conv1d", "conv3d")
def convolved(tracing: Tracing, call: Call) -> Layouts:
    x, weight = tracing.layout(call["input"]), tracing.layout(call["weight"])
    groups, transposed = int(call["groups"]), bool(call.get("transposed", False))
    channel = 1 if len(x.shape) == len(weight.shape) else 0  # without a batch: channels first
    x = _over(tracing, x, {channel, channel - 1} & set(range(len(x.shape))), "a convolution slides over them")
    inputs = _channels(x, channel)
    out_axis, in_axis = (1, 0) if transposed else (0, 1)
    rows, columns = _axis_atoms(weight, out_axis), _axis_atoms(weight, in_axis)
    shape = tuple(call.out.shape)
    outputs = connect_channels(tracing, inputs, rows, columns, groups, transposed, x, channel)
    if outputs is not None and shape[channel] == 1:
        outputs = None
    out = Layout(shape, () if outputs is None else (Block((channel,), outputs),))
    if weight.origin is not None:
        name, axes = weight.origin
        positions = (np.prod(x.shape) / x.shape[channel]) if transposed else np.prod(shape) / shape[channel]
        tracing.contractions.append(
            Contraction(name, axes[out_axis], axes[in_axis], groups, inputs, tracing.order, float(positions))
        )
    bias = call.get("bias")
    if bias is not None:
        shifted = tracing.layout(bias)
        as_channel = Layout(
            tuple(size if dim == channel else 1 for dim, size in enumerate(shape)),
            tuple(Block((channel,), block.atoms) for block in shifted.blocks),
            shifted.wild,
            shifted.origin,
        )
        out = tracing.together(shape, [out, as_channel], fresh=False)
    return out


def _over(tracing: Tracing, x: Layout, dims: set[int], why: str) -> Layout:
    """The layout over some dimensions only: what else belongs to the same blocks goes together, and blocks over none
    of them are fixed."""
    blocks = []
    for block in x.blocks:
        if not set(block.dims) & dims:
            tracing.atoms.fix(block.atoms, why)
            continue
        left = tracing.atoms.collapse(block, set(block.dims) - dims)
        if left is not None:
            blocks.append(left)
    return Layout(x.shape, tuple(blocks), x.wild)


def _channels(x: Layout, channel: int) -> Array | None:
    block = x.block(channel)
    return block.atoms if block is not None and block.dims == (channel,) else None


def _axis_atoms(weight: Layout, axis: int) -> Array | None:
    block = weight.block(axis)
    return block.atoms if block is not None and len(block.dims) == 1 else None


def connect_channels(
    tracing: Tracing, inputs: Array | None, rows: Array | None, columns: Array | None, groups: int, transposed: bool,
    x: Layout, channel: int,
) -> Array | None:  # fmt: skip
    """Unite what goes together; the atoms of the output's channels."""
    atoms = tracing.atoms
    if groups == 1:
        if inputs is not None and columns is not None:
            atoms.unite(columns, inputs)
        elif columns is not None:
            atoms.fix(columns, "they read the network's input" if x.block(channel) is None else FIXED_SIZE)
        elif inputs is not None and x.shape[channel] > 1:
            atoms.fix(inputs, FIXED_SIZE)
        return rows
    # A whole group goes: its inputs with its outputs. Along the axis that all groups share nothing can go alone.
    shared, own = (rows, columns) if transposed else (columns, rows)
    if shared is not None:
        atoms.fix(shared, "all groups of a grouped convolution share them")
    if inputs is None:
        if own is not None:
            atoms.fix(own, "a grouped convolution ties them to an input of fixed size")
        return _repeated_rows(tracing, own, rows, groups, transposed)
    into = inputs.reshape(groups, -1)
    atoms.unite_along(into, [1])
    if transposed:
        # weight [in, out / groups]: its rows are inputs; outputs belong to their group.
        if own is not None:
            atoms.unite(own, inputs)
        outputs = _repeated_rows(tracing, own, rows, groups, transposed)
        if outputs is not None:
            atoms.unite(outputs.reshape(groups, -1), into[:, :1])
        return outputs
    if own is not None:
        atoms.unite(own.reshape(groups, -1), into[:, :1])
    return own


def _repeated_rows(
    tracing: Tracing, own: Array | None, rows: Array | None, groups: int, transposed: bool
) -> Array | None:
    if not transposed:
        return own
    per_group = 1 if rows is None else rows.size
    if own is None:
        return None
    outputs = tracing.atoms.new([groups * per_group])
    tracing.atoms.unite(outputs.reshape(groups, -1), own.reshape(groups, -1)[:, :1])
    return outputs


# -- normalisation -------------------------------------------------------------------------------------

ROLES = {"weight": "gain", "bias": "shift", "running_mean": "mean", "running_var": "var"}


@rule(
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "batch_norm",
    "cudnn_batch_norm", "_batch_norm_with_update", "_batch_norm_no_update", "miopen_batch_norm",
    "_native_batch_norm_legit_functional", "_batch_norm_with_update_functional",
)  # fmt: skip
def batch_normalised(tracing: Tracing, call: Call) -> Layouts:
    x = tracing.layout(call["input"])
    _tie(tracing, call, x, [1])
    return _first_only(call, x)


@rule("native_layer_norm", "layer_norm", "rms_norm", "_fused_rms_norm")
def layer_normalised(tracing: Tracing, call: Call) -> Layouts:
    x = tracing.layout(call["input"])
    rank = len(x.shape)
    dims = list(range(rank - len(call["normalized_shape"]), rank))
    weight = tracing.layout(call["weight"]) if call.get("weight") is not None else None
    name = weight.origin[0] if weight is not None and weight.origin else ""
    for block in x.blocks:
        inside = [axis for axis, dim in enumerate(block.dims) if dim in dims]
        if inside:
            tracing.mix(block, inside, "a layer normalisation runs over them", name)
    _tie(tracing, call, x, dims)
    return _first_only(call, x)


@rule("native_group_norm", "group_norm")
def group_normalised(tracing: Tracing, call: Call) -> Layouts:
    x = tracing.layout(call["input"])
    groups = int(call.get("group", call.get("num_groups", 1)))
    weight = tracing.layout(call["weight"]) if call.get("weight") is not None else None
    name = weight.origin[0] if weight is not None and weight.origin else ""
    channels = _channels(x, 1)
    if channels is not None and channels.size > groups:
        tracing.atoms.mixed.append((channels.reshape(groups, -1), "a group normalisation runs over them", name))
    elif channels is None and x.block(1) is not None:
        tracing.atoms.fix_layout(x, "a group normalisation runs over them", [1])
    _tie(tracing, call, x, [1])
    return _first_only(call, x)


def _first_only(call: Call, x: Layout) -> Layouts:
    if isinstance(call.out, torch.Tensor):
        return x.plain()
    return [x.plain(), *[None for _ in call.out[1:]]]


def _tie(tracing: Tracing, call: Call, x: Layout, dims: Sequence[int]) -> None:
    """A normalisation's own tensors, [sizes of dims], go with what they normalise."""
    for key, role in ROLES.items():
        value = call.get(key)
        if value is None:
            continue
        own = tracing.layout(value)
        for axis, dim in enumerate(dims[-len(own.shape) :]):
            block, normalised = own.block(axis), x.block(dim)
            if block is None:
                continue
            if normalised is None:
                if not x.wild:
                    tracing.atoms.fix(block.atoms, "they normalise a tensor whose size is fixed")
                continue
            over = normalised.atoms
            if len(normalised.dims) > 1:
                over = over.transpose(
                    [normalised.dims.index(dim), *[i for i, d in enumerate(normalised.dims) if d != dim]]
                )
                tracing.atoms.unite(block.atoms.reshape([-1, *[1] * (over.ndim - 1)]), over)
                continue
            tracing.atoms.unite(block.atoms, over)
            home = tracing.owners.get(int(block.atoms[0]))
            if home is not None:
                # Instance normalisation repeats its tensors for every sample.
                once = over[: tracing.sizes[home]]
                tracing.norms.append(Norm(*home, role, once, tracing.order))


# -- embedding -----------------------------------------------------------------------------------------


@rule("embedding", "embedding_renorm_")
def embedded(tracing: Tracing, call: Call) -> Layouts:
    weight = tracing.layout(call["weight"])
    vocabulary = weight.block(0)
    if vocabulary is not None:
        tracing.atoms.fix(vocabulary.atoms, "they are the entries of an embedding's table")
    features = _axis_atoms(weight, 1)
    last = len(call.out.shape) - 1
    if weight.origin is not None:
        name, axes = weight.origin
        tracing.contractions.append(Contraction(name, axes[1], -1, 1, None, tracing.order, 0.0))
    return Layout(tuple(call.out.shape), () if features is None else (Block((last,), features),))


@rule("_embedding_bag", "_embedding_bag_forward_only", "embedding_bag")
def embedded_bag(tracing: Tracing, call: Call) -> Layouts:
    weight = tracing.layout(call["weight"])
    if weight.block(0) is not None:
        tracing.atoms.fix_layout(weight, "they are the entries of an embedding's table", [0])
    features = _axis_atoms(weight, 1)
    if weight.origin is not None:
        tracing.contractions.append(Contraction(weight.origin[0], 1, -1, 1, None, tracing.order, 0.0))
    first = Layout(tuple(call.out[0].shape), () if features is None else (Block((1,), features),))
    return [first, *[None for _ in call.out[1:]]]


# -- pooling and resampling ----------------------------------------------------------------------------

POOLS = {
    1: "avg_pool1d max_pool1d max_pool1d_with_indices _adaptive_avg_pool1d adaptive_avg_pool1d adaptive_max_pool1d "
    "upsample_nearest1d _upsample_nearest_exact1d upsample_linear1d",
    2: "avg_pool2d max_pool2d max_pool2d_with_indices _adaptive_avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d "
    "upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa "
    "_upsample_bicubic2d_aa grid_sampler_2d fractional_max_pool2d max_unpool2d",
    3: "avg_pool3d max_pool3d max_pool3d_with_indices _adaptive_avg_pool3d adaptive_avg_pool3d adaptive_max_pool3d "
    "upsample_nearest3d _upsample_nearest_exact3d upsample_trilinear3d",
}


def _pool(spatial: int) -> None:
    @rule(*POOLS[spatial].split())
    def pooled(tracing: Tracing, call: Call) -> Layouts:
        x = tracing.layout(call.get("self", call.get("input")))
        still = set(range(len(x.shape) - spatial))
        blocks = _over(tracing, x, still, f"the operator {call.name!r} slides over them").blocks
        outs = [call.out] if isinstance(call.out, torch.Tensor) else call.out
        layouts = [Layout(tuple(o.shape), blocks) if len(o.shape) == len(x.shape) else None for o in outs]
        return layouts[0] if isinstance(call.out, torch.Tensor) else layouts


for _spatial in POOLS:
    _pool(_spatial)
