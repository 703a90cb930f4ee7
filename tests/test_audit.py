"""The audit mode: batches as training would see them, everything recorded, and not a bit learnt."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import optim

from graybox.audit import Audit
from graybox.commands import (
    DiscardSamples,
    EditNeurons,
    Outcome,
    Pause,
    RestoreCheckpoint,
    Resume,
    SaveCheckpoint,
    SetHyperParameters,
    SetMode,
    TagSamples,
    Undo,
)
from graybox.errors import Invalid
from graybox.experiment import Experiment
from graybox.launch import Training, launch
from graybox.neuron_ops import Freeze, Reinitialize
from graybox.sample_stream import Position, SampleLoadError
from graybox.snapshot import TrainerState
from graybox.store.metric_history import MetricPoint
from tests.patience import PATIENCE
from tests.small_experiments import Augmented, DropNet, Opened, crash, tick_until, toy_experiment, whole_state
from tests.small_networks import differences, random_state

Launch = Callable[..., Training]
Make = Callable[..., Opened]


def scheduled(optimizer: optim.Optimizer) -> Any:
    return optim.lr_scheduler.StepLR(optimizer, 3)


@pytest.fixture
def start(root: Path) -> Iterator[Launch]:
    made: list[Training] = []

    def begin(folder: str = "run", **changes: Any) -> Training:
        options = {"train_dataset": Augmented(50), "scheduler": scheduled, **changes}
        made.append(launch(toy_experiment(**options), root_directory=root / folder))
        return made[-1]

    yield begin
    for training in made:
        training.close()


def do(training: Training, command: Any) -> Outcome:
    future = training.trainer.submit(command)
    training.trainer._apply_waiting()
    return future.result(PATIENCE)


def points(training: Training) -> list[MetricPoint]:
    columns = training.stores.metrics.read(full=True).points
    return [columns.point(number) for number in range(len(columns))]


def seen(training: Training) -> np.ndarray:
    return training.stores.samples.splits["train"].encounters.copy()


def learnt(state: dict[str, Any]) -> dict[str, Any]:
    """All but what is recorded of samples and neurons."""
    return {name: value for name, value in state.items() if not name.startswith("samples/") and "/train/" not in name}


@pytest.mark.parametrize("workers", [0, 1])
def test_an_audit_sees_what_training_would_and_leaves_it_as_it_was(start: Launch, workers: int) -> None:
    training, twin = start("watched", workers=workers), start("twin", workers=workers)
    session, other = training.trainer.session, twin.trainer.session
    for each in (training, twin):
        tick_until(each, lambda t=each: t.trainer.session.step == 4)  # type: ignore[misc]
    before, encounters = learnt(whole_state(session)), seen(training)
    position = session.stream.position
    assert do(training, SetMode("audit")).message.startswith("Switched from train to audit")
    drawn = random_state()
    tick_until(training, lambda: session.audit.batches == 9)  # into the next epoch
    assert differences(drawn, random_state()) == []
    assert (session.step, session.age, training.trainer.latest().mode) == (4, 32, "audit")
    walked = seen(training) - encounters
    after = learnt(whole_state(session))
    assert after.pop("position") != before.pop("position") and differences(before, after) == []
    do(training, SetMode("train"))
    assert session.stream.position == position
    # What it saw are the batches that training takes now.
    taken = seen(training)
    for each in (training, twin):
        tick_until(each, lambda t=each: t.trainer.session.step == 13)  # type: ignore[misc]
    assert (seen(training) - taken).tolist() == walked.tolist() and walked.sum() > 60
    assert differences(learnt(whole_state(session)), learnt(whole_state(other))) == []
    assert (seen(training) - seen(twin)).tolist() == walked.tolist()


def test_its_points_say_so_and_are_no_part_of_the_curve(start: Launch) -> None:
    training, twin = start("watched"), start("twin")
    for each in (training, twin):
        tick_until(each, lambda t=each: t.trainer.session.step == 3)  # type: ignore[misc]
    do(training, SetMode("audit"))
    training.experiment.logger.add_scalars("mine", {"once": 1.0})
    tick_until(training, lambda: training.trainer.session.audit.batches == 2)
    do(training, SetMode("train"))
    tick_until(training, lambda: training.trainer.session.step == 6)
    tick_until(twin, lambda: twin.trainer.session.step == 6)
    audited = [p for p in points(training) if p.audit]
    assert {(p.step, p.age) for p in audited} == {(3, 24)}
    assert [p.metric for p in audited] == ["loss", "accuracy", "mine", "loss", "accuracy"]
    plain = [(p.split, p.metric, p.step, p.age, p.value) for p in points(training) if not p.audit]
    assert plain == [(p.split, p.metric, p.step, p.age, p.value) for p in points(twin)]


def test_the_first_batch_has_the_loss_of_the_network_in_training_mode(opened: Make) -> None:
    """Without dropout, what the audit tells is what the next step descends on."""
    each = opened(train_dataset=Augmented(50))
    each.session.network.drop.p = 0.0
    for _ in range(3):
        each.session.train_one_step()
    each.session.audit.switch("audit")
    audited = each.session.train_one_step()
    each.session.audit.switch("train")
    trained = each.session.train_one_step()
    assert (audited.loss, audited.rows.tolist()) == (trained.loss, trained.rows.tolist())
    np.testing.assert_array_equal(audited.losses, trained.losses)
    assert each.session.last_train is trained


def test_it_records_neurons_and_samples(opened: Make) -> None:
    session = opened(train_dataset=Augmented(50)).session
    session.audit.switch("audit")
    for _ in range(3):
        session.train_one_step()
    tracker = session.network.conv.train_dataset_tracker
    assert (tracker.samples, session.age) == (24, 0)
    assert session.network.norm.num_batches_tracked == 0 and not session.network.replaced.any()
    columns = session.stores.samples.splits["train"]
    assert columns.encounters.sum() == 24 and (columns.last_age[columns.encounters > 0] == 0).all()


class Failing(DropNet):
    fails: str = ""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer = super().forward(x)
        if self.fails == "raise":
            raise RuntimeError("in forward")
        return answer * float("nan") if self.fails == "nan" else answer


@pytest.mark.parametrize("how", ["raise", "nan", "sample"])
def test_a_batch_that_fails_leaves_nothing_and_is_tried_again(opened: Make, tmp_path: Path, how: str) -> None:
    broken = tmp_path / "broken"
    session = opened(model=Failing(), train_dataset=Augmented(50, broken)).session
    session.train_one_step()
    session.audit.switch("audit")
    session.train_one_step()
    before, batches = whole_state(session), session.audit.batches
    session.network.fails = how
    if how == "sample":
        broken.write_text(" ".join(map(str, range(50))))
    with pytest.raises(
        SampleLoadError if how == "sample" else Exception, match=r"in forward|loss is nan|failed to load"
    ):
        session.train_one_step()
    session.network.fails = ""
    broken.unlink(missing_ok=True)
    assert differences(before, whole_state(session)) == [] and session.audit.batches == batches
    assert session.train_one_step().rows.size == 8


def test_a_failure_pauses_as_one_of_training_does(start: Launch) -> None:
    training = start(model=Failing())
    do(training, SetMode("audit"))
    training.trainer.session.network.fails = "raise"
    tick_until(training, lambda: training.trainer.latest().state is TrainerState.FAILED)
    assert training.trainer.latest().mode == "audit" and "in forward" in training.trainer.latest().error
    training.trainer.session.network.fails = ""
    do(training, Resume())
    tick_until(training, lambda: training.trainer.session.audit.batches == 3)


def test_it_goes_on_where_no_steps_are_left(start: Launch) -> None:
    training = start(training_steps_to_do=2)
    tick_until(training, lambda: training.trainer.latest().state is TrainerState.COMPLETED)
    do(training, SetMode("audit"))
    assert training.trainer.latest().state is TrainerState.RUNNING
    tick_until(training, lambda: training.trainer.session.audit.batches == 20)
    do(training, Pause())
    assert not training.trainer.tick()
    assert do(training, Resume()).message == "Resumed"


def test_a_mode_is_checked_journalled_and_undone(start: Launch) -> None:
    training = start()
    session = training.trainer.session
    with pytest.raises(Invalid, match="mode is train or audit, not 'evaluation'"):
        do(training, SetMode("evaluation"))
    do(training, SetMode("audit"))
    assert do(training, SetMode("audit")).message == "Nothing changed: the mode is audit already"
    training.trainer.tick()
    do(training, Undo())
    assert (session.audit.mode, session.stream.position) == ("train", Position())
    kinds = [(e.kind, e.arguments.get("audited", 0)) for e in training.stores.journal.entries()]
    assert kinds == [("mode_switch", 0), ("mode_switch", 0), ("undo", 1)]


def test_callbacks_belong_to_steps(root: Path) -> None:
    experiment = toy_experiment(root_log_dir=root)
    called: list[int] = []
    experiment.register_train_loop_callback(lambda: called.append(experiment.model.get_age()))
    experiment.set_train_loop_clbk_freq(1)
    try:
        experiment.train_n_steps(2)
        experiment.set_mode("audit")
        experiment.train_n_steps(3)
        assert experiment._training is not None and experiment._training.trainer.session.audit.batches == 3
        assert called == [8, 16]
    finally:
        experiment.close()


# -- going back and a crash ----------------------------------------------------------------------------


def scenario(training: Training) -> None:
    """Trains, audits, edits and switches, with commands in the middle of audits."""
    session, draws = training.trainer.session, random.Random(1)
    tick_until(training, lambda: session.step == 3)
    do(training, SetMode("audit"))
    tick_until(training, lambda: session.audit.batches == 5)
    do(training, EditNeurons(Reinitialize("conv", (1,))))
    tick_until(training, lambda: session.audit.batches == 8)
    do(training, DiscardSamples((("train", "3"), ("train", "7"))))
    do(training, SetHyperParameters({"batch_size": 5}))
    tick_until(training, lambda: session.audit.batches == 11)
    do(training, SetMode("train"))
    tick_until(training, lambda: session.step == 6)
    for _ in range(6):
        do(training, SetMode(draws.choice(["train", "audit"])))
        for _ in range(draws.randrange(4)):
            training.trainer.tick()
        do(training, TagSamples((("train", str(draws.randrange(50))),), tag="a"))
    do(training, SetMode("audit"))
    goal = session.audit.batches + 3
    tick_until(training, lambda: session.audit.batches == goal)
    do(training, Pause())


@pytest.mark.parametrize("checkpoints", [0, 3])
def test_a_replay_comes_to_the_same_state(start: Launch, checkpoints: int) -> None:
    options: Any = {"full_eval_frequency": 2, "checkpoint_frequency": checkpoints}
    training, whole = start("crashed", **options), start("whole", **options)
    for each in (training, whole):
        scenario(each)
    expected, audited = whole_state(whole.trainer.session), [p.value for p in points(training) if p.audit]
    training.stores.flusher.drain()
    crash(training)
    again = start("crashed", **options)
    tick_until(again, lambda: again.trainer.latest().state is TrainerState.PAUSED)
    assert differences(whole_state(again.trainer.session), expected) == []
    assert [p.value for p in points(again) if p.audit] == audited and audited
    for each in (again, whole):  # and training goes on alike
        do(each, SetMode("train"))
        do(each, Resume())
        goal = each.trainer.session.step + 4
        tick_until(each, lambda t=each, goal=goal: t.trainer.session.step == goal)  # type: ignore[misc]
    assert differences(whole_state(again.trainer.session), whole_state(whole.trainer.session)) == []


def test_what_was_audited_is_kept_when_the_trainer_ends(start: Launch) -> None:
    training = start()
    session = training.trainer.session
    do(training, SetMode("audit"))
    tick_until(training, lambda: session.audit.batches == 4)
    expected = whole_state(session)
    training.close()
    training.close = lambda: None  # type: ignore[method-assign]
    again = start()
    again.trainer.submit(Pause())
    tick_until(again, lambda: again.trainer.latest().state is TrainerState.PAUSED)
    assert differences(whole_state(again.trainer.session), expected) == []
    assert again.trainer.session.audit.on and again.trainer.session.audit.batches == 4


def test_going_back_goes_back_to_the_mode_of_then(start: Launch) -> None:
    training = start()
    session = training.trainer.session
    tick_until(training, lambda: session.step == 3)
    then = whole_state(session)
    saved = training.trainer.submit(SaveCheckpoint())
    training.trainer._apply_waiting()
    record = saved.result(PATIENCE).value
    do(training, SetMode("audit"))
    tick_until(training, lambda: session.audit.batches == 4)
    now = whole_state(session)
    do(training, RestoreCheckpoint(record.id))
    assert (session.audit.on, session.audit.batches) == (False, 0)
    assert differences(then, whole_state(session)) == []
    training.stores.flusher.drain()
    kept = next(c for c in training.stores.checkpoints.list() if c.reason == "before restore")
    do(training, RestoreCheckpoint(kept.id))
    assert (session.audit.on, session.audit.batches) == (True, 4)
    assert differences(now, whole_state(session)) == []
    do(training, SetMode("train"))
    assert session.stream.position == then["position"]


def test_a_checkpoint_from_before_there_were_audits_is_one_of_training(opened: Make) -> None:
    audit: Audit = opened().session.audit
    audit.switch("audit")
    audit.load_state(None)
    assert audit.state() == {"on": False, "batches": 0, "training": None}


def test_edits_of_neurons_hold_in_an_audit(start: Launch) -> None:
    training = start()
    do(training, SetMode("audit"))
    do(training, EditNeurons(Freeze("conv", (0,))))
    tick_until(training, lambda: training.trainer.session.audit.batches == 2)
    assert training.trainer.session.network.find_layer("conv")[1].frozen.tolist() == [True, False, False, False]


def test_an_experiment_of_a_loop_of_its_own_may_audit_before_it_trains(root: Path) -> None:
    experiment: Experiment = toy_experiment(root_log_dir=root)
    try:
        experiment.set_mode("audit")
        before = {name: value.clone() for name, value in experiment.model.state_dict().items()}
        experiment.train_n_steps(8)
        assert differences(before, dict(experiment.model.state_dict())) == []
        with pytest.raises(Invalid, match="mode is train or audit"):
            experiment.set_mode("test")
    finally:
        experiment.close()
