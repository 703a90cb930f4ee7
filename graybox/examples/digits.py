"""The default experiment: a small convolutional network learns scikit-learn's handwritten digits.

1,797 real scans of 8 x 8 pixels, from the Optical Recognition of Handwritten Digits data set (E. Alpaydin and
C. Kaynak, UCI Machine Learning Repository, 1998), which scikit-learn ships. They are written once as an ImageFolder, as
one's own images would be.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn, optim
from torch.nn import functional as F
from torchvision import datasets, transforms

from graybox.dash import Dash
from graybox.errors import StorageError
from graybox.experiment import Experiment
from graybox.model_with_ops import DepType, NetworkWithOps
from graybox.modules_with_ops import BatchNorm2dWithNeuronOps, Conv2dWithNeuronOps, Intermediary, LinearWithNeuronOps

DEFAULT_ROOT = "graybox-demo"
SPLIT_SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}


class SimpleConvNet(NetworkWithOps):
    """Two convolutions and two linear layers; images [batch, 3, 8, 8] -> logits [batch, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = Conv2dWithNeuronOps(in_channels=3, out_channels=16, kernel_size=3, padding=1)
        self.bnorm1 = BatchNorm2dWithNeuronOps(16)
        self.layer2 = Conv2dWithNeuronOps(in_channels=16, out_channels=32, kernel_size=3, padding=1)
        self.bnorm2 = BatchNorm2dWithNeuronOps(32)
        self.mpool = nn.MaxPool2d(kernel_size=2, stride=2)
        self.fc1 = LinearWithNeuronOps(in_features=32 * 4 * 4, out_features=64)
        self.drop1 = nn.Dropout(0.25)
        self.fc2 = LinearWithNeuronOps(in_features=64, out_features=10)

    def define_deps(self) -> None:
        """Which layer follows which."""
        self.register_dependencies(
            [
                (self.layer1, self.bnorm1, DepType.SAME),
                (self.bnorm1, self.layer2, DepType.INCOMING),
                (self.layer2, self.bnorm2, DepType.SAME),
                (self.bnorm2, self.fc1, DepType.INCOMING),
                (self.fc1, self.fc2, DepType.INCOMING),
            ]
        )
        self.flatten_conv_id = self.bnorm2.get_module_id()

    def forward(self, x: torch.Tensor, intermediary: Intermediary | None = None) -> torch.Tensor:
        self.maybe_update_age(x)
        x = F.relu(self.bnorm1(self.layer1(x, intermediary=intermediary)))
        x = self.mpool(F.relu(self.bnorm2(self.layer2(x, intermediary=intermediary))))
        x = x.view(x.size(0), -1)
        x = self.drop1(F.relu(self.fc1(x, intermediary=intermediary)))
        logits: torch.Tensor = self.fc2(x, intermediary=intermediary)
        return logits


def write_digits(folder: Path) -> Path:
    """Write the digits as an ImageFolder (train, val, test / class / image), unless they are there. Answers `folder`.

    Which image goes where is fixed, each class split alike. Raises StorageError when the folder cannot be written.
    """
    if folder.is_dir():
        return folder
    from sklearn.datasets import load_digits  # heavy, and needed only once

    digits = load_digits()
    images = (digits.images / 16.0 * 255.0).round().astype(np.uint8)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: written aside, then renamed.
        aside = Path(tempfile.mkdtemp(prefix=".digits-", dir=folder.parent))
        try:
            for label in range(10):
                rows = np.flatnonzero(digits.target == label)
                rows = np.random.Generator(np.random.PCG64(label)).permutation(rows)
                bounds = np.cumsum([round(share * len(rows)) for share in SPLIT_SHARES.values()])[:-1]
                for split, part in zip(SPLIT_SHARES, np.split(rows, bounds), strict=True):
                    (aside / split / str(label)).mkdir(parents=True)
                    for row in part:
                        Image.fromarray(images[row]).save(aside / split / str(label) / f"{row:04d}.png")
            aside.chmod(0o755)
            os.replace(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"cannot write the digits to {folder}: {error.strerror or error}") from error
    return folder


def get_exp(root_directory: str | Path = DEFAULT_ROOT) -> Experiment:
    """The experiment: data and runs go to `root_directory`."""
    root = Path(root_directory)
    data = write_digits(root / "digits")
    normalise = [transforms.ToTensor(), transforms.Normalize([0.306] * 3, [0.374] * 3)]
    training = transforms.Compose([transforms.RandomCrop(8, padding=1), *normalise])
    plain = transforms.Compose(normalise)
    # So small a network is no faster with more, and whoever watches needs a core for the browser.
    torch.set_num_threads(1)
    torch.manual_seed(1)  # the same initial weights for everybody
    model = SimpleConvNet()
    model.define_deps()
    return Experiment(
        model=model,
        optimizer_class=optim.Adam,
        train_dataset=datasets.ImageFolder(str(data / "train"), training),
        eval_dataset=datasets.ImageFolder(str(data / "val"), plain),
        test_dataset=datasets.ImageFolder(str(data / "test"), plain),
        device="cuda:0" if torch.cuda.is_available() else "cpu",
        learning_rate=1e-3,
        batch_size=64,
        training_steps_to_do=20_000,
        name="digits",
        root_log_dir=root,
        logger=Dash(root),
        skip_loading=False,
        seed=1,
        full_eval_frequency=50,
        checkpoint_frequency=500,
    )
