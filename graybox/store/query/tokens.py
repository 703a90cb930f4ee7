"""Cutting the text of a query into tokens, in one pass and without looking back."""

from __future__ import annotations

import math
import re
import unicodedata
from enum import StrEnum
from typing import NamedTuple

from graybox.store.query.query_error import QueryError
from graybox.store.query.tree import MAX_CHARACTERS

_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_SPACE = " \t\r\n"
_NUMBER = r"(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
_WORD = r"(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
_TOKEN = re.compile(
    rf"{_NUMBER}"
    r"|(?P<percentile>[pP][0-9]+(?:\.[0-9]+)?(?![A-Za-z0-9_]))"
    r"|(?P<tag>[tT][aA][gG][ \t\r\n]*:)"
    rf"|{_WORD}"
    r"|(?P<symbol><=|>=|<>|!=|==|&&|\|\||[<>=!&|~()\[\],+\-*/%])"
)
_PANDAS_TOKEN = re.compile(rf"{_NUMBER}|{_WORD}|(?P<symbol><=|>=|!=|==|[<>=&|~()\[\],.\-])")
_TAG_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_STICKS = re.compile(r"[A-Za-z0-9_.]")

SINGLE_QUOTES, DOUBLE_QUOTES = "'‘’", '"“”'
_HINTS = {
    "`": "a column's name with odd characters stands in double quotes",
    ".": "a column has nothing to reach with a dot; a name with a dot in it stands in double quotes",
    "@": 'only @reset, @overview and a table expression in @""" quotes begin with @',
    ";": "one query at a time",
    ":": "a colon stands after tag only, as in tag:difficult",
    "[": "brackets stand after in only",
    "≤": "write <=",
    "≥": "write >=",
    "≠": "write !=",
    **dict.fromkeys("‘’", "write a text in straight single quotes, 'like this'"),
    **dict.fromkeys("“”", "write a column's name in straight double quotes, a text in straight single ones"),
}
_LONGEST_WHOLE_NUMBER = 19  # digits; all that 64 bits hold, and some more


class TokenKind(StrEnum):
    NUMBER = "number"
    PERCENTILE = "percentile"
    TEXT = "text"
    QUOTED = "quoted"  # in double quotes
    TAG = "tag"
    WORD = "word"
    SYMBOL = "symbol"
    END = "end"


_KINDS = {kind.value: kind for kind in TokenKind}


class Token(NamedTuple):
    """value: what is meant, without quotes; number: of NUMBER and PERCENTILE. word: in lower case, of WORD; symbol: of
    SYMBOL; '' of others. It is source[at:end]."""

    kind: TokenKind
    value: str
    at: int
    end: int
    number: int | float = 0
    word: str = ""
    symbol: str = ""

    def __str__(self) -> str:
        """As an error cites it."""
        if self.kind is TokenKind.END:
            return "the end"
        if self.kind is TokenKind.TEXT:
            return f"the text {shortened(self.value)!r}"
        return shortened(self.value) if self.kind is TokenKind.NUMBER else repr(shortened(self.value))


def shortened(text: str, length: int = 40) -> str:
    """With an ellipsis where it is longer."""
    return text if len(text) <= length else text[: length - 1] + "…"


def checked_text(text: str) -> None:
    """Raises QueryError for a text that is too long, or has characters that no query has."""
    if len(text) > MAX_CHARACTERS:
        raise QueryError(
            f"a query has at most {MAX_CHARACTERS} characters, this one has {len(text)}", MAX_CHARACTERS, text
        )
    strange = _FORBIDDEN.search(text)
    if strange is not None:
        raise QueryError(f"control character U+{ord(strange[0]):04X} cannot stand in a query", strange.start(), text)


def tokens(source: str, start: int = 0, end: int | None = None, pandas: bool = False) -> list[Token]:
    """The tokens of source[start:end], the last of kind END. pandas: by the rules of that notation, where texts stand
    in quotes of any kind, a dot is a token, and percentiles and tags are plain words.

    Raises QueryError for what begins no token.
    """
    return _Cutter(source, len(source) if end is None else end, pandas).cut(start)


class _Cutter:
    def __init__(self, source: str, end: int, pandas: bool) -> None:
        self.source = source
        self.end = end
        self.pandas = pandas
        self.pattern = _PANDAS_TOKEN if pandas else _TOKEN

    def cut(self, at: int) -> list[Token]:
        found: list[Token] = []
        while True:
            at = self._after_space(at)
            if at >= self.end:
                return [*found, Token(TokenKind.END, "", self.end, self.end)]
            token = self._token(at)
            found.append(token)
            at = token.end

    def _after_space(self, at: int) -> int:
        while at < self.end and self.source[at] in _SPACE:
            at += 1
        return at

    def _token(self, at: int) -> Token:
        char = self.source[at]
        if char in "'\"" or (self.pandas and char in SINGLE_QUOTES + DOUBLE_QUOTES):
            return self._in_pandas_quotes(at) if self.pandas else self._in_quotes(at)
        match = self.pattern.match(self.source, at, self.end)
        if match is None:
            raise self._strange(at)
        kind = _KINDS[str(match.lastgroup)]
        if kind is TokenKind.TAG:
            return self._tag(at, match.end())
        if kind is TokenKind.NUMBER:
            return self._number(at, match.end())
        if kind is TokenKind.PERCENTILE:
            return self._percentile(at, match.end())
        if match[0] in "*/" and self.source.startswith(match[0], match.end()):
            raise QueryError(f"there is no operator {match[0] * 2}", at, self.source)
        if kind is TokenKind.WORD:
            return Token(kind, match[0], at, match.end(), word=match[0].lower())
        return Token(kind, match[0], at, match.end(), symbol=match[0])

    def _strange(self, at: int) -> QueryError:
        char = self.source[at]
        hint = _HINTS.get(char)
        name = char if char.isascii() else f"U+{ord(char):04X} {unicodedata.name(char, 'without a name')}"
        if not char.isascii() and char.isprintable():
            name = f"{char} ({name})"
        if hint is None and not char.isascii():
            hint = "outside of quotes there are letters a to z, digits and operators only"
        return QueryError(f"{name} has no meaning here" + (f": {hint}" if hint else ""), at, self.source)

    def _in_quotes(self, at: int) -> Token:
        """Text in single or a name in double quotes; a quote in it is doubled."""
        quote = self.source[at]
        parts, begin = [], at + 1
        while True:
            close = self.source.find(quote, begin, self.end)
            if close < 0:
                raise QueryError(f"the closing {quote} is missing", at, self.source)
            parts.append(self.source[begin:close])
            if not self.source.startswith(quote, close + 1) or close + 1 >= self.end:
                break
            begin = close + 2
        kind = TokenKind.TEXT if quote == "'" else TokenKind.QUOTED
        return Token(kind, quote.join(parts), at, close + 1)

    def _in_pandas_quotes(self, at: int) -> Token:
        """A straight quote ends at the same; a typographic one at any of its kind, since word processors mix them."""
        family = SINGLE_QUOTES if self.source[at] in SINGLE_QUOTES else DOUBLE_QUOTES
        ends = family[0] if self.source[at] == family[0] else family
        closes = [self.source.find(each, at + 1, self.end) for each in ends]
        close = min((each for each in closes if each >= 0), default=-1)
        if close < 0:
            raise QueryError(f"the closing {family[0]} is missing", at, self.source)
        value = self.source[at + 1 : close]
        if "\\" in value:
            place = at + 1 + value.index("\\")
            raise QueryError("a text in a table expression has no backslash in it", place, self.source)
        return Token(TokenKind.TEXT, value, at, close + 1)

    def _tag(self, at: int, begin: int) -> Token:
        begin = self._after_space(begin)
        if begin < self.end and self.source[begin] in "'\"":
            name = self._in_quotes(begin)
            if name.value:
                return Token(TokenKind.TAG, name.value, at, name.end)
        match = _TAG_NAME.match(self.source, begin, self.end)
        if match is None:
            raise QueryError(
                "a tag's name is expected after tag: as in tag:difficult or tag:'two words'", begin, self.source
            )
        return Token(TokenKind.TAG, match[0], at, match.end())

    def _number(self, at: int, end: int) -> Token:
        text = self.source[at:end]
        if _STICKS.match(self.source, end, self.end):
            problem = "a number consists of digits, a point and e, and ends with a space or an operator"
            raise QueryError(problem, at, self.source)
        value: int | float
        if text.isdigit() and len(text.lstrip("0")) <= _LONGEST_WHOLE_NUMBER:
            value = int(text)
        else:
            value = float(text)
        if math.isinf(value):
            raise QueryError("a number is at most 1.7e308", at, self.source)
        return Token(TokenKind.NUMBER, text, at, end, value)

    def _percentile(self, at: int, end: int) -> Token:
        text = self.source[at:end]
        percent = float(text[1:])
        if percent > 100 or len(text.partition(".")[2]) > 10:
            raise QueryError(
                f"{shortened(text)} is no quantile: they go from p0 to p100, with at most 10 digits after the point; "
                "a column of that name stands in double quotes",
                at,
                self.source,
            )
        return Token(TokenKind.PERCENTILE, text, at, end, percent)
