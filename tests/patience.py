"""How long tests wait for what must come. A generous limit costs nothing where it comes, on however busy a machine."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 120.0
"""Seconds for one thing to happen, a process with torch in it to start among them."""


def wait_until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Until it holds; a failure names what was waited for."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.01)
