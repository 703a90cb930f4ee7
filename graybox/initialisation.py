"""What a layer's neurons start with: its own initialisation, drawn for as few of them as it allows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

# How they initialise a neuron depends on what it is connected to only, not on how many neurons there are.
_BY_NEURON = (
    nn.Linear.reset_parameters,
    nn.Conv2d.reset_parameters,
    nn.Embedding.reset_parameters,
)
_SIDEWAYS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def has_own(module: nn.Module) -> bool:
    """Whether the module knows how it is initialised: by `reset_parameters`, or a function that the user registered."""
    return callable(getattr(module, "reset_parameters", None)) or _registered(module) is not None


def without_own(name: str) -> str:
    """What is done for a layer that does not know, for people."""
    return (
        f"{name} has no initialisation of its own (reset_parameters): weights are drawn from a normal distribution "
        "with the standard deviation of its present ones, biases are zero"
    )


def fresh_entries(
    module: nn.Module, wanted: Mapping[str, tuple[int, torch.Tensor]], shapes: Mapping[str, Sequence[int]]
) -> dict[str, torch.Tensor]:
    """New values of entries of a module's parameters, on the CPU, drawn from the global random state.

    wanted: by parameter name, (axis, int64 indices along it). shapes: of the parameters that these are entries of,
    where they are not the present ones.
    """
    present = {name: value for name, value in module._parameters.items() if value is not None}
    full = {name: tuple(shapes.get(name, value.shape)) for name, value in present.items()}
    few = _few(module, full, wanted)
    drawn = _own(module, few or full) if has_own(module) else {}
    found = {}
    for name, (axis, indices) in wanted.items():
        shape = [*full[name][:axis], len(indices), *full[name][axis + 1 :]]
        value = drawn.get(name)
        if value is None or bool(value.isnan().any()):
            found[name] = _as_the_others(present[name], shape)
        else:
            found[name] = value if few else value.index_select(axis, indices.cpu())
    return found


def perturbed(rows: torch.Tensor, ratio: float) -> torch.Tensor:
    """Each entry times 1 + u, u uniform in (-ratio, ratio), drawn on the CPU from the global random state, so that the
    same seed gives the same on every device."""
    u = (torch.rand(rows.shape, dtype=torch.float64) * 2 - 1) * ratio
    wide = torch.promote_types(rows.dtype, torch.float64)
    return (rows.to(wide) * (1 + u.to(rows.device))).to(rows.dtype)


def _few(
    module: nn.Module, full: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, torch.Tensor]]
) -> dict[str, tuple[int, ...]] | None:
    """Shapes with the wanted neurons only, where drawing those alone is drawing from the same distribution."""
    function = getattr(type(module), "reset_parameters", None)
    if _registered(module) is not None or function not in _BY_NEURON or isinstance(module, _SIDEWAYS):
        return None
    counts = {len(indices) for _, indices in wanted.values()}
    weight_axis = 1 if isinstance(module, nn.Embedding) else 0
    if len(counts) != 1 or any(axis != (weight_axis if n == "weight" else 0) for n, (axis, _) in wanted.items()):
        return None
    count = counts.pop()
    return {
        name: (count, *shape[1:]) if name != "weight" or weight_axis == 0 else (shape[0], count)
        for name, shape in full.items()
    }


def _own(module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """All parameters, by name, of a copy of the module that initialised itself."""
    fresh = module.__class__.__new__(module.__class__)
    fresh.__dict__.update(module.__dict__)
    fresh.__dict__["_parameters"] = {
        # What the initialisation leaves alone can be told from what it sets.
        name: None if value is None else nn.Parameter(_not_a_number(shapes[name], value.dtype), value.requires_grad)
        for name, value in module._parameters.items()
    }
    fresh.__dict__["_buffers"] = {k: None if v is None else v.clone() for k, v in module._buffers.items()}
    fresh.__dict__["_modules"] = copy.deepcopy(module._modules)
    reset, function = getattr(fresh, "reset_parameters", None), _registered(module)
    if callable(reset):
        reset()
    if function is not None:
        function(fresh)
    return {name: value.detach() for name, value in fresh._parameters.items() if value is not None}


def _not_a_number(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.full(shape, float("nan") if dtype.is_floating_point or dtype.is_complex else 0, dtype=dtype)


def _as_the_others(present: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    if present.dim() < 2 or present.numel() < 2:
        return torch.zeros(tuple(shape), dtype=present.dtype)
    spread = float(present.detach().to(torch.float64).std())
    return (torch.randn(tuple(shape), dtype=torch.float64) * spread).to(present.dtype)


def _registered(module: nn.Module) -> Callable[[nn.Module], None] | None:
    return getattr(module, "_initialization", None)
