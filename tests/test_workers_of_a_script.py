"""Workers load the samples of a data set that a user defined in the experiment's own file."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.patience import PATIENCE

SCRIPT = """
import os
import torch
from torch import optim
from torch.utils.data import Dataset
from graybox import Experiment, LinearWithNeuronOps, NetworkWithOps


class Own(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return torch.tensor([float(index % 2), float(os.getpid())]), index % 2


def own_collate(items):
    with open(FOLDER + "/loaded", "a") as file:
        file.write(f"{os.getpid()}\\n")
    return torch.stack([item[0][:1] for item in items]), torch.tensor([item[1] for item in items])


class Net(NetworkWithOps):
    def __init__(self):
        super().__init__()
        self.fc = LinearWithNeuronOps(1, 2)

    def forward(self, x):
        return self.fc(x)


def get_exp():
    return Experiment(
        model=Net(), optimizer_class=optim.SGD, train_dataset=Own(), eval_dataset=Own(), workers=2, collate=own_collate,
        batch_size=8, training_steps_to_do=30, root_log_dir=FOLDER + "/root", full_eval_frequency=0,
    )
"""


def test_through_the_entry_point(tmp_path: Path, free_port: Callable[[], int]) -> None:
    script = tmp_path / "my_experiment.py"
    script.write_text(SCRIPT.replace("FOLDER", repr(str(tmp_path))))
    command = [sys.executable, "graybox_backend.py", "--experiment", str(script), "--port", str(free_port())]
    log = tmp_path / "log"
    with log.open("w") as output:
        backend = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 2 * PATIENCE
        state = ""
        while state not in ("completed", "failed") and time.monotonic() < deadline and backend.poll() is None:
            time.sleep(0.2)
            for record in (tmp_path / "root").glob("*/run.json"):
                state = json.loads(record.read_text())["state"]
        assert state == "completed", log.read_text()
    finally:
        backend.send_signal(signal.SIGTERM)
        code = backend.wait(PATIENCE)
    assert code == 0, log.read_text()
    loaded_by = set((tmp_path / "loaded").read_text().split())
    # The first look at the network, in the backend's own process; then the two workers.
    assert len(loaded_by - {str(backend.pid)}) == 2
