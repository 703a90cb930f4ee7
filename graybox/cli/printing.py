"""Text on standard output, of which whoever reads it may want the beginning only."""

from __future__ import annotations

import os
import sys


def print_whole(text: str) -> None:
    """Print it; quietly no further where the reader has gone, as `head` does."""
    try:
        print(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer would be written when the process ends, and fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
