"""The Normalize among the transforms of a data set, wherever it is, and its inverse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

MAX_DEPTH = 32
"""Transforms within transforms, and data sets within data sets; more is a circle."""


class Normalisation(NamedTuple):
    """(x - mean) / std, per channel. mean, std: float64 [channels], or [1] for all channels."""

    mean: np.ndarray
    std: np.ndarray

    @property
    def of_bytes(self) -> bool:
        """Whether it expects values from 0 to 255, as a mean above 1 tells."""
        return bool(self.mean.max() > 1)

    def taken_back(self, values: np.ndarray) -> np.ndarray:
        """The values [channels, height, width] as they were before."""
        made: np.ndarray = values * self.std.reshape(-1, 1, 1) + self.mean.reshape(-1, 1, 1)
        return made

    def of(self, chosen: Sequence[int], channels: int) -> Normalisation | None:
        """That of some of the channels; None where it is not one of so many channels."""
        sizes = {self.mean.size, self.std.size}
        if not sizes <= {1, channels}:
            return None
        mean, std = np.broadcast_to(self.mean, channels), np.broadcast_to(self.std, channels)
        return Normalisation(mean[list(chosen)], std[list(chosen)])

    def after(self, earlier: Normalisation | None) -> Normalisation:
        """This one and what was done before it, as one."""
        if earlier is None or not _fit(earlier.mean, self.mean):
            return self
        return Normalisation(self.mean * earlier.std + earlier.mean, self.std * earlier.std)


def normalisation(levels: Sequence[Any]) -> Normalisation | None:
    """What the transforms of a data set do to a picture's values; None where there is no Normalize.

    levels: the data set, what it wraps, and so on inwards, whose transforms come first. Of each, `transforms` counts,
    else `transform`, else whatever else is called so. Looks into lists of transforms of any depth and kind (torchvision
    v1 and v2, nn.Sequential, albumentations), and takes any object with a `mean` and a `std` for a Normalize.
    """
    seen: set[int] = set()
    found: Normalisation | None = None
    for level in reversed(levels):
        for transform in _transforms(level):
            here = _of_step(transform, seen, 0)
            if here is not None:
                found = here.after(found)
                break
    return found


def _transforms(dataset: Any) -> Iterator[Any]:
    names = ["transforms", "transform"]
    others = getattr(dataset, "__dict__", {})
    names += [name for name in others if "transform" in name and "target" not in name and name not in names]
    for name in names:
        found = getattr(dataset, name, None)
        if found is not None:
            yield found


def _of_step(step: Any, seen: set[int], depth: int) -> Normalisation | None:
    # A data set and its wrapper may share one, which is done once.
    if step is None or depth > MAX_DEPTH or id(step) in seen:
        return None
    seen.add(id(step))
    found = _numbers(step)
    if found is not None:
        return found
    for inner in _inner_steps(step):
        here = _of_step(inner, seen, depth + 1)
        if here is not None:
            found = here.after(found)
    return found


def _inner_steps(step: Any) -> list[Any]:
    if isinstance(step, (list, tuple, nn.Sequential, nn.ModuleList)):
        return list(step)
    inner = getattr(step, "transforms", None)  # a Compose, which may hold another one
    if isinstance(inner, (list, tuple, nn.Sequential, nn.ModuleList)):
        return list(inner)
    return [inner, getattr(step, "transform", None)]  # torchvision's pair of a transform and a target's


def _numbers(step: Any) -> Normalisation | None:
    mean, std = getattr(step, "mean", None), getattr(step, "std", None)
    if mean is None or std is None or callable(mean):  # an array has a mean of its own
        return None
    several = isinstance(mean, (list, tuple, np.ndarray, torch.Tensor))
    if not several and "normal" not in type(step).__name__.lower():
        return None  # noise has a mean, too
    try:
        found = Normalisation(
            *(torch.as_tensor(part).detach().double().cpu().numpy().reshape(-1) for part in (mean, std))
        )
    except (TypeError, ValueError, RuntimeError):
        return None
    usable = found.mean.size and found.std.size and _fit(found.mean, found.std)
    finite = all(np.isfinite(part).all() for part in found)
    return found if usable and finite and (found.std != 0).all() else None


def _fit(one: np.ndarray, other: np.ndarray) -> bool:
    return one.size == other.size or 1 in (one.size, other.size)
