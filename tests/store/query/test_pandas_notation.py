from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from graybox.store.query import ColumnTable, QueryError, parse, rows

# Comparisons by != are asked of columns without null only: pandas finds null there, we do not, on purpose.
FULL, GAPPY = ["count", "odd name"], ["loss"]
LITERALS = ["0", "1", "-1", "0.5", "2.5", "1e1"]


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    count = draw(st.integers(0, 10))

    def column(*values: Any) -> list[Any]:
        return draw(st.lists(st.sampled_from(values), min_size=count, max_size=count))

    return pd.DataFrame(
        {
            "loss": np.array(column(0.5, 1.0, np.nan, -1.0, np.inf)),
            "count": np.array(column(0, 1, 2, 10), dtype=np.int64),
            "odd name": np.array(column(0.5, 2.5)),
            "label": np.array(column("cat", "dog", "o'clock"), dtype=object),
            "flag": np.array(column(True, False), dtype=bool),
        }
    )


def reference(name: str) -> st.SearchStrategy[str]:
    ways = [f"df['{name}']", f'df["{name}"]'] + ([f"df.{name}"] if name.isidentifier() and name != "count" else [])
    return st.sampled_from(ways)


full = st.sampled_from(FULL).flatmap(reference)
any_number = st.sampled_from(FULL + GAPPY).flatmap(reference)
label, flag = reference("label"), reference("flag")
orders = st.sampled_from(["<", "<=", ">", ">=", "=="])
literal = st.sampled_from(LITERALS)
strings = st.sampled_from(["'cat'", '"dog"', '"o\'clock"', "''"])


def joined(*parts: Any) -> st.SearchStrategy[str]:
    return st.tuples(*(st.just(part) if isinstance(part, str) else part for part in parts)).map("".join)


def listed(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(items, max_size=3).map(lambda each: f"[{', '.join(each)}]")


comparisons = st.one_of(
    joined(any_number, " ", orders, " ", literal),
    joined(literal, " ", orders, " ", any_number),
    joined(any_number, orders, any_number),
    joined(full, " != ", literal | full),
    joined(label, st.sampled_from([" == ", " != "]), strings),
    joined(label, st.sampled_from([" < ", " >= "]), strings),
    joined(flag, st.sampled_from([" == ", " != "]), st.sampled_from(["True", "False"])),
)
single = st.one_of(
    joined("(", comparisons, ")"),
    joined(any_number, ".isin(", listed(literal), ")"),
    joined(label, ".isin(", listed(strings), ")"),
    joined(any_number, ".between(", literal, ", ", literal, ")"),
    joined(any_number | label, st.sampled_from([".isnull()", ".notnull()"])),
    flag,
)
conditions = comparisons | st.recursive(
    single,
    lambda inner: st.one_of(
        joined("~", inner), joined("(", inner, ")"), joined(inner, " & ", inner), joined(inner, "|", inner)
    ),
    max_leaves=5,
)


@settings(max_examples=250, deadline=None)
@given(frames(), conditions)
def test_a_filter_finds_what_pandas_finds(df: pd.DataFrame, condition: str) -> None:
    text = f"df[{condition}]"
    table = ColumnTable({str(name): df[name].to_numpy() for name in df})
    query = parse(text)
    assert rows(query, table).tolist() == eval(text, {"df": df}).index.tolist()
    assert parse(query.text()) == query
    assert parse(f'@"""{text}"""') == query
    assert parse(f"\n@ “““ {text} ””” ") == query


@settings(max_examples=150, deadline=None)
@given(frames(), st.permutations(["loss", "count", "label", "flag"]), st.integers(1, 4), st.data())
def test_sorting_and_head(df: pd.DataFrame, names: list[str], many: int, data: st.DataObject) -> None:
    by = names[:many]
    up = data.draw(st.lists(st.booleans(), min_size=many, max_size=many))
    count = data.draw(st.integers(0, 12))
    one = data.draw(st.booleans())
    assume(not one or many == 1)
    columns = repr(by[0]) if one else repr(by)
    argument = data.draw(st.sampled_from(["", "by="]))
    text = f"df[df['count'] > 0].sort_values({argument}{columns}, ascending={up}).head({count})"
    if one:
        text = text.replace(f"[{up[0]}]", str(up[0]))
    expected = df[df["count"] > 0].sort_values(by, ascending=up, kind="stable").head(count)
    table = ColumnTable({str(name): df[name].to_numpy() for name in df})
    assert rows(parse(text), table).tolist() == expected.index.tolist()


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("df[df['quality'] > 0.5]", "quality > 0.5"),
        ('@"""df[df[\'quality\'] > 0.5]"""', "quality > 0.5"),
        ("df[df[‘quality’] > 0.5]", "quality > 0.5"),
        ("df[df[“a b”] == ‘it’]", "\"a b\" == 'it'"),
        ("df[df['a'] == 'it’s']", "a == 'it’s'"),
        ('@"""loss > 1 limit 3"""', "loss > 1 limit 3"),
        ("df.sort_values('a')", "sortby a"),
        ("df.head()", "limit 5"),
        ("df.sort_values(['a', 'b'], ascending=False).head(n=3)", "sortby a desc, b desc limit 3"),
        ("df.sort_values(by=['a', 'b'], ascending=[True, False])", "sortby a, b desc"),
        ("df [ ~ ( df . a > 1 ) ] . head ( 2 )", "not a > 1 limit 2"),
        ("df[df.p95 > 1]", '"p95" > 1'),
        ("df[df['limit'] > 1]", '"limit" > 1'),
        ("df[(df.a) > (1)]", None),
        ("df[((df.a > 1))]", "a > 1"),
        ("df[df.a == df.b]", "a == b"),
        ("df[df['a'] == -3]", "a == -3"),
    ],
)
def test_notations(text: str, same: str | None) -> None:
    if same is None:
        with pytest.raises(QueryError):
            parse(text)
    else:
        assert parse(text) == parse(same)


@pytest.mark.parametrize(
    ("text", "position", "problem"),
    [
        ("df[df.loss.mean() > 1]", 11, "'.mean' is not known after a column; there are .isin\\(\\), .isnull\\(\\)"),
        ("df[df.loss.isna()]", 11, "'.isna' is not known after a column"),
        ("df[df.loss.str.len() > 1]", 11, "'.str' is not known after a column"),
        ("df[df.head(3)]", 6, "'.head' cannot be called on df here"),
        ("df.query('x')", 3, "'.query' is not known here; there are .sort_values, .head"),
        ("df[df.a > 1].tail()", 13, "'.tail' is not known here"),
        ("df[df.a > 1].heat()", 13, "'.heat' is not known here; do you mean .head"),
        ("df[df.a > 1].T", 13, "'.T' is not known here"),
        ("df[df.__class__]", 6, "'.__class__' is no column; if it is, write df\\['__class__'\\]"),
        ("df[df.a > 1 & df.b > 2]", 12, "each comparison stands in parentheses"),
        ("df[df.a & df.b > 2]", 15, "each comparison stands in parentheses"),
        ("df[~df.a > 2]", 9, "each comparison stands in parentheses"),
        ("df[(df.a > 1) & 2 < df.b]", 16, "df is expected"),
        ("df[1 < df.a < 3]", 12, "comparisons do not follow one another; write .between\\(a, b\\)"),
        ("df[(df.a > 1) and (df.b > 1)]", 14, "'\\]' is expected after the condition, not 'and'"),
        ("df[not df.a]", 3, "write & \\| and ~ in a table expression, not 'not'"),
        ("df[df.a = 1]", 8, "a comparison such as == or > is expected, not '='"),
        ("df[df.a == None]", 11, "a number, a text in quotes, True or False is expected, not 'None'"),
        ("df[df.a == np.nan]", 11, "is expected, not 'np'"),
        ("df[df.a == 'x\\n']", 13, "no backslash"),
        ("df[df.a == 'x", 11, "the closing ' is missing"),
        ("df[['a', 'b']]", 3, "columns are not chosen by a list of names"),
        ("df[df.a]['b']", 8, "is expected, not '\\['"),
        ("df[df.a.isin((1, 2))]", 13, "'\\[' is expected to begin a list"),
        ("df[df.a.between(1)]", 17, "',' is expected between the bounds"),
        ("df[df.a].head(3).head(2)", 22, "head cannot follow head: head comes once and last"),
        ("df[df.a].head(3).sort_values('a')", 29, "sort_values cannot follow head"),
        ("df[df.a].head(-1)", 14, "head takes a whole number"),
        ("df[df.a].sort_values('a').sort_values('b')", 38, "sort_values comes once"),
        ("df[df.a].sort_values('a', key=abs)", 26, "ascending= is expected, not 'key'"),
        ("df[df.a].sort_values(1)", 21, "sort_values takes the names of columns in quotes"),
        ("df[df.a].sort_values('a', ascending='no')", 36, "ascending is True or False"),
        ("df[df.a].sort_values(['a', 'b'], ascending=[True])", None, None),
        (
            "df[df.a].sort_values(['a', 'b'], ascending=[True, True, False])",
            63,
            "one direction for all or one for each",
        ),
        ("df[df.a].sort_values([])", 24, "sort_values takes 1 to 8 columns"),
        ("df[df.a] show count", 9, "or the end is expected, not 'show'"),
        ('@"""df[df.a > 1]', 16, 'the closing """ is missing'),
        ('@"""  """', 4, "a table expression such as"),
        ("df[" + "(" * 64 + "df.a" + ")" * 64 + "]", 67, "at most 64 deep"),
        ("df[df.a.isin([" + ",".join("1" * 1_001) + "])]", None, "at most 1000 items"),
    ],
)
def test_all_else_is_refused_by_name(text: str, position: int | None, problem: str | None) -> None:
    if problem is None:
        parse(text)
        return
    with pytest.raises(QueryError, match=problem) as caught:
        parse(text)
    assert position is None or caught.value.position == position
