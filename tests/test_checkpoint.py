"""Checkpoints: what comes back goes on bit for bit; a broken or foreign one is named and changes nothing."""

from __future__ import annotations

from collections import Counter
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
    read_payload,
    restore_all,
    to_plain,
    write_payload,
)
from graybox.errors import Refused, StorageError
from graybox.hyper_parameters import apply_changes
from graybox.launch import launch
from graybox.model_with_ops import DepType
from graybox.modules_with_ops import LinearWithNeuronOps
from graybox.neuron_ops import Freeze, Reinitialize, SetLearningRate
from graybox.optimizer_with_ops import ELEMENTWISE
from graybox.session import Session
from tests.patience import PATIENCE
from tests.small_experiments import DropNet, Opened, toy_data, toy_experiment, whole_state
from tests.small_networks import differences

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


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_broken_checkpoint_is_named_and_passed_over(
    root: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    def start() -> Any:
        return launch(toy_experiment(checkpoint_frequency=5), root_directory=root)

    training = start()
    while training.trainer.session.step < 12:
        training.trainer.tick()
    training.close()
    expected = whole_state(training.trainer.session)
    *_, before, last = training.stores.checkpoints.list()
    assert (before.step, last.step, last.reason) == (10, 12, "exit")
    file = training.stores.checkpoints.folder / last.file
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
        with pytest.raises(StorageError, match=f"checkpoint {last.id} is broken"):
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
    other.session.stores.checkpoints.folder = first.stores.checkpoints.folder
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


def test_ids_go_on_and_automatic_ones_are_kept_to_the_newest(opened: Make) -> None:
    each = opened()
    keeper = CheckpointKeeper(each.session)
    keeper.save("asked", "mine").result(PATIENCE)
    for _ in range(12):
        train(each.session, 1)
        last = keeper.save("automatic").result(PATIENCE)
    records = each.stores.checkpoints.list()
    assert records[0].name == "mine" and len(records) == 11
    assert records[-1].id == last.id == "000013"
    assert last.metrics["train/loss"] == pytest.approx(each.session.last_train.loss)  # type: ignore[union-attr]


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
