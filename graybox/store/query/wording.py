"""The canonical text of a query's parts: one way to write each, which parses to the same again."""

from __future__ import annotations

import re

from graybox.store.query.tree import (
    DEFAULT_BINS,
    LABEL,
    PREDICTION,
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
    Sample,
    Show,
    SortKey,
    Tagged,
    Tags,
    Text,
    Truth,
)

# How strongly each kind of node holds its parts together; what holds less strongly than its surroundings needs
# parentheses.
OR, AND, NOT, COMPARE, SUM, PRODUCT, SIGN, ATOM = range(1, 9)

WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PERCENTILE = re.compile(r"[pP][0-9]+(?:\.[0-9]+)?")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
RESERVED = frozenset(
    [
        "and",
        "or",
        "not",
        "in",
        "between",
        "is",
        "null",
        "like",
        "true",
        "false",
        "where",
        "sample",
        "sortby",
        "limit",
        "show",
        "by",
        "order",
        "sort",
    ]
)
"""Words that are no bare column name, in any case of letters; in double quotes they are."""


def bare(name: str) -> bool:
    """Whether a column's name needs no quotes."""
    return (
        WORD.fullmatch(name) is not None
        and name.lower() not in RESERVED
        and PERCENTILE.fullmatch(name) is None
        and not name.startswith("__")
    )


def quoted(text: str, quote: str = "'") -> str:
    """In quotes, those in it doubled."""
    return quote + text.replace(quote, quote * 2) + quote


def name_text(name: str) -> str:
    """A column's name, in double quotes if need be."""
    return name if bare(name) else quoted(name, '"')


def percent_text(percent: float) -> str:
    """Without an exponent, which percentages are not written with."""
    text = f"{percent:.10f}".rstrip("0").rstrip(".")
    return text or "0"


def strength(node: Node) -> int:
    """See OR to ATOM."""
    match node:
        case Or():
            return OR
        case And():
            return AND
        case Not():
            return NOT
        case Comparison() | Between() | In() | Like() | IsNull():
            return COMPARE
        case Chain():
            return SUM if node.rest[0][0] in "+-" else PRODUCT
        case Negate():
            return SIGN
        case Number():
            return SIGN if node.value < 0 else ATOM
        case _:
            return ATOM


def node_text(node: Node, above: int = 0) -> str:
    """above: the strength of what surrounds it; in parentheses unless it holds more strongly."""
    text = _value_text(node)
    return text if strength(node) > above else f"({text})"


def _value_text(node: Node) -> str:
    match node:
        case Number():
            return repr(node.value)
        case Text():
            return quoted(node.value)
        case Truth():
            return "true" if node.value else "false"
        case Name():
            return name_text(node.name)
        case Quoted():
            return quoted(node.value, '"')
        case Percentile():
            return f"p{percent_text(node.percent)}"
        case Negate():
            # Without parentheses a number would become a negative number.
            inner = node_text(node.operand, SIGN - 1)
            return f"-({inner})" if isinstance(node.operand, Number) else f"-{inner}"
        case Chain():
            own = strength(node)
            return node_text(node.first, own) + "".join(f" {op} {node_text(part, own)}" for op, part in node.rest)
        case Call():
            return f"{node.function}({', '.join(map(node_text, node.arguments))})"
        case _:
            return _condition_text(node)


def _condition_text(node: Node) -> str:
    negation = "not " if getattr(node, "negated", False) else ""
    match node:
        case Comparison():
            return f"{node_text(node.left, COMPARE)} {node.operator} {_right_text(node.right)}"
        case Between():
            bounds = f"{_right_text(node.low)} and {_right_text(node.high)}"
            return f"{node_text(node.operand, COMPARE)} {negation}between {bounds}"
        case In():
            return f"{node_text(node.operand, COMPARE)} {negation}in ({', '.join(map(node_text, node.items))})"
        case Like():
            return f"{node_text(node.operand, COMPARE)} {negation}like {quoted(node.pattern)}"
        case IsNull():
            return f"{node_text(node.operand, COMPARE)} is {negation}null"
        case Tagged():
            return f"tag:{node.name if TAG.fullmatch(node.name) else quoted(node.name)}"
        case Not():
            return f"not {node_text(node.operand, NOT - 1)}"
        case And():
            return " and ".join(node_text(part, AND) for part in node.parts)
        case Or():
            return " or ".join(node_text(part, OR) for part in node.parts)
        case _:
            raise TypeError(f"{type(node).__name__} is no part of a query")


def _right_text(node: Node) -> str:
    """A column in double quotes is certain to be one only in parentheses: see Quoted."""
    text = node_text(node, COMPARE)
    return f"({text})" if isinstance(node, Name) and not bare(node.name) else text


def sample_text(sample: Sample) -> str:
    """sample 10%, or sample 500."""
    return f"sample {percent_text(sample.amount)}%" if sample.as_percent else f"sample {sample.amount}"


def sort_text(keys: tuple[SortKey, ...]) -> str:
    """sortby and its keys."""
    return "sortby " + ", ".join(node_text(each.key) + (" desc" if each.descending else "") for each in keys)


def measure_text(measure: Measure) -> str:
    """Also the head of its column."""
    if measure.arguments in ((), (Name(LABEL), Name(PREDICTION))):
        return measure.name
    return f"{measure.name}({', '.join(map(node_text, measure.arguments))})"


def show_text(show: Show) -> str:
    """show and what."""
    match show:
        case Measures():
            return f"show {', '.join(map(measure_text, show.measures))}{_by_text(show.by)}"
        case Confusion():
            if (show.truth, show.guess) == (Name(LABEL), Name(PREDICTION)):
                return "show confusion"
            return f"show confusion({node_text(show.truth)}, {node_text(show.guess)})"
        case Histogram():
            bins = "" if show.bins == DEFAULT_BINS else f", {show.bins}"
            return f"show histogram({node_text(show.value)}{bins})"


def _by_text(by: Name | Tags | None) -> str:
    if by is None:
        return ""
    if isinstance(by, Tags):
        return " by tag"
    # A column of that name is told from the tags by its quotes.
    return f" by {quoted(by.name, chr(34)) if by.name.lower() == 'tag' else node_text(by)}"
