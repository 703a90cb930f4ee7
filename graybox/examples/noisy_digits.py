"""The digits with wrong labels: a share of the training scans says another class than the one that was drawn.

For recipes that find what is wrong with data, because here it is known. The network is large enough for the data to
learn wrong labels by heart, as the networks that one really trains are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn, optim
from torchvision import datasets

from graybox.dash import Dash
from graybox.errors import Invalid
from graybox.examples.digits import write_digits
from graybox.examples.minimise import EveryPlace, normalised, read_once
from graybox.experiment import Experiment
from graybox.tracking import RecordSettings

CLASSES = 10
LEARNING_RATE = 1e-3
BATCH_SIZE = 64
UNMOVED = ((1, 1),)


class NoisyScans(datasets.ImageFolder):  # type: ignore[misc]  # torchvision has no types
    """A folder of scans, float32 [3, 8, 8] each, in which a share of the labels is wrong.

    true_labels: int64 [scans]. wrong: bool [scans], whose label was changed; nothing that trains looks at either.
    """

    def __init__(self, folder: Path, share: float = 0.0, seed: int = 0) -> None:
        super().__init__(str(folder), normalised, loader=read_once)
        scans: list[tuple[str, int]] = datasets.ImageFolder(str(folder)).samples
        self.true_labels: NDArray[np.int64] = np.array([label for _, label in scans], dtype=np.int64)
        labels, self.wrong = with_wrong_labels(self.true_labels, len(self.classes), share, seed)
        self.targets: list[int] = labels.tolist()
        self.samples = self.imgs = [(path, label) for (path, _), label in zip(scans, self.targets, strict=True)]


def with_wrong_labels(
    labels: NDArray[np.int64], classes: int, share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(labels, which of them are wrong), both [n]: a share of them, rounded, drawn without looking, each changed to one
    of the other classes with the same probability. Raises Invalid for a share outside [0, 1] or a single class."""
    if not 0.0 <= share <= 1.0:
        raise Invalid(f"the share of wrong labels lies in 0 to 1; it is {share}")
    if classes < 2:
        raise Invalid(f"a label can only be wrong where there are two classes or more, not {classes}")
    draw = np.random.Generator(np.random.PCG64(seed))
    chosen = draw.permutation(len(labels))[: round(share * len(labels))]
    noisy, wrong = labels.copy(), np.zeros(len(labels), dtype=bool)
    noisy[chosen] = (noisy[chosen] + draw.integers(1, classes, len(chosen))) % classes
    wrong[chosen] = True
    return noisy, wrong


def network() -> nn.Module:
    """Images [batch, 3, 8, 8] -> logits [batch, 10]; 72,138 parameters for 1,258 scans."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 4 * 4, 128), nn.ReLU(), nn.Linear(128, CLASSES),
    )  # fmt: skip


def training_scans(root_directory: str | Path, share: float, seed: int) -> NoisyScans:
    """The scans to train on."""
    return NoisyScans(write_digits(Path(root_directory) / "digits") / "train", share, seed)


def noisy_digits(root_directory: str | Path, *, scans: NoisyScans, steps: int, seed: int, name: str) -> Experiment:
    """An experiment on these scans. The 539 that are not trained on validate, with the labels that are right. Nothing
    is augmented: what is learnt by heart is learnt by heart.

    seed: of the first weights and the order of samples.
    """
    root = Path(root_directory)
    data = write_digits(root / "digits")
    torch.set_num_threads(1)  # so small a network is no faster with more
    torch.manual_seed(seed)
    return Experiment(
        model=network(),
        optimizer_class=optim.Adam,
        train_dataset=scans,
        eval_dataset=EveryPlace([data / "val", data / "test"], UNMOVED),
        device="cuda:0" if torch.cuda.is_available() else "cpu",
        learning_rate=LEARNING_RATE,
        batch_size=BATCH_SIZE,
        training_steps_to_do=steps,
        name=name,
        root_log_dir=root,
        logger=Dash(root),
        seed=seed,
        full_eval_frequency=100,
        checkpoint_frequency=0,
        record=RecordSettings(every=10),  # this is about samples
    )
