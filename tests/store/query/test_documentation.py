"""What docs/queries.md shows can be written, and its code does what it says."""

from __future__ import annotations

import re
from typing import Any

import pytest

from graybox.store.query import QueryError, parse
from graybox.store.query.tree import FUNCTIONS
from graybox.store.query.wording import RESERVED
from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "docs" / "queries.md").read_text(encoding="utf-8")
BEFORE_GRAMMAR = TEXT.partition("## Grammar")[0]
CONDITIONS = BEFORE_GRAMMAR.partition("## Conditions")[2].partition("**Texts and names.**")[0]


@pytest.mark.parametrize("line", re.findall(r"^    (\S.*)$", BEFORE_GRAMMAR, re.MULTILINE))
def test_example_lines_parse(line: str) -> None:
    assert parse(parse(line).text()) == parse(line)


def examples() -> list[str]:
    """The right half of the table of conditions."""
    cells = [re.split(r"(?<!\\)\|", row)[2] for row in CONDITIONS.splitlines() if row.startswith("| ")]
    return [example for cell in cells for example in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("example", examples())
def test_examples_of_conditions_parse(example: str) -> None:
    assert parse(example).where is not None


def test_the_code_does_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["found"].tolist() == [1, 0] and "array([1, 0])" in code
    assert capsys.readouterr().out.splitlines() == [
        "mean(loss) by label, of 2 rows",
        "label  mean(loss)",
        *CATS_AND_DOGS,
    ]


CATS_AND_DOGS = ["cat           0.5", "dog             2"]


def test_all_words_are_told() -> None:
    grammar = TEXT.partition("## Grammar")[2]
    assert {word for word in RESERVED if f'"{word}"' not in grammar} == set()
    assert {name for name in FUNCTIONS if f"{name}(" not in BEFORE_GRAMMAR} == set()


@pytest.mark.parametrize("text", ["p95 * 2 > loss", "loss > 1 ? 2"])
def test_what_is_said_not_to_work_does_not(text: str) -> None:
    with pytest.raises(QueryError):
        parse(text)
