"""The nodes that a query may consist of, and nothing else: what is not listed here cannot be asked.

`at`, wherever it stands, is the 0-based place in the text that a node was parsed from; two nodes are equal wherever
they stood.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

MAX_CHARACTERS = 4_000
MAX_NESTING = 64
MAX_ITEMS = 1_000
MAX_PATTERN = 256
MAX_KEYS = 8
MAX_ARGUMENTS = 8
MAX_MEASURES = 16
MAX_BINS = 200
MAX_COUNT = 2**53

DEFAULT_BINS = 20
LABEL, PREDICTION = "label", "prediction"

FUNCTIONS = {
    "abs": (1, 1),
    "log": (1, 1),
    "sqrt": (1, 1),
    "min": (1, MAX_ARGUMENTS),
    "max": (1, MAX_ARGUMENTS),
    "mean": (1, 1),
    "median": (1, 1),
    "std": (1, 1),
    "quantile": (2, 2),
}
"""How many arguments each function takes, at least and at most."""

AGGREGATES = frozenset({"min", "max", "mean", "median", "std", "quantile"})
"""Functions that make one number of all rows; min and max do so with one argument only."""

FLIPPED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
"""The operator that says the same with its sides exchanged."""


def _place() -> Any:
    return field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Number:
    value: int | float
    at: int = _place()


@dataclass(frozen=True, slots=True)
class Text:
    value: str
    at: int = _place()


@dataclass(frozen=True, slots=True)
class Truth:
    value: bool
    at: int = _place()


@dataclass(frozen=True, slots=True)
class Name:
    """A column."""

    name: str
    at: int = _place()


@dataclass(frozen=True, slots=True)
class Quoted:
    """What stands in double quotes right of a comparison: a column if the table has it, otherwise a text."""

    value: str
    at: int = _place()


@dataclass(frozen=True, slots=True)
class Percentile:
    """p95: the quantile of a comparison's other side. Stands on one side of a comparison, or bounds a between."""

    percent: float
    at: int = _place()


@dataclass(frozen=True, slots=True)
class Negate:
    operand: Node
    at: int = _place()


@dataclass(frozen=True, slots=True)
class Chain:
    """Operators of one strength from left to right, + and -, or * / %: (first op node) op node ...

    One node for however many, so that a long sum is no deep tree.
    """

    first: Node
    rest: tuple[tuple[str, Node], ...]
    at: int = _place()


@dataclass(frozen=True, slots=True)
class Call:
    """function: of FUNCTIONS."""

    function: str
    arguments: tuple[Node, ...]
    at: int = _place()

    @property
    def aggregates(self) -> bool:
        return self.function in AGGREGATES and (self.function == "quantile" or len(self.arguments) == 1)


@dataclass(frozen=True, slots=True)
class Comparison:
    """operator: == != < <= > or >=."""

    operator: str
    left: Node
    right: Node
    at: int = _place()


@dataclass(frozen=True, slots=True)
class Between:
    """Both bounds belong to it."""

    operand: Node
    low: Node
    high: Node
    negated: bool = False
    at: int = _place()


@dataclass(frozen=True, slots=True)
class In:
    operand: Node
    items: tuple[Number | Text | Truth, ...]
    negated: bool = False
    at: int = _place()


@dataclass(frozen=True, slots=True)
class Like:
    operand: Node
    pattern: str
    negated: bool = False
    at: int = _place()


@dataclass(frozen=True, slots=True)
class IsNull:
    operand: Node
    negated: bool = False
    at: int = _place()


@dataclass(frozen=True, slots=True)
class Tagged:
    name: str
    at: int = _place()


@dataclass(frozen=True, slots=True)
class Not:
    operand: Node
    at: int = _place()


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Node, ...]
    at: int = _place()


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Node, ...]
    at: int = _place()


Value: TypeAlias = Number | Text | Truth | Name | Quoted | Percentile | Negate | Chain | Call
Condition: TypeAlias = Truth | Name | Comparison | Between | In | Like | IsNull | Tagged | Not | And | Or
Node: TypeAlias = Value | Condition

ONLY_CONDITIONS = (Comparison, Between, In, Like, IsNull, Tagged, Not, And, Or)
"""Conditions that are no value; Truth and Name can be both."""


def children(node: Node) -> tuple[Node, ...]:
    """The nodes right below."""
    match node:
        case Negate() | Not() | In() | Like() | IsNull():
            return (node.operand,)
        case Chain():
            return (node.first, *(each for _, each in node.rest))
        case Call():
            return node.arguments
        case Comparison():
            return (node.left, node.right)
        case Between():
            return (node.operand, node.low, node.high)
        case And() | Or():
            return node.parts
        case _:
            return ()


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it, in no order to rely on."""
    waiting = [node]
    while waiting:
        found = waiting.pop()
        yield found
        waiting += children(found)


@dataclass(frozen=True, slots=True)
class Sample:
    """amount: so many rows; or, as_percent, so many percent of them, 0 to 100."""

    amount: int | float
    as_percent: bool = False
    at: int = _place()


@dataclass(frozen=True, slots=True)
class SortKey:
    key: Node
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of many rows. name: count, accuracy (two columns), or an aggregate."""

    name: str
    arguments: tuple[Node, ...] = ()
    at: int = _place()


@dataclass(frozen=True, slots=True)
class Tags:
    """`by tag`: a row counts under each of its tags."""

    at: int = _place()


@dataclass(frozen=True, slots=True)
class Measures:
    measures: tuple[Measure, ...]
    by: Name | Tags | None = None


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often which class of `truth` met which class of `guess`."""

    truth: Name
    guess: Name
    at: int = _place()


@dataclass(frozen=True, slots=True)
class Histogram:
    """bins: for numbers only; other values are counted one by one."""

    value: Node
    bins: int = DEFAULT_BINS
    at: int = _place()


Show: TypeAlias = Measures | Confusion | Histogram
