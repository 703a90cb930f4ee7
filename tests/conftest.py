"""What every test may ask for."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from scripts.browser import FLAGS, NO_BROWSER, find_browser

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty root directory."""
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Gives ports of the loopback address that nothing listens on, never the same one twice in a test."""
    given: set[int] = set()

    def pick() -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port: int = probe.getsockname()[1]
            if port not in given:
                given.add(port)
                return port

    return pick


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the browser. Without one the test fails, because a skipped test would pass unseen."""
    found = find_browser()
    if found is None:
        pytest.fail(NO_BROWSER)
    return found


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """A running browser; mark what uses it with `browser`.

    Not for the whole session: while it lives it owns the thread's event loop, and other tests want one of their own.
    """
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield launched
        launched.close()


@pytest.fixture
def clean_imports(tmp_path: Path) -> Iterator[None]:
    """Forgets the modules that a test wrote into its folder, and the import paths that it added."""
    paths = list(sys.path)
    yield
    for name, module in list(sys.modules.items()):
        origin = getattr(module, "__file__", None)
        if origin and Path(origin).is_relative_to(tmp_path):
            del sys.modules[name]
    sys.path[:] = paths


@pytest.fixture
def opened(root: Path) -> Iterator[Callable[..., Any]]:
    """Makes toy experiments at work in the root directory, with the changes it is given; closes them afterwards."""
    # Here and not above: most tests do not need torch, which takes seconds to load.
    from tests.small_experiments import Opened, toy_experiment

    made: list[Opened] = []

    def make(**changes: Any) -> Opened:
        made.append(Opened(root, toy_experiment(**changes)))
        return made[-1]

    yield make
    for each in made:
        each.close()
