"""Commands: in order, each once, none after its deadline, and none left waiting for an owner who is gone."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graybox.command_queue import REMEMBERED_IDS, CommandQueue
from graybox.commands import (
    MAX_WAIT_SECONDS,
    CancelEvaluation,
    Command,
    Outcome,
    Pause,
    Resume,
    SaveCheckpoint,
)
from graybox.errors import DeadlinePassed, Refused
from tests.patience import PATIENCE

KINDS: list[Command] = [Pause(), CancelEvaluation(), Resume()]


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.sampled_from(KINDS)), max_size=20))
def test_in_order_each_id_once(puts: list[tuple[str, Command]]) -> None:
    queue = CommandQueue()
    futures = [queue.put(command, command_id, "", None) for command_id, command in puts]
    first: dict[str, Future[Outcome]] = {}
    expected = []
    for (command_id, command), future in zip(puts, futures, strict=True):
        if command_id in first:
            assert future is first[command_id]
            continue
        expected.append((future, command))
        if command_id:
            first[command_id] = future
    for place, (future, command) in enumerate(expected):
        left = [later for _, later in expected[place:]]
        assert (queue.pause_is_waiting, queue.cancel_is_waiting) == (Pause() in left, CancelEvaluation() in left)
        entry = queue.take()
        assert entry is not None and entry.future is future and entry.command is command
    assert queue.take() is None and not queue.pause_is_waiting and not queue.cancel_is_waiting


def test_after_its_deadline_a_command_is_not_applied_but_may_be_sent_again() -> None:
    queue = CommandQueue()
    late = queue.put(Pause(), "id", "", 0.0)
    alive = queue.put(Resume(), "", "", 10_000.0)
    time.sleep(0.01)
    entry = queue.take()
    assert entry is not None and entry.future is alive and not queue.pause_is_waiting
    assert entry.deadline <= time.monotonic() + MAX_WAIT_SECONDS
    with pytest.raises(DeadlinePassed, match="not applied"):
        late.result(0)
    assert queue.put(Pause(), "id", "", None) is not late


def test_deadlines_count_while_the_owner_is_busy() -> None:
    queue = CommandQueue()
    waiting = queue.put(Resume(), "w", "", 60)
    late = queue.put(Pause(), "l", "", -5.0)
    cancelled = queue.put(Pause(), "c", "", 0.0)
    assert cancelled.cancel()
    time.sleep(0.01)
    queue.discard_expired()
    with pytest.raises(DeadlinePassed):
        late.result(0)
    assert not queue.pause_is_waiting and not waiting.done()
    entry = queue.take()
    assert entry is not None and entry.future is waiting and queue.take() is None


def test_a_cancelled_command_is_skipped() -> None:
    queue = CommandQueue()
    gone, kept = queue.put(Pause(), "", "", None), queue.put(SaveCheckpoint("x"), "", "", None)
    gone.cancel()
    entry = queue.take()
    assert entry is not None and entry.future is kept and not queue.pause_is_waiting
    assert not kept.cancel()  # once taken it will be carried out


def test_nobody_waits_for_an_owner_who_is_gone() -> None:
    queue = CommandQueue()
    results: list[BaseException | None] = []

    def ask() -> None:
        for number in range(200):
            results.append(queue.put(Resume(), f"{threading.get_ident()}-{number}", "", None).exception(PATIENCE))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    queue.refuse_all(Refused("stopping"))
    for thread in threads:
        thread.join(PATIENCE)
    assert len(results) == 600 and all(isinstance(error, Refused) for error in results)
    again = queue.put(Pause(), "late", "", None)
    assert isinstance(again.exception(0), Refused) and queue.take() is None and not queue.pause_is_waiting


def test_many_threads_lose_nothing() -> None:
    queue, taken = CommandQueue(), []

    def ask(number: int) -> None:
        for _ in range(200):
            queue.put(SaveCheckpoint(str(number)), "", "", None)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while len(taken) < 800:
        assert queue.wake.wait(PATIENCE)
        queue.wake.clear()
        while (entry := queue.take()) is not None:
            taken.append(entry)
    for thread in threads:
        thread.join()
    assert len({id(entry.future) for entry in taken}) == 800


def test_old_ids_are_forgotten() -> None:
    queue = CommandQueue()
    first = queue.put(Resume(), "0", "", None)
    for number in range(1, REMEMBERED_IDS):
        queue.remember(str(number), Future())
    assert queue.put(Resume(), "0", "", None) is first
    queue.remember("one too many", Future())
    assert queue.put(Resume(), "0", "", None) is not first
