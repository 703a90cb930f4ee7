"""Commands on their way to the owner: in order, each once, none after its deadline."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from graybox.commands import MAX_WAIT_SECONDS, CancelEvaluation, Command, Outcome, Pause
from graybox.errors import DeadlinePassed

REMEMBERED_IDS = 10_000
"""So many of the newest command ids are known, to apply a command that is sent twice only once."""


@dataclass(eq=False)
class WaitingCommand:
    """A command with its future, which the owner fulfils."""

    command: Command
    command_id: str
    actor: str
    deadline: float
    future: Future[Outcome] = field(default_factory=Future)


class CommandQueue:
    """Any thread puts, the owner takes."""

    def __init__(self) -> None:
        self._waiting: deque[WaitingCommand] = deque()
        self._futures: OrderedDict[str, Future[Outcome]] = OrderedDict()
        self._guard = threading.Lock()
        self._flags: Counter[type[Command]] = Counter()
        self._closed_by: Exception | None = None
        self.wake = threading.Event()

    def put(self, command: Command, command_id: str, actor: str, timeout: float | None) -> Future[Outcome]:
        """Queue a command; the future of the first one with the same id, if there was one. After `refuse_all` the
        future fails at once."""
        wait = MAX_WAIT_SECONDS if timeout is None else min(max(timeout, 0.0), MAX_WAIT_SECONDS)
        entry = WaitingCommand(command, command_id, actor, time.monotonic() + wait)
        with self._guard:
            if command_id:
                known = self._futures.get(command_id)
                if known is not None:
                    return known
            if self._closed_by is not None:
                entry.future.set_exception(self._closed_by)
                return entry.future
            if command_id:
                self.remember(command_id, entry.future)
            self._flag(command, 1)
            self._waiting.append(entry)
        self.wake.set()
        return entry.future

    def remember(self, command_id: str, future: Future[Outcome]) -> None:
        """From now on a command with this id is answered by this future."""
        self._futures[command_id] = future
        while len(self._futures) > REMEMBERED_IDS:
            self._futures.popitem(last=False)

    @property
    def pause_is_waiting(self) -> bool:
        """Whether somebody has asked for a pause that was not applied yet: no step is begun then."""
        return self._flags[Pause] > 0

    @property
    def cancel_is_waiting(self) -> bool:
        """The same for the end of an evaluation: no batch of it is begun then."""
        return self._flags[CancelEvaluation] > 0

    def _flag(self, command: Command, change: int) -> None:
        if isinstance(command, (Pause, CancelEvaluation)):
            self._flags[type(command)] += change

    def take(self) -> WaitingCommand | None:
        """The next command that is still wanted. One whose deadline has passed fails here and is never applied."""
        while True:
            with self._guard:
                if not self._waiting:
                    return None
                entry = self._waiting.popleft()
                self._flag(entry.command, -1)
            if not entry.future.set_running_or_notify_cancel():
                self._forget(entry)
                continue
            if time.monotonic() <= entry.deadline:
                return entry
            self._forget(entry)
            entry.future.set_exception(
                DeadlinePassed("the trainer was busy for longer than the command's deadline; it was not applied")
            )

    def discard_expired(self) -> None:
        """Fail what waits beyond its deadline, while the owner is busy with something long."""
        with self._guard:
            now = time.monotonic()
            late = [entry for entry in self._waiting if entry.deadline < now]
        for entry in late:
            with self._guard:
                if entry not in self._waiting:
                    continue
                self._waiting.remove(entry)
                self._flag(entry.command, -1)
            self._forget(entry)
            if entry.future.set_running_or_notify_cancel():
                entry.future.set_exception(
                    DeadlinePassed("the trainer was still recovering at the command's deadline; it was not applied")
                )

    def refuse_all(self, error: Exception) -> None:
        """Fail everything that waits, and all that is put from now on: the owner is going away."""
        with self._guard:
            self._closed_by = error
        while (entry := self.take()) is not None:
            entry.future.set_exception(error)

    def _forget(self, entry: WaitingCommand) -> None:
        # A command that was not applied may be sent again under the same id.
        with self._guard:
            self._futures.pop(entry.command_id, None)
