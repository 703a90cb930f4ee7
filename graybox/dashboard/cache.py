"""Answers of the backend, kept for a moment: however many tabs ask at once, one call goes out."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from graybox.dashboard.client import CallFailed

T = TypeVar("T")


@dataclass(frozen=True)
class Answer(Generic[T]):
    """A value and a number that changes exactly when the value does."""

    value: T
    version: int


@dataclass
class _Entry:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    at: float = -1e9
    dropped: int = 0
    answer: Answer[Any] | None = None
    failure: CallFailed | None = None


class AnswerCache:
    """Single flight with a time to live. Failures are kept as long as answers: a lost backend is not hammered."""

    def __init__(self, capacity: int = 256) -> None:
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._capacity = capacity
        self._counter = time.time_ns() // 1_000_000

    async def get(self, key: Hashable, seconds: float, fetch: Callable[[], Awaitable[T]]) -> Answer[T]:
        """The answer for `key`, fetched anew when the kept one is older than `seconds`. Raises CallFailed."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry()
            while len(self._entries) > self._capacity:
                self._entries.popitem(last=False)
        self._entries.move_to_end(key)
        async with entry.lock:
            if time.monotonic() - entry.at >= seconds:
                await self._refresh(entry, fetch)
        if entry.failure is not None:
            raise entry.failure
        assert entry.answer is not None
        return entry.answer

    def drop(self, prefix: str = "") -> None:
        """Forget what was kept under tuple keys that start with `prefix` (empty: everything), to be asked anew."""
        for key, entry in self._entries.items():
            if not prefix or (isinstance(key, tuple) and key[0] == prefix):
                entry.at = -1e9
                entry.dropped += 1

    async def _refresh(self, entry: _Entry, fetch: Callable[[], Awaitable[T]]) -> None:
        dropped = entry.dropped
        try:
            value = await fetch()
        except CallFailed as failure:
            entry.failure, entry.answer = failure, None
        else:
            entry.failure = None
            if entry.answer is None or entry.answer.value != value:
                self._counter += 1
                entry.answer = Answer(value, self._counter)
        if entry.dropped == dropped:  # else it was under way already, and may be of before
            entry.at = time.monotonic()
