"""Evaluating a checked tree over whole columns: each node makes one array for all rows in scope."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graybox.store.query.columns import Kind
from graybox.store.query.like import like
from graybox.store.query.numbers import ARITHMETIC, COMPARE, Mask, Numbers, compare, is_in, logarithm, quantile, summary
from graybox.store.query.scope import Scope
from graybox.store.query.texts import common_ranks
from graybox.store.query.tree import (
    FLIPPED,
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
    Tagged,
    Text,
    Truth,
)


class Evaluator:
    """Of what Checker answered for the same scope. Masks and numbers have one entry for each row in scope.

    A test of a value is false for null, negated or not: `x != 1`, `x not in (1)` and `x > 1` do not find a row without
    x. `not` in front of a condition finds exactly the rows that the condition does not.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.count = scope.count

    def mask(self, node: Node) -> Mask:
        """bool [rows], to be kept or changed by the caller."""
        match node:
            case And():
                found = self.mask(node.parts[0])
                for part in node.parts[1:]:
                    found &= self.mask(part)
                return found
            case Or():
                found = self.mask(node.parts[0])
                for part in node.parts[1:]:
                    found |= self.mask(part)
                return found
            case Not():
                return ~self.mask(node.operand)
            case Truth():
                return np.full(self.count, node.value)
            case Name():
                return self._flags(node, True)
            case Tagged():
                return self.scope.tag(node.name)
            case Comparison():
                return self._comparison(node.operator, node.left, node.right)
            case IsNull():
                null = self.null(node.operand)
                return ~null if node.negated else null
            case Between() | In() | Like():
                found = self._test(node)
                return ~found & ~self.null(node.operand) if node.negated else found
            case _:
                raise TypeError(f"{type(node).__name__} is no condition")

    def _test(self, node: Between | In | Like) -> Mask:
        match node:
            case Between():
                low = self._comparison(">=", node.operand, node.low)
                low &= self._comparison("<=", node.operand, node.high)
                return low
            case In():
                return self._in(node)
            case Like():
                texts = self.scope.texts(_name(node.operand))
                return texts.rows_of(like(texts.texts, node.pattern))

    def kind(self, node: Node) -> Kind:
        match node:
            case Name():
                return self.scope.column(node).kind
            case Text():
                return Kind.TEXT
            case Truth():
                return Kind.BOOL
            case _:
                return Kind.NUMBER

    def null(self, node: Node) -> Mask:
        """bool [rows]: where the value is null."""
        kind = self.kind(node)
        if kind is Kind.TEXT:
            return np.asarray(self.scope.texts(_name(node)).null())
        if kind is Kind.BOOL:
            null = self.scope.column(_name(node)).null
            return np.zeros(self.count, dtype=bool) if null is None else null.copy()
        return self.numbers(node).is_null(self.count)

    def numbers(self, node: Node) -> Numbers:
        """A number for each row, or one for all; classes by their numbers, true as 1."""
        match node:
            case Number():
                return Numbers(node.value)
            case Truth():
                return Numbers(int(node.value))
            case Name():
                column = self.scope.column(node)
                if column.kind is Kind.CLASS and column.values.dtype.kind == "i":
                    null = column.values < 0
                    return Numbers(column.values, null if column.null is None else null | column.null)
                values = column.values.view(np.uint8) if column.kind is Kind.BOOL else column.values
                return Numbers(values, column.null)
            case Negate():
                return Numbers(-self.numbers(node.operand).floats())
            case Chain():
                found: Any = self.numbers(node.first).floats()
                for operator, part in node.rest:
                    found = ARITHMETIC[operator](found, self.numbers(part).floats())
                return Numbers(found)
            case Call():
                return self._call(node)
            case _:
                raise TypeError(f"{type(node).__name__} is no number")

    def _call(self, node: Call) -> Numbers:
        arguments = [self.numbers(each) for each in node.arguments]
        if node.aggregates:
            share = float(arguments[1].values) if node.function == "quantile" else 0.5
            return Numbers(np.float64(summary(node.function, arguments[0].finite(self.count), share)))
        found: Any = arguments[0].floats()
        match node.function:
            case "abs":
                found = np.abs(found)
            case "sqrt":
                found = np.sqrt(found)
            case "log":
                found = logarithm(found)
            case "min":
                for each in arguments[1:]:
                    found = np.minimum(found, each.floats())
            case "max":
                for each in arguments[1:]:
                    found = np.maximum(found, each.floats())
        return Numbers(found)

    def _flags(self, name: Name, wanted: bool) -> Mask:
        """Where a bool column is that; null is neither."""
        column = self.scope.column(name)
        found = column.values.copy() if wanted else ~column.values
        if column.null is not None:
            found &= ~column.null
        return found

    def _comparison(self, operator: str, left: Node, right: Node) -> Mask:
        kinds = (self.kind(left), self.kind(right))
        if Kind.BOOL in kinds:
            return self._compare_flags(operator, left, right)
        if Kind.TEXT in kinds or kinds == (Kind.CLASS, Kind.CLASS):
            return self._compare_texts(operator, left, right)
        if isinstance(left, Percentile) or isinstance(right, Percentile):
            other = self.numbers(right if isinstance(left, Percentile) else left)
            first, second = (
                self._quantile(side, other) if isinstance(side, Percentile) else other for side in (left, right)
            )
            return compare(operator, first, second, self.count)
        return compare(operator, self.numbers(left), self.numbers(right), self.count)

    def _quantile(self, node: Percentile, other: Numbers) -> Numbers:
        return Numbers(np.float64(quantile(other.finite(self.count), node.percent / 100)))

    def _compare_flags(self, operator: str, left: Node, right: Node) -> Mask:
        if isinstance(left, Truth) and isinstance(right, Truth):
            return np.full(self.count, (left.value == right.value) == (operator == "=="))
        if isinstance(left, Truth):
            left, right = right, left
        if isinstance(right, Truth):
            return self._flags(_name(left), right.value == (operator == "=="))
        same = self._flags(_name(left), True) & self._flags(_name(right), True)
        same |= self._flags(_name(left), False) & self._flags(_name(right), False)
        if operator == "==":
            return same
        return ~same & ~self.null(left) & ~self.null(right)

    def _compare_texts(self, operator: str, left: Node, right: Node) -> Mask:
        """Texts, or classes by name; classes of the same names by number."""
        if isinstance(right, Text):
            texts, wanted = self.scope.texts(_name(left)), right.value
            if operator == "!=":
                return ~texts.rows_where(wanted.__eq__) & ~self.null(left)
            return texts.rows_where(partial(COMPARE[FLIPPED[operator]], wanted))
        first, second = self.scope.texts(_name(left)), self.scope.texts(_name(right))
        both_classes = self.kind(left) is Kind.CLASS and self.kind(right) is Kind.CLASS
        if both_classes and (first.texts == second.texts or not first.texts or not second.texts):
            return compare(operator, self.numbers(left), self.numbers(right), self.count)
        left_ranks, right_ranks = common_ranks(first, second)
        numbers = Numbers(left_ranks, left_ranks < 0), Numbers(right_ranks, right_ranks < 0)
        return compare(operator, *numbers, self.count)

    def _in(self, node: In) -> Mask:
        kind = self.kind(node.operand)
        if kind is Kind.BOOL:
            found = np.zeros(self.count, dtype=bool)
            for wanted in {item.value for item in node.items if isinstance(item, Truth)}:
                found |= self._flags(_name(node.operand), wanted)
            return found
        found = np.zeros(self.count, dtype=bool)
        named = frozenset(item.value for item in node.items if isinstance(item, Text))
        if named:
            found |= self.scope.texts(_name(node.operand)).rows_where(named.__contains__)
        numbers = [item.value for item in node.items if isinstance(item, Number)]
        if numbers:
            operand = self.numbers(node.operand)
            chosen = is_in(_as_array(operand.values, self.count), numbers)
            found |= chosen if operand.null is None else chosen & ~operand.null
        return found


def _as_array(values: Any, count: int) -> NDArray[Any]:
    return values if isinstance(values, np.ndarray) else np.full(count, values)


def _name(node: Node) -> Name:
    assert isinstance(node, Name), node
    return node
