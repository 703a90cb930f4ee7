"""Whatever is written is either a tree of the allowed nodes or an error with its place, and soon."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from graybox.store.query import Column, ColumnTable, Kind, Query, QueryError, answer, check, parse, rows, tree
from tests.conftest import REPOSITORY
from tests.store.query.escapes import ESCAPES
from tests.store.query.random_queries import queries

PACKAGE = REPOSITORY / "graybox" / "store" / "query"
SOON = 0.05  # seconds

TABLE = ColumnTable(
    {
        "loss": np.array([0.5, np.nan, 2.0], dtype=np.float32),
        "id": np.arange(3),
        "origin": ["train", None, "a" * 2_000],
        "discarded": np.array([True, False, False]),
        "label": Column("label", Kind.CLASS, np.array([0, 1, -1]), names=("cat", "dog")),
        "prediction": Column("prediction", Kind.CLASS, np.array([0, 0, 1]), names=("cat", "dog")),
    },
    {"hard": np.array([True, False, True])},
)

WORDS = """
loss id origin discarded label prediction los df where and or not in between is null like true false sample
sortby order by sort limit show count mean accuracy confusion histogram quantile abs log sqrt min max median
std asc desc tag tag:hard tag: p95 p5 p101 1 0 -1 0.5 1e308 1e999 .5 10 % 'cat' 'a%' "origin" "x y" '' ( ) [ ]
, + - * / ** // = == != <> < <= > >= & && | || ~ ! . @ @reset @overview @pd ` ; : \\ # $ ? { } df[ df['loss']
df.loss .isin .isnull() .between( .sort_values( .head( ascending=False True False None __class__
__import__('os') lambda x: \x00 \u200b ‘ ’ “ ” ｌｏｓｓ оr ≥ ١ ٪ é
"""
words = st.sampled_from(WORDS.split())
soups = st.lists(words, max_size=25).flatmap(lambda each: st.sampled_from(["", " "]).map(lambda gap: gap.join(each)))


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A query with some characters gone, doubled or exchanged."""
    text = draw(st.one_of(queries.map(Query.text), st.sampled_from(ESCAPES)))
    for _ in range(draw(st.integers(1, 3))):
        at, length = draw(st.integers(0, len(text))), draw(st.integers(0, 3))
        text = text[:at] + draw(words | st.text(max_size=2)) + text[at + length :]
    return text


def seconds(text: str) -> float:
    started = time.process_time()
    with suppress(QueryError):
        parse(text)
    return time.process_time() - started


def check_is_tree(node: Any) -> None:
    """Of the classes in tree.py, numbers and texts; nothing else at any depth."""
    waiting = [node]
    while waiting:
        found = waiting.pop()
        if isinstance(found, tuple):
            waiting += found
        elif is_dataclass(found):
            assert type(found) is Query or type(found).__module__ == tree.__name__
            waiting += [getattr(found, each.name) for each in fields(found)]
        else:
            assert type(found) in (int, float, str, bool, type(None))


def check_harmless(text: str) -> Query | None:
    """Whatever the text is, parsing it and asking it of a table ends in an answer or in a QueryError."""
    # Others use the machine as well, so that the shortest of a few times is the query's own.
    assert any(seconds(text) < SOON for _ in range(5))
    try:
        query = parse(text)
    except QueryError as error:
        assert 0 <= error.position <= len(text)
        assert str(error).startswith(error.problem) and len(str(error)) < 1_000
        assert str(error).isprintable()
        return None
    check_is_tree(query)
    assert parse(query.text()) == query
    try:
        check(query, TABLE)
    except QueryError as error:
        assert 0 <= error.position <= len(text) and len(str(error)) < 1_000
        assert str(error).isprintable()
        return query
    found = rows(query, TABLE)
    if query.show is not None:
        answer(query, TABLE, found)
    return query


@settings(max_examples=250, deadline=None)
@given(st.text(max_size=60) | soups | damaged())
@example("a" * 4_000)
def test_any_text_is_a_query_or_an_error(text: str) -> None:
    check_harmless(text)


@pytest.mark.parametrize("text", ESCAPES, ids=lambda text: ascii(text[:40]))
def test_escapes_are_refused(text: str) -> None:
    query = check_harmless(text)
    if query is not None:  # a tree that no table fits: names that do not exist, or nothing but a name
        with pytest.raises(QueryError):
            check(query, TABLE)


def big_queries() -> list[str]:
    """As long as they may be, and well-formed."""
    return [
        "loss>1&" * 300 + "id>1",
        "loss+" * 560 + "1>1",
        "not(" * 30 + "loss between p5 and p95 and id in [1,2]" + ")" * 30,
        "(loss>1|" * 31 + "id>1" + ")" * 31,
        "-(" * 30 + "loss" + ")" * 30 + " > abs(" + "-(" * 28 + "loss" + ")" * 29,
        "min(loss,max(id," * 14 + "1" + "))" * 14 + " > 1",
        "id in (" + ",".join("1" * 1_000) + ")",
        "origin in (" + ",".join(f"'{number}'" for number in range(500)) + ")",
        "df[" + "(df.loss>1)|" * 250 + "df.discarded]",
        "df[" + "~(" * 30 + "df.loss>1" + ")" * 30 + "]",
        "loss > quantile(" * 1 + "abs(" * 50 + "loss" + ")" * 50 + ",0.5)",
    ]


@pytest.mark.parametrize("text", big_queries(), ids=lambda text: text[:20])
def test_the_largest_queries_work(text: str) -> None:
    query = check_harmless(text)
    assert query is not None
    check(query, TABLE)
    assert hash(query) == hash(parse(query.text()))


def test_deep_queries_leave_room_on_the_stack() -> None:
    """They are as deep as they may be, and are asked from far within a program."""

    def further_in(levels: int) -> None:
        if levels:
            further_in(levels - 1)
        else:
            for text in big_queries():
                check_harmless(text)

    further_in(sys.getrecursionlimit() // 4)


def test_nothing_in_the_package_runs_text() -> None:
    """No call of what runs code, and no attribute by a name that is not written there."""
    for path in sorted(PACKAGE.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name.split(".")[-1] not in {
                    "eval",
                    "exec",
                    "__import__",
                    "query_frame",
                    "literal_eval",
                    "globals",
                }
                assert name not in {"compile", "setattr", "vars"}
                if name == "getattr":
                    assert isinstance(node.args[1], ast.Constant)
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [node.module] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
                assert not {str(module).split(".")[0] for module in modules} & {
                    "ast",
                    "pandas",
                    "importlib",
                    "pickle",
                    "os",
                }


def test_the_package_loads_neither_torch_nor_pandas() -> None:
    script = "import sys, graybox.store.query; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"torch", "pandas", "grpc", "dash"} & {name.partition(".")[0] for name in done.stdout.split()} == set()
    assert {path.stem for path in Path(PACKAGE).glob("*.py")} >= {"parsing", "tree"}
