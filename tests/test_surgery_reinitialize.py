from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from graybox.model_with_ops import DepType, NetworkWithOps
from graybox.modules_with_ops import BatchNorm2dWithNeuronOps, Conv2dWithNeuronOps, LinearWithNeuronOps, NeuronLayer
from graybox.neuron_ops import (
    Freeze,
    Reinitialize,
    SetLearningRate,
)
from graybox.randomness import seeded
from tests.small_networks import (
    ChainNet,
    ResidualNet,
    SequenceNet,
    bits,
    built,
    differences,
    everything,
    give_gradients,
    masked,
    one_thread,  # noqa: F401
    operated,
    random_state,
    train_step,
)
from tests.surgery_steps import ADAM, entries_changed, trained

# -- reinitialise ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zero_outgoing", [False, True])
def test_a_reinitialised_neuron_has_its_layers_own_initialisation_and_nothing_else_changes(zero_outgoing: bool) -> None:
    model, optimizer, wrapper, surgeon = trained()
    before = everything(model, optimizer, wrapper)
    surgeon.apply(surgeon.plan(Reinitialize("conv1", (3, 1), zero_outgoing=zero_outgoing)), seed=7)
    after = everything(model, optimizer, wrapper)

    with seeded(7):
        fresh = nn.Conv2d(2, 2, 3, padding=1)  # only what is wanted is drawn, from the same distribution
    for place, neuron in enumerate((3, 1)):
        assert torch.equal(model.conv1.weight[neuron], fresh.weight[place])
        assert torch.equal(model.conv1.bias[neuron], fresh.bias[place])
    for key, neutral in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
        assert getattr(model.bn1, key)[[1, 3]].tolist() == [neutral] * 2
    if zero_outgoing:
        assert float(model.conv2.weight.detach()[:, [1, 3]].abs().max()) == 0

    touched = {"conv1.weight": 0, "conv1.bias": 0, "bn1.weight": 0, "bn1.bias": 0}
    touched |= {"bn1.running_mean": 0, "bn1.running_var": 0} | ({"conv2.weight": 1} if zero_outgoing else {})
    found = differences(before, after)
    assert {name for name in found if name.startswith("model/")} == {f"model/{name}" for name in touched}
    statistics = {name for name in found if name.startswith(("layer/conv1/train/", "layer/conv1/eval/"))}
    assert {name for name in found if name.startswith("layer/")} == statistics
    assert not [name for name in found if name.startswith("random/")]
    moments = {
        f"optimizer/{name}/{key}" for name in touched if "running" not in name for key in ("exp_avg", "exp_avg_sq")
    }
    assert {name for name in found if name.startswith("optimizer/")} == moments
    for name in found:
        kind, _, path = name.partition("/")
        if kind in ("model", "optimizer"):
            axis = touched[path.split("/")[0]]
            assert {index[axis] for index in entries_changed(before[name], after[name])} <= {1, 3}, name
        if kind == "optimizer":
            assert float(after[name].index_select(axis, torch.tensor([1, 3])).abs().max()) == 0
    for tracker in (model.conv1.train_dataset_tracker, model.conv1.eval_dataset_tracker):
        assert [age == 0 for age in tracker.ages().tolist()] == [False, True, False, True]
        assert tracker.triggers[[1, 3]].tolist() == [0, 0]


def test_no_neuron_named_means_all_of_them() -> None:
    model, _, _, surgeon = trained()
    plan = surgeon.plan(Reinitialize("fc1"))
    assert plan.neurons == tuple(range(6))
    surgeon.apply(plan, seed=2)
    with seeded(2):
        fresh = nn.Linear(20, 6)
    assert torch.equal(model.fc1.weight, fresh.weight) and torch.equal(model.fc1.bias, fresh.bias)


def test_the_users_own_initialisation_is_used() -> None:
    model, _, _, surgeon = trained()
    model.fc1.register_initialization(lambda layer: nn.init.constant_(layer.weight, 0.125))
    surgeon.apply(surgeon.plan(Reinitialize("fc1", (2,))), seed=2)
    assert model.fc1.weight[2].tolist() == [0.125] * 20 and 0.125 not in model.fc1.weight[3].tolist()


def test_an_initialisation_that_raises_changes_nothing() -> None:
    model, optimizer, wrapper, surgeon = trained()

    def broken(layer: NeuronLayer) -> None:
        nn.init.zeros_(layer.weight)
        raise ValueError("not today")

    model.fc1.register_initialization(broken)
    before = everything(model, optimizer, wrapper)
    with pytest.raises(ValueError, match="not today"):
        surgeon.apply(surgeon.plan(Reinitialize("fc1", (2,))), seed=2)
    assert differences(before, everything(model, optimizer, wrapper)) == []


@pytest.mark.parametrize("ratio", [None, 0.3])
def test_the_seed_alone_decides_the_new_values(ratio: float | None) -> None:
    def edited(seed: int, noise: int) -> tuple[bytes, dict[str, Any], dict[str, Any]]:
        model, _, _, surgeon = trained()
        torch.manual_seed(noise)
        np.random.seed(noise)
        state = random_state()
        surgeon.apply(surgeon.plan(Reinitialize("conv1", (1,), perturbation_ratio=ratio)), seed=seed)
        return bits(model.conv1.weight), state, random_state()

    (one, *states), (same, *more), (other, *_) = edited(5, 1), edited(5, 2), edited(6, 1)
    assert one == same != other
    assert differences(*states) == [] and differences(*more) == []


@settings(max_examples=25, deadline=None)
@given(ratio=st.floats(1e-6, 1 - 1e-6), seed=st.integers(0, 2**63 - 1))
def test_a_perturbation_stays_within_its_ratio(ratio: float, seed: int) -> None:
    model = built(ChainNet, dtype=torch.float64)
    _, _, surgeon = operated(model, ADAM)
    conv: Any = model.find_layer("conv1")[1]
    weight, bias = conv.weight.detach().clone(), conv.bias.detach().clone()
    norm = {name: bits(value) for name, value in model.state_dict().items() if name.startswith("bn1")}
    surgeon.apply(surgeon.plan(Reinitialize("conv1", (1, 2), perturbation_ratio=ratio)), seed=seed)
    for old, new in ((weight, conv.weight.detach()), (bias, conv.bias.detach())):
        factor = new[[1, 2]] / old[[1, 2]]
        assert float((factor - 1).abs().max()) <= ratio * (1 + 1e-9) + 1e-15
        assert torch.equal(new[[0, 3]], old[[0, 3]])
    spread = (conv.weight.detach() / weight)[[1, 2]] - 1
    assert float(spread.abs().max()) > 0.5 * ratio and float(spread.min()) < 0 < float(spread.max())
    # What the neuron is about is kept, its normalisation included.
    assert norm == {name: bits(value) for name, value in model.state_dict().items() if name.startswith("bn1")}


class Grouped(NetworkWithOps):
    def __init__(self) -> None:
        super().__init__()
        self.one = Conv2dWithNeuronOps(2, 4, 1)
        self.two = Conv2dWithNeuronOps(4, 4, 1, groups=2)
        self.register_dependencies([(self.one, self.two, DepType.INCOMING)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.maybe_update_age(x)
        answer: torch.Tensor = self.two(F.relu(self.one(x))).mean((2, 3))
        return answer

    @staticmethod
    def example(batch: int = 7, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(batch, 2, 4, 4, dtype=dtype)


class Joined(Grouped):
    """Two branches side by side: a convolution's channels do not fit the next layer's one by one."""

    def __init__(self) -> None:
        NetworkWithOps.__init__(self)
        self.one, self.other = Conv2dWithNeuronOps(2, 4, 1), Conv2dWithNeuronOps(2, 4, 1)
        self.two = Conv2dWithNeuronOps(8, 4, 1)
        with pytest.warns(UserWarning, match="concatenation"):
            self.register_dependencies(
                [(self.one, self.two, DepType.INCOMING), (self.other, self.two, DepType.INCOMING)]
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.two(torch.cat([self.one(x), self.other(x)], 1)).mean((2, 3))
        return answer


class Viewed(Grouped):
    """A linear layer's features seen as an image: each channel holds several neurons."""

    def __init__(self) -> None:
        NetworkWithOps.__init__(self)
        self.one, self.two = LinearWithNeuronOps(3, 8), Conv2dWithNeuronOps(4, 4, 1)
        with pytest.warns(UserWarning, match="does not fit"):
            self.register_dependencies([(self.one, self.two, DepType.INCOMING)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.two(F.relu(self.one(x)).view(-1, 4, 2, 1)).mean((2, 3))
        return answer

    @staticmethod
    def example(batch: int = 7, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(batch, 3, dtype=dtype)


class Forked(ChainNet):
    """Two layers consume the same neurons, one of them flattened."""

    def __init__(self) -> None:
        NetworkWithOps.__init__(self)
        self.stem, self.branch = Conv2dWithNeuronOps(2, 4, 3, padding=1), Conv2dWithNeuronOps(4, 3, 1)
        self.head = LinearWithNeuronOps(4 * 16, 3)
        with pytest.warns(UserWarning, match="branch"):
            self.register_dependencies(
                [(self.stem, self.head, DepType.INCOMING), (self.stem, self.branch, DepType.INCOMING)]
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 2)
        answer: torch.Tensor = self.head(x.flatten(1)) + self.branch(x).mean((2, 3))
        return answer


def calibrated(kind: type[Any]) -> NetworkWithOps:
    """In float64 and evaluation mode, its running statistics from a few batches."""
    torch.manual_seed(11)
    model = built(kind, dtype=torch.float64)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(kind.example(16, torch.float64))
    return model.eval()


@pytest.mark.parametrize(
    ("kind", "layer", "neurons"),
    [
        (ChainNet, "conv1", (1, 3)),
        (ChainNet, "conv2", (0, 4)),  # flattened from 2 x 2 positions
        (ChainNet, "fc1", (0, 1, 2, 3, 4)),
        (Forked, "stem", (2,)),  # consumed twice, once flattened
        (ResidualNet, "conv1", (0, 5)),
        (SequenceNet, "embed", (1, 2)),
        (SequenceNet, "mix", (0, 4)),  # flattened position by position
    ],
)
def test_with_outgoing_zeroed_the_function_changes_by_the_removed_contribution(
    kind: type[Any], layer: str, neurons: tuple[int, ...]
) -> None:
    model = calibrated(kind)
    x = kind.example(32, torch.float64)
    target = model.find_layer(layer)[1]
    with torch.no_grad():
        whole = model(x)
        with masked(model, target, neurons):
            expected = model(x)
        _, _, surgeon = operated(model, ADAM)
        surgeon.apply(surgeon.plan(Reinitialize(layer, neurons, zero_outgoing=True)), seed=1)
        found = model(x)
    tolerance = 1e-9 * float(whole.abs().max())
    assert float((found - expected).abs().max()) <= tolerance
    assert float((whole - expected).abs().max()) >= 100 * tolerance


def test_zeroed_connections_learn_again_at_once() -> None:
    model, optimizer, _, surgeon = trained()
    surgeon.apply(surgeon.plan(Reinitialize("fc1", (2,), zero_outgoing=True)), seed=1)
    give_gradients(model, 4)
    optimizer.step()
    # Adam's first step is as long as the learning rate, for the new entries only.
    torch.testing.assert_close(model.fc2.weight[:, 2].abs(), torch.full((3,), 0.01), rtol=1e-4, atol=0)


def test_a_frozen_neuron_may_be_reinitialised_and_stays_frozen() -> None:
    model, optimizer, _, surgeon = trained()
    surgeon.apply(surgeon.plan(Freeze("conv1", (1,))), seed=1)
    surgeon.apply(surgeon.plan(Reinitialize("conv1", (1,))), seed=1)
    assert model.conv1.frozen[1]
    fresh = model.conv1.weight[1].detach().clone(), model.bn1.weight[1].detach().clone()
    for step in range(3):
        give_gradients(model, step)
        optimizer.step()
    assert torch.equal(model.conv1.weight[1], fresh[0]) and torch.equal(model.bn1.weight[1], fresh[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_edits_work_in_other_number_types(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = built(ChainNet, dtype=dtype)
    optimizer, _, surgeon = operated(model, ADAM)
    train_step(model, optimizer, ChainNet.example(4, dtype))
    before = copy.deepcopy(model.state_dict())
    for edit in (
        Reinitialize("conv1", (1,), perturbation_ratio=0.1),
        Reinitialize("conv1", (0,), zero_outgoing=True),
        SetLearningRate("conv1", (2,), rate=0.0),
        Freeze("conv1", (3,)),
    ):
        surgeon.apply(surgeon.plan(edit), seed=1)
    train_step(model, optimizer, ChainNet.example(4, dtype))
    conv: Any = model.find_layer("conv1")[1]
    changed = [bool((a != b).any()) for a, b in zip(before["conv1.weight"], conv.weight, strict=True)]
    assert changed == [True, True, False, False] and conv.weight.dtype is dtype


class WithoutAffine(NetworkWithOps):
    """A normalisation without gain and shift, one without running statistics, one number for all neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.one = Conv2dWithNeuronOps(2, 4, 1)
        self.bare = BatchNorm2dWithNeuronOps(4, affine=False)
        self.live = BatchNorm2dWithNeuronOps(4, track_running_stats=False)
        self.slope = nn.PReLU()
        self.two = LinearWithNeuronOps(4, 2)
        self.register_dependencies(
            [
                (self.one, self.bare, DepType.SAME), (self.bare, self.live, DepType.SAME),
                (self.live, self.slope, DepType.SAME), (self.slope, self.two, DepType.INCOMING),
            ]
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.maybe_update_age(x)
        answer: torch.Tensor = self.two(self.slope(self.live(self.bare(self.one(x)))).mean((2, 3)))
        return answer

    example = staticmethod(Grouped.example)


def test_normalisations_are_renewed_as_far_as_they_have_something_for_each_neuron() -> None:
    torch.manual_seed(0)
    model = WithoutAffine()
    optimizer, _, surgeon = operated(model, ADAM)
    for _ in range(3):
        train_step(model, optimizer, Grouped.example())
    surgeon.apply(surgeon.plan(Freeze("one", (0,))), seed=1)
    slope = model.slope.weight.detach().clone()
    surgeon.apply(surgeon.plan(Reinitialize("one", (3,), zero_outgoing=True)), seed=1)
    assert torch.equal(model.slope.weight, slope)
    assert (model.live.weight[3].item(), model.live.bias[3].item()) == (1, 0)
    assert model.bare.running_mean is not None and float(model.bare.running_mean[3]) == 0
    train_step(model, optimizer, Grouped.example())
    assert not torch.equal(model.slope.weight, slope)  # belongs to no neuron alone, so a freeze does not hold it
