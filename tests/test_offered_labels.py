"""Labels that a data set tells are read without loading a sample, and are what its samples say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from graybox.data_samples_with_ops import DataSampleTrackingWrapper
from graybox.label_forms import labels_of_batch
from graybox.offered_labels import offered_labels, read_labels
from graybox.store.class_sets import known, unpacked
from graybox.store.targets import LabelKind

CLASSES, NUMBER, BOXES = LabelKind.CLASSES, LabelKind.NUMBER, LabelKind.BOXES
BOX = {"boxes": torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3]]), "labels": torch.tensor([2, 5])}
NO_BOX = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


class Told(Dataset[Any]):
    """Never loads a sample."""

    def __init__(self, targets: Any, name: str = "targets", count: int = 3, **others: Any) -> None:
        self.count = count
        setattr(self, name, targets)
        for key, value in others.items():
            setattr(self, key, value)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("a sample was loaded")


@pytest.mark.parametrize("name", ["targets", "labels", "y"])
@pytest.mark.parametrize(
    ("targets", "kind"),
    [
        ([0.5, 1.5, 2.5], None),
        (torch.tensor([0.5, 1.5, 2.5]), NUMBER),
        (torch.tensor([[0.5], [1.5], [2.5]], dtype=torch.bfloat16), NUMBER),
        (np.array([0.5, 1.5, 2.5]), None),
        ([torch.tensor(0.5), torch.tensor(1.5), torch.tensor(2.5)], NUMBER),
    ],
)
def test_numbers(targets: Any, kind: LabelKind | None, name: str) -> None:
    found = offered_labels(Told(targets, name), kind)
    assert found is not None and found.kind is NUMBER and found.columns["number"].tolist() == [0.5, 1.5, 2.5]


def test_whole_numbers_are_classes_unless_the_task_says_that_they_are_numbers() -> None:
    told = Told([3, 1, 2])
    assert offered_labels(told, None) is None and read_labels(told).tolist() == [3, 1, 2]  # type: ignore[union-attr]
    found = offered_labels(told, NUMBER)
    assert found is not None and found.columns["number"].tolist() == [3, 1, 2]


@pytest.mark.parametrize(
    ("targets", "kind"),
    [
        ([[0, 2], [], [1]], None),
        ([(0, 2), {1} - {1}, {1}], CLASSES),
        ([[1, 0, 1], [0, 0, 0], [0, 1, 0]], None),
        (torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0]], dtype=torch.bool), None),
        (torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0]]), CLASSES),
        (np.array([[0.9, 0, 0.6], [0.5, 0, 0], [0, 1, 0]]), CLASSES),
        ([torch.tensor([1, 0, 1]), torch.tensor([0, 0, 0]), torch.tensor([0, 1, 0])], CLASSES),
        ([np.array([1, 0, 1]), np.array([0, 0, 0]), np.array([0, 1, 0])], CLASSES),
    ],
)
def test_sets_of_classes(targets: Any, kind: LabelKind | None) -> None:
    found = offered_labels(Told(targets), kind)
    assert found is not None and found.kind is CLASSES
    assert unpacked(found.columns["classes"])[:, :3].tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert known(found.columns["classes"]).all()
    assert read_labels(Told(targets)) is None


def test_boxes_are_counted_and_their_classes_known() -> None:
    voc = [{"bndbox": {"xmin": 0, "ymin": 0, "xmax": 1, "ymax": 1}, "name": "cat"}] * 3
    found = offered_labels(Told([BOX, NO_BOX, voc]), None)
    assert found is not None and found.kind is BOXES and found.columns["boxes"].tolist() == [2, 0, 3]
    assert np.flatnonzero(unpacked(found.columns["classes"])[0]).tolist() == [2, 5]
    assert not unpacked(found.columns["classes"])[1:].any()


def test_through_a_subset_and_a_tensor_data_set() -> None:
    data = TensorDataset(torch.zeros(4, 1), torch.tensor([0.5, 1, 2, 3]))
    found = offered_labels(Subset(Subset(data, [3, 1, 0]), [2, 0]), NUMBER)
    assert found is not None and found.columns["number"].tolist() == [0.5, 3]


class Odd:
    def __getattr__(self, name: str) -> Any:
        raise ValueError("odd")


@pytest.mark.parametrize(
    "dataset",
    [
        Told(None),
        Told([0.5, 1.5]),
        Told([[1, 2], "x", []]),
        Told([[1, 2], [0.5], []]),
        Told([BOX, NO_BOX, {"other": 1}]),
        Told(torch.zeros(3, 4, 4)),
        Told([torch.zeros(4, 4)] * 3),
        Told(np.array([1j, 2j, 3j])),
        Told([Odd(), Odd(), Odd()]),
        Told([0.5, 1.5, 2.5], target_transform=lambda x: x + 1),
        Told(lambda: 1),
        Told(torch.full((3, 3), 0.5), kind=CLASSES),
    ],
)
@pytest.mark.parametrize("kind", [None, LabelKind.CLASS, LabelKind.MASK])
def test_what_is_none_of_that_is_left_to_be_met(dataset: Any, kind: LabelKind | None) -> None:
    assert offered_labels(dataset, kind) is None


def test_the_fingerprint_tells_other_labels() -> None:
    prints = [
        DataSampleTrackingWrapper(Told(targets)).fingerprint()
        for targets in (None, [0.5, 1, 2], [0.5, 1, 3], [[0], [1], []], [[0], [1], [1]], [BOX] * 3, [NO_BOX] * 3)
    ]
    assert len(set(prints)) == len(prints)
    assert DataSampleTrackingWrapper(Told([0.5, 1, 2])).fingerprint() == prints[1]


def test_a_batch_tells_what_the_data_set_tells() -> None:
    for targets, batch, kind in (
        ([0.5, 1.5, 2.5], torch.tensor([[0.5], [1.5], [2.5]]), None),
        ([3, 1, 2], torch.tensor([3, 1, 2]), NUMBER),
        ([[0, 2], [], [1]], {"class_numbers": torch.tensor([[0, 2], [-1, -1], [1, -1]])}, CLASSES),
        ([BOX, NO_BOX, BOX], [BOX, NO_BOX, BOX], None),
    ):
        told, met = offered_labels(Told(targets), kind), labels_of_batch(batch, 3, kind)
        assert told is not None and met is not None and told.kind is met.kind
        assert told.columns.keys() == met.columns.keys()
        for name, column in told.columns.items():
            np.testing.assert_array_equal(column, met.columns[name])
