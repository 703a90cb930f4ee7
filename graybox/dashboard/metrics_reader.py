"""Reads metrics by cursor, a run at a time, and windows of them when somebody zooms in."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable
from typing import Protocol

from graybox.dashboard.cache import AnswerCache
from graybox.dashboard.client import CallFailed
from graybox.dashboard.series import MAX_POINTS, RunMetrics, Series, SeriesKey, decode
from graybox.proto import experiment_service_pb2 as pb

LIVE_SECONDS = 0.7
ENDED_SECONDS = 10.0
_KEPT_WINDOWS = 64


class Ask(Protocol):
    """One read about a run; raises CallFailed."""

    def __call__(
        self, run_id: str, method: str, request: pb.GetLatestLoggerDataRequest, timeout: float = ...
    ) -> Awaitable[pb.GetLatestLoggerDataResponse]: ...


class MetricsReader:
    """Holds the curves of the runs that somebody looked at; asks only for what is new."""

    def __init__(self, ask: Ask, cache: AnswerCache) -> None:
        self._ask = ask
        self._cache = cache
        self._runs: dict[str, RunMetrics] = {}
        self._windows: OrderedDict[tuple[str, str, int, int], tuple[int, bool, RunMetrics]] = OrderedDict()

    async def read(self, run_id: str, *, live: bool) -> RunMetrics:
        """The curves of a run, at most LIVE_SECONDS old. Raises CallFailed when there are none to show."""
        held = self._runs.setdefault(run_id, RunMetrics(run_id))

        async def refresh() -> int:
            whole = not held.cursor or held.overfull
            request = pb.GetLatestLoggerDataRequest(
                run_id=run_id,
                max_points=MAX_POINTS,
                request_full_history=whole,
                cursor="" if whole else held.cursor,
            )
            response = await self._ask(run_id, "GetLatestLoggerData", request)
            held.absorb(response, await asyncio.to_thread(decode, response), whole=whole)
            return held.version

        try:
            await self._cache.get(("metrics", run_id), LIVE_SECONDS if live else ENDED_SECONDS, refresh)
        except CallFailed:
            if not held.series:
                raise
        return held

    async def window(self, run_id: str, metric: str, low: float, high: float) -> dict[SeriesKey, Series]:
        """The curves of one metric between two ages, as fine as MAX_POINTS allows, with half a width on either side.

        Raises CallFailed.
        """
        held = self._runs.get(run_id)
        if held is None:
            return {}
        margin = (high - low) / 2
        first, last = max(int(low - margin), 0), max(int(high + margin) + 1, 1)
        if not held.downsampled and not held.overfull:
            return {key: part.between(first, last) for key, part in held.series.items() if key.metric == metric}
        key = (run_id, metric, first, last)
        kept = self._windows.get(key)
        if kept is None or not (kept[1] or kept[0] == held.version):
            kept = self._windows[key] = await self._fetch_window(held, metric, first, last)
            while len(self._windows) > _KEPT_WINDOWS:
                self._windows.popitem(last=False)
        self._windows.move_to_end(key)
        return kept[2].series

    async def _fetch_window(self, held: RunMetrics, metric: str, first: int, last: int) -> tuple[int, bool, RunMetrics]:
        """(version it belongs to, whether nothing can be added to it, its curves)."""
        version, closed = held.version, held.last_age > last
        request = pb.GetLatestLoggerDataRequest(
            run_id=held.run_id,
            graph_name=metric,
            request_full_history=True,
            max_points=MAX_POINTS,
            min_age=first,
            max_age=last,
        )
        response = await self._ask(held.run_id, "GetLatestLoggerData", request)
        part = RunMetrics(held.run_id)
        part.absorb(response, await asyncio.to_thread(decode, response), whole=True)
        return version, closed, part
