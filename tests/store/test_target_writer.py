from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graybox.errors import Invalid, NotFound
from graybox.store.samples import SampleStore
from graybox.store.targets import Answers, LabelKind, Labels


def test_labels_of_all_samples_are_written_once(tmp_path: Path) -> None:
    store = SampleStore(tmp_path)
    store.add_split("train", 3, None, "f")
    numbers = Labels(LabelKind.NUMBER, {"number": np.array([1.5, np.nan, 3], np.float32)})
    store.learn_targets("train", None, numbers)
    (log,) = tmp_path.glob("samples-*.log")
    size = log.stat().st_size
    store.learn_targets("train", None, numbers)
    assert log.stat().st_size == size
    store.learn_targets("train", None, Labels(LabelKind.NUMBER, {"number": np.array([1.5, 2, 3], np.float32)}))
    assert log.stat().st_size > size
    store.close()
    again = SampleStore(tmp_path, read_only=True).splits["train"].targets
    assert again.column("number").tolist() == [1.5, 2, 3]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("split", "where", "columns", "kind", "said"),
    [
        ("none", [0], {"number": np.zeros(1)}, NotFound, "no split 'none'"),
        ("train", [9], {"number": np.zeros(1)}, NotFound, "no sample 9"),
        ("train", [0, 1], {"number": np.zeros(1)}, Invalid, r"'number' of 2 samples has shape \[1\]"),
        ("train", [0], {"classes": np.zeros(1, np.uint8)}, Invalid, r"'classes' of 1 samples has shape \[1\]"),
        ("train", [0], {"classes": np.zeros((1, 600), np.uint8)}, Invalid, "'classes' of 1 samples has shape"),
        ("train", [0], {"predicted": np.zeros(1)}, Invalid, "'predicted' is no column of labels; there are number"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    tmp_path: Path, split: str, where: list[int], columns: Any, kind: type[Exception], said: str
) -> None:
    store = SampleStore(tmp_path)
    store.add_split("train", 3, None, "f")
    with pytest.raises(kind, match=said):
        store.learn_targets(split, where, Labels(LabelKind.NUMBER, columns))
    with pytest.raises(Invalid, match="'number' is no column"):
        store.record_answers("train", [0], Answers({"number": np.zeros(1)}), 1)
    assert store.splits["train"].targets.kind is LabelKind.NONE and not store.splits["train"].targets.of_data()
