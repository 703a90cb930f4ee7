"""Samples with a memory: labels without loading, fingerprints, the same augmentation whenever a sample is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset
from torchvision import datasets

from graybox.data_samples_with_ops import (
    CollateWithRows,
    DataSampleTrackingWrapper,
    LoadFailure,
    SeededDataset,
    Token,
    read_labels,
    sample_seed,
)
from graybox.errors import Invalid
from tests.small_experiments import Augmented


class Listed(Dataset[Any]):
    """A data set with whatever attributes a user's has."""

    def __init__(self, count: int, **attributes: Any) -> None:
        self.count = count
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("labels are read without loading a sample")


def image_folder(folder: Path, **options: Any) -> datasets.ImageFolder:
    for label, names in {"cat": ("a", "b", "c"), "dog": ("d", "e")}.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for name in names:
            Image.new("RGB", (4, 4), (ord(name), 0, 0)).save(folder / label / f"{name}.png")
    return datasets.ImageFolder(str(folder), **options)


@pytest.mark.parametrize(
    ("dataset", "labels"),
    [
        (Listed(3, targets=[2, 0, 1]), [2, 0, 1]),
        (Listed(3, targets=torch.tensor([2, 0, 1], dtype=torch.uint8)), [2, 0, 1]),
        (Listed(3, labels=np.array([5, 5, 6], dtype=np.uint16)), [5, 5, 6]),
        (Listed(2, y=[1, 0]), [1, 0]),
        (Listed(2, samples=[("a.png", 1), ("b.png", 0)]), [1, 0]),
        (TensorDataset(torch.zeros(2, 1), torch.tensor([1, 0])), [1, 0]),
        (Subset(Subset(Listed(4, targets=[3, 2, 1, 0]), [3, 1, 0]), [1, 2]), [2, 3]),
        (Listed(2, targets=[1, 3], target_transform=lambda label: label - 1), [0, 2]),
        (Listed(2, targets=[1, 3], target_transform=lambda label: torch.tensor(label + 1)), [2, 4]),
        (Listed(3, targets=[0.5, 1.5, 2.5]), None),
        (Listed(3, targets=["a", "b", "c"]), None),
        (Listed(3, targets=[1, 2]), None),
        (Listed(2, targets=[[1, 2], [3]]), None),
        (Listed(2, targets=[{"boxes": 1}, {"boxes": 2}]), None),
        (Listed(2, targets=[0, 1], target_transform=lambda label: {}[label]), None),
        (Listed(2, labels=lambda: [1, 2]), None),
        (Listed(2), None),
        (TensorDataset(torch.zeros(2, 1)), None),
    ],
)
def test_labels_are_read_without_loading(dataset: Any, labels: list[int] | None) -> None:
    found = read_labels(dataset)
    assert (None if found is None else found.tolist()) == labels
    assert found is None or found.dtype == np.int64


def test_an_image_folder_tells_labels_and_names(tmp_path: Path) -> None:
    wrapper = DataSampleTrackingWrapper(Subset(image_folder(tmp_path), [0, 4]))
    labels = wrapper.labels()
    assert labels is not None and labels.tolist() == [0, 1]
    assert wrapper.class_names() == ("cat", "dog")
    assert DataSampleTrackingWrapper(Listed(2, classes="ab")).class_names() == ()


def test_an_item_says_which_sample_it_is() -> None:
    wrapper = DataSampleTrackingWrapper(TensorDataset(torch.arange(3.0), torch.tensor([2, 1, 0])))
    data, row, label = wrapper[-1]
    assert (float(data), row, int(label)) == (2.0, 2, 0)
    assert len(wrapper) == 3 and len(list(wrapper)) == 3  # iterating ends
    with pytest.raises(IndexError, match="no sample 3: the data set has 3"):
        wrapper[3]
    assert DataSampleTrackingWrapper(wrapper).dataset is wrapper.dataset
    with pytest.raises(Invalid, match="pair"):
        DataSampleTrackingWrapper([1, 2])[0]


class Stream(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(3))


class CountedStream(Stream):
    def __len__(self) -> int:
        return 3


@pytest.mark.parametrize("dataset", [Stream(), CountedStream(), iter([1]), 5, object()])
def test_what_cannot_be_indexed_is_refused(dataset: Any) -> None:
    with pytest.raises(Invalid, match="map-style"):
        DataSampleTrackingWrapper(dataset)


def test_the_fingerprint_tells_data_sets_apart(tmp_path: Path) -> None:
    data = TensorDataset(torch.zeros(6, 1))
    different = [
        Listed(3, targets=[0, 1, 2]), Listed(3, targets=[0, 2, 1]), Listed(3), Listed(4), data,
        Subset(data, [0, 1, 2]), Subset(data, [0, 1, 3]), image_folder(tmp_path / "one"),
    ]  # fmt: skip
    found = [DataSampleTrackingWrapper(dataset).fingerprint() for dataset in different]
    assert len(set(found)) == len(found)
    # The same files elsewhere are the same data; another name is another sample, with labels as before.
    moved = image_folder(tmp_path / "two")
    assert DataSampleTrackingWrapper(moved).fingerprint() == found[-1]
    (tmp_path / "two" / "cat" / "b.png").rename(tmp_path / "two" / "cat" / "bb.png")
    assert DataSampleTrackingWrapper(datasets.ImageFolder(str(tmp_path / "two"))).fingerprint() != found[-1]


@given(st.integers(0, 2**48), st.integers(0, 50), st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_a_sample_is_loaded_the_same_whatever_came_before(seed: int, epoch: int, rows: list[int]) -> None:
    dataset = SeededDataset(Augmented(10))
    together = dataset.__getitems__([Token(row, sample_seed(seed, epoch, row)) for row in rows])
    for row, (found, item) in zip(rows, together, strict=True):
        torch.rand(3)  # somebody else draws in between
        alone = dataset[Token(row, sample_seed(seed, epoch, row))]
        assert found == alone[0] == row
        assert torch.equal(item[0], alone[1][0])
    other = dataset[Token(rows[0], sample_seed(seed, epoch + 1, rows[0]))]
    # Each of the three generators draws something else in another epoch.
    assert bool((other[1][0].flatten()[1:4] != together[0][1][0].flatten()[1:4]).all())


def test_a_sample_that_cannot_be_loaded_is_named_and_the_others_are_there(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("1")
    items = SeededDataset(Augmented(3, broken)).__getitems__([Token(row, 0) for row in range(3)])
    assert [row for row, _ in items] == [0, 1, 2]
    failure = items[1][1]
    assert isinstance(failure, LoadFailure)
    assert (failure.row, failure.reason) == (1, "OSError: file 1.png is truncated")
    assert "in __getitem__" in failure.trace
    assert CollateWithRows()(items) is failure
    collated = CollateWithRows()([items[0], items[2]])
    assert isinstance(collated, tuple)
    assert collated[0].tolist() == [0, 2] and collated[1][0].shape == (2, 1, 4, 4)
