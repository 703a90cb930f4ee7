"""Names and notes of branches: journalled, there after a crash, told by whoever lists branches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graybox.checkpoint_manager import CheckpointManager
from graybox.commands import NoteBranch, Pause, RestoreCheckpoint
from graybox.errors import Invalid, NotFound
from graybox.launch import Training, launch
from graybox.store.runs import Branch, RunFolder
from tests.small_experiments import crash, tick_until, toy_experiment
from tests.test_structural_life import ask


@pytest.fixture
def training(root: Path) -> Any:
    made = launch(toy_experiment(), root_directory=root)
    tick_until(made, lambda: made.trainer.session.step == 2)
    ask(made, Pause())
    ask(made, RestoreCheckpoint("000001"))
    yield made
    made.close()


def test_a_branch_is_named_and_noted(training: Training, root: Path) -> None:
    done = ask(training, NoteBranch(1, "wider", "twice the\nneurons"))
    assert done.message == "Named branch 1 “wider”, noted at branch 1"
    assert CheckpointManager(root).branches == [Branch(0), Branch(1, 0, 0, 0, "wider", "twice the\nneurons")]
    assert ask(training, NoteBranch(1, note="")).message == "Removed the note at branch 1"
    assert ask(training, NoteBranch(1, name="")).message == "Branch 1 has no name"
    assert training.stores.run.branches[1] == Branch(1, 0, 0, 0)
    entries = [entry for entry in training.stores.journal.entries() if entry.kind == "branch_note"]
    assert [entry.arguments["branch"] for entry in entries] == [1, 1, 1]
    assert entries[0].arguments["name"] == "wider" and "name" not in entries[1].arguments


@pytest.mark.parametrize(
    ("command", "kind", "message"),
    [
        (NoteBranch(5, "x"), NotFound, "no branch 5; there are 0, 1"),
        (NoteBranch(1), Invalid, "neither a name nor a note for branch 1"),
        (NoteBranch(1, "n" * 201), Invalid, "a branch's name has at most 200 characters, not 201"),
        (NoteBranch(1, note="n" * 2_001), Invalid, "a branch's note has at most 2,000 characters, not 2,001"),
        (NoteBranch(1, "two\nlines"), Invalid, "a branch's name holds a character that cannot be shown"),
        (NoteBranch(1, note="\x00"), Invalid, "a branch's note holds a character that cannot be shown"),
    ],
)
def test_what_is_no_name_changes_nothing(training: Training, command: NoteBranch, kind: Any, message: str) -> None:
    before, sequence = training.stores.run.branches, training.stores.journal.last_sequence
    with pytest.raises(kind, match=message):
        ask(training, command)
    assert training.stores.run.branches == before and training.stores.journal.last_sequence == sequence


def test_names_are_there_after_a_crash(training: Training, root: Path) -> None:
    """Also where run.json was not written any more: the journal tells."""
    ask(training, NoteBranch(0, "first"))
    ask(training, NoteBranch(1, "second", "kept"))
    run = training.stores.run
    crash(training)
    RunFolder(run.path).change_branch(1, name="", note="")
    again = launch(toy_experiment(), root_directory=root)
    try:
        tick_until(again, lambda: again.trainer.latest().state.value != "recovering")
        assert [(b.name, b.note) for b in again.stores.run.branches] == [("first", ""), ("second", "kept")]
    finally:
        again.close()


def test_a_script_names_a_branch(root: Path) -> None:
    experiment = toy_experiment(root_log_dir=root)
    try:
        experiment.train_n_steps(1)
        experiment.load(experiment.dump())
        experiment.note_branch(1, name="again", note="from a script")
        assert experiment.chkpt_manager.branches[1] == Branch(1, 0, 1, 8, "again", "from a script")
        with pytest.raises(NotFound, match="no branch 2"):
            experiment.note_branch(2, name="x")
    finally:
        experiment.close()
    assert CheckpointManager(root / "none").branches == []
