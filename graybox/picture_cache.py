"""What was made lately, bounded in bytes; and nothing made twice at the same time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

from graybox.snapshot import SamplePicture

Key = TypeVar("Key", bound=Hashable)
Made = TypeVar("Made")


class SingleFlight(Generic[Key, Made]):
    """Whoever asks for what is being made already waits for it, instead of making it too."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._under_way: dict[Key, Future[Made]] = {}

    def get(self, key: Key, make: Callable[[], Made]) -> Made:
        """What `make` answers, called in this thread unless another one is at it. What it raises all get to see."""
        with self._guard:
            flight = self._under_way.get(key)
            if flight is None:
                made: Future[Made] = Future()
                self._under_way[key] = made
        if flight is not None:
            return flight.result()
        try:
            made.set_result(make())
        except BaseException as error:  # not handled here: handed to everybody who waits
            made.set_exception(error)
        finally:
            with self._guard:
                del self._under_way[key]
        return made.result()


class PictureCache(Generic[Key]):
    """Encoded pictures, those used last. Callable from any thread."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._guard = threading.Lock()
        self._held: OrderedDict[Key, SamplePicture] = OrderedDict()
        self._flights: SingleFlight[Key, SamplePicture] = SingleFlight()
        self.bytes = 0
        """Of all pictures and masks held; at most the capacity."""

    def held(self) -> list[Key]:
        """Of what is held, the longest unused first."""
        with self._guard:
            return list(self._held)

    def get(self, key: Key, make: Callable[[], SamplePicture]) -> SamplePicture:
        """The picture held, or else what `make` answers, which is called once however many ask at the same time."""
        held = self._find(key)
        return held if held is not None else self._flights.get(key, lambda: self._make(key, make))

    def _find(self, key: Key) -> SamplePicture | None:
        with self._guard:
            held = self._held.get(key)
            if held is not None:
                self._held.move_to_end(key)
            return held

    def _make(self, key: Key, make: Callable[[], SamplePicture]) -> SamplePicture:
        # It may have been made between the look into the cache and this flight.
        held = self._find(key)
        if held is not None:
            return held
        made = make()
        with self._guard:
            self._held[key] = made
            self.bytes += _size(made)
            while self.bytes > self._capacity:
                self.bytes -= _size(self._held.popitem(last=False)[1])
        return made


def _size(picture: SamplePicture) -> int:
    return len(picture.image) + len(picture.mask)
