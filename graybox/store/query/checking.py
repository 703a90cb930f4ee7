"""Whether a query fits a table: names, and what may be compared with what. Looks at kinds of columns, not at rows."""

from __future__ import annotations

from dataclasses import replace

from graybox.store.query.columns import Column, Kind
from graybox.store.query.query import Query
from graybox.store.query.query_error import nearest
from graybox.store.query.scope import Scope
from graybox.store.query.tokens import shortened
from graybox.store.query.tree import (
    FLIPPED,
    And,
    Between,
    Call,
    Chain,
    Comparison,
    Confusion,
    Histogram,
    In,
    IsNull,
    Like,
    Measure,
    Measures,
    Name,
    Negate,
    Node,
    Not,
    Number,
    Or,
    Percentile,
    Quoted,
    Show,
    SortKey,
    Tagged,
    Text,
    Truth,
    walk,
)

_HOLDS = {
    Kind.NUMBER: "numbers",
    Kind.BOOL: "true or false",
    Kind.TEXT: "texts",
    Kind.CLASS: "classes",
}


class Checker:
    """Answers each part of a query as it is meant for the table, or raises QueryError.

    In what it answers, Quoted has become a column or a text, and a text that is compared stands on the right.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def query(self, query: Query) -> Query:
        return replace(
            query,
            where=None if query.where is None else self.condition(query.where),
            sort=tuple(SortKey(self._sort_key(each.key), each.descending) for each in query.sort),
            show=None if query.show is None else self.show(query.show),
        )

    def condition(self, node: Node) -> Node:
        match node:
            case And() | Or():
                return replace(node, parts=tuple(map(self.condition, node.parts)))
            case Not():
                return replace(node, operand=self.condition(node.operand))
            case Tagged():
                self.scope.check_tag(node)
                return node
            case Comparison():
                return self._comparison(node)
            case Between():
                low = self._comparison(Comparison(">=", node.operand, node.low, node.at))
                high = self._comparison(Comparison("<=", node.operand, node.high, node.at))
                if isinstance(low.left, Text) or low.left != high.left:
                    raise self.scope.error("between needs a column on its left", node.at)
                return replace(node, operand=low.left, low=low.right, high=high.right)
            case In():
                return self._in(node)
            case Like():
                return self._like(node)
            case IsNull():
                return replace(node, operand=self._with_column(node.operand, "is null")[0])
            case Truth():
                return node
            case _:
                return self._flag(node)

    def _flag(self, node: Node) -> Node:
        found, kind = self.value(node)
        if kind is not Kind.BOOL:
            what = _described(found)
            problem = f"{what} {_holds(found, kind)}; a condition such as {what} {_example(kind)} is expected"
            raise self.scope.error(problem, node.at)
        return found

    def value(self, node: Node, hint: str = "") -> tuple[Node, Kind]:
        """A value and what it is. hint: follows the error for an unknown column."""
        match node:
            case Number() | Percentile():
                return node, Kind.NUMBER
            case Text():
                return node, Kind.TEXT
            case Truth():
                return node, Kind.BOOL
            case Name():
                return node, self.scope.described(node, hint).kind
            case Quoted():
                found = self.scope.find(node.value)
                if found is None:
                    return Text(node.value, node.at), Kind.TEXT
                return Name(node.value, node.at), found.kind
            case Negate():
                return replace(node, operand=self._number(node.operand, "a sign")), Kind.NUMBER
            case Chain():
                first = self._number(node.first, node.rest[0][0])
                rest = tuple((operator, self._number(each, operator)) for operator, each in node.rest)
                return replace(node, first=first, rest=rest), Kind.NUMBER
            case Call():
                return self._call(node), Kind.NUMBER
            case _:
                raise self.scope.error("a value is expected, not a condition", node.at)

    def _call(self, node: Call) -> Call:
        if node.function == "mean":
            found, kind = self.value(node.arguments[0])
            if kind is Kind.BOOL:
                return replace(node, arguments=(found,))
        return replace(node, arguments=tuple(self._number(each, node.function) for each in node.arguments))

    def _number(self, node: Node, what: str) -> Node:
        """what: the operator or function that it is for."""
        found, kind = self.value(node)
        if kind is not Kind.NUMBER:
            raise self.scope.error(f"{what} needs numbers, and {_described(found)} {_holds(found, kind)}", node.at)
        return found

    def _with_column(self, node: Node, what: str) -> tuple[Node, Kind]:
        found, kind = self.value(node)
        if not has_column(found):
            raise self.scope.error(f"'{what}' needs a column on its left", node.at)
        return found, kind

    def _sort_key(self, node: Node) -> Node:
        found, _ = self._with_column(node, "sortby") if isinstance(node, Name) else self.value(node)
        if not has_column(found):
            raise self.scope.error("sortby needs columns", node.at)
        return found

    def _comparison(self, node: Comparison) -> Comparison:
        left, left_kind = self.value(node.left)
        name = node.right.name if isinstance(node.right, Name) else ""
        hint = f" (a text stands in single quotes: '{shortened(name)}')" if left_kind in (Kind.TEXT, Kind.CLASS) else ""
        right, right_kind = self.value(node.right, hint)
        if isinstance(left, Text) and not isinstance(right, Text):
            left, right, left_kind, right_kind = right, left, right_kind, left_kind
            node = replace(node, operator=FLIPPED[node.operator])
        for side, other in ((left, right), (right, left)):
            if isinstance(side, Percentile) and not has_column(other):
                raise self.scope.error("a quantile such as p95 is that of the other side, which has no column", side.at)
        problem = self._mismatch(node.operator, left, right, (left_kind, right_kind))
        if problem:
            raise self.scope.error(problem, right.at)
        return replace(node, left=left, right=right)

    def _mismatch(self, operator: str, left: Node, right: Node, kinds: tuple[Kind, Kind]) -> str:
        """Why the two cannot be compared; '' if they can."""
        by_order = operator not in ("==", "!=")
        if isinstance(left, Text) and isinstance(right, Text):
            return "two texts are compared; a column is expected on one side"
        if kinds == (Kind.NUMBER, Kind.NUMBER) or kinds == (Kind.TEXT, Kind.TEXT):
            return ""
        if kinds == (Kind.BOOL, Kind.BOOL):
            return f"true and false have no order; compare them by == or !=, not by {operator}" if by_order else ""
        if set(kinds) == {Kind.CLASS, Kind.NUMBER}:
            classes, other = (left, right) if kinds[0] is Kind.CLASS else (right, left)
            return (
                f"{_described(classes)} holds classes, which have no quantiles" if isinstance(other, Percentile) else ""
            )
        if set(kinds) in ({Kind.CLASS}, {Kind.CLASS, Kind.TEXT}):
            if by_order:
                return f"the names of classes are compared by == or !=, not by {operator}"
            return self._unknown_class(left, right)
        what = f"{_described(right)}{_kind_hint(right, kinds[1])}"
        expected = "; compare it with true or false" if kinds[0] is Kind.BOOL else ""
        return f"{_described(left)} {_holds(left, kinds[0])} and cannot be compared with {what}{expected}"

    def _unknown_class(self, left: Node, right: Node) -> str:
        if not isinstance(right, Text):
            return ""
        assert isinstance(left, Name)
        return self._no_such_class(self.scope.described(left), right.value)

    def _no_such_class(self, column: Column, wanted: str) -> str:
        if not column.names:
            return f"the classes of {column.name} have no names; compare it with a class's number"
        if wanted in column.names:
            return ""
        return f"{column.name} has no class {shortened(wanted)!r}{nearest(wanted, column.names)}"

    def _in(self, node: In) -> In:
        operand, kind = self._with_column(node.operand, "in")
        for item in node.items:
            found = self.value(item)[1]
            if kind is Kind.CLASS and isinstance(item, Text):
                problem = self._no_such_class(self.scope.described(_name(operand)), item.value)
            elif found is kind or (kind is Kind.CLASS and found is Kind.NUMBER):
                problem = ""
            else:
                problem = f"{_described(operand)} {_holds(operand, kind)}; the list has {_described(item)} in it"
            if problem:
                raise self.scope.error(problem, item.at)
        return replace(node, operand=operand)

    def _like(self, node: Like) -> Like:
        operand, kind = self._with_column(node.operand, "like")
        if kind not in (Kind.TEXT, Kind.CLASS):
            raise self.scope.error(f"like is for texts, and {_described(operand)} {_holds(operand, kind)}", node.at)
        column = self.scope.described(_name(operand))
        if kind is Kind.CLASS and not column.names:
            raise self.scope.error(f"the classes of {column.name} have no names to compare", node.at)
        return replace(node, operand=operand)

    def show(self, show: Show) -> Show:
        match show:
            case Histogram():
                value, _ = self.value(show.value)
                if not has_column(value):
                    raise self.scope.error("histogram needs a column", show.value.at)
                return replace(show, value=value)
            case Confusion():
                self._check_classes("confusion", show.truth, show.guess)
                return show
            case Measures():
                if isinstance(show.by, Name):
                    self.scope.described(show.by)
                return replace(show, measures=tuple(map(self._measure, show.measures)))

    def _measure(self, measure: Measure) -> Measure:
        if measure.name == "count":
            return measure
        if measure.name == "accuracy":
            truth, guess = map(_name, measure.arguments)
            self._check_classes("accuracy", truth, guess)
            return measure
        call = self._call(Call(measure.name, measure.arguments, measure.at))
        return replace(measure, arguments=call.arguments)

    def _check_classes(self, what: str, truth: Name, guess: Name) -> None:
        for name in (truth, guess):
            hint = f"; {what} compares {truth.name} with {guess.name}, {what}(a, b) any two columns of classes"
            kind = self.scope.described(name, hint).kind
            if kind is not Kind.CLASS:
                raise self.scope.error(
                    f"{what} needs columns of classes, and {name.name} {_holds(name, kind)}", name.at
                )


def has_column(node: Node) -> bool:
    """Whether any column is used in it."""
    return any(isinstance(each, Name) for each in walk(node))


def _name(node: Node) -> Name:
    """Texts and classes are never calculated, so that a column of them is a name."""
    assert isinstance(node, Name), node
    return node


def _described(node: Node) -> str:
    match node:
        case Number():
            return f"the number {node.value}"
        case Text():
            return f"the text {shortened(node.value)!r}"
        case Truth():
            return "true" if node.value else "false"
        case Name():
            return shortened(node.name)
        case Percentile():
            return "a quantile"
        case Call():
            return f"{node.function}(...)"
        case _:
            return "the calculated number"


def _holds(node: Node, kind: Kind) -> str:
    if not isinstance(node, Name):
        return {Kind.NUMBER: "is a number", Kind.TEXT: "is a text", Kind.BOOL: "is true or false"}.get(
            kind, "is a class"
        )
    return f"is {_HOLDS[kind]}" if kind is Kind.BOOL else f"holds {_HOLDS[kind]}"


def _kind_hint(node: Node, kind: Kind) -> str:
    return f", which {_holds(node, kind)}" if isinstance(node, Name) else ""


def _example(kind: Kind) -> str:
    return {Kind.NUMBER: "> 0", Kind.TEXT: "== 'abc'", Kind.CLASS: "== 0"}.get(kind, "== true")
