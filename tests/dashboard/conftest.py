"""A dashboard's hub over a backend of its own, in the test's process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graybox.dashboard import hub as hub_module
from tests.dashboard.fake_backend import FakeBackend, FakeRun, FakeService
from tests.patience import PATIENCE


@pytest.fixture(autouse=True)
def patient_hubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub takes a backend for lost that does not answer for seconds; on a busy machine that is none of its faults."""
    monkeypatch.setattr(hub_module, "STATUS_TIMEOUT", PATIENCE)


@pytest.fixture
def start_backend(root: Path) -> Iterator[Callable[..., FakeBackend]]:
    """Starts backends over `root`; all of them are stopped in the end."""
    started: list[FakeBackend] = []

    def start(*runs: FakeRun, pace: int = 0, token: str = "secret") -> FakeBackend:
        live = FakeRun("20261120-131502-digits-1f3a", "digits", live=True, steps=300, seed=3)
        backend = FakeBackend(root, FakeService(list(runs) or [live], pace=pace), token=token)
        started.append(backend)
        return backend

    yield start
    for backend in started:
        backend.stop()
