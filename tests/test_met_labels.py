"""Labels that only the samples tell are learnt as they are met, once, and survive what columns survive."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import Dataset

from graybox.commands import RestoreCheckpoint, Resume, SaveCheckpoint
from graybox.experiment import Experiment
from graybox.launch import Training, launch
from graybox.met_labels import LabelReader, joined_answers, joined_labels, some_of
from graybox.overlay import class_colours
from graybox.store.class_sets import unpacked
from graybox.store.samples import SampleStore
from graybox.store.targets import Answers, LabelKind, SampleTargets
from graybox.task import PairTask, Regression, StepResult
from tests.small_experiments import crash, tick_until, toy_data, toy_experiment


class Numbers(Dataset[Any]):
    """Tells its numbers only with its samples."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> tuple[torch.Tensor, float]:
        return toy_data(30).tensors[0][index], index / 4


def regression(**changes: Any) -> Experiment:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 1))
    options: dict[str, Any] = {
        "model": model, "optimizer_class": optim.Adam, "train_dataset": Numbers(), "eval_dataset": Numbers(),
        "task": "regression", "batch_size": 8, "seed": 3, "full_eval_frequency": 0, "checkpoint_frequency": 0,
    }  # fmt: skip
    return Experiment(**{**options, **changes})


def columns(training: Training, split: str = "train") -> dict[str, np.ndarray]:
    targets = training.stores.samples.splits[split].targets
    return {name: c.copy() for name in ("number", "predicted") if (c := targets.column(name)) is not None}


def test_numbers_and_predictions_survive(root: Path) -> None:
    training = launch(regression(), root_directory=root)
    tick_until(training, lambda: training.trainer.session.step == 2)
    met = training.stores.samples.splits["train"].encounters > 0
    found = columns(training)
    np.testing.assert_array_equal(found["number"], np.where(met, np.arange(30) / 4, np.nan).astype(np.float32))
    assert met.sum() == 16 and np.array_equal(np.isnan(found["predicted"]), ~met)
    assert training.stores.samples.splits["train"].targets.kind is LabelKind.NUMBER
    assert (training.stores.samples.splits["train"].label == -1).all()
    tick_until(training, lambda: training.trainer.session.step == 5)
    at_five = columns(training)
    record = training.trainer.submit(SaveCheckpoint())
    tick_until(training, lambda: training.trainer.session.step == 11)
    at_eleven = columns(training)
    assert not np.array_equal(at_five["predicted"], at_eleven["predicted"])
    training.trainer.submit(RestoreCheckpoint(record.result(60).value.id))
    tick_until(training, lambda: not training.trainer.session.running)
    back = columns(training)
    np.testing.assert_array_equal(back["predicted"], at_five["predicted"])
    np.testing.assert_array_equal(back["number"], np.arange(30) / 4)  # what the data set says stays known
    training.trainer.submit(Resume())
    tick_until(training, lambda: training.trainer.session.step == 8)
    last = columns(training)
    crash(training)
    read = SampleStore(training.stores.run.path, read_only=True).splits["train"].targets
    np.testing.assert_array_equal(read.column("predicted"), last["predicted"])  # type: ignore[arg-type]
    again = launch(regression(), root_directory=root)
    tick_until(again, lambda: again.trainer.session.step == 8)
    np.testing.assert_array_equal(columns(again)["predicted"], last["predicted"])
    again.close()


def test_predictions_are_what_the_network_answers(root: Path) -> None:
    training = launch(regression(full_eval_frequency=3), root_directory=root)
    session = training.trainer.session
    tick_until(training, lambda: session.last_evaluation_step == 3)
    with torch.no_grad():
        answers = session.network.eval()(toy_data(30).tensors[0])[:, 0]
    np.testing.assert_allclose(columns(training, "val")["predicted"], answers.numpy(), rtol=1e-5)
    errors = training.stores.samples.splits["val"].targets.error()
    assert errors is not None
    np.testing.assert_allclose(errors**2, training.stores.samples.splits["val"].loss, rtol=1e-4, atol=1e-6)
    training.close()


def test_of_several_numbers_only_the_loss_is_kept(root: Path) -> None:
    data = torch.utils.data.TensorDataset(toy_data(30).tensors[0], torch.randn(30, 2))
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    training = launch(regression(model=model, train_dataset=data, eval_dataset=None), root_directory=root)
    tick_until(training, lambda: training.trainer.session.step == 5)
    assert not columns(training) and np.isfinite(training.stores.samples.splits["train"].loss).all()
    training.close()
    result = Regression().evaluate(torch.zeros(3, 1), torch.tensor([1.0, 2, 3]))
    assert result.numbers is not None and result.numbers.shape == (3,)


class Boxed(Dataset[Any]):
    """A bright square on black, and the box around it; each with as many boxes as its number says."""

    classes = ("none", "square")

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        picture = torch.zeros(1, 40, 40)
        corner = torch.tensor([float(5 + index), 8.0, float(15 + index), 20.0])
        picture[0, 8:20, 5 + index : 15 + index] = 1.0
        count = index % 3
        return picture, {"boxes": corner.expand(count, 4), "labels": torch.ones(count, dtype=torch.int64)}


class FirstBox(PairTask):
    """The loss of a network that answers one box, from targets that list any number."""

    name = "boxes"

    def evaluate(self, outputs: Any, target: Any) -> StepResult:
        wanted = torch.stack([each["boxes"].sum(0) / 40 for each in target])
        losses = F.mse_loss(outputs, wanted, reduction="none").mean(1)
        return StepResult(losses.mean(), losses.detach().float(), None)


def boxes_experiment() -> Experiment:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(400, 4))
    return regression(model=model, train_dataset=Boxed(), eval_dataset=None, task=FirstBox(), batch_size=5)


def test_boxes_are_counted_trained_on_and_drawn(root: Path) -> None:
    training = launch(boxes_experiment(), root_directory=root)
    tick_until(training, lambda: training.trainer.session.step == 6)
    known = training.stores.samples.splits["train"].targets
    boxes, sets = known.column("boxes"), known.column("classes")
    assert known.kind is LabelKind.BOXES and boxes is not None and sets is not None
    assert boxes.tolist() == [index % 3 for index in range(12)]
    assert unpacked(sets)[:, 1].tolist() == [index % 3 > 0 for index in range(12)]
    drawn = Image.open(io.BytesIO(_drawn(training, 4))).convert("RGB")
    colour = tuple(class_colours(np.asarray(1)).tolist())
    assert drawn.getpixel((9, 8)) == colour and drawn.getpixel((30, 30)) == (0, 0, 0)
    training.close()


def _drawn(training: Training, row: int) -> bytes:
    """The picture with what is drawn over it, which the owner reads between two ticks."""
    found: list[bytes] = []
    asker = threading.Thread(
        target=lambda: found.append(training.images.image("train", str(row), 0, 0, overlay=True).image)
    )
    asker.start()
    tick_until(training, lambda: not asker.is_alive(), most=100_000)
    return found[0]


def test_each_label_is_read_once_and_odd_targets_stop_nothing() -> None:
    reader, known = LabelReader(None), SampleTargets(4)
    rows = np.array([2, 0])
    met = reader.read("train", known, rows, torch.tensor([0.5, 1.5]))
    assert met is not None and met.labels.columns["number"].tolist() == [0.5, 1.5]
    known.learn(met.rows, met.labels)
    assert reader.read("train", known, rows, torch.tensor([9.0, 9.0])) is None
    met = reader.read("train", known, np.array([0, 1, 2]), torch.tensor([9.0, 2.5, 9.0]))
    assert met is not None and met.rows.tolist() == [1] and met.labels.columns["number"].tolist() == [2.5]

    class Odd:
        def __len__(self) -> int:
            raise OSError("odd")

    for split, target in (("a", [Odd(), Odd()]), ("b", Odd()), ("c", "text"), ("d", [{"boxes": Odd()}] * 2)):
        assert reader.read(split, SampleTargets(4), rows, target) is None
        assert reader.read(split, SampleTargets(4), rows, torch.tensor([0.5, 1.5])) is None  # not looked at again
    assert LabelReader(LabelKind.CLASS).read("train", SampleTargets(4), rows, torch.tensor([0.5, 1.5])) is None


def test_batches_are_joined() -> None:
    reader, known = LabelReader(LabelKind.CLASSES), SampleTargets(4)
    one = reader.read("train", known, np.array([3]), torch.ones(1, 20))
    two = reader.read("train", known, np.array([1]), torch.zeros(1, 3))
    met = joined_labels([one, None, two])
    assert met is not None and met.rows.tolist() == [3, 1]
    assert unpacked(met.labels.columns["classes"]).sum(1).tolist() == [20, 0]
    assert joined_labels([None]) is None
    answers = [Answers({"predicted": np.array([number], np.float32)}) for number in (1, 2)]
    whole = joined_answers(answers)
    assert whole is not None and whole.columns["predicted"].tolist() == [1, 2]
    assert joined_answers([*answers, None]) is None and joined_answers([*answers, Answers()]) is None


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (torch.arange(3), [2, 0]),
        (["a", "b", "c"], ["c", "a"]),
        ({"n": torch.arange(3)}, {"n": [2, 0]}),
    ],
)
def test_some_of_a_target(target: Any, expected: Any) -> None:
    found = some_of(target, np.array([2, 0]), 3)
    plain = {key: value.tolist() for key, value in found.items()} if isinstance(found, dict) else list(found)
    assert plain == expected


def test_masks_are_learnt_by_a_task_of_ones_own(root: Path) -> None:
    class Masked(Dataset[Any]):
        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            mask = torch.zeros(8, 8, dtype=torch.uint8)
            mask[2:4, 2:4] = index
            mask[0] = 255
            return torch.randn(1, 8, 8), mask

    class Pixels(PairTask):
        name = "pixels"

        def evaluate(self, outputs: Any, target: Any) -> StepResult:
            losses = (outputs[:, 0] - target.float().clamp(max=5)).square().flatten(1).mean(1)
            return StepResult(losses.mean(), losses.detach(), None)

    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))
    training = launch(
        regression(model=model, train_dataset=Masked(), eval_dataset=None, task=Pixels()), root_directory=root
    )
    tick_until(training, lambda: training.trainer.session.step == 3)
    known = training.stores.samples.splits["train"].targets
    sets = known.column("classes")
    assert known.kind is LabelKind.MASK and sets is not None
    assert [np.flatnonzero(each).tolist() for each in unpacked(sets)] == [[0], *([0, n] for n in range(1, 6))]
    training.close()


def test_classes_that_are_met_are_learnt_as_ever(root: Path) -> None:
    class Quiet(Dataset[Any]):
        def __len__(self) -> int:
            return 50

        def __getitem__(self, index: int) -> Any:
            return toy_data().tensors[0][index], toy_data().tensors[1][index]

    training = launch(toy_experiment(train_dataset=Quiet()), root_directory=root)
    tick_until(training, lambda: training.trainer.session.step == 8)
    split = training.stores.samples.splits["train"]
    assert np.array_equal(split.label, toy_data().tensors[1].numpy()) and split.targets.kind is LabelKind.NONE
    training.close()
