"""The stream of training batches: what comes next is a function of seed, epoch, position and what is discarded.

Batches are planned ahead of the training (a worker prefetches them), but what was planned before a discard or another
batch size is thrown away, so that neither ever waits for an epoch or depends on how far prefetching has come.
"""

from __future__ import annotations

import multiprocessing
import pickle
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from graybox.data_samples_with_ops import CollateWithRows, SeededDataset, Token, sample_seed
from graybox.epoch_order import EpochOrder, Position, Weights
from graybox.errors import Invalid, Refused
from graybox.failing_samples import LoadFailure, load_error
from graybox.failing_samples import SampleLoadError as SampleLoadError
from graybox.randomness import mix

__all__ = ["Position", "SampleLoadError", "SampleStream", "TrainBatch"]

EMPTY_EPOCHS = 1_000
"""So many in a row may serve nothing, as where all weights are small."""


@dataclass(frozen=True)
class TrainBatch:
    """One batch. rows: int64 [batch], data: what the collate function made, after: where the stream stands then."""

    rows: torch.Tensor
    data: Any
    after: Position


@dataclass(frozen=True)
class _Planned:
    """A batch that was planned: on which discards, weights and batch size, and where the stream stands before and
    after it."""

    version: int
    batch_size: int
    before: Position
    after: Position


class SampleStream:
    """Endless batches of the samples that are not discarded, each drawn as often as its weight says.

    discarded: answers (version, bool [samples]); the version grows whenever the mask or the weights change.
    weights: answers the samples' weights, see EpochOrder.of.
    A batch counts only once `commit` is called: until then `next` answers the same one again.
    An epoch never ends in a batch of one, which would fail in batch normalisation: a sample that would be left over
    goes with the batch before, or, where a discard or another batch size leaves it behind alone, waits for the next
    epoch.
    """

    def __init__(
        self,
        dataset: Any,
        discarded: Callable[[], tuple[int, np.ndarray]],
        *,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        workers: int = 0,
        collate: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        weights: Callable[[], Weights | None] = lambda: None,
    ) -> None:
        self.position = Position()
        self.batch_size = batch_size
        self._count = len(dataset)
        self._discarded = discarded
        self._weights = weights
        self._seed = seed
        self._shuffle = shuffle
        self._order: tuple[int, Weights | None, EpochOrder] | None = None
        self._planned: deque[_Planned] = deque()
        # Where the plan goes on once all that was planned is used up.
        self._planned_to: Position | None = None
        self._batches: Iterator[Any] | None = None
        if workers:
            check_picklable(dataset, collate)
        self._dataset = dataset
        self._collate = collate
        self._pin_memory = pin_memory
        self._loader = self._made_loader(workers)

    @property
    def workers(self) -> int:
        """Processes that load samples; 0: this one."""
        return self._loader.num_workers

    def set_workers(self, workers: int) -> None:
        """Load with so many processes from the next batch on, which is the same one. Raises Invalid where the data set
        cannot be sent to any; nothing is changed then."""
        if workers:
            check_picklable(self._dataset, self._collate)
        self.close()
        self._loader = self._made_loader(workers)

    def _made_loader(self, workers: int) -> DataLoader[Any]:
        return DataLoader(
            SeededDataset(self._dataset),
            batch_sampler=_Plan(self._plan),
            collate_fn=CollateWithRows(self._collate),
            num_workers=workers,
            multiprocessing_context=worker_context() if workers else None,
            persistent_workers=workers > 0,
            pin_memory=self._pin_memory,
            generator=torch.Generator(),  # or it would draw from the global one
        )

    def next(self) -> TrainBatch:
        """The batch at the present position. Raises SampleLoadError for a sample that fails to load, Refused when
        every sample is discarded; the position stays, and the same batch is tried again."""
        if self._batches is not None and not self._plan_holds():
            self.rewind()
        try:
            if self._batches is None:
                self._batches = iter(self._loader)
            loaded = next(self._batches)
        except Refused:
            self.rewind()  # nothing to serve; the workers are well
            raise
        except Exception:
            # A generator that raised is spent, and so are workers of which one has died: the next call plans anew.
            self.close()
            raise
        after = self._planned.popleft().after
        if isinstance(loaded, LoadFailure):
            self.rewind()
            raise load_error("train", loaded)
        rows, data = loaded
        return TrainBatch(rows, data, after)

    def commit(self, batch: TrainBatch) -> None:
        """The batch was trained on: the next one follows it."""
        self.position = batch.after

    def rewind(self, position: Position | None = None) -> None:
        """Throw away what was planned ahead, and go to `position` (None: stay)."""
        if position is not None:
            self.position = position
        self._planned.clear()
        self._planned_to = None
        self._batches = None

    def close(self) -> None:
        """End the workers; `next` would start new ones."""
        self.rewind()
        # Persistent workers live in the loader's own iterator; dropping the last reference ends them.
        self._loader._iterator = None

    def _plan_holds(self) -> bool:
        """Whether what was planned ahead is what comes next."""
        if not self._planned:
            return self._planned_to == self.position
        first = self._planned[0]
        return (first.version, first.batch_size, first.before) == (
            self._discarded()[0], self.batch_size, self.position,
        )  # fmt: skip

    def _plan(self) -> Iterator[list[Token]]:
        """Batches of tokens from the present position on, without end."""
        before = position = self.position
        empty_epochs = 0
        while True:
            version, discarded = self._discarded()
            order = self._epoch_order(position.epoch)
            # Two more than a batch, to see whether exactly one sample would be left over for the last batch.
            left = first_kept(order.rows, discarded, order.index_of(position), self.batch_size + 2)
            alone = left.size == 1 and self.batch_size > 1
            if not left.size or (alone and self._kept(discarded) > 1):
                empty_epochs += 1
                if empty_epochs > (2 if order.copies is None else EMPTY_EPOCHS):
                    raise Refused(
                        "every training sample is discarded or has the weight 0; restore some to train on"
                        if order.copies is not None
                        else "every training sample is discarded; restore some to train on"
                    )
                position = Position(position.epoch + 1)
                continue
            empty_epochs = 0
            take = min(self.batch_size, left.size)
            if left.size - take == 1 and take > 1:
                take += 1
            rows, draws = order.rows[left[:take]], left[:take]
            position = Position(order.epoch + 1) if take == left.size else order.behind(int(left[take - 1]))
            self._planned.append(_Planned(version, self.batch_size, before, after=position))
            self._planned_to = before = position
            copies = np.zeros(take, dtype=np.int64) if order.copies is None else order.copies[draws]
            yield [
                Token(row, _seed_of(self._seed, order.epoch, row, copy))
                for row, copy in zip(rows.tolist(), copies.tolist(), strict=True)
            ]

    def _kept(self, discarded: np.ndarray) -> int:
        """How many samples can be served at all."""
        weights = self._weights()
        return int(np.count_nonzero(~discarded if weights is None else ~discarded & (weights > 0)))

    def _epoch_order(self, epoch: int) -> EpochOrder:
        weights = self._weights()  # other ones are another array
        if self._order is None or self._order[0] != epoch or self._order[1] is not weights:
            order = EpochOrder.of(self._seed, epoch, self._count, shuffle=self._shuffle, weights=weights)
            self._order = (epoch, weights, order)
        return self._order[2]


def _seed_of(seed: int, epoch: int, row: int, copy: int) -> int:
    """Of the augmentation of one draw: another one for each copy."""
    first = sample_seed(seed, epoch, row)
    return mix(first, copy) if copy else first


def first_kept(order: np.ndarray, discarded: np.ndarray, offset: int, wanted: int) -> np.ndarray:
    """The first `wanted` positions of `order` from `offset` on whose samples are not discarded; fewer at the end.

    order: int64 [n] of rows; discarded: bool [n] by row. Looks no further than it must.
    """
    found: list[np.ndarray] = []
    count, window = 0, 2 * wanted
    while count < wanted and offset < order.size:
        piece = np.flatnonzero(~discarded[order[offset : offset + window]]) + offset
        found.append(piece)
        count += piece.size
        offset += window
        window *= 2
    return np.concatenate(found)[:wanted] if found else np.empty(0, dtype=np.int64)


def worker_context() -> BaseContext:
    """How workers start. Never by fork: the process has threads (the server, background writes), which a fork would
    copy half alive."""
    context = multiprocessing.get_context("forkserver")
    # Loaded once, in the process that the workers are forked from, torch costs each of them nothing.
    context.set_forkserver_preload(["__main__", "graybox.data_samples_with_ops"])
    return context


class _Plan(Sampler[list[Token]]):
    """A batch sampler that starts at the stream's present position whenever it is iterated."""

    def __init__(self, plan: Callable[[], Iterator[list[Token]]]) -> None:
        self._plan = plan

    def __iter__(self) -> Iterator[list[Token]]:
        return self._plan()


def check_picklable(dataset: Any, collate: Any) -> None:
    """Raises Invalid, with the reason, when the data set cannot be sent to worker processes."""
    for what, value in (("data set", dataset), ("collate function", collate)):
        try:
            pickle.dumps(value)
        except Exception as error:  # the user's own objects: whatever they raise, they cannot be sent
            raise Invalid(
                f"the {what} cannot be sent to worker processes ({error}); define its functions at the top of a "
                "module instead of as lambdas, or use workers=0"
            ) from None
