"""Texts as numbers: each different text once, and for each row which it is."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graybox.errors import Invalid


@dataclass(frozen=True)
class Texts:
    """A column of texts, or of classes by their names. codes: integers [rows] that index `texts`; others are null."""

    codes: NDArray[Any]
    texts: tuple[str, ...]

    def rows_where(self, holds: Callable[[str], bool]) -> NDArray[np.bool_]:
        """bool [rows], asked once for each different text. Null never holds."""
        return self.rows_of(np.fromiter(map(holds, self.texts), bool, len(self.texts)))

    def rows_of(self, flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """bool [rows] from one flag for each text."""
        chosen = np.flatnonzero(flags)
        if len(chosen) == 0:
            return np.zeros(len(self.codes), dtype=bool)
        if len(chosen) == 1:
            return np.asarray(self.codes == chosen[0])  # instead of a look-up for each row
        # Shifted by one, all that is null lands on a False at either end.
        return np.take(np.concatenate([[False], flags, [False]]), self._shifted(), mode="clip")

    def null(self) -> NDArray[np.bool_]:
        if self.codes.dtype.kind == "u":
            return self.codes >= len(self.texts)
        return (self.codes < 0) | (self.codes >= len(self.texts))

    def ranks(self, order: Sequence[str] | None = None) -> NDArray[np.int64]:
        """int64 [rows]: the place of each text in `order`, which has all of them; without it, among all by their code
        points. -1 is null."""
        ranks = np.full(len(self.texts) + 2, -1, dtype=np.int64)
        if order is None:
            ranks[1:-1] = _alphabetical(self.texts)
        else:
            place = {text: index for index, text in enumerate(order)}
            ranks[1:-1] = [place[text] for text in self.texts]
        return np.take(ranks, self._shifted(), mode="clip")

    def taken(self, rows: NDArray[np.int64]) -> Texts:
        """These rows only; and only their texts, where they are far fewer than all."""
        codes = self.codes[rows]
        if len(self.texts) <= 2 * len(codes):
            return Texts(codes, self.texts)
        known = np.unique(codes[(codes >= 0) & (codes < len(self.texts))])
        if not len(known):
            return Texts(np.full(len(codes), -1), ())
        place = np.minimum(np.searchsorted(known, codes), len(known) - 1)
        return Texts(np.where(known[place] == codes, place, -1), tuple(self.texts[code] for code in known.tolist()))

    def _shifted(self) -> NDArray[np.int64]:
        return np.maximum(self.codes.astype(np.int64, copy=False), -1) + 1


def _alphabetical(texts: tuple[str, ...]) -> NDArray[np.int64]:
    """int64 [texts]: the place of each among the different ones."""
    order = sorted(range(len(texts)), key=texts.__getitem__)
    ordered = [texts[index] for index in order]
    ranks = np.zeros(len(texts), dtype=np.int64)
    ranks[order[1:]] = np.cumsum(np.fromiter(map(operator.ne, ordered[1:], ordered), bool, max(len(texts) - 1, 0)))
    return ranks


def common_ranks(first: Texts, second: Texts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The ranks of two columns in an order of both."""
    if first.texts == second.texts:
        return first.ranks(), second.ranks()
    order = sorted({*first.texts, *second.texts})
    return first.ranks(order), second.ranks(order)


def encoded(name: str, values: Iterable[Any]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """codes: int32 [rows], -1 null; and the different texts. name: for errors. Raises Invalid for what is no text."""
    listed = list(values)
    try:
        codes: dict[Any, int] = dict.fromkeys(listed, -1)
    except TypeError as error:
        raise Invalid(f"column {name!r} holds texts, but also something else: {error}") from error
    texts: list[str] = []
    for each in codes:
        if isinstance(each, str):
            codes[each] = len(texts)
            texts.append(each)
        elif not is_missing(each):
            raise Invalid(f"column {name!r} holds texts, but also a {type(each).__name__}")
    return np.fromiter(map(codes.__getitem__, listed), np.int32, len(listed)), tuple(texts)


def is_missing(value: Any) -> bool:
    """None, NaN, and what pandas writes for them."""
    return (
        value is None or (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType")
    )
