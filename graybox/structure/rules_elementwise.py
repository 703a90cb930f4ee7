"""Rules of operators that treat every entry on its own, and of reductions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from graybox.structure.layout import Layout
from graybox.structure.rules import Call, Layouts, Tracing, rule, squeezed, tensors_in

PASSING = (
    "relu relu_ relu6 leaky_relu leaky_relu_ elu elu_ selu celu gelu gelu_ silu silu_ mish mish_ hardswish hardswish_ "
    "hardtanh hardtanh_ hardsigmoid hardsigmoid_ sigmoid sigmoid_ tanh tanh_ softplus log_sigmoid_forward threshold "
    "threshold_ abs neg exp exp_ log log1p expm1 sqrt rsqrt reciprocal sin cos erf square sign floor ceil round "
    "trunc clamp clamp_ clamp_min clamp_max clamp_min_ clamp_max_ clone detach alias contiguous _to_copy "
    "to lift_fresh lift_fresh_copy dropout native_dropout alpha_dropout bernoulli bernoulli_ logical_not bitwise_not "
    "isnan isinf isfinite nan_to_num positive sgn fill_ zero_ masked_fill masked_fill_ zeros_like ones_like "
    "full_like empty_like rand_like randn_like uniform_ normal_ div_ mul_scalar pow exponential_ random_ triu tril "
    "_unsafe_copy copy rrelu rrelu_with_noise rrelu_with_noise_functional hardshrink softshrink bitwise_and "
    "logical_and logical_or bitwise_or logical_xor eq ne lt le gt ge maximum minimum fmax fmin where remainder fmod "
    "floor_divide atan2 sub rsub div true_divide mul mul_ copy_ sub_ eq_ xlogy polar real imag "
    "addcmul addcdiv lerp prelu _prelu_kernel float_power trunc_ floor_ round_ neg_ abs_ sqrt_ "
    "exp2 log2 log10 sinh cosh tan asin acos atan digamma lgamma logit hypot"
).split()
"""The result has the atoms of what goes in; where several have some, those go together."""


@rule(*PASSING)
def passing(tracing: Tracing, call: Call) -> Layouts:
    operands = [tracing.layout(tensor) for tensor in tensors_in(call.arguments.values())]
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
    return tracing.together(call.out.shape, operands, fresh=True)


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
    "linalg_vector_norm", "logsumexp", "argmax", "argmin", "any", "all", "nansum", "median", "mode", "count_nonzero",
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


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum", "cumprod", "logcumsumexp", "_safe_softmax",
      "glu_jvp")  # fmt: skip
def along(tracing: Tracing, call: Call) -> Layouts:
    layout = tracing.layout(call["self"])
    _mix_along(tracing, layout, call["dim"], call.name)
    return layout.plain()


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
