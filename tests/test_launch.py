"""Launching: the newest run goes on, a new one starts beside it, one backend per root, and refusals say why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import optim

from graybox.commands import Pause, SetHyperParameters
from graybox.errors import Invalid, Refused, StorageError
from graybox.launch import Training, launch
from graybox.model_with_ops import NetworkWithOps
from graybox.modules_with_ops import LinearWithNeuronOps
from graybox.service.backend import open_ended
from graybox.service.wire import status_from_disk
from graybox.store.root import Root
from graybox.store.samples import SampleStore
from tests.conftest import REPOSITORY
from tests.patience import PATIENCE
from tests.small_experiments import DropNet, tick_until, toy_data, toy_experiment, whole_state
from tests.small_networks import differences


def trained(root: Path, steps: int, **changes: object) -> Training:
    training = launch(toy_experiment(**changes), root_directory=root)
    goal = training.trainer.session.step + steps
    tick_until(training, lambda: training.trainer.session.step >= goal)
    training.close()
    return training


def test_a_second_launch_goes_on_where_the_first_ended(root: Path) -> None:
    first = trained(root, 7)
    again = launch(toy_experiment(), root_directory=root)
    try:
        assert again.stores.run.run_id == first.stores.run.run_id
        tick_until(again, lambda: again.trainer.latest().state.value == "running")
        tick_until(again, lambda: again.trainer.session.step == 12)
    finally:
        again.close()
    alone = trained(root / "alone", 12)
    assert differences(whole_state(alone.trainer.session), whole_state(again.trainer.session)) == []


def test_a_run_keeps_its_seed_where_none_was_given(root: Path) -> None:
    first = trained(root, 3, seed=None)
    again = launch(toy_experiment(seed=None), root_directory=root)
    other = launch(toy_experiment(seed=None), root_directory=root / "other")
    seeds = [training.trainer.session.seed for training in (first, again, other)]
    again.close()
    other.close()
    assert seeds[0] == seeds[1] != seeds[2]


@pytest.mark.parametrize("how", ["new_run", "skip_loading"])
def test_a_new_run_starts_beside_the_old_one(root: Path, how: str) -> None:
    first = trained(root, 3)
    new = launch(toy_experiment(skip_loading=how == "skip_loading"), root_directory=root, new_run=how == "new_run")
    try:
        assert new.stores.run.run_id != first.stores.run.run_id and new.trainer.session.step == 0
        assert {run.run_id for run in Root(root).runs()} == {new.stores.run.run_id, first.stores.run.run_id}
    finally:
        new.close()


def test_a_second_backend_is_refused_with_the_first_ones_process_id(root: Path) -> None:
    training = launch(toy_experiment(), root_directory=root)
    try:
        with pytest.raises(Refused, match=rf"another backend \(process {os.getpid()}\) works in {root}"):
            launch(toy_experiment(), root_directory=root)
        script = (
            "from pathlib import Path\nfrom tests.small_experiments import toy_experiment\n"
            "from graybox.launch import launch\nfrom graybox.errors import Refused\n"
            f"try:\n    launch(toy_experiment(), root_directory={str(root)!r})\n"
            "except Refused as error:\n    print(error)\n"
        )
        answer = subprocess.run(
            [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE
        )
        assert f"another backend (process {os.getpid()})" in answer.stdout, answer.stderr
        assert len(Root(root).runs()) == 1
    finally:
        training.close()
    launch(toy_experiment(), root_directory=root).close()


class OtherNet(NetworkWithOps):
    def __init__(self) -> None:
        super().__init__()
        self.only = LinearWithNeuronOps(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.only(x.flatten(1))
        return answer


def test_another_model_is_refused_with_advice_and_nothing_is_harmed(root: Path) -> None:
    first = trained(root, 3)
    record = first.stores.run.record
    with pytest.raises(Refused, match=rf"cannot go on with run {first.stores.run.run_id}.*only.weight.*\(--new_run"):
        launch(toy_experiment(model=OtherNet()), root_directory=root)
    with pytest.raises(Refused, match="the optimizer is Adam there and SGD"):
        launch(toy_experiment(optimizer_class=optim.SGD), root_directory=root)
    again = launch(toy_experiment(), root_directory=root)
    assert again.trainer.session.step == 3 and record["step"] == 3
    again.close()
    launch(toy_experiment(model=OtherNet()), root_directory=root, new_run=True).close()


def test_other_data_are_refused_and_what_is_known_of_the_samples_stays(root: Path) -> None:
    first = trained(root, 3)
    known = SampleStore(first.stores.run.path, read_only=True).summary()
    assert known["train"].seen > 0
    with pytest.raises(Refused, match=r"its train data set is 50 samples.* and 51 samples.*\(--new_run"):
        launch(toy_experiment(train_dataset=toy_data(51)), root_directory=root)
    assert SampleStore(first.stores.run.path, read_only=True).summary() == known
    launch(toy_experiment(train_dataset=toy_data(51)), root_directory=root, new_run=True).close()


def test_a_launch_that_fails_leaves_no_run_and_no_lock(root: Path) -> None:
    class Wide(DropNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)[:, :, None]

    threads = set(threading.enumerate())
    with pytest.raises(Invalid, match=r"a classifier answers \[batch, classes\], this network answers \[2, 3, 1\]"):
        launch(toy_experiment(model=Wide()), root_directory=root)
    assert Root(root).runs() == [] and set(threading.enumerate()) <= threads
    launch(toy_experiment(), root_directory=root).close()


def test_a_root_that_cannot_be_written_is_named(root: Path) -> None:
    (root / "file").write_text("")
    with pytest.raises(StorageError, match=f"{root}/file"):
        launch(toy_experiment(), root_directory=root / "file" / "below")
    with pytest.raises(StorageError, match=f"{root}/file"):
        launch(toy_experiment(), root_directory=root / "file")


def test_run_json_tells_how_things_stand(root: Path) -> None:
    training = launch(toy_experiment(full_eval_frequency=2), root_directory=root)
    run = training.stores.run
    assert run.record["state"] in ("running", "recovering") and run.record["step"] == 0
    done = training.trainer.submit(SetHyperParameters({"experiment_name": "renamed", "training_steps_to_do": 5}))
    tick_until(training, lambda: training.trainer.latest().state.value == "completed")
    assert done.exception(PATIENCE) is None
    training._record()
    record = json.loads((run.path / "run.json").read_text())
    assert (record["state"], record["step"], record["age"], record["name"]) == ("completed", 5, 40, "renamed")
    assert set(record["metrics"]) == {"train/loss", "train/accuracy", "val/loss", "val/accuracy"}
    training.close()
    training._record()  # the background, a moment too late
    assert run.record["state"] == "ended"


def test_the_error_that_ended_a_run_is_told_without_a_backend(root: Path) -> None:
    training = launch(toy_experiment(), root_directory=root)
    tick_until(training, lambda: training.trainer.session.step >= 2)
    training.trainer.session.network.failure = ValueError("out of luck")
    training.trainer.tick()
    now = training.trainer.latest()
    training.close()
    told = status_from_disk(open_ended(Root(root), Root(root).run(now.run_id)))
    assert (told.error, told.device, told.steps_left) == ("ValueError: out of luck", "cpu", now.steps_left)
    assert (told.parameter_count, told.kind_of_problem) == (now.parameter_count, "classification")
    assert "raise self.failure" in told.traceback and told.experiment_hash == now.experiment_hash


def test_run_blocks_until_stop_and_keeps_the_present(root: Path) -> None:
    training = launch(toy_experiment(workers=1), root_directory=root)
    owner = threading.Thread(target=training.run)
    owner.start()
    paused = training.trainer.submit(Pause())
    assert paused.result(PATIENCE).message == "Paused"
    training.stop()
    owner.join(PATIENCE)
    assert not owner.is_alive()
    with pytest.raises(Refused, match="stopping"):
        training.trainer.submit(Pause()).result(1)
    training.close()
    assert training.stores.checkpoints.list()[-1].step == training.trainer.session.step
    again = launch(toy_experiment(workers=1), root_directory=root)
    try:
        tick_until(again, lambda: again.trainer.latest().state.value == "paused")
    finally:
        again.close()
