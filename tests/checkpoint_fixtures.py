"""The experiment whose checkpoints lie in tests/fixtures, one of each format version. It never changes, so that they
always fit it.

`python -m tests.checkpoint_fixtures FILE.zip` writes one of the present version: its folder of checkpoints, and in
expected.json what it has to bring back.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn, optim
from torch.utils.data import TensorDataset

from graybox.checkpoint import CheckpointKeeper
from graybox.experiment import Experiment
from graybox.neuron_ops import AddNeurons, Freeze
from graybox.session import Session, Stores
from graybox.store.root import Root

FIXTURES = Path(__file__).parent / "fixtures"


class Tiny(nn.Module):
    """[batch, 3] -> [batch, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.out = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.out(torch.relu(self.norm(self.hidden(x))))
        return logits


def experiment() -> Experiment:
    numbers = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(12, 3, generator=numbers), torch.arange(12) % 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Experiment(
            model=Tiny(), optimizer_class=optim.Adam, train_dataset=data, eval_dataset=None, learning_rate=0.01,
            batch_size=5, training_steps_to_do=100, seed=3, full_eval_frequency=0, checkpoint_frequency=0,
            name="of a fixture", scheduler=lambda optimizer: optim.lr_scheduler.StepLR(optimizer, 4, 0.5),
        )  # fmt: skip


def opened(root: Path) -> Session:
    """On a run of its own under root."""
    session = Session(experiment(), Stores.open(Root(root).create_run("fixture")))
    session.look_at_network()
    return session


def digest(value: Any) -> str:
    """Of the bits of a tensor."""
    return hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def found_in(session: Session) -> dict[str, Any]:
    """What a checkpoint has to bring back, as JSON."""
    network, optimizer = session.network, session.experiment.optimizer
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        "step": session.step,
        "age": session.age,
        "position": [session.stream.position.epoch, session.stream.position.offset],
        "learning rates": [group["lr"] for group in optimizer.param_groups],
        "name": session.name,
        "weights": {name: digest(value) for name, value in network.state_dict().items()},
        "moments": {
            names[id(parameter)]: [digest(state["exp_avg"]), digest(state["exp_avg_sq"]), float(state["step"])]
            for parameter, state in optimizer.state.items()
        },
        "frozen": {name: layer.frozen.tolist() for name, layer in network.named_layers()},
        "triggers": {name: digest(layer.train_dataset_tracker.triggers) for name, layer in network.named_layers()},
        "encounters": session.stores.samples.splits["train"].encounters.tolist(),
        "discarded": session.stores.samples.splits["train"].discarded.tolist(),
        "losses": digest(torch.from_numpy(session.stores.samples.splits["train"].loss)),
    }


def expected(folder: Path) -> dict[str, Any]:
    """What the checkpoint in an unpacked fixture has to bring back: "then", and "three steps later"."""
    found: dict[str, Any] = json.loads((folder / "expected.json").read_bytes())
    return found


def train(session: Session, steps: int) -> None:
    for _ in range(steps):
        session.train_one_step()


def write(archive: Path) -> None:
    """Of a run with everything in it: trained, edited, discarded, trained on."""
    with tempfile.TemporaryDirectory() as root:
        session = opened(Path(root))
        train(session, 3)
        for seed, edit in enumerate((AddNeurons("hidden", count=1), Freeze("hidden", (2,)))):
            session.surgeon.apply(session.surgeon.plan(edit), seed)
        session.structure_changed()
        session.stores.samples.set_discarded("train", [1, 7], True)
        train(session, 3)
        session.name = "renamed"
        CheckpointKeeper(session).save("asked", "kept").result()
        then = found_in(session)
        train(session, 3)
        session.stores.close()
        folder = session.stores.checkpoints.folder
        told = {"then": then, "three steps later": found_in(session)}
        (folder / "expected.json").write_text(json.dumps(told, indent=1) + "\n")
        shutil.make_archive(str(archive.with_suffix("")), "zip", folder)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
