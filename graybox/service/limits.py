"""How much one request may ask for, and how many may ask at once."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from graybox.errors import GrayboxError, Invalid

WORKERS = 24
"""Threads that answer requests."""
WAITING_AT_OWNER = 12
"""Requests that may wait for the trainer at once: the other threads stay free for those who only read."""
LOGGER_READS = 3
"""GetLatestLoggerData calls at once, as the documented contract says."""
PICTURE_READS = 8
"""Requests at once that load pictures: the trainer may have to load each of them, and a step may be long."""
LANGUAGE_CALLS = 2
"""Questions in natural language at once: each waits for a language model."""
EXPORTS = 2
"""Exports at once: each keeps a copy of its columns, and a thread until the client has read it all."""
IMAGE_THREADS = 8

MAX_RECORDS = 10_000
MAX_RECORDS_WITH_IMAGES = 1_024
MAX_SAMPLES = 1_024
MAX_EDITED_SAMPLES = 1_000_000
MAX_NEURONS = 1_000_000
MAX_LAYERS = 10_000
MAX_ADDED_NEURONS = 65_536
MAX_VALUES = 16_777_216
"""Entries of an array that overrides weights."""
MAX_AXES = 8
MAX_RANGES = 1_000
"""Ranges of indices that a plan tells of one tensor."""
MAX_NEURON_DETAILS = 1_000_000
"""Rates per class and samples in one answer about neurons."""
MAX_CLASSES = 10_000
MAX_PIXELS = 4_096
DEFAULT_THUMBNAIL = 64

DEFAULT_POINTS = 2_000
"""Points per series where max_points is 0: what a plot can show."""
MAX_POINTS = 100_000

DEFAULT_JOURNAL_ENTRIES = 1_000
MAX_JOURNAL_ENTRIES = 10_000
MAX_ARGUMENTS_CHARACTERS = 65_536

MAX_NAME = 200
MAX_LAYER_NAME = 1_000
MAX_EXPERIMENT_NAME = 100
MAX_ACTOR = 100
MAX_COMMAND_ID = 200
MAX_NOTE = 2_000
MAX_QUERY = 10_000


class TooMany(GrayboxError):
    """As many requests of this kind as there may be are running already."""


class Gate:
    """Lets at most `places` in at once and sends the others away, so that nobody queues without an end."""

    def __init__(self, places: int, message: str) -> None:
        self._places = places
        self._message = message
        self._lock = threading.Lock()
        self.taken = 0
        """How many are in just now."""

    @contextmanager
    def place(self) -> Iterator[None]:
        """Holds a place. Raises TooMany when all are taken."""
        leave = self.enter()
        try:
            yield
        finally:
            leave()

    def enter(self) -> Callable[[], None]:
        """Takes a place and answers what gives it back: once, however often it is called and from whichever thread.
        Raises TooMany when all are taken."""
        with self._lock:
            if self.taken >= self._places:
                raise TooMany(self._message)
            self.taken += 1
        held = [True]

        def leave() -> None:
            with self._lock:
                if held:
                    held.clear()
                    self.taken -= 1

        return leave


def check_text(name: str, value: str, longest: int, *, empty: bool = True) -> str:
    """The value, when it is no longer than `longest` characters and not empty where that is not allowed."""
    if not value and not empty:
        raise Invalid(f"{name} is empty")
    if len(value) > longest:
        raise Invalid(f"{name} has {len(value)} characters; at most {longest} are allowed")
    return value


def check_whole(name: str, value: int, low: int, high: int | None = None) -> int:
    """The value, when it lies between low and high, both included."""
    if value < low or (high is not None and value > high):
        bounds = f"{low} or more" if high is None else f"between {low} and {high}"
        raise Invalid(f"{name} is {value}; it must be {bounds}")
    return value


def check_count(name: str, count: int, most: int) -> int:
    """The number of entries of a list, when it is not too long."""
    if count > most:
        raise Invalid(f"{name} has {count} entries; at most {most} are allowed at a time")
    return count


def check_not_nan(name: str, value: float) -> float:
    """The value, when it is a number that can be compared."""
    if math.isnan(value):
        raise Invalid(f"{name} is not a number")
    return value
