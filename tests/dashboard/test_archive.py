from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import graybox.dashboard.archive as archive_module
from graybox.dashboard.archive import Archive
from tests.patience import PATIENCE

SPEAKS = """
import json, sys
print(json.dumps({"address": "127.0.0.1:4711", "token": "t"}), flush=True)
sys.stdin.read()
open(sys.argv[1], "a").write("ended;")
"""
DIES = """
import json, sys
open(sys.argv[1], "a").write("started;")
print(json.dumps({"address": "127.0.0.1:4711", "token": "t"}), flush=True)
"""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "_STOP_SECONDS", PATIENCE)


async def until(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, "waited too long"
        await asyncio.sleep(0.05)


def test_the_child_is_found_by_what_it_prints_and_ends_with_us(tmp_path: Path) -> None:
    notes = tmp_path / "notes"

    async def scene() -> None:
        archive = Archive(tmp_path, [sys.executable, "-c", SPEAKS, str(notes)])
        assert archive.find() is None
        archive.start()
        await until(archive.find)
        endpoint = archive.find()
        assert endpoint is not None and (endpoint.address, endpoint.token) == ("127.0.0.1:4711", "t")
        await archive.stop()
        assert archive.find() is None

    asyncio.run(scene())
    assert notes.read_text() == "ended;"


def test_a_child_that_dies_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "_RETRY_SECONDS", (0.05,))
    notes = tmp_path / "notes"

    async def scene() -> None:
        archive = Archive(tmp_path, [sys.executable, "-c", DIES, str(notes)])
        archive.start()
        await until(lambda: notes.exists() and notes.read_text().count("started;") >= 2)
        await archive.stop()

    asyncio.run(scene())


class Ending:
    """A process that has said where it listens and been waited for once, and is over when the test says so."""

    def __init__(self) -> None:
        self.stdin = None
        self.stdout = asyncio.StreamReader()
        self.stdout.feed_data(b'{"address": "127.0.0.1:4711", "token": "t"}\n')
        self.over = asyncio.Event()
        self.waits = 0

    async def wait(self) -> int:
        self.waits += 1
        if self.waits == 2:
            await self.over.wait()
        return 0


def test_it_stops_although_the_child_ends_at_that_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "_RETRY_SECONDS", (3600.0,))

    async def scene() -> None:
        process = Ending()

        async def started(*_: object, **__: object) -> Ending:
            return process

        monkeypatch.setattr(asyncio, "create_subprocess_exec", started)
        archive = Archive(tmp_path, ["nothing"])
        archive.start()
        await until(lambda: process.waits == 2)
        process.over.set()
        await asyncio.sleep(0)
        stopping = asyncio.ensure_future(archive.stop())
        done, _ = await asyncio.wait([stopping], timeout=PATIENCE / 4)
        assert done, "it waits for a child that nobody starts"

    asyncio.run(scene())


@pytest.mark.parametrize("says", ["print('no json')", "print('{}')", "pass", "print('[1]')"])
def test_a_child_that_says_nothing_sensible_is_no_archive(tmp_path: Path, says: str) -> None:
    async def scene() -> None:
        archive = Archive(tmp_path, [sys.executable, "-c", says])
        archive.start()
        await asyncio.sleep(0.5)
        assert archive.find() is None
        await archive.stop()

    asyncio.run(scene())


def test_a_command_that_does_not_exist_is_logged_not_raised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        archive = Archive(tmp_path, [str(tmp_path / "nothing")])
        archive.start()
        await until(lambda: "cannot be started" in caplog.text)
        await archive.stop()

    asyncio.run(scene())
