"""The rows that a query looks at, and the columns it uses of them, each asked for once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graybox.errors import Invalid, NotFound
from graybox.store.query.columns import Column, Kind, Table
from graybox.store.query.query_error import QueryError, nearest
from graybox.store.query.texts import Texts, encoded
from graybox.store.query.tokens import shortened
from graybox.store.query.tree import Name, Tagged

Rows = NDArray[np.int64]


class Scope:
    """within: int64 [n], the rows in scope in their order; None all of the table. source: the query's text, for errors.

    Raises Invalid for rows that are no integers of shape [n], NotFound for one outside the table.
    """

    def __init__(self, table: Table, within: ArrayLike | None = None, source: str = "") -> None:
        self.table = table
        self.source = source
        self.within = None if within is None else _checked_rows(np.asarray(within), len(table))
        self.count = len(table) if self.within is None else len(self.within)
        self._whole: dict[str, Column] = {}
        self._columns: dict[str, Column] = {}
        self._texts: dict[str, Texts] = {}

    def error(self, problem: str, at: int) -> QueryError:
        """The caller raises it."""
        return QueryError(problem, at, self.source)

    def find(self, name: str) -> Column | None:
        """The whole column, whatever rows are in scope; None where the table has no such column."""
        if name not in self._whole:
            try:
                self._whole[name] = self.table.column(name)
            except (NotFound, KeyError):
                return None
        return self._whole[name]

    def described(self, name: Name, hint: str = "") -> Column:
        """The whole column. hint: follows the error for a name that the table does not know."""
        found = self.find(name.name)
        if found is None:
            close = nearest(name.name, self.table.names())
            raise self.error(f"there is no column {shortened(name.name)!r}{close}{hint}", name.at)
        return found

    def column(self, name: Name) -> Column:
        """The column's rows in scope; a view of the table's arrays where that is all rows."""
        if name.name not in self._columns:
            column = self.described(name)
            if self.within is not None:
                null = None if column.null is None else column.null[self.within]
                column = replace(column, values=column.values[self.within], null=null)
            elif len(column) != self.count:
                raise Invalid(f"column {name.name!r} has {len(column)} rows, the table has {self.count}")
            self._columns[name.name] = column
        return self._columns[name.name]

    def texts(self, name: Name) -> Texts:
        """A text column, or the names of a class column's classes, rows in scope."""
        if name.name not in self._texts:
            column = self.column(name)
            if column.kind is Kind.CLASS:
                codes, texts = column.values, column.names
            elif column.texts is not None:
                codes, texts = column.values, column.texts
            else:
                codes, texts = encoded(column.name, column.values.tolist())
            if column.null is not None:
                codes = np.where(column.null, -1, codes.astype(np.int64, copy=False))
            self._texts[name.name] = Texts(codes, texts)
        return self._texts[name.name]

    def check_tag(self, node: Tagged) -> None:
        """Raises QueryError for a tag that the table does not have."""
        if node.name not in self.table.tags():
            close = nearest(node.name, self.table.tags(), "tag:")
            raise self.error(f"there is no tag {shortened(node.name)!r}{close}", node.at)

    def tag(self, name: str) -> NDArray[np.bool_]:
        """bool [n], a copy."""
        mask = self.table.tag(name)
        if self.within is None and len(mask) != self.count:
            raise Invalid(f"tag {name!r} has {len(mask)} rows, the table has {self.count}")
        return np.array(mask if self.within is None else mask[self.within], dtype=bool)


def _checked_rows(rows: NDArray[np.int64], count: int) -> Rows:
    if rows.ndim != 1 or (rows.dtype.kind not in "iu" and rows.size):
        raise Invalid(f"rows are integers of shape [n], not {rows.dtype} {list(rows.shape)}")
    found = rows.astype(np.int64, copy=False)
    if found.size and (found.min() < 0 or found.max() >= count):
        strange = found[(found < 0) | (found >= count)][0]
        raise NotFound(f"there is no row {strange}; the table has {count}")
    return found
