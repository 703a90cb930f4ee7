"""Sets of classes as bits are what Python's sets are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graybox.store import class_sets

sets = st.lists(st.none() | st.frozensets(st.integers(0, 40), max_size=6), max_size=12)


def bits_of(wanted: list[frozenset[int] | None], least: int = 0) -> class_sets.Bits:
    flags = np.zeros((len(wanted), max([least, *(max(each, default=-1) + 1 for each in wanted if each)])), dtype=bool)
    for row, each in enumerate(wanted):
        flags[row, list(each or ())] = True
    return class_sets.packed(flags, np.array([each is not None for each in wanted], dtype=bool))


def sets_of(bits: class_sets.Bits) -> list[frozenset[int] | None]:
    known = class_sets.known(bits)
    flags = class_sets.unpacked(bits)
    return [frozenset(np.flatnonzero(flags[row]).tolist()) if known[row] else None for row in range(len(bits))]


@given(sets, st.integers(0, 50))
def test_what_is_packed_is_unpacked(wanted: list[frozenset[int] | None], least: int) -> None:
    bits = bits_of(wanted, least)
    assert sets_of(bits) == wanted
    assert sets_of(class_sets.widened(bits, bits.shape[1] + 3)) == wanted
    for number in (-1, 0, 7, 40, 10_000):
        assert class_sets.has(bits, number).tolist() == [each is not None and number in each for each in wanted]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-3, 5_000)), max_size=30))
def test_pairs_make_the_same_sets(pairs: list[tuple[int, int]]) -> None:
    rows, classes = (np.array([pair[i] for pair in pairs], dtype=np.int64) for i in (0, 1))
    found = sets_of(class_sets.from_pairs(rows, classes, 6))
    assert found == [frozenset(c for r, c in pairs if r == row and 0 <= c < class_sets.MAX_CLASSES) for row in range(6)]


def test_many_samples_are_packed_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    flags = random.random((1_000, 21)) < 0.1
    known = random.random(1_000) < 0.9
    rows, classes = np.nonzero(flags)
    shuffled = random.permutation(len(rows))
    whole = class_sets.packed(flags, known)
    monkeypatch.setattr(class_sets, "_BLOCK", 7)
    assert np.array_equal(class_sets.packed(flags, known), whole)
    codes, texts = class_sets.as_texts(whole, ["a", "b"])
    assert [texts[code] for code in codes[known]] == [class_sets.words_of(whole, r, ["a", "b"]) for r in np.flatnonzero(known)]  # fmt: skip  # noqa: E501
    assert np.array_equal(class_sets.from_pairs(rows[shuffled], classes[shuffled], 1_000, known), whole)


@given(sets, sets)
def test_sets_are_compared(one: list[frozenset[int] | None], other: list[frozenset[int] | None]) -> None:
    count = min(len(one), len(other))
    found = class_sets.equal(bits_of(one[:count]), bits_of(other[:count], 30)).tolist()
    assert found == [
        -1 if a is None or b is None else int(a == b) for a, b in zip(one[:count], other[:count], strict=True)
    ]


@given(sets, st.integers(0, 50))
def test_they_are_written_in_words(wanted: list[frozenset[int] | None], named: int) -> None:
    names = [f"class {number}" for number in range(named)]
    expected = [
        None if each is None else ", ".join(names[n] if n < named else str(n) for n in sorted(each)) for each in wanted
    ]
    codes, texts = class_sets.as_texts(bits_of(wanted), names)
    assert [texts[code] if code >= 0 else None for code in codes.tolist()] == expected
    assert [class_sets.words_of(bits_of(wanted), row, names) for row in range(len(wanted))] == [
        e or "" for e in expected
    ]


@given(st.lists(st.lists(st.integers(0, 2), min_size=20, max_size=20), max_size=10))
def test_rows_of_any_width_are_told_apart(listed: list[list[int]]) -> None:
    bits = np.array(listed, dtype=np.uint8).reshape(len(listed), 20)
    first, which = class_sets.different_rows(bits)
    assert np.array_equal(bits[first][which], bits) and len(first) == len({tuple(row) for row in listed})


def test_rows_whose_key_is_the_same_are_told_apart_all_the_same() -> None:
    # key(a, b) is mixed(a) * golden + b: these two have the same one.
    mixed = (1 ^ (1 >> 29)) * 0x9E3779B97F4A7C15 % 2**64
    words = np.array([[1, 0], [0, mixed]], dtype="<u8")
    first, which = class_sets.different_rows(words.view(np.uint8))
    assert len(first) == 2 and which[0] != which[1]
