"""Checkpoints by number: a tree of states on the trainer's own files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import graybox.checkpoint
from graybox.checkpoint import read_payload
from graybox.checkpoint_manager import CheckpointManager
from graybox.commands import RestoreCheckpoint
from graybox.errors import NotFound, Refused
from graybox.experiment import Experiment
from graybox.launch import launch
from tests.patience import PATIENCE
from tests.small_experiments import tick_until, toy_experiment, whole_state
from tests.small_networks import differences

Make = Callable[..., Experiment]


@pytest.fixture
def made(root: Path) -> Iterator[Make]:
    """Makes toy experiments with runs in the root directory, and closes them afterwards."""
    all_made: list[Experiment] = []

    def make(**changes: Any) -> Experiment:
        all_made.append(toy_experiment(**{"root_log_dir": root, **changes}))
        return all_made[-1]

    yield make
    for each in all_made:
        each.close()


def state_of(experiment: Experiment) -> dict[str, Any]:
    assert experiment._training is not None
    return whole_state(experiment._training.trainer.session)


def test_it_has_its_name_where_scripts_look() -> None:
    assert graybox.checkpoint.CheckpointManager is CheckpointManager


def test_without_a_run_there_is_nothing(root: Path) -> None:
    manager = CheckpointManager(root / "none")
    found = (manager.id_to_path, manager.id_to_prnt, manager.next_id, manager.prnt_id, manager.get_latest_experiment())
    assert found == ({}, {}, 1, -1, None)
    assert not (root / "none").exists()


def test_states_form_a_tree(made: Make, root: Path) -> None:
    experiment, manager = made(), CheckpointManager(root)
    first = manager.dump(experiment)
    assert (first, manager.id_to_prnt, manager.prnt_id) == (2, {1: -1, 2: 1}, 2)  # the trainer kept the start itself
    experiment.train_n_steps(3)
    second = manager.dump(experiment)
    then = state_of(experiment)
    experiment.train_n_steps(2)
    manager.load(first, experiment)
    left, branch = second + 1, second + 2  # what was left behind is kept, and the new branch begins
    assert manager.prnt_id == first and manager.next_id == branch + 1
    experiment.train_n_steps(1)
    third = experiment.dump()
    assert third == branch + 1 == experiment.chkpt_manager.prnt_id
    experiment.load(second)
    assert differences(then, state_of(experiment)) == []
    fourth = experiment.dump()
    parents = manager.id_to_prnt
    assert parents == {
        1: -1, first: 1, second: first, left: second, branch: first, third: first, fourth - 1: second, fourth: second
    }  # fmt: skip
    assert parents == CheckpointManager(root).id_to_prnt and list(parents) == list(manager.id_to_path)
    assert manager.get_latest_experiment() == fourth


def test_a_tree_outlives_its_process_and_goes_on(made: Make, root: Path) -> None:
    experiment = made()
    experiment.train_n_steps(2)
    kept = experiment.dump()
    experiment.train_n_steps(2)
    experiment.close()
    manager = CheckpointManager(root)
    last = manager.get_latest_experiment()
    assert last == kept + 1 and manager.id_to_prnt[last] == kept
    again = made()
    manager.load(kept, again)
    assert state_of(again)["step"] == 2
    assert manager.prnt_id == kept
    newest = manager.dump(again)
    assert manager.id_to_prnt[newest] == kept


def test_what_a_trainer_keeps_and_restores_is_in_the_tree(root: Path) -> None:
    training = launch(toy_experiment(checkpoint_frequency=2), root_directory=root)
    try:
        trainer = training.trainer
        tick_until(training, lambda: trainer.session.step == 5)
        training.stores.flusher.drain()
        manager = CheckpointManager(root)
        assert manager.id_to_prnt == {1: -1, 2: 1, 3: 2}
        done = trainer.submit(RestoreCheckpoint("000002"))
        tick_until(training, done.running)
        trainer.tick()
        done.result(PATIENCE)
        assert manager.id_to_prnt == {1: -1, 2: 1, 3: 2, 4: 3, 5: 2} and manager.prnt_id == 2
    finally:
        training.close()


def test_the_files_hold_tensors_and_plain_values(made: Make, root: Path) -> None:
    experiment = made()
    experiment.train_one_step()
    kept = experiment.dump()
    path = CheckpointManager(root).id_to_path[kept]
    found = torch.load(path, weights_only=True)
    assert found["tree"]["step"] == 1
    assert torch.equal(read_payload(path)["model"]["conv.weight"], experiment.model.conv.weight)


def test_a_broken_file_is_passed_over(made: Make, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    experiment = made()
    kept = [experiment.dump() for _ in range(2)]
    manager = CheckpointManager(root)
    manager.id_to_path[kept[1]].write_bytes(b"no zip")
    assert manager.get_latest_experiment() == kept[0]
    assert "missing or broken" in caplog.text


def test_what_is_wrong_is_said(made: Make, root: Path) -> None:
    experiment, manager = made(), CheckpointManager(root)
    with pytest.raises(NotFound, match="no checkpoint of '000077'"):
        manager.load(77, experiment)
    with pytest.raises(Refused, match=rf"at work in run .* in {root}, not in {root}/other; close\(\) it first"):
        CheckpointManager(root / "other").dump(experiment)
    with pytest.raises(Refused, match="another backend"):
        manager.dump(made())


def test_a_removed_parent_gives_way_to_the_nearest_that_is_left(made: Make, root: Path) -> None:
    experiment = made(checkpoint_frequency=1)
    for _ in range(14):
        experiment.train_one_step()
        assert experiment._training is not None
        experiment._training.stores.flusher.drain()  # where the disk does not keep up, some would be left out
    last = experiment.dump()
    manager = CheckpointManager(root)
    parents = manager.id_to_prnt
    kept = sorted(parents)
    assert kept[0] == 1 and kept[1] > 2 and kept[-1] == last  # automatic ones are kept to the newest
    assert [parents[each] for each in kept] == [-1, *kept[:-1]]
