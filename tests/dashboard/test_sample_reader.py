"""One sample over the wire: its record, its losses, how its picture was made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.dashboard.sample_reader import SampleReader
from graybox.dashboard.settings import Settings
from tests.dashboard.fake_backend import FakeBackend
from tests.dashboard.toy_service import toy_hub
from tests.service.toy_owner import SEGMENTED, SPLITS, UNREADABLE


def test_a_sample_comes_with_its_losses_and_what_is_said_of_its_picture(root: Path) -> None:
    async def scene() -> None:
        async with toy_hub(root) as (hub, owner):
            reader, run = SampleReader(hub), owner.run.run_id
            row = np.array([5])
            for loss in (0.5, 0.25):
                owner.samples.record_batch("val", row, np.array([loss], np.float32), row % 3, 99)
            found = (await reader.read(run, "val", "5")).record
            assert list(found.loss_history.losses)[-2:] == [0.5, 0.25]
            assert found.loss_history.encounters[-1] == found.encounters - 1
            drawn = await reader.read(run, "train", SEGMENTED)
            assert drawn.labels_drawn and drawn.note and not drawn.error
            plain = await reader.read(run, "train", "3")
            assert not plain.labels_drawn and not plain.note
            assert (await reader.read(run, "train", UNREADABLE)).error
            with pytest.raises(CallFailed, match="no sample 99 in train"):
                await reader.read(run, "train", "99")
            for split, count in SPLITS.items():
                for row_number in (0, 1, count - 1):
                    record = (await reader.read(run, split, str(row_number))).record
                    assert (record.origin, record.sample_id) == (split, str(row_number))

    asyncio.run(scene())


def test_numbers_that_do_not_count_the_samples_of_a_split_are_found_too(
    start_backend: Callable[..., FakeBackend], root: Path
) -> None:
    """Here the splits share one row of numbers, so that number 10 is not the tenth of its split."""

    async def scene() -> None:
        hub = Hub(Settings(root=root))
        try:
            await hub.poll_status()
            reader = SampleReader(hub)
            for split, number in (("val", "0"), ("val", "10"), ("train", "1"), ("train", "399")):
                record = (await reader.read(hub.live_run, split, number)).record
                assert (record.origin, record.sample_id) == (split, number)
            with pytest.raises(CallFailed, match="no sample 11 in val"):
                await reader.read(hub.live_run, "val", "11")
        finally:
            await hub.stop()

    start_backend()
    asyncio.run(scene())


def test_a_picture_is_looked_at_once(start_backend: Callable[..., FakeBackend], root: Path) -> None:
    backend = start_backend()

    async def scene() -> None:
        hub = Hub(Settings(root=root))
        try:
            await hub.poll_status()
            reader = SampleReader(hub)
            for _ in range(3):
                await reader.read(hub.live_run, "train", "1")
        finally:
            await hub.stop()

    asyncio.run(scene())
    assert backend.service.calls["pictures"] == 1
