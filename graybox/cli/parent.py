"""A process that must not outlive the one that started it."""

from __future__ import annotations

import os
import signal
import threading

VARIABLE = "GRAYBOX_STOP_WITH_STDIN"
"""Set by a parent that holds the other end of this process's standard input for as long as it lives."""

STANDARD_INPUT = 0


def stop_with_parent() -> None:
    """Interrupts this process, as Ctrl-C would, when the parent is gone. Without such a parent: nothing.

    The kernel closes the parent's end of the pipe even after `kill -9`, so that no orphan keeps a port or a root.
    """
    if os.environ.pop(VARIABLE, "") == "1":
        threading.Thread(target=_interrupt_at_end_of_input, name="parent watch", daemon=True).start()


def _interrupt_at_end_of_input() -> None:
    while os.read(STANDARD_INPUT, 4096):
        pass
    os.kill(os.getpid(), signal.SIGINT)
