"""What a checkpoint costs: how long training stands still for it, and how many bytes it takes, torch.save beside it.

pause    of the training loop for one checkpoint, over the time of torch.save of the model's and the optimizer's
         state_dict to the same disk, in turn: ResNet-50 with Adam (aim: 0.25)
whole    until it is durable on the disk, in the background
bytes    on the disk for 20 checkpoints a step apart, over 20 of those files; once where all weights are trained, and
         once where only the last layer is
read     a checkpoint read back and checked, over torch.load

    python -m benchmarks.checkpoints [--rounds N] [--samples N] [--side PIXELS] [--device cuda] [--threads N]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import optim
from torch.utils.data import Dataset

from graybox.checkpoint import read_payload
from graybox.experiment import Experiment
from graybox.launch import Training, launch
from graybox.store.retention import KeepCheckpoints

PICTURES = 64
CLASSES = 10
PAUSE_AIM = 0.25
KEPT = 20


class Pictures(Dataset[Any]):
    """So many samples of a few random pictures: what they show makes no difference to the time a checkpoint takes."""

    def __init__(self, count: int, side: int) -> None:
        numbers = torch.Generator().manual_seed(0)
        self.pictures = torch.randn(PICTURES, 3, side, side, generator=numbers)
        self.targets = torch.randint(0, CLASSES, (count,), generator=numbers).tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.pictures[index % PICTURES], self.targets[index]


def started(root: Path, options: argparse.Namespace, *, frozen: bool = False) -> Training:
    """ResNet-50 with Adam at work. frozen: only its last layer is trained."""
    torch.manual_seed(0)
    network = torchvision.models.resnet50(num_classes=CLASSES)
    if frozen:
        network.requires_grad_(False)
        network.fc.requires_grad_(True)
        network.eval()  # normalisation as it is, as for a backbone that only gives features
    experiment = Experiment(
        model=network, optimizer_class=optim.Adam, train_dataset=Pictures(options.samples, options.side),
        eval_dataset=None, batch_size=8, training_steps_to_do=10**9, seed=0, device=options.device,
        full_eval_frequency=0, checkpoint_frequency=1, checkpoints=KeepCheckpoints(last=KEPT),
    )  # fmt: skip
    if frozen:
        for module in experiment.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
    return launch(experiment, root_directory=root)


def seconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def plain_state(training: Training) -> dict[str, Any]:
    experiment = training.experiment
    return {"model": experiment.model.state_dict(), "optimizer": experiment.optimizer.state_dict()}


def measured(training: Training, root: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds, round by round: of the plain file, of the pause, of the whole checkpoint. A step lies between."""
    session, flusher = training.trainer.session, training.stores.flusher
    plain = root / "plain.pt"
    found: dict[str, list[float]] = {"torch.save": [], "pause": [], "whole": []}
    for _ in range(rounds + 1):
        session.train_one_step()
        flusher.drain()
        found["torch.save"].append(seconds(lambda: torch.save(plain_state(training), plain)))
        os.sync()
        start = time.perf_counter()
        training.trainer._keeper.save("automatic")
        found["pause"].append(time.perf_counter() - start)
        flusher.drain()
        found["whole"].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in found.items()}  # memory is new in the first one


def spread(values: Sequence[float]) -> str:
    ranked = sorted(values)
    return f"{statistics.median(ranked):.3f} ({ranked[len(ranked) // 10]:.3f} to {ranked[-1 - len(ranked) // 10]:.3f})"


def show_times(training: Training, root: Path, rounds: int) -> None:
    found = measured(training, root, rounds)
    for name, values in found.items():
        print(f"{name:>12}  {spread(values)} s")
    ratios = [pause / save for pause, save in zip(found["pause"], found["torch.save"], strict=True)]
    print(f"{'pause':>12}  {spread(ratios)} of torch.save, aim {PAUSE_AIM}")


def show_reading(training: Training, root: Path) -> None:
    record = training.stores.checkpoints.list()[-1]
    path = training.stores.checkpoints.path(record.id)
    ours, plain = seconds(lambda: read_payload(path)), seconds(lambda: torch.load(root / "plain.pt"))
    print(f"{'read':>12}  {ours:.3f} s; torch.load of the plain file {plain:.3f} s")


def show_bytes(name: str, training: Training, root: Path) -> None:
    """Of twenty checkpoints with a step between, over as many plain files of the same state."""
    checkpoints = training.stores.checkpoints
    while len([r for r in checkpoints.list() if r.reason == "automatic"]) < KEPT:
        training.trainer.tick()
        training.stores.flusher.drain()
    torch.save(plain_state(training), root / "plain.pt")
    one = (root / "plain.pt").stat().st_size
    automatic = [record for record in checkpoints.list() if record.reason == "automatic"]
    files = sum(path.stat().st_size for path in checkpoints.folder.rglob("*") if path.is_file())
    held = automatic[-1].bytes
    print(
        f"{name:>12}  {files / 1e6:,.0f} MB for {len(checkpoints.list())} checkpoints of {held / 1e6:,.0f} MB: "
        f"{files / len(checkpoints.list()) / one:.3f} of a plain file ({one / 1e6:,.0f} MB) each, "
        f"{files / len(checkpoints.list()) / held:.3f} of what each holds"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--samples", type=int, nargs="+", default=[1_000, 1_000_000])
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--no-bytes", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.device}")
    for count in options.samples:
        with tempfile.TemporaryDirectory() as folder:
            training = started(Path(folder), argparse.Namespace(**{**vars(options), "samples": count}))
            print(f"ResNet-50 with Adam, {count:,} samples")
            show_times(training, Path(folder), options.rounds)
            show_reading(training, Path(folder))
            training.close()
    if options.no_bytes:
        return
    for name, frozen in (("all trained", False), ("last layer", True)):
        with tempfile.TemporaryDirectory() as folder:
            training = started(Path(folder), argparse.Namespace(**{**vars(options), "samples": 1_000}), frozen=frozen)
            show_bytes(name, training, Path(folder))
            training.close()


if __name__ == "__main__":
    main()
