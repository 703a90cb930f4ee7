"""Random trees that fit the random tables."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from graybox.store.query import Query
from graybox.store.query.tree import (
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
    Not,
    Number,
    Or,
    Percentile,
    Quoted,
    Sample,
    SortKey,
    Tagged,
    Tags,
    Text,
    Truth,
)
from tests.store.query.random_tables import (
    BOOLS,
    CLASS_COLUMNS,
    CLASSES,
    COLUMNS,
    NUMBERS,
    OTHER_CLASSES,
    TAGS,
    TEXT_COLUMNS,
    TEXTS,
)

EQUALITY = ["==", "!="]
OPERATORS = [*EQUALITY, "<", "<=", ">", ">="]
PATTERNS = ["%", "tr%", "%AI%", "_al", "%", "", "a\\%b", "a%b", "%r_n", "GR%e", "%'%", "____n", "%a%i%"]


def names(choice: tuple[str, ...]) -> st.SearchStrategy[Name]:
    return st.builds(Name, st.sampled_from(choice))


literals = st.builds(Number, st.sampled_from([0, 1, 3, -1, 2, 0.1, 0.5, -1.25, 255, 300, 1e300, 2**63, 0.30000001]))
shares = st.builds(Number, st.sampled_from([0, 0.25, 0.5, 0.9, 1]))
number_columns = names(NUMBERS)


def _calculated(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def chain(operators: str) -> st.SearchStrategy[Any]:
        rest = st.lists(st.tuples(st.sampled_from(operators), inner), min_size=1, max_size=2).map(tuple)
        return st.builds(Chain, inner, rest)

    one = st.tuples(inner)
    return st.one_of(
        st.builds(Negate, inner),
        chain("+-"),
        chain("*/%"),
        st.builds(Call, st.sampled_from(["abs", "log", "sqrt", "min", "max", "mean", "median", "std"]), one),
        st.builds(Call, st.just("mean"), st.tuples(names(BOOLS))),
        st.builds(Call, st.sampled_from(["min", "max"]), st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(Call, st.just("quantile"), st.tuples(inner, shares)),
    )


numbers = st.recursive(number_columns | literals, _calculated, max_leaves=4)
with_a_column = number_columns | st.builds(
    lambda column, number, operator: Chain(column, ((operator, number),)),
    number_columns,
    numbers,
    st.sampled_from("+-*/%"),
)
percentiles = st.builds(Percentile, st.sampled_from([0.0, 5.0, 50.0, 95.0, 99.5, 100.0]))
booleans = names(BOOLS) | st.builds(Truth, st.booleans())
texts = st.builds(Text, st.sampled_from([*TEXTS, "other", "m"]))
text_columns, class_columns = names(TEXT_COLUMNS), names(CLASS_COLUMNS)


def class_name(column: str) -> st.SearchStrategy[Text]:
    return st.builds(Text, st.sampled_from(OTHER_CLASSES if column == "species" else CLASSES))


@st.composite
def class_tests(draw: st.DrawFn) -> Any:
    column = draw(class_columns)
    name, number = class_name(column.name), st.builds(Number, st.sampled_from([0, 1, 2.5, 3, 99]))
    return draw(
        st.one_of(
            st.builds(Comparison, st.sampled_from(EQUALITY), st.just(column), name | class_columns | text_columns),
            st.builds(Comparison, st.sampled_from(OPERATORS), st.just(column), number | number_columns),
            st.builds(Comparison, st.sampled_from(OPERATORS), number, st.just(column)),
            st.builds(In, st.just(column), st.lists(name | number, max_size=3).map(tuple), st.booleans()),
            st.builds(Between, st.just(column), number, number, st.booleans()),
            st.builds(Like, st.just(column), st.sampled_from(["%o%", "c_t", "DOG"]), st.booleans()),
        )
    )


tests = st.one_of(
    st.builds(Comparison, st.sampled_from(OPERATORS), numbers, numbers),
    st.builds(Comparison, st.sampled_from(OPERATORS), with_a_column, percentiles),
    st.builds(Comparison, st.sampled_from(OPERATORS), percentiles, with_a_column),
    st.builds(Between, with_a_column, numbers | percentiles, numbers | percentiles, st.booleans()),
    st.builds(In, with_a_column, st.lists(literals, max_size=4).map(tuple), st.booleans()),
    st.builds(In, number_columns, st.lists(literals, min_size=9, max_size=12).map(tuple), st.booleans()),
    st.builds(Comparison, st.sampled_from(EQUALITY), booleans, booleans),
    st.builds(In, names(BOOLS), st.lists(st.builds(Truth, st.booleans()), max_size=2).map(tuple), st.booleans()),
    st.builds(Comparison, st.sampled_from(OPERATORS), text_columns, texts | text_columns),
    st.builds(Comparison, st.sampled_from(OPERATORS), texts, text_columns),
    st.builds(
        Comparison, st.sampled_from(OPERATORS), text_columns, st.builds(Quoted, st.sampled_from(["val", "other"]))
    ),
    st.builds(In, text_columns, st.lists(texts, max_size=3).map(tuple), st.booleans()),
    st.builds(Like, text_columns, st.sampled_from(PATTERNS), st.booleans()),
    st.builds(Between, text_columns, texts, texts, st.booleans()),
    st.builds(IsNull, names(COLUMNS) | with_a_column, st.booleans()),
    st.builds(Tagged, st.sampled_from(TAGS)),
    names(BOOLS),
    st.builds(Truth, st.booleans()),
    class_tests(),
)


def _joined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    parts = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.builds(And, parts) | st.builds(Or, parts) | st.builds(Not, inner)


conditions = st.recursive(tests, _joined, max_leaves=5)
samples = st.builds(Sample, st.integers(0, 14)) | st.builds(
    Sample, st.sampled_from([0.0, 10.0, 33.3, 50.0, 100.0]), st.just(True)
)
sort_keys = st.builds(SortKey, names(COLUMNS) | with_a_column, st.booleans())
measures = st.one_of(
    st.just(Measure("count")),
    st.builds(Measure, st.just("accuracy"), st.tuples(class_columns, class_columns)),
    st.builds(Measure, st.sampled_from(["min", "max", "mean", "median", "std"]), st.tuples(numbers)),
    st.builds(Measure, st.just("mean"), st.tuples(names(BOOLS))),
    st.builds(Measure, st.just("quantile"), st.tuples(numbers, shares)),
)
shows = st.one_of(
    st.builds(
        Measures, st.lists(measures, min_size=1, max_size=3).map(tuple), st.none() | names(COLUMNS) | st.just(Tags())
    ),
    st.builds(Confusion, class_columns, class_columns),
    st.builds(Histogram, names(COLUMNS) | with_a_column, st.integers(1, 30)),
)
queries = st.builds(
    Query,
    st.none() | conditions,
    st.none() | samples,
    st.lists(sort_keys, max_size=3).map(tuple),
    st.none() | st.integers(0, 15),
    st.none() | shows,
)
