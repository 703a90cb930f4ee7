"""Names that data sets have for their samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder

from graybox.data_samples_with_ops import DataSampleTrackingWrapper
from graybox.errors import Invalid
from graybox.experiment import wrap_datasets
from graybox.sample_names import own_names
from tests.test_offered_labels import Told


class Method(Told):
    def get_sample_id(self, index: int) -> Any:
        return self.targets[index]


def names(dataset: Any) -> list[str] | None:
    found = own_names(dataset)
    return None if found is None else list(found.texts())


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (Told(["a", "b", "c"], "sample_ids"), ["a", "b", "c"]),
        (Told(["a", "b", "c"], "ids"), ["a", "b", "c"]),
        (Told(torch.tensor([7, 5, 9]), "sample_ids"), ["7", "5", "9"]),
        (Told(np.array([7, 5, 9]), "ids"), ["7", "5", "9"]),
        (Told(("a", 1, np.int32(2)), "ids"), ["a", "1", "2"]),
        (Told(["a", "b", "c"], "sample_ids", ids=[1, 1, 1]), ["a", "b", "c"]),
        (Method(["x", "y", "z"]), ["x", "y", "z"]),
        (Told([0.5, 1, 2], "ids"), None),
        (Told(["a"], "ids"), None),
        (Told(lambda: 1, "ids"), None),
        (Told("abc", "ids"), None),
        (Told([0, 1, 2]), None),
        (TensorDataset(torch.zeros(3, 1)), None),
        (Subset(Told(["a", "b", "c"], "ids"), [2, 0]), ["c", "a"]),
        (Subset(Told(["a", "b", "c"], "ids"), [2, 2]), None),
        (ConcatDataset([Told(["a", "b", "c"], "ids"), Told(["d", "e", "f"], "ids")]), [*"abcdef"]),
        (ConcatDataset([Told(["a", "b", "c"], "ids"), Told(["a", "e", "f"], "ids")]), None),
        (ConcatDataset([Told(["a", "b", "c"], "ids"), Told([0, 1, 2])]), None),
    ],
)
def test_where_names_come_from(dataset: Any, expected: list[str] | None) -> None:
    assert names(dataset) == expected


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        (Told(["a", "b"], "sample_ids"), "sample_ids of Told is one text or whole number for each of its 3 samples"),
        (Told([0.5, 1, 2], "sample_ids"), "sample_ids of Told is one text or whole number"),
        (Told(["a", "b", "a"], "sample_ids"), "sample_ids of Told names samples 0 and 2 both 'a'"),
        (Told([4, 4, 5], "ids"), r"ids of Told \(sample_ids would go before them\) names samples 0 and 1 both '4'"),
        (Method(["x", "y"]), "get_sample_id of Method raised IndexError"),
        (Method([0.5, 1, 2]), "get_sample_id of Method answers one text or whole number for each sample"),
    ],
)
def test_names_that_are_none_are_refused_when_the_experiment_is_made(dataset: Any, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        wrap_datasets({"train": dataset})


def test_files_are_named_from_their_folder_on(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (2, 2)).save(tmp_path / name)
    folder = ImageFolder(str(tmp_path))
    assert names(folder) == ["cat/1.png", "cat/2.png", "dog/1.png"]
    folder.samples = [*folder.samples, folder.samples[0]]  # one is drawn twice as often
    assert names(folder) is None


def test_the_fingerprint_tells_names_and_their_order() -> None:
    prints = [
        DataSampleTrackingWrapper(data).fingerprint()
        for data in (
            Told(["a", "b", "c"], "ids"), Told(["a", "c", "b"], "ids"), Told(None, "ids"),
            ConcatDataset([Told(["a", "b", "c"], "ids")]), ConcatDataset([Told(["a", "c", "b"], "ids")]),
        )
    ]  # fmt: skip
    assert len(set(prints)) == len(prints)
