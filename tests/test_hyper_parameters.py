"""Hyper-parameters: every value checked, all changes or none, a learning rate that scales whatever follows it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import optim
from torch.optim import lr_scheduler

from graybox.commands import SetHyperParameters, Undo
from graybox.errors import Invalid
from graybox.hyper_parameters import SETTINGS, apply_changes, check_changes, describe_all, set_learning_rate
from graybox.launch import launch
from graybox.session import Session
from tests.patience import PATIENCE
from tests.small_experiments import Opened, toy_experiment, whole_state
from tests.small_networks import differences

INTEGERS = ["batch_size", "training_steps_to_do", "full_eval_frequency", "checkpoint_frequency"]
NUMBERS = [*INTEGERS, "learning_rate"]


@pytest.fixture
def session(root: Path) -> Iterator[Session]:
    opened = Opened(root, toy_experiment())
    yield opened.session
    opened.close()


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "value",
    [
        math.nan, math.inf, -math.inf, True, False, "7", "", None, [1], {}, -1, -0.5, 10**400, 1e300, 2**31 + 0.5, 1j,
        np.float32("nan"), np.bool_(True),
    ],
)  # fmt: skip
def test_what_is_no_number_in_range_is_refused(name: str, value: Any) -> None:
    with pytest.raises(Invalid, match=rf"^{name} is a (whole )?number (above|of at least) \d and at most [\d,]+, not "):
        check_changes({name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0), ("learning_rate", 0.0), ("batch_size", 0), ("batch_size", 1_000_001), ("batch_size", 1.5),
        ("training_steps_to_do", 2**31), ("full_eval_frequency", 2**31), ("checkpoint_frequency", 0.1),
    ],
)  # fmt: skip
def test_the_bounds_themselves(name: str, value: Any) -> None:
    with pytest.raises(Invalid, match=name):
        check_changes({name: value})


@pytest.mark.parametrize("value", ["", "   ", "\n", "x" * 201, 5, None, b"name", ["a"]])
def test_a_name_is_a_text(value: Any) -> None:
    with pytest.raises(Invalid, match="experiment_name is a text of 1 to 200 characters"):
        check_changes({"experiment_name": value})


@given(st.sampled_from(INTEGERS), st.integers(1, 1_000_000), st.sampled_from([int, float, np.int64, np.float64]))
def test_whole_numbers_are_taken_in_every_shape(name: str, value: int, kind: Any) -> None:
    checked = check_changes({name: kind(value)})
    assert checked == {name: value} and type(checked[name]) is int


@given(st.floats(0, 1e6, exclude_min=True, allow_subnormal=False))
def test_learning_rates_are_taken_as_they_are(value: float) -> None:
    assert check_changes({"learning_rate": value}) == {"learning_rate": value}
    assert type(check_changes({"learning_rate": 1})["learning_rate"]) is float


def test_a_name_loses_the_blanks_around_it() -> None:
    assert check_changes({"experiment_name": "  my run "}) == {"experiment_name": "my run"}


def test_unknown_and_no_changes_are_refused() -> None:
    with pytest.raises(Invalid, match="unknown hyper-parameter 'momentum'; there are experiment_name, learning_rate"):
        check_changes({"batch_size": 4, "momentum": 0.9})
    with pytest.raises(Invalid, match="no hyper-parameter"):
        check_changes({})


def test_all_or_nothing_through_the_trainer(root: Path) -> None:
    training = launch(toy_experiment(), root_directory=root)
    try:
        trainer = training.trainer
        trainer.tick()
        before = whole_state(trainer.session)
        refused = trainer.submit(SetHyperParameters({"batch_size": 5, "learning_rate": math.nan}))
        trainer._apply_waiting()
        with pytest.raises(Invalid, match="learning_rate"):
            refused.result(PATIENCE)
        assert differences(before, whole_state(trainer.session)) == []
        assert training.stores.journal.last_sequence == 0
        wanted = {"experiment_name": "b", "learning_rate": 0.5, "batch_size": 5, "training_steps_to_do": 9,
                  "full_eval_frequency": 3, "checkpoint_frequency": 4}  # fmt: skip
        done = trainer.submit(SetHyperParameters(wanted))
        trainer._apply_waiting()
        done.result(PATIENCE)
        described = {setting.name: setting.value for setting in describe_all(trainer.session)}
        assert {name: described[name] for name in SETTINGS} == wanted
        assert training.stores.journal.entries()[-1].undo["changes"]["batch_size"] == 8
    finally:
        training.close()


def test_what_is_described_can_be_set_again(session: Session) -> None:
    described = {setting.name: setting.value for setting in describe_all(session)}
    assert list(described) == [*SETTINGS, *session.live_settings]
    before = whole_state(session)
    apply_changes(session, check_changes(described, session))
    assert differences(before, whole_state(session)) == []


def test_a_learning_rate_change_keeps_the_optimizers_state(session: Session) -> None:
    for _ in range(3):
        session.train_one_step()
    before = whole_state(session)
    set_learning_rate(session, 0.5)
    changed = differences(before, whole_state(session))
    assert sorted(changed) == ["groups", "learning_rate"]


def test_groups_keep_their_ratio_and_the_first_gets_the_value_itself(root: Path) -> None:
    class Grouped(optim.SGD):
        def __init__(self, parameters: Any, lr: float) -> None:
            first, *others = parameters
            super().__init__([{"params": [first]}, {"params": others, "lr": lr * 3}], lr=lr)

    opened = Opened(root, toy_experiment(optimizer_class=Grouped, learning_rate=0.1))
    try:
        set_learning_rate(opened.session, 0.7)
        first, other = (group["lr"] for group in opened.session.experiment.optimizer.param_groups)
        assert first == 0.7 and other == pytest.approx(2.1, rel=1e-15)
    finally:
        opened.close()


SCHEDULERS: dict[str, Any] = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 4, 0.5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [3, 8], 0.1),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 12),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=30),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=4),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.5, 3), lr_scheduler.LambdaLR(o, lambda step: 0.9**step)], [7]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.ExponentialLR(o, 0.9)]),
}


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_a_schedule_goes_on_scaled(root: Path, name: str) -> None:
    """Oracle: the same schedule left alone, times how much the change scaled it."""

    def rates(factor: float) -> list[float]:
        opened = Opened(
            root,
            toy_experiment(
                optimizer_class=optim.SGD, optimizer_options={"momentum": 0.9}, scheduler=SCHEDULERS[name],
                learning_rate=0.1,
            ),
        )  # fmt: skip
        experiment, found = opened.session.experiment, []
        try:
            for step in range(20):
                if step == 5:
                    now = float(experiment.optimizer.param_groups[0]["lr"])
                    set_learning_rate(opened.session, now * factor)
                opened.session.train_one_step()
                found.append(float(experiment.optimizer.param_groups[0]["lr"]))
        finally:
            opened.close()
        return found

    alone, scaled = rates(1.0), rates(3.0)
    assert len(set(alone)) >= 3
    assert scaled == pytest.approx([rate * (1.0 if step < 5 else 3.0) for step, rate in enumerate(alone)], rel=1e-9)


def test_a_schedule_that_stands_at_zero_starts_from_the_value(root: Path) -> None:
    def warm_up(optimizer: optim.Optimizer) -> lr_scheduler.LRScheduler:
        return lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 10))

    opened = Opened(root, toy_experiment(scheduler=warm_up, learning_rate=0.1))
    try:
        groups = opened.session.experiment.optimizer.param_groups
        assert groups[0]["lr"] == 0.0
        set_learning_rate(opened.session, 0.5)
        opened.session.train_one_step()
        assert groups[0]["lr"] == pytest.approx(0.05)
    finally:
        opened.close()


def test_another_batch_size_counts_from_the_next_step(session: Session) -> None:
    session.train_one_step()
    apply_changes(session, {"batch_size": 3})
    assert len(session.train_one_step().rows) == 3


SCHEDULES = {
    "warm-up from 0": lambda o: lr_scheduler.LambdaLR(o, lambda step: min(step / 5, 1.0)),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 20, eta_min=0.0),
    "none": None,
}


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("name", SCHEDULES)
def test_an_undone_learning_rate_goes_on_as_if_it_had_never_been_changed(root: Path, name: str, steps: int) -> None:
    changed, plain = (
        launch(toy_experiment(scheduler=SCHEDULES[name]), root_directory=root / each) for each in ("a", "b")
    )
    try:
        trainer = changed.trainer
        set_rate = trainer.submit(SetHyperParameters({"learning_rate": 0.5}))
        trainer._apply_waiting()
        set_rate.result(PATIENCE)
        for training in (changed, plain):
            for _ in range(steps):
                training.trainer.tick()
        undone = trainer.submit(Undo())
        trainer._apply_waiting()
        undone.result(PATIENCE)
        found, wanted = (t.trainer.session for t in (changed, plain))
        rates = [session.experiment.optimizer.param_groups[0]["lr"] for session in (found, wanted)]
        assert rates[0] == pytest.approx(rates[1], rel=1e-12) and found.learning_rate == wanted.learning_rate
        if not steps:
            assert differences(whole_state(found), whole_state(wanted)) == []
        for training in (changed, plain):
            for _ in range(5):
                training.trainer.tick()
        rates = [session.experiment.optimizer.param_groups[0]["lr"] for session in (found, wanted)]
        assert rates[0] == pytest.approx(rates[1], rel=1e-9) and rates[0] > 0
    finally:
        changed.close()
        plain.close()
