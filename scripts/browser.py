"""Finds the browser of the tests and screenshots, and with --install gets one where none is found.

In this order: GRAYBOX_BROWSER, a Chromium or Chrome of the system, the one Playwright keeps. With --install, Playwright
downloads its own; where that fails, root on Debian or Ubuntu gets the system's by apt. A browser counts as found
when `--version` runs, because a stub or a missing library would fail only in the middle of a test.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

SYSTEM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""What it is started with: works in a container, and talks to nobody but the page."""
NO_BROWSER = (
    "No browser for the tests: install Chromium or Chrome, let `playwright install chromium` reach its server, "
    "or name a browser in GRAYBOX_BROWSER. The browser tests are not skipped."
)


def find_browser() -> str | None:
    """The path of a Chromium or Chrome that runs, or None."""
    named = os.environ.get("GRAYBOX_BROWSER")
    if named:
        path = shutil.which(named)
        return path if path and runs(path) else None
    for name in SYSTEM_NAMES:
        path = shutil.which(name)
        if path and runs(path):
            return path
    own = playwright_browser()
    return own if own and runs(own) else None


def runs(path: str) -> bool:
    """Whether the browser at this path can be started at all."""
    try:
        subprocess.run([path, "--version"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def playwright_browser() -> str | None:
    """Where Playwright keeps its Chromium, if it has downloaded one."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = Path(playwright.chromium.executable_path)
    return str(path) if path.is_file() else None


def install_browser() -> str | None:
    """Gets a browser by the ways this machine allows; its path, or None when there is none."""
    _attempt([sys.executable, "-m", "playwright", "install", "chromium"])
    found = find_browser()
    if found is None and shutil.which("apt-get") and os.geteuid() == 0:
        # An old package list names files that are gone; a failed update may still leave a usable one.
        _attempt(["apt-get", "update"])
        _attempt(["apt-get", "install", "-y", "chromium"])
        found = find_browser()
    return found


def _attempt(command: list[str]) -> None:
    print("No browser yet, trying:", " ".join(command), flush=True)
    try:
        subprocess.run(command, check=False, timeout=900)
    except (OSError, subprocess.TimeoutExpired) as problem:
        print(f"That did not work: {problem}", file=sys.stderr)


def main() -> int:
    """Prints the browser's path. Exit code 1 when there is none."""
    parser = argparse.ArgumentParser(description="find the browser of the tests")
    parser.add_argument("--install", action="store_true", help="get one where none is found")
    arguments = parser.parse_args()
    found = find_browser()
    if found is None and arguments.install and not os.environ.get("GRAYBOX_BROWSER"):
        found = install_browser()
    if found is None:
        print(NO_BROWSER, file=sys.stderr)
        return 1
    print(f"browser: {found}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
