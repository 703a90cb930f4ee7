"""Rules of operators that treat every entry on its own, and of reductions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from graybox.structure.layout import Layout
from graybox.structure.rules import Call, Layouts, Tracing, rule, squeezed, tensors_in
from graybox.structure.rules_shape import cut

PASSING = (
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "elu", "elu_", "selu", "celu", "gelu", "gelu_", "silu",
    "silu_", "mish", "mish_", "hardswish", "hardswish_", "hardtanh", "hardtanh_", "hardsigmoid", "hardsigmoid_",
    "sigmoid", "sigmoid_", "tanh", "tanh_", "softplus", "log_sigmoid_forward", "threshold", "threshold_", "abs",
    "neg", "exp", "exp_", "log", "log1p", "expm1", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "erf", "square",
    "sign", "floor", "ceil", "round", "trunc", "clamp", "clamp_", "clamp_min", "clamp_max", "clamp_min_",
    "clamp_max_", "clone", "detach", "alias", "contiguous", "_to_copy", "to", "lift_fresh", "lift_fresh_copy",
    "dropout", "native_dropout", "alpha_dropout", "bernoulli", "bernoulli_", "logical_not", "bitwise_not", "isnan",
    "isinf", "isfinite", "nan_to_num", "positive", "sgn", "fill_", "zero_", "masked_fill", "masked_fill_",
    "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "uniform_", "normal_", "div_",
    "mul_scalar", "pow", "exponential_", "random_", "triu", "tril", "_unsafe_copy", "copy", "rrelu",
    "rrelu_with_noise", "rrelu_with_noise_functional", "hardshrink", "softshrink", "bitwise_and", "logical_and",
    "logical_or", "bitwise_or", "logical_xor", "eq", "ne", "lt", "le", "gt", "ge", "maximum", "minimum", "fmax",
    "fmin", "where", "remainder", "fmod", "floor_divide", "atan2", "sub", "rsub", "div", "true_divide", "mul",
    "mul_", "copy_", "sub_", "eq_", "xlogy", "polar", "real", "imag", "addcmul", "addcdiv", "lerp", "prelu",
    "_prelu_kernel", "float_power", "trunc_", "floor_", "round_", "neg_", "abs_", "sqrt_", "exp2", "log2", "log10",
    "sinh", "cosh", "tan", "asin", "acos", "atan", "digamma", "lgamma", "logit", "hypot",
)  # fmt: skip
"""The result has the atoms of what goes in; where several have some, those go together."""


@rule(*PASSING)
def passing(tracing: Tracing, call: Call) -> Layouts:
    operands = [tracing.layout(tensor) for tensor in tensors_in(call.arguments.values())]
    _note_numbers(tracing, call)
    if call.name == "copy_":
        return _copied_into(tracing, call, *operands[:2])
    first = _first(call.out)
    if first is None:
        return None
    if not operands:  # numbers only
        return Layout(tuple(first.shape), wild=True)
    result = tracing.together(first.shape, operands, fresh=call.name.startswith(("sub", "where", "max", "min")))
    return _for_each(call.out, replace(result, origin=_kept_origin(call, operands)))


def _kept_origin(call: Call, operands: Sequence[Layout]) -> tuple[str, tuple[int, ...]] | None:
    # A parameter in another type (autocast) or place is still that parameter.
    same = call.name in ("detach", "alias", "clone", "_to_copy", "to", "contiguous", "lift_fresh")
    return operands[0].origin if same else None


@rule("add", "add_")
def added(tracing: Tracing, call: Call) -> Layouts:
    operands = [tracing.layout(tensor) for tensor in tensors_in(call.arguments.values())]
    _note_numbers(tracing, call)
    return tracing.together(call.out.shape, operands, fresh=True)


def _note_numbers(tracing: Tracing, call: Call) -> None:
    numbers = tuple(float(v) for v in call.arguments.values() if type(v) in (int, float))
    if numbers:
        tracing.numbers.append((call.name, numbers))


def _copied_into(tracing: Tracing, call: Call, into: Layout, source: Layout) -> Layout:
    """Also into the tensor that this is a part of, where nothing was in it yet."""
    result = tracing.together(call.out.shape, [into, source], fresh=False)
    base = call["self"]._base
    if base is None or into.blocks or not result.blocks:
        return result
    whole = tracing.layout(base)
    part = tuple(call.out.shape)
    if len(whole.shape) != len(part):
        tracing.atoms.fix_layout(result, "they are written into a part of another tensor")
        return result
    partial = {dim for dim, size in enumerate(part) if size != whole.shape[dim]}
    tracing.atoms.fix_layout(result, "they are written into a part of another tensor", partial)
    kept = [block for block in result.blocks if not partial & set(block.dims)]
    tracing.layouts[base] = Layout(whole.shape, tracing.atoms.merge([*whole.blocks, *kept]), whole.wild)
    return result


def _first(out: Any) -> torch.Tensor | None:
    found = tensors_in([out])
    return found[0] if found else None


def _for_each(out: Any, layout: Layout) -> Layouts:
    """The same layout for every output of that shape (a dropout and its mask)."""
    if isinstance(out, torch.Tensor):
        return layout
    return [layout if isinstance(o, torch.Tensor) and tuple(o.shape) == layout.shape else None for o in out]


# -- reductions ----------------------------------------------------------------------------------------


def _dims(call: Call, rank: int, name: str = "dim") -> list[int]:
    value = call.get(name)
    if value is None or (isinstance(value, (list, tuple)) and not value):
        return list(range(rank))
    values = value if isinstance(value, (list, tuple)) else [value]
    return [int(dim) % max(1, rank) for dim in values]


@rule(
    "sum", "mean", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean", "prod", "norm",
    "linalg_vector_norm", "logsumexp", "any", "all", "nansum", "count_nonzero",
)  # fmt: skip
def reduced(tracing: Tracing, call: Call) -> Layouts:
    source = call.get("self", call.get("input"))
    if call.name in ("max", "min") and "other" in call.arguments:
        return passing(tracing, call)
    layout = tracing.layout(source)
    dims = _dims(call, len(layout.shape))
    exact = call.name in ("sum", "nansum")
    kept = tracing.consume(layout, dims, exact=exact, why=f"the operator {call.name!r} runs over the neurons")
    result = kept if call.get("keepdim", False) else squeezed(kept, dims)
    if isinstance(call.out, torch.Tensor):
        return result
    return [result for _ in call.out]


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax")
def along(tracing: Tracing, call: Call) -> Layouts:
    layout = tracing.layout(call["self"])
    _mix_along(tracing, layout, call["dim"], call.name)
    return layout.plain()


@rule("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin")
def running(tracing: Tracing, call: Call) -> Layouts:
    layout = tracing.layout(call["self"])
    dim = int(call["dim"]) % max(1, len(layout.shape))
    tracing.atoms.fix_layout(layout, f"the operator {call.name!r} runs over them in order", [dim])
    return _for_each(call.out, layout.plain())


@rule("argmax", "argmin", "mode", "median", "nanmedian")
def placed(tracing: Tracing, call: Call) -> Layouts:
    layout = tracing.layout(call["self"])
    dims = _dims(call, len(layout.shape))
    tracing.atoms.fix_layout(layout, f"the operator {call.name!r} tells their places apart", dims)
    kept = Layout(layout.shape, tuple(block for block in layout.blocks if not set(block.dims) & set(dims)))
    result = kept if call.get("keepdim", False) else squeezed(kept, dims)
    return result if isinstance(call.out, torch.Tensor) else [result for _ in call.out]


@rule("glu")
def gated(tracing: Tracing, call: Call) -> Layouts:
    layout = tracing.layout(call["self"])
    dim = int(call.get("dim", -1)) % len(layout.shape)
    half = layout.shape[dim] // 2
    value, gate = cut(tracing, layout, dim, 0, half), cut(tracing, layout, dim, half, 2 * half)
    return tracing.together(call.out.shape, [value, gate], fresh=False)


@rule("sort", "topk", "kthvalue", "argsort", "msort")
def ordered(tracing: Tracing, call: Call) -> Layouts:
    layout = tracing.layout(call["self"])
    rank = max(1, len(layout.shape))
    dim = int(call.get("dim", -1)) % rank
    tracing.atoms.fix_layout(layout, f"the operator {call.name!r} orders them", [dim])
    out = call.out if isinstance(call.out, (list, tuple)) else [call.out]
    blocks = tuple(block for block in layout.blocks if dim not in block.dims)
    return [Layout(tuple(o.shape), blocks) for o in out]


def _mix_along(tracing: Tracing, layout: Layout, dim: int, name: str) -> None:
    dim = int(dim) % max(1, len(layout.shape))
    block = layout.block(dim)
    if block is not None:
        tracing.mix(block, [block.dims.index(dim)], f"the operator {name.strip('_')!r} runs over the neurons")
