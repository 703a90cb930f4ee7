"""The hub against a real gRPC server: it finds it, shares its answers among tabs, and finds it again."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from graybox.dashboard import cache as cache_module
from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.dashboard.pages.metrics.collect import collect, lines_of, run_rows, summary_cards
from graybox.dashboard.pages.metrics.figure import View
from graybox.dashboard.series import MAX_POINTS
from graybox.dashboard.settings import Settings
from graybox.proto import experiment_service_pb2 as pb
from tests.dashboard.fake_backend import FakeBackend, FakeRun
from tests.patience import PATIENCE

Start = Callable[..., FakeBackend]


@asynccontextmanager
async def hub_over(root: Path, **settings: str) -> AsyncIterator[Hub]:
    hub = Hub(Settings(root=root, **settings))  # type: ignore[arg-type]
    try:
        yield hub
    finally:
        await hub.stop()


async def until(hub: Hub, condition: Callable[[], bool]) -> None:
    """Asks for the state until it holds."""
    give_up = time.monotonic() + PATIENCE
    while True:
        await hub.poll_status()
        if condition():
            return
        assert time.monotonic() < give_up, hub.problem
        await asyncio.sleep(0.01)


async def until_connected(hub: Hub) -> None:
    await until(hub, lambda: hub.connected)


def test_without_a_backend_it_says_what_it_waits_for(root: Path) -> None:
    async def scene() -> None:
        async with hub_over(root) as hub:
            await hub.poll_status()
            assert not hub.connected
            assert hub.problem.startswith(f"Waiting for a backend on {root}")
            assert f"python graybox_backend.py --root_directory {root}" in hub.problem
            with pytest.raises(CallFailed):
                await hub.set_hyper_parameters("any", is_training=True)
            assert (await hub.runs()).value == []

    asyncio.run(scene())


def test_it_finds_a_backend_again_on_another_port_and_with_another_token(root: Path, start_backend: Start) -> None:
    first = start_backend()

    async def scene() -> None:
        async with hub_over(root) as hub:
            await until_connected(hub)
            address = hub.live.address
            assert hub.live_run == "20261120-131502-digits-1f3a"
            await asyncio.to_thread(first.stop)
            await until(hub, lambda: not hub.connected and "Waiting for a backend" in hub.problem)
            await asyncio.to_thread(start_backend, token="another")
            await until_connected(hub)
            assert hub.live.address != address

    asyncio.run(scene())


def test_a_refused_token_is_said(root: Path, start_backend: Start) -> None:
    start_backend()

    async def scene() -> None:
        async with hub_over(root, token="wrong") as hub:
            await until(hub, lambda: not hub.connected and "refused the token" in hub.problem)

    asyncio.run(scene())


def test_a_fixed_address_wins_and_takes_its_token_from_the_file(
    root: Path, start_backend: Start, tmp_path: Path
) -> None:
    backend = start_backend()
    content = json.loads(backend.file.read_text())
    backend.file.write_text(json.dumps({**content, "address": "127.0.0.1:1"}))

    async def scene() -> None:
        async with hub_over(root, backend=f"127.0.0.1:{backend.port}") as hub:
            await until_connected(hub)

    asyncio.run(scene())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"address": 5}', '{"address": ""}'])
def test_a_broken_announcement_is_no_announcement(root: Path, content: str) -> None:
    (root / "backend.json").write_text(content)

    async def scene() -> None:
        async with hub_over(root) as hub:
            await hub.poll_status()
            assert not hub.connected and "Waiting" in hub.problem

    asyncio.run(scene())


def test_many_tabs_ask_the_backend_once(root: Path, start_backend: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = start_backend()
    # All of them ask at one moment, however long this machine takes for it.
    monkeypatch.setattr(cache_module, "time", SimpleNamespace(monotonic=lambda: 0.0, time_ns=time.time_ns))

    async def scene() -> None:
        async with hub_over(root) as hub:
            await until_connected(hub)
            seen = await asyncio.gather(*(collect(hub, {}) for _ in range(20)))
            assert all(each.metric_names() == ["loss", "accuracy"] for each in seen)
        calls = backend.service.calls
        assert {name: calls[name] for name in ("metrics", "get_runs", "get_journal", "get_checkpoints")} == {
            "metrics": 1, "get_runs": 1, "get_journal": 1, "get_checkpoints": 1,
        }  # fmt: skip

    asyncio.run(scene())


def test_metrics_are_read_by_cursor_and_survive_a_rewind(root: Path, start_backend: Start) -> None:
    backend = start_backend()
    run = backend.service.live
    assert run is not None

    async def scene() -> None:
        async with hub_over(root) as hub:
            await until_connected(hub)
            held = await hub.metrics.read(run.run_id, live=True)
            before = sum(len(series.ages) for series in held.series.values())
            assert before == len(run.points)
            run.advance(10)
            hub.cache.drop("metrics")
            held = await hub.metrics.read(run.run_id, live=True)
            assert sum(len(series.ages) for series in held.series.values()) == len(run.points)
            del run.points[100:]
            run.generation += 1
            hub.cache.drop("metrics")
            held = await hub.metrics.read(run.run_id, live=True)
            assert sum(len(series.ages) for series in held.series.values()) == 100

    asyncio.run(scene())


def test_a_long_history_comes_downsampled_and_finer_where_somebody_zooms_in(root: Path, start_backend: Start) -> None:
    start_backend(FakeRun("20261120-131502-digits-1f3a", "digits", live=True, steps=5900))

    async def scene() -> None:
        async with hub_over(root) as hub:
            await until_connected(hub)
            collected = await collect(hub, {})
            whole = (await lines_of(hub, collected, "loss", View()))[0].series
            assert len(whole.ages) <= MAX_POINTS
            zoomed = (await lines_of(hub, collected, "loss", View(zoom={"x": [64_000.0, 70_400.0]})))[0].series
            assert sum(64_000 <= age <= 70_400 for age in zoomed.ages) == 101
            assert sum(64_000 <= age <= 70_400 for age in whole.ages) < 101

    asyncio.run(scene())


def test_runs_and_branches_have_rows_and_colours_of_their_own(root: Path, start_backend: Start) -> None:
    live = FakeRun("20261120-131502-digits-1f3a", "digits", live=True, steps=600, seed=5)
    old = FakeRun("20261119-000000-digits-aaaa", "older", live=False, steps=200, seed=1)
    start_backend(old, live)

    async def scene() -> None:
        async with hub_over(root) as hub:
            await until_connected(hub)
            request = pb.RestoreCheckpointRequest(experiment_hash=live.checkpoints[0].id)
            assert (await hub.act(live.run_id, "RestoreCheckpoint", request)).success
            live.state = pb.RUNNING
            live.advance(20)
            collected = await collect(hub, {f"{old.run_id}/0": False})
            assert len(set(collected.colours.values())) == len(collected.colours) == 3
            rows = run_rows(hub, collected)
            assert [(row["name"], row["shown"]) for row in rows] == [
                ("digits · branch 1", True), ("digits · branch 0", True), ("older", False),
            ]  # fmt: skip
            lines = await lines_of(hub, collected, "loss", View())
            assert {(line.branch, line.split, line.dash) for line in lines} == {
                (0, "train", "solid"), (0, "val", "dash"), (1, "train", "solid"),
            }  # fmt: skip
            assert [card["label"] for card in summary_cards(hub, collected)][:2] == ["Train loss", "Validation loss"]
            marks = collected.marks[1].points
            assert marks and "Restored step 500" in marks[0][1]

    asyncio.run(scene())
