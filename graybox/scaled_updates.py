"""Factors on the optimizer's own update: freezes and learning rates of neurons, biases and incoming connections.

A learning rate scales the update, not the gradient: with momentum, Adam or weight decay, a scaled gradient freezes
nothing. So the entries are kept before the optimizer's step, and set right after it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from graybox.entry_sets import EntryIndex
from graybox.errors import Invalid
from graybox.scalings import Scaling


class _Part:
    """Entries of one parameter with factors other than 1, disjoint from all other parts."""

    def __init__(self, parameter: nn.Parameter, index: EntryIndex, factors: torch.Tensor) -> None:
        self.parameter = parameter
        self.index = index
        self.factors = factors


class ScaledUpdates:
    """Applies scalings around an optimizer's step: `before` it and `after` it.

    Several scalings of one parameter multiply: an entry's factor is the product over all of them. Raises Invalid for
    factors that do not fit their axis.
    """

    def __init__(self, scalings: Iterable[Scaling]) -> None:
        by_parameter: dict[nn.Parameter, dict[int, torch.Tensor]] = {}
        for scaling in scalings:
            parameter, axis = scaling.parameter, scaling.axis
            factors = scaling.factors.to("cpu", torch.float64)
            if not 0 <= axis < parameter.dim() or factors.shape != (parameter.shape[axis],):
                raise Invalid(
                    f"{tuple(factors.shape)} factors along axis {axis} do not fit a parameter of shape "
                    f"{tuple(parameter.shape)}; give one factor per entry of the axis"
                )
            axes = by_parameter.setdefault(parameter, {})
            axes[axis] = axes[axis] * factors if axis in axes else factors
        self._parts = [part for p, axes in by_parameter.items() for part in _parts(p, axes)]
        self._kept: list[torch.Tensor] = []

    def before(self) -> None:
        """Keep the entries as they are."""
        # Whether there is a gradient is not asked: a closure makes it within the step.
        self._kept = [part.index.take(part.parameter.detach()) for part in self._parts]

    @torch.no_grad()
    def after(self) -> None:
        """Scale what happened to them since."""
        for part, kept in zip(self._parts, self._kept, strict=True):
            part.index.put(part.parameter, scaled_update(kept, part.index.take(part.parameter), part.factors))
        self._kept = []


def _parts(parameter: nn.Parameter, axes: dict[int, torch.Tensor]) -> list[_Part]:
    """Disjoint boxes that cover all entries with a factor other than 1: the scaled indices of the first axis with
    everything behind them; of the rest, the scaled indices of the second; and so on."""
    parts = []
    rest: dict[int, torch.Tensor] = {}
    remaining = dict(sorted(axes.items()))
    while remaining:
        axis = next(iter(remaining))
        factors = remaining.pop(axis)
        scaled, others = (factors != 1.0).nonzero().flatten(), (factors == 1.0).nonzero().flatten()
        if scaled.numel():
            index = EntryIndex(parameter.shape, {**rest, axis: scaled}, parameter.device)
            product = _along(axis, factors[scaled], parameter.dim())
            for other, behind in remaining.items():
                product = product * _along(other, behind, parameter.dim())
            parts.append(_Part(parameter, index, product.to(parameter.device)))
            rest[axis] = others
        if not others.numel():
            break  # nothing is left
    return parts


def _along(axis: int, factors: torch.Tensor, dimensions: int) -> torch.Tensor:
    return factors.view([-1 if axis == other else 1 for other in range(dimensions)])


def scaled_update(before: torch.Tensor, after: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """before + factor * (after - before), entry by entry, rounded once; exactly `before` where the factor is 0.

    before, after: [...]; factors: float64, of as many dimensions and broadcast over them, or [rows] for one per row.
    """
    if factors.dim() == 1:
        factors = _along(0, factors, before.dim())
    wide = torch.promote_types(before.dtype, torch.float64)
    old = before.to(wide)
    scaled = (old + factors * (after.to(wide) - old)).to(before.dtype)
    return torch.where(factors == 0, before, scaled)
