"""Columns as CSV and as JSON lines, a slice of rows at a time: no Python loop over rows, and no more text in memory
than a slice's.

What stands in a cell is worked out column by column; rows are put together by `map` and `join`, which loop in C.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graybox.store.export_columns import ExportColumn

SLICE_ROWS = 8_192
_INFINITE = ("1e999", "-1e999")
"""JSON has no word for the infinite; a number beyond a double's range is read as it."""

_Quote = Callable[[str], str]


def csv_parts(columns: Sequence[ExportColumn]) -> Iterator[bytes]:
    """RFC 4180 in UTF-8: a header, then one line for each row. Null is empty, true and false are True and False, and
    nothing is put in front of a text, whatever it begins with."""
    yield (",".join(csv_text(column.name) for column in columns) + "\r\n").encode()
    # An empty line is none to many who read it.
    null = '""' if len(columns) == 1 else ""
    for cells in _slices(columns, csv_text, ("False", "True"), null):
        yield ("\r\n".join(map(",".join, zip(*cells, strict=True))) + "\r\n").encode()


def csv_text(text: str) -> str:
    """A text as a cell: in quotes where it needs them, and where it is empty, so that it is not taken for null."""
    plain = text and not any(char in text for char in ',"\r\n')
    return text if plain else '"' + text.replace('"', '""') + '"'


def json_line_parts(columns: Sequence[ExportColumn]) -> Iterator[bytes]:
    """One JSON object for each row, each on a line of its own, in ASCII."""
    names = [json.dumps(column.name) for column in columns]
    before = [("{" if number == 0 else ",") + name + ":" for number, name in enumerate(names)]
    for cells in _slices(columns, json.dumps, ("false", "true"), "null", _INFINITE):
        # Cells and what stands between them, alternating.
        mixed: list[Any] = [part for pair in zip(map(repeat, before), cells, strict=True) for part in pair]
        yield ("}\n".join(map("".join, zip(*mixed, strict=False))) + "}\n").encode()


def _slices(
    columns: Sequence[ExportColumn],
    quote: _Quote,
    words: tuple[str, str],
    null: str,
    infinite: tuple[str, str] = ("inf", "-inf"),
) -> Iterator[list[list[str]]]:
    """The cells of each slice, a list for each column. words: for false and true. infinite: above and below 0."""
    vocabularies = [_vocabulary(column, quote, words) for column in columns]
    count = len(columns[0]) if columns else 0
    for start in range(0, count, SLICE_ROWS):
        parts = [column.part(start, start + SLICE_ROWS) for column in columns]
        yield [_cells(part, known, null, infinite) for part, known in zip(parts, vocabularies, strict=True)]


def _vocabulary(column: ExportColumn, quote: _Quote, words: tuple[str, str]) -> NDArray[Any] | None:
    """All cells that the column may have, made once; None for numbers."""
    if column.texts is not None:
        return np.array([*map(quote, column.texts), ""], dtype=object)  # at -1, what null has
    return np.array(words, dtype=object) if column.values.dtype.kind == "b" else None


def _cells(part: ExportColumn, vocabulary: NDArray[Any] | None, null: str, infinite: tuple[str, str]) -> list[str]:
    values = part.values
    if vocabulary is None and values.dtype.kind != "f":
        return list(map(str, values.tolist()))  # integers have no null
    if vocabulary is not None:
        found = vocabulary[values.astype(np.int64)]
    else:
        # The shortest text that is read as the very same number.
        found = values.astype("U32").astype(object)
        found[values == np.inf], found[values == -np.inf] = infinite
    if part.null is not None:
        found[part.null] = null
    cells: list[str] = found.tolist()
    return cells
