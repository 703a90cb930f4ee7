"""Evaluations that somebody asks for: what a plain loop finds, one at a time, cancelled within a batch, and no trace of
them in the training, whether it goes on, fails or is replayed."""

from __future__ import annotations

import math
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAUROC

from graybox import trainer as trainer_module
from graybox.commands import (
    CancelEvaluation,
    Command,
    CorrectLabels,
    DiscardSamples,
    EditNeurons,
    Outcome,
    Pause,
    ReadWeights,
    RestoreCheckpoint,
    Resume,
    SaveCheckpoint,
    SetHyperParameters,
    SetMode,
    SetPlotNote,
    StartEvaluation,
    TagSamples,
    Undo,
)
from graybox.errors import Invalid, NotFound, Refused
from graybox.evaluations import Evaluations
from graybox.launch import Training, launch
from graybox.neuron_ops import Freeze, Reinitialize
from graybox.snapshot import TrainerState
from graybox.store.evaluation_report import EvaluationReport
from graybox.store.metric_history import MetricPoint
from graybox.tunable import Tunable
from tests.conftest import REPOSITORY
from tests.patience import PATIENCE
from tests.small_experiments import Augmented, crash, tick_until, toy_data, toy_experiment, whole_state
from tests.small_networks import differences

Launch = Callable[..., Training]
TESTED = toy_data(30, seed=2)


@pytest.fixture
def start(root: Path) -> Iterator[Launch]:
    """Puts toy experiments to work, each call with the same folder on the same run."""
    made: list[Training] = []

    def begin(folder: str = "run", **changes: Any) -> Training:
        experiment = toy_experiment(**{"test_dataset": TESTED, **changes})
        made.append(launch(experiment, root_directory=root / folder))
        return made[-1]

    yield begin
    for training in made:
        training.close()


def do(training: Training, command: Command) -> Outcome:
    """Apply it without a step, and wait for the answer."""
    future = training.trainer.submit(command)
    training.trainer._apply_waiting()
    return future.result(PATIENCE)


def report(training: Training) -> EvaluationReport:
    found = training.trainer.latest().evaluation
    assert found is not None
    return found


def untimed(training: Training) -> EvaluationReport:
    """The clock goes on between the start of an evaluation and its line in the journal."""
    return replace(report(training), started_ms=0)


def evaluated(training: Training, command: StartEvaluation | None = None) -> EvaluationReport:
    """One evaluation from its start to its end."""
    number = do(training, command or StartEvaluation("test")).value
    tick_until(training, lambda: not training.trainer.session.evaluations.active)
    training.trainer._publish()
    found = report(training)
    assert found.evaluation_id == number
    return found


def marked(training: Training) -> list[MetricPoint]:
    columns = training.stores.metrics.read(full=True).points
    return [point for point in map(columns.point, range(len(columns))) if point.marker]


def plain(training: Training, rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits, labels) of some of the test samples."""
    inputs, labels = TESTED.tensors
    model = training.experiment.model
    modes = [module.training for module in model.modules()]
    model.eval()
    with torch.no_grad():
        logits = model(inputs[rows])
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    return logits, labels[rows]


@pytest.mark.parametrize("paused", [False, True])
def test_it_finds_what_a_plain_loop_finds_and_training_is_as_it_was(start: Launch, paused: bool) -> None:
    training = start(full_eval_frequency=0)
    session = training.trainer.session
    tick_until(training, lambda: session.step == 5)
    if paused:
        do(training, Pause())
    do(training, TagSamples((("test", "3"), ("test", "17"), ("train", "1")), tag="dark"))
    do(training, DiscardSamples((("test", "17"), ("test", "0"))))
    before = whole_state(session)
    for command, rows, tags in (
        (StartEvaluation("test"), [row for row in range(30) if row not in (0, 17)], ()),
        (StartEvaluation("test", full=True, tags=("ignored",)), list(range(30)), ()),
        (StartEvaluation("test", ("dark",)), [3, 17], ("dark",)),
        (StartEvaluation("test", rows=np.array([9, 3]), query="loss > 1"), [3, 9], ("query: loss > 1",)),
    ):
        found = evaluated(training, command)
        logits, labels = plain(training, rows)
        assert (found.status, found.split, found.done, found.total) == ("completed", "test", len(rows), len(rows))
        assert found.metrics["loss"] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
        assert found.metrics["accuracy"] == float((logits.argmax(1) == labels).double().mean())
        assert found.confusion is not None and found.classes is not None
        expected = torch.zeros(3, 3, dtype=torch.int64).index_put_(
            (labels, logits.argmax(1)), torch.tensor(1), accumulate=True
        )
        np.testing.assert_array_equal(found.confusion, expected)
        points = marked(training)[-len(found.metrics) :]
        assert {point.metric: point.value for point in points} == found.metrics
        assert {(p.split, p.tags, p.step, p.age, p.audit) for p in points} == {("test", tags, 5, 40, False)}
    # Neither weights nor neurons nor the training samples know of it; the test samples do.
    changed = differences(before, whole_state(session))
    assert changed and all(name.startswith("samples/test/") for name in changed)
    columns = training.stores.samples.splits["test"]
    assert columns.encounters[[0, 3, 9, 1]].tolist() == [1, 4, 3, 2]
    training.trainer.tick()
    assert (session.step, session.running) == ((5, False) if paused else (6, True))
    kinds = [entry.kind for entry in training.stores.journal.entries()][-8:]
    assert kinds == ["evaluation_start", "evaluation_end"] * 4


def test_the_training_samples_keep_what_training_knows_of_them(start: Launch) -> None:
    training = start()
    session = training.trainer.session
    tick_until(training, lambda: session.step == 5)
    before = whole_state(session)
    found = evaluated(training, StartEvaluation("train"))
    assert (found.done, found.status) == (50, "completed")
    assert differences(before, whole_state(session)) == []


def test_it_advances_batch_by_batch_and_tells_how_far_it_is(start: Launch) -> None:
    training = start()
    trainer, session = training.trainer, training.trainer.session
    tick_until(training, lambda: session.step == 3)
    do(training, StartEvaluation("test", metrics=("accuracy",)))
    assert (report(training).status, report(training).done, trainer.latest().mode) == ("pending", 0, "evaluation")
    seen = []
    while session.evaluations.active:
        assert trainer.tick() and session.step == 3
        seen.append((report(training).status, report(training).done))
        assert trainer.latest().state is TrainerState.RUNNING
    assert seen == [("running", done) for done in (8, 16, 24, 30)] + [("completed", 30)]
    assert trainer.latest().mode == "train" and trainer.latest().activity == ""
    trainer.tick()
    assert session.step == 4


REFUSED: list[Command] = [
    EditNeurons(Freeze("conv", (0,))), CorrectLabels((("test", "3"),), 1), SetHyperParameters({"own.alpha": 0.5}),
    SetHyperParameters({"batch_size": 5, "loss.label_smoothing": 0.1}), StartEvaluation("val"), Undo(),
    RestoreCheckpoint("000001"),
]  # fmt: skip
ALLOWED: list[Command] = [
    Pause(), Resume(), SetHyperParameters({"learning_rate": 0.5, "batch_size": 5}),
    TagSamples((("test", "1"),), tag="a"), DiscardSamples((("test", "1"),)), SetMode("audit"), SaveCheckpoint(),
    ReadWeights("conv"),
    SetPlotNote("train", "loss", 0, 24, "here"), EditNeurons(Freeze("conv", (0,)), dry_run=True),
]  # fmt: skip


@pytest.mark.parametrize("command", REFUSED, ids=lambda command: type(command).__name__)
def test_what_would_change_what_is_measured_is_refused_meanwhile(start: Launch, command: Command) -> None:
    training = start(hyper_parameters=[Tunable("own.alpha", 0.25)])
    session = training.trainer.session
    tick_until(training, lambda: session.step == 3)
    if command == Undo():
        do(training, EditNeurons(Freeze("conv", (1,))))
    number = do(training, StartEvaluation("test")).value
    tick_until(training, lambda: report(training).done > 0)
    before, entries = whole_state(session), len(training.stores.journal.entries())
    reason = rf"evaluation {number} of test is running \(8 of 30 samples\).*wait for it, or cancel it"
    with pytest.raises(Refused, match=reason):
        do(training, command)
    assert differences(before, whole_state(session)) == []
    assert len(training.stores.journal.entries()) == entries and report(training).done == 8
    do(training, CancelEvaluation())
    do(training, command)


def test_everything_else_goes_on_meanwhile_and_changes_nothing_of_the_result(start: Launch) -> None:
    quiet, busy = start("quiet"), start("busy")
    for training in (quiet, busy):
        tick_until(training, lambda t=training: t.trainer.session.step == 3)  # type: ignore[misc]
        do(training, TagSamples((("test", "1"), ("test", "2")), tag="b"))
    expected = evaluated(quiet, StartEvaluation("test", metrics=("per_class", "calibration_error")))
    do(busy, StartEvaluation("test", metrics=("per_class", "calibration_error")))
    for command in ALLOWED:
        do(busy, command)
        busy.trainer.tick()
    tick_until(busy, lambda: report(busy).ended)
    assert report(busy).metrics == expected.metrics and report(busy).done == 30
    assert set(expected.metrics) == {"loss", "accuracy", "calibration_error"} and expected.confusion is None
    assert busy.trainer.session.audit.on and busy.trainer.session.running


class Watched(Augmented):
    """Says which samples are loaded."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.loaded: list[int] = []

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.loaded.append(index)
        return super().__getitem__(index)


@pytest.mark.parametrize("running", [True, False])
def test_a_cancel_takes_effect_before_the_next_batch_even_behind_a_long_queue(start: Launch, running: bool) -> None:
    data = Watched(80)
    training = start(test_dataset=data)
    trainer, session = training.trainer, training.trainer.session
    if not running:
        do(training, Pause())
    do(training, StartEvaluation("test", metrics=("accuracy",)))
    for _ in range(2):
        trainer.tick()
    before = whole_state(session)
    flood: list[Future[Outcome]] = [
        trainer.submit(ReadWeights("conv")) for _ in range(3 * trainer_module.COMMANDS_PER_TICK)
    ]
    cancelled = trainer.submit(CancelEvaluation("too slow"))
    for _ in range(4):
        trainer.tick()
        if session.evaluations.active:
            assert differences(before, whole_state(session)) == []
    assert cancelled.result(PATIENCE).message == "Cancelled the evaluation of test after 16 of 80 samples: too slow"
    assert data.loaded == list(range(16)) and all(future.done() for future in flood)
    found = report(training)
    assert (found.status, found.done, found.metrics) == ("cancelled", 16, {}) and marked(training) == []
    assert not training.stores.samples.splits["test"].encounters.any()
    trainer.tick()
    assert (session.step > 0) is running
    with pytest.raises(Refused, match="no evaluation is running"):
        do(training, CancelEvaluation())
    assert "evaluation_end" not in [entry.kind for entry in training.stores.journal.entries()]


@pytest.mark.parametrize(
    ("command", "kind", "message"),
    [
        (StartEvaluation("tset"), NotFound, "no split 'tset'; there are train, val, test"),
        (StartEvaluation("test", metrics=("f1",)), Invalid, "no metric 'f1'; there are accuracy"),
        (StartEvaluation("test", ("nowhere",)), NotFound, "no tag 'nowhere'; there are none yet"),
        (
            StartEvaluation("test", rows=np.array([], dtype=np.int64)),
            Refused,
            "no sample of test is chosen by the view",
        ),
        (StartEvaluation("test", rows=np.array([30])), NotFound, "no sample 30"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    start: Launch, command: StartEvaluation, kind: type[Exception], message: str
) -> None:
    training = start()
    with pytest.raises(kind, match=message):
        do(training, command)
    assert training.trainer.latest().evaluation is None and training.stores.journal.entries() == []


class Failing(Metric):
    """Fails at its second batch, or when it is asked for what it found."""

    def __init__(self, late: bool) -> None:
        super().__init__()
        self.late = late

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        if not self.late and self._update_count > 1:
            raise ZeroDivisionError("in update")

    def compute(self) -> torch.Tensor:
        raise ZeroDivisionError("in compute")


@pytest.mark.parametrize("how", ["data set", "update", "compute", "classes"])
def test_what_fails_is_told_in_the_status_and_training_goes_on(
    start: Launch, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken"
    metrics: Any = {"update": [Failing(False)], "compute": [Failing(True)]}.get(how, [])
    data: Any = Augmented(30, broken) if how == "data set" else TESTED
    training, twin = start(test_dataset=data, metrics=metrics), start("twin", test_dataset=data)
    trainer, session = training.trainer, training.trainer.session
    tick_until(training, lambda: session.step == 3)
    if how == "data set":
        broken.write_text("13")
    if how == "classes":  # as a task of a person's own may answer
        real = session.experiment.task.evaluate
        session.experiment.task.evaluate = lambda *a: _without_classes(real(*a))  # type: ignore[method-assign]
    number = do(training, StartEvaluation("test", metrics=("macro_f1",) if how == "classes" else ())).value
    tick_until(training, lambda: report(training).ended)
    if how == "classes":
        session.experiment.task.evaluate = real  # type: ignore[method-assign]
    found = report(training)
    said = {
        "data set": "test sample 13 failed to load: OSError", "update": "ZeroDivisionError: in update",
        "compute": "ZeroDivisionError: in compute", "classes": "macro_f1 cannot be measured here",
    }[how]  # fmt: skip
    done = {"data set": 8, "update": 8, "compute": 30, "classes": 0}[how]
    assert (found.evaluation_id, found.status, found.done) == (number, "failed", done)
    assert said in found.error and "Traceback" in found.traceback and said in found.message
    assert (trainer.latest().state, trainer.latest().error) == (TrainerState.RUNNING, "")
    assert marked(training) == [] and not training.stores.samples.splits["test"].encounters.any()
    assert "an evaluation failed" in caplog.text
    entry = training.stores.journal.entries()[-1]
    assert (entry.kind, entry.arguments["status"], entry.actor) == ("evaluation_end", "failed", "trainer")
    broken.unlink(missing_ok=True)
    tick_until(training, lambda: session.step == 6)
    tick_until(twin, lambda: twin.trainer.session.step == 6)
    assert differences(whole_state(session), whole_state(twin.trainer.session)) == []


def _without_classes(result: Any) -> Any:
    return replace(result, predictions=None, ratings=None)


@pytest.mark.parametrize("workers", [0, 1])
def test_twenty_evaluations_leave_no_bit_of_training_otherwise(start: Launch, workers: int) -> None:
    data = {"train_dataset": Augmented(40), "eval_dataset": Augmented(20), "test_dataset": Augmented(30)}
    options: Any = {**data, "workers": workers, "full_eval_frequency": 7}
    watched, alone = start("watched", **options), start("alone", **options)
    session, draws = watched.trainer.session, random.Random(3)
    do(watched, TagSamples(tuple(("test", str(row)) for row in range(0, 30, 3)), tag="a"))
    do(alone, TagSamples(tuple(("test", str(row)) for row in range(0, 30, 3)), tag="a"))
    made = 0
    while made < 20 or session.step < 30:
        if made < 20 and not session.evaluations.active and draws.random() < 0.5:
            split = draws.choice(["train", "val", "test"])
            tags = ("a",) if split == "test" and draws.random() < 0.5 else ()
            some = tuple(draws.sample(["accuracy", "macro_f1", "calibration_error", "per_class"], 2))
            do(watched, StartEvaluation(split, tags, draws.random() < 0.5, metrics=some))
            made += 1
            if draws.random() < 0.2:
                watched.trainer.tick()
                do(watched, CancelEvaluation())
        watched.trainer.tick()
    tick_until(watched, lambda: not session.evaluations.active and not session.evaluation_due())
    steps = session.step
    other = alone.trainer.session
    tick_until(alone, lambda: other.step == steps and not other.evaluation_due())
    changed = differences(whole_state(session), whole_state(other))
    assert changed and all(name.startswith(("samples/test/", "samples/val/")) for name in changed)
    assert session.last_evaluation == other.last_evaluation
    columns = [each.stores.metrics.read(full=True).points for each in (watched, alone)]
    values = [
        [(p.split, p.metric, p.age, p.value) for p in map(c.point, range(len(c))) if not p.marker] for c in columns
    ]
    assert values[0] == values[1] and len(marked(watched)) > 20


# -- a crash -------------------------------------------------------------------------------------------


def scenario(training: Training, *, save_in_the_middle: bool = False) -> None:
    session = training.trainer.session
    tick_until(training, lambda: session.step == 4)
    do(training, StartEvaluation("test"))
    training.trainer.tick()
    do(training, TagSamples((("test", "1"),), tag="later"))
    if save_in_the_middle:
        do(training, SaveCheckpoint())
    tick_until(training, lambda: not session.evaluations.active)
    tick_until(training, lambda: session.step == 6)
    do(training, StartEvaluation("val", ("later",), full=True))
    training.trainer.tick()
    training.trainer.tick()
    do(training, CancelEvaluation())
    do(training, StartEvaluation("test", ("later",), metrics=("macro_f1",)))
    tick_until(training, lambda: not session.evaluations.active)
    do(training, EditNeurons(Reinitialize("conv", (0,))))
    tick_until(training, lambda: session.step == 9)
    do(training, Pause())


@pytest.mark.parametrize("save_in_the_middle", [False, True])
def test_replay_comes_to_the_same_state_and_points(start: Launch, save_in_the_middle: bool) -> None:
    options: Any = {"full_eval_frequency": 4, "test_dataset": Augmented(30)}
    training, whole = start("crashed", **options), start("whole", **options)
    for each in (training, whole):
        scenario(each, save_in_the_middle=save_in_the_middle)
    expected, points, before = whole_state(whole.trainer.session), marked(training), untimed(training)
    training.stores.flusher.drain()
    crash(training)
    again = start("crashed", **options)
    assert again.trainer.latest().state is TrainerState.RECOVERING
    assert untimed(again) == before  # as the journal tells it, from the beginning
    tick_until(again, lambda: again.trainer.latest().state is TrainerState.PAUSED)
    assert differences(whole_state(again.trainer.session), expected) == []
    assert [(p.metric, p.value, p.tags, p.age) for p in marked(again)] == [
        (p.metric, p.value, p.tags, p.age) for p in points
    ]
    after = untimed(again)
    assert after == before and after.status == "completed" and after.metrics["macro_f1"] == before.metrics["macro_f1"]
    first = next(e for e in again.stores.journal.entries() if e.kind == "evaluation_end")
    assert "tables_blob" in first.arguments and first.arguments["metrics"]["loss"] > 0


def test_one_in_whose_middle_the_process_died_is_not_done_again(start: Launch) -> None:
    training, twin = start("crashed"), start("twin")
    for each in (training, twin):
        tick_until(each, lambda t=each: t.trainer.session.step == 4)  # type: ignore[misc]
    do(training, StartEvaluation("test", metrics=("accuracy",)))
    for _ in range(2):
        training.trainer.tick()
    crash(training)
    again = start("crashed")
    tick_until(again, lambda: again.trainer.session.step == 8)
    tick_until(twin, lambda: twin.trainer.session.step == 8)
    assert differences(whole_state(again.trainer.session), whole_state(twin.trainer.session)) == []
    found = report(again)
    assert (found.status, found.done, found.total) == ("cancelled", 0, 30) and "the process ended" in found.message
    assert evaluated(again).status == "completed"


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_replay_whose_data_set_fails_waits_and_loses_no_batch(start: Launch, tmp_path: Path, split: str) -> None:
    """Whether it comes to one that was asked for, or to a periodic pass."""
    broken = tmp_path / "broken"
    options: Any = {"test_dataset": Augmented(30, broken), "eval_dataset": Augmented(30, broken)}
    options["full_eval_frequency"] = 2 if split == "val" else 0
    training = start("crashed", **options)
    tick_until(training, lambda: training.trainer.session.step == (3 if split == "val" else 0))
    if split == "test":
        evaluated(training)
    do(training, Pause())
    expected = whole_state(training.trainer.session)
    crash(training)
    broken.write_text("13")
    again = start("crashed", **options)
    tick_until(again, lambda: again.trainer.latest().state is TrainerState.FAILED)
    step = 2 if split == "val" else 0
    assert f"Recovery stopped at step {step}: {split} sample 13 failed to load" in again.trainer.latest().error
    broken.unlink()
    do(again, Resume())
    tick_until(again, lambda: again.trainer.latest().state is not TrainerState.RECOVERING)
    assert differences(whole_state(again.trainer.session), expected) == []


KILLED = """
import os, sys
from tests.small_experiments import toy_data, toy_experiment
tested = toy_data(30, seed=2)
experiment = toy_experiment(root_log_dir=sys.argv[1], test_dataset=tested, metrics=["macro_f1", "per_class"])
experiment.train_n_steps(3)
assert experiment.evaluate("test").metrics["macro_f1"] > 0
experiment.set_mode("audit")
experiment.train_n_steps(2)
experiment.evaluate("val", full=True)
experiment.set_mode("train")
experiment.train_n_steps(2)
experiment.set_learning_rate(0.03)
if sys.argv[2] == "kill":
    os.kill(os.getpid(), 9)
"""


def test_what_was_done_before_a_kill_is_done_after_it(root: Path) -> None:
    states, reports = [], []
    for how, code in (("kill", -9), ("end", 0)):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(root / how), how], cwd=REPOSITORY, timeout=5 * PATIENCE, check=False
        )
        assert done.returncode == code
        experiment = toy_experiment(root_log_dir=root / how, test_dataset=TESTED, metrics=["macro_f1", "per_class"])
        try:
            experiment.train_one_step()
            assert experiment._training is not None
            states.append(whole_state(experiment._training.trainer.session))
            reports.append(report(experiment._training))
            assert [e.kind for e in experiment._training.stores.journal.entries()] == [
                "evaluation_start", "evaluation_end", "mode_switch",
                "evaluation_start", "evaluation_end", "mode_switch", "hp_change",
            ]  # fmt: skip
        finally:
            experiment.close()
    assert differences(*states) == []
    assert reports[0].metrics == reports[1].metrics and reports[0].classes is not None


# -- a loop of one's own, and the end -------------------------------------------------------------------


def test_a_loop_of_ones_own_evaluates_where_it_asks(root: Path) -> None:
    experiment = toy_experiment(root_log_dir=root, test_dataset=TESTED)
    try:
        experiment.train_n_steps(3)
        found = experiment.evaluate("test", metrics=["macro_f1"])
        assert experiment._training is not None
        logits, labels = plain(experiment._training, list(range(30)))
        assert found.metrics["accuracy"] == float((logits.argmax(1) == labels).double().mean())
        assert set(found.metrics) == {"loss", "accuracy", "macro_f1"}
        with pytest.raises(NotFound, match="no tag 'a'"):
            experiment.evaluate(tags=["a"])
        # What somebody else asks for is made before the next step.
        asked = experiment._training.trainer.submit(StartEvaluation("test"))
        experiment.train_one_step()
        assert asked.result(PATIENCE).value == report(experiment._training).evaluation_id
        assert (report(experiment._training).step, report(experiment._training).status) == (3, "completed")
    finally:
        experiment.close()


def test_one_asked_for_from_another_thread_waits_for_its_end(root: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    experiment = toy_experiment(root_log_dir=root, test_dataset=Augmented(30, broken), training_steps_to_do=10**6)
    training = launch(experiment, root_directory=root)
    owner = threading.Thread(target=training.run)
    owner.start()
    try:
        assert experiment.evaluate("test").done == 30
        broken.write_text("5")
        with pytest.raises(Refused, match="The evaluation of test failed: test sample 5 failed to load"):
            experiment.evaluate("test")
    finally:
        training.stop()
        owner.join(PATIENCE)
        training.close()
    assert not owner.is_alive()


def test_the_end_of_the_trainer_is_the_end_of_an_evaluation(start: Launch) -> None:
    training = start()
    do(training, StartEvaluation("test", metrics=("accuracy",)))
    training.trainer.tick()
    training.trainer.end()
    found = training.trainer.session.evaluations.report()
    assert found is not None and (found.status, found.done) == ("cancelled", 8)
    assert found.message.endswith("the trainer is stopping")


# -- the periodic pass ---------------------------------------------------------------------------------


def test_the_periodic_pass_draws_curves_of_the_same_metrics(start: Launch) -> None:
    data = toy_data(20, seed=1)
    data.classes = ["cat", "dog", "fish"]  # type: ignore[attr-defined]
    training = start(
        metrics=["macro_f1", "per_class", "confusion_matrix", MulticlassAUROC(num_classes=3)], full_eval_frequency=4,
        eval_dataset=data, train_dataset=_named(toy_data()),
    )  # fmt: skip
    session = training.trainer.session
    tick_until(training, lambda: session.step == 8 and not session.evaluation_due())
    found = evaluated(training, StartEvaluation("val"))
    latest = training.stores.metrics.latest()
    for metric in ("macro_f1", "MulticlassAUROC", "loss", "accuracy"):
        assert latest["val", metric].value == found.metrics[metric]
    assert found.classes is not None and found.confusion is not None
    for number, name in enumerate(("cat", "dog", "fish")):
        point = latest[f"val/{name}", "f1"]
        assert point.value == found.classes.f1[number] or math.isnan(point.value)
        assert (point.step, point.marker) == (8, False)
    ages = [p.age for p in _points(training) if (p.split, p.metric, p.marker) == ("val", "macro_f1", False)]
    assert ages == [32, 64 - 6]
    assert set(found.metrics) == {"loss", "accuracy", "macro_f1", "MulticlassAUROC"}


def _points(training: Training) -> list[MetricPoint]:
    columns = training.stores.metrics.read(full=True).points
    return [columns.point(number) for number in range(len(columns))]


def _named(data: Any) -> Any:
    data.classes = ["cat", "dog", "fish"]
    return data


def test_nothing_is_kept_of_one_that_was_never_begun(start: Launch) -> None:
    evaluations: Evaluations = start().trainer.session.evaluations
    assert (evaluations.report(), evaluations.active) == (None, False)
    with pytest.raises(Invalid, match="ended without having begun"):
        evaluations.end({"start": 3, "status": "completed", "done": 1})
