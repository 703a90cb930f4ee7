"""A toy run behind a real server on the loopback address, and clients with each right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from graybox.service.server import RunningServer, serve
from graybox.service.settings import Settings
from graybox.store.root import Root
from tests.service.toy_owner import ToyOwner
from tests.service.wire_client import WireClient


@pytest.fixture(autouse=True)
def no_language_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks the one of whoever runs it."""
    for name in ("GRAYBOX_LLM_URL", "GRAYBOX_LLM_MODEL", "GRAYBOX_LLM_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[ToyOwner]:
    made = ToyOwner(Root(tmp_path / "root"))
    yield made
    made.close()


@pytest.fixture
def server(owner: ToyOwner) -> Iterator[RunningServer]:
    running = serve(owner.backend(), Settings(port=0))
    yield running
    running.stop(grace=0)


@pytest.fixture
def client(server: RunningServer) -> Iterator[WireClient]:
    """May control."""
    with WireClient(server.address, server.tokens.control[0]) as made:
        yield made


@pytest.fixture
def watcher(server: RunningServer) -> Iterator[WireClient]:
    """May only watch."""
    with WireClient(server.address, server.tokens.watch[0]) as made:
        yield made
