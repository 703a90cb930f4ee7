"""Parsing a whole query: the condition, then sample, sortby, limit and show, each at most once and in this order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graybox.store.query.cursor import Cursor
from graybox.store.query.expressions import ExpressionParser
from graybox.store.query.query import Query
from graybox.store.query.query_error import nearest
from graybox.store.query.tokens import Token, TokenKind
from graybox.store.query.tree import (
    AGGREGATES,
    DEFAULT_BINS,
    LABEL,
    MAX_BINS,
    MAX_COUNT,
    MAX_KEYS,
    MAX_MEASURES,
    PREDICTION,
    Confusion,
    Histogram,
    Measure,
    Measures,
    Name,
    Sample,
    Show,
    SortKey,
    Tags,
)
from graybox.store.query.wording import RESERVED

CLAUSES = ("sample", "sortby", "limit", "show")
_MEASURES = ("count", "accuracy", *sorted(AGGREGATES))
_ANSWERS = (*_MEASURES, "confusion", "histogram")


class ClauseParser:
    """Parses all that the cursor has."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.expressions = ExpressionParser(cursor)

    def query(self) -> Query:
        """Raises QueryError at the first thing that does not belong."""
        where = None
        if self.cursor.accept_word("where") or not (self.cursor.at_end() or self._clause()):
            where = self.expressions.condition()
        found: dict[str, Any] = {}
        while not self.cursor.at_end():
            clause = self._clause()
            if not clause:
                expected = CLAUSES[CLAUSES.index(next(reversed(found))) + 1 :] if found else ("an operator", *CLAUSES)
                raise self.cursor.error(f"{' or '.join((*expected, 'the end'))} is expected, not {self.cursor.current}")
            self._check_order(clause, tuple(found))
            self._skip(clause)
            found[clause] = self._parsers()[clause]()
        return Query(
            where=where,
            sample=found.get("sample"),
            sort=found.get("sortby", ()),
            limit=found.get("limit"),
            show=found.get("show"),
            source=self.cursor.source,
        )

    def _parsers(self) -> dict[str, Callable[[], Any]]:
        return {"sample": self._sample, "sortby": self._sort, "limit": self._limit, "show": self._show}

    def _clause(self) -> str:
        """The clause that begins at the cursor, or ''."""
        word = self.cursor.word()
        if word in ("order", "sort"):
            return "sortby" if self.cursor.word(1) == "by" else ""
        return word if word in CLAUSES else ""

    def _skip(self, clause: str) -> None:
        if self.cursor.advance().value.lower() in ("order", "sort"):
            self.cursor.advance()

    def _check_order(self, clause: str, found: tuple[str, ...]) -> None:
        if clause in found:
            raise self.cursor.error(f"{clause} comes once")
        later = [each for each in found if CLAUSES.index(each) > CLAUSES.index(clause)]
        if later:
            raise self.cursor.error(f"{clause} comes before {later[0]}: the order is where, {', '.join(CLAUSES)}")

    def _whole_number(self, what: str, least: int, most: int) -> int:
        """what: as in 'limit takes'."""
        token = self.cursor.advance()
        if token.kind is not TokenKind.NUMBER or not isinstance(token.number, int) or not least <= token.number <= most:
            raise self.cursor.error(f"{what} a whole number from {least} to {most}, not {token}", token.at)
        return token.number

    def _sample(self) -> Sample:
        token = self.cursor.current
        if token.kind is not TokenKind.NUMBER:
            raise self.cursor.error(f"sample takes a number of rows or a percentage, as in sample 10%, not {token}")
        if self.cursor.symbol(1) != "%":
            return Sample(self._whole_number("sample takes", 0, MAX_COUNT), at=token.at)
        self.cursor.advance()
        self.cursor.advance()
        if token.number > 100 or len(token.value) > 12:
            raise self.cursor.error("sample takes a percentage from 0% to 100%, in at most 12 characters", token.at)
        # As it will be written out, so that what is parsed from there is equal.
        return Sample(round(float(token.number), 10), as_percent=True, at=token.at)

    def _sort(self) -> tuple[SortKey, ...]:
        keys: list[SortKey] = []
        while not keys or self.cursor.accept(","):
            if len(keys) == MAX_KEYS:
                raise self.cursor.error(f"sortby takes at most {MAX_KEYS} keys")
            key = self.expressions.value()
            descending = self.cursor.accept_word("desc")
            if not descending:
                self.cursor.accept_word("asc")
            keys.append(SortKey(key, descending))
        return tuple(keys)

    def _limit(self) -> int:
        return self._whole_number("limit takes", 0, MAX_COUNT)

    def _show(self) -> Show:
        token, answer = self.cursor.current, self.cursor.word()
        if answer == "confusion":
            self.cursor.advance()
            return Confusion(*self._two_columns(token), at=token.at)
        if answer == "histogram":
            self.cursor.advance()
            return self._histogram(token)
        measures = [self._measure()]
        while self.cursor.accept(","):
            if len(measures) == MAX_MEASURES:
                raise self.cursor.error(f"show takes at most {MAX_MEASURES} measures")
            measures.append(self._measure())
        return Measures(tuple(measures), self._group() if self.cursor.accept_word("by") else None)

    def _measure(self) -> Measure:
        token, name = self.cursor.current, self.cursor.word()
        if name == "count":
            self.cursor.advance()
            return Measure(name, at=token.at)
        if name == "accuracy":
            self.cursor.advance()
            return Measure(name, self._two_columns(token), token.at)
        if name in ("confusion", "histogram"):
            raise self.cursor.error(f"{name} is shown alone")
        if name in AGGREGATES and self.cursor.symbol(1) == "(":
            call = self.expressions.call()
            if not call.aggregates:
                raise self.cursor.error(f"show {name} takes one argument", token.at)
            return Measure(name, call.arguments, token.at)
        if token.kind is TokenKind.WORD and name in AGGREGATES:
            raise self.cursor.error(f"a column is expected, as in {name}(loss)", token.end)
        meant = nearest(name, _ANSWERS, listed=False) if name else ""
        raise self.cursor.error(
            "show takes count, accuracy, an aggregate such as mean(loss), confusion or histogram(loss), "
            f"not {token}{meant}"
        )

    def _two_columns(self, token: Token) -> tuple[Name, Name]:
        """(a, b), or the label and the prediction where there are no parentheses."""
        if not self.cursor.accept("("):
            return Name(LABEL, token.at), Name(PREDICTION, token.at)
        first = self._column()
        self.cursor.expect(",", f"between the two columns of {token.value.lower()}")
        second = self._column()
        self.cursor.expect(")", f"after the two columns of {token.value.lower()}")
        return first, second

    def _histogram(self, token: Token) -> Histogram:
        self.cursor.expect("(", "after histogram, as in histogram(loss, 20)")
        value, bins = self.expressions.value(), DEFAULT_BINS
        if self.cursor.accept(","):
            bins = self._whole_number("the bins of a histogram are", 1, MAX_BINS)
        self.cursor.expect(")", "after histogram(...")
        return Histogram(value, bins, token.at)

    def _group(self) -> Name | Tags:
        if self.cursor.word() == "tag":
            return Tags(self.cursor.advance().at)
        return self._column()

    def _column(self) -> Name:
        token = self.cursor.advance()
        if token.kind is TokenKind.QUOTED:
            return Name(token.value, token.at)
        if token.kind is TokenKind.WORD and token.value.lower() not in RESERVED:
            return Name(self.expressions.plain_name(token), token.at)
        raise self.cursor.error(f"a column's name is expected, not {token}", token.at)
