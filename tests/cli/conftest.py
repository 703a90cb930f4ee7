"""Processes of the command line, as a user starts them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.patience import PATIENCE

# The smallest thing that trains.
TINY = textwrap.dedent("""
    import torch
    from torch.utils.data import Dataset
    from graybox import Experiment, LinearWithNeuronOps, NetworkWithOps

    class Points(Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            return torch.full((3,), float(index)), index % 2

    class Net(NetworkWithOps):
        def __init__(self):
            super().__init__()
            self.only = LinearWithNeuronOps(3, 2)

        def forward(self, x, intermediary=None):
            self.maybe_update_age(x)
            return self.only(x, intermediary=intermediary)

    def build(name="whole", root_log_dir="graybox-runs"):
        return Experiment(model=Net(), optimizer_class=torch.optim.SGD, train_dataset=Points(), eval_dataset=Points(),
                          name=name, root_log_dir=root_log_dir)
""")

Write = Callable[..., Path]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of the given name from pieces of code."""

    def write(name: str, *parts: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(parts))
        return path

    return write


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `graybox ARGUMENTS` in tmp_path, in a process group of its own; what is left of it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GRPC_", "GRAYBOX_"))}
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "graybox.cli", *map(str, arguments)],
            cwd=tmp_path,
            env={**inherited, "PYTHONPATH": str(REPOSITORY), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(condition: Callable[[], object], what: str, process: subprocess.Popen[str] | None = None) -> None:
    """Fails the test, saying what did not happen, when the condition stays false or the process ends."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        if process is not None and process.poll() is not None:
            pytest.fail(f"{what} did not happen: the process ended\n{process.communicate()[1]}")
        assert time.monotonic() < give_up, f"{what} did not happen within {PATIENCE:.0f} s"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children_of(pid: int) -> list[int]:
    """Process ids of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
