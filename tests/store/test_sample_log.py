from __future__ import annotations

import numpy as np
import pytest

from graybox.errors import GrayboxError
from graybox.store.sample_columns import SplitColumns
from graybox.store.sample_log import apply_payload, batch_payload, discard_payload, split_payload

ROWS = np.array([1, 0, 1])
LOSSES = np.array([0.5, np.nan, 2.5], np.float32)


def test_a_payload_does_what_was_done() -> None:
    splits: list[SplitColumns] = []
    apply_payload(split_payload(0, SplitColumns("träin", 2, "f", [3, -1]), anew=True), splits)
    apply_payload(split_payload(1, SplitColumns("val", 1), anew=True), splits)
    apply_payload(batch_payload(0, ROWS, LOSSES, np.array([2**40, 1, 5]), 2**40), splits)
    apply_payload(batch_payload(0, ROWS[:1], LOSSES[:1], None, 7), splits)
    apply_payload(discard_payload(0, np.array([0]), True), splits)
    found = splits[0]
    assert (found.name, found.count, found.fingerprint, found.label.tolist()) == ("träin", 2, "f", [3, -1])
    assert found.encounters.tolist() == [1, 3]
    assert found.prediction.tolist() == [1, 5]
    assert found.last_age.tolist() == [2**40, 7]
    assert np.isnan(found.loss[0]) and found.loss[1] == 0.5
    assert found.discarded.tolist() == [True, False]
    assert splits[1].encounters.tolist() == [0]
    apply_payload(split_payload(0, SplitColumns("träin", 2, "f", [4, 4]), anew=False), splits)
    assert splits[0] is found and found.label.tolist() == [4, 4] and found.encounters.tolist() == [1, 3]
    apply_payload(split_payload(0, SplitColumns("träin", 3), anew=True), splits)
    assert splits[0].count == 3 and splits[0].encounters.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "payload",
    [
        b"X",
        b"B",
        batch_payload(0, ROWS, LOSSES, None, 1)[:-1],
        batch_payload(3, ROWS, LOSSES, None, 1),
        batch_payload(0, ROWS + 9, LOSSES, None, 1),
        discard_payload(0, ROWS, True)[:-3],
        split_payload(5, SplitColumns("val", 1), anew=True),
        split_payload(1, SplitColumns("val", 1), anew=True)[:-1],
    ],
)
def test_a_senseless_record_is_refused_and_changes_nothing(payload: bytes) -> None:
    splits = [SplitColumns("train", 2)]
    with pytest.raises(GrayboxError):
        apply_payload(payload, splits)
    assert len(splits) == 1 and not splits[0].encounters.any() and not splits[0].discarded.any()
