"""The query language: finding, sorting, sampling and summing up the rows of any table by a line of text.

    query = parse("loss > p95 and label == 'cat' sortby loss desc limit 100")
    check(query, table)
    found = rows(query, table)
    print(answer(parse("show mean(loss), accuracy by label"), table, found))

A text becomes a tree of the nodes in tree.py and of nothing else (parsing.py; tokens.py, expressions.py, clauses.py,
pandas_notation.py). The tree is held against a table's names and kinds (checking.py) and evaluated one array per node
(evaluate.py, ordering.py, sampling.py) or summed up (answering.py). What may be written: docs/queries.md.
"""

from graybox.store.query.analysis import Analysis, Cell
from graybox.store.query.answering import answer
from graybox.store.query.column_table import ColumnTable
from graybox.store.query.columns import Column, Kind, Table
from graybox.store.query.parsing import parse
from graybox.store.query.query import Query
from graybox.store.query.query_error import QueryError
from graybox.store.query.selection import check, rows

__all__ = [
    "Analysis",
    "Cell",
    "Column",
    "ColumnTable",
    "Kind",
    "Query",
    "QueryError",
    "Table",
    "answer",
    "check",
    "parse",
    "rows",
]
