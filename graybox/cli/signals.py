"""What ends a process of ours in good order: Ctrl-C, SIGTERM, and the terminal going away."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import FrameType

Handler = Callable[[int, FrameType | None], None]


def on_stop_signals(handler: Handler) -> None:
    """Calls `handler` for SIGINT, SIGTERM and SIGHUP from now on; the last one not where it is ignored, as by nohup."""
    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, handler)


def leave_at_once(number: int, _frame: FrameType | None) -> None:
    """A handler for when there is nothing to save: an exception inside somebody's import would help nobody."""
    os._exit(128 + number)


def stop_on_signal(stop: Callable[[], None]) -> None:
    """Calls `stop` once, from a thread of its own, at the first signal; the second one ends the process at once."""
    # The handler runs between any two lines of the main thread, so that it may do no more than this: locks that stop()
    # takes could be held right there. SimpleQueue.put is made to be called from a handler.
    asked: SimpleQueue[int] = SimpleQueue()

    def handle(number: int, _frame: FrameType | None) -> None:
        on_stop_signals(leave_at_once)
        asked.put(number)

    def wait_and_stop() -> None:
        asked.get()
        stop()

    threading.Thread(target=wait_and_stop, name="stop on signal", daemon=True).start()
    on_stop_signals(handle)
