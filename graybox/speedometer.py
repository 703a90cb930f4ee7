"""How fast training goes."""

from __future__ import annotations

import time
from collections import deque


class Speedometer:
    """Samples per second over the last few seconds."""

    def __init__(self, seconds: float = 3.0) -> None:
        self._seconds = seconds
        self._marks: deque[tuple[float, int]] = deque()

    def read(self, age: int) -> float:
        """The speed at this age; 0 until there is something to compare with."""
        now = time.monotonic()
        if self._marks and age < self._marks[-1][1]:
            self._marks.clear()  # went back in time
        if not self._marks or now - self._marks[-1][0] > 0.1:
            self._marks.append((now, age))
        while len(self._marks) > 2 and now - self._marks[0][0] > self._seconds:
            self._marks.popleft()
        start, first = self._marks[0]
        return (age - first) / (now - start) if now > start else 0.0
