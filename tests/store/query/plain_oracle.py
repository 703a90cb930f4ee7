"""What queries mean, row by row in plain Python, written from docs/queries.md and not from the code that it judges."""

from __future__ import annotations

import math
import operator
import re
import statistics
from typing import Any

import numpy as np

from graybox.store.query import Kind
from graybox.store.query.tree import (
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
    SortKey,
    Tagged,
    Text,
    Truth,
)
from tests.store.query.random_tables import Case

COMPARE = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Oracle:
    """scope: the rows that are looked at."""

    def __init__(self, case: Case, scope: list[int]) -> None:
        self.case = case
        self.scope = scope

    def holds(self, node: Node, row: int) -> bool:
        match node:
            case And():
                return all(self.holds(part, row) for part in node.parts)
            case Or():
                return any(self.holds(part, row) for part in node.parts)
            case Not():
                return not self.holds(node.operand, row)
            case Truth():
                return node.value
            case Name():
                return self.case.plain[node.name][row] is True
            case Tagged():
                return self.case.tags[node.name][row]
            case IsNull():
                return (self.value(node.operand, row) is None) != node.negated
            case Comparison():
                return self.compare(node.operator, node.left, node.right, row)
            case Between() | In() | Like():
                if self.value(node.operand, row) is None:
                    return False
                return self.tested(node, row) != node.negated
        raise AssertionError(node)

    def tested(self, node: Between | In | Like, row: int) -> bool:
        match node:
            case Between():
                return self.compare(">=", node.operand, node.low, row) and self.compare(
                    "<=", node.operand, node.high, row
                )
            case In():
                return any(self.compare("==", node.operand, item, row) for item in node.items)
            case Like():
                value = self.value(node.operand, row)
                text = self.class_text(node.operand, value) if self.is_class(node.operand) else value
                return (
                    text is not None and re.fullmatch(regex(node.pattern), text, re.DOTALL | re.IGNORECASE) is not None
                )

    def is_class(self, node: Node) -> bool:
        return isinstance(node, Name) and self.case.kinds[node.name] is Kind.CLASS

    def class_text(self, node: Node, value: int | None) -> str | None:
        assert isinstance(node, Name)
        known = self.case.names[node.name]
        return known[value] if value is not None and value < len(known) else None

    def compare(self, comparison: str, left: Node, right: Node, row: int) -> bool:
        left, right = self.meant(left), self.meant(right)
        if isinstance(left, Percentile):
            first, second = self.quantile(right, left.percent / 100), self.value(right, row)
        elif isinstance(right, Percentile):
            first, second = self.value(left, row), self.quantile(left, right.percent / 100)
        else:
            first, second = self.value(left, row), self.value(right, row)
            if isinstance(first, int | float) and isinstance(second, int | float):
                first, second = self.as_written(left, right, first), self.as_written(right, left, second)
        if first is None or second is None:
            return False
        if isinstance(first, str) and self.is_class(right):
            left, right, first, second = right, left, second, first
            assert comparison in ("==", "!=")
        if self.is_class(left) and isinstance(second, str):
            name = self.class_text(left, first)
            if name is None and isinstance(right, Name):
                return False  # a class without a name beside a text
            return COMPARE[comparison](name, second)
        if self.is_class(left) and self.is_class(right):
            assert isinstance(left, Name) and isinstance(right, Name)
            if self.case.names[left.name] != self.case.names[right.name]:
                first, second = self.class_text(left, first), self.class_text(right, second)
                if first is None or second is None:
                    return False
        return bool(COMPARE[comparison](first, second))

    def meant(self, node: Node) -> Node:
        if isinstance(node, Quoted):
            return Name(node.value) if node.value in self.case.plain else Text(node.value)
        return node

    def as_written(self, node: Node, other: Node, value: Any) -> Any:
        """A number that stands alone, in the precision of the column that stands alone beside it."""
        if isinstance(node, Number) and isinstance(other, Name) and other.name in self.case.single:
            largest = float(np.finfo(np.float32).max)
            return float(np.float32(min(max(value, -largest), largest)))
        return value

    def value(self, node: Node, row: int) -> Any:
        found = self.raw_value(node, row)
        return None if isinstance(found, float) and math.isnan(found) else found

    def raw_value(self, node: Node, row: int) -> Any:
        match node:
            case Number() | Text() | Truth():
                return node.value
            case Name():
                return self.case.plain[node.name][row]
            case Quoted():
                return self.value(self.meant(node), row)
            case Negate():
                found = self.value(node.operand, row)
                return None if found is None else -float(found)
            case Chain():
                found = self.value(node.first, row)
                for symbol, part in node.rest:
                    found = calculated(symbol, found, self.value(part, row))
                    if found is not None and math.isnan(found):
                        return None
                return found
            case Call():
                return self.called(node, row)
        raise AssertionError(node)

    def called(self, node: Call, row: int) -> float | None:
        if node.function == "quantile":
            share = node.arguments[1]
            assert isinstance(share, Number)
            return self.quantile(node.arguments[0], share.value)
        if len(node.arguments) > 1:
            found = [self.value(each, row) for each in node.arguments]
            return None if None in found else (min if node.function == "min" else max)(found)
        if node.function in ("abs", "log", "sqrt"):
            value = self.value(node.arguments[0], row)
            if value is None or (node.function == "log" and value <= 0) or (node.function == "sqrt" and value < 0):
                return None
            return {"abs": abs, "log": np.log, "sqrt": math.sqrt}[node.function](float(value))
        values = self.finite(node.arguments[0])
        if not values:
            return None
        functions = {"min": min, "max": max, "median": statistics.median, "mean": np.mean, "std": np.std}
        found = float(functions[node.function](values))
        return found if math.isfinite(found) else None

    def finite(self, node: Node) -> list[float]:
        values = [self.value(node, row) for row in self.scope]
        return [float(value) for value in values if value is not None and math.isfinite(value)]

    def quantile(self, node: Node, share: float) -> float | None:
        values = self.finite(node)
        with np.errstate(all="ignore"):
            return float(np.quantile(values, share)) if values else None

    def found(self, where: Node | None) -> list[int]:
        return [row for row in self.scope if where is None or self.holds(where, row)]

    def ordered(self, rows: list[int], keys: tuple[SortKey, ...]) -> list[int]:
        """By Python's stable sort, once for each key."""
        for each in reversed(keys):
            values = {row: self.value(each.key, row) for row in rows}
            known = [row for row in rows if values[row] is not None]
            ranks = sorted({values[row] for row in known}, reverse=each.descending)
            known.sort(key=lambda row: ranks.index(values[row]))
            rows = known + [row for row in rows if values[row] is None]
        return rows


def calculated(symbol: str, left: float | None, right: float | None) -> float | None:
    if left is None or right is None:
        return None
    first, second = float(left), float(right)
    if symbol in "/%" and second == 0:
        return None
    if symbol == "%" and math.isinf(first):
        return None
    return {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "%": operator.mod}[symbol](
        first, second
    )


def regex(pattern: str) -> str:
    """Slow where patterns are bad, but plainly right."""
    tokens = re.findall(r"\\[%_\\]|.", pattern, re.DOTALL)
    wild = {"%": ".*", "_": "."}
    return "".join(wild[each] if each in wild else re.escape(each[-1]) for each in tokens)
