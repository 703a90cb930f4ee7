"""A data set with memory: samples that can be told apart, loaded the same whenever they are loaded."""

from __future__ import annotations

import hashlib
import os
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, default_collate

from graybox.annotations import objects_in
from graybox.calling import input_and_target
from graybox.errors import Invalid
from graybox.failing_samples import LoadFailure, cannot_be_collated, described, odd_items
from graybox.offered_labels import listed_samples, offered_labels, read_labels
from graybox.randomness import mix, purpose, seed_everything
from graybox.sample_memory import SampleMemory, SampleStats
from graybox.sample_names import declared_names, own_names
from graybox.store.sample_keys import SampleKeys
from graybox.store.targets import LabelKind, Labels

__all__ = [
    "CollateWithRows",
    "DataSampleTrackingWrapper",
    "LoadFailure",
    "SampleStats",
    "SeededDataset",
    "Token",
    "collate_samples",
    "read_labels",
    "sample_seed",
]


class Token(NamedTuple):
    """Which sample, and the seed of its augmentation."""

    row: int
    seed: int


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
        try:
            known = len(self.dataset)
        except Exception as error:  # the user's own code
            raise Invalid(
                f"the length of {type(self.dataset).__name__} cannot be told ({type(error).__name__}: {error}); right "
                "is a __len__ that answers a whole number"
            ) from error
        self._fingerprint: str | None = None
        self._names: SampleKeys | None = None
        self._named = known == 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, int, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"no sample {index}: the data set has {len(self)}")
        row = index % len(self)
        item = self.dataset[row]
        found = input_and_target(item)
        if found is None:
            raise Invalid(f"sample {row} is {described(item)}; right is a pair (data, label) or a dict with labels")
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

    def offered_labels(self, kind: LabelKind | None = None) -> Labels | None:
        """Labels that are no single class, read without loading any sample: see graybox.offered_labels."""
        return offered_labels(self.dataset, kind)

    def names(self) -> SampleKeys | None:
        """What the samples are called, see graybox.sample_names. Worked out once. Raises Invalid for names that are
        none."""
        if not self._named:
            self._names = own_names(self.dataset)
            self._named = True
        return self._names

    def fingerprint(self) -> str:
        """Differs for another data set, as far as can be told without loading samples: by its type, its length, its
        labels, the names of its samples and files, and which samples of another one it takes. Worked out once."""
        if self._fingerprint is None:
            digest = hashlib.sha256(f"{type(self.dataset).__qualname__}:{len(self)}".encode())
            for part in _told_labels(self.dataset):
                digest.update(part.tobytes())
            dataset = self.dataset
            while isinstance(dataset, Subset):
                digest.update(np.asarray(dataset.indices, dtype=np.int64).tobytes())
                dataset = dataset.dataset
            for sample in listed_samples(dataset):
                # The name alone: a folder may move.
                digest.update(os.path.basename(str(sample[0])).encode("utf-8", "surrogateescape"))
            names = self.names() if isinstance(dataset, ConcatDataset) else declared_names(dataset)
            if names is not None:
                digest.update("\n".join(names.texts()).encode("utf-8", "surrogatepass"))
            self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint


def _told_labels(dataset: Any) -> list[np.ndarray]:
    """All that a data set tells of its labels without loading samples, as arrays."""
    classes = read_labels(dataset)
    if classes is not None:
        return [classes]
    for kind in (LabelKind.NUMBER, LabelKind.CLASSES, LabelKind.BOXES):
        labels = offered_labels(dataset, kind)
        if labels is not None:
            return list(labels.columns.values())
    return []


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
                if isinstance(error, IndexError):
                    reason += f" (the data set says that it has {len(self.dataset):,} samples)"
                items.append((token.row, LoadFailure(token.row, reason, traceback.format_exc())))
        return items


class CollateWithRows:
    """Wraps a collate function (None: `collate_samples`): answers (rows int64 [batch], collated batch), or the
    LoadFailure of samples that could not be loaded or put together."""

    def __init__(self, collate: Callable[[list[Any]], Any] | None = None) -> None:
        self.collate = collate

    def __call__(self, items: list[tuple[int, Any]]) -> tuple[torch.Tensor, Any] | LoadFailure:
        for _, item in items:
            if isinstance(item, LoadFailure):
                return item
        rows, samples = [row for row, _ in items], [item for _, item in items]
        if self.collate is None and (odd := odd_items(samples)):
            what = f"the data set answers {described(samples[odd[0]])}; a sample is a pair (data, label) or a dict"
            return _failure([rows[number] for number in odd], what, "")
        collate = self.collate or collate_samples
        try:
            return torch.tensor(rows, dtype=torch.int64), collate(samples)
        except Exception as error:  # the user's own code and data
            bad = cannot_be_collated(samples, collate)
            reason = f"{type(error).__name__} when its batch is put together: {error}"
            return _failure([rows[number] for number in bad], reason, traceback.format_exc())


def _failure(rows: list[int], reason: str, trace: str) -> LoadFailure:
    return LoadFailure(rows[0], reason, trace, tuple(rows[1:]))


def collate_samples(samples: list[Any]) -> Any:
    """As torch's default_collate; but samples whose targets list boxes, of which each has its own number, stay lists:
    (images, targets), the images stacked where they are of one size, as torchvision's detection networks take them."""
    pairs = [input_and_target(sample) for sample in samples]
    if not all(pair is not None and objects_in(pair[1]) is not None for pair in pairs):
        return default_collate(samples)
    inputs = [pair[0] for pair in pairs if pair is not None]
    alike = all(isinstance(one, torch.Tensor) and one.shape == inputs[0].shape for one in inputs)
    return (torch.stack(inputs) if alike else inputs), [pair[1] for pair in pairs if pair is not None]


def sample_seed(seed: int, epoch: int, row: int) -> int:
    """The seed of one sample's augmentation in one epoch."""
    return mix(seed, purpose("augmentation"), epoch, row)
