"""The stream of batches against a plain-Python oracle, in this process and with workers, whatever anybody changes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset

from graybox.data_samples_with_ops import SeededDataset, Token, sample_seed
from graybox.epoch_order import EpochOrder, copies_of
from graybox.errors import Invalid, Refused
from graybox.randomness import permutation
from graybox.sample_stream import Position, SampleLoadError, SampleStream, first_kept
from tests.small_experiments import Augmented


class Numbers(Dataset[Any]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[float, int]:
        return float(index), 0


class Mask:
    """What is discarded, with the version that grows."""

    def __init__(self, count: int) -> None:
        self.version = 0
        self.discarded = np.zeros(count, dtype=bool)

    def __call__(self) -> tuple[int, np.ndarray]:
        return self.version, self.discarded

    def set(self, rows: list[int], value: bool) -> None:
        self.discarded[rows] = value
        self.version += 1


def oracle(order: Callable[[int], list[int]], discarded: np.ndarray, position: Position, size: int) -> list[int]:
    """The next `size` samples that are not discarded, of the epoch's order from the position on: one sample more where
    only that one would be left, none of this epoch where only one is left and others are not discarded."""
    kept = int((~discarded).sum())
    epoch, offset = position.epoch, position.offset
    while True:
        rows = [row for row in order(epoch)[offset:] if not discarded[row]]
        if rows and not (len(rows) == 1 and kept > 1 and size > 1):
            return rows if len(rows) == size + 1 and size > 1 else rows[:size]
        epoch, offset = epoch + 1, 0


@dataclass
class Change:
    """Before a step: rows to discard and to take back, another batch size, a batch that is not committed."""

    discard: list[int] = field(default_factory=list)
    restore: list[int] = field(default_factory=list)
    batch_size: int = 0
    twice: bool = False


CHANGES = st.builds(
    Change,
    discard=st.lists(st.integers(0, 22), max_size=5),
    restore=st.lists(st.integers(0, 22), max_size=3),
    batch_size=st.sampled_from([0, 0, 0, 1, 2, 3, 5, 30]),
    twice=st.booleans(),
)


def follow(count: int, size: int, shuffle: bool, changes: list[Change], workers: int) -> None:
    """Run a stream through the changes, comparing each batch with the oracle's and with the samples themselves."""

    def order(epoch: int) -> list[int]:
        return permutation(5, epoch, count).tolist() if shuffle else list(range(count))

    dataset, mask = Augmented(count), Mask(count)
    stream = SampleStream(dataset, mask, batch_size=size, seed=5, shuffle=shuffle, workers=workers)
    try:
        for change in changes:
            mask.set([row for row in change.discard if row < count], True)
            mask.set([row for row in change.restore if row < count], False)
            stream.batch_size = change.batch_size or stream.batch_size
            if mask.discarded.all():
                with pytest.raises(Refused, match="every training sample is discarded"):
                    stream.next()
                mask.set([0], False)
            expected = oracle(order, mask.discarded, stream.position, stream.batch_size)
            batch = stream.next()
            if change.twice:
                again = stream.next()
                assert torch.equal(again.rows, batch.rows) and torch.equal(again.data[0], batch.data[0])
            assert batch.rows.tolist() == expected
            assert len(expected) > 1 or stream.batch_size == 1 or (~mask.discarded).sum() == 1
            # In which epoch they are served tells the augmentation.
            served_in = stream.position.epoch if batch.after.epoch == stream.position.epoch else batch.after.epoch - 1
            if batch.after.offset and batch.after.epoch > stream.position.epoch:
                served_in = batch.after.epoch
            for row, data in zip(expected, batch.data[0], strict=True):
                alone = SeededDataset(dataset)[Token(row, sample_seed(5, served_in, row))][1][0]
                assert torch.equal(data, alone)
            stream.commit(batch)
    finally:
        stream.close()


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 23), st.integers(1, 12), st.booleans(), st.lists(CHANGES, min_size=1, max_size=12))
def test_batches_are_those_of_the_oracle(count: int, size: int, shuffle: bool, changes: list[Change]) -> None:
    follow(count, size, shuffle, changes, workers=0)


@pytest.mark.parametrize("shuffle", [True, False])
def test_workers_serve_the_same_whatever_is_changed(shuffle: bool) -> None:
    changes = [
        Change(), Change(twice=True), Change(discard=[3, 4, 5, 6, 17]), Change(), Change(batch_size=3), Change(),
        Change(restore=[4]), Change(discard=list(range(23))), Change(restore=list(range(9)), batch_size=4), Change(),
        Change(twice=True, discard=[1]), Change(), Change(batch_size=1), Change(), Change(batch_size=30), Change(),
    ]  # fmt: skip
    follow(23, 5, shuffle, changes, workers=2)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 45), st.integers(1, 12), st.randoms())
def test_first_kept(discarded: list[bool], offset: int, wanted: int, random: Any) -> None:
    order = list(range(len(discarded)))
    random.shuffle(order)
    expected = [i for i in range(offset, len(order)) if not discarded[order[i]]][:wanted]
    assert first_kept(np.array(order), np.array(discarded), offset, wanted).tolist() == expected


class Weights(Mask):
    """Weights beside the mask, under the same version."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.weights: np.ndarray | None = None

    def weigh(self, weights: list[float]) -> None:
        self.weights = np.array(weights, dtype=np.float32)
        self.version += 1


WEIGHTS = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 2.5]), min_size=12, max_size=12)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 7), st.lists(st.tuples(WEIGHTS, st.integers(1, 4)), min_size=1, max_size=5))
def test_batches_follow_the_weights_from_the_next_one_on(size: int, spans: list[tuple[list[float], int]]) -> None:
    mask = Weights(12)
    stream = SampleStream(Augmented(12), mask, batch_size=size, seed=5, weights=lambda: mask.weights)
    for weights, batches in spans:
        if sum(weights) < 2:
            weights = [1.0] * 12
        mask.weigh(weights)
        mask.set([0], bool(batches % 2))
        for _ in range(batches):
            position, expected = stream.position, list[tuple[int, int]]()
            while not expected:
                order = EpochOrder.of(5, position.epoch, 12, shuffle=True, weights=mask.weights)
                draws = zip(order.rows.tolist(), copies_of(order).tolist(), strict=True)
                left = [d for i, d in enumerate(draws) if i >= order.index_of(position) and not mask.discarded[d[0]]]
                alone = len(left) == 1 and (~mask.discarded & (mask.weights > 0)).sum() > 1
                expected = [] if alone else left if len(left) == size + 1 else left[:size]
                epoch, position = position.epoch, Position(position.epoch + 1)
            batch = stream.next()
            assert batch.rows.tolist() == [row for row, _ in expected]
            seen = {(row, data.tobytes()) for (row, _), data in zip(expected, batch.data[0].numpy(), strict=True)}
            assert len(seen) == len(expected), "two draws of a sample were augmented alike"
            for (row, copy), data in zip(expected, batch.data[0], strict=True):
                if not copy:
                    assert torch.equal(data, SeededDataset(Augmented(12))[Token(row, sample_seed(5, epoch, row))][1][0])
            stream.commit(batch)


def test_where_no_epoch_draws_anything_it_is_said() -> None:
    mask = Weights(3)
    mask.weigh([0.0, 0.0, 0.0])
    stream = SampleStream(Augmented(3), mask, batch_size=2, seed=5, weights=lambda: mask.weights)
    with pytest.raises(Refused, match="has the weight 0"):
        stream.next()
    mask.weigh([0.1, 0.1, 0.0])  # an epoch in a hundred draws two: it is found
    assert sorted(stream.next().rows.tolist()) == [0, 1]


def test_each_epoch_serves_every_sample_once_in_another_order() -> None:
    stream = SampleStream(Numbers(50), Mask(50), batch_size=7, seed=1)
    epochs: list[list[int]] = [[], [], []]
    while stream.position.epoch < 3:
        batch = stream.next()
        epochs[stream.position.epoch] += batch.rows.tolist()
        assert len(batch.rows) > 1
        stream.commit(batch)
    assert all(sorted(rows) == list(range(50)) for rows in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_a_position_is_all_it_takes_to_go_on() -> None:
    whole = SampleStream(Numbers(20), Mask(20), batch_size=6, seed=3)
    served = []
    for _ in range(9):
        batch = whole.next()
        served.append((whole.position, batch.rows.tolist()))
        whole.commit(batch)
    for position, rows in served:
        again = SampleStream(Numbers(20), Mask(20), batch_size=6, seed=3)
        again.rewind(position)
        assert again.next().rows.tolist() == rows


def test_a_sample_left_alone_by_a_discard_waits_for_the_next_epoch() -> None:
    mask = Mask(8)
    stream = SampleStream(Numbers(8), mask, batch_size=4, seed=1, shuffle=False)
    stream.commit(stream.next())
    mask.set([4, 5, 6], True)
    assert stream.next().rows.tolist() == [0, 1, 2, 3, 7]


def test_the_only_sample_there_is_comes_alone() -> None:
    mask = Mask(3)
    mask.set([0, 2], True)
    stream = SampleStream(Numbers(3), mask, batch_size=4, seed=1)
    assert [stream.next().rows.tolist() for _ in range(2)] == [[1], [1]]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failing_sample_is_named_and_can_be_discarded_or_mended(tmp_path: Path, workers: int) -> None:
    broken = tmp_path / "broken"
    broken.write_text("5")
    mask = Mask(12)
    stream = SampleStream(Augmented(12, broken), mask, batch_size=4, seed=1, shuffle=False, workers=workers)
    try:
        stream.commit(stream.next())
        for _ in range(2):
            with pytest.raises(
                SampleLoadError, match=r"training sample 5 .*OSError: file 5.png is truncated.*resume"
            ) as e:
                stream.next()
            assert "in __getitem__" in e.value.trace
            assert stream.position == Position(0, 4)
        mask.set([5], True)
        assert stream.next().rows.tolist() == [4, 6, 7, 8]
        mask.set([5], False)
        broken.write_text("")
        assert stream.next().rows.tolist() == [4, 5, 6, 7]
    finally:
        stream.close()


def one_collate(items: list[Any]) -> Any:
    if any(int(data.flatten()[0]) == 2 for data, _ in items):
        raise RuntimeError("cannot stack these")
    return torch.stack([data for data, _ in items]), torch.zeros(len(items))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_collate_function_that_raises_is_heard_and_the_batch_tried_again(workers: int) -> None:
    mask = Mask(6)
    stream = SampleStream(Augmented(6), mask, batch_size=3, seed=1, shuffle=False, workers=workers, collate=one_collate)
    try:
        for _ in range(2):
            with pytest.raises(SampleLoadError, match=r"training sample 2 .*RuntimeError.*cannot stack these") as e:
                stream.next()
            assert "in one_collate" in e.value.trace and e.value.rows == (2,)
        mask.set([2], True)
        assert stream.next().rows.tolist() == [0, 1, 3, 4, 5][:3]
    finally:
        stream.close()


def test_training_goes_on_after_a_worker_was_killed() -> None:
    stream = SampleStream(Augmented(400), Mask(400), batch_size=4, seed=1, shuffle=False, workers=2)
    try:
        stream.commit(stream.next())
        for worker in stream._loader._iterator._workers:  # type: ignore[union-attr]
            os.kill(worker.pid, signal.SIGKILL)
        # What PyTorch says of it depends on what the worker was at: mostly that it exited unexpectedly, or that what it
        # had sent is gone with it.
        with pytest.raises((RuntimeError, OSError, EOFError)):
            for _ in range(20):  # what had been prefetched is still served
                stream.commit(stream.next())
        position = stream.position
        assert stream.next().rows.tolist() == list(range(position.offset, position.offset + 4))
    finally:
        stream.close()


class Unpicklable(Numbers):
    def __init__(self) -> None:
        super().__init__(3)
        self.transform = lambda value: value


class Stubborn(Numbers):
    def __reduce__(self) -> Any:
        raise ValueError("I stay here")


@pytest.mark.parametrize("dataset", [Unpicklable(), Stubborn(3)])
def test_what_cannot_be_sent_to_workers_is_said_at_once(dataset: Any) -> None:
    with pytest.raises(Invalid, match=r"data set cannot be sent to worker processes.*workers=0"):
        SampleStream(dataset, Mask(3), batch_size=2, seed=1, workers=1)
    with pytest.raises(Invalid, match="collate function cannot be sent"):
        SampleStream(Numbers(3), Mask(3), batch_size=2, seed=1, workers=1, collate=lambda items: items)
    assert len(SampleStream(dataset, Mask(3), batch_size=3, seed=1).next().rows) == 3
