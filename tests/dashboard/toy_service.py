"""A toy run behind the real service, and a hub that has found it: queries, edits and views as a user's run has them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from graybox.dashboard.hub import Hub
from graybox.dashboard.settings import Settings
from graybox.service.server import serve
from graybox.service.settings import Settings as ServerSettings
from graybox.store.root import Root
from tests.patience import PATIENCE
from tests.service.toy_owner import CLASSES, ToyOwner


@asynccontextmanager
async def toy_hub(root: Path, seed: int = 0) -> AsyncIterator[tuple[Hub, ToyOwner]]:
    """A hub connected to a toy run, of which some samples were seen, some predicted wrongly and some discarded."""
    owner = ToyOwner(Root(root))
    numbers = np.random.default_rng(seed)
    for split, columns in owner.samples.splits.items():
        rows = np.flatnonzero(numbers.random(columns.count) < 0.8)
        losses = numbers.exponential(0.5, len(rows)).astype(np.float32)
        owner.samples.record_batch(split, rows, losses, numbers.integers(0, len(CLASSES), len(rows)), 64)
        owner.samples.set_discarded(split, np.flatnonzero(numbers.random(columns.count) < 0.3), True)
    running = serve(owner.backend(), ServerSettings(port=0))
    hub = Hub(Settings(root=root))
    try:
        give_up = time.monotonic() + PATIENCE
        while hub.live_run != owner.run.run_id:
            assert time.monotonic() < give_up, f"not connected: {hub.problem}"
            await hub.poll_status()
            await asyncio.sleep(0.01)
        yield hub, owner
    finally:
        await hub.stop()
        running.stop(grace=0)
        owner.close()
