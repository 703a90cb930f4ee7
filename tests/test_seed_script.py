"""The script that users know runs as it is, completed with its missing lines, and learns."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from graybox.cli.experiment_file import load_experiment
from graybox.commands import EditNeurons
from graybox.launch import Training, launch
from graybox.neuron_ops import Freeze
from tests.small_experiments import tick_until

SCRIPT = """
import os
from typing import Dict

import torch as th
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torchvision import datasets as ds
from torchvision import transforms as T

from graybox.dash import Dash
from graybox.experiment import Experiment
from graybox.model_with_ops import DepType, NetworkWithOps
from graybox.modules_with_ops import BatchNorm2dWithNeuronOps, Conv2dWithNeuronOps, LinearWithNeuronOps
from graybox.tracking import TrackingMode, add_tracked_attrs_to_input_tensor


class SimpleConvNet(NetworkWithOps):
    def __init__(self):
        super(SimpleConvNet, self).__init__()
        self.tracking_mode = TrackingMode.DISABLED

        self.layer1 = Conv2dWithNeuronOps(
            in_channels=3, out_channels=8, kernel_size=3, padding=1)
        self.bnorm1 = BatchNorm2dWithNeuronOps(8)
        self.mpool1 = nn.MaxPool2d(kernel_size=2, stride=2)

        self.layer2 = Conv2dWithNeuronOps(
            in_channels=8, out_channels=12, kernel_size=3, padding=1)
        self.bnorm2 = BatchNorm2dWithNeuronOps(12)
        self.mpool2 = nn.MaxPool2d(kernel_size=2, stride=2)

        self.layer3 = Conv2dWithNeuronOps(
            in_channels=12, out_channels=8, kernel_size=3, padding=1)
        self.bnorm3 = BatchNorm2dWithNeuronOps(8)
        self.mpool3 = nn.MaxPool2d(kernel_size=2, stride=2)

        self.fc1 = LinearWithNeuronOps(in_features=8*5*5, out_features=10)
        self.drop1 = nn.Dropout(0.25)
        self.fc2 = LinearWithNeuronOps(in_features=10, out_features=10)

        self.fc3 = LinearWithNeuronOps(in_features=10, out_features=200)
        self.softmax = SOFTMAX

    # Define dependencies between layer, such that adjusting the input sizes
    # is done automatically.
    def define_deps(self):
        self.register_dependencies([
            (self.layer1, self.bnorm1, DepType.SAME),
            (self.bnorm1, self.layer2, DepType.INCOMING),
            (self.layer2, self.bnorm2, DepType.SAME),
            (self.bnorm2, self.layer3, DepType.INCOMING),
            (self.layer3, self.bnorm3, DepType.SAME),
            (self.bnorm3, self.fc1, DepType.INCOMING),

            (self.fc1, self.fc2, DepType.INCOMING),
            (self.fc2, self.fc3, DepType.INCOMING),
        ])
        self.flatten_conv_id = self.bnorm3.get_module_id()

    def forward(self, x, intermediary: Dict[int, th.Tensor] | None = None):
        self.maybe_update_age(x)
        x = self.layer1(x, intermediary=intermediary)
        x = self.bnorm1(x)
        x = F.relu(x)
        x = self.mpool1(x)
        x = self.layer2(x, intermediary=intermediary)
        x = self.bnorm2(x)
        x = F.relu(x)
        x = self.mpool2(x)
        x = self.layer3(x, intermediary=intermediary)
        x = self.bnorm3(x)
        x = F.relu(x)
        x = self.mpool3(x)

        x = x.view(x.size(0), -1)
        x = self.fc1(x, intermediary=intermediary)
        x = F.relu(x)
        x = self.drop1(x)
        x = self.fc2(x, intermediary=intermediary)
        x = F.relu(x)

        # For the last layer we skip the regular statistics updates
        output = self.fc3(x, skip_register=True, intermediary=None)
        one_hot = F.one_hot(
            output.argmax(dim=1), num_classes=self.fc3.out_features)

        if hasattr(x, 'in_id_batch') and hasattr(x, 'label_batch'):
            add_tracked_attrs_to_input_tensor(
                one_hot, in_id_batch=input.in_id_batch,
                label_batch=input.label_batch)
        self.fc3.register(one_hot)



        output = self.softmax(output)
        return output


data_dir = "tiny-224/"
# Normalized & Flipped Dataset
data_transforms = {
    "train": T.Compose(
        [
            T.RandomHorizontalFlip(0.5),
            T.ToTensor(),
            T.Normalize([0.4802, 0.4481, 0.3975], [0.2302, 0.2265, 0.2262]),
        ]
    ),
    "val": T.Compose(
        [
            T.ToTensor(),
            T.Normalize([0.4802, 0.4481, 0.3975], [0.2302, 0.2265, 0.2262]),
        ]
    ),
    "test": T.Compose(
        [
            T.ToTensor(),
            T.Normalize([0.4802, 0.4481, 0.3975], [0.2302, 0.2265, 0.2262]),
        ]
    ),
}
image_datasets = {
    x: ds.ImageFolder(os.path.join(data_dir, x), data_transforms[x]) for x in ["train", "val", "test"]
}

device = th.device("cuda:0")


def get_exp():
    model = SimpleConvNet()
    model.define_deps()

    exp = Experiment(
        model=model, optimizer_class=optim.Adam,
        train_dataset=image_datasets["train"],
        eval_dataset=image_datasets["val"],
        device=device, learning_rate=1e-3, batch_size=512,
        training_steps_to_do=200000,
        name="v0",
        root_log_dir='tiny-image-net', # Folderst to store technical data and checkpoints
        logger=Dash("tiny-image-net"),
        skip_loading=False)

    def stateful_difference_monitor_callback():
        exp.display_stats()

    return exp
"""

CROPS = {"train": 40, "val": 10, "test": 2}
BATCH = 32


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_imports: None) -> Path:
    """A folder with the images: crops of 40 x 40 pixels of two photographs, three classes."""
    china, flower = load_sample_images().images
    sources = {"flower": flower[100:400, 200:500], "roof": china[200:400, 100:500], "sky": china[:120, :]}
    numbers = np.random.default_rng(0)
    for split, count in CROPS.items():
        for name, pixels in sources.items():
            (tmp_path / "tiny-224" / split / name).mkdir(parents=True)
            for index in range(count):
                top, left = (numbers.integers(0, size - 40) for size in pixels.shape[:2])
                crop = Image.fromarray(pixels[top : top + 40, left : left + 40])
                crop.save(tmp_path / "tiny-224" / split / name / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(workshop: Path, name: str, softmax: str, steps: int) -> Training:
    """The script's experiment after so many steps, on its own root directory."""
    script = workshop / f"experiment_{name}.py"
    script.write_text(SCRIPT.replace("SOFTMAX", softmax).replace("batch_size=512", f"batch_size={BATCH}"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        if torch.cuda.is_available():
            experiment = load_experiment(str(script))
        else:
            with pytest.warns(UserWarning, match="no cuda:0: training on the CPU instead"):
                experiment = load_experiment(str(script))
    experiment.seed = 5
    experiment.full_eval_frequency = 20
    training = launch(experiment, root_directory=workshop / name)
    tick_until(training, lambda: training.trainer.session.step >= steps or bool(training.trainer.latest().error))
    assert training.trainer.latest().error == ""
    return training


def losses(training: Training) -> np.ndarray:
    points = training.stores.metrics.read(full=True, metric="loss").points
    return np.asarray(points.value[points.split == "train"])


def test_it_runs_and_learns(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training = trained(workshop, "softmax", "nn.Softmax(dim=1)", 121)
    try:
        session = training.trainer.session
        found = losses(training)
        assert found[:3].mean() > 4.5  # 200 classes, nothing known
        assert found[-10:].mean() < 0.6 * found[:3].mean() and found[-10:].mean() < 1.5
        assert session.last_evaluation is not None and session.last_evaluation.accuracy is not None
        assert session.last_evaluation.accuracy > 0.6
        assert session.experiment.task.state_dict() == {"output_kind": "probabilities"}

        model: Any = session.network
        samples = session.age
        # Every layer was watched; the last one's neurons trigger where they are the prediction.
        for layer in model.layers:
            assert layer.train_dataset_tracker.samples == samples
            assert 0.0 < float(layer.train_dataset_tracker.rates().max()) <= 1.0
        assert float(model.fc3.train_dataset_tracker.triggers.sum()) == samples
        session.experiment.display_stats()
        assert "fc3" in capsys.readouterr().out

        intermediary: dict[int, torch.Tensor] = {}
        model(torch.zeros(2, 3, 40, 40), intermediary=intermediary)
        assert {layer.get_module_id() for layer in (model.layer1, model.fc2)} <= set(intermediary)
        assert model.fc3.get_module_id() not in intermediary
        assert model.get_layer_by_id(model.layer2.get_module_id()) is model.layer2

        frozen = model.layer1.weight[2].detach().clone()
        other = model.layer1.weight[3].detach().clone()
        training.trainer.submit(EditNeurons(Freeze("layer1", (2,))))
        goal = session.step + 5
        tick_until(training, lambda: session.step >= goal)
        assert torch.equal(model.layer1.weight[2], frozen) and not torch.equal(model.layer1.weight[3], other)
    finally:
        training.close()


def test_softmax_log_softmax_and_logits_are_the_same_training(workshop: Path) -> None:
    random.seed(1)  # what somebody else draws does not matter
    found = {}
    for name, softmax in {
        "logits": "nn.Identity()", "log": "nn.LogSoftmax(dim=1)", "soft": "nn.Softmax(dim=1)",
    }.items():  # fmt: skip
        training = trained(workshop, name, softmax, 12)
        found[name] = losses(training)
        training.close()
    np.testing.assert_allclose(found["log"], found["logits"], rtol=1e-4)
    np.testing.assert_allclose(found["soft"], found["logits"], rtol=1e-3)
    assert len(set(found["logits"].tolist())) == 12
