"""Sets of classes as bits: which of its classes each sample has, in a few bytes a sample.

Rows of bytes, uint8 [n, bytes]. The first bit of a row says whether its set is known at all; the bit behind it is
class 0, and so on. A row of zeros is a sample of which nothing is known; an empty set is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint8]
Flags = NDArray[np.bool_]

MAX_CLASSES = 4_096
"""Classes from this number on are left out: each takes a bit of every sample."""
_BLOCK = 65_536
"""Samples that are unpacked at a time."""


def packed(sets: NDArray[Any], known: Flags | None = None) -> Bits:
    """Bits of sets, bool [n, classes]: which classes each has. known: bool [n], None for all."""
    sets = sets[:, :MAX_CLASSES]
    found = np.zeros((len(sets), (sets.shape[1] + 8) // 8), dtype=np.uint8)
    for start in range(0, len(sets), _BLOCK):
        some = np.asarray(sets[start : start + _BLOCK], dtype=bool)
        first = np.ones(len(some), dtype=bool) if known is None else known[start : start + _BLOCK]
        bits = np.concatenate([first[:, None], some & first[:, None]], axis=1)
        found[start : start + _BLOCK] = np.packbits(bits, axis=1, bitorder="little")
    return found


def from_pairs(rows: NDArray[np.int64], classes: NDArray[np.int64], count: int, known: Flags | None = None) -> Bits:
    """Bits of `count` sets of which row rows[i] has class classes[i], both int64 [m]. Classes below 0 and from
    MAX_CLASSES on are left out."""
    kept = (classes >= 0) & (classes < MAX_CLASSES)
    order = np.argsort(rows[kept], kind="stable")
    rows, classes = rows[kept][order], classes[kept][order]
    width = int(classes.max(initial=-1)) + 1
    found = np.zeros((count, (width + 8) // 8), dtype=np.uint8)
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        some = slice(*np.searchsorted(rows, [start, stop]))
        sets = np.zeros((stop - start, width), dtype=bool)
        sets[rows[some] - start, classes[some]] = True
        found[start:stop] = packed(sets, None if known is None else known[start:stop])
    return found


def unpacked(bits: Bits) -> Flags:
    """Which classes each has, bool [n, classes]; as many classes as fit into the bytes."""
    return np.unpackbits(bits, axis=1, bitorder="little")[:, 1:].astype(bool)


def known(bits: Bits) -> Flags:
    """Whether each set is known, bool [n]."""
    return (bits[:, 0] & 1).astype(bool)


def has(bits: Bits, number: int) -> Flags:
    """Whether each set has a class, bool [n]; False for what is not known."""
    byte, bit = divmod(number + 1, 8)
    if number < 0 or byte >= bits.shape[1]:
        return np.zeros(len(bits), dtype=bool)
    return ((bits[:, byte] >> bit) & 1).astype(bool)


def widened(bits: Bits, width: int) -> Bits:
    """The same sets in rows of so many bytes; as they are where they have as many."""
    if bits.shape[1] >= width:
        return bits
    found = np.zeros((len(bits), width), dtype=np.uint8)
    found[:, : bits.shape[1]] = bits
    return found


def equal(first: Bits, second: Bits) -> NDArray[np.int8]:
    """int8 [n]: 1 where two sets are the same, 0 where not, -1 where one is not known."""
    width = max(first.shape[1], second.shape[1])
    same = (widened(first, width) == widened(second, width)).all(axis=1)
    return np.where(known(first) & known(second), same.astype(np.int8), np.int8(-1))


def as_texts(bits: Bits, names: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """(codes int64 [n], texts): each different set once, as "cat, dog" in the order of the classes, and for each row
    which it is; -1 for what is not known. names: of class 0, 1, ...; a class without one is written as its number."""
    first, codes = different_rows(bits)
    words = [names[number] if number < len(names) else str(number) for number in range(bits.shape[1] * 8)]
    texts: list[str] = []
    for start in range(0, len(first), _BLOCK):
        flags = unpacked(bits[first[start : start + _BLOCK]])
        found = [words[number] for number in np.nonzero(flags)[1].tolist()]
        ends = np.cumsum(np.count_nonzero(flags, axis=1)).tolist()
        texts += [", ".join(found[begin:end]) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
    return np.where(known(bits), codes, -1), tuple(texts)


def in_words(classes: Sequence[int], names: Sequence[str]) -> str:
    """ "cat, dog": the names of some classes."""
    return ", ".join(names[number] if number < len(names) else str(number) for number in classes)


def words_of(bits: Bits, row: int, names: Sequence[str]) -> str:
    """One sample's set in words; empty for one that is not known."""
    return in_words(np.flatnonzero(unpacked(bits[row : row + 1])[0]).tolist(), names)


def different_rows(bits: Bits) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(first int64 [m], which int64 [n]): a row of each different content, and for each row which of these it is."""
    words = widened(bits, -(-bits.shape[1] // 8) * 8).view("<u8") if len(bits) else np.zeros((0, 1), dtype="<u8")
    key = words[:, 0].copy()
    for column in words.T[1:]:  # of different rows hardly ever the same, which is looked at below
        key ^= key >> np.uint64(29)
        key = key * np.uint64(0x9E3779B97F4A7C15) + column
    _, first, which = np.unique(key, return_index=True, return_inverse=True)
    if words.shape[1] > 1 and not np.array_equal(words[first][which], words):
        _, first, which = np.unique(words, axis=0, return_index=True, return_inverse=True)
    return first.astype(np.int64), which.reshape(-1).astype(np.int64)
