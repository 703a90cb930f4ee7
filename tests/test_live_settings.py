"""Every hyper-parameter of an experiment, changed while it trains: as one that was built so, undone, replayed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler

from graybox.commands import Pause, RestoreCheckpoint, SaveCheckpoint, SetHyperParameters, Undo
from graybox.errors import Invalid, Refused
from graybox.experiment import Experiment
from graybox.hyper_parameters import describe_all
from graybox.launch import Training, launch
from graybox.live_settings import live_settings
from graybox.session import Session
from graybox.snapshot import TrainerState
from graybox.tunable import Tunable
from tests.small_experiments import Augmented, Opened, crash, tick_until, toy_data, toy_experiment, whole_state
from tests.small_networks import differences
from tests.test_sample_interventions import apply

Make = Callable[[], Experiment]


def steps(session: Session, count: int) -> None:
    for _ in range(count):
        session.train_one_step()


def change(session: Session, **changes: Any) -> None:
    from graybox.hyper_parameters import apply_changes, check_changes

    apply_changes(session, check_changes({k.replace("__", "."): v for k, v in changes.items()}, session))


BUILT: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # name: (what it is built with, what is changed, what the experiment that had it from the start is built with)
    "weight decay": (
        {"optimizer_class": optim.AdamW, "optimizer_options": {"weight_decay": 0.5}}, {"optimizer__weight_decay": 0.01},
        {"optimizer_class": optim.AdamW, "optimizer_options": {"weight_decay": 0.01}},
    ),
    "betas": (
        {}, {"optimizer__betas__0": 0.5, "optimizer__betas__1": 0.9},
        {"optimizer_options": {"betas": (0.5, 0.9)}},
    ),
    "momentum": (
        {"optimizer_class": optim.SGD}, {"optimizer__momentum": 0.9, "optimizer__nesterov": True},
        {"optimizer_class": optim.SGD, "optimizer_options": {"momentum": 0.9, "nesterov": True}},
    ),
    "label smoothing": (
        {}, {"loss__label_smoothing": 0.2}, {"criterion": nn.CrossEntropyLoss(label_smoothing=0.2)},
    ),
    "class weights": (
        {}, {"loss__class_weights": "0=3, 2=0.5"},
        {"criterion": nn.CrossEntropyLoss(weight=torch.tensor([3.0, 1.0, 0.5]))},
    ),
    "of a criterion": (
        {"criterion": nn.CrossEntropyLoss}, {"loss__class_weights": "1=2", "loss__label_smoothing": 0.1},
        {"criterion": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 1.0]), label_smoothing=0.1)},
    ),
    "gamma": (
        {"scheduler": lambda o: lr_scheduler.StepLR(o, 2, 0.5)},
        {"scheduler__gamma": 0.9, "scheduler__step_size": 3},
        {"scheduler": lambda o: lr_scheduler.StepLR(o, 3, 0.9)},
    ),
    "no schedule": ({"scheduler": lambda o: lr_scheduler.ExponentialLR(o, 0.5)}, {"scheduler__runs": False}, {}),
}  # fmt: skip


@pytest.mark.parametrize("what", BUILT)
def test_a_change_at_the_start_is_as_if_it_was_built_so(root: Path, what: str) -> None:
    before, changes, built = BUILT[what]
    before = {name: value() if value is nn.CrossEntropyLoss else value for name, value in before.items()}
    one = Opened(root / "a", toy_experiment(**before))
    other = Opened(root / "b", toy_experiment(**built))
    plain = Opened(root / "c", toy_experiment(**{**before, **({"criterion": None} if "criterion" in before else {})}))
    change(one.session, **changes)
    for opened in (one, other, plain):
        steps(opened.session, 8)
    weights = [opened.session.network.state_dict() for opened in (one, other, plain)]
    assert all(torch.allclose(weights[0][name], weights[1][name], rtol=1e-4, atol=1e-6) for name in weights[0])
    assert not all(torch.allclose(weights[0][name], weights[2][name], rtol=1e-3) for name in weights[0])
    losses = [opened.stores.samples.splits["train"].loss for opened in (one, other)]
    assert torch.allclose(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=1e-3, equal_nan=True)
    for opened in (one, other, plain):
        opened.close()


def test_dropout_is_as_if_it_was_built_so(root: Path) -> None:
    one, other = Opened(root / "a", toy_experiment()), Opened(root / "b", toy_experiment())
    change(one.session, dropout__drop=0.1)
    other.session.network.get_submodule("drop").p = 0.1  # type: ignore[assignment]
    for opened in (one, other):
        steps(opened.session, 4)
    assert differences(one.session.network.state_dict(), other.session.network.state_dict()) == []
    for opened in (one, other):
        opened.close()


@pytest.fixture
def make() -> Make:
    def build() -> Experiment:
        return toy_experiment(
            train_dataset=Augmented(40),
            optimizer_options={"weight_decay": 0.1},
            scheduler=lambda o: lr_scheduler.CosineAnnealingLR(o, 50),
            hyper_parameters=[
                Tunable("alpha", 0.5, minimum=0.0, maximum=1.0), Tunable("sort", "up", choices=("up", "down")),
                Tunable("beams", 3, minimum=1), Tunable("greedy", True),
            ],
            training_steps_to_do=10_000,
        )  # fmt: skip

    return build


@pytest.fixture
def start(root: Path, make: Make) -> Iterator[Callable[[], Training]]:
    open_now: list[Training] = []

    def begin() -> Training:
        open_now.append(launch(make(), root_directory=root))
        return open_now[-1]

    yield begin
    for training in open_now:
        training.trainer.end()
        training.close()


CHANGES: list[dict[str, Any]] = [
    {"optimizer.weight_decay": 0.3},
    {"optimizer.betas.0": 0.5},
    {"scheduler.T_max": 30, "scheduler.eta_min": 0.001},
    {"scheduler.runs": False},
    {"loss.label_smoothing": 0.3},
    {"loss.class_weights": "1=4"},
    {"dropout.drop": 0.25},
    {"workers": 1},
    {"alpha": 0.25, "sort": "down", "beams": 5, "greedy": False},
    {"learning_rate": 0.02, "batch_size": 5, "optimizer.eps": 1e-6},
]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: ",".join(changes))
def test_a_change_is_undone_bit_for_bit(start: Callable[[], Training], changes: dict[str, Any]) -> None:
    training = start()
    session = training.trainer.session
    tick_until(training, lambda: session.step == 3)
    before, identity = whole_state(session), session.experiment_hash()
    done = apply(training, SetHyperParameters(changes))
    assert differences(before, whole_state(session))
    shown = {setting.name: setting.value for setting in describe_all(session)}
    assert changes == {name: shown[name] for name in changes} and session.experiment_hash() != identity
    apply(training, Undo(done.sequence))
    assert differences(before, whole_state(session)) == [] and session.experiment_hash() == identity


def test_changes_are_replayed_and_kept_by_checkpoints(start: Callable[[], Training]) -> None:
    training = start()
    for changes in CHANGES[:5]:
        apply(training, SetHyperParameters(changes))
        training.trainer.tick()
    kept = apply(training, SaveCheckpoint("here")).value
    at_checkpoint = whole_state(training.trainer.session)
    for changes in CHANGES[5:]:
        apply(training, SetHyperParameters(changes))
        training.trainer.tick()
    apply(training, Undo())
    apply(training, Pause())
    there = whole_state(training.trainer.session)
    identity = training.trainer.session.experiment_hash()
    crash(training)
    again = start()
    tick_until(again, lambda: again.trainer.latest().state is TrainerState.PAUSED)
    assert differences(there, whole_state(again.trainer.session)) == []
    assert again.trainer.session.experiment_hash() == identity
    apply(again, RestoreCheckpoint(kept.id))
    assert differences(at_checkpoint, whole_state(again.trainer.session)) == []


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"optimizer.betas.0": 1.5}, Invalid, r"optimizer\.betas\.0 cannot be 1\.5: Adam says: Invalid beta"),
        ({"optimizer.weight_decay": -1}, Invalid, "Adam says: Invalid weight_decay"),
        ({"optimizer.weight_decay": "much"}, Invalid, "optimizer.weight_decay is a number, not 'much'"),
        ({"scheduler.T_max": 0}, Invalid, "scheduler.T_max is a whole number of at least 1"),
        ({"scheduler.runs": 2}, Invalid, "true or false, not 2"),
        ({"loss.label_smoothing": 1.5}, Invalid, "at least 0 and at most 1"),
        ({"loss.class_weights": "9=2"}, Invalid, "there is no class '9'"),
        ({"dropout.drop": -0.1}, Invalid, "dropout.drop is a number of at least 0"),
        ({"workers": 5_000}, Invalid, "at most 1,024"),
        ({"alpha": 1.1}, Invalid, "alpha is a number of at least 0 and at most 1, not 1.1"),
        ({"sort": "sideways"}, Invalid, "sort is one of up, down, not 'sideways'"),
        ({"beams": 2.5}, Invalid, "whole number"),
        ({"greedy": "yes"}, Invalid, "greedy is true or false"),
        ({"alpha": 0.1, "gamma": 1}, Invalid, "unknown hyper-parameter 'gamma'; there are .*optimizer.betas.0.*alpha"),
    ],
)
def test_what_does_not_fit_changes_nothing(
    start: Callable[[], Training], changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    training = start()
    tick_until(training, lambda: training.trainer.session.step == 2)
    before = whole_state(training.trainer.session)
    with pytest.raises(error, match=message):
        apply(training, SetHyperParameters(changes))
    assert differences(before, whole_state(training.trainer.session)) == []


def test_options_that_the_state_cannot_follow_are_refused(root: Path) -> None:
    opened = Opened(root, toy_experiment(optimizer_class=optim.RMSprop))
    steps(opened.session, 2)
    with pytest.raises(Invalid, match="RMSprop says: it lacks 'momentum_buffer'"):
        change(opened.session, optimizer__momentum=0.9)
    opened.close()
    sgd = Opened(root / "sgd", toy_experiment(optimizer_class=optim.SGD))
    with pytest.raises(Invalid, match="SGD says: Nesterov momentum requires"):
        change(sgd.session, optimizer__nesterov=True)
    sgd.close()


def test_what_the_schedule_sets_is_refused(root: Path) -> None:
    opened = Opened(root, toy_experiment(scheduler=lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=100)))
    steps(opened.session, 1)
    with pytest.raises(Refused, match=r"optimizer\.betas\.0 is set by the schedule"):
        change(opened.session, optimizer__betas__0=0.5)
    change(opened.session, optimizer__betas__1=0.99)
    steps(opened.session, 1)
    opened.close()


def test_groups_of_parameters_that_differ_have_settings_of_their_own(root: Path) -> None:
    def groups(parameters: Any, **options: Any) -> optim.Optimizer:
        found = list(parameters)
        return optim.AdamW([{"params": found[:3]}, {"params": found[3:], "weight_decay": 0.0}], **options)

    opened = Opened(root, toy_experiment(optimizer_class=groups, optimizer_options={"weight_decay": 0.2}))
    settings = opened.session.live_settings
    assert {"optimizer.weight_decay", "optimizer.group1.weight_decay", "optimizer.eps"} <= settings.keys()
    assert "optimizer.group1.eps" not in settings
    change(opened.session, optimizer__weight_decay=0.3, optimizer__eps=1e-5)
    found = [(group["weight_decay"], group["eps"]) for group in opened.session.experiment.optimizer.param_groups]
    assert found == [(0.3, 1e-5), (0.0, 1e-5)]
    steps(opened.session, 1)
    opened.close()


def test_the_order_of_samples_does_not_depend_on_when_workers_come(root: Path) -> None:
    one, other = (Opened(root / name, toy_experiment(train_dataset=Augmented(40))) for name in "ab")
    steps(other.session, 9)
    steps(one.session, 3)
    change(one.session, workers=2)
    steps(one.session, 3)
    change(one.session, workers=0)
    steps(one.session, 3)
    assert differences(one.session.network.state_dict(), other.session.network.state_dict()) == []
    one.close()
    other.close()


def test_on_change_is_called_and_what_it_raises_is_said(root: Path) -> None:
    seen: list[float] = []

    def note(value: float) -> None:
        if value == 0.75:
            raise ValueError("not that one")
        seen.append(value)

    alpha = Tunable("alpha", 0.5, on_change=note)
    training = launch(toy_experiment(hyper_parameters=[alpha]), root_directory=root)
    try:
        apply(training, SetHyperParameters({"alpha": 0.6}))
        with pytest.raises(Refused, match=r"alpha stays 0\.6: its on_change raised ValueError: not that one"):
            apply(training, SetHyperParameters({"batch_size": 3, "alpha": 0.75}))
        assert alpha.value == 0.6 and training.trainer.session.stream.batch_size == 8
        apply(training, Undo())
        assert seen == [0.6, 0.5] and alpha.value == 0.5
    finally:
        training.trainer.end()
        training.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a b", 1), "name is letters"), (("x", None), "not a NoneType"), (("x", 2.0, {"maximum": 1}), "outside"),
        (("x", "a", {"minimum": 1}), "bounds"), (("x", "a", {"choices": ("b",)}), "choices"),
        (("x", 1, {"choices": ("1",)}), "choices"), (("x", float("nan"), {}), "outside"),
    ],
)  # fmt: skip
def test_a_tunable_that_cannot_be_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    name, value, options = (*arguments, {})[:3]
    with pytest.raises(Invalid, match=message):
        Tunable(name, value, **options)


@pytest.mark.parametrize("name", ["learning_rate", "optimizer.eps", "dropout.x", "loss.class_weights"])
def test_a_name_that_is_taken_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="taken"):
        toy_experiment(hyper_parameters=[Tunable(name, 1.0)])
    with pytest.raises(Invalid, match="two hyper-parameters named 'beta'"):
        live_settings(toy_experiment(hyper_parameters=[Tunable("beta", 1.0), Tunable("beta", 2.0)]))
    with pytest.raises(Invalid, match="hyper_parameters holds a float"):
        toy_experiment(hyper_parameters=[0.5])


def test_the_description_follows_a_change_at_once_and_a_schedule_soon(root: Path) -> None:
    scheduler = lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=100)  # noqa: E731
    opened = Opened(root, toy_experiment(scheduler=scheduler))
    session = opened.session

    def shown(name: str) -> Any:
        return next(each.value for each in describe_all(session) if each.name == name)

    first = shown("optimizer.betas.0")
    change(session, dropout__drop=0.3)
    assert shown("dropout.drop") == 0.3
    steps(session, 5)
    end = time.monotonic() + 30
    while shown("optimizer.betas.0") == first and time.monotonic() < end:
        time.sleep(0.05)
    assert shown("optimizer.betas.0") != first
    opened.close()


def test_it_is_changed_from_a_loop_of_ones_own(root: Path) -> None:
    experiment = toy_experiment(root_log_dir=root, train_dataset=toy_data(), hyper_parameters=[Tunable("alpha", 0.5)])
    experiment.train_n_steps(2)
    experiment.set_hyper_parameters(alpha=0.25, **{"optimizer.weight_decay": 0.5})
    assert experiment.hyper_parameters[0].value == 0.25
    assert experiment.optimizer.param_groups[0]["weight_decay"] == 0.5
    experiment.train_n_steps(1)


def test_a_class_weight_of_0_comes_back(root: Path) -> None:
    loss = nn.CrossEntropyLoss(weight=torch.tensor([0.0, 1.0, 1 / 3]))
    training = launch(toy_experiment(criterion=loss), root_directory=root)
    try:
        before = loss.weight.clone()
        kept = apply(training, SaveCheckpoint("here")).value
        training.trainer.tick()
        apply(training, SetHyperParameters({"loss.class_weights": "1=3"}))
        assert loss.weight.tolist() == [1.0, 3.0, 1.0]
        apply(training, Undo())
        assert torch.equal(loss.weight, before)
        apply(training, SetHyperParameters({"loss.class_weights": "1=3"}))
        apply(training, RestoreCheckpoint(kept.id))
        assert torch.equal(loss.weight, before)
    finally:
        training.trainer.end()
        training.close()


def test_a_restore_is_whole_though_the_code_of_a_hyper_parameter_refuses(root: Path) -> None:
    seen: list[float] = []

    def picky(value: float) -> None:
        seen.append(value)
        if value == 0.5 and len(seen) > 1:
            raise ValueError("never again")

    training = launch(toy_experiment(hyper_parameters=[Tunable("alpha", 0.5, on_change=picky)]), root_directory=root)
    try:
        kept = apply(training, SaveCheckpoint("here")).value
        weights = {name: value.clone() for name, value in training.trainer.session.network.state_dict().items()}
        apply(training, SetHyperParameters({"alpha": 0.75}))
        training.trainer.tick()
        apply(training, RestoreCheckpoint(kept.id))
        assert differences(weights, training.trainer.session.network.state_dict()) == []
        assert training.trainer.session.step == 0 and training.trainer.session.branch == 1
        assert training.trainer.session.live == {"alpha": 0.75}
    finally:
        training.trainer.end()
        training.close()


def test_a_restore_keeps_an_option_that_code_had_set(root: Path) -> None:
    experiment = toy_experiment()
    training = launch(experiment, root_directory=root)
    try:
        experiment.optimizer.param_groups[0]["weight_decay"] = 0.05
        kept = apply(training, SaveCheckpoint("here")).value
        training.trainer.tick()
        apply(training, SetHyperParameters({"optimizer.weight_decay": 0.2}))
        apply(training, RestoreCheckpoint(kept.id))
        assert experiment.optimizer.param_groups[0]["weight_decay"] == 0.05
    finally:
        training.trainer.end()
        training.close()
