"""A DataLoader for a user's own code: the samples of a split that are in use, with their ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler, default_collate

from graybox.data_samples_with_ops import DataSampleTrackingWrapper
from graybox.task import Task

Collate = Callable[[list[Any]], Any]
Batch = tuple[Any, torch.Tensor, Any]
"""(inputs, ids int64 [batch], targets)"""


def sample_loader(
    samples: DataSampleTrackingWrapper,
    task: Task,
    collate: Collate | None,
    batch_size: int,
    *,
    shuffle: bool,
    seed: int,
) -> DataLoader[Batch]:
    """Batches of (inputs, ids, targets), collated and split as in training. What is discarded is left out, as it stands
    when an epoch begins; every epoch has an order of its own where it is shuffled. Takes no random number from the
    global generators for the order."""
    return DataLoader(
        samples,
        batch_size=batch_size,
        sampler=SamplesInUse(samples, shuffle=shuffle, seed=seed),
        collate_fn=CollateWithIds(task, collate),
        generator=torch.Generator(),  # or it would draw from the global one
    )


class SamplesInUse(Sampler[int]):
    """The samples that are not discarded, in order or shuffled."""

    def __init__(self, samples: DataSampleTrackingWrapper, *, shuffle: bool, seed: int) -> None:
        self._samples = samples
        self._generator = np.random.Generator(np.random.PCG64(seed)) if shuffle else None

    def __len__(self) -> int:
        return int(np.count_nonzero(~self._samples.columns.discarded))

    def __iter__(self) -> Iterator[int]:
        rows = np.flatnonzero(~self._samples.columns.discarded)
        return iter((rows if self._generator is None else self._generator.permutation(rows)).tolist())


class CollateWithIds:
    """[(data, id, label)] -> (inputs, ids, targets), the pairs collated and split as in training."""

    def __init__(self, task: Task, collate: Collate | None) -> None:
        self._task = task
        self._collate = collate or default_collate

    def __call__(self, items: list[tuple[Any, int, Any]]) -> Batch:
        inputs, targets = self._task.split_batch(self._collate([(data, label) for data, _, label in items]))
        return inputs, torch.tensor([row for _, row, _ in items], dtype=torch.int64), targets
