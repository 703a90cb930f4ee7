from __future__ import annotations

import asyncio

from graybox.dashboard.cache import AnswerCache


def test_what_was_under_way_when_all_was_dropped_is_asked_anew() -> None:
    """A page that asked just before an edit must not show what it was told for as long as any answer is kept."""

    async def scene() -> None:
        cache, asked, told = AnswerCache(), asyncio.Event(), asyncio.Event()
        value = "before"

        async def fetch() -> str:
            found = value
            asked.set()
            await told.wait()
            return found

        first = asyncio.ensure_future(cache.get(("layer",), 3600, fetch))
        await asked.wait()
        value = "after"
        cache.drop()
        told.set()
        assert (await first).value == "before"
        assert (await cache.get(("layer",), 3600, fetch)).value == "after"
        value = "later"
        assert (await cache.get(("layer",), 3600, fetch)).value == "after"

    asyncio.run(scene())
