from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from graybox.errors import Refused, StorageError
from graybox.store.flusher import Flusher
from tests.patience import PATIENCE, wait_until

LONG = 3600.0


class Counter:
    """Something to sync that tells how often it was."""

    def __init__(self, failing: bool = False) -> None:
        self.count = 0
        self.failing = failing
        self.twice = threading.Event()

    def sync(self) -> None:
        self.count += 1
        if self.count >= 2:
            self.twice.set()
        if self.failing:
            raise StorageError("cannot sync: No space left on device")


@pytest.fixture
def flusher() -> Iterator[Flusher]:
    made = Flusher(interval=LONG)
    yield made
    assert made.close(timeout=PATIENCE)


def test_work_is_done_in_order_in_one_thread(flusher: Flusher) -> None:
    done: list[int] = []
    threads: set[int] = set()

    def job(number: int) -> int:
        done.append(number)
        threads.add(threading.get_ident())
        return number * 2

    futures = [flusher.submit(lambda number=number: job(number)) for number in range(50)]  # type: ignore[misc]
    assert [future.result(PATIENCE) for future in futures] == [number * 2 for number in range(50)]
    assert done == list(range(50))
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_what_is_watched_is_synced_again_and_again() -> None:
    flusher, counter, other = Flusher(interval=0.005), Counter(), Counter()
    for target in (counter, counter, other):
        flusher.watch(target)
    assert counter.twice.wait(PATIENCE) and other.twice.wait(PATIENCE)
    flusher.unwatch(other)
    assert flusher.drain(PATIENCE)
    seen, before = other.count, counter.count
    assert flusher.drain(PATIENCE)
    assert other.count == seen
    assert counter.count > before
    assert flusher.close(PATIENCE)


def test_functions_are_called_every_so_often(flusher: Flusher) -> None:
    called = threading.Semaphore(0)
    flusher.every(0.005, called.release)
    for _ in range(3):
        assert called.acquire(timeout=PATIENCE)


def test_failures_are_kept_and_the_thread_lives_on(caplog: pytest.LogCaptureFixture) -> None:
    flusher, counter = Flusher(interval=0.005), Counter(failing=True)
    flusher.watch(counter)
    assert counter.twice.wait(PATIENCE)
    assert flusher.errors[0] == "background sync failed: cannot sync: No space left on device"
    assert caplog.text.count("background sync failed: cannot sync") == 1
    counter.failing = False

    def fail() -> None:
        raise ZeroDivisionError("a defect")

    future = flusher.submit(fail)
    with pytest.raises(ZeroDivisionError):
        future.result(PATIENCE)
    again = threading.Event()

    def fail_again() -> None:
        again.set()
        fail()

    flusher.every(0.001, fail_again)
    assert again.wait(PATIENCE)
    assert flusher.submit(lambda: 5).result(PATIENCE) == 5
    assert any("fail failed: a defect" in error for error in flusher.errors)
    assert flusher.close(PATIENCE)


def test_closing_finishes_what_waits_and_syncs() -> None:
    flusher, counter = Flusher(interval=LONG), Counter()
    flusher.watch(counter)
    gate = threading.Event()
    done: list[int] = []
    flusher.submit(lambda: gate.wait(2 * PATIENCE))
    for number in range(5):
        flusher.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    assert not flusher.drain(timeout=0.01)
    gate.set()
    assert flusher.close(PATIENCE) and flusher.close(PATIENCE)
    assert done == [0, 1, 2, 3, 4]
    assert counter.count >= 1
    with pytest.raises(Refused, match="background writer is closed"):
        flusher.submit(lambda: None)
    assert flusher.drain(1)


def test_a_cancelled_job_is_not_done(flusher: Flusher) -> None:
    gate = threading.Event()
    flusher.submit(lambda: gate.wait(2 * PATIENCE))
    done: list[int] = []
    future = flusher.submit(lambda: done.append(1))
    assert future.cancel()
    gate.set()
    assert flusher.drain(PATIENCE)
    assert done == []
    with pytest.raises(CancelledError):
        future.result(0)


def test_it_cannot_wait_for_itself(flusher: Flusher) -> None:
    with pytest.raises(Refused, match="wait for itself"):
        flusher.submit(flusher.drain).result(PATIENCE)


def test_what_is_done_apart_keeps_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    flusher, counter = Flusher(interval=0.005), Counter()
    begun, gate, calls = threading.Event(), threading.Event(), list[int]()

    def slow() -> None:
        calls.append(1)
        begun.set()
        gate.wait(2 * PATIENCE)
        raise StorageError("the disk is full")

    flusher.every(0.001, slow, apart=True)
    flusher.watch(counter)
    assert begun.wait(PATIENCE) and counter.twice.wait(PATIENCE)
    assert flusher.submit(lambda: 5).result(PATIENCE) == 5 and flusher.drain(PATIENCE)
    assert calls == [1], "it was called again while it was at work"
    gate.set()
    wait_until(lambda: len(calls) > 2, "the next calls")
    assert flusher.errors[-1].endswith("slow failed: the disk is full")
    assert caplog.text.count("failed: the disk is full") == 1
    assert flusher.close(PATIENCE)
