"""Several classes per sample: losses are torch's, predictions are compared as scikit-learn does, labels of any form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import MultiLabelBinarizer
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from graybox.errors import Invalid
from graybox.launch import launch
from graybox.multilabel import CLASS_NUMBERS, MultiLabel, are_flags, class_flags, collate_class_lists
from graybox.store.class_sets import unpacked
from graybox.task import make_task
from tests.small_experiments import tick_until, toy_data, toy_experiment

LOGITS = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
TARGET = (torch.rand(7, 3, generator=torch.Generator().manual_seed(2)) > 0.5).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool, torch.float64])
def test_loss_gradient_and_prediction(dtype: torch.dtype) -> None:
    logits, oracle = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    result = MultiLabel().evaluate(logits, TARGET.to(dtype))
    result.loss.backward()
    F.binary_cross_entropy_with_logits(oracle, TARGET).backward()
    torch.testing.assert_close(logits.grad, oracle.grad)
    torch.testing.assert_close(
        result.sample_losses, F.binary_cross_entropy_with_logits(LOGITS, TARGET, reduction="none").mean(1)
    )
    assert result.sets is not None and torch.equal(result.sets, LOGITS.sigmoid() > 0.5)
    assert result.right is not None and result.predictions is None
    assert result.right.double().mean() == pytest.approx(accuracy_score(TARGET.numpy(), result.sets.numpy()))


def test_a_criterion_of_ones_own_tells_each_samples_loss() -> None:
    weight = torch.tensor([1.0, 5.0, 0.5])
    task = make_task("multilabel", nn.BCEWithLogitsLoss(pos_weight=weight))
    result = task.evaluate(LOGITS, TARGET)
    plain = F.binary_cross_entropy_with_logits(LOGITS, TARGET, pos_weight=weight, reduction="none")
    torch.testing.assert_close(result.loss, plain.mean())
    torch.testing.assert_close(result.sample_losses, plain.mean(1))


lists = st.lists(st.lists(st.integers(0, 5), unique=True, max_size=4), min_size=1, max_size=5)


@given(lists, st.sampled_from([list, tuple, set]))
def test_lists_of_classes_are_collated_into_the_same_flags(labels: list[list[int]], kind: Any) -> None:
    inputs, target = collate_class_lists([(torch.ones(2), kind(label)) for label in labels])
    assert inputs.shape == (len(labels), 2) and target[CLASS_NUMBERS].dtype is torch.int64
    flags = class_flags(target, torch.zeros(len(labels), 6))
    assert np.array_equal(flags.numpy(), MultiLabelBinarizer(classes=range(6)).fit_transform(labels))


@given(st.lists(st.lists(st.integers(0, 1), min_size=4, max_size=4), min_size=1, max_size=5))
def test_lists_of_a_number_for_each_class_are_taken_as_such(labels: list[list[int]]) -> None:
    assert all(map(are_flags, labels))
    _, target = collate_class_lists([(torch.ones(1), label) for label in labels])
    assert torch.equal(class_flags(target, torch.zeros(len(labels), 4)), torch.tensor(labels).float())


def test_other_labels_are_collated_as_ever() -> None:
    inputs, target = collate_class_lists([{"x": torch.ones(1), "labels": torch.ones(3)}] * 2), None
    assert inputs["labels"].shape == (2, 3) and target is None
    inputs, target = collate_class_lists([({"x": torch.ones(1)}, [2]), ({"x": torch.ones(1)}, [])])
    assert inputs["x"].shape == (2, 1) and target[CLASS_NUMBERS].tolist() == [[2], [-1]]


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([(1, [0, 0, 1]), (1, [2, 4])], r"one label is \[0, 0, 1\], a 0 or 1 for each class, and another one"),
        ([(1, [0]), None], "the data set answers None; a sample is a pair"),
        ([(1, [0]), "ab", (1, [1])], "the data set answers a str"),
    ],
)
def test_a_mix_is_refused(items: list[Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        collate_class_lists(items)


def test_a_class_that_the_network_does_not_have_is_found() -> None:
    task = MultiLabel()
    task.prepare(torch.zeros(2, 3))
    _, target = collate_class_lists([(torch.ones(1), [0, 2]), (torch.ones(1), [3]), (torch.ones(1), [])])
    beyond = task.beyond(target)
    assert beyond is not None and beyond.tolist() == [False, True, False] and task.beyond(TARGET) is None
    with pytest.raises((RuntimeError, IndexError)):
        task.evaluate(torch.zeros(3, 3), target)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (torch.zeros(7), r"is a number for each class, \[7, 3\].*not float32 \[7\]"),
        (torch.zeros(7, 4), r"not float32 \[7, 4\]"),
        (["cat"], "not list"),
    ],
)
def test_wrong_targets_are_named(target: Any, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        MultiLabel().evaluate(LOGITS, target)
    with pytest.raises(
        Invalid, match=r"a network for several classes answers \[batch, classes\], this one \[2, 3, 4\]"
    ):
        MultiLabel().prepare(torch.zeros(2, 3, 4))


class Listed(Dataset[Any]):
    """Class numbers in lists, as an attribute or only with the samples."""

    classes = ("cat", "dog", "cow")

    def __init__(self, offered: bool) -> None:
        self.x = toy_data(40).tensors[0]
        numbers = np.random.default_rng(5)
        self.wanted = [sorted(np.flatnonzero(numbers.random(3) < 0.5).tolist()) for _ in range(40)]
        if offered:
            self.targets = self.wanted

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[torch.Tensor, list[int]]:
        return self.x[index], self.wanted[index]


@pytest.mark.parametrize("offered", [True, False])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_network_learns_them_and_samples_tell(tmp_path: Path, offered: bool, workers: int) -> None:
    data = Listed(offered)
    training = launch(
        toy_experiment(
            train_dataset=data, eval_dataset=data, task="multilabel", full_eval_frequency=8, workers=workers
        ),
        root_directory=tmp_path,
    )
    try:
        session = training.trainer.session
        known = training.stores.samples.splits["val"].targets
        assert known.is_known(np.arange(40)).all() == offered
        tick_until(training, lambda: session.last_evaluation_step == 16)
        bits, found = known.column("classes"), known.column("predicted_classes")
        assert bits is not None and found is not None
        listed = MultiLabelBinarizer(classes=range(3)).fit_transform(data.wanted)
        assert np.array_equal(unpacked(bits)[:, :3], listed)
        model = session.network.eval()
        with torch.no_grad():
            logits = model(data.x)
        assert np.array_equal(unpacked(found)[:, :3], (logits > 0).numpy())
        assert session.last_evaluation is not None
        assert session.last_evaluation.accuracy == pytest.approx(accuracy_score(listed, (logits > 0).numpy()))
        assert training.stores.samples.summary()["val"].wrong == 40 - round(40 * session.last_evaluation.accuracy)
        losses = training.stores.samples.splits["val"].loss
        expected = F.binary_cross_entropy_with_logits(logits, torch.tensor(listed).float(), reduction="none").mean(1)
        np.testing.assert_allclose(losses, expected.numpy(), rtol=1e-5)
    finally:
        training.close()
