from __future__ import annotations

import hashlib
import json
from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.store import sample_manifest
from graybox.store.sample_export import find
from graybox.store.sample_manifest import kept_rows, labels_digest, manifest_parts
from graybox.store.sample_table import SampleTable
from tests.store.test_sample_export import tables


@settings(max_examples=40)
@given(
    tables(),
    st.sampled_from(["", "split == 'train' sortby id desc", "discarded", "sample 50%"]),
    st.sampled_from([1, 65_536]),
)
def test_it_holds_what_the_columns_hold(table: SampleTable, query: str, slice_size: int) -> None:
    with np.errstate(all="ignore"):
        _, found = find(query, table)
    with patch.object(sample_manifest, "_SLICE", slice_size):
        parts = list(manifest_parts(table.splits, kept_rows(table.splits, found), {"query": query, "x": ["ü", None]}))
    told = json.loads(b"".join(parts))
    assert (told["format"], told["format_version"], told["query"], told["x"]) == (
        "graybox manifest",
        1,
        query,
        ["ü", None],
    )
    assert list(told["splits"]) == [columns.name for columns in table.splits]
    for number, columns in enumerate(table.splits):
        split, notes = told["splits"][columns.name], columns.notes
        discarded = columns.discarded.tolist()
        in_order = [int(row) for code, row in zip(found.split, found.row, strict=True) if code == number]
        assert split["rows"] == [row for row in in_order if not discarded[row]]
        assert split["discarded"] == [row for row in range(columns.count) if discarded[row]]
        truth, corrected = columns.label.copy(), split["labels"]
        truth[corrected["rows"]] = corrected["labels"]
        assert truth.tolist() == columns.truth().tolist()
        weights = np.ones(columns.count, np.float32)
        weights[split["weights"]["rows"]] = split["weights"]["weights"]
        assert weights.tobytes() == notes.weights().tobytes() and 1 not in split["weights"]["weights"]
        assert split["tags"] == {tag: np.flatnonzero(mask).tolist() for tag, mask in notes.tags.items()}
        assert (split["samples"], split["fingerprint"]) == (columns.count, columns.fingerprint)
        known = (columns.label >= 0).all()
        assert split["labels_sha256"] == (hashlib.sha256(columns.label.tobytes()).hexdigest() if known else None)


def test_labels_are_told_apart_by_their_digest() -> None:
    assert labels_digest(np.array([0, 1])) != labels_digest(np.array([1, 0]))
    assert labels_digest(np.array([0, -1])) is None
