"""Items as they are stored: found through what wraps them, and read without transforms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset
from torchvision import datasets

from graybox.data_samples_with_ops import DataSampleTrackingWrapper
from graybox.stored_items import place_of, stored_item

FIRST = TensorDataset(torch.arange(5 * 16).reshape(5, 4, 4), torch.arange(5))
SECOND = TensorDataset(-torch.arange(3 * 16).reshape(3, 4, 4), torch.arange(3) + 10)


def read(dataset: Any, index: int) -> tuple[Any, Any]:
    stored = stored_item(place_of(dataset, index))
    assert stored is not None
    return stored.read()


@pytest.mark.parametrize(
    "dataset",
    [
        FIRST, Subset(FIRST, [4, 2, 0]), Subset(Subset(FIRST, torch.tensor([3, 1, 2])), [2, 0]),
        ConcatDataset([FIRST, SECOND]), Subset(ConcatDataset([FIRST, Subset(SECOND, [2, 0])]), [6, 5, 0]),
        DataSampleTrackingWrapper(FIRST), Subset(DataSampleTrackingWrapper(SECOND), [1]),
    ],
)  # fmt: skip
def test_wrappers_that_are_known_are_seen_through(dataset: Any) -> None:
    for index in range(len(dataset)):
        data, target = read(dataset, index)
        item = dataset[index]
        assert torch.equal(data, item[0])
        assert target == item[-1]


def test_wrappers_that_are_not_known_hide_the_item_but_are_listed() -> None:
    class Reversed(Dataset[Any]):
        def __init__(self, dataset: Any) -> None:
            self.dataset = dataset

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            return self.dataset[2 - index]

    for dataset in (Reversed(FIRST), Reversed(Subset(FIRST, [1])), Subset(Reversed(FIRST), [0])):
        place = place_of(dataset, 0)
        assert place.levels[-1] is FIRST and place.index is None and stored_item(place) is None
    within = place_of(Reversed(ConcatDataset([FIRST, SECOND])), 1)
    assert within.levels[-1] is FIRST and within.index is None
    named = place_of(Reversed("cifar"), 1)
    assert len(named.levels) == 1 and named.index == 1
    circle = Reversed(None)
    circle.dataset = circle
    assert place_of(circle, 0).index is None


class Arrays(Dataset[Any]):
    """Keeps arrays under the names it is given."""

    def __init__(self, **kept: Any) -> None:
        self.__dict__.update(kept)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("read as it is stored")


def test_arrays_with_their_targets() -> None:
    pixels, numbers = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8), [3, 1, 2, 0]
    masks = torch.zeros(4, 6, 5)
    for kept, expected in (
        ({"targets": numbers}, 2), ({"labels": np.asarray(numbers)}, 2),
        ({"masks": masks, "targets": numbers}, masks[2]),
    ):  # fmt: skip
        data, target = read(Arrays(data=pixels, **kept), 2)
        assert np.array_equal(data, pixels[2]) and np.array_equal(target, expected)
    for kept in ({}, {"targets": [1, 2]}, {"targets": "file"}, {"labels": lambda: 1}):
        stored = stored_item(place_of(Arrays(data=torch.from_numpy(pixels), **kept), 1))
        assert stored is not None and not stored.knows_target and stored.read()[1] is None
    for data in (pixels[:3], pixels[:, 0, 0], pixels.tolist(), None):
        assert stored_item(place_of(Arrays(data=data, targets=numbers), 1)) is None
    several = TensorDataset(torch.rand(2, 4, 4), torch.arange(2), torch.rand(2, 4, 4))
    assert len(read(several, 1)[1]) == 2 and read(TensorDataset(torch.rand(2, 4, 4)), 0)[1] == ()


def test_files_of_torchvision(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (6, 4), (9, 8, 7)).save(tmp_path / "cat" / "a.png")
    folder = datasets.ImageFolder(str(tmp_path), transform=lambda image: pytest.fail("not to be called"))
    data, target = read(folder, 0)
    assert (data.size, target) == ((6, 4), 0)
    assert stored_item(place_of(folder, 0)).knows_target  # type: ignore[union-attr]

    class WithMasks(datasets.ImageFolder):
        def __getitem__(self, index: int) -> Any:
            image, _ = super().__getitem__(index)
            return image, torch.zeros(4, 6)

    assert not stored_item(place_of(WithMasks(str(tmp_path)), 0)).knows_target  # type: ignore[union-attr]
    assert stored_item(place_of(datasets.FakeData(3), 0)) is None
