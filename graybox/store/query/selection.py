"""Which rows a query finds."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graybox.store.query.checking import Checker
from graybox.store.query.columns import Kind, Table
from graybox.store.query.evaluate import Evaluator
from graybox.store.query.ordering import Key, key_of, ordered
from graybox.store.query.query import Query
from graybox.store.query.sampling import drawn, sample_size
from graybox.store.query.scope import Rows, Scope
from graybox.store.query.tree import Name, Node, SortKey


def check(query: Query, table: Table) -> None:
    """Whether the query fits the table. Raises QueryError, with the place, for an unknown name and for what cannot be
    compared. Asks for the columns that the query uses, and looks at none of their values."""
    Checker(Scope(table, source=query.source)).query(query)


def rows(query: Query, table: Table, *, seed: int = 0, within: ArrayLike | None = None) -> Rows:
    """int64 [found]: the rows that the query finds, in order.

    within: int64 [n], only among these rows, and in their order where the query does not sort; quantiles and aggregates
    are over them. seed: of `sample`; the same query, seed and table give the same rows.

    Raises QueryError as `check` does.
    """
    scope = Scope(table, within, query.source)
    query = Checker(scope).query(query)
    with np.errstate(all="ignore"):
        found = _matching(query.where, scope)
        if query.sample is not None:
            numbers = found if scope.within is None else scope.within[found]
            found = found[drawn(numbers, sample_size(query.sample, len(found)), seed)]
        if query.sort:
            keys = [_key(each, scope, found) for each in query.sort]
            found = found[ordered(keys, len(found), query.limit)]
        elif query.limit is not None:
            found = found[: query.limit]
    return found if scope.within is None else scope.within[found]


def _matching(where: Node | None, scope: Scope) -> NDArray[np.int64]:
    """Ascending positions in scope."""
    if where is None:
        return np.arange(scope.count, dtype=np.int64)
    return np.flatnonzero(Evaluator(scope).mask(where))


def _key(sort: SortKey, scope: Scope, positions: NDArray[np.int64]) -> Key:
    if not isinstance(sort.key, Name):
        numbers = Evaluator(scope).numbers(sort.key).floats()
        return key_of(np.broadcast_to(numbers, scope.count)[positions], None, sort.descending)
    column = scope.column(sort.key)
    if column.kind is Kind.TEXT:
        ranks = scope.texts(sort.key).taken(positions).ranks()
        return key_of(ranks, ranks < 0, sort.descending)
    values = column.values[positions]
    null = None if column.null is None else column.null[positions]
    if column.kind is Kind.CLASS and values.dtype.kind == "i":
        null = values < 0 if null is None else null | (values < 0)
    return key_of(values, null, sort.descending)
