"""What was made is kept, up to so many bytes, and never made twice at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from graybox.picture_cache import PictureCache, SingleFlight
from graybox.snapshot import SamplePicture
from tests.patience import PATIENCE, wait_until


def picture(image: int, mask: int = 0) -> SamplePicture:
    return SamplePicture(b"i" * image, "image/png", b"m" * mask)


def test_pictures_and_masks_count_and_the_longest_unused_go() -> None:
    cache: PictureCache[str] = PictureCache(100)
    first = cache.get("a", lambda: picture(30, 10))
    cache.get("b", lambda: picture(40))
    assert cache.get("a", lambda: pytest.fail("it is held")) is first
    assert (cache.held(), cache.bytes) == (["b", "a"], 80)
    cache.get("c", lambda: picture(10, 20))
    assert (cache.held(), cache.bytes) == (["a", "c"], 70)
    assert cache.get("d", lambda: picture(1, 100)).mask, "larger than the cache, and answered"
    assert (cache.held(), cache.bytes) == ([], 0)


def test_many_at_once_make_it_once() -> None:
    cache: PictureCache[int] = PictureCache(10_000)
    made: list[int] = []
    start = threading.Barrier(16)

    def make() -> SamplePicture:
        made.append(1)
        return picture(5)

    def ask(key: int) -> SamplePicture:
        start.wait(PATIENCE)
        return cache.get(key, make)

    with ThreadPoolExecutor(16) as pool:
        for key in range(50):
            answers = list(pool.map(ask, [key] * 16))
            assert all(answer is answers[0] for answer in answers)
    assert len(made) == 50


def test_who_waits_sees_the_failure_and_the_next_one_tries_again() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    go, calls = threading.Event(), []

    def fail() -> int:
        calls.append(1)
        assert go.wait(PATIENCE)
        raise OSError("cut off")

    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(flights.get, "a", fail) for _ in range(4)]
        wait_until(lambda: len(calls) == 1, "the first one to be at it")
        assert pool.submit(flights.get, "b", lambda: 2).result(PATIENCE) == 2, "another key does not wait"
        go.set()
        for each in asked:
            with pytest.raises(OSError, match="cut off"):
                each.result(PATIENCE)
    assert flights.get("a", lambda: 3) == 3 and not flights._under_way
