"""Parsing conditions and values: operators by their strength, each of which makes a node of the tree."""

from __future__ import annotations

from graybox.store.query.cursor import Cursor
from graybox.store.query.query_error import nearest
from graybox.store.query.tokens import Token, TokenKind, shortened
from graybox.store.query.tree import (
    FUNCTIONS,
    MAX_ITEMS,
    MAX_PATTERN,
    ONLY_CONDITIONS,
    And,
    Between,
    Call,
    Chain,
    Comparison,
    In,
    IsNull,
    Like,
    Name,
    Negate,
    Node,
    Not,
    Number,
    Or,
    Percentile,
    Quoted,
    Tagged,
    Text,
    Truth,
)
from graybox.store.query.wording import AND, COMPARE, NOT, OR, PRODUCT, RESERVED, SIGN, SUM

_SYMBOLS = {
    **dict.fromkeys(("|", "||"), ("or", OR)),
    **dict.fromkeys(("&", "&&"), ("and", AND)),
    **dict.fromkeys(("=", "=="), ("==", COMPARE)),
    **dict.fromkeys(("!=", "<>"), ("!=", COMPARE)),
    **{each: (each, COMPARE) for each in ("<", "<=", ">", ">=")},
    **{each: (each, SUM) for each in "+-"},
    **{each: (each, PRODUCT) for each in "*/%"},
}
_WORDS = {"or": OR, "and": AND, **dict.fromkeys(("in", "like", "between", "is"), COMPARE)}
_NONE = ("", 0)
_NEGATABLE = ("in", "like", "between")
_CONTEXTUAL = frozenset({"order", "sort"})  # reserved before `by` only


class ExpressionParser:
    """Parses from the cursor on; afterwards the cursor stands behind what was parsed.

    Every level of the recursion goes one level deeper into the tree, so that the limit of nesting bounds both.
    """

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self._operators = list(map(_operator, cursor.tokens, [*cursor.tokens[1:], cursor.tokens[-1]]))

    def condition(self) -> Node:
        """Raises QueryError for anything that is no condition."""
        return self._checked_condition(self._expression(0))

    def value(self) -> Node:
        """A number, text or column, or arithmetic on numbers. Raises QueryError for anything else."""
        return self._checked_value(self._expression(COMPARE))

    def literal(self) -> Number | Text | Truth:
        """An item of a list."""
        token, sign = self.cursor.current, 1
        if self.cursor.symbol() in ("-", "+") and self.cursor.ahead().kind is TokenKind.NUMBER:
            sign = -1 if self.cursor.advance().value == "-" else 1
        found = self.cursor.advance()
        if found.kind is TokenKind.NUMBER:
            return Number(sign * found.number, token.at)
        if found.kind in (TokenKind.TEXT, TokenKind.QUOTED):
            return Text(found.value, found.at)
        if found.kind is TokenKind.WORD and found.value.lower() in ("true", "false"):
            return Truth(found.value.lower() == "true", found.at)
        if found.kind is TokenKind.WORD and found.value.lower() == "null":
            raise self.cursor.error("null is in no list: 'is null' finds it", found.at)
        hint = f"; a text stands in single quotes: '{found.value}'" if found.kind is TokenKind.WORD else ""
        raise self.cursor.error(f"a number or a text is expected in a list, not {found}{hint}", found.at)

    def _expression(self, power: int) -> Node:
        """All that operators stronger than `power` hold together."""
        self.cursor.deeper()
        left = self._prefix(power)
        while True:
            operator, strength = self._operator()
            if strength <= power:
                break
            if strength in (OR, AND):
                left = self._junction(left, strength)
            elif strength == COMPARE:
                left = self._comparison(left, operator)
            else:
                left = self._chain(left, strength)
        self.cursor.shallower()
        return left

    def _operator(self) -> tuple[str, int]:
        """The operator at the cursor and its strength; ('', 0) where there is none."""
        return self._operators[self.cursor.index]

    def _junction(self, left: Node, strength: int) -> Node:
        at = self.cursor.current.at
        parts = [self._checked_condition(left)]
        while self._operator()[1] == strength:
            self.cursor.advance()
            parts.append(self._checked_condition(self._expression(strength)))
        return Or(tuple(parts), at) if strength == OR else And(tuple(parts), at)

    def _chain(self, left: Node, strength: int) -> Node:
        at = self.cursor.current.at
        first = self._checked_value(left)
        rest: list[tuple[str, Node]] = []
        while self._operator()[1] == strength:
            operator = self.cursor.advance().value
            rest.append((operator, self._checked_value(self._expression(strength))))
        return Chain(first, tuple(rest), at)

    def _comparison(self, left: Node, operator: str) -> Node:
        at = self.cursor.advance().at
        node: Node
        if operator in ("in", "like", "between", "not"):
            negated = operator == "not"
            if negated:
                operator = self.cursor.advance().value.lower()
            if operator == "between":
                node = self._between(left, negated, at)
            else:
                operand = self._checked_value(left)
                node = (
                    In(operand, self._items(), negated, at)
                    if operator == "in"
                    else Like(operand, self._pattern(), negated, at)
                )
        elif operator == "is":
            negated = self.cursor.accept_word("not")
            if not self.cursor.accept_word("null"):
                raise self.cursor.error(f"'null' is expected after 'is', not {self.cursor.current}")
            node = IsNull(self._checked_value(left), negated, at)
        else:
            node = Comparison(operator, self._side(left), self._right_side(), at)
            if isinstance(node.left, Percentile) and isinstance(node.right, Percentile):
                raise self.cursor.error("a quantile such as p95 is compared with a column", node.right.at)
        if self._operator()[1] == COMPARE:
            raise self.cursor.error("comparisons do not follow one another: write a < b and b < c")
        return node

    def _between(self, left: Node, negated: bool, at: int) -> Node:
        operand = self._checked_value(left)
        low = self._right_side()
        if not self.cursor.accept_word("and"):
            raise self.cursor.error(f"'and' is expected, as in between 1 and 2, not {self.cursor.current}")
        return Between(operand, low, self._right_side(), negated, at)

    def _items(self) -> tuple[Number | Text | Truth, ...]:
        opening = self.cursor.symbol()
        closing = {"(": ")", "[": "]"}.get(opening)
        if closing is None:
            raise self.cursor.error(f"a list is expected after 'in', as in (1, 2), not {self.cursor.current}")
        self.cursor.advance()
        items: list[Number | Text | Truth] = []
        while not self.cursor.accept(closing):
            if items:
                self.cursor.expect(",", f"between the items of a list, or '{closing}' after them")
            if len(items) == MAX_ITEMS:
                raise self.cursor.error(f"a list has at most {MAX_ITEMS} items")
            items.append(self.literal())
        return tuple(items)

    def _pattern(self) -> str:
        token = self.cursor.advance()
        if token.kind not in (TokenKind.TEXT, TokenKind.QUOTED):
            raise self.cursor.error(f"a text is expected after 'like', as in '%abc_', not {token}", token.at)
        if len(token.value) > MAX_PATTERN:
            raise self.cursor.error(
                f"a pattern has at most {MAX_PATTERN} characters, this one has {len(token.value)}", token.at
            )
        return token.value

    def _right_side(self) -> Node:
        start, token = self.cursor.index, self.cursor.current
        node = self._side(self._expression(COMPARE))
        if token.kind is TokenKind.QUOTED and self.cursor.index == start + 1:
            return Quoted(token.value, token.at)
        return node

    def _prefix(self, power: int) -> Node:
        token = self.cursor.current
        symbol = self.cursor.symbol()
        if symbol in ("!", "~") or self.cursor.word() == "not":
            if power >= COMPARE:
                raise self.cursor.error(f"{token} stands in front of a condition, as in not (a > 1)")
            self.cursor.advance()
            return Not(self._checked_condition(self._expression(NOT)), token.at)
        if symbol in ("-", "+"):
            return self._signed()
        if symbol == "(":
            self.cursor.advance()
            inner = self._expression(0)
            self.cursor.expect(")", "to close the parenthesis")
            return inner
        if token.kind is TokenKind.WORD:
            return self._named(token)
        self.cursor.advance()
        match token.kind:
            case TokenKind.NUMBER:
                return Number(token.number, token.at)
            case TokenKind.TEXT:
                return Text(token.value, token.at)
            case TokenKind.QUOTED:
                return Name(token.value, token.at)
            case TokenKind.PERCENTILE:
                return Percentile(token.number, token.at)
            case TokenKind.TAG:
                return Tagged(token.value, token.at)
        raise self.cursor.error(f"a column, number, text or condition is expected, not {token}", token.at)

    def _signed(self) -> Node:
        sign = self.cursor.advance()
        token = self.cursor.current
        if token.kind is TokenKind.NUMBER:
            self.cursor.advance()
            return Number(-token.number if sign.value == "-" else token.number, sign.at)
        operand = self._checked_value(self._expression(SIGN))
        return Negate(operand, sign.at) if sign.value == "-" else operand

    def _named(self, token: Token) -> Node:
        word = token.value.lower()
        if self.cursor.symbol(1) == "(" and word not in RESERVED:
            return self.call()
        self.cursor.advance()
        if word in ("true", "false"):
            return Truth(word == "true", token.at)
        if word == "null":
            raise self.cursor.error("null equals nothing: 'is null' and 'is not null' find it", token.at)
        if word in RESERVED and not (word in _CONTEXTUAL and self.cursor.word() != "by"):
            raise self.cursor.error(
                f"a column, number, text or condition is expected, not '{token.value}'; a column of that "
                "name stands in double quotes",
                token.at,
            )
        return Name(self.plain_name(token), token.at)

    def plain_name(self, token: Token) -> str:
        """Names that Python keeps for itself are no columns by accident."""
        if token.value.startswith("__"):
            raise self.cursor.error(
                f"'{shortened(token.value)}' is no column; a name that begins with __ stands in double quotes",
                token.at,
            )
        return token.value

    def call(self) -> Call:
        """A function's name and its arguments in parentheses. Raises QueryError for any other function."""
        token = self.cursor.advance()
        name = token.value.lower()
        if name not in FUNCTIONS:
            raise self.cursor.error(
                f"there is no function '{shortened(token.value)}'{nearest(name, FUNCTIONS)}", token.at
            )
        self.cursor.expect("(", f"after '{name}'")
        least, most = FUNCTIONS[name]
        arguments: list[Node] = []
        while not self.cursor.accept(")"):
            if arguments:
                self.cursor.expect(",", f"between the arguments of '{name}', or ')' after them")
            arguments.append(self.value())
            if len(arguments) > most:
                raise self.cursor.error(f"{name} takes {_count(least, most)}", arguments[-1].at)
        if len(arguments) < least:
            raise self.cursor.error(f"{name} takes {_count(least, most)}, not {len(arguments)}", token.at)
        if name == "quantile":
            self._check_share(arguments[1])
        return Call(name, tuple(arguments), token.at)

    def _check_share(self, share: Node) -> None:
        if not isinstance(share, Number) or not 0 <= share.value <= 1:
            raise self.cursor.error(
                "quantile takes a column and a number from 0 to 1, as in quantile(loss, 0.95)", share.at
            )

    def _checked_condition(self, node: Node) -> Node:
        if isinstance(node, (*ONLY_CONDITIONS, Truth, Name)):
            return node
        raise self.cursor.error(f"a condition such as x > 1 is expected, not {_described(node)}", node.at)

    def _checked_value(self, node: Node) -> Node:
        if isinstance(node, Percentile):
            raise self.cursor.error(
                "a quantile such as p95 stands alone on one side of a comparison, as in loss > p95; elsewhere write "
                "quantile(loss, 0.95)",
                node.at,
            )
        return self._side(node)

    def _side(self, node: Node) -> Node:
        """One side of a comparison."""
        if isinstance(node, ONLY_CONDITIONS):
            raise self.cursor.error("a column, number or text is expected here, not a condition", node.at)
        return node


def _operator(token: Token, following: Token) -> tuple[str, int]:
    if token.symbol:
        return _SYMBOLS.get(token.symbol, _NONE)
    if token.word == "not" and following.word in _NEGATABLE:
        return token.word, COMPARE
    return (token.word, _WORDS[token.word]) if token.word in _WORDS else _NONE


def _count(least: int, most: int) -> str:
    if least == most:
        return f"{least} argument{'s' if least > 1 else ''}"
    return f"{least} to {most} arguments"


def _described(node: Node) -> str:
    match node:
        case Number():
            return f"the number {node.value}"
        case Text():
            return f"the text {shortened(node.value)!r}"
        case Percentile():
            return "a quantile"
        case _:
            return "a value"
