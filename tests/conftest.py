"""What every test may ask for."""

from __future__ import annotations

import random
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from playwright.sync_api import Browser, expect, sync_playwright

from scripts.browser import FLAGS, NO_BROWSER, find_browser
from tests.patience import PATIENCE

REPOSITORY = Path(__file__).resolve().parent.parent

# How fast a machine is just now says nothing about the product. A change is judged by the same examples wherever and
# whenever it is judged; `make test-slow` looks for new ones.
settings.register_profile(
    "explore", settings.get_profile("default"), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("same", settings.get_profile("explore"), derandomize=True, database=None, print_blob=True)
settings.load_profile("same")

expect.set_options(timeout=1000 * PATIENCE)

# A shell without job control has what it runs in the background ignore Ctrl-C, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Each test draws the same ones, whichever tests came before it."""
    random.seed(0)
    for name, seed in (("numpy.random", "seed"), ("torch", "manual_seed")):
        if name in sys.modules:  # most tests do not need torch, which takes seconds to load
            getattr(sys.modules[name], seed)(0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty root directory."""
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def free_port() -> Iterator[Callable[[], int]]:
    """Gives ports of the loopback address that nothing listens on, and that nobody else gets before they are used.

    The kernel picks the ports of clients, and of servers that do not care, from a range of its own, which these lie
    below. A datagram socket on the same number, held until the test ends, keeps other runs of the tests away.
    """
    with ExitStack() as held:

        def pick() -> int:
            for _ in range(1_000):
                port = random.SystemRandom().randrange(10_000, lowest_of_the_kernel())
                try:
                    held.enter_context(socket.socket(type=socket.SOCK_DGRAM)).bind(("127.0.0.1", port))
                    with socket.socket() as probe:
                        probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port
            pytest.fail("no port is free")

        yield pick


def lowest_of_the_kernel() -> int:
    """Where the range of the ports that the kernel picks begins."""
    try:
        return max(10_100, int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]))
    except OSError:
        return 32_768


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
        launched = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS), timeout=1000 * PATIENCE)
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
