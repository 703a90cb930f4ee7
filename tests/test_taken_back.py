"""A disk that refuses to record an intervention: it is taken back, bit for bit, and training goes on as it was."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch.optim.lr_scheduler import LambdaLR, StepLR

from graybox.commands import Command, DiscardSamples, EditNeurons, Pause, Resume, SetHyperParameters
from graybox.errors import StorageError
from graybox.launch import Training, launch
from graybox.neuron_ops import (
    AddNeurons,
    Freeze,
    OverrideBiases,
    Reinitialize,
    RemoveNeurons,
    Select,
    SetLearningRate,
    SortByStat,
)
from graybox.sample_interventions import MAX_INLINE
from graybox.snapshot import TrainerState
from graybox.store.journal import Journal
from graybox.taken_back import NotRecorded, recorded_or_taken_back
from tests.patience import PATIENCE
from tests.small_experiments import crash, tick_until, toy_data, toy_experiment, whole_state
from tests.small_networks import differences

COMMANDS: dict[str, Command] = {
    "remove": EditNeurons(RemoveNeurons("conv", (1,))),
    "add": EditNeurons(AddNeurons("conv", count=2)),
    "sort": EditNeurons(SortByStat("conv")),
    "reinitialise": EditNeurons(Reinitialize("conv", (0, 2), zero_outgoing=True)),
    "override": EditNeurons(OverrideBiases("conv", (0,), values=[0.5])),
    "freeze": EditNeurons(Freeze("conv", (1,))),
    "rate": EditNeurons(SetLearningRate("conv", (1,), rate=0.5)),
    "remove of several layers": EditNeurons(RemoveNeurons(""), select=Select(lowest=2)),
    "hyper-parameters": SetHyperParameters({"learning_rate": 0.5, "batch_size": 3}),
    "few samples": DiscardSamples((("train", "3"), ("val", "4"))),
    "many samples": DiscardSamples(tuple(("train", str(row)) for row in range(MAX_INLINE + 5))),
}
KEEPS_A_BLOB = ("remove", "reinitialise", "override", "remove of several layers", "many samples")


@pytest.fixture
def start(root: Path) -> Iterator[Callable[[], Training]]:
    open_now: list[Training] = []

    def begin() -> Training:
        options = {"train_dataset": toy_data(MAX_INLINE + 50), "training_steps_to_do": 1_000, "full_eval_frequency": 0}
        training = launch(toy_experiment(**options), root_directory=root)
        open_now.append(training)
        return training

    yield begin
    for training in open_now:
        training.trainer.end()
        training.close()


def do(training: Training, command: Command) -> Any:
    future = training.trainer.submit(command)
    training.trainer.tick()
    return future.result(PATIENCE)


def apply_only(training: Training, command: Command) -> None:
    """Without the step that a tick makes behind it."""
    future = training.trainer.submit(command)
    training.trainer._apply_waiting()
    future.result(PATIENCE)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[Journal], Any]:
    """A context in which the file system has no room for another line of a journal."""
    write = os.write

    @contextmanager
    def full(journal: Journal) -> Iterator[None]:
        def refuse(descriptor: int, content: bytes) -> int:
            if descriptor == journal._descriptor:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(descriptor, content)

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", refuse)
            yield

    return full


@pytest.mark.parametrize("what", COMMANDS)
def test_what_the_journal_does_not_take_is_taken_back(
    start: Callable[[], Training], full_disk: Callable[[Journal], Any], what: str
) -> None:
    training = start()
    tick_until(training, lambda: training.trainer.session.step == 4)
    session = training.trainer.session
    before, sequence = whole_state(session), session.stores.journal.last_sequence
    with full_disk(session.stores.journal), pytest.raises(NotRecorded, match=r"nothing was changed.*No space left"):
        apply_only(training, COMMANDS[what])
    assert differences(before, whole_state(session)) == []
    assert session.stores.journal.last_sequence == sequence
    now = training.trainer.latest()
    assert (now.state, now.error) == (TrainerState.RUNNING, "")
    do(training, COMMANDS[what])  # the disk is well again
    assert session.step == 5


@pytest.mark.parametrize("what", KEEPS_A_BLOB)
def test_what_undoes_it_cannot_be_kept(start: Callable[[], Training], what: str) -> None:
    training = start()
    tick_until(training, lambda: training.trainer.session.step == 4)
    session = training.trainer.session
    before = whole_state(session)
    in_the_way = session.stores.run.path / "blobs"
    in_the_way.write_text("")
    with pytest.raises(StorageError, match="blobs"):
        apply_only(training, COMMANDS[what])
    assert differences(before, whole_state(session)) == []
    assert training.trainer.latest().state is TrainerState.RUNNING
    in_the_way.unlink()
    do(training, COMMANDS[what])


def test_a_run_that_had_to_take_back_replays_as_one_that_never_tried(
    start: Callable[[], Training], full_disk: Callable[[Journal], Any]
) -> None:
    training = start()
    tick_until(training, lambda: training.trainer.session.step == 3)
    for what in ("remove", "few samples", "hyper-parameters"):
        with full_disk(training.stores.journal), pytest.raises(NotRecorded):
            apply_only(training, COMMANDS[what])
    do(training, COMMANDS["freeze"])
    tick_until(training, lambda: training.trainer.session.step == 8)
    do(training, Pause())
    there = whole_state(training.trainer.session)
    crash(training)
    again = start()
    tick_until(again, lambda: again.trainer.latest().state is TrainerState.PAUSED)
    found = whole_state(again.trainer.session)
    assert differences(there, found) == []


def test_where_taking_back_fails_too_training_pauses_and_the_present_is_kept(
    start: Callable[[], Training], full_disk: Callable[[Journal], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = start()
    tick_until(training, lambda: training.trainer.session.step == 3)
    session = training.trainer.session
    set_discarded, calls = session.stores.samples.set_discarded, []

    def once(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) > 1:
            raise StorageError("cannot write the sample log")
        return set_discarded(*arguments)

    with monkeypatch.context() as broken, full_disk(session.stores.journal):
        broken.setattr(session.stores.samples, "set_discarded", once)
        with pytest.raises(StorageError, match="sample log"):
            apply_only(training, DiscardSamples((("train", "3"),)))
    now = training.trainer.latest()
    assert (now.state, now.step) == (TrainerState.FAILED, 3) and "could not be recorded" in now.error
    assert session.stores.samples.splits["train"].discarded[3]
    do(training, Resume())
    tick_until(training, lambda: session.step == 6)
    do(training, Pause())
    there = whole_state(session)
    crash(training)
    again = start()
    tick_until(again, lambda: again.trainer.latest().state is TrainerState.PAUSED)
    assert differences(there, whole_state(again.trainer.session)) == []


def test_only_a_disk_that_refuses_is_a_reason_to_take_back() -> None:
    done: list[str] = []
    assert recorded_or_taken_back(lambda: 3, lambda: done.append("back")) == 3
    with pytest.raises(KeyError):
        recorded_or_taken_back(lambda: {}["a"], lambda: done.append("back"))
    assert done == []


@pytest.mark.parametrize("schedule", ["none", "steps", "warm-up"])
def test_rates_are_taken_back_bit_for_bit_whatever_schedules_them(
    root: Path, full_disk: Callable[[Journal], Any], schedule: str
) -> None:
    schedulers: dict[str, Any] = {
        "none": None,
        "steps": lambda optimizer: StepLR(optimizer, step_size=1, gamma=0.5),
        "warm-up": lambda optimizer: LambdaLR(optimizer, lambda step: min(step / 100, 1.0)),
    }
    training = launch(toy_experiment(scheduler=schedulers[schedule], learning_rate=0.1), root_directory=root)
    session = training.trainer.session
    steps = 0 if schedule == "warm-up" else 3
    tick_until(training, lambda: session.step == steps)
    session.experiment.optimizer.param_groups[0]["lr"] *= 0.3  # a number that does not divide evenly
    before, identity = whole_state(session), session.experiment_hash()
    with full_disk(session.stores.journal), pytest.raises(NotRecorded):
        apply_only(training, SetHyperParameters({"learning_rate": 0.07, "batch_size": 3}))
    assert differences(before, whole_state(session)) == [] and session.experiment_hash() == identity
    training.trainer.end()
    training.close()
