"""Step time of a watched experiment over a plain PyTorch loop: same network, data, batch size and optimizer.

Both train in this process, a block of steps each in turn, so that a machine whose speed drifts slows both. Watched
means all that the product does: trigger rates of every layer and sample statistics on every step, metrics and logs
on disk. "With a dashboard" adds the gRPC server and a process that polls it as a dashboard with one open tab does.

    python -m benchmarks.step_time [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.networks import PLAIN, WATCHED, Layers, cifar_net, digits_net, resnet18
from graybox.experiment import Experiment
from graybox.launch import Training, launch
from graybox.service.backend import live_backend
from graybox.service.server import serve
from graybox.service.settings import settings_from_environment


@dataclass(frozen=True)
class Case:
    """One network with its data."""

    name: str
    build: Callable[[Layers], nn.Module]
    data: Callable[[Path], Any]
    batch_size: int
    block: int
    rounds: int


def images(count: int, size: int, classes: int) -> Callable[[Path], Any]:
    """Random images: what a picture shows makes no difference to the time a step takes."""

    def make(_: Path) -> TensorDataset:
        numbers = torch.Generator().manual_seed(0)
        return TensorDataset(
            torch.randn(count, 3, size, size, generator=numbers), torch.randint(0, classes, (count,), generator=numbers)
        )

    return make


def digits(folder: Path) -> Any:
    """The training images of the default experiment, read from files as it does."""
    from torchvision import datasets, transforms

    from graybox.examples.digits import write_digits

    steps = [transforms.RandomCrop(8, padding=1), transforms.ToTensor(), transforms.Normalize([0.306] * 3, [0.374] * 3)]
    return datasets.ImageFolder(str(write_digits(folder / "digits") / "train"), transforms.Compose(steps))


CASES = [
    Case("ResNet-18, 64 x 64, batch 32", resnet18, images(512, 64, 100), 32, 2, 30),
    Case("convolutional network, 32 x 32, batch 128", cifar_net, images(2_048, 32, 10), 128, 4, 40),
    Case("digits network, 8 x 8 from files, batch 64", digits_net, digits, 64, 40, 40),
]


class PlainLoop:
    """What a user writes without Graybox; the loss is read every step, as anybody who plots it does."""

    def __init__(self, case: Case, dataset: Any) -> None:
        torch.manual_seed(0)
        self.model = case.build(PLAIN)
        self.optimizer = optim.Adam(self.model.parameters(), lr=1e-4)
        self.loader = DataLoader(dataset, batch_size=case.batch_size, shuffle=True)
        self._batches = self._endless()

    def _endless(self) -> Iterator[Any]:
        while True:
            yield from self.loader

    def step(self) -> None:
        x, y = next(self._batches)
        self.optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        loss.item()


def watched(case: Case, dataset: Any, root: Path) -> Training:
    """The same as a Graybox experiment."""
    torch.manual_seed(0)
    experiment = Experiment(
        model=case.build(WATCHED), optimizer_class=optim.Adam, train_dataset=dataset, eval_dataset=None,
        learning_rate=1e-4, batch_size=case.batch_size, training_steps_to_do=10**9, seed=0,
        full_eval_frequency=0, checkpoint_frequency=0,
    )  # fmt: skip
    return launch(experiment, root_directory=root)


@contextmanager
def polled(training: Training, root: Path) -> Iterator[None]:
    """Serve the training, and have a process of its own poll it."""
    server = serve(live_backend(training), settings_from_environment(host="127.0.0.1", port=0))
    poller = subprocess.Popen([sys.executable, "-m", "benchmarks.poller", str(root)], stdout=subprocess.PIPE)
    try:
        assert poller.stdout is not None
        poller.stdout.readline()  # it has its first answers
        yield
        if poller.poll() is not None:
            raise RuntimeError("the poller ended early; the figures would be worth nothing")
    finally:
        poller.terminate()
        poller.wait()
        server.stop()


def block_seconds(step: Callable[[], Any], steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - start) / steps


def compare(case: Case, plain: PlainLoop, training: Training, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds per step of each, round by round; who goes first alternates."""
    plain_times, watched_times = [], []
    for index in range(rounds + 2):
        turns = [(plain.step, plain_times), (training.trainer.tick, watched_times)]
        for step, times in turns if index % 2 else reversed(turns):
            times.append(block_seconds(step, case.block))
    return plain_times[2:], watched_times[2:]  # the first two warm up


def report(title: str, plain: list[float], seen: list[float]) -> None:
    ratios = sorted(w / p for p, w in zip(plain, seen, strict=True))
    low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
    base, ours = statistics.median(plain) * 1e6, statistics.median(seen) * 1e6
    print(
        f"  {title:<18} plain {base:>9,.0f} µs   watched {ours:>9,.0f} µs   "
        f"ratio {statistics.median(ratios):.3f} (10 % to 90 %: {low:.3f} to {high:.3f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="rounds per case (default: 30 to 40)")
    parser.add_argument("--case", type=int, choices=range(len(CASES)), help="only this one")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; seconds per step, alternating blocks")
    for case in CASES if arguments.case is None else [CASES[arguments.case]]:
        rounds = arguments.rounds or case.rounds
        print(f"{case.name}, {rounds} rounds of {case.block} steps each", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            dataset = case.data(Path(folder))
            plain, root = PlainLoop(case, dataset), Path(folder) / "root"
            training = watched(case, dataset, root)
            try:
                report("watched", *compare(case, plain, training, rounds))
                with polled(training, root):
                    report("with a dashboard", *compare(case, plain, training, rounds))
            finally:
                training.trainer.end()
                training.close()


if __name__ == "__main__":
    main()
