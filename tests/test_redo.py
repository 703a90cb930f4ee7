"""Redo: what was undone is done again, bit for bit; last undone, first redone; ended by a new edit; replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from graybox.commands import (
    Command,
    CorrectLabels,
    DiscardSamples,
    EditNeurons,
    KeepShare,
    Pause,
    Redo,
    RestoreCheckpoint,
    SaveCheckpoint,
    SetHyperParameters,
    TagSamples,
    Undo,
)
from graybox.errors import Refused
from graybox.launch import Training, launch
from graybox.neuron_ops import AddNeurons, Freeze, Reinitialize, RemoveNeurons
from graybox.snapshot import TrainerState
from tests.small_experiments import crash, tick_until, toy_experiment, whole_state
from tests.small_networks import differences
from tests.test_sample_interventions import apply

Start = Callable[[], Training]
EDITS: dict[str, Command] = {
    "remove": EditNeurons(RemoveNeurons("conv", (1, 2))),
    "add": EditNeurons(AddNeurons("conv", count=2)),
    "reinitialise": EditNeurons(Reinitialize("conv", (0,))),
    "freeze": EditNeurons(Freeze("conv", (0, 3))),
    "discard": DiscardSamples(rows={"train": np.arange(5)}),
    "share": KeepShare(rows={"train": np.arange(20)}, share=0.5),
    "tag": TagSamples((("train", "3"),), tag="hard"),
    "label": CorrectLabels((("train", "3"), ("train", "4")), label=1),
    "rate": SetHyperParameters({"learning_rate": 0.3, "dropout.drop": 0.25}),
}


@pytest.fixture
def start(root: Path) -> Iterator[Start]:
    open_now: list[Training] = []

    def begin() -> Training:
        open_now.append(launch(toy_experiment(training_steps_to_do=1_000), root_directory=root))
        return open_now[-1]

    yield begin
    for training in open_now:
        training.trainer.end()
        training.close()


@pytest.mark.parametrize("what", EDITS)
def test_what_is_redone_is_as_it_was_done(start: Start, what: str) -> None:
    training = start()
    session = training.trainer.session
    tick_until(training, lambda: session.step == 3)
    before = whole_state(session)
    done = apply(training, EDITS[what])
    after = whole_state(session)
    apply(training, Undo())
    redone = apply(training, Redo(done.sequence))
    assert redone.message == f"Redid: {done.message}" and redone.value == done.value
    assert differences(after, whole_state(session)) == []
    apply(training, Undo(redone.sequence))
    assert differences(before, whole_state(session)) == []
    apply(training, Redo(redone.sequence))
    assert differences(after, whole_state(session)) == []


def test_last_undone_first_redone_until_something_new_is_done(start: Start) -> None:
    training = start()
    session = training.trainer.session
    states = [whole_state(session)]
    for what in EDITS:
        apply(training, EDITS[what])
        states.append(whole_state(session))
    for state in reversed(states[:-1]):
        apply(training, Undo())
        assert differences(state, whole_state(session)) == []
    for state in states[1:]:
        apply(training, Redo())
        assert differences(state, whole_state(session)) == []
    with pytest.raises(Refused, match="there is nothing to redo"):
        apply(training, Redo())
    undone = apply(training, Undo()).value
    with pytest.raises(Refused, match=f"entry 1 is not the last one that can be redone; that is entry {undone}"):
        apply(training, Redo(1))
    apply(training, TagSamples((("train", "9"),), tag="new"))
    with pytest.raises(Refused, match="there is nothing to redo"):
        apply(training, Redo())


def test_after_steps_a_redo_does_the_same_to_what_was_learnt_since(start: Start) -> None:
    training = start()
    session = training.trainer.session
    done = apply(training, EDITS["share"])
    discarded = session.stores.samples.splits["train"].discarded.copy()
    apply(training, Undo())
    tick_until(training, lambda: session.step == 4)
    apply(training, Redo(done.sequence))
    assert np.array_equal(session.stores.samples.splits["train"].discarded, discarded)


def test_going_back_ends_what_could_be_redone(start: Start) -> None:
    training = start()
    kept = apply(training, SaveCheckpoint("here")).value
    training.trainer.tick()
    apply(training, EDITS["tag"])
    apply(training, Undo())
    apply(training, RestoreCheckpoint(kept.id))
    with pytest.raises(Refused, match="there is nothing to redo"):
        apply(training, Redo())


def test_undos_and_redos_are_replayed_after_a_crash(start: Start) -> None:
    training = start()
    session = training.trainer.session
    tick_until(training, lambda: session.step == 2)
    for what in EDITS:
        apply(training, EDITS[what])
        training.trainer.tick()
        apply(training, Undo())
        training.trainer.tick()
        apply(training, Redo())
    for command in (Undo(), Undo(), Redo(), Pause()):
        apply(training, command)
    there = whole_state(session)
    crash(training)
    again = start()
    tick_until(again, lambda: again.trainer.latest().state is TrainerState.PAUSED)
    assert differences(there, whole_state(again.trainer.session)) == []
    redone = apply(again, Redo())
    assert redone.message.startswith("Redid: Set learning rate")


def test_the_oldest_checkpoint_that_is_kept_can_be_gone_back_to(root: Path) -> None:
    from graybox.store.retention import KeepCheckpoints

    training = launch(
        toy_experiment(training_steps_to_do=1_000, checkpoint_frequency=5, checkpoints=KeepCheckpoints(last=3)),
        root_directory=root,
    )
    try:
        tick_until(training, lambda: training.trainer.session.step == 17)
        training.stores.flusher.drain()
        automatic = [r for r in training.stores.checkpoints.list() if r.reason == "automatic"]
        apply(training, RestoreCheckpoint(automatic[0].id))
        training.stores.flusher.drain()
        assert training.trainer.session.step == automatic[0].step
        assert automatic[0].id in {record.id for record in training.stores.checkpoints.list()}
    finally:
        training.trainer.end()
        training.close()
