"""Reading filters written as for a pandas DataFrame named df, by a parser of our own: nothing of it is ever run.

    frame     := "df" [ "[" any "]" ] [ ".sort_values(" ... ")" ] [ ".head(" [count] ")" ]
    any       := every { "|" every } | side comparison side
    every     := one { "&" one }
    one       := "~" one | "(" any ")" | column [ "." test ]
    side      := column | number | text | "True" | "False"
    column    := "df" "[" text "]" | "df" "." word

Strengths are Python's: & and | bind tighter than comparisons, which therefore stand in parentheses unless alone.
"""

from __future__ import annotations

from collections.abc import Callable

from graybox.store.query.cursor import Cursor
from graybox.store.query.query import Query
from graybox.store.query.query_error import nearest
from graybox.store.query.tokens import Token, TokenKind, shortened
from graybox.store.query.tree import (
    MAX_COUNT,
    MAX_ITEMS,
    MAX_KEYS,
    And,
    Between,
    Comparison,
    In,
    IsNull,
    Name,
    Node,
    Not,
    Number,
    Or,
    SortKey,
    Text,
    Truth,
)

TESTS = ("isin", "isnull", "notnull", "between")
METHODS = ("sort_values", "head")
_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_DEFAULT_HEAD = 5
_PARENTHESES = "each comparison stands in parentheses where & | or ~ are about, as in (df['a'] > 1) & (df['b'] < 2)"


class PandasParser:
    """Parses all that the cursor has; its tokens were cut by the rules of this notation."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor

    def query(self) -> Query:
        """Raises QueryError for whatever is not in the grammar above."""
        self._frame_name()
        where = None
        if self.cursor.accept("["):
            where = self._whole_condition()
            self.cursor.expect("]", "after the condition")
        sort: tuple[SortKey, ...] = ()
        limit = None
        while not self.cursor.at_end():
            method = self._method()
            if limit is not None:
                raise self.cursor.error(f"{method} cannot follow head: head comes once and last")
            if method == "head":
                limit = self._head()
            elif sort:
                raise self.cursor.error("sort_values comes once; it takes several columns in a list")
            else:
                sort = self._sort_values()
        return Query(where=where, sort=sort, limit=limit, source=self.cursor.source)

    def _frame_name(self) -> None:
        token = self.cursor.advance()
        if token.kind is not TokenKind.WORD or token.value != "df":
            raise self.cursor.error(f"df is expected, as in df['loss'], not {token}{_text_hint(token)}", token.at)

    def _method(self) -> str:
        """The name of what is called on the frame, up to and with its opening parenthesis."""
        if not self.cursor.accept("."):
            raise self.cursor.error(f".sort_values(...), .head(...) or the end is expected, not {self.cursor.current}")
        token = self.cursor.advance()
        if token.kind is not TokenKind.WORD or token.value not in METHODS:
            name = f"'.{shortened(token.value)}'" if token.value else "a dot"
            raise self.cursor.error(f"{name} is not known here{nearest(token.value, METHODS, '.')}", token.at)
        self.cursor.expect("(", f"after {token.value}")
        return token.value

    def _whole_condition(self) -> Node:
        if self.cursor.symbol() == "[":
            raise self.cursor.error("a condition is expected; columns are not chosen by a list of names here")
        return self._any()

    def _any(self) -> Node:
        """What stands between parentheses or brackets: a comparison, or conditions with & and |."""
        self.cursor.deeper()
        kind = self.cursor.current.kind
        if kind in (TokenKind.NUMBER, TokenKind.TEXT) or self.cursor.symbol() == "-":
            node = self._comparison(self._literal())
        else:
            node = self._joined("|", lambda: self._joined("&", self._one, And), Or)
            if isinstance(node, Name) and self.cursor.symbol() in (*_COMPARISONS, "="):
                node = self._comparison(node)
        if self.cursor.symbol() in _COMPARISONS:
            raise self.cursor.error(_PARENTHESES)
        self.cursor.shallower()
        return node

    def _joined(self, symbol: str, part: Callable[[], Node], made: type[And] | type[Or]) -> Node:
        parts = [part()]
        at = self.cursor.current.at
        while self.cursor.accept(symbol):
            parts.append(part())
        return parts[0] if len(parts) == 1 else made(tuple(parts), at)

    def _one(self) -> Node:
        token = self.cursor.current
        if self.cursor.accept("~"):
            self.cursor.deeper()
            node = Not(self._one(), token.at)
            self.cursor.shallower()
            return node
        if self.cursor.accept("("):
            inner = self._any()
            self.cursor.expect(")", "to close the parenthesis")
            return inner
        if token.kind is TokenKind.WORD and token.value.lower() in ("and", "or", "not"):
            raise self.cursor.error(f"write & | and ~ in a table expression, not '{token.value}'")
        return self._column_or_test()

    def _column_or_test(self) -> Node:
        column = self._column()
        if not self.cursor.accept("."):
            return column
        token = self.cursor.advance()
        if token.kind is not TokenKind.WORD or token.value not in TESTS or not self.cursor.accept("("):
            raise self.cursor.error(
                f"'.{shortened(token.value)}' is not known after a column; there are "
                f"{', '.join(f'.{each}()' for each in TESTS)}",
                token.at,
            )
        node = self._test(column, token)
        self.cursor.expect(")", f"after the arguments of {token.value}")
        return node

    def _test(self, column: Name, token: Token) -> Node:
        if token.value == "isin":
            return In(column, self._list(), at=token.at)
        if token.value == "between":
            low = self._literal()
            self.cursor.expect(",", "between the bounds")
            return Between(column, low, self._literal(), at=token.at)
        return IsNull(column, token.value == "notnull", token.at)

    def _comparison(self, left: Node) -> Node:
        operator = self.cursor.advance()
        if operator.value not in _COMPARISONS or operator.kind is not TokenKind.SYMBOL:
            raise self.cursor.error(f"a comparison such as == or > is expected, not {operator}", operator.at)
        right = self._column() if self.cursor.word() == "df" else self._literal()
        if self.cursor.symbol() in _COMPARISONS:
            raise self.cursor.error("comparisons do not follow one another; write .between(a, b), or two with &")
        if self.cursor.symbol() in ("&", "|"):
            raise self.cursor.error(_PARENTHESES)
        return Comparison(operator.value, left, right, operator.at)

    def _column(self) -> Name:
        at = self.cursor.current.at
        self._frame_name()
        if self.cursor.accept("["):
            token = self.cursor.advance()
            if token.kind is not TokenKind.TEXT:
                raise self.cursor.error(f"a column's name in quotes is expected, not {token}", token.at)
            self.cursor.expect("]", "after the column's name")
            return Name(token.value, at)
        self.cursor.expect(".", "after df, or ['name']")
        token = self.cursor.advance()
        if token.kind is not TokenKind.WORD:
            raise self.cursor.error(f"a column's name is expected after df., not {token}", token.at)
        if token.value.startswith("__"):
            name = shortened(token.value)
            raise self.cursor.error(f"'.{name}' is no column; if it is, write df['{name}']", token.at)
        if self.cursor.symbol() == "(":
            raise self.cursor.error(f"'.{shortened(token.value)}' cannot be called on df here", token.at)
        return Name(token.value, at)

    def _literal(self) -> Number | Text | Truth:
        token = self.cursor.advance()
        if token.kind is TokenKind.TEXT:
            return Text(token.value, token.at)
        if token.kind is TokenKind.WORD and token.value in ("True", "False"):
            return Truth(token.value == "True", token.at)
        number = self.cursor.advance() if token.value == "-" and token.kind is TokenKind.SYMBOL else token
        if number.kind is not TokenKind.NUMBER:
            raise self.cursor.error(f"a number, a text in quotes, True or False is expected, not {number}", number.at)
        return Number(-number.number if number is not token else number.number, token.at)

    def _list(self) -> tuple[Number | Text | Truth, ...]:
        self.cursor.expect("[", "to begin a list, as in isin([1, 2])")
        items: list[Number | Text | Truth] = []
        while not self.cursor.accept("]"):
            if items:
                self.cursor.expect(",", "between the items of a list, or ']' after them")
            if len(items) == MAX_ITEMS:
                raise self.cursor.error(f"a list has at most {MAX_ITEMS} items")
            items.append(self._literal())
        return tuple(items)

    def _sort_values(self) -> tuple[SortKey, ...]:
        """Columns first, then the directions: one for all, or one for each."""
        self._argument("by")
        columns = self._texts()
        directions = [True]
        if self.cursor.accept(","):
            if not self._argument("ascending"):
                raise self.cursor.error(f"ascending= is expected, not {self.cursor.current}")
            directions = self._truths()
        self.cursor.expect(")", "after the arguments of sort_values")
        if len(directions) == 1:
            directions *= len(columns)
        if not 1 <= len(columns) <= MAX_KEYS or len(directions) != len(columns):
            raise self.cursor.error(
                f"sort_values takes 1 to {MAX_KEYS} columns, and one direction for all or one for each"
            )
        return tuple(SortKey(name, not up) for name, up in zip(columns, directions, strict=True))

    def _argument(self, name: str) -> bool:
        """Steps over `name=`."""
        if self.cursor.word() != name or self.cursor.symbol(1) != "=":
            return False
        self.cursor.advance()
        self.cursor.advance()
        return True

    def _texts(self) -> list[Name]:
        items = self._list() if self.cursor.symbol() == "[" else (self._literal(),)
        for item in items:
            if not isinstance(item, Text):
                raise self.cursor.error("sort_values takes the names of columns in quotes", item.at)
        return [Name(item.value, item.at) for item in items if isinstance(item, Text)]

    def _truths(self) -> list[bool]:
        items = self._list() if self.cursor.symbol() == "[" else (self._literal(),)
        for item in items:
            if not isinstance(item, Truth):
                raise self.cursor.error("ascending is True or False", item.at)
        return [item.value for item in items if isinstance(item, Truth)]

    def _head(self) -> int:
        self._argument("n")
        if self.cursor.accept(")"):
            return _DEFAULT_HEAD
        token = self.cursor.advance()
        if token.kind is not TokenKind.NUMBER or not isinstance(token.number, int) or token.number > MAX_COUNT:
            raise self.cursor.error(f"head takes a whole number from 0 to {MAX_COUNT}, not {token}", token.at)
        self.cursor.expect(")", "after the number of rows")
        return token.number


def _text_hint(token: Token) -> str:
    return "; a text stands in quotes" if token.kind is TokenKind.WORD else ""
