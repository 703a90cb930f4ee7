"""Setting a learning rate while a schedule goes on changing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import optim
from torch.optim.lr_scheduler import LRScheduler

_SCHEDULED = ("initial_lr", "max_lr", "min_lr")
"""What schedulers keep in the optimizer's groups: all of them the first, OneCycleLR its highest and lowest too."""


def rescale_learning_rate(optimizer: optim.Optimizer, scheduler: LRScheduler | None, value: float) -> None:
    """The first parameter group gets `value`, others keep their ratio to it; a schedule goes on scaled alike, so that
    its shape stays. Where the schedule stands at 0, its start becomes `value`."""
    groups = optimizer.param_groups
    current = float(groups[0]["lr"])
    ratio = value / current if current else None

    def scaled(old: Any) -> float:
        return value if ratio is None else float(old) * ratio

    for group in groups:
        # The first group gets the value itself, not one that went through a division and a product.
        group["lr"] = value if group is groups[0] else scaled(group["lr"])
        for key in _SCHEDULED:
            if key in group:
                group[key] = scaled(group[key])
    for part in _with_parts(scheduler):
        for name in ("base_lrs", "max_lrs"):
            rates = getattr(part, name, None)
            if rates is not None:
                setattr(part, name, [scaled(rate) for rate in rates])


def kept_learning_rates(optimizer: optim.Optimizer, scheduler: LRScheduler | None) -> Callable[[], None]:
    """What puts back every rate of the optimizer and its schedule as it is now, bit for bit."""
    groups = [
        (group, {key: group[key] for key in ("lr", *_SCHEDULED) if key in group}) for group in optimizer.param_groups
    ]
    parts = [
        (part, {name: list(getattr(part, name)) for name in ("base_lrs", "max_lrs") if hasattr(part, name)})
        for part in _with_parts(scheduler)
    ]

    def put_back() -> None:
        for group, rates in groups:
            group.update(rates)
        for part, kept in parts:
            for name, each in kept.items():
                setattr(part, name, list(each))

    return put_back


def _with_parts(scheduler: LRScheduler | None) -> list[LRScheduler]:
    """The scheduler and those it is made of."""
    if scheduler is None:
        return []
    return [scheduler, *(inner for part in getattr(scheduler, "_schedulers", ()) for inner in _with_parts(part))]
