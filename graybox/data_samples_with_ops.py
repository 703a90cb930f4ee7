"""A data set with memory: samples that can be told apart, loaded the same whenever they are loaded."""

from __future__ import annotations

import hashlib
import os
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, Subset, default_collate

from graybox.calling import input_and_target
from graybox.errors import Invalid
from graybox.randomness import mix, purpose, seed_everything
from graybox.sample_memory import SampleMemory, SampleStats

__all__ = [
    "CollateWithRows",
    "DataSampleTrackingWrapper",
    "LoadFailure",
    "SampleStats",
    "SeededDataset",
    "Token",
    "read_labels",
    "sample_seed",
]


class Token(NamedTuple):
    """Which sample, and the seed of its augmentation."""

    row: int
    seed: int


@dataclass(frozen=True)
class LoadFailure:
    """A sample that could not be loaded: why, in one line, and the traceback."""

    row: int
    reason: str
    trace: str


class DataSampleTrackingWrapper(SampleMemory, Dataset[Any]):
    """A map-style data set whose items say which sample they are: [i] -> (data, id, label).

    The sample's id is its index. What the samples did, and what can be done to them, is in SampleMemory.
    """

    def __init__(self, dataset: Any) -> None:
        super().__init__()
        self.dataset: Any = dataset.dataset if isinstance(dataset, DataSampleTrackingWrapper) else dataset
        # An iterable data set inherits a __getitem__ that only raises.
        iterable = isinstance(dataset, IterableDataset)
        if iterable or not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise Invalid(
                f"{type(dataset).__name__} has no length or cannot be indexed; Graybox needs a map-style data set "
                "(one with __len__ and __getitem__)"
            )
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, int, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"no sample {index}: the data set has {len(self)}")
        row = index % len(self)
        item = self.dataset[row]
        found = input_and_target(item)
        if found is None:
            raise Invalid(f"a sample is a pair (data, label) or a dict with labels, not {type(item).__name__}")
        return found[0], row, found[1]

    def labels(self) -> np.ndarray | None:
        """Class labels, int64 [samples], read without loading any sample; None where the data set does not tell."""
        return read_labels(self.dataset)

    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, where the data set tells them."""
        dataset = self.dataset
        while isinstance(dataset, Subset):
            dataset = dataset.dataset
        names = getattr(dataset, "classes", None)
        return tuple(str(n) for n in names) if isinstance(names, (list, tuple)) else ()

    def fingerprint(self) -> str:
        """Differs for another data set, as far as can be told without loading samples: by its type, its length, its
        labels, the names of its files, and which samples of another one it takes. Worked out once."""
        if self._fingerprint is None:
            digest = hashlib.sha256(f"{type(self.dataset).__qualname__}:{len(self)}".encode())
            labels = self.labels()
            if labels is not None:
                digest.update(labels.tobytes())
            dataset = self.dataset
            while isinstance(dataset, Subset):
                digest.update(np.asarray(dataset.indices, dtype=np.int64).tobytes())
                dataset = dataset.dataset
            for sample in _listed_samples(dataset):
                # The name alone: a folder may move.
                digest.update(os.path.basename(str(sample[0])).encode("utf-8", "surrogateescape"))
            self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint


def read_labels(dataset: Any) -> np.ndarray | None:
    """Class labels, int64 [samples], from `targets`, `labels`, `y`, `samples` or a TensorDataset; through Subset and
    through `target_transform`. None where they would have to be loaded sample by sample, or are not one whole number
    each."""
    if isinstance(dataset, Subset):
        inner = read_labels(dataset.dataset)
        return None if inner is None else inner[np.asarray(dataset.indices, dtype=np.int64)]
    found: Any = None
    for name in ("targets", "labels", "y"):
        if getattr(dataset, name, None) is not None:
            found = getattr(dataset, name)
            break
    else:
        samples = _listed_samples(dataset)
        if samples:
            found = [sample[1] for sample in samples]
        elif isinstance(getattr(dataset, "tensors", None), tuple) and len(dataset.tensors) >= 2:
            found = dataset.tensors[1]
    if found is None or callable(found):
        return None
    try:
        values = found.detach().cpu().numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
    except (TypeError, ValueError):  # lists of different lengths
        return None
    if values.shape != (len(dataset),) or values.dtype.kind not in "iu":
        return None
    transform = getattr(dataset, "target_transform", None)
    return values.astype(np.int64) if transform is None else _transformed(values, transform)


def _listed_samples(dataset: Any) -> Sequence[Any]:
    """The (file, label) pairs of a torchvision folder data set; nothing for any other."""
    samples = getattr(dataset, "samples", None)
    if isinstance(samples, Sequence) and samples and isinstance(samples[0], (tuple, list)) and len(samples[0]) >= 2:
        return samples
    return ()


def _transformed(labels: np.ndarray, transform: Callable[[int], Any]) -> np.ndarray | None:
    """The labels as the transform makes them, called once per class; None where that gives no whole numbers."""
    classes, where = np.unique(labels, return_inverse=True)
    try:
        made = np.asarray([int(transform(int(label))) for label in classes], dtype=np.int64)
    except Exception:  # the user's own code, made for training: without it the labels are unknown, no more
        return None
    return made[where]


class SeededDataset(Dataset[Any]):
    """Loads samples by token, each with its own seed, in this process or a worker. A sample that cannot be loaded
    becomes a LoadFailure, so that the loader lives on."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, token: Token) -> Any:
        return self.__getitems__([token])[0]

    def __getitems__(self, tokens: list[Token]) -> list[tuple[int, Any]]:
        """[(row, item or LoadFailure)] in the order of the tokens."""
        items = []
        for token in tokens:
            seed_everything(token.seed)
            try:
                items.append((token.row, self.dataset[token.row]))
            except Exception as error:  # the user's own code: whatever it raises belongs to this sample
                reason = f"{type(error).__name__}: {error}"
                items.append((token.row, LoadFailure(token.row, reason, traceback.format_exc())))
        return items


class CollateWithRows:
    """Wraps a collate function: answers (rows int64 [batch], collated batch), or the first LoadFailure."""

    def __init__(self, collate: Callable[[list[Any]], Any] | None = None) -> None:
        self.collate = collate or default_collate

    def __call__(self, items: list[tuple[int, Any]]) -> tuple[torch.Tensor, Any] | LoadFailure:
        for _, item in items:
            if isinstance(item, LoadFailure):
                return item
        rows = torch.tensor([row for row, _ in items], dtype=torch.int64)
        return rows, self.collate([item for _, item in items])


def sample_seed(seed: int, epoch: int, row: int) -> int:
    """The seed of one sample's augmentation in one epoch."""
    return mix(seed, purpose("augmentation"), epoch, row)
