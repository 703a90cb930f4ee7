"""A place in a list of tokens, which a parser moves forward."""

from __future__ import annotations

from graybox.store.query.query_error import QueryError
from graybox.store.query.tokens import Token, TokenKind
from graybox.store.query.tree import MAX_NESTING


class Cursor:
    """tokens: of `source`, the last of kind END, which is never passed."""

    def __init__(self, source: str, tokens: list[Token]) -> None:
        self.source = source
        self.tokens = tokens
        self.index = 0
        self._depth = 0

    @property
    def current(self) -> Token:
        return self.tokens[self.index]

    def ahead(self, count: int = 1) -> Token:
        return self.tokens[min(self.index + count, len(self.tokens) - 1)]

    def advance(self) -> Token:
        token = self.current
        if token.kind is not TokenKind.END:
            self.index += 1
        return token

    def at_end(self) -> bool:
        return self.current.kind is TokenKind.END

    def word(self, count: int = 0) -> str:
        """The word there in lower case, or ''."""
        return (self.ahead(count) if count else self.tokens[self.index]).word

    def symbol(self, count: int = 0) -> str:
        """The symbol there, or ''."""
        return (self.ahead(count) if count else self.tokens[self.index]).symbol

    def accept_word(self, word: str) -> bool:
        if self.word() != word:
            return False
        self.advance()
        return True

    def accept(self, symbol: str) -> bool:
        if self.symbol() != symbol:
            return False
        self.advance()
        return True

    def expect(self, symbol: str, where: str) -> None:
        """where: as in 'after the list'."""
        if not self.accept(symbol):
            raise self.error(f"'{symbol}' is expected {where}, not {self.current}")

    def error(self, problem: str, at: int | None = None) -> QueryError:
        """An error at the current token, or elsewhere. The caller raises it."""
        return QueryError(problem, self.current.at if at is None else at, self.source)

    def deeper(self) -> None:
        """One level into the tree. Whoever goes in comes out by `shallower`, unless an error ends it all."""
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise self.error(f"conditions and parentheses nest at most {MAX_NESTING} deep")

    def shallower(self) -> None:
        self._depth -= 1
