"""The one background thread that makes things durable, so that training never waits for a disk."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Protocol, TypeVar

from graybox.errors import Refused

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Syncable(Protocol):
    """What can be made durable: RecordLog, Journal, MetricStore, SampleStore."""

    def sync(self) -> None: ...


class _Periodic:
    def __init__(self, seconds: float, function: Callable[[], object], apart: bool = False) -> None:
        self.seconds = seconds
        self.function = function
        self.apart = apart
        self.due = time.monotonic() + seconds
        self.thread: threading.Thread | None = None


class Flusher:
    """A daemon thread that syncs what it watches, calls what is due, and does submitted work in order.

    An exception in background work is logged and kept in `errors` (text, newest last); the thread lives on.
    """

    def __init__(self, interval: float = 1.0) -> None:
        """interval: seconds between two syncs of everything watched."""
        self.errors: deque[str] = deque(maxlen=20)
        self._watched: list[Syncable] = []
        self._periodic: list[_Periodic] = [_Periodic(interval, self._sync_all)]
        self._jobs: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="graybox-flusher", daemon=True)
        self._thread.start()

    def watch(self, target: Syncable) -> None:
        """Sync this once per interval, on `drain` and on `close`. Twice counts once."""
        with self._wake:
            if all(known is not target for known in self._watched):
                self._watched.append(target)

    def unwatch(self, target: Syncable) -> None:
        """Leave it alone from now on; a sync that runs just now may still finish."""
        with self._wake:
            self._watched = [known for known in self._watched if known is not target]

    def every(self, seconds: float, function: Callable[[], object], *, apart: bool = False) -> None:
        """Call a function every so many seconds, the first time after that long. A late call is not made up for.

        apart: in a thread of its own, for what takes long: nothing else waits for it, `drain` and `close` neither. A
        call that would come while the last one is still at work is left out.
        """
        with self._wake:
            self._periodic.append(_Periodic(seconds, function, apart))
            self._wake.notify()

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Queue work; it is done in the order of submission. Its future gets the result or the exception.

        Raises Refused after `close`.
        """
        future: Future[T] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = function()
            except Exception as error:
                self._note(f"background work {_name(function)} failed", error)
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._wake:
            if self._closing:
                raise Refused("the background writer is closed; nothing more can be handed to it")
            self._jobs.append(job)
            self._wake.notify()
        return future

    @property
    def waiting(self) -> int:
        """How many pieces of submitted work were not begun yet."""
        return len(self._jobs)

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until all work submitted so far is done and what is watched is synced; False after timeout seconds."""
        if threading.current_thread() is self._thread:
            raise Refused("the background writer cannot wait for itself")
        if not self._thread.is_alive():
            return True
        try:
            self.submit(self._sync_all).result(timeout)
        except (FutureTimeout, Refused):
            return False
        return True

    def close(self, timeout: float | None = 30.0) -> bool:
        """Do the work that waits, sync everything watched, end the thread. False where that took longer than timeout
        seconds. More than once is fine."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._jobs and not self._closing and (wait := self._seconds_left()) > 0:
                    self._wake.wait(wait)
                job = self._jobs.popleft() if self._jobs else None
                ending = self._closing and job is None
            if ending:
                break
            if job is not None:
                job()
            self._call_due()
        self._sync_all()

    def _seconds_left(self) -> float:
        return min(entry.due for entry in self._periodic) - time.monotonic()

    def _call_due(self) -> None:
        with self._wake:
            now = time.monotonic()
            due = [entry for entry in self._periodic if entry.due <= now]
            for entry in due:
                entry.due = now + entry.seconds
        for entry in due:
            if not entry.apart:
                self._call(entry)
            elif entry.thread is None or not entry.thread.is_alive():
                entry.thread = threading.Thread(target=self._call, args=(entry,), name="graybox-apart", daemon=True)
                entry.thread.start()

    def _call(self, entry: _Periodic) -> None:
        try:
            entry.function()
        except Exception as error:
            self._note(f"background work {_name(entry.function)} failed", error)

    def _sync_all(self) -> None:
        with self._wake:
            watched = list(self._watched)
        for target in watched:
            try:
                target.sync()
            except Exception as error:
                self._note("background sync failed", error)

    def _note(self, what: str, error: Exception) -> None:
        text = f"{what}: {error}"
        if text not in self.errors:
            # A disk that stays full fails every second: once is enough.
            self.errors.append(text)
            _log.error(text, exc_info=error)


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))
