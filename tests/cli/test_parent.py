from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from graybox.cli.parent import VARIABLE
from tests.conftest import REPOSITORY
from tests.patience import PATIENCE

WAITING = (
    "import time; from graybox.cli.parent import stop_with_parent; stop_with_parent(); print('up', flush=True); {}"
)


def waiting(then: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WAITING.format(then)],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_it_ends_when_the_pipe_closes_and_not_before() -> None:
    with waiting("time.sleep(600)", **{VARIABLE: "1"}) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "up\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.stdin.close()
        assert process.wait(PATIENCE) == -signal.SIGINT


def test_without_such_a_parent_the_end_of_input_means_nothing() -> None:
    with waiting("time.sleep(1)") as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


def test_its_own_children_do_not_inherit_the_wish() -> None:
    with waiting(f"import os; print('{VARIABLE}' in os.environ)", **{VARIABLE: "1"}) as process:
        assert process.stdout is not None
        assert process.stdout.read() == "up\nFalse\n"
