"""The owner: commands between two steps, pause within one, failed steps shown and survived, recovery."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import optim
from torch.utils.data import TensorDataset

from graybox import neuron_window
from graybox import trainer as trainer_module
from graybox.commands import (
    Command,
    DiscardSamples,
    EditNeurons,
    Outcome,
    Pause,
    ReadActivations,
    ReadWeights,
    RestoreCheckpoint,
    Resume,
    SaveCheckpoint,
    SetHyperParameters,
    SetPlotNote,
)
from graybox.dash import Dash
from graybox.errors import DeadlinePassed, GrayboxError, Invalid, NotFound, Refused
from graybox.experiment import Experiment
from graybox.launch import Training, launch
from graybox.model_with_ops import DepType, NetworkWithOps
from graybox.modules_with_ops import Conv2dWithNeuronOps, LinearWithNeuronOps
from graybox.neuron_ops import Freeze, Reinitialize, SetLearningRate
from graybox.snapshot import TrainerState
from tests.patience import PATIENCE
from tests.small_experiments import crash

Launch = Callable[..., Training]


class Net(NetworkWithOps):
    """A convolution and a linear layer; fails on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv2dWithNeuronOps(1, 4, 3)
        self.out = LinearWithNeuronOps(16, 3)
        self.register_dependencies([(self.conv, self.out, DepType.INCOMING)])
        self.failure: Exception | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.failure is not None and self.training:
            raise self.failure
        logits: torch.Tensor = self.out(torch.relu(self.conv(x)).flatten(1))
        return logits


class Pictures(TensorDataset):
    """Random pictures, of which some may be unreadable or not a number."""

    def __init__(self, count: int = 40) -> None:
        numbers = torch.Generator().manual_seed(0)
        super().__init__(
            torch.randn(count, 1, 4, 4, generator=numbers), torch.randint(0, 3, (count,), generator=numbers)
        )
        self.unreadable: set[int] = set()
        self.loaded = 0

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        self.loaded += 1
        if index in self.unreadable:
            raise OSError(f"picture {index} is broken")
        return super().__getitem__(index)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Launch]:
    open_now: list[Training] = []

    def begin(**changes: Any) -> Training:
        torch.manual_seed(0)
        options: dict[str, Any] = {
            "model": Net(), "optimizer_class": optim.Adam, "train_dataset": Pictures(), "eval_dataset": Pictures(9),
            "learning_rate": 0.01, "batch_size": 8, "training_steps_to_do": 1_000, "seed": 3,
            "full_eval_frequency": 0, "checkpoint_frequency": 0,
        }  # fmt: skip
        root = changes.pop("root", tmp_path / "root")
        training = launch(Experiment(**{**options, **changes}), root_directory=root)
        open_now.append(training)
        return training

    yield begin
    for training in open_now:
        training.trainer.end()
        training.close()


def do(training: Training, command: Command, **options: Any) -> Outcome:
    """Submit, tick once, and wait for the answer."""
    future = training.trainer.submit(command, **options)
    training.trainer.tick()
    return future.result(PATIENCE)


def ticks(training: Training, count: int) -> None:
    for _ in range(count):
        training.trainer.tick()


def bits(training: Training) -> list[bytes]:
    session = training.trainer.session
    tensors = list(session.network.state_dict().values())
    for state in session.experiment.optimizer.state.values():
        tensors += list(state.values())
    for layer in session.network.layers:
        tensors += [layer.train_dataset_tracker.triggers, layer.frozen, layer.neuron_learning_rate]
    return [tensor.numpy().tobytes() for tensor in tensors]


def test_a_tick_makes_one_step(start: Launch) -> None:
    training = start()
    for step in range(1, 6):
        assert training.trainer.tick()
        assert training.trainer.latest().step == step
        assert training.trainer.latest().age == 8 * step


def test_pause_and_resume_take_effect_within_one_step(start: Launch) -> None:
    training = start()
    ticks(training, 3)
    future = training.trainer.submit(Pause())
    training.trainer.tick()
    assert training.trainer.latest().step == 3
    assert training.trainer.latest().state is TrainerState.PAUSED
    assert future.result(PATIENCE).message == "Paused"
    assert not training.trainer.tick()  # nothing to do: whoever runs it may sleep
    do(training, Resume())
    assert training.trainer.latest().step == 4


def test_a_pause_behind_a_long_queue_still_stops_the_next_step(start: Launch) -> None:
    training = start()
    waiting = [training.trainer.submit(ReadWeights("conv")) for _ in range(3 * trainer_module.COMMANDS_PER_TICK)]
    training.trainer.submit(Pause())
    ticks(training, 6)
    assert training.trainer.latest().step == 0
    assert all(future.done() for future in waiting)


def test_a_running_trainer_pauses_between_two_steps_of_another_thread(start: Launch) -> None:
    training = start()
    owner = threading.Thread(target=training.run)
    owner.start()
    try:
        while training.trainer.latest().step < 5:
            time.sleep(0.005)
        before = training.trainer.latest().step
        training.trainer.submit(Pause()).result(PATIENCE)
        paused_at = training.trainer.latest().step
        time.sleep(0.1)
        assert training.trainer.latest().step == paused_at
        assert paused_at >= before
    finally:
        training.stop()
        owner.join(PATIENCE)
    assert not owner.is_alive()


@pytest.mark.parametrize(
    ("command", "kind", "said"),
    [
        (EditNeurons(Freeze("nowhere", (0,))), NotFound, "nowhere"),
        (EditNeurons(Freeze("conv", (4,))), NotFound, "no neuron 4"),
        (SetHyperParameters({"learning_rate": -1.0}), Invalid, "learning_rate is a number above 0"),
        (SetHyperParameters({"learning_rate": 0.1, "momentum": 0.1}), Invalid, "momentum"),
        (DiscardSamples((("train", "40"),)), NotFound, "no sample '40'"),
        (DiscardSamples((("nirvana", "0"),)), NotFound, "no split 'nirvana'"),
        (DiscardSamples(tuple(("train", str(i)) for i in range(40))), Refused, "no training sample"),
        (RestoreCheckpoint("000999"), NotFound, "000999"),
        (SetPlotNote("train", "nonsense", 0, 1, "x"), NotFound, "nonsense"),
        (SaveCheckpoint("x" * 201), Invalid, "200 characters"),
        (ReadWeights("conv", "momentum"), NotFound, "momentum"),
        (ReadActivations("conv", "train", "77"), NotFound, "77"),
    ],
)
def test_a_refused_command_changes_nothing_and_training_goes_on(
    start: Launch, tmp_path: Path, command: Command, kind: type[GrayboxError], said: str
) -> None:
    training, twin = start(), start(root=tmp_path / "twin")
    ticks(training, 3)
    ticks(twin, 3)
    with pytest.raises(kind, match=said):
        do(training, command)
    twin.trainer.tick()
    assert bits(training) == bits(twin)
    assert training.trainer.latest().step == 4
    assert training.stores.journal.entries() == []


def test_a_command_sent_twice_is_applied_once_also_after_a_restart(start: Launch) -> None:
    training = start()
    first = training.trainer.submit(SetHyperParameters({"batch_size": 5}), command_id="a")
    again = training.trainer.submit(SetHyperParameters({"batch_size": 5}), command_id="a")
    training.trainer.tick()
    assert first.result(PATIENCE) == again.result(PATIENCE)
    assert len(training.stores.journal.entries()) == 1
    crash(training)
    training = start()
    third = training.trainer.submit(SetHyperParameters({"batch_size": 5}), command_id="a")
    ticks(training, 5)
    assert third.result(PATIENCE).sequence == first.result(PATIENCE).sequence
    assert len(training.stores.journal.entries()) == 1


def test_a_command_is_not_applied_after_its_deadline(start: Launch) -> None:
    training = start()
    late = training.trainer.submit(EditNeurons(Freeze("conv")), timeout=0.01, command_id="late")
    time.sleep(0.05)
    training.trainer.tick()
    with pytest.raises(DeadlinePassed):
        late.result(PATIENCE)
    assert not training.trainer.session.network.find_layer("conv")[1].frozen.any()
    # Nothing was applied, so that the same id may be tried again.
    assert do(training, EditNeurons(Freeze("conv")), command_id="late").message == "Froze neurons 0-3 of conv"


def test_a_cancelled_command_is_not_applied(start: Launch) -> None:
    training = start()
    future = training.trainer.submit(Pause())
    assert future.cancel()
    training.trainer.tick()
    assert training.trainer.latest().step == 1


def test_a_failing_step_pauses_shows_its_traceback_and_leaves_no_trace(start: Launch) -> None:
    training = start()
    ticks(training, 4)
    before = bits(training)
    training.trainer.session.network.failure = ValueError("the user's own mistake")
    training.trainer.tick()
    shown = training.trainer.latest()
    assert shown.state is TrainerState.FAILED and shown.step == 4
    assert shown.error == "ValueError: the user's own mistake"
    assert "in forward" in shown.traceback and "test_trainer.py" in shown.traceback
    assert bits(training) == before
    entry = training.stores.journal.entries()[-1]
    assert (entry.kind, entry.actor, entry.step) == ("step_failed", "trainer", 4)
    assert not training.trainer.tick()  # it stays paused
    training.trainer.session.network.failure = None
    do(training, Resume())
    assert training.trainer.latest().step == 5 and training.trainer.latest().error == ""


def test_a_sample_that_cannot_be_loaded_is_named_and_can_be_discarded(start: Launch) -> None:
    pictures = Pictures()
    pictures.unreadable = {17}
    training = start(train_dataset=pictures)
    ticks(training, 10)
    assert training.trainer.latest().state is TrainerState.FAILED
    assert "sample 17" in training.trainer.latest().error and "picture 17 is broken" in training.trainer.latest().error
    assert "__getitem__" in training.trainer.latest().traceback
    do(training, DiscardSamples((("train", "17"),)))
    do(training, Resume())
    ticks(training, 20)
    assert training.trainer.latest().state is TrainerState.RUNNING
    seen = training.stores.samples.splits["train"].encounters
    assert seen[17] == 0 and (np.delete(seen, 17) > 0).all()


def test_a_loss_that_is_no_number_stops_before_the_weights_are_touched(start: Launch) -> None:
    pictures = Pictures()
    pictures.tensors[0][5] = float("nan")
    training = start(train_dataset=pictures)
    while training.trainer.latest().state is TrainerState.RUNNING:
        training.trainer.tick()
    assert "the loss is nan (from training sample 5)" in training.trainer.latest().error
    assert all(torch.isfinite(p).all() for p in training.trainer.session.network.parameters())


def test_a_failed_step_is_still_shown_after_a_restart(start: Launch) -> None:
    training = start()
    ticks(training, 4)
    training.trainer.session.network.failure = ValueError("again")
    training.trainer.tick()
    crash(training)
    training = start()
    while training.trainer.tick():
        pass
    assert training.trainer.latest().state is TrainerState.FAILED
    assert (training.trainer.latest().step, training.trainer.latest().error) == (4, "ValueError: again")


def test_recovery_that_fails_says_so_and_goes_on_when_told(start: Launch) -> None:
    training = start()
    ticks(training, 6)
    do(training, EditNeurons(Freeze("conv", (1,))))
    crash(training)
    model = Net()
    model.failure = RuntimeError("not now")
    training = start(model=model)
    ticks(training, 3)
    assert training.trainer.latest().error == "Recovery stopped at step 0: RuntimeError: not now"
    with pytest.raises(Refused, match="recovery has stopped"):
        do(training, SetHyperParameters({"batch_size": 5}))
    model.failure = None
    assert do(training, Resume()).message == "Recovery goes on"
    while training.trainer.latest().state is not TrainerState.RUNNING:
        training.trainer.tick()
    assert training.trainer.session.network.find_layer("conv")[1].frozen.tolist() == [False, True, False, False]


def test_commands_wait_while_it_recovers(start: Launch) -> None:
    training = start()
    ticks(training, 6)
    do(training, Pause())
    crash(training)
    training = start()
    assert training.trainer.latest().state is TrainerState.RECOVERING
    waits = training.trainer.submit(EditNeurons(SetLearningRate("out", (0,), 0.5)))
    gone = training.trainer.submit(EditNeurons(Freeze("out")), timeout=0.0)
    time.sleep(0.01)
    ticks(training, 2)
    assert not waits.done()
    with pytest.raises(DeadlinePassed):
        gone.result(PATIENCE)
    while training.trainer.tick():
        pass
    assert waits.result(PATIENCE).sequence == 2
    assert training.trainer.latest().state is TrainerState.PAUSED and training.trainer.latest().step == 6


@pytest.mark.parametrize("evaluation_first", [True, False])
def test_replay_keeps_the_order_of_an_evaluation_and_a_command_at_one_step(
    start: Launch, tmp_path: Path, evaluation_first: bool
) -> None:
    # A scheduler that follows the evaluation loss makes the order matter for the weights.
    def plateau(optimizer: optim.Optimizer) -> Any:
        return optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)

    training = start(full_eval_frequency=4, scheduler=plateau)
    ticks(training, 4 if not evaluation_first else 7)
    assert training.trainer.latest().step == 4
    assert (training.trainer.session.last_evaluation_step == 4) is evaluation_first
    do(training, EditNeurons(Reinitialize("out")))
    while training.trainer.latest().step < 30:
        training.trainer.tick()
    do(training, Pause())
    expected = bits(training)
    crash(training)
    training = start(full_eval_frequency=4, scheduler=plateau)
    while training.trainer.tick():
        pass
    assert training.trainer.latest().step == 30
    assert bits(training) == expected


def test_steps_run_out_and_more_can_be_given(start: Launch) -> None:
    training = start(training_steps_to_do=3, full_eval_frequency=10)
    ticks(training, 10)
    done = training.trainer.latest()
    assert (done.state, done.step, done.steps_left) == (TrainerState.COMPLETED, 3, 0)
    assert done.eval_loss is not None  # a last look before it ends
    do(training, SetHyperParameters({"training_steps_to_do": 2}))
    ticks(training, 10)
    assert training.trainer.latest().step == 5


def test_a_restore_goes_back_makes_a_branch_and_pauses(start: Launch) -> None:
    training = start()
    ticks(training, 4)
    saved = training.trainer.submit(SaveCheckpoint("good"))
    training.trainer.tick()
    record = saved.result(PATIENCE).value
    after_one_step = bits(training)
    ticks(training, 7)
    do(training, DiscardSamples((("train", "0"),)))
    outcome = do(training, RestoreCheckpoint(record.reference))
    now = training.trainer.latest()
    assert (now.state, now.step, now.age, now.branch, outcome.value) == (TrainerState.PAUSED, 4, 32, 1, 1)
    assert not training.stores.samples.splits["train"].discarded.any()
    training.stores.flusher.drain()
    kept = training.stores.checkpoints.list()
    # The run began at step 12's bits when it was left: nothing is lost.
    assert [(c.reason, c.step, c.branch) for c in kept[-2:]] == [("before restore", 13, 0), ("branch", 4, 1)]
    # A new branch has measured nothing yet: it tells what was known at that step.
    assert kept[-1].metrics == record.metrics != kept[-2].metrics
    do(training, Resume())
    assert bits(training) == after_one_step


def test_a_restore_of_weights_only_keeps_everything_else(start: Launch) -> None:
    training = start()
    ticks(training, 4)
    saved = training.trainer.submit(SaveCheckpoint())
    do(training, Pause())
    record = saved.result(PATIENCE).value
    weights = {k: v.clone() for k, v in training.trainer.session.network.state_dict().items()}
    do(training, Resume())
    ticks(training, 5)
    step, age = training.trainer.latest().step, training.trainer.latest().age
    outcome = do(training, RestoreCheckpoint(f"{record.experiment_hash}@@weights_step=4"))
    now = training.trainer.latest()
    assert (now.step, now.age, now.branch, outcome.value) == (step, age, 0, None)
    for name, value in training.trainer.session.network.state_dict().items():
        assert torch.equal(value, weights[name])


def test_evaluations_do_not_disturb_training(start: Launch, tmp_path: Path) -> None:
    without, with_them = start(), start(root=tmp_path / "other", full_eval_frequency=2)
    while without.trainer.latest().step < 10:
        without.trainer.tick()
    while with_them.trainer.latest().step < 10:
        with_them.trainer.tick()
    assert bits(without) == bits(with_them)
    assert with_them.trainer.latest().eval_accuracy is not None


def test_an_edit_in_the_middle_of_an_evaluation_starts_it_anew(start: Launch) -> None:
    training = start(full_eval_frequency=3, eval_dataset=Pictures(20))
    ticks(training, 4)
    assert "evaluating val: 8 of 20" in training.trainer.latest().activity
    do(training, EditNeurons(Reinitialize("conv", (0,))))
    assert "evaluating val: 8 of 20" in training.trainer.latest().activity
    ticks(training, 3)
    assert training.trainer.session.last_evaluation is not None
    assert training.trainer.session.last_evaluation.samples == 20


def test_metrics_and_samples_are_there_after_a_restart(start: Launch) -> None:
    training = start(full_eval_frequency=4)
    ticks(training, 12)
    latest = training.stores.metrics.latest()
    step = training.trainer.latest().step
    training.trainer.end()
    training.close()
    training.close = lambda: None  # type: ignore[method-assign]
    training.trainer.end = lambda: None  # type: ignore[method-assign]
    again = start(full_eval_frequency=4)
    assert again.stores.run.run_id == training.stores.run.run_id
    assert again.stores.metrics.latest() == latest
    assert again.trainer.latest().step == step
    assert again.stores.samples.splits["train"].encounters.sum() == step * 8


def test_many_readers_share_one_copy_of_neuron_statistics(start: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = []
    real = neuron_window.copy_statistics
    monkeypatch.setattr(neuron_window, "copy_statistics", lambda *a: copies.append(time.monotonic()) or real(*a))
    training = start()
    owner = threading.Thread(target=training.run)
    owner.start()
    readers = [
        threading.Thread(target=lambda: [training.trainer.neurons() for _ in range(40) if not time.sleep(0.025)])
        for _ in range(4)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(PATIENCE)
    training.stop()
    owner.join(PATIENCE)
    assert len(copies) >= 2
    assert all(later - earlier > 0.5 for earlier, later in itertools.pairwise(copies))


def test_a_stopping_trainer_refuses_what_comes_late(start: Launch) -> None:
    training = start()
    training.stop()
    with pytest.raises(Refused, match="stopping"):
        training.trainer.submit(Pause()).result(PATIENCE)


def test_a_read_leaves_no_trace(start: Launch, tmp_path: Path) -> None:
    training, twin = start(), start(root=tmp_path / "twin")
    for _ in range(5):
        do(training, ReadActivations("conv", "train", "3"))
        do(training, ReadWeights("out", "bias"))
        training.images.image("train", "3", 8, 8)
        ticks(twin, 2)
    while training.trainer.latest().step < twin.trainer.latest().step:
        training.trainer.tick()
    assert bits(training) == bits(twin)


def test_activations_are_what_the_layer_answers(start: Launch) -> None:
    training = start()
    ticks(training, 3)
    training.trainer.session.running = False
    session = training.trainer.session
    picture = session.experiment.datasets["train"].dataset[3][0]
    conv = session.network.find_layer("conv")[1]
    expected = torch.nn.functional.conv2d(picture[None], conv.weight, conv.bias)[0].detach().numpy()
    found = do(training, ReadActivations("conv", "train", "3")).value
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_the_user_logs_becomes_a_metric(start: Launch) -> None:
    training = start()
    training.experiment.logger.add_scalars("gradient norm", {"train": 0.25}, global_step=4)
    ticks(training, 1)
    point = training.stores.metrics.latest()["train", "gradient norm"]
    assert (point.value, point.age) == (0.25, 4)


def test_a_defect_in_a_command_belongs_to_who_asked(start: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    training = start()

    def broken(*_: object) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr(trainer_module, "read_weights", broken)
    future: Future[Outcome] = training.trainer.submit(ReadWeights("conv"))
    ticks(training, 2)
    with pytest.raises(KeyError):
        future.result(PATIENCE)
    assert training.trainer.latest().state is TrainerState.RUNNING


def test_a_note_on_a_curve_that_does_not_come_again_does_not_stop_recovery(
    start: Launch, caplog: pytest.LogCaptureFixture
) -> None:
    logger = Dash("unused")
    training = start(logger=logger)
    logger.add_scalars("mine", {"once": 1.0})
    ticks(training, 2)
    do(training, Pause())
    logged_at = int(training.stores.metrics.latest()["once", "mine"].age)
    do(training, SetPlotNote("once", "mine", 0, logged_at, "look here"))
    do(training, EditNeurons(Freeze("conv", (1,))))
    crash(training)
    training = start()
    while training.trainer.latest().state is TrainerState.RECOVERING:
        training.trainer.tick()
    assert training.trainer.latest().state is TrainerState.PAUSED
    assert training.trainer.session.network.find_layer("conv")[1].frozen.tolist() == [False, True, False, False]
    assert "left out a note (journal entry 2)" in caplog.text


def test_nobody_waits_for_a_checkpoint_that_is_being_written(start: Launch) -> None:
    training = start()
    written = threading.Event()
    training.stores.flusher.submit(lambda: written.wait(2 * PATIENCE))  # as long as a large checkpoint on a slow disk
    try:
        paused = training.trainer.submit(Pause())
        training.trainer.tick()
        assert paused.result(PATIENCE).message == "Paused" and not written.is_set()
    finally:
        written.set()


def test_a_disk_that_does_not_keep_up_leaves_out_checkpoints_and_does_not_fill_the_memory(start: Launch) -> None:
    training = start(checkpoint_frequency=1)
    flusher, disk = training.stores.flusher, threading.Event()
    blocked = flusher.submit(lambda: disk.wait(5 * PATIENCE))
    try:
        ticks(training, 100)
        step = training.trainer.session.step
        assert step > 60 and 0 < flusher.waiting <= 10
    finally:
        disk.set()
    assert blocked.result(PATIENCE) and flusher.drain(PATIENCE)
    ticks(training, 4)
    assert flusher.drain(PATIENCE)
    assert training.stores.checkpoints.list()[-1].step >= step
