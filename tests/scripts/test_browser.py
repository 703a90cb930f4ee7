from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from scripts.browser import find_browser
from tests.conftest import REPOSITORY


def fake(path: Path, code: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nexit {code}\n")
    path.chmod(0o755)
    return path


def test_a_named_browser_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = fake(tmp_path / "mine" / "my-browser", 0)
    monkeypatch.setenv("PATH", str(fake(tmp_path / "bin" / "chromium", 0).parent))
    monkeypatch.setenv("GRAYBOX_BROWSER", str(named))
    assert find_browser() == str(named)
    monkeypatch.setenv("GRAYBOX_BROWSER", str(tmp_path / "none"))
    assert find_browser() is None, "a wrong name is not replaced by whatever there is"


def test_a_stub_that_does_not_run_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAYBOX_BROWSER", raising=False)
    fake(tmp_path / "chromium", 1)
    works = fake(tmp_path / "google-chrome", 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_browser() == str(works)


def test_without_any_it_fails_and_says_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "scripts" / "browser.py", "--install"],
        env={**os.environ, "GRAYBOX_BROWSER": str(tmp_path / "none")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "No browser for the tests: install Chromium or Chrome" in done.stderr


@pytest.mark.browser
def test_the_browser_shows_a_page(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content("<p>watch</p>")
    assert page.inner_text("p") == "watch"
    page.close()
