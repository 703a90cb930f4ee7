from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from graybox.cli.compare_steps import main
from graybox.fingerprints import VARIABLE
from tests.compared_runs import finished
from tests.conftest import REPOSITORY


def test_what_it_prints_and_its_exit_codes(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    one = finished(root / "one")
    finished(root / "same")
    finished(root / "other", seed=8)
    assert main([str(root / "one"), str(root / "same")]) == 0
    shown = capsys.readouterr().out
    assert shown.endswith("no difference in the 3 steps that both have\n") and one.name in shown
    assert main([str(one), str(root / "other")]) == 1
    assert "step 0: data order\n" in capsys.readouterr().out
    assert main([str(one), str(root / "other"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["first"]["kind"] == "data order"


def test_what_cannot_be_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(root / "one")
    assert main([str(root / "one"), str(root / "one")]) == 2
    assert capsys.readouterr().err.startswith("graybox compare-steps: run ")
    assert main([str(root / "nowhere"), str(root)]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_it_needs_no_torch() -> None:
    code = "import sys, graybox.comparison.steps_report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0
