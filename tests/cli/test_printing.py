from __future__ import annotations

import subprocess
import sys

import pytest

from graybox.cli.printing import print_whole
from tests.conftest import REPOSITORY
from tests.patience import PATIENCE


def test_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_whole("one\ntwo")
    assert capsys.readouterr().out == "one\ntwo\n"


def test_a_reader_that_goes_is_no_error() -> None:
    code = "from graybox.cli.printing import print_whole; print_whole('line\\n' * 1_000_000)"
    writer = subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None and writer.stderr is not None
    assert writer.stdout.readline() == "line\n"
    writer.stdout.close()
    assert writer.wait(PATIENCE) == 0
    assert writer.stderr.read() == ""
    writer.stderr.close()
