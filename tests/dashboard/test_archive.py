from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

import graybox.dashboard.archive as archive_module
from graybox.dashboard.archive import Archive

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


async def until(condition: object) -> None:
    for _ in range(100):
        if condition():  # type: ignore[operator]
            return
        await asyncio.sleep(0.1)
    raise AssertionError("waited too long")


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
