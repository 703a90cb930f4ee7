"""A user's own loop: the same steps, evaluations and checkpoints as a trainer's, and one that hands over to it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import optim
from torch.nn import functional as F

from graybox.commands import DiscardSamples, EditNeurons, Pause, SetHyperParameters
from graybox.errors import GrayboxError, Invalid, NotFound, Refused, StorageError
from graybox.experiment import Experiment
from graybox.launch import launch
from graybox.neuron_ops import SetLearningRate
from graybox.randomness import mix, permutation, purpose, seed_everything
from graybox.store.journal import Journal
from graybox.store.root import Root
from graybox.training_step import NonFiniteLoss
from tests.conftest import REPOSITORY
from tests.patience import PATIENCE
from tests.small_experiments import tick_until, toy_data, toy_experiment, whole_state
from tests.small_networks import differences

Make = Callable[..., Experiment]


@pytest.fixture
def made(root: Path) -> Iterator[Make]:
    """Makes toy experiments that keep their runs in a root directory each, and closes them afterwards."""
    all_made: list[Experiment] = []

    def make(folder: str = "", **changes: Any) -> Experiment:
        all_made.append(toy_experiment(**{"root_log_dir": root / (folder or str(len(all_made))), **changes}))
        return all_made[-1]

    yield make
    for each in all_made:
        each.close()


def session_of(experiment: Experiment) -> Any:
    assert experiment._training is not None
    return experiment._training.trainer.session


def journal_of(experiment: Experiment) -> list[tuple[str, int, str]]:
    assert experiment._training is not None
    return [(e.kind, e.step, e.actor) for e in experiment._training.stores.journal.entries()]


def trained_by_a_trainer(root: Path, steps: int, **changes: Any) -> dict[str, Any]:
    training = launch(toy_experiment(**changes), root_directory=root)
    try:
        session = training.trainer.session
        tick_until(training, lambda: session.step == steps and not session.evaluation_due())
        return whole_state(session)
    finally:
        training.close()


# -- training ------------------------------------------------------------------------------------------


def test_it_learns_what_a_plain_loop_learns(made: Make) -> None:
    experiment = made()
    experiment.train_n_steps(9)
    experiment.train_one_step()

    plain = toy_experiment()
    optimizer = optim.Adam(plain.model.parameters(), lr=0.01)
    inputs, labels = toy_data().tensors
    order = np.concatenate([permutation(7, epoch, 50) for epoch in range(2)])
    start = 0
    for step, size in enumerate([8, 8, 8, 8, 8, 8, 2, 8, 8, 8]):
        rows = order[start : start + size]
        start += size
        seed_everything(mix(mix(7, purpose("step")), step))
        optimizer.zero_grad()
        F.cross_entropy(plain.model(inputs[rows]), labels[rows]).backward()
        optimizer.step()
    found = {name: value.clone() for name, value in experiment.model.state_dict().items()}
    assert differences(found, {name: value.clone() for name, value in plain.model.state_dict().items()}) == []
    assert experiment.model.get_age() == start == 74


@pytest.mark.parametrize("scheduler", [None, lambda o: optim.lr_scheduler.ReduceLROnPlateau(o, patience=0)])
def test_with_evaluation_it_does_what_a_trainer_does(made: Make, root: Path, scheduler: Any) -> None:
    options = {"full_eval_frequency": 3, "checkpoint_frequency": 4, "training_steps_to_do": 11, "scheduler": scheduler}
    experiment = made(**options)
    experiment.train_n_steps_with_eval_full(4)
    experiment.train_n_steps_with_eval_full(7)
    expected = trained_by_a_trainer(root / "trainer", 11, **options)
    assert differences(whole_state(session_of(experiment)), expected) == []
    steps = [(r.step, r.reason) for r in session_of(experiment).stores.checkpoints.list()]
    assert steps[0] == (0, "start") and (4, "automatic") in steps and (8, "automatic") in steps


def test_without_evaluation_none_is_made(made: Make) -> None:
    experiment = made(full_eval_frequency=2)
    experiment.train_n_steps(7)
    assert not session_of(experiment).stores.samples.splits["val"].encounters.any()
    experiment.train_n_steps_with_eval_full(1)
    assert session_of(experiment).last_evaluation_step == 8


def test_steps_beyond_those_that_are_left_are_made(made: Make) -> None:
    experiment = made(training_steps_to_do=2, full_eval_frequency=2, checkpoint_frequency=2)
    experiment.train_n_steps_with_eval_full(7)
    session = session_of(experiment)
    assert (session.step, session.steps_left) == (7, 0)
    assert session.stores.samples.splits["val"].encounters.tolist() == [3] * 20  # at steps 2, 4 and 6


def test_what_a_step_raises_is_raised_and_the_loop_goes_on(made: Make) -> None:
    experiment = made()
    experiment.train_one_step()
    before = whole_state(session_of(experiment))
    experiment.model.hurt = True
    with pytest.raises(NonFiniteLoss):
        experiment.train_one_step()
    experiment.model.hurt = False
    experiment.model.failure = RuntimeError("in forward")
    with pytest.raises(RuntimeError, match="in forward"):
        experiment.train_n_steps(2)
    experiment.model.failure = None
    assert differences(before, whole_state(session_of(experiment))) == []
    experiment.train_one_step()
    assert session_of(experiment).step == 2


def test_the_iterators_begin_anew(made: Make) -> None:
    experiment = made()
    experiment.reset_data_iterators()  # nothing has begun, so that nothing is opened
    assert experiment._training is None
    experiment.train_n_steps(3)
    first = experiment.eval_one_step()
    assert experiment.eval_one_step() != first
    experiment.reset_data_iterators()
    assert experiment.eval_one_step() == first
    experiment.train_one_step()
    assert session_of(experiment).last_train.rows.tolist() == permutation(7, 1, 50)[:8].tolist()
    experiment.reset_data_iterators()
    experiment.reset_data_iterators()
    experiment.train_one_step()
    assert session_of(experiment).last_train.rows.tolist() == permutation(7, 2, 50)[:8].tolist()


# -- evaluation ----------------------------------------------------------------------------------------


def plain_evaluation(experiment: Experiment, rows: list[int]) -> tuple[float, int]:
    inputs, labels = toy_data(20, seed=1).tensors
    model = experiment.model.eval()
    with torch.no_grad():
        logits = model(inputs[rows])
    model.train()
    correct = int((logits.argmax(1) == labels[rows]).sum())
    return float(F.cross_entropy(logits, labels[rows])), correct


def test_an_evaluation_finds_what_a_plain_one_finds(made: Make) -> None:
    experiment = made()
    experiment.train_n_steps(5)
    experiment.datasets["val"].denylist_samples([0, 13])
    rows = [row for row in range(20) if row not in (0, 13)]
    for _ in range(2):
        loss, percent = experiment.eval_full()
        expected, correct = plain_evaluation(experiment, rows)
        assert loss == pytest.approx(expected, rel=1e-5) and percent == pytest.approx(100 * correct / 18)
    assert experiment.datasets["val"].columns.encounters.sum() == 36
    points = session_of(experiment).stores.metrics.read(full=True, metric="accuracy").points
    assert points.value[points.split == "val"].tolist() == [pytest.approx(correct / 18)] * 2


def test_a_few_batches_are_those_that_come_next(made: Make) -> None:
    experiment = made()
    experiment.train_n_steps(5)
    experiment.datasets["val"].denylist_samples([2])
    rows = [row for row in range(20) if row != 2]  # batches of 8, 8 and 3
    for wanted in (rows[:8], rows[8:16], rows[16:], rows[:8]):
        loss, correct = experiment.eval_one_step()
        expected = plain_evaluation(experiment, wanted)
        assert (loss, correct) == (pytest.approx(expected[0], rel=1e-5), expected[1])
    loss, correct = experiment.eval_n_steps(4)  # two and, from the beginning, two
    expected = plain_evaluation(experiment, [*rows[8:], *rows[:16]])
    assert (loss, correct) == (pytest.approx(expected[0], rel=1e-5), expected[1])
    seen = experiment.datasets["val"].columns.encounters
    assert seen[0] == 3 and seen[2] == 0 and seen[18] == 2
    assert experiment.model.out.eval_dataset_tracker.samples == int(seen.sum())


def test_an_evaluation_leaves_training_as_it_was(made: Make) -> None:
    watched, plain = made(full_eval_frequency=4), made(full_eval_frequency=0)
    for _ in range(3):
        watched.train_n_steps(3)
        watched.eval_n_steps(2)
        watched.eval_full()
    plain.train_n_steps(9)
    assert differences(dict(watched.model.state_dict()), dict(plain.model.state_dict())) == []


def test_without_samples_there_is_nothing_to_evaluate(made: Make) -> None:
    without = made(eval_dataset=None)
    for ask in (without.eval_full, without.eval_one_step, lambda: without.eval_loader):
        with pytest.raises(Refused, match="no eval_dataset"):
            ask()
    empty = made()
    empty.datasets["val"].denylist_samples(range(20))
    with pytest.raises(Refused, match="every sample of eval_dataset is discarded"):
        empty.eval_full()
    with pytest.raises(Invalid, match="n is a whole number of at least 1"):
        empty.eval_n_steps(0)


def test_a_problem_without_classes_has_a_loss_only(made: Make) -> None:
    generator = torch.Generator().manual_seed(0)
    data = torch.utils.data.TensorDataset(
        torch.randn(16, 1, 4, 4, generator=generator), torch.randn(16, 3, generator=generator)
    )
    experiment = made(task="regression", train_dataset=data, eval_dataset=data)
    loss, percent = experiment.eval_full()
    assert loss > 0 and percent is None
    assert experiment.eval_n_steps(2) == (pytest.approx(loss), None)


# -- checkpoints ---------------------------------------------------------------------------------------


def test_what_was_dumped_comes_back(made: Make) -> None:
    experiment = made(full_eval_frequency=2)
    experiment.train_n_steps_with_eval_full(5)
    kept = experiment.dump()
    then = whole_state(session_of(experiment))
    experiment.set_batch_size(5)
    experiment.datasets["train"].denylist_samples([1])
    experiment.train_n_steps(4)
    assert differences(then, whole_state(session_of(experiment))) != []
    experiment.load(kept)
    assert differences(then, whole_state(session_of(experiment))) == []
    assert (experiment.batch_size, experiment.get_is_training()) == (8, False)  # going back pauses a trainer
    experiment.train_one_step()
    assert session_of(experiment).step == 6
    with pytest.raises(NotFound, match="no checkpoint of '000099'"):
        experiment.load(99)
    with pytest.raises(Invalid, match="checkpoint_id is a whole number of at least 1"):
        experiment.load("hash")  # type: ignore[arg-type]


def test_a_run_goes_on_where_it_was_closed(made: Make) -> None:
    first = made("shared")
    first.train_n_steps(5)
    first.set_learning_rate(0.02)
    first.train_n_steps(2)
    first.close()
    first.close()
    assert first.learning_rate == 0.02
    again = made("shared")
    again.train_n_steps(5)
    whole = made("alone")
    whole.train_n_steps(5)
    whole.set_learning_rate(0.02)
    whole.train_n_steps(7)
    assert differences(whole_state(session_of(again)), whole_state(session_of(whole))) == []
    again.close()
    new = made("shared", skip_loading=True)
    new.train_one_step()
    assert session_of(new).step == 1 and len(Root(new.root_log_dir).runs()) == 2


KILLED = """
import os, sys
from tests.small_experiments import toy_experiment
experiment = toy_experiment(root_log_dir=sys.argv[1], full_eval_frequency=2, checkpoint_frequency=50)
experiment.train_n_steps(3)
experiment.eval_full()
experiment.train_n_steps(3)
experiment.set_learning_rate(0.03)
experiment.datasets["train"].denylist_samples([4])
if sys.argv[2] == "kill":
    experiment._training.stores.flusher.drain()
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("how", ["kill", "end"])
def test_what_was_set_survives_the_end_of_the_process(made: Make, root: Path, how: str) -> None:
    code = subprocess.run(
        [sys.executable, "-c", KILLED, str(root / "one"), how], cwd=REPOSITORY, timeout=300, check=False
    ).returncode
    assert code == (-9 if how == "kill" else 0)
    again = made("one", full_eval_frequency=2, checkpoint_frequency=50)
    again.train_one_step()
    other = made("other", full_eval_frequency=2, checkpoint_frequency=50)
    other.train_n_steps(3)
    other.eval_full()
    other.train_n_steps(3)
    other.set_learning_rate(0.03)
    other.datasets["train"].denylist_samples([4])
    other.train_one_step()
    assert differences(whole_state(session_of(again)), whole_state(session_of(other))) == []
    assert [kind for kind, _, _ in journal_of(again)] == ["hp_change", "sample_discard"]


# -- settings ------------------------------------------------------------------------------------------


def test_before_the_work_settings_are_how_it_begins(made: Make) -> None:
    experiment = made(
        scheduler=lambda o: optim.lr_scheduler.StepLR(o, 100), optimizer_class=optim.SGD, full_eval_frequency=3
    )
    experiment.set_learning_rate(0.5)
    experiment.set_batch_size(4)
    experiment.set_name("  mine ")
    experiment.set_training_steps_to_do(7)
    assert experiment._training is None
    assert (experiment.learning_rate, experiment.batch_size, experiment.name) == (0.5, 4, "mine")
    experiment.train_one_step()
    session = session_of(experiment)
    assert (session.learning_rate, session.stream.batch_size, session.name, session.steps_left) == (0.5, 4, "mine", 6)
    assert experiment.optimizer.param_groups[0]["lr"] == 0.5 and experiment.scheduler.base_lrs == [0.5]
    assert session.age == 4 and journal_of(experiment) == []


def test_at_work_settings_are_journalled(made: Make) -> None:
    experiment = made()
    experiment.train_n_steps(2)
    experiment.set_learning_rate(0.5)
    experiment.set_batch_size(4)
    experiment.set_name("mine")
    experiment.set_training_steps_to_do(7)
    experiment.train_one_step()
    experiment.datasets["train"].denylist_samples([4, 5])
    experiment.datasets["train"].allowlist_samples([5])
    session = session_of(experiment)
    assert (experiment.learning_rate, experiment.batch_size, experiment.name) == (0.5, 4, "mine")
    assert (session.steps_left, session.age) == (6, 20)
    expected = [("hp_change", 2, "experiment")] * 4
    assert journal_of(experiment) == [
        *expected, ("sample_discard", 3, "experiment"), ("sample_restore", 3, "experiment")
    ]  # fmt: skip


@pytest.mark.parametrize("at_work", [False, True])
@pytest.mark.parametrize(
    ("method", "value", "message"),
    [
        ("set_learning_rate", 0, "learning_rate is a number above 0"),
        ("set_learning_rate", "fast", "learning_rate is a number above 0"),
        ("set_batch_size", 0, "batch_size is a whole number of at least 1"),
        ("set_name", "", "name is a text"),
        ("set_training_steps_to_do", -1, "training_steps_to_do is a whole number of at least 0"),
        ("set_train_loop_clbk_freq", 0, "steps is a whole number of at least 1"),
        ("register_train_loop_callback", 5, "a train loop callback is a function"),
        ("train_n_steps", -1, "n is a whole number of at least 0"),
    ],
)
def test_wrong_settings_are_refused(made: Make, method: str, value: Any, message: str, at_work: bool) -> None:
    experiment = made()
    if at_work:
        experiment.open()
    with pytest.raises(Invalid, match=message):
        getattr(experiment, method)(value)
    assert (experiment.learning_rate, experiment.batch_size, experiment.name) == (0.01, 8, "experiment")


def test_is_training_tells_a_trainer_that_runs_by_itself(made: Make) -> None:
    experiment = made()
    assert experiment.get_is_training()
    experiment.toggle_training_status()
    assert not experiment.get_is_training() and experiment._training is None
    training = launch(experiment, root_directory=experiment.root_log_dir)
    assert [training.trainer.tick() for _ in range(3)] == [True, False, False]
    assert not experiment.get_is_training() and training.trainer.session.step == 0
    experiment.toggle_training_status()
    assert experiment.get_is_training()
    training.trainer.tick()
    assert training.trainer.session.step == 1
    experiment.set_is_training(False)
    experiment.train_one_step()  # asked for, so made
    training.trainer.tick()
    assert training.trainer.session.step == 2
    assert [kind for kind, _, _ in journal_of(experiment)] == ["pause", "resume", "pause"]


# -- callbacks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_itself", [False, True])
def test_callbacks_come_between_steps_and_may_set_and_evaluate(made: Make, by_itself: bool) -> None:
    experiment = made()
    called: list[tuple[int, int]] = []

    def adjust() -> None:
        called.append((session_of(experiment).step, threading.get_ident()))
        if len(called) == 2:
            experiment.set_learning_rate(experiment.learning_rate / 2)
            experiment.eval_full()

    experiment.register_train_loop_callback(adjust)
    experiment.set_train_loop_clbk_freq(3)
    if by_itself:
        training = launch(experiment, root_directory=experiment.root_log_dir)
        experiment.register_train_loop_callback(lambda: training.stop() if len(called) == 3 else None)
        thread = threading.Thread(target=training.run)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        owner = called[0][1]
        assert owner != threading.get_ident()
    else:
        experiment.train_n_steps(9)
        owner = threading.get_ident()
    assert called == [(3, owner), (6, owner), (9, owner)]
    assert experiment.learning_rate == 0.005
    assert journal_of(experiment) == [("hp_change", 6, "experiment")]
    assert experiment.datasets["val"].columns.encounters.tolist() == [1] * 20


def test_what_a_callback_raises_is_raised_or_shown(made: Make) -> None:
    experiment = made()
    experiment.register_train_loop_callback(lambda: 1 // 0)
    experiment.set_train_loop_clbk_freq(2)
    with pytest.raises(ZeroDivisionError):
        experiment.train_n_steps(5)
    training = launch(experiment, root_directory=experiment.root_log_dir)
    tick_until(training, lambda: training.trainer.latest().error != "")
    assert "ZeroDivisionError" in training.trainer.latest().error
    assert training.trainer.session.step == 4


# -- a backend beside it -------------------------------------------------------------------------------


def test_a_launch_takes_over_what_the_loop_has_opened(made: Make, root: Path) -> None:
    experiment = made("here", full_eval_frequency=3)
    experiment.train_n_steps_with_eval_full(4)
    training = launch(experiment, root_directory=root / "here")
    assert training is experiment._training
    tick_until(training, lambda: training.trainer.session.step == 8)
    expected = trained_by_a_trainer(root / "trainer", 8, full_eval_frequency=3)
    assert differences(whole_state(training.trainer.session), expected) == []
    with pytest.raises(Refused, match=r"at work in run .* already; close\(\) it before you launch a run in"):
        launch(experiment, root_directory=root / "here")
    training.close()
    assert experiment._training is None
    launch(experiment, root_directory=root / "here", new_run=True).close()


@pytest.mark.parametrize(("folder", "new_run"), [("there", False), ("here", True)])
def test_a_launch_elsewhere_is_refused_until_it_is_closed(made: Make, root: Path, folder: str, new_run: bool) -> None:
    experiment = made("here")
    experiment.train_one_step()
    with pytest.raises(Refused, match=rf"at work in run .* in {root}/here already; close\(\) it before you launch"):
        launch(experiment, root_directory=root / folder, new_run=new_run)
    experiment.train_one_step()
    with pytest.raises(Refused, match=rf"at work in run .* in {root}/here, not in {root}/there; close\(\) it first"):
        experiment.open(root / "there")
    experiment.close()
    launch(experiment, root_directory=root / folder, new_run=new_run).close()


def test_two_experiments_do_not_share_a_root(made: Make) -> None:
    first, second = made("shared"), made("shared")
    first.train_one_step()
    with pytest.raises(Refused, match=r"another backend .* If an experiment of this process has it open, close\(\)"):
        second.train_one_step()
    first.close()
    second.train_one_step()
    assert session_of(second).step == 2


def test_a_trainer_that_runs_makes_the_steps_and_takes_the_settings(made: Make) -> None:
    experiment = made()
    training = launch(experiment, root_directory=experiment.root_log_dir)
    thread = threading.Thread(target=training.run)
    thread.start()
    try:
        experiment.set_learning_rate(0.5)  # by the queue: it is the other thread's
        experiment.set_is_training(False)
        experiment.datasets["train"].denylist_samples([4])
        kept = experiment.dump()
        assert kept in experiment.chkpt_manager.id_to_path
        for ask in (experiment.train_one_step, experiment.eval_full, experiment.reset_data_iterators):
            with pytest.raises(Refused, match=r"cannot .*: the trainer runs"):
                ask()
        with pytest.raises(Refused, match=r"stop\(\) the training before you close it"):
            experiment.close()
    finally:
        training.stop()
        thread.join(PATIENCE)
    assert not thread.is_alive()
    assert [kind for kind, _, _ in journal_of(experiment)] == ["hp_change", "pause", "sample_discard"]
    with pytest.raises(Refused, match="the training was stopped; close it, and begin anew"):
        experiment.train_one_step()
    with pytest.raises(Refused, match="the trainer is stopping"):
        experiment.set_batch_size(4)


def test_commands_of_others_come_between_the_loops_steps(made: Make) -> None:
    experiment = made()
    experiment.train_one_step()
    assert experiment._training is not None
    trainer = experiment._training.trainer
    asked = [
        trainer.submit(command, actor="somebody")
        for command in (SetHyperParameters({"batch_size": 5}), Pause(), DiscardSamples((("train", "3"),)))
    ]
    experiment.train_n_steps(2)
    assert [future.exception(PATIENCE) for future in asked] == [None] * 3
    assert session_of(experiment).age == 8 + 5 + 5 and trainer.latest().step == 3
    assert journal_of(experiment)[0] == ("hp_change", 1, "somebody")


def test_a_replay_that_stops_is_told_and_tried_again(made: Make, root: Path) -> None:
    code = subprocess.run(
        [sys.executable, "-c", KILLED.replace("experiment.eval_full()", ""), str(root / "one"), "kill"],
        cwd=REPOSITORY, timeout=300, check=False,
    ).returncode  # fmt: skip
    assert code == -9
    run = Root(root / "one").latest_run()
    assert run is not None
    for path in (run.path / "checkpoints").glob("*"):
        if path.is_file() and path.stem > "000001":
            path.unlink()
    again = made("one", full_eval_frequency=2, checkpoint_frequency=50)
    again.model.failure = RuntimeError("in forward")
    for ask in (again.train_one_step, again.dump, lambda: again.set_batch_size(4)):
        with pytest.raises(Refused, match=r"Recovery stopped at step 0: .*in forward.*set_is_training\(True\)"):
            ask()
    again.model.failure = None
    again.set_is_training(True)
    again.train_one_step()
    assert session_of(again).step == 7 and again.datasets["train"].is_deny_listed(4)


def test_a_second_launch_of_the_same_experiment_scales_updates_once(made: Make, root: Path) -> None:
    """Neurons have learning rates of their own through the optimizer's hooks, which must not be hung in twice."""
    edits = [SetLearningRate("conv", (1, 2), 0.25)]

    def edited(experiment: Experiment) -> Experiment:
        assert experiment._training is not None
        for edit in edits:
            experiment._training.by_hand.command(EditNeurons(edit))
        return experiment

    again = made("again")
    again.train_n_steps(2)
    edited(again)
    again.close()
    with pytest.raises(Refused, match="another backend"), Root(root / "again").lock():
        again.open()
    again.train_n_steps(3)
    at_once = made("at once")
    at_once.train_n_steps(2)
    edited(at_once)
    at_once.train_n_steps(3)
    assert differences(whole_state(session_of(again)), whole_state(session_of(at_once))) == []


def test_a_launch_that_fails_leaves_the_samples_as_they_were(made: Make) -> None:
    first = made("shared")
    first.train_n_steps(3)
    first.close()
    other = made("shared", optimizer_class=optim.SGD)
    other.datasets["train"].denylist_samples([1])
    with pytest.raises(GrayboxError, match="the optimizer is Adam there and SGD"):
        other.train_one_step()
    known = other.datasets["train"].columns
    assert known.discarded.nonzero()[0].tolist() == [1] and not known.encounters.any()
    with pytest.raises(StorageError, match="file"):
        (first.root_log_dir / "file").write_text("")
        made(root_log_dir=first.root_log_dir / "file").train_one_step()


# -- what a script looks at ----------------------------------------------------------------------------


def test_the_loaders_give_the_samples_in_use_with_their_ids(made: Make) -> None:
    experiment = made()
    inputs, labels = toy_data().tensors
    experiment.train_loader.dataset.denylist_samples([3])
    seen: list[list[int]] = []
    for _ in range(2):
        before = torch.random.get_rng_state()
        batches = list(experiment.train_loader)
        assert torch.equal(before, torch.random.get_rng_state())
        assert len(batches) == len(experiment.train_loader) == 7
        seen.append(torch.cat([ids for _, ids, _ in batches]).tolist())
        for data, ids, targets in batches:
            assert torch.equal(data, inputs[ids]) and torch.equal(targets, labels[ids])
        assert sorted(seen[-1]) == [row for row in range(50) if row != 3] != seen[-1]
    loader = experiment.train_loader
    orders = [[int(i) for _, ids, _ in loader for i in ids] for _ in range(2)]
    assert orders[0] != orders[1]
    assert torch.cat([ids for _, ids, _ in experiment.eval_loader]).tolist() == list(range(20))
    experiment.train_n_steps(2)
    experiment.set_batch_size(10)
    assert len(experiment.train_loader) == 5 and experiment.train_loader.dataset is experiment.datasets["train"]
    assert not experiment.train_loader.dataset.get_exposure_amount(3)


def test_a_wrapper_that_was_given_is_the_experiments(made: Make) -> None:
    experiment = made()
    samples = experiment.datasets["val"]
    other = made(train_dataset=samples, eval_dataset=samples)
    assert other.datasets["train"] is samples and other.datasets["val"] is not samples
    assert other.datasets["val"].dataset is samples.dataset


def test_display_stats_prints_neurons_and_samples(made: Make, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = made()
    experiment.train_n_steps(2)
    experiment.eval_full()
    experiment.datasets["train"].denylist_samples([3])
    experiment.display_stats()
    shown = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split() for line in shown if line}
    assert rows["split"] == ["split", "samples", "discarded", "seen", "wrong", "loss"]
    assert rows["train"][1:4] == ["50", "1", "16"] and rows["val"][1:4] == ["20", "0", "20"]
    known = experiment.datasets["val"].columns
    assert float(rows["val"][5]) == pytest.approx(float(known.loss.mean()), abs=1e-4)
    assert int(rows["val"][4]) == int((known.prediction != known.label).sum())


def test_the_journal_on_disk_is_what_was_done(made: Make) -> None:
    experiment = made()
    experiment.train_one_step()
    experiment.set_batch_size(4)
    assert experiment._training is not None
    path = experiment._training.stores.run.path / "journal.jsonl"
    assert [entry.summary for entry in Journal(path, read_only=True).entries()] == ["Set batch size 8 → 4"]
