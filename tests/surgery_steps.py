"""Small declared networks after a few steps, for the tests of edits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import optim

from graybox.tracking import TrackingMode
from tests.small_networks import ELEMENTWISE_OPTIMIZERS, ChainNet, built, operated, train_step

ADAM = ELEMENTWISE_OPTIMIZERS["Adam"]


def trained(kind: type[Any] = ChainNet, make: Callable[[Any], optim.Optimizer] = ADAM, steps: int = 3) -> Any:
    """(model, optimizer, wrapper, surgeon) after a few steps, with statistics."""
    torch.manual_seed(3)
    model = built(kind)
    optimizer, wrapper, surgeon = operated(model, make)
    for _ in range(steps):
        model.set_tracking_mode(TrackingMode.TRAIN)
        train_step(model, optimizer, kind.example(6))
    model.set_tracking_mode(TrackingMode.EVAL)
    model(kind.example(4))
    model.set_tracking_mode(TrackingMode.DISABLED)
    return model, optimizer, wrapper, surgeon


def entries_changed(before: torch.Tensor, after: torch.Tensor) -> set[tuple[int, ...]]:
    return {tuple(index) for index in (before != after).nonzero().tolist()}
