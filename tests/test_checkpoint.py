"""Checkpoints: what comes back goes on bit for bit; a broken or foreign one is named and changes nothing."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler

from graybox.checkpoint import (
    CheckpointKeeper,
    capture,
    from_plain,
    load_optimizer,
    other_buffers,
    read_payload,
    restore_all,
    restore_weights,
    to_plain,
    write_payload,
)
from graybox.errors import Invalid, Refused, StorageError
from graybox.hyper_parameters import apply_changes
from graybox.launch import launch
from graybox.model_with_ops import DepType
from graybox.modules_with_ops import LinearWithNeuronOps
from graybox.neuron_ops import Freeze, Reinitialize, RemoveNeurons, SetLearningRate
from graybox.optimizer_with_ops import ELEMENTWISE
from graybox.session import Session
from graybox.state_copy import Space
from graybox.store.checkpoints import CheckpointCatalogue
from graybox.store.retention import KeepCheckpoints
from tests.conftest import REPOSITORY
from tests.patience import PATIENCE, wait_until
from tests.small_experiments import DropNet, Opened, tick_until, toy_data, toy_experiment, whole_state
from tests.small_networks import differences, random_state

OPTIMIZERS: dict[str, Any] = {
    "Adam": {"optimizer_class": optim.Adam},
    "SGD momentum": {"optimizer_class": optim.SGD, "optimizer_options": {"momentum": 0.9, "nesterov": True}},
}
SCHEDULERS: dict[str, Any] = {
    "none": None,
    "StepLR": lambda o: lr_scheduler.StepLR(o, 4, 0.5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [3, 12, 15], 0.5),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 25),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=40),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.001, 0.1, step_size_up=6, cycle_momentum=False),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "NumPy's cosine": lambda o: lr_scheduler.LambdaLR(o, lambda step: np.cos(step / 50)),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=5), lr_scheduler.CosineAnnealingLR(o, 30)], [5]
    ),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=0),
}

Make = Callable[..., Opened]


def train(session: Session, steps: int) -> None:
    """Steps, with the evaluations that are due between them."""
    end = session.step + steps
    while session.step < end:
        if session.evaluation_due():
            session.advance_evaluation()
        else:
            session.train_one_step()


def intervene(session: Session) -> None:
    """A frozen neuron, a slowed one, one that starts anew, discarded samples, other hyper-parameters."""
    for seed, edit in enumerate(
        (Freeze("conv", (1,)), SetLearningRate("out", (2,), 0.25), Reinitialize("conv", (0, 3)))
    ):
        session.surgeon.apply(session.surgeon.plan(edit), seed)
    session.stores.samples.set_discarded("train", [3, 4, 30], True)
    apply_changes(session, {"batch_size": 11, "learning_rate": 0.02, "experiment_name": "renamed"})


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_what_comes_back_goes_on_bit_for_bit(opened: Make, tmp_path: Path, optimizer: str, scheduler: str) -> None:
    options = {**OPTIMIZERS[optimizer], "scheduler": SCHEDULERS[scheduler], "full_eval_frequency": 3}
    session = opened(**options).session
    train(session, 6)
    intervene(session)
    train(session, 5)
    path = tmp_path / "000001.pt"
    write_payload(path, capture(session))
    at_capture = whole_state(session)
    train(session, 20)
    expected = whole_state(session)
    assert len(differences(at_capture, expected)) > 20  # the comparison sees what training does

    other = opened(**options).session
    train(other, 2)
    intervene(other)
    restore_all(other, read_payload(path))
    assert differences(at_capture, whole_state(other)) == []
    train(other, 20)
    assert differences(expected, whole_state(other)) == []


def test_a_payload_belongs_to_its_moment(opened: Make) -> None:
    session = opened().session
    train(session, 3)
    payload = capture(session)
    before = whole_state(session)
    train(session, 3)
    for _ in range(2):
        restore_all(session, payload)
        assert differences(before, whole_state(session)) == []


@pytest.mark.parametrize("part", ["file", "shared content"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_broken_checkpoint_is_named_and_passed_over(
    root: Path, part: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    def start() -> Any:
        return launch(toy_experiment(checkpoint_frequency=5), root_directory=root)

    training = start()
    tick_until(training, lambda: training.trainer.session.step == 12)
    training.close()
    expected = whole_state(training.trainer.session)
    *_, before, last = training.stores.checkpoints.list()
    assert (before.step, last.step, last.reason) == (10, 12, "exit")
    own = set(last.chunks) - set(before.chunks)
    file = training.stores.checkpoints.folder / last.file
    if part == "shared content":
        file = next(path for path in training.stores.checkpoints.shared.folder.iterdir() if path.name[:64] in own)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content if damage == "flip" else content[:100])

    again = start()
    try:
        assert last.id in caplog.text and "missing or broken" in caplog.text
        session = again.trainer.session
        with pytest.raises(StorageError, match=f"checkpoint {last.id} is broken: .*(fit|no shared content)"):
            CheckpointKeeper(session).load(last)
        assert session.step == 10
        train(session, 2)
        assert differences(expected, whole_state(session)) == []
    finally:
        again.close()


class OtherNet(DropNet):
    def __init__(self) -> None:
        super().__init__()
        self.out = LinearWithNeuronOps(16, 4)
        self.extra = nn.Parameter(torch.zeros(3))
        self.register_dependencies([(self.conv, self.norm, DepType.SAME), (self.norm, self.out, DepType.INCOMING)])


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"model": OtherNet()}, r"another structure: extra is missing there and \[3\] in this model"),
        ({"optimizer_class": optim.SGD}, "the optimizer is Adam there and SGD in this experiment"),
        ({"scheduler": SCHEDULERS["StepLR"]}, "the scheduler is none there and StepLR in this"),
        ({"task": "regression"}, "the task is classification there and regression in this"),
        ({"train_dataset": toy_data(49)}, "the train data set is 50 samples.* there and 49 samples"),
        ({"train_dataset": toy_data(50, seed=3)}, "the train data set is 50 samples, .* there and 50 samples, "),
        ({"eval_dataset": None}, "the val data set is 20 samples.* there and missing in this"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_first_difference(opened: Make, changes: Any, difference: str) -> None:
    first = opened()
    train(first.session, 2)
    record = CheckpointKeeper(first.session).save("asked").result(PATIENCE)
    other = opened(**changes)
    other.session.stores.checkpoints = CheckpointCatalogue(first.stores.checkpoints.folder)
    before = whole_state(other.session)
    keeper = CheckpointKeeper(other.session)
    for ask in (keeper.check, keeper.load):
        with pytest.raises(Refused, match=f"checkpoint {record.id} .*{difference}"):
            ask(record)
    assert differences(before, whole_state(other.session)) == []
    if "model" not in changes:
        keeper.check(record, weights_only=True)
        assert keeper.load(record, weights_only=True)["step"] == 2


def test_what_was_checked_is_not_read_again_and_never_served_twice(opened: Make) -> None:
    each = opened()
    keeper = CheckpointKeeper(each.session)
    train(each.session, 2)
    record = keeper.save("asked").result(PATIENCE)
    expected = whole_state(each.session)
    keeper.check(record)
    content = (each.stores.checkpoints.folder / record.file).read_bytes()
    (each.stores.checkpoints.folder / record.file).write_bytes(b"")
    restore_all(each.session, keeper.load(record))
    (each.stores.checkpoints.folder / record.file).write_bytes(content)
    train(each.session, 2)  # the optimizer's tensors may be those of the payload
    restore_all(each.session, keeper.load(record))
    assert differences(expected, whole_state(each.session)) == []


def test_ids_go_on_and_automatic_ones_are_kept_as_the_rule_says(opened: Make) -> None:
    """By default the newest ten; what only those that went held goes with them."""
    each = opened()
    keeper, checkpoints = CheckpointKeeper(each.session), each.stores.checkpoints
    keeper.save("asked", "mine").result(PATIENCE)
    for _ in range(12):
        train(each.session, 1)
        last = keeper.save("automatic").result(PATIENCE)
    records = checkpoints.list()
    assert records[0].name == "mine" and len(records) == 11
    assert records[-1].id == last.id == "000013"
    assert last.metrics["train/loss"] == pytest.approx(each.session.last_train.loss)  # type: ignore[union-attr]
    named = {name for record in records for name in record.chunks}
    assert {path.name[:64] for path in checkpoints.shared.folder.iterdir()} == named


def test_the_rule_of_the_experiment_is_kept_to(root: Path) -> None:
    rule = KeepCheckpoints(last=2, every=20, best="val/loss", best_count=2)
    training = launch(
        toy_experiment(checkpoint_frequency=5, full_eval_frequency=5, checkpoints=rule), root_directory=root
    )
    try:
        tick_until(training, lambda: training.trainer.session.step == 61)
        training.stores.flusher.drain()
        found = training.stores.metrics.read(full=True, metric="loss").points
        points = [found.point(index) for index in range(len(found.step))]
        losses = {point.step: point.value for point in points if point.split == "val" and point.step <= 60}
        assert sorted(losses) == list(range(5, 61, 5))
        best = sorted(losses, key=losses.__getitem__)[:2]
        assert [record.step for record in training.stores.checkpoints.list()] == sorted({0, 20, 40, 55, 60, *best})
    finally:
        training.close()


def test_what_is_no_rule_is_refused() -> None:
    with pytest.raises(Invalid, match=r"checkpoints is a graybox.KeepCheckpoints, for example .*, not a int"):
        toy_experiment(checkpoints=5)


# -- copies that are made in memory used before, and while training goes on ---------------------------------------


def whole_evaluation(session: Session) -> None:
    session.advance_evaluation()
    while session.evaluation is not None:
        session.advance_evaluation()


CHANGES: dict[str, Callable[[Session], object]] = {
    "a step": lambda session: session.train_one_step(),
    "discarding": lambda session: session.stores.samples.set_discarded("train", [5], True),
    "an evaluation": lambda session: whole_evaluation(session),
    "moments that start anew": lambda session: session.optimizer.renew(
        session.network.find_layer("hidden")[1].weight, 0, torch.tensor([3])
    ),
    "a whole state": lambda session: session.stores.samples.load_state(session.stores.samples.state()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_state_waits_for_its_copy(opened: Make, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    each = opened(model=Wide(), train_dataset=toy_data(2_000), eval_dataset=toy_data(8, seed=1))
    session, keeper = each.session, CheckpointKeeper(each.session)
    train(session, 3)
    expected = whole_state(session)
    go, changed, forward = threading.Event(), threading.Event(), threading.Event()
    catch_up = Space._catch_up

    def late(space: Space) -> None:
        assert go.wait(PATIENCE)
        catch_up(space)

    monkeypatch.setattr(Space, "_catch_up", late)
    written = keeper.save("automatic")
    hook = session.network.register_forward_hook(lambda *_: forward.set())
    owner = threading.Thread(target=lambda: (CHANGES[change](session), changed.set()))
    owner.start()
    if change in ("a step", "an evaluation"):
        assert forward.wait(PATIENCE)  # so far it comes
    assert not changed.wait(0.05) and not written.done()
    go.set()
    wait_until(changed.is_set, change)
    owner.join(PATIENCE)
    hook.remove()
    record = written.result(PATIENCE)
    assert change == "a whole state" or differences(expected, whole_state(session)) != []
    restore_all(session, keeper.load(record))
    assert differences(expected, whole_state(session)) == []


class Wide(nn.Module):
    """Large enough for its tensors to be copied into memory that is used again."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(16, 2_000)
        self.norm = nn.BatchNorm1d(2_000)
        self.out = nn.Linear(2_000, 3)
        self.register_buffer("steps", torch.zeros(1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.steps += 1
        logits: torch.Tensor = self.out(torch.relu(self.norm(self.hidden(x.flatten(1)))))
        return logits


def test_checkpoints_in_a_row_each_hold_their_own_moment(opened: Make) -> None:
    """While one is written the next is copied, edits exchange tensors, restores write over them."""
    each = opened(model=Wide(), checkpoints=KeepCheckpoints(last=50))
    session, keeper = each.session, CheckpointKeeper(each.session)
    moments: list[Any] = []

    def save() -> None:
        moments.append((keeper.save("automatic"), whole_state(session), random_state()))

    train(session, 2)
    for number in range(3):
        save()
        save()  # nothing lies between
        session.surgeon.apply(session.surgeon.plan(Reinitialize("hidden", (number, 7))), number)
        save()
        train(session, 1)
        save()
        session.surgeon.apply(session.surgeon.plan(RemoveNeurons("hidden", (number,))), number)
        session.structure_changed()
        train(session, 1)
        save()
        restore_all(session, keeper.load(moments[number][0].result(PATIENCE)))
        train(session, 1)
        save()
        restore_weights(session, keeper.load(moments[-2][0].result(PATIENCE)))
        save()
        train(session, 2)
    for written, state, drawn in reversed(moments):
        restore_all(session, keeper.load(written.result(PATIENCE)))
        assert differences(state, whole_state(session)) == [] and differences(drawn, random_state()) == []


def test_neurons_tell_their_change_from_the_newest_checkpoint(opened: Make) -> None:
    """The weights it copied are what they remember; what is written or copied later does not touch those."""
    each = opened(model=Wide())
    session, keeper = each.session, CheckpointKeeper(each.session)
    layer = session.network.find_layer("hidden")[1]

    def check(kept: torch.Tensor) -> None:
        now = layer.weight.detach()
        expected = torch.linalg.vector_norm(now - kept, dim=1) / torch.linalg.vector_norm(kept, dim=1)
        assert torch.allclose(layer.records.relative_change(now), expected.double(), rtol=1e-6)

    for _ in range(4):
        train(session, 1)
        kept = layer.weight.detach().clone()
        written = keeper.save("automatic")
        check(kept)
        train(session, 1)
        check(kept)
        written.result(PATIENCE)
        train(session, 1)
        check(kept)
        taken = layer.records.take([3])
        layer.records.put([3], {**taken, "kept": taken["kept"] + 1})  # as an undo does
        kept[3] += 1
        check(kept)
        assert not torch.equal(keeper.load(written.result(PATIENCE))["model"]["hidden.weight"], kept)
    restore_all(session, keeper.load(written.result(PATIENCE)))
    check(layer.weight.detach().clone())


def test_a_state_that_cannot_be_kept_leaves_the_keeper_well(opened: Make) -> None:
    each = opened(model=Wide())
    session, keeper = each.session, CheckpointKeeper(each.session)
    train(session, 1)
    state = session.experiment.optimizer.state[session.network.find_layer("out")[1].weight]
    state["mine"] = {1, 2}
    with pytest.raises(StorageError, match="set in the state of"):
        keeper.save("automatic")
    del state["mine"]
    expected = whole_state(session)
    record = keeper.save("automatic").result(PATIENCE)
    train(session, 2)
    restore_all(session, keeper.load(record))
    assert differences(expected, whole_state(session)) == []


# -- what a checkpoint holds ---------------------------------------------------------------------------------------


def test_global_random_states_come_back(opened: Make) -> None:
    session = opened().session
    train(session, 2)
    random.gauss(0, 1)  # which keeps another number for the next time
    np.random.standard_normal()
    payload, state = capture(session), random_state()

    def drawn() -> list[Any]:
        return [random.gauss(0, 1), random.random(), np.random.standard_normal(3).tolist(), torch.rand(3).tolist()]

    expected = drawn()
    train(session, 2)
    assert drawn() != expected
    restore_weights(session, payload)
    assert differences(state, random_state()) != []  # only all of it goes back
    restore_all(session, payload)
    assert differences(state, random_state()) == []
    assert drawn() == expected


def test_buffers_that_a_state_dict_leaves_out_come_back(opened: Make) -> None:
    session = opened(model=Wide()).session
    train(session, 3)
    payload = capture(session)
    train(session, 2)
    assert [float(value) for value in other_buffers(session.network).values()] == [5.0]
    restore_all(session, payload)
    assert [float(value) for value in other_buffers(session.network).values()] == [3.0]


# -- processes that are killed ------------------------------------------------------------------------------------

KILLED = """
import sys, torch
from torch import nn
from graybox.launch import launch
from graybox.store.retention import KeepCheckpoints
from tests.small_experiments import toy_experiment
from tests.test_checkpoint import Wide

torch.manual_seed(0)
rule = KeepCheckpoints(last=3)
training = launch(toy_experiment(model=Wide(), checkpoint_frequency=1, checkpoints=rule), root_directory=sys.argv[1])
print("begun", flush=True)
while True:
    training.trainer.tick()
    if training.trainer.session.step == int(sys.argv[2]):
        print("there", flush=True)
"""


@pytest.mark.parametrize("kills", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_a_killed_process_leaves_whole_checkpoints_and_nothing_that_stays(root: Path, kills: int) -> None:
    for number in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(root), str(5 * number + 4)], cwd=REPOSITORY, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n" and process.stdout.readline() == "there\n"
        threading.Event().wait(0.01 * number)  # somewhere in the middle of it
        process.kill()
        process.wait(PATIENCE)
        process.stdout.close()
        (run,) = (path for path in root.iterdir() if path.is_dir())
        catalogue = CheckpointCatalogue(run / "checkpoints")
        records = catalogue.list()
        assert records and all(catalogue.verify(record) for record in records)
    torch.manual_seed(0)
    training = launch(toy_experiment(model=Wide(), checkpoint_frequency=1), root_directory=root)
    try:
        training.stores.flusher.drain()
        checkpoints = training.stores.checkpoints
        assert training.stores.flusher.errors == type(training.stores.flusher.errors)()
        records = checkpoints.list()
        named = {name for record in records for name in record.chunks}
        assert {path.name[:64] for path in checkpoints.shared.folder.iterdir()} == named
        files = {path.name for path in checkpoints.folder.iterdir()} - {"shared", "last.json"}
        assert files == {f"{record.id}.{kind}" for record in records for kind in ("json", "pt")}
    finally:
        training.close()


# -- disks that refuse ---------------------------------------------------------------------------------------------

FULL_DISK = """
import logging, resource, sys
from pathlib import Path
from graybox.checkpoint import read_payload
from graybox.launch import launch
from graybox.store.retention import KeepCheckpoints
from tests.small_experiments import tick_until, toy_experiment

logging.disable()
training = launch(toy_experiment(checkpoint_frequency=3), root_directory=sys.argv[1])
session, checkpoints = training.trainer.session, training.stores.checkpoints
tick_until(training, lambda: session.step == 4)
training.stores.flusher.drain()
files = lambda: sorted(str(path.relative_to(checkpoints.folder)) for path in checkpoints.folder.rglob("*"))
before, records = files(), checkpoints.list()
largest = max(path.stat().st_size for path in checkpoints.folder.rglob("*") if path.is_file())
# The logs are smaller, and go on.
resource.setrlimit(resource.RLIMIT_FSIZE, (largest // 2, resource.RLIM_INFINITY))
tick_until(training, lambda: session.step == 7)
training.stores.flusher.drain()
assert files() == before and checkpoints.list() == records, files()
assert all(checkpoints.verify(record) for record in records)
training.trainer.tick()
print(training.trainer.latest().state.value, "|", training.trainer.latest().activity)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
tick_until(training, lambda: session.step == 10)
training.stores.flusher.drain()
print([record.step for record in checkpoints.list()], all(map(checkpoints.verify, checkpoints.list())))
training.close()
"""


def test_a_full_disk_costs_the_checkpoint_and_not_the_training(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(root)],
        cwd=REPOSITORY, timeout=2 * PATIENCE, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said, kept = done.stdout.splitlines()
    assert said.startswith("running | background work") and "cannot write" in said and "File too large" in said
    assert kept == "[0, 3, 9] True"


LOST_PERMISSION = """
import logging, os, sys
from graybox.commands import SaveCheckpoint
from graybox.errors import StorageError
from graybox.launch import launch
from tests.small_experiments import tick_until, toy_experiment

logging.disable()
experiment = toy_experiment()
if os.getuid() == 0:  # who may write everywhere
    os.setgid(65534)
    os.setuid(65534)
training = launch(experiment, root_directory=sys.argv[1])
session, checkpoints = training.trainer.session, training.stores.checkpoints
tick_until(training, lambda: session.step == 2)
for folder, mode in ((checkpoints.folder, 0o555), (checkpoints.folder, 0o755)):
    os.chmod(folder, mode)
    asked = training.trainer.submit(SaveCheckpoint("mine"))
    training.trainer.tick()
    try:
        record = asked.result(60)
        print(record.value.name, checkpoints.verify(record.value))
    except StorageError as error:
        print(error)
print([(record.step, record.name) for record in checkpoints.list()], session.step)
training.close()
"""


def test_a_permission_that_was_lost_is_told_to_who_asked() -> None:
    with tempfile.TemporaryDirectory() as folder:  # in a place that everybody may pass through
        os.chmod(folder, 0o777)
        done = subprocess.run(
            [sys.executable, "-c", LOST_PERMISSION, f"{folder}/root"],
            cwd=REPOSITORY, timeout=2 * PATIENCE, capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    refused, kept, listed = done.stdout.splitlines()
    assert refused.startswith("cannot write") and refused.endswith("Permission denied")
    assert kept == "mine True" and listed == "[(0, ''), (3, 'mine')] 4"


def test_two_backends_in_one_root_directory_are_one_too_many(root: Path) -> None:
    training = launch(toy_experiment(), root_directory=root)
    try:
        kept = training.stores.checkpoints.list()
        with pytest.raises(Refused, match=r"another backend \(process \d+\) works in .*; stop it or choose another"):
            launch(toy_experiment(), root_directory=root)
        assert training.stores.checkpoints.list() == kept
        other = subprocess.run(
            [sys.executable, "-c", SECOND, str(root)],
            cwd=REPOSITORY, timeout=2 * PATIENCE, capture_output=True, text=True,
        )  # fmt: skip
        assert "another backend" in other.stdout and other.returncode == 0, other.stderr
        train(training.trainer.session, 2)
    finally:
        training.close()
    launch(toy_experiment(), root_directory=root).close()


SECOND = """
import sys
from graybox.errors import Refused
from graybox.launch import launch
from tests.small_experiments import toy_experiment
try:
    launch(toy_experiment(), root_directory=sys.argv[1])
except Refused as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ELEMENTWISE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_every_bit_of_an_optimizer_comes_back(kind: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(4, 3, dtype=dtype))
    optimizer = kind([weight], lr=0.1)
    for _ in range(7):
        weight.grad = torch.randn_like(weight)
        optimizer.step()
    again = kind([weight], lr=0.1)
    load_optimizer(again, from_plain(to_plain(optimizer.state_dict())))
    for key, value in optimizer.state[weight].items():
        if isinstance(value, torch.Tensor):
            assert again.state[weight][key].dtype == value.dtype, key
            assert torch.equal(again.state[weight][key], value), key
