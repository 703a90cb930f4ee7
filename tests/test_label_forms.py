"""Targets of batches, read as labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graybox.label_forms import labels_of_batch, masks
from graybox.store.class_sets import MAX_CLASSES, unpacked
from graybox.store.targets import LabelKind


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(2, 5), st.integers(2, 5), st.sampled_from(["u1", "<i8", "<f4"]))  # fmt: skip  # noqa: E501
def test_the_classes_of_a_mask(seed: int, count: int, high: int, wide: int, dtype: str) -> None:
    values = np.random.default_rng(seed).choice([0, 1, 3, 200, 254, 255], (count, high, wide)).astype(dtype)
    found = masks(values)
    assert found is not None and found.kind is LabelKind.MASK
    flags = unpacked(found.columns["classes"])
    for number in range(count):
        expected = {int(each) for each in np.unique(values[number])} - {255}
        assert set(np.flatnonzero(flags[number]).tolist()) == expected
    again = labels_of_batch(torch.from_numpy(values[:, None]), count, LabelKind.MASK)
    assert again is not None and np.array_equal(again.columns["classes"], found.columns["classes"])


def test_classes_without_end_and_below_0_are_left_out() -> None:
    found = masks(np.array([[[-1, MAX_CLASSES], [2, 10**12]]]))
    assert found is not None and np.flatnonzero(unpacked(found.columns["classes"])[0]).tolist() == [2]


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (torch.tensor([1, 2, 0]), None),
        (torch.tensor([1, 2, 0]), LabelKind.CLASS),
        (torch.zeros(3, 5), None),
        (torch.zeros(3, 5), LabelKind.NUMBER),
        (torch.randint(0, 100, (3, 7)), None),
        (torch.full((3, 2), 2.0), LabelKind.CLASSES),
        (torch.rand(3, 1, 4, 4), None),
        (torch.rand(3, 3, 4, 4), None),
        (torch.zeros(2), LabelKind.NUMBER),
        (["a", "b", "c"], None),
        ([{"boxes": [[0, 0, 1, 1]]}, {}, {}], None),
        ({"other": torch.zeros(3)}, None),
        (torch.zeros(3, dtype=torch.complex64), None),
        (torch.zeros(3).to_sparse(), None),
        (None, None),
    ],
)
def test_other_targets_say_nothing(target: Any, kind: LabelKind | None) -> None:
    assert labels_of_batch(target, 3, kind) is None
