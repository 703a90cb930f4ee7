"""Items of a data set as they are stored: read without its transforms, which may draw random numbers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from graybox.data_samples_with_ops import DataSampleTrackingWrapper

MAX_LEVELS = 32
"""Data sets within data sets; more is a circle."""


@dataclass(frozen=True)
class Place:
    """Where an item is. levels: the data set, the one it takes the item from, and so on, the last of which has it
    under `index`; index None: one of them does not say which item it takes."""

    levels: tuple[Any, ...]
    index: int | None


@dataclass(frozen=True)
class StoredItem:
    """An item that can be read as it is stored. read: answers (data, target), and raises whatever the data set does.
    knows_target: whether that target is what the data set itself would answer, its transforms aside."""

    read: Callable[[], tuple[Any, Any]]
    knows_target: bool


def place_of(dataset: Any, index: int) -> Place:
    """Follows an item through Subset, ConcatDataset and whatever else wraps a data set."""
    levels: list[Any] = []
    at: int | None = index
    while _is_dataset(dataset) and len(levels) < MAX_LEVELS:
        levels.append(dataset)
        if isinstance(dataset, ConcatDataset):
            which = 0 if at is None else bisect_right(dataset.cumulative_sizes, at)
            at = None if at is None else at - (dataset.cumulative_sizes[which - 1] if which else 0)
            dataset = dataset.datasets[which]
            continue
        inner = getattr(dataset, "dataset", None)
        if isinstance(dataset, Subset):
            at = None if at is None else int(dataset.indices[at])
        elif _is_dataset(inner) and not isinstance(dataset, DataSampleTrackingWrapper):
            at = None
        dataset = inner
    return Place(tuple(levels), at)


def _is_dataset(found: Any) -> bool:
    """Others call a name or a table `dataset`."""
    return hasattr(found, "__getitem__") and hasattr(found, "__len__") and not isinstance(found, (str, bytes))


def stored_item(place: Place) -> StoredItem | None:
    """The item as it is stored; None where that cannot be had: a file of a torchvision folder data set or of its VOC
    segmentation, a row of a TensorDataset, a row of the array or tensor `data` ([samples, height, width] or with one
    axis more) that a data set keeps, with its `masks`, `targets` or `labels`."""
    if place.index is None:
        return None
    dataset, index = place.levels[-1], place.index
    loader: Any = getattr(dataset, "loader", None)
    samples: Any = getattr(dataset, "samples", None)
    if callable(loader) and isinstance(samples, list):
        return StoredItem(lambda: (loader(samples[index][0]), samples[index][1]), _is_torchvisions(dataset))
    if isinstance(dataset, TensorDataset):
        return StoredItem(lambda: (dataset.tensors[0][index], _one_or_all(dataset.tensors[1:], index)), True)
    images: Any = getattr(dataset, "images", None)
    masks: Any = getattr(dataset, "masks", None)
    if _is_torchvisions(dataset) and _are_files(images) and _are_files(masks):
        return StoredItem(lambda: (_opened(images[index]).convert("RGB"), _opened(masks[index])), True)
    data = getattr(dataset, "data", None)
    if isinstance(data, (np.ndarray, torch.Tensor)) and 3 <= data.ndim <= 4 and len(data) == len(dataset):
        targets = _targets(dataset, len(data))
        return StoredItem(lambda: (data[index], None if targets is None else targets[index]), targets is not None)
    return None


def _targets(dataset: Any, count: int) -> Any:
    for name in ("masks", "targets", "labels"):
        found = getattr(dataset, name, None)
        if isinstance(found, (np.ndarray, torch.Tensor, list, tuple)) and len(found) == count:
            return found
    return None


def _one_or_all(tensors: Sequence[torch.Tensor], index: int) -> Any:
    return tensors[0][index] if len(tensors) == 1 else tuple(tensor[index] for tensor in tensors)


def _is_torchvisions(dataset: Any) -> bool:
    """Whether items are loaded by torchvision's own code, so that what they are is known."""
    return str(getattr(type(dataset).__getitem__, "__module__", "")).startswith("torchvision.")


def _are_files(names: Any) -> bool:
    return isinstance(names, list) and bool(names) and isinstance(names[0], str)


def _opened(path: str) -> Image.Image:
    with Image.open(path) as image:
        image.load()
    return image
