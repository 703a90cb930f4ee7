"""Where the token of backend.json goes: to the backend that wrote it, and to no other machine."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from graybox.dashboard.client import CallFailed, Link
from graybox.dashboard.endpoint import BackendFinder
from graybox.dashboard.hub import Hub
from graybox.dashboard.settings import Settings

ELSEWHERE = "192.0.2.7:50051"
"""An address for documentation, which nobody has."""


def announce(root: Path, address: str) -> None:
    (root / "backend.json").write_text(json.dumps({"address": address, "control_token": "local", "started_ms": 1}))


@pytest.mark.parametrize(
    ("announced", "fixed", "token"),
    [
        ("127.0.0.1:4000", "127.0.0.1:4000", "local"),
        ("127.0.0.1:4000", "127.0.0.1:5000", "local"),
        ("127.0.0.1:4000", "localhost:4000", "local"),
        ("127.0.0.1:4000", "[::1]:4000", "local"),
        ("0.0.0.0:4000", "127.0.0.1:4000", "local"),
        (ELSEWHERE, ELSEWHERE, "local"),
        ("127.0.0.1:4000", ELSEWHERE, ""),
        ("192.0.2.8:50051", ELSEWHERE, ""),
        ("192.0.2.7:4000", ELSEWHERE, ""),
        ("127.0.0.1:4000", "127.0.0.1.example.org:4000", ""),
        ("127.0.0.1:4000", "localhost.example.org:4000", ""),
        ("0.0.0.0:50051", ELSEWHERE, ""),
    ],
)
def test_the_token_of_the_file_stays_with_its_backend(root: Path, announced: str, fixed: str, token: str) -> None:
    announce(root, announced)
    found = BackendFinder(root, fixed).find()
    assert found is not None
    assert (found.address, found.token) == (fixed, token)
    given = BackendFinder(root, fixed, "given").find()
    assert given is not None and given.token == "given"


def test_without_a_token_for_elsewhere_it_says_what_to_set_and_calls_nobody(root: Path) -> None:
    announce(root, "127.0.0.1:4000")

    async def scene() -> None:
        link = Link(BackendFinder(root, ELSEWHERE))
        with pytest.raises(CallFailed, match="GRPC_AUTH_TOKEN") as raised:
            await link.command(1.0, get_status=True)
        assert raised.value.unauthorised and ELSEWHERE in str(raised.value)
        assert link.address == "", "no channel was opened"

    asyncio.run(scene())


def test_the_page_and_the_log_say_that_the_token_is_missing(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> str:
        hub = Hub(Settings(root=root, backend=ELSEWHERE))
        for _ in range(3):
            await hub.poll_status()
        await hub.stop()
        return hub.problem

    with caplog.at_level(logging.WARNING):
        problem = asyncio.run(scene())
    assert problem.startswith(f"no token for the backend at {ELSEWHERE}")
    said = [record.message for record in caplog.records if record.name.startswith("graybox")]
    assert said == [problem], "once, not at every poll"


def test_a_backend_of_this_machine_is_waited_for_without_a_token(root: Path) -> None:
    finder = BackendFinder(root, "127.0.0.1:50051")
    found = finder.find()
    assert found is not None
    assert finder.missing_token(found) == ""
