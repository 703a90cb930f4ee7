"""Which samples an evaluation is of: as sets say; and how the journal holds them."""

from __future__ import annotations

import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.commands import StartEvaluation
from graybox.errors import NotFound, Refused
from graybox.evaluation_rows import MAX_INLINE, kept_rows, rows_for, rows_of
from graybox.store.blobs import BlobStore
from graybox.store.sample_columns import SplitColumns

COUNT = 12
SOME = st.sets(st.integers(0, COUNT - 1))


def columns(discarded: set[int], tags: dict[str, set[int]]) -> dict[str, SplitColumns]:
    made = SplitColumns("val", COUNT)
    made.discard(np.array(sorted(discarded), dtype=np.int64), True)
    for tag, rows in tags.items():
        made.notes.tag(tag, np.array(sorted(rows), dtype=np.int64), True)
    other = SplitColumns("train", 3)
    other.notes.tag("elsewhere", np.array([0]), True)
    return {"train": other, "val": made}


@settings(max_examples=200, deadline=None)
@given(
    SOME, SOME.filter(bool), SOME.filter(bool), st.booleans(),
    st.lists(st.sampled_from(["dark", "night", "elsewhere"]), max_size=3), st.none() | SOME,
)  # fmt: skip
def test_they_are_those_that_were_meant(
    discarded: set[int], dark: set[int], night: set[int], full: bool, tags: list[str], view: set[int] | None
) -> None:
    splits = columns(discarded, {"dark": dark, "night": night})
    tagged = {"dark": dark, "night": night, "elsewhere": set()}
    expected = set(range(COUNT))
    if not full:
        if not tags and view is None:
            expected -= discarded
        if tags:
            expected &= set().union(*(tagged[tag] for tag in tags))
        if view is not None:
            expected &= view
    rows = None if view is None else np.array(list(view), dtype=np.int64)
    command = StartEvaluation("val", tuple(tags), full, rows=rows)
    if expected:
        assert rows_for(command, splits).tolist() == sorted(expected)
    else:
        with pytest.raises(Refused, match=r"nothing to evaluate|every sample of val is discarded"):
            rows_for(command, splits)


def test_what_does_not_exist_is_named() -> None:
    splits = columns(set(), {"dark": {1}})
    with pytest.raises(NotFound, match="no tag 'drak'; there are elsewhere, dark"):
        rows_for(StartEvaluation("val", ("dark", "drak")), splits)
    with pytest.raises(NotFound, match="has no sample 99"):
        rows_for(StartEvaluation("val", rows=np.array([99])), splits)
    with pytest.raises(Refused, match="no sample of val is chosen by tag elsewhere and the view"):
        rows_for(StartEvaluation("val", ("elsewhere",), rows=np.array([1])), splits)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([1, 5, MAX_INLINE, MAX_INLINE + 1, 3_000]), st.integers(0, 2**31), st.floats(0, 1))
def test_the_journal_gives_them_back(count: int, seed: int, share: float) -> None:
    rows = np.flatnonzero(np.random.default_rng(seed).random(count) < share)
    with tempfile.TemporaryDirectory() as folder:
        blobs = BlobStore(folder)
        kept = kept_rows(rows, count, blobs)
        assert len(str(kept)) < 7 * MAX_INLINE
        assert rows_of(kept, count, blobs).tolist() == rows.tolist()
