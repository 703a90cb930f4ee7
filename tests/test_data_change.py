"""How two data sets differ, in numbers and in words, as plain sets and lists tell it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.data_change import change_of
from graybox.store.sample_columns import SplitColumns
from graybox.store.sample_keys import SampleKeys


@settings(max_examples=100)
@given(
    st.lists(st.integers(0, 9), unique=True, min_size=1),
    st.lists(st.integers(0, 9), unique=True, min_size=1),
    st.data(),
)
def test_a_change_in_words(before: list[int], after: list[int], data: st.DataObject) -> None:
    old = {number: data.draw(st.integers(-1, 1)) for number in before}
    new = {number: data.draw(st.integers(0, 1)) for number in after}
    known = SplitColumns("train", len(before), labels=[old[number] for number in before])
    source = SampleKeys([str(n) for n in after]).rows_in(SampleKeys([str(n) for n in before]))
    change = change_of(known, len(after), source, np.array([new[number] for number in after]), None)
    both = [number for number in after if number in old]
    assert change.new == len(set(after) - set(before)) and change.gone == len(set(before) - set(after))
    assert change.relabelled == sum(old[number] >= 0 and old[number] != new[number] for number in both)
    assert change.reordered == (both != [number for number in before if number in new])
    words = change.in_words()
    assert ("new" in words, "gone" in words) == (change.new > 0, change.gone > 0)
    assert ("another order" in words, "another label" in words) == (change.reordered, change.relabelled > 0)
