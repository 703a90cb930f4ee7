"""Look at what a network answers without leaving a trace in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from graybox.compiled import eagerly
from graybox.errors import Invalid
from graybox.model_with_ops import NetworkWithOps
from graybox.plan_summary import LogitChange
from graybox.randomness import seeded
from graybox.tracking import TrackingMode


@contextlib.contextmanager
def quiet(network: NetworkWithOps) -> Iterator[None]:
    """In evaluation mode, without statistics, gradients or a trace in the random states; afterwards as before."""
    # A network around another one (`graybox.operable`) shares its modules, but not its own mode.
    inner = vars(network).get("_plain")
    modules: list[nn.Module] = [*network.modules(), *([inner] if isinstance(inner, nn.Module) else [])]
    training = [(module, module.training) for module in modules]
    ledger = network.ledger
    mode, registered = ledger.mode, ledger.prediction_registered
    try:
        for module, _ in training:
            module.training = False
        ledger.mode = TrackingMode.DISABLED
        with torch.no_grad(), seeded(0), eagerly():
            yield
    finally:
        ledger.mode, ledger.prediction_registered = mode, registered
        for module, was in training:
            module.training = was


def answer(network: NetworkWithOps, batch: Any) -> torch.Tensor:
    """The network's logits for a batch (a tensor, a tuple of arguments or a dict of keyword arguments), as float64 on
    the CPU. Raises Invalid where it answers no tensor."""
    if isinstance(batch, Mapping):
        given = network(**batch)
    elif isinstance(batch, (tuple, list)):
        given = network(*batch)
    else:
        given = network(batch)
    logits = _first_tensor(given)
    if logits is None:
        raise Invalid(f"the network answers {type(given).__name__}, in which there is no tensor to compare")
    return logits.detach().to("cpu", torch.float64)


def change_of(before: torch.Tensor, after: torch.Tensor) -> LogitChange:
    """How far logits moved: [batch, ...] both. Where an edit changes how many there are, those both have count."""
    samples = int(before.shape[0]) if before.dim() else 1
    if before.shape != after.shape:
        common = tuple(slice(0, min(a, b)) for a, b in zip(before.shape, after.shape, strict=True))
        before, after = before[common], after[common]
    moved = float((after - before).abs().max()) if before.numel() else 0.0
    largest = float(before.abs().max()) if before.numel() else 0.0
    return LogitChange(moved, moved / largest if largest else moved, samples)


def _first_tensor(value: Any) -> torch.Tensor | None:
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, Mapping):
        preferred = value.get("logits", value.get("out"))
        value = [preferred, *value.values()]
    if isinstance(value, (tuple, list)):
        return next((found for found in map(_first_tensor, value) if found is not None), None)
    return _first_tensor(getattr(value, "logits", None)) if hasattr(value, "logits") else None
