"""Columns of a table as they stand in a file: the rows that were found, taken at one moment."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graybox.store.query.columns import Column, Kind
from graybox.store.query.texts import encoded

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class ExportColumn:
    """One column of a file. values: shape [rows]: numbers, bool, or, where `texts` is there, integers that index it.

    null: bool [rows], which rows have no value; None where all have one. For numbers NaN is null, and -1 is a number:
    it says "none" of labels, predictions and ages, here as everywhere.
    """

    name: str
    values: NDArray[Any]
    null: NDArray[np.bool_] | None = None
    texts: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def part(self, start: int, stop: int) -> ExportColumn:
        """Some of the rows."""
        null = None if self.null is None else self.null[start:stop]
        return ExportColumn(self.name, self.values[start:stop], null, self.texts)


def exported(column: Column, rows: Rows, taken: Collection[str] = ()) -> list[ExportColumn]:
    """The rows of a column, in their order, as copies.

    A column of classes becomes the classes' numbers and, beside it, their names where they have some: NAME and
    NAME_name, the latter with "_" behind it as long as it is one of `taken`. Where classes are names and nothing else
    (of "split"), they are a column of texts.
    """
    name = as_utf8(column.name)
    values = column.values[rows]
    given = None if column.null is None else column.null[rows]
    if column.kind is Kind.TEXT:
        texts = column.texts
        if texts is None:
            values, texts = encoded(column.name, values.tolist())
        return [_texts(name, values, given, texts)]
    if column.kind is Kind.BOOL:
        return [ExportColumn(name, values, _if_any(given))]
    if column.kind is Kind.NUMBER:
        return [_numbers(name, values)]
    if column.name == "split":
        return [_texts(name, values, given, column.names)]
    numbers = ExportColumn(name, values)
    if not column.names:
        return [numbers]
    beside = f"{name}_name"
    while beside in taken:
        beside += "_"
    return [numbers, _texts(beside, values, given, column.names)]


def exported_tag(tag: str, mask: NDArray[np.bool_], rows: Rows) -> ExportColumn:
    """A tag as a column of true and false, "tag:NAME"."""
    return ExportColumn(f"tag:{as_utf8(tag)}", mask[rows])


def _numbers(name: str, values: NDArray[Any]) -> ExportColumn:
    if values.dtype == np.float16:
        values = values.astype(np.float32)  # which all formats have
    null = np.isnan(values) if values.dtype.kind == "f" else None
    return ExportColumn(name, values, _if_any(null))


def _texts(name: str, codes: NDArray[Any], given: NDArray[np.bool_] | None, texts: tuple[str, ...]) -> ExportColumn:
    clean = tuple(map(as_utf8, texts))
    null = (codes < 0) | (codes >= len(clean))
    if given is not None:
        null |= given
    smaller = codes.astype(np.min_scalar_type(-max(len(clean), 1)))  # of another type than what it indexes: far smaller
    return ExportColumn(name, np.where(null, -1, smaller), _if_any(null), clean)


def as_utf8(text: str) -> str:
    """As UTF-8 can carry it: lone surrogates, as in undecodable file names, become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _if_any(null: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    return null if null is not None and null.any() else None
