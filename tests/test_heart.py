"""The heart of Graybox, on one page: a network trains, people intervene, the process is killed with `kill -9` again and
again, and in the end every acknowledged intervention is there at its step and every bit is what it would have been.

Run as a program (`python tests/test_heart.py ROOT [STEPS]`) this file is the process that gets killed.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn, optim
from torch.utils.data import TensorDataset

from graybox.commands import (
    Command,
    DiscardSamples,
    EditNeurons,
    Pause,
    RestoreCheckpoint,
    Resume,
    SetHyperParameters,
    Undo,
)
from graybox.experiment import Experiment
from graybox.launch import Training, launch
from graybox.model_with_ops import DepType, NetworkWithOps
from graybox.modules_with_ops import BatchNorm2dWithNeuronOps, Conv2dWithNeuronOps, LinearWithNeuronOps
from graybox.neuron_ops import (
    AddNeurons,
    Freeze,
    Reinitialize,
    RemoveNeurons,
    SetLearningRate,
    SortByStat,
    Unfreeze,
)
from graybox.store.journal import Journal, JournalEntry
from graybox.store.metrics import MetricStore
from graybox.store.root import Root

LAST_STEP = 60
KILLS = 5
RUNS_AHEAD = 3
"""So many steps at most come between the one after which the process is killed and its end."""


class Toy(NetworkWithOps):
    """Convolution, normalisation, dropout, linear: everything that has state of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv2dWithNeuronOps(1, 4, 3)
        self.norm = BatchNorm2dWithNeuronOps(4)
        self.drop = nn.Dropout(0.5)
        self.out = LinearWithNeuronOps(16, 3)
        self.register_dependencies([(self.conv, self.norm, DepType.SAME), (self.norm, self.out, DepType.INCOMING)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.out(self.drop(torch.relu(self.norm(self.conv(x)))).flatten(1))
        return logits


def toy_experiment() -> Experiment:
    numbers = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(50, 1, 4, 4, generator=numbers), torch.randint(0, 3, (50,), generator=numbers))
    torch.manual_seed(0)
    return Experiment(
        model=Toy(), optimizer_class=optim.Adam, train_dataset=data, eval_dataset=data, learning_rate=0.01,
        batch_size=8, training_steps_to_do=1_000, seed=7, full_eval_frequency=6, checkpoint_frequency=10,
        scheduler=lambda optimizer: optim.lr_scheduler.StepLR(optimizer, 15, 0.5),
    )  # fmt: skip


def checkpoint_of_step(training: Training, step: int) -> str:
    return [record.id for record in training.stores.checkpoints.list() if record.step == step][-1]


# At which step somebody does what, in this order. The restore goes back to step 30 and pauses, with as many neurons as
# there were then; somebody resumes.
SCHEDULE: list[tuple[int, Callable[[Training], Command]]] = [
    (3, lambda _: EditNeurons(Freeze("conv", (1,)))),
    (7, lambda _: SetHyperParameters({"learning_rate": 0.02})),
    (7, lambda _: DiscardSamples((("train", "3"), ("train", "4")))),
    (13, lambda _: EditNeurons(Reinitialize("conv", (0, 2), zero_outgoing=True))),
    (15, lambda _: EditNeurons(RemoveNeurons("conv", (2,)))),
    (18, lambda _: Pause()),
    (18, lambda _: SetHyperParameters({"batch_size": 11})),
    (18, lambda _: Resume()),
    (21, lambda _: EditNeurons(AddNeurons("conv", count=2))),
    (25, lambda _: EditNeurons(SetLearningRate("out", (2,), 0.25))),
    (27, lambda _: EditNeurons(SortByStat("conv"))),
    (28, lambda _: Undo()),
    (33, lambda _: EditNeurons(Reinitialize("conv", (3,), perturbation_ratio=0.3))),
    (35, lambda _: EditNeurons(RemoveNeurons("conv", (0, 4)))),
    (41, lambda training: RestoreCheckpoint(checkpoint_of_step(training, 30))),
    (30, lambda _: Resume()),
    (37, lambda _: DiscardSamples((("train", "3"),), discarded=False)),
    (37, lambda _: EditNeurons(Unfreeze("conv", (1,)))),
    (44, lambda _: EditNeurons(RemoveNeurons("conv", (1, 3)))),
    (47, lambda _: Undo()),
    (52, lambda _: EditNeurons(Reinitialize("out", (0,)))),
]


def interventions(journal: Journal) -> list[JournalEntry]:
    return [entry for entry in journal.entries() if "command_id" in entry.arguments]


def fingerprint(training: Training) -> str:
    """Every bit of weights, running statistics, optimizer and flags."""
    digest = hashlib.sha256()
    session = training.trainer.session
    tensors = [*session.network.state_dict().values()]
    for state in session.experiment.optimizer.state.values():
        tensors += [state[key] for key in sorted(state)]
    for layer in session.network.layers:
        tensors += [layer.frozen, layer.neuron_learning_rate]
        for tracker in (layer.train_dataset_tracker, layer.eval_dataset_tracker):
            tensors += [tracker.triggers, tracker.ages()]
    for tensor in tensors:
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def work(root: str, last: int | None = None) -> None:
    """Train to the end, doing what the schedule says, telling of every step and every acknowledgement.

    last: wait for the end after so many steps; whoever is to kill may be late, and must not find all done.
    """
    torch.set_num_threads(1)
    training = launch(toy_experiment(), root_directory=root)
    trainer, session = training.trainer, training.trainer.session
    sent, made = -1, 0
    while True:
        # What is in the journal is done; what was sent but not journalled before the kill is sent again.
        done = len(interventions(training.stores.journal))
        recovering = trainer.latest().state.value in ("starting", "recovering")
        while not recovering and (number := max(done, sent + 1)) < len(SCHEDULE):
            if SCHEDULE[number][0] != session.step:
                break
            sent = number
            future = trainer.submit(SCHEDULE[sent][1](training), command_id=f"command-{sent}")
            future.add_done_callback(lambda f, number=sent: tell(f"ACK {number} {f.result().sequence}"))
        if session.step >= LAST_STEP and done == len(SCHEDULE):
            break
        trainer.tick()
        tell(f"STEP {session.step}")
        time.sleep(0.001)  # so that a kill can come between any two lines
        if (made := made + 1) == last:
            signal.pause()
    tell(f"END {fingerprint(training)}")
    training.stores.close()


def tell(line: str) -> None:
    """One write a line, since two threads tell."""
    os.write(1, f"{line}\n".encode())


def run_until(root: Path, stop_after: int | None) -> tuple[str | None, dict[int, int]]:
    """Run the worker; with stop_after kill it after so many steps. (its fingerprint, acknowledged: sequence)."""
    last = [] if stop_after is None else [str(stop_after + RUNS_AHEAD)]
    worker = subprocess.Popen([sys.executable, __file__, str(root), *last], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    acknowledged: dict[int, int] = {}
    end, steps = None, 0
    for line in worker.stdout:
        words = line.split()
        if words[0] == "ACK":
            acknowledged[int(words[1])] = int(words[2])
        elif words[0] == "END":
            end = words[1]
        elif (steps := steps + 1) == stop_after:
            worker.kill()
    worker.stdout.close()
    worker.wait()
    return end, acknowledged


def test_killed_again_and_again_arrives_at_the_same_bits(tmp_path: Path) -> None:
    undisturbed, everything = run_until(tmp_path / "undisturbed", None)
    assert undisturbed is not None and sorted(everything) == list(range(len(SCHEDULE)))

    choose = random.Random(1)
    acknowledged: dict[int, int] = {}
    for _ in range(KILLS):
        end, more = run_until(tmp_path / "killed", choose.randrange(10, 35))
        assert end is None, "killed too late: it had ended"
        acknowledged |= more
    end, more = run_until(tmp_path / "killed", None)
    acknowledged |= more

    assert end == undisturbed
    run = Root(tmp_path / "killed").latest_run()
    assert run is not None
    entries = interventions(Journal(run.path / "journal.jsonl", read_only=True))
    # Each intervention is there once, in order, at the step it was made at; and every acknowledged one is.
    assert [entry.arguments["command_id"] for entry in entries] == [f"command-{i}" for i in range(len(SCHEDULE))]
    assert [entry.step for entry in entries] == [step for step, _ in SCHEDULE]
    assert all(entries[number].sequence == sequence for number, sequence in acknowledged.items())
    # No metric point is doubled or missing, on either branch.
    points = MetricStore(run.path, read_only=True).read(full=True).points
    losses = (points.split == "train") & (points.metric == "loss")
    found = sorted(zip(points.branch[losses].tolist(), points.step[losses].tolist(), strict=True))
    assert found == [(0, step) for step in range(1, 42)] + [(1, step) for step in range(31, LAST_STEP + 1)]


if __name__ == "__main__":
    work(sys.argv[1], *map(int, sys.argv[2:]))
