from __future__ import annotations

import re
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from graybox.store.query import Column, ColumnTable, Kind, parse, rows
from graybox.store.query.like import like
from tests.store.query.plain_oracle import regex

short_texts = st.lists(st.sampled_from(["a", "b", "A", "é", "_", "%", "\\", "\n", "ab", "ba"]), max_size=7).map("".join)
patterns = st.lists(st.sampled_from(["a", "B", "É", "_", "%", "%", "\\", "\n", "ab", "ba", "%ab%"]), max_size=6).map(
    "".join
)


@settings(max_examples=250, deadline=None)
@given(st.lists(short_texts, min_size=1, max_size=6), patterns)
@example(["ab", "a", "", "\\"], "\\")
@example(["a\0b", "ab"], "a_b")
def test_a_pattern_matches_what_a_slow_regular_expression_matches(texts: list[str], pattern: str) -> None:
    expected = [re.fullmatch(regex(pattern), text, re.DOTALL | re.IGNORECASE) is not None for text in texts]
    assert like(texts, pattern).tolist() == expected
    assert like(texts, pattern).dtype == np.bool_


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("straße", "STRAßE", True),
        ("STRASSE", "straße", False),  # _ counts characters, and one is not two
        ("str%_e", "straße", True),
        ("ΟΔΟΣ", "οδος", True),
        ("%σ", "οδος", True),
        ("i", "İ", False),
        ("_", "😀", True),
        ("100\\%", "100%", True),
        ("100\\%", "1000", False),
        ("a\\_b", "axb", False),
        ("c:\\\\x", "C:\\x", True),
        ("c:\\x", "C:\\x", True),
        ("", "", True),
        ("", "a", False),
        ("%", "", True),
        ("%%", "a", True),
        ("_%_", "a", False),
        ("ab%ba", "aba", False),
        ("ab%ba", "abba", True),
        ("%ab%ab", "ab", False),
        ("%ab%ba%", "aba", False),
        ("%aa%aa%", "aaa", False),
        ("%ab%ba", "xaba", False),
        ("%ab%ba", "xabba", True),
        ("a%", "a\nb", True),
    ],
)
def test_patterns(pattern: str, text: str, matches: bool) -> None:
    assert like([text], pattern).tolist() == [matches]


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("%a" * 127 + "b", "a" * 100_000),
        ("%a%" * 80 + "b", "a" * 100_000),
        ("%" * 255 + "b", "a" * 100_000),
        ("%_a" * 80 + "b", "a" * 100_000),
        ("a_" * 120 + "%b", "a" * 100_000),
        ("%" + "a" * 254 + "b", "a" * 100_000),
        ("%" + "a_" * 100 + "b%", "a" * 20_000),
        ("%" + "_" * 200 + "b%", "a" * 20_000),
    ],
)
def test_bad_patterns_take_no_longer_than_others(pattern: str, text: str) -> None:
    started = time.process_time()
    assert like([text], pattern).tolist() == [False]
    assert time.process_time() - started < 1


def test_like_of_a_column_with_null_and_of_classes() -> None:
    table = ColumnTable(
        {
            "text": ["Abc", None, "xyz", ""],
            "label": Column("label", Kind.CLASS, np.array([0, 1, -1, 5]), names=("Cat", "dog")),
        }
    )
    assert rows(parse("text like '%B%'"), table).tolist() == [0]
    assert rows(parse("text not like '%B%'"), table).tolist() == [2, 3]
    assert rows(parse("not text like '%B%'"), table).tolist() == [1, 2, 3]
    assert rows(parse("label like 'c%'"), table).tolist() == [0]
