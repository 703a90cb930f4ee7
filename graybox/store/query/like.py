"""Matching texts against SQL patterns: % any characters, _ one, letters in any case, a backslash before % _ or itself.

No backtracking: the pieces between the % are looked for from left to right, each at the first place after the one
before, which finds a match if there is any. The time is the text's length times at most the pattern's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

_ESCAPABLE = ("%", "_", "\\")


class _Folding(dict[int, int]):
    """For str.translate: one character for one character, so that _ counts what is seen."""

    def __missing__(self, code: int) -> int:
        folded = chr(code).casefold()
        self[code] = ord(folded) if len(folded) == 1 else code
        return self[code]


_FOLDING = _Folding()


def fold(text: str) -> str:
    """Equal for texts that differ in the case of letters only; as long as the text."""
    return text.lower() if text.isascii() else text.translate(_FOLDING)


def _folded(texts: Sequence[str]) -> list[str]:
    """Each text folded: all in one where they are plain, which is many times faster."""
    joined = "\0".join(texts)
    if joined.isascii():
        found = joined.lower().split("\0")
        if len(found) == len(texts):
            return found
    return list(map(fold, texts))


Piece: TypeAlias = tuple[str | None, ...]
"""What stands between two %: characters, None for any one."""


def like(texts: Sequence[str], pattern: str) -> NDArray[np.bool_]:
    """bool [texts]: which of them match as a whole."""
    pieces = _pieces(fold(pattern))
    folded = _folded(texts)
    plain = [None if None in piece else "".join(map(str, piece)) for piece in pieces]
    # The usual patterns are told by one method of str each.
    match plain:
        case [str() as whole]:
            found = [text == whole for text in folded]
        case [str() as start, ""]:
            found = [text.startswith(start) for text in folded]
        case ["", str() as end]:
            found = [text.endswith(end) for text in folded]
        case ["", str() as part, ""]:
            found = [part in text for text in folded]
        case _:
            matches, needed = _matcher(pieces), _longest(pieces)
            found = [needed in text and matches(text) for text in folded]
    return np.array(found, dtype=bool)


def _longest(pieces: list[Piece]) -> str:
    """The longest run of plain characters, which is quickly looked for and has to be in every match."""
    runs = [""]
    for piece in pieces:
        runs.append("")
        for char in piece:
            if char is None:
                runs.append("")
            else:
                runs[-1] += char
    return max(runs, key=len)


def _pieces(pattern: str) -> list[Piece]:
    pieces: list[list[str | None]] = [[]]
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "\\" and pattern[at + 1 : at + 2] in _ESCAPABLE:
            at += 1
            pieces[-1].append(pattern[at])
        elif char == "%":
            pieces.append([])
        else:
            pieces[-1].append(None if char == "_" else char)
        at += 1
    return [tuple(piece) for piece in pieces]


def _finder(piece: Piece) -> Callable[[str, int], int]:
    """A function of (text, from where) to the first place where the piece fits, or -1."""
    if None not in piece:
        plain = "".join(map(str, piece))
        return lambda text, start: text.find(plain, start)
    # One character of the text for each of the piece: no repetition that could be tried in many ways.
    source = "".join("." if each is None else re.escape(each) for each in piece)
    search = re.compile(source, re.DOTALL).search

    def find(text: str, start: int) -> int:
        match = search(text, start)
        return -1 if match is None else match.start()

    return find


def _matcher(pieces: list[Piece]) -> Callable[[str], bool]:
    first, *others = pieces
    begins = _finder(first)
    if not others:
        return lambda text: len(text) == len(first) and begins(text, 0) == 0
    *middle, last = others
    ends = _finder(last)
    finders = [(_finder(piece), len(piece)) for piece in middle if piece]
    least = sum(map(len, pieces))

    def matches(text: str) -> bool:
        if len(text) < least or (first and begins(text[: len(first)], 0) != 0):
            return False
        at = len(first)
        for find, length in finders:
            at = find(text, at)
            if at < 0:
                return False
            at += length
        tail = len(text) - len(last)
        return tail >= at and (not last or ends(text[tail:], 0) == 0)

    return matches
