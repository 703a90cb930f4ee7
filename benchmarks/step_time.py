"""Step time of a watched experiment over a plain PyTorch loop: same network, data, batch size and optimizer.

All train in this process, a block of steps each in turn, so that a machine whose speed drifts slows all. Watched
means all that the product does: sample statistics on every step, metrics and logs on disk, and of the neurons

    triggers   trigger rates and ages on every step
    all        every statistic on every step
    all / 10   every statistic on every tenth step

"In the records" is the part of it spent working out and adding up what the neurons did: measured within the same
steps, it can be trusted where the machine is so noisy that the difference of two loops cannot.

"Dashboard" is all on every step with the gRPC server, and a process that polls it as a dashboard with one open tab
does.

    python -m benchmarks.step_time [--rounds N] [--device cuda] [--threads N]
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
from graybox import neuron_records
from graybox.experiment import Experiment
from graybox.launch import Training, launch
from graybox.service.backend import live_backend
from graybox.service.server import serve
from graybox.service.settings import settings_from_environment
from graybox.tracking import Ledger, RecordSettings, StatisticsLevel


@dataclass(frozen=True)
class Case:
    """One network with its data."""

    name: str
    build: Callable[[Layers], nn.Module]
    data: Callable[[Path], Any]
    classes: int
    batch_size: int
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
    Case("ResNet-18, 64 x 64, batch 32", resnet18, images(512, 64, 100), 100, 32, 12),
    Case("convolutional network, 32 x 32, batch 128", cifar_net, images(2_048, 32, 10), 10, 128, 15),
    Case("digits network, 8 x 8 from files, batch 64", digits_net, digits, 10, 64, 30),
]

BLOCK = 10
"""Steps in a turn: a whole period of what is done on every tenth."""


def columns(classes: int) -> dict[str, RecordSettings]:
    return {
        "triggers": RecordSettings(StatisticsLevel.TRIGGERS, classes=classes),
        "all": RecordSettings(StatisticsLevel.ALL, classes=classes),
        "all / 10": RecordSettings(StatisticsLevel.ALL, every=10, classes=classes),
    }


class PlainLoop:
    """What a user writes without Graybox; the loss is read every step, as anybody who plots it does."""

    def __init__(self, case: Case, dataset: Any, device: torch.device) -> None:
        torch.manual_seed(0)
        self.device = device
        self.model = case.build(PLAIN).to(device)
        self.optimizer = optim.Adam(self.model.parameters(), lr=1e-4)
        pinned = device.type == "cuda"
        self.loader = DataLoader(dataset, batch_size=case.batch_size, shuffle=True, pin_memory=pinned)
        self._batches = self._endless()

    def _endless(self) -> Iterator[Any]:
        while True:
            yield from self.loader

    def step(self) -> None:
        x, y = (part.to(self.device, non_blocking=True) for part in next(self._batches))
        self.optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        loss.item()


def watched(case: Case, dataset: Any, root: Path, device: torch.device) -> Training:
    """The same as a Graybox experiment."""
    torch.manual_seed(0)
    experiment = Experiment(
        model=case.build(WATCHED), optimizer_class=optim.Adam, train_dataset=dataset, eval_dataset=None,
        learning_rate=1e-4, batch_size=case.batch_size, training_steps_to_do=10**9, seed=0, device=device,
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


class Records:
    """How long the work on neuron statistics takes: what reads activations, and what adds it up after the step."""

    def __init__(self) -> None:
        self.seconds = 0.0
        for owner, name in ((neuron_records, "observe"), (Ledger, "samples_are"), (Ledger, "commit")):
            setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start

        return timed

    def take(self) -> float:
        """Seconds since the last time."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


def block_seconds(step: Callable[[], Any], device: torch.device) -> float:
    start = time.perf_counter()
    for _ in range(BLOCK):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / BLOCK


def compare(
    plain: PlainLoop, training: Training, settings: dict[str, RecordSettings], rounds: int, records: Records
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds per step, round by round, of each column and of "plain", and those spent in the records; who goes first
    moves on."""
    ledger = training.trainer.session.network.ledger
    names = ["plain", *settings]
    times: dict[str, list[float]] = {name: [] for name in names}
    inside: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds + 1):
        for turn in range(len(names)):
            name = names[(index + turn) % len(names)]
            if name != "plain":
                ledger.settings = settings[name]
            step = plain.step if name == "plain" else training.trainer.tick
            records.take()
            times[name].append(block_seconds(step, plain.device))
            inside[name].append(records.take() / BLOCK)
    # The first round warms up.
    return {name: v[1:] for name, v in times.items()}, {name: v[1:] for name, v in inside.items()}


def report(times: dict[str, list[float]], inside: dict[str, list[float]]) -> None:
    plain = times["plain"]
    base = statistics.median(plain)
    print(f"  {'plain':<10} {base * 1e6:>9,.0f} µs per step", flush=True)
    for name, seen in times.items():
        if name == "plain":
            continue
        ratios = sorted(w / p for p, w in zip(plain, seen, strict=True))
        low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
        extra = statistics.median(w - p for p, w in zip(plain, seen, strict=True))
        own = statistics.median(inside[name])
        share = statistics.median(w / (w - i) for w, i in zip(seen, inside[name], strict=True))
        print(
            f"  {name:<10} {statistics.median(seen) * 1e6:>9,.0f} µs, {extra * 1e6:>+9,.0f} µs, "
            f"ratio {statistics.median(ratios):.3f} (10 % to 90 %: {low:.3f} to {high:.3f}); "
            f"in the records {own * 1e6:>7,.0f} µs, ratio {share:.4f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="rounds per case (default: 12 to 30)")
    parser.add_argument("--case", type=int, choices=range(len(CASES)), help="only this one")
    parser.add_argument("--device", default="cpu", help="where to train (default: cpu)")
    parser.add_argument("--threads", type=int, help="of PyTorch, on the CPU (default: its own choice)")
    parser.add_argument("--no-dashboard", action="store_true", help="leave that column out")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    records = Records()
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {where}; seconds per step, alternating blocks of {BLOCK}")
    for case in CASES if arguments.case is None else [CASES[arguments.case]]:
        rounds = arguments.rounds or case.rounds
        print(f"{case.name}, {rounds} rounds", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            dataset = case.data(Path(folder))
            plain, root = PlainLoop(case, dataset, device), Path(folder) / "root"
            training = watched(case, dataset, root, device)
            settings = columns(case.classes)
            try:
                report(*compare(plain, training, settings, rounds, records))
                if not arguments.no_dashboard:
                    with polled(training, root):
                        report(*compare(plain, training, {"dashboard": settings["all"]}, rounds, records))
            finally:
                training.trainer.end()
                training.close()


if __name__ == "__main__":
    main()
