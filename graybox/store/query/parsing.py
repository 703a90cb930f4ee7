"""From the text of a query to its tree. Nothing is looked up and nothing is run here."""

from __future__ import annotations

import re

from graybox.store.query.clauses import ClauseParser
from graybox.store.query.cursor import Cursor
from graybox.store.query.pandas_notation import PandasParser
from graybox.store.query.query import COMMANDS, Query
from graybox.store.query.query_error import QueryError, nearest
from graybox.store.query.tokens import DOUBLE_QUOTES, checked_text, shortened, tokens
from graybox.store.query.tree import MAX_CHARACTERS

_COMMAND = re.compile(r"[ \t\r\n]*@([A-Za-z]+)(?![A-Za-z0-9_])")
_OPENING = re.compile(rf"[ \t\r\n]*@[ \t\r\n]*[{DOUBLE_QUOTES}]{{3}}")
_CLOSING = re.compile(rf"[{DOUBLE_QUOTES}]{{3}}[ \t\r\n]*\Z")
_FRAME = re.compile(r"[ \t\r\n]*df[ \t\r\n]*[\[.]")
_MAY_GROW = 10  # times; written out, 1e15 has 18 characters


def parse(text: str) -> Query:
    """The query that a text means. Needs no table: `check` says whether it fits one.

    Raises QueryError with the place of the first thing that is wrong.
    """
    checked_text(text)
    command = _COMMAND.match(text)
    if command is not None:
        return _command(text, command)
    opening = _OPENING.match(text)
    query = _read(text, 0, len(text)) if opening is None else _unwrapped(text, opening.end())
    # What is kept or sent on is the canonical text, which has to be short enough to be read again.
    length = len(query.text()) if len(text) * _MAY_GROW > MAX_CHARACTERS else 0
    if length > MAX_CHARACTERS:
        problem = f"a query has at most {MAX_CHARACTERS} characters, written out in full this one has {length}"
        raise QueryError(problem, len(text), text)
    return query


def _command(text: str, match: re.Match[str]) -> Query:
    name = match[1].lower()
    if name not in COMMANDS:
        raise QueryError(
            f"there is no command @{shortened(match[1])}{nearest(name, COMMANDS, '@')}", match.start(1) - 1, text
        )
    if text[match.end() :].strip():
        raise QueryError(f"@{name} stands alone", match.end(), text)
    return Query(command=name, source=text)


def _unwrapped(text: str, start: int) -> Query:
    """What stands in @\"\"\" and \"\"\"."""
    closing = _CLOSING.search(text, start)
    if closing is None:
        raise QueryError('the closing """ is missing', len(text), text)
    if not text[start : closing.start()].strip():
        raise QueryError("a table expression such as df[df['loss'] > 1] is expected in the quotes", start, text)
    return _read(text, start, closing.start())


def _read(text: str, start: int, end: int) -> Query:
    if _FRAME.match(text, start, end):
        return PandasParser(Cursor(text, tokens(text, start, end, pandas=True))).query()
    return ClauseParser(Cursor(text, tokens(text, start, end))).query()
