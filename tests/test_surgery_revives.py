"""A dead neuron comes back when it is reinitialised."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from graybox.model_with_ops import DepType, NetworkWithOps
from graybox.modules_with_ops import BatchNorm2dWithNeuronOps, Conv2dWithNeuronOps, LinearWithNeuronOps
from graybox.neuron_ops import (
    Reinitialize,
)
from graybox.tracking import TrackingMode
from tests.small_networks import (
    ELEMENTWISE_OPTIMIZERS,
    masked,
    one_thread,  # noqa: F401
    operated,
)

# -- a dead neuron comes back ---------------------------------------------------------------------------------


class DigitsNet(NetworkWithOps):
    """So narrow that every neuron is needed; with normalisation or plain."""

    def __init__(self, normalised: bool) -> None:
        super().__init__()
        self.conv1 = Conv2dWithNeuronOps(1, 2, 3, padding=1)
        self.conv2 = Conv2dWithNeuronOps(2, 3, 3, padding=1)
        self.bn1 = BatchNorm2dWithNeuronOps(2) if normalised else nn.Identity()
        self.bn2 = BatchNorm2dWithNeuronOps(3) if normalised else nn.Identity()
        self.head = LinearWithNeuronOps(3 * 4 * 4, 10)
        self.register_dependencies(
            [
                (self.conv1, self.bn1, DepType.SAME), (self.bn1, self.conv2, DepType.INCOMING),
                (self.conv2, self.bn2, DepType.SAME), (self.bn2, self.head, DepType.INCOMING),
            ]
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.maybe_update_age(x)
        x = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        answer: torch.Tensor = self.head(F.max_pool2d(x, 2).flatten(1))
        return answer


@pytest.mark.parametrize("zero_outgoing", [False, True])
@pytest.mark.parametrize("name", ["Adam", "SGD nesterov"])
# Without normalisation a neuron's own initialisation may itself be dead on what it gets, so the seeds are chosen.
@pytest.mark.parametrize(
    ("layer", "normalised", "seed"),
    [("conv1", True, 1), ("conv2", True, 1), ("conv1", False, 3), ("conv2", False, 1)],
)
def test_a_dead_neuron_comes_back(layer: str, normalised: bool, seed: int, name: str, zero_outgoing: bool) -> None:
    digits = load_digits()
    images, target = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
    torch.manual_seed(seed)
    model = DigitsNet(normalised)
    optimizer, _, surgeon = operated(model, ELEMENTWISE_OPTIMIZERS[name])
    neuron, conv = 1, model.find_layer(layer)[1]

    def train(steps: int) -> None:
        model.set_tracking_mode(TrackingMode.TRAIN)
        for _ in range(steps):
            rows = torch.randint(0, len(images), (64,))
            optimizer.zero_grad()
            F.cross_entropy(model(images[rows]), target[rows]).backward()
            optimizer.step()
        model.set_tracking_mode(TrackingMode.DISABLED)

    def rise_when_ablated() -> float:
        with torch.no_grad():
            whole = F.cross_entropy(model(images), target)
            with masked(model, conv, (neuron,)):
                return float(F.cross_entropy(model(images), target) - whole)

    train(30)
    with torch.no_grad():
        model.neuron_parameters(conv)[-1][neuron] = -100.0  # the last bias before the ReLU
    conv.reset_stats()
    train(20)
    assert conv.train_dataset_tracker.get_neuron_stats(neuron) == 0 and rise_when_ablated() == 0
    surgeon.apply(surgeon.plan(Reinitialize(layer, (neuron,), zero_outgoing=zero_outgoing)), seed=seed)
    train(100)
    assert conv.train_dataset_tracker.get_neuron_age(neuron) == 6400
    assert conv.train_dataset_tracker.get_neuron_stats(neuron) > 0.02
    assert rise_when_ablated() > 0.005
