"""The Normalize of a data set is found wherever it is, and taken back exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, Subset
from torchvision import datasets, transforms
from torchvision.models import ResNet18_Weights
from torchvision.transforms import v2

from graybox.normalisation import Normalisation, normalisation
from graybox.picture import picture_of
from graybox.stored_items import place_of

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


class Photographs(Dataset[Any]):
    """Ten times the same photograph, through a transform kept under some name."""

    def __init__(self, transform: Any, name: str = "transform") -> None:
        setattr(self, name, transform)
        self._apply = transform

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        return self._apply(Image.fromarray(PIXELS)), 0


class Wrapped(Dataset[Any]):
    """A wrapper of one's own, with a transform of its own."""

    def __init__(self, dataset: Any, transform: Any = None) -> None:
        self.dataset = dataset
        self.transform = transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        data, target = self.dataset[len(self) - 1 - index]
        return (data if self.transform is None else self.transform(data)), target


V1 = transforms.Compose([transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])])
V2 = v2.Compose([v2.ToImage(), v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])])
TWICE = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD), transforms.Normalize([0.1], [2.0])])
SEQUENCE = transforms.Compose([transforms.ToTensor(), nn.Sequential(transforms.Normalize(MEAN, STD))])
IN_BYTES = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32), v2.Normalize([128.0] * 3, [60.0] * 3)])


@pytest.mark.parametrize(
    "dataset",
    [
        Photographs(V1), Photographs(V2), Photographs(TWICE), Photographs(SEQUENCE), Photographs(IN_BYTES),
        Photographs(V1, "transforms"), Photographs(V2, "train_transform"), Photographs(transforms.ToTensor()),
        Subset(Subset(Photographs(V1), [3, 4, 5]), [2, 0]), ConcatDataset([Photographs(V1), Photographs(V2)]),
        Wrapped(Photographs(V2)), Wrapped(Subset(Photographs(V1), [1, 2])),
        Wrapped(Photographs(transforms.ToTensor()), transforms.Normalize(MEAN, STD)),
        Wrapped(Photographs(V1), transforms.Normalize([0.3], [0.5])),
        Wrapped(ConcatDataset([Photographs(V2), Photographs(V1)])),
    ],
)  # fmt: skip
def test_a_known_picture_comes_back_to_half_a_grey_level(dataset: Any) -> None:
    data, _ = dataset[0]
    picture = picture_of(data, normalisation(place_of(dataset, 0).levels))
    np.testing.assert_array_equal(np.asarray(picture.image), PIXELS)
    assert picture.note == ""


def test_each_part_of_several_data_sets_has_its_own() -> None:
    both = ConcatDataset([Photographs(V1), Subset(Photographs(IN_BYTES), [1, 2])])
    means = [normalisation(place_of(both, index).levels).mean.tolist() for index in (9, 10)]  # type: ignore[union-attr]
    assert means == [pytest.approx(MEAN), [128.0] * 3]


def test_pair_transforms_and_shared_transforms_count_once() -> None:
    both = datasets.FakeData(4, (3, 8, 8), transform=V1)
    assert both.transform is V1 and both.transforms.transform is V1  # torchvision keeps it twice
    expected = Normalisation(np.asarray(MEAN), np.asarray(STD))
    for levels in ([both], [Wrapped(both, V1), both]):
        found = normalisation(levels)
        assert found is not None
        np.testing.assert_allclose(np.stack(found), np.stack(expected))


def test_presets_scalars_and_lookalikes() -> None:
    preset = normalisation([Photographs(ResNet18_Weights.DEFAULT.transforms())])
    assert preset is not None and preset.mean.tolist() == pytest.approx(MEAN)

    class MyNormalize:
        mean, std = 0.5, 0.25

    class AddGaussianNoise:
        mean, std = 0.0, 0.1

    found = normalisation([Photographs([AddGaussianNoise(), MyNormalize()])])
    assert found is not None and (found.mean.tolist(), found.std.tolist()) == ([0.5], [0.25])
    circle: list[Any] = []
    circle.append(circle)
    for odd in (
        None, lambda image: image, AddGaussianNoise(), np.ones(3), torch.ones(3), circle, transforms.ToTensor(), 7,
        type("Normalize", (), {"mean": ["a"], "std": [1.0]})(), type("Normalize", (), {"mean": [0.5], "std": [0.0]})(),
        type("Normalize", (), {"mean": [0.5], "std": [float("nan")]})(),
        type("Normalize", (), {"mean": [], "std": []})(),
        type("Normalize", (), {"mean": [0.5, 0.5], "std": [1.0, 1.0, 1.0]})(),
    ):  # fmt: skip
        assert normalisation([Photographs(odd)]) is None


def test_one_of_other_channels_is_left_alone() -> None:
    known = Normalisation(np.asarray(MEAN), np.asarray(STD))
    chosen = known.of([0, 2], 3)
    assert chosen is not None and chosen.mean.tolist() == [MEAN[0], MEAN[2]]
    assert known.of([0], 1) is None
    grey = Normalisation(np.asarray([0.5]), np.asarray([0.25])).of([0, 3, 6], 7)
    assert grey is not None and grey.std.tolist() == [0.25] * 3
    assert known.after(Normalisation(np.zeros(2), np.ones(2))) is known
