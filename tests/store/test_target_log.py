from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from graybox.errors import StorageError
from graybox.store.class_sets import packed
from graybox.store.sample_columns import SplitColumns
from graybox.store.sample_log import apply_payload
from graybox.store.target_log import answers_payload, labels_payload
from graybox.store.targets import Answers, LabelKind, Labels

BOXES = Labels(LabelKind.BOXES, {"boxes": np.array([2, 0], "<i4"), "classes": packed(np.eye(2, 30, dtype=bool))})


def test_a_payload_does_what_was_done() -> None:
    found, expected = ([SplitColumns("val", 1), SplitColumns("train", 4)] for _ in range(2))
    expected[1].targets.learn(np.array([3, 1]), BOXES)
    answers = Answers({"predicted": np.array([0.5], np.float32), "predicted_classes": packed(np.ones((1, 9)))})
    expected[1].record_answers(np.array([2]), answers, 5)
    apply_payload(labels_payload(1, np.array([3, 1]), BOXES), found)
    apply_payload(answers_payload(1, np.array([2]), answers, 5), found)
    for columns, wanted in zip(found, expected, strict=True):
        for one, other in ((columns.targets.of_data(), wanted.targets.of_data()), (columns.state(), wanted.state())):
            assert one.keys() == other.keys()
            for name, value in one.items():
                np.testing.assert_array_equal(value, other[name])


def test_labels_of_all_need_no_rows() -> None:
    found = [SplitColumns("train", 2)]
    payload = labels_payload(0, None, BOXES)
    apply_payload(payload, found)
    assert found[0].targets.column("boxes").tolist() == [2, 0]  # type: ignore[union-attr]
    assert len(payload) < len(labels_payload(0, np.array([0, 1]), BOXES))


def made(head: dict[str, object], rest: bytes) -> bytes:
    text = json.dumps({"split": 0, "kind": "", "age": 0, "rows": True, "columns": [], **head}).encode()
    return struct.pack("<cI", b"T", len(text)) + text + rest


@pytest.mark.parametrize(
    "payload",
    [
        b"T",
        made({"split": 7}, b""),
        made({"columns": [["predicted", 4]]}, b"\0" * 11),
        made({"columns": [["predicted", 4]]}, struct.pack("<q", 9) + b"\0" * 4),
        made({"columns": [["number", 4]]}, b"\0" * 12),
        made({"columns": [["classes", 4]], "kind": "nonsense"}, b"\0" * 12),
        made({"rows": False, "columns": [["predicted", 4]]}, b"\0" * 12),
        made({"columns": [["predicted_classes", 0]]}, b"\0" * 16),
        made({"columns": [["predicted", 3]]}, b"\0" * 11),
    ],
)
def test_a_senseless_record_is_refused_and_changes_nothing(payload: bytes) -> None:
    columns = SplitColumns("train", 2)
    before = columns.state()
    with pytest.raises(StorageError, match="a record of the sample log is broken"):
        apply_payload(payload, [columns])
    assert not columns.targets.state() and not columns.targets.of_data()
    for name, value in columns.state().items():
        np.testing.assert_array_equal(value, before[name])
