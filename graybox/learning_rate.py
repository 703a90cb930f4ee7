"""Setting a learning rate while a schedule goes on changing it."""

from __future__ import annotations

from typing import Any

from torch import optim
from torch.optim.lr_scheduler import LRScheduler

Rates = dict[str, list[dict[str, Any]]]
_SCHEDULED = ("initial_lr", "max_lr", "min_lr")
"""What schedulers keep in the optimizer's groups: all of them the first, OneCycleLR its highest and lowest too."""
_OF_PARTS = ("base_lrs", "max_lrs")


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
        for name in _OF_PARTS:
            rates = getattr(part, name, None)
            if rates is not None:
                setattr(part, name, [scaled(rate) for rate in rates])


def rates_of(optimizer: optim.Optimizer, scheduler: LRScheduler | None) -> Rates:
    """Every rate of the optimizer and of its schedule, as plain values."""
    return {
        "groups": [
            {key: group[key] for key in ("lr", *_SCHEDULED) if key in group} for group in optimizer.param_groups
        ],
        "parts": [
            {name: list(getattr(part, name)) for name in _OF_PARTS if getattr(part, name, None) is not None}
            for part in _with_parts(scheduler)
        ],
    }


def undo_rates(optimizer: optim.Optimizer, scheduler: LRScheduler | None, before: Rates, after: Rates) -> None:
    """Take back a change of rates that made `after` of `before`. Where a schedule has gone on since, it goes on as if
    the change had never been; where nothing has moved, all is as before, bit for bit."""
    for group, old, new in zip(optimizer.param_groups, before["groups"], after["groups"], strict=True):
        now = group["lr"]
        group.update(old)
        if now != new["lr"]:
            # Of what the schedule starts from: the rate itself may have stood at 0.
            start = "initial_lr" if new.get("initial_lr") else "lr"
            group["lr"] = now * (old[start] / new[start]) if new[start] else old["lr"]
    for part, kept in zip(_with_parts(scheduler), before["parts"], strict=True):
        for name, rates in kept.items():
            setattr(part, name, list(rates))


def _with_parts(scheduler: LRScheduler | None) -> list[LRScheduler]:
    """The scheduler and those it is made of."""
    if scheduler is None:
        return []
    return [scheduler, *(inner for part in getattr(scheduler, "_schedulers", ()) for inner in _with_parts(part))]
