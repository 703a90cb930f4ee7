"""A step is made whole or not at all, and makes what a plain loop makes."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from graybox.commands import DiscardSamples, Resume
from graybox.errors import GrayboxError, Invalid
from graybox.failing_samples import NonFiniteLoss, SampleLoadError, SampleStepError
from graybox.launch import launch
from graybox.randomness import mix, permutation, purpose, seed_everything
from graybox.task import StepResult, wanted_classes
from graybox.training_step import evaluation_mode, read_outcome, to_device
from tests.patience import PATIENCE
from tests.small_experiments import Augmented, DropNet, Opened, toy_data, toy_experiment, weights, whole_state
from tests.small_networks import differences

Make = Callable[..., Opened]


def test_a_watched_network_learns_what_a_plain_loop_learns(opened: Make) -> None:
    session = opened(scheduler=lambda o: optim.lr_scheduler.StepLR(o, 7, 0.5)).session
    for _ in range(20):
        session.train_one_step()

    plain = toy_experiment()
    model, data = plain.model, plain.datasets["train"].dataset
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    scheduler = optim.lr_scheduler.StepLR(optimizer, 7, 0.5)
    order = np.concatenate([permutation(7, epoch, 50) for epoch in range(4)])
    # The last two of an epoch are a batch of their own.
    sizes = [8, 8, 8, 8, 8, 8, 2] * 3
    start = 0
    for step, size in enumerate(sizes[:20]):
        rows = order[start : start + size]
        start += size
        seed_everything(mix(mix(7, purpose("step")), step))
        optimizer.zero_grad()
        F.cross_entropy(model(data.tensors[0][rows]), data.tensors[1][rows]).backward()
        optimizer.step()
        scheduler.step()
    assert differences(weights(session), {k: v.clone() for k, v in model.state_dict().items()}) == []
    assert session.age == start


class StepFails(optim.SGD):
    broken = False

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        if self.broken:
            raise RuntimeError("out of memory")
        return super().step(closure)


class Switch:
    """A criterion that fails, or answers what is no number, on demand."""

    def __init__(self) -> None:
        self.mode = ""

    def __call__(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if self.mode == "raise":
            raise ZeroDivisionError("in the loss")
        losses = F.cross_entropy(outputs, target, reduction="none")
        if self.mode in ("nan", "inf"):
            losses = losses.clone()
            losses[2] = float(self.mode)
        return losses


def break_in_forward(session: Any, criterion: Switch, broken: Path) -> Callable[[], None]:
    session.network.failure = RuntimeError("in forward")
    return lambda: setattr(session.network, "failure", None)


def break_in_loss(mode: str) -> Callable[..., Callable[[], None]]:
    def do(session: Any, criterion: Switch, broken: Path) -> Callable[[], None]:
        criterion.mode = mode
        return lambda: setattr(criterion, "mode", "")

    return do


def break_sample(session: Any, criterion: Switch, broken: Path) -> Callable[[], None]:
    broken.write_text(" ".join(map(str, range(24))))
    session.stream.rewind()  # what a worker has loaded already is well
    return lambda: broken.write_text("") and None  # type: ignore[func-returns-value]


def break_optimizer(session: Any, criterion: Switch, broken: Path) -> Callable[[], None]:
    session.experiment.optimizer.broken = True
    return lambda: setattr(session.experiment.optimizer, "broken", False)


def break_batch(session: Any, criterion: Switch, broken: Path) -> Callable[[], None]:
    task = session.experiment.task
    task.split_batch = lambda batch: (_ for _ in ()).throw(Invalid("a batch is a pair"))
    return lambda: task.__dict__.pop("split_batch") and None


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("break_it", "kind"),
    [
        (break_in_forward, RuntimeError), (break_in_loss("raise"), ZeroDivisionError),
        (break_in_loss("nan"), NonFiniteLoss), (break_in_loss("inf"), NonFiniteLoss),
        (break_sample, SampleLoadError), (break_optimizer, RuntimeError), (break_batch, SampleStepError),
    ],
)  # fmt: skip
def test_a_failed_step_leaves_everything_bit_for_bit(
    opened: Make, tmp_path: Path, break_it: Any, kind: type[Exception], workers: int
) -> None:
    broken, criterion = tmp_path / "broken", Switch()

    def make(broken: Path) -> Any:
        return opened(
            optimizer_class=StepFails, optimizer_options={"momentum": 0.9}, criterion=criterion, workers=workers,
            train_dataset=Augmented(24, broken),
        ).session  # fmt: skip

    # Each its own file: a worker loads ahead, so that the undisturbed one would meet the other's broken sample.
    session, undisturbed = make(broken), make(tmp_path / "never")
    for each in (session, undisturbed):
        for _ in range(4):
            each.train_one_step()
    before = whole_state(session)
    buffer = session.network.replaced
    mend = break_it(session, criterion, broken)
    for _ in range(2):
        with pytest.raises(kind):
            session.train_one_step()
    mend()
    assert differences(before, whole_state(session)) == []
    assert session.network.replaced is buffer
    for each in (session, undisturbed):
        for _ in range(4):
            each.train_one_step()
    assert differences(whole_state(undisturbed), whole_state(session)) == []


def test_a_loss_that_is_no_number_names_its_samples(opened: Make) -> None:
    criterion = Switch()
    session = opened(criterion=criterion, train_shuffle=False).session
    session.train_one_step()
    criterion.mode = "nan"
    with pytest.raises(NonFiniteLoss, match=r"the loss is nan \(from training sample 10\); the weights were not"):
        session.train_one_step()
    assert isinstance(NonFiniteLoss("x"), GrayboxError)


def test_a_one_cycle_schedule_that_is_through_does_not_fail_training(opened: Make) -> None:
    session = opened(scheduler=lambda o: optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=5)).session
    rates = []
    for _ in range(8):
        rates.append(session.experiment.optimizer.param_groups[0]["lr"])
        session.train_one_step()
    assert max(rates) > 0.05 and rates[4] == rates[7] < 1e-4


def test_a_scheduler_that_raises_is_heard_and_the_step_was_made_whole(opened: Make) -> None:
    table = [1.0, 1.0, 1.0]
    session = opened(scheduler=lambda o: optim.lr_scheduler.LambdaLR(o, lambda step: table[step])).session
    session.train_one_step()
    session.train_one_step()
    with pytest.raises(IndexError):
        session.train_one_step()
    assert (session.step, session.age, session.steps_left) == (3, 24, 997)
    assert int(session.stores.samples.state()["train/encounters"].sum()) == 24
    assert session.network.conv.train_dataset_tracker.samples == 24


def test_a_failed_step_pauses_training_and_the_trainer_lives_on(root: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    training = launch(toy_experiment(train_dataset=Augmented(24, broken)), root_directory=root)
    try:
        trainer = training.trainer
        trainer.tick()
        broken.write_text("3")
        for _ in range(6):
            trainer.tick()
        shown = trainer.latest()
        assert "training sample 3 failed to load: OSError: file 3.png is truncated" in shown.error
        assert "in __getitem__" in shown.traceback
        step = shown.step
        done = [trainer.submit(DiscardSamples((("train", "3"),))), trainer.submit(Resume())]
        for _ in range(6):
            trainer.tick()
        assert [future.exception(PATIENCE) for future in done] == [None, None]
        assert trainer.latest().error == "" and trainer.latest().step > step
    finally:
        training.close()


def test_evaluation_mode_gives_every_module_its_own_mode_back() -> None:
    model = DropNet()
    model.norm.eval()
    with pytest.raises(KeyError), evaluation_mode(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
        raise KeyError
    assert [name for name, module in model.named_modules() if not module.training] == ["norm"]
    assert torch.is_grad_enabled()


Pair = namedtuple("Pair", "x y")  # as users write it


def test_nested_batches_move_as_they_are() -> None:
    batch = {"a": [torch.ones(1), "text"], "b": Pair(torch.ones(2), (torch.ones(3), 4))}
    moved = to_device(batch, torch.device("meta"))
    assert moved["a"][0].device.type == "meta" and moved["a"][1] == "text"
    assert isinstance(moved["b"], Pair) and moved["b"].y[0].device.type == "meta" and moved["b"].y[1] == 4


def test_soft_targets_count_as_their_largest_class(opened: Make) -> None:
    labels = toy_data().tensors[1]
    soft = F.one_hot(labels, 3).float() * 0.8 + 0.2 / 3
    data = TensorDataset(toy_data().tensors[0], soft)
    session = opened(train_dataset=data, eval_dataset=None, criterion=torch.nn.CrossEntropyLoss()).session
    outcome = session.train_one_step()
    assert outcome.predictions is not None
    assert outcome.correct == int((outcome.predictions == labels.numpy()[outcome.rows]).sum())
    assert np.isfinite(outcome.losses).all()


def test_targets_that_cannot_be_compared_count_no_correct_ones() -> None:
    predictions = torch.tensor([1, 2])
    result = StepResult(torch.tensor(0.5), torch.tensor([0.25, 0.75]), predictions, 3)
    for target in ({"boxes": 1}, torch.zeros(5), None):
        assert wanted_classes(target, len(predictions)) is None
        outcome = read_outcome(result, target, np.array([4, 5]))
        assert (outcome.correct, outcome.accuracy, outcome.loss) == (None, None, 0.5)
        assert outcome.predictions is not None and outcome.predictions.tolist() == [1, 2]
        assert outcome.losses.tolist() == [0.25, 0.75]
    known = read_outcome(result, torch.tensor([1, 0]), np.array([4, 5]))
    assert (known.correct, known.accuracy) == (1, 0.5)


def test_training_does_not_depend_on_how_the_users_loop_draws(opened: Make) -> None:
    one, other = opened().session, opened().session
    for _ in range(5):
        one.train_one_step()
        other.train_one_step()
        torch.rand(7)
        np.random.rand(3)
        list(DataLoader(toy_data(4)))
    assert differences(whole_state(one), whole_state(other)) == []
