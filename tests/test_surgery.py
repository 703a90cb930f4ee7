from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import nn, optim
from torch.nn import functional as F

from graybox.errors import GrayboxError, NotFound, Refused
from graybox.model_with_ops import DepType, NetworkWithOps
from graybox.modules_with_ops import BatchNorm2dWithNeuronOps, Conv2dWithNeuronOps, LinearWithNeuronOps, NeuronLayer
from graybox.neuron_ops import Freeze, NeuronEdit, Reinitialize, SetLearningRate, Unfreeze
from graybox.randomness import seeded
from graybox.surgery import Plan
from graybox.tracking import TrackingMode
from tests.small_networks import (
    ELEMENTWISE_OPTIMIZERS,
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

ADAM = ELEMENTWISE_OPTIMIZERS["Adam"]


def trained(kind: type[Any] = ChainNet, make: Callable[[Any], optim.Optimizer] = ADAM, steps: int = 3) -> Any:
    """(model, optimizer, wrapper, surgeon) after a few steps, with statistics."""
    torch.manual_seed(3)
    model = built(kind)
    optimizer, wrapper, surgeon = operated(model, make)
    for _ in range(steps):
        model.set_tracking_mode(TrackingMode.TRAIN)
        train_step(model, optimizer, kind.example(6))
    model.set_tracking_mode(TrackingMode.EVAL)
    model(kind.example(4))
    model.set_tracking_mode(TrackingMode.DISABLED)
    return model, optimizer, wrapper, surgeon


# -- flags -----------------------------------------------------------------------------------------------


def test_freezing_is_a_state() -> None:
    model, _, _, surgeon = trained()

    def do(edit: NeuronEdit) -> list[bool]:
        surgeon.apply(surgeon.plan(edit), seed=1)
        return list(model.conv1.frozen.tolist())

    assert do(Freeze("conv1", (1, 3))) == [False, True, False, True]
    assert do(Freeze("conv1", (3, 0))) == [True, True, False, True]
    assert do(Unfreeze("conv1", (1,))) == [True, False, False, True]
    assert do(Unfreeze("conv1", (1, 2))) == [True, False, False, True]
    assert do(Freeze("0")) == [True] * 4
    assert do(Unfreeze("conv1")) == [False] * 4


def test_a_learning_rate_outlives_a_freeze_and_takes_effect_at_the_next_step() -> None:
    model, optimizer, _, surgeon = trained()
    for edit in (SetLearningRate("fc1", (2,), rate=0.5), Freeze("fc1", (2, 4))):
        applied = surgeon.apply(surgeon.plan(edit), seed=1)
    assert applied.undo == {"frozen": [False, False], "learning_rate": [0.5, 1.0]}
    before = model.fc1.weight.detach().clone()
    give_gradients(model, 0)
    optimizer.step()
    changed = (model.fc1.weight != before).all(1).tolist()
    assert changed == [True, True, False, True, False, True]
    surgeon.apply(surgeon.plan(Unfreeze("fc1", (2,))), seed=1)
    assert model.fc1.get_per_neuron_learning_rate(2) == 0.5 and model.fc1.get_per_neuron_learning_rate(4) == 0


@pytest.mark.parametrize("edit", [Freeze("conv1", (1,)), SetLearningRate("conv1", (1,), rate=0.5)])
def test_an_edit_of_flags_touches_nothing_else(edit: NeuronEdit) -> None:
    model, optimizer, wrapper, surgeon = trained()
    before = everything(model, optimizer, wrapper)
    surgeon.apply(surgeon.plan(edit), seed=1)
    key = "frozen" if isinstance(edit, Freeze) else "learning_rate"
    assert differences(before, everything(model, optimizer, wrapper)) == [f"layer/conv1/{key}"]


# -- reinitialise ------------------------------------------------------------------------------------------


def entries_changed(before: torch.Tensor, after: torch.Tensor) -> set[tuple[int, ...]]:
    return {tuple(index) for index in (before != after).nonzero().tolist()}


@pytest.mark.parametrize("zero_outgoing", [False, True])
def test_a_reinitialised_neuron_has_its_layers_own_initialisation_and_nothing_else_changes(zero_outgoing: bool) -> None:
    model, optimizer, wrapper, surgeon = trained()
    before = everything(model, optimizer, wrapper)
    surgeon.apply(surgeon.plan(Reinitialize("conv1", (3, 1), zero_outgoing=zero_outgoing)), seed=7)
    after = everything(model, optimizer, wrapper)

    with seeded(7):
        fresh = nn.Conv2d(2, 4, 3, padding=1)
    for neuron in (3, 1):
        assert torch.equal(model.conv1.weight[neuron], fresh.weight[neuron])
        assert torch.equal(model.conv1.bias[neuron], fresh.bias[neuron])
    for key, neutral in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
        assert getattr(model.bn1, key)[[1, 3]].tolist() == [neutral] * 2
    if zero_outgoing:
        assert float(model.conv2.weight.detach()[:, [1, 3]].abs().max()) == 0

    touched = {"conv1.weight": 0, "conv1.bias": 0, "bn1.weight": 0, "bn1.bias": 0}
    touched |= {"bn1.running_mean": 0, "bn1.running_var": 0} | ({"conv2.weight": 1} if zero_outgoing else {})
    trackers = {f"layer/conv1/{split}/{key}" for split in ("train", "eval") for key in ("triggers", "reset_at")}
    found = differences(before, after)
    assert {name for name in found if name.startswith("model/")} == {f"model/{name}" for name in touched}
    assert {name for name in found if name.startswith("layer/")} == trackers
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


@pytest.mark.parametrize(
    ("kind", "make", "edit", "error", "message"),
    [
        (ChainNet, ADAM, Freeze("nowhere"), NotFound, r"no layer 'nowhere' in this network; it has 0 \(conv1\)"),
        (ChainNet, ADAM, Reinitialize("bn1"), NotFound, "no layer 'bn1'"),
        (ChainNet, ADAM, Freeze("conv1", (0, 4)), NotFound, "no neuron 4 in this layer: it has 4, numbered from 0"),
        (ChainNet, ADAM, Reinitialize("conv1", (-1,)), NotFound, "no neuron -1"),
        (ChainNet, ADAM, Reinitialize("fc2", (0,), zero_outgoing=True), Refused, "nothing is declared to consume"),
        (ChainNet, lambda p: optim.LBFGS(p), Reinitialize("conv1", (0,)), Refused, "^LBFGS couples"),
        (ChainNet, lambda p: optim.Adafactor(p), Reinitialize("conv1", (0,)), Refused, "^Adafactor couples"),
        (Grouped, ADAM, Reinitialize("one", (0,), zero_outgoing=True), Refused, "grouped convolution"),
        (Joined, ADAM, Reinitialize("one", (0,), zero_outgoing=True), Refused, "joined with those of other"),
        (ResidualNet, ADAM, Reinitialize("conv2", (0,), zero_outgoing=True), Refused, "joined with those of stem"),
        (ResidualNet, ADAM, Reinitialize("stem", (0,), zero_outgoing=True), Refused, "joined with those of conv2"),
        (Viewed, ADAM, Reinitialize("one", (0,), zero_outgoing=True), Refused, "4 inputs do not fit.*8 neurons"),
    ],
)
def test_a_refused_edit_changes_nothing_at_all(
    kind: type[Any], make: Any, edit: NeuronEdit, error: type[GrayboxError], message: str
) -> None:
    lbfgs = "LBFGS" in message
    model, optimizer, wrapper, surgeon = trained(kind, make, steps=0 if lbfgs else 3)
    before = everything(model, optimizer, wrapper)
    with pytest.raises(error, match=message):
        surgeon.apply(surgeon.plan(edit), seed=1)
    assert differences(before, everything(model, optimizer, wrapper)) == []


def test_what_is_refused_with_outgoing_zeroed_is_done_without() -> None:
    for kind in (Grouped, Joined, Viewed):
        model, _, _, surgeon = trained(kind)
        before = model.one.weight.detach().clone()
        surgeon.apply(surgeon.plan(Reinitialize("one", (0,))), seed=1)
        assert {index[0] for index in entries_changed(before, model.one.weight)} == {0}


@pytest.mark.parametrize("edit", [Freeze("conv2"), Reinitialize("conv2", (1,), zero_outgoing=True)])
def test_planning_changes_nothing(edit: NeuronEdit) -> None:
    model, optimizer, wrapper, surgeon = trained()
    before = everything(model, optimizer, wrapper)
    surgeon.plan(edit)
    assert differences(before, everything(model, optimizer, wrapper)) == []


def test_a_plan_names_exactly_what_will_change() -> None:
    model, _, _, surgeon = trained()
    plan: Plan = surgeon.plan(Reinitialize("conv2", (4, 1), zero_outgoing=True))
    assert plan.parameters_before == plan.parameters_after == model.get_parameter_count()
    assert plan.summary() == "Reinitialised neurons 1, 4 of conv2, outgoing connections zeroed"
    assert "fc1.weight, axis 1, 4-7, 16-19: zero" in str(plan)
    before = copy.deepcopy(model.state_dict())
    applied = surgeon.apply(plan, seed=1)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {touch.tensor for touch in plan.touches}
    for touch in plan.touches:
        indices = torch.tensor(touch.indices)
        old, new = before[touch.tensor], model.state_dict()[touch.tensor]
        assert {index[touch.axis] for index in entries_changed(old, new)} == set(touch.indices)
        # What undoes it is kept, bit for bit.
        kept = applied.arrays[f"{touch.tensor}@{touch.axis}"]
        assert torch.equal(torch.from_numpy(kept), old.index_select(touch.axis, indices))
        assert applied.undo["indices"][f"{touch.tensor}@{touch.axis}"] == list(touch.indices)


@pytest.mark.parametrize(
    ("edit", "summary"),
    [
        (Freeze("conv1", (1,)), "Froze neuron 1 of conv1"),
        (Unfreeze("0", (0, 1, 2)), "Unfroze neurons 0-2 of conv1"),
        (SetLearningRate("fc1", (0, 2, 3), rate=0.5), "Set the learning rate of neurons 0, 2-3 of fc1 to 0.5 times"),
    ],
)
def test_a_plan_reads_well(edit: NeuronEdit, summary: str) -> None:
    _, _, _, surgeon = trained(steps=0)
    assert surgeon.plan(edit).summary() == summary


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
        applied = surgeon.apply(surgeon.plan(edit), seed=1)
        values = [kept for name, kept in applied.arrays.items() if "@" in name and not name.endswith("#step")]
        assert all(kept.dtype == (np.float32 if dtype is torch.bfloat16 else np.float64) for kept in values)
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
    assert rise_when_ablated() > 0.02


@pytest.mark.parametrize("perturbation", [None, 0.2])
def test_what_is_kept_of_a_reinitialisation_is_enough_to_take_it_back(perturbation: float | None) -> None:
    model, optimizer, wrapper, surgeon = trained()
    # Some of the entries are young already: they were reinitialised before, and trained on a little.
    surgeon.apply(surgeon.plan(Reinitialize("conv1", (0, 2), zero_outgoing=True)), seed=5)
    model.set_tracking_mode(TrackingMode.TRAIN)
    for _ in range(3):
        train_step(model, optimizer, ChainNet.example(4))
    model.set_tracking_mode(TrackingMode.DISABLED)
    wrapper.load_state_dict(in_order(wrapper.state_dict()))
    before = everything(model, optimizer, wrapper)
    edit = Reinitialize("conv1", (1, 2), perturbation_ratio=perturbation, zero_outgoing=True)
    applied = surgeon.apply(surgeon.plan(edit), seed=6)
    assert differences(before, everything(model, optimizer, wrapper))

    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with torch.no_grad():
        for title, kept in applied.arrays.items():
            if "@" not in title:
                continue
            place, _, key = title.partition("#")
            name, axis = place.split("@")
            target = optimizer.state[tensors[name]][key] if key else tensors[name]
            target.index_copy_(int(axis), torch.tensor(applied.undo["indices"][place]), torch.from_numpy(kept))
    touched = {place.split("@")[0] for place in applied.undo["indices"]}
    young = [entry for entry in wrapper.state_dict() if entry["parameter"] not in touched]
    for number, entry in enumerate(applied.undo["young"]):
        kept_here = {k.split("/", 2)[2]: v for k, v in applied.arrays.items() if k.startswith(f"young/{number}/")}
        indices = torch.from_numpy(kept_here.pop("indices"))
        scalars = {key: torch.from_numpy(value) for key, value in kept_here.items()}
        young.append({**entry, "indices": indices, "scalars": scalars})
    wrapper.load_state_dict(in_order(young))
    conv: Any = model.find_layer("conv1")[1]
    for split, tracker in (("train", conv.train_dataset_tracker), ("eval", conv.eval_dataset_tracker)):
        state = tracker.state_dict()
        for key in ("triggers", "reset_at"):
            state[key][[1, 2]] = torch.from_numpy(applied.arrays[f"{split}/{key}"])
        tracker.load_state_dict(state)
    assert differences(before, everything(model, optimizer, wrapper)) == []


def in_order(young: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(young, key=lambda entry: (entry["parameter"], entry["axis"], entry["indices"].tolist()))
