from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from graybox.errors import Invalid
from graybox.store.query import Query, QueryError, parse
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
from tests.store.query.random_queries import queries

a, b, c = Name("a"), Name("b"), Name("c")
one, two = Number(1), Number(2)


def is_one(column: Name) -> Comparison:
    return Comparison("==", column, one)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a = 1", is_one(a)),
        ("a == 1", is_one(a)),
        ("where a == 1", is_one(a)),
        ("a <> 1", Comparison("!=", a, one)),
        ("a != 1", Comparison("!=", a, one)),
        ("1 <= a", Comparison("<=", one, a)),
        ("a=1 or b=1 and c=1", Or((is_one(a), And((is_one(b), is_one(c)))))),
        ("a=1 | b=1 & c=1", Or((is_one(a), And((is_one(b), is_one(c)))))),
        ("a=1 || b=1 && c=1", Or((is_one(a), And((is_one(b), is_one(c)))))),
        ("(a=1 or b=1) and c=1", And((Or((is_one(a), is_one(b))), is_one(c)))),
        ("a=1 and (b=1 and c=1)", And((is_one(a), And((is_one(b), is_one(c)))))),
        ("a and b AND c", And((a, b, c))),
        ("not a = 1 and b", And((Not(is_one(a)), b))),
        ("~a = 1 & !b", And((Not(is_one(a)), Not(b)))),
        ("not not a", Not(Not(a))),
        ("not (a or b)", Not(Or((a, b)))),
        ("a + b * 2 - -1 > 1", Comparison(">", Chain(a, (("+", Chain(b, (("*", two),))), ("-", Number(-1)))), one)),
        ("(a + b) * 2 > 1", Comparison(">", Chain(Chain(a, (("+", b),)), (("*", two),)), one)),
        ("a - (b - c) > 1", Comparison(">", Chain(a, (("-", Chain(b, (("-", c),))),)), one)),
        ("-a * b > 1", Comparison(">", Chain(Negate(a), (("*", b),)), one)),
        ("-(1) < a", Comparison("<", Negate(one), a)),
        ("+a > +1", Comparison(">", a, one)),
        ("a in (1, -2, 'x', \"y\", true)", In(a, (one, Number(-2), Text("x"), Text("y"), Truth(True)))),
        ("a IN [1]", In(a, (one,))),
        ("a in ()", In(a, ())),
        ("a not in (1)", In(a, (one,), negated=True)),
        ("not a in (1)", Not(In(a, (one,)))),
        ("a between 1 and 2 and b", And((Between(a, one, two), b))),
        ("a not between 1 and 2 or b", Or((Between(a, one, two, negated=True), b))),
        ("a between p5 and p99.5", Between(a, Percentile(5.0), Percentile(99.5))),
        ("a is null or b IS NOT NULL", Or((IsNull(a), IsNull(b, negated=True)))),
        ("a like 'x%'", Like(a, "x%")),
        ('a not like "x%"', Like(a, "x%", negated=True)),
        ("tag:hard and TAG : 'two words'", And((Tagged("hard"), Tagged("two words")))),
        ("tag:2024-05.b", Tagged("2024-05.b")),
        ("tag == 'x'", Comparison("==", Name("tag"), Text("x"))),
        ("a > p95", Comparison(">", a, Percentile(95.0))),
        ("P0.5 > a", Comparison(">", Percentile(0.5), a)),
        ("p95_loss > p95", Comparison(">", Name("p95_loss"), Percentile(95.0))),
        ('"p95" > 1', Comparison(">", Name("p95"), one)),
        ('"two words" = "it\'s"', Comparison("==", Name("two words"), Quoted("it's"))),
        ('a = ("b c")', Comparison("==", a, Name("b c"))),
        ('a = "b c" + 1', Comparison("==", a, Chain(Name("b c"), (("+", one),)))),
        ("a = 'it''s'", Comparison("==", a, Text("it's"))),
        ('"say ""hi""" = 1', Comparison("==", Name('say "hi"'), one)),
        ("a = ''", Comparison("==", a, Text(""))),
        ("a == TRUE", Comparison("==", a, Truth(True))),
        ("ABS(a) > quantile(a, 0.95)", Comparison(">", Call("abs", (a,)), Call("quantile", (a, Number(0.95))))),
        ("min(a, b, 1) > min(a)", Comparison(">", Call("min", (a, b, one)), Call("min", (a,)))),
        ("mean > 1", Comparison(">", Name("mean"), one)),
        ("order > 1 and sort = 1", And((Comparison(">", Name("order"), one), Comparison("==", Name("sort"), one)))),
        ("a > .5e+1", Comparison(">", a, Number(5.0))),
        ("a > 9007199254740993", Comparison(">", a, Number(2**53 + 1))),
        (f"a > {10**25}", Comparison(">", a, Number(1e25))),
        ("a\n>\t1", Comparison(">", a, one)),
    ],
)
def test_conditions(text: str, tree: Any) -> None:
    found = parse(text)
    assert found == Query(tree)
    assert repr(found) == repr(Query(tree))  # equal numbers of the same type
    assert parse(found.text()) == found


label, prediction = Name("label"), Name("prediction")


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("", Query()),
        ("  ", Query()),
        ("@reset", Query(command="reset")),
        (" @OverView\n", Query(command="overview")),
        ("a limit 3", Query(a, limit=3)),
        ("sortby a desc, b asc, -c LIMIT 0", Query(sort=(SortKey(a, True), SortKey(b), SortKey(Negate(c))), limit=0)),
        ("order by a", Query(sort=(SortKey(a),))),
        ("Sort By desc desc", Query(sort=(SortKey(Name("desc"), True),))),
        ("sample 10%", Query(sample=Sample(10.0, as_percent=True))),
        ("a sample 500 sortby b", Query(a, Sample(500), (SortKey(b),))),
        ("show count", Query(show=Measures((Measure("count"),)))),
        ("show count by tag", Query(show=Measures((Measure("count"),), Tags()))),
        ('show count by "tag"', Query(show=Measures((Measure("count"),), Name("tag")))),
        (
            "a show mean(b + 1), accuracy, quantile(b, 0.5) by label",
            Query(
                a,
                show=Measures(
                    (
                        Measure("mean", (Chain(b, (("+", one),)),)),
                        Measure("accuracy", (label, prediction)),
                        Measure("quantile", (b, Number(0.5))),
                    ),
                    label,
                ),
            ),
        ),
        ("show accuracy(a, b)", Query(show=Measures((Measure("accuracy", (a, b)),)))),
        ("show confusion", Query(show=Confusion(label, prediction))),
        ('show confusion(a, "b c")', Query(show=Confusion(a, Name("b c")))),
        ("show histogram(log(a), 7)", Query(show=Histogram(Call("log", (a,)), 7))),
        ("show histogram(a)", Query(show=Histogram(a, 20))),
    ],
)
def test_clauses(text: str, query: Query) -> None:
    assert parse(text) == query
    assert parse(query.text()) == query


def test_canonical_text() -> None:
    text = " where ( A=1 AND not(b<>'x')) or ~(c&d) Order By a DESC ,b asc LIMIT 3 Show COUNT , Mean( a ) BY label"
    assert parse(text).text() == (
        "A == 1 and not b != 'x' or not (c and d) sortby a desc, b limit 3 show count, mean(a) by label"
    )


@settings(max_examples=250, deadline=None)
@given(queries)
def test_the_canonical_text_of_any_query_parses_to_it(query: Query) -> None:
    found = parse(query.text())
    assert found == query
    assert repr(found) == repr(query)
    assert found.text() == query.text()
    assert hash(found) == hash(query)


@pytest.mark.parametrize(
    ("text", "position", "problem"),
    [
        ("loss >", 6, "a column, number, text or condition is expected, not the end"),
        ("> 1", 0, "not '>'"),
        ("loss > 1 and", 12, "not the end"),
        ("where", 5, "not the end"),
        ("where limit 3", 6, "not 'limit'; a column of that name stands in double quotes"),
        ("(loss > 1", 9, "'\\)' is expected to close the parenthesis, not the end"),
        ("loss > 1)", 8, "an operator or sample or sortby or limit or show or the end is expected, not '\\)'"),
        ("loss > 1 foo", 9, "not 'foo'"),
        ("sortby loss foo", 12, "limit or show or the end is expected, not 'foo'"),
        ("1 < loss < 2", 9, "comparisons do not follow one another: write a < b and b < c"),
        ("loss > 1 in (2)", 9, "comparisons do not follow one another"),
        ("loss === 1", 7, "not '='"),
        ("(loss > 1) + 2 > 1", 6, "a column, number or text is expected here, not a condition"),
        ("loss > (a = 1)", 10, "expected here, not a condition"),
        ("1 and loss", 0, "a condition such as x > 1 is expected, not the number 1"),
        ("'x' or loss", 0, "a condition such as x > 1 is expected, not the text 'x'"),
        ("loss + 1", 5, "a condition such as x > 1 is expected, not a value"),
        ("loss > not 1", 7, "'not' stands in front of a condition"),
        ("loss not > 1", 5, "an operator or .* is expected, not 'not'"),
        ("loss = null", 7, "null equals nothing: 'is null' and 'is not null' find it"),
        ("loss is 3", 8, "'null' is expected after 'is', not 3"),
        ("loss in 3", 8, "a list is expected after 'in'"),
        ("loss in (1", 10, "',' is expected between the items of a list, or '\\)' after them, not the end"),
        ("loss in (1 2)", 11, "',' is expected between the items"),
        ("loss in (1, cat)", 12, "not 'cat'; a text stands in single quotes: 'cat'"),
        ("loss in (null)", 9, "null is in no list"),
        ("loss between 1 or 2", 15, "'and' is expected, as in between 1 and 2, not 'or'"),
        ("loss like 3", 10, "a text is expected after 'like'"),
        ("tag:", 4, "a tag's name is expected after tag:"),
        ("tag:''", 4, "a tag's name is expected after tag:"),
        ("tag:%", 4, "a tag's name is expected after tag:"),
        ("loss > p95 * 2", 7, "stands alone on one side of a comparison"),
        ("abs(p95) > 1", 4, "stands alone on one side of a comparison"),
        ("p95", 0, "a condition such as x > 1 is expected, not a quantile"),
        ("p95 > p5", 6, "a quantile such as p95 is compared with a column"),
        ("p95 between 1 and 2", 0, "stands alone"),
        ("loss in (p95)", 9, "a number or a text is expected in a list"),
        ("sortby p95", 7, "stands alone"),
        ("loss > p101", 7, "p101 is no quantile: they go from p0 to p100"),
        ("loss > p1.23456789012", 7, "at most 10 digits after the point"),
        ("quantile(loss) > 1", 0, "quantile takes 2 arguments, not 1"),
        ("quantile(loss, 95) > 1", 15, "a number from 0 to 1"),
        ("quantile(loss, a) > 1", 15, "a number from 0 to 1"),
        ("abs() > 1", 0, "abs takes 1 argument, not 0"),
        ("abs(a, b) > 1", 7, "abs takes 1 argument"),
        ("max(a,a,a,a,a,a,a,a,a) > 1", 20, "max takes 1 to 8 arguments"),
        ("meen(loss) > 1", 0, "there is no function 'meen'; do you mean mean"),
        ("loss > 'abc", 7, "the closing ' is missing"),
        ('"loss > 1', 0, 'the closing " is missing'),
        ("loss > 1abc", 7, "a number consists of digits, a point and e"),
        ("loss > 1.2.3", 7, "a number consists of"),
        ("loss > 1_000", 7, "a number consists of"),
        ("loss > 0x10", 7, "a number consists of"),
        ("loss > 1e999", 7, "a number is at most 1.7e308"),
        ("loss > 1; limit 3", 8, "one query at a time"),
        ("limit 3 sortby loss", 8, "sortby comes before limit: the order is where, sample, sortby, limit, show"),
        ("limit 3 limit 4", 8, "limit comes once"),
        ("sortby a order by b", 9, "sortby comes once"),
        ("limit -3", 6, "limit takes a whole number from 0"),
        ("limit 1.5", 6, "limit takes a whole number"),
        ("limit 99999999999999999", 6, "limit takes a whole number from 0 to 9007199254740992"),
        ("sample", 6, "sample takes a number of rows or a percentage"),
        ("sample 0.5", 7, "sample takes a whole number"),
        ("sample 101%", 7, "from 0% to 100%"),
        ("sortby", 6, "not the end"),
        ("sortby a,a,a,a,a,a,a,a,a", 23, "sortby takes at most 8 keys"),
        ("show", 4, "show takes count, accuracy, an aggregate"),
        ("show cuont", 5, "not 'cuont'; do you mean count"),
        ("show mean", 9, "a column is expected, as in mean\\(loss\\)"),
        ("show min(a, b)", 5, "show min takes one argument"),
        ("show abs(a)", 5, "show takes count"),
        ("show count, confusion", 12, "confusion is shown alone"),
        ("show confusion(a)", 16, "',' is expected between the two columns of confusion"),
        ("show confusion by label", 15, "the end is expected, not 'by'"),
        ("show histogram(a, 201)", 18, "the bins of a histogram are a whole number from 1 to 200"),
        ("show histogram", 14, "'\\(' is expected after histogram"),
        ("show count by 3", 14, "a column's name is expected"),
        ("show " + "count," * 16 + "count", 101, "show takes at most 16 measures"),
        ("@reset now", 6, "@reset stands alone"),
        ("@rest", 0, "there is no command @rest; do you mean @reset"),
        ("loss > 1 @reset", 9, "@ has no meaning here"),
    ],
)
def test_errors_say_what_and_where(text: str, position: int, problem: str) -> None:
    with pytest.raises(QueryError, match=problem) as caught:
        parse(text)
    error = caught.value
    assert error.position == position
    assert error.excerpt == text[position : position + 24]
    assert f"(at character {position + 1}" in str(error)
    assert error.details == {"problem": error.problem, "position": position}
    assert isinstance(error, Invalid)


def test_an_error_without_a_text_names_no_place() -> None:
    assert str(QueryError("wrong")) == "wrong"
    assert str(QueryError("wrong", 3, "abcd")) == "wrong (at character 4: 'd')"
    assert str(QueryError("wrong", 4, "abcd")) == "wrong (at character 5, where the query ends)"


@pytest.mark.parametrize(
    ("fits", "beyond", "number"),
    [
        ("a" + " " * 3_999, "a" + " " * 4_000, "4000 characters"),
        ("(" * 63 + "a" + ")" * 63, "(" * 64 + "a" + ")" * 64, "at most 64 deep"),
        ("not " * 63 + "a", "not " * 64 + "a", "at most 64 deep"),
        ("-" * 61 + "a > 1", "-" * 64 + "a > 1", "at most 64 deep"),
        ("abs(" * 60 + "a" + ")" * 60 + " > 1", "abs(" * 64 + "a" + ")" * 64 + " > 1", "at most 64 deep"),
        ("a in (" + ",".join("1" * 1_000) + ")", "a in (" + ",".join("1" * 1_001) + ")", "at most 1000 items"),
        (f"a like '{'%' * 256}'", f"a like '{'%' * 257}'", "at most 256 characters, this one has 257"),
        ("a" + "|a" * 799, "a" + "|a" * 1_999, "4000 characters, written out in full this one has 9996"),
    ],
)
def test_limits_are_refused_with_their_number(fits: str, beyond: str, number: str) -> None:
    found = parse(fits)
    assert parse(found.text()) == found
    with pytest.raises(QueryError, match=number):
        parse(beyond)
