from __future__ import annotations

import numpy as np
import pytest

from graybox.service.example_queries import EXAMPLES, examples_for, nearest_examples
from graybox.store.query import answer, check, parse, rows
from graybox.store.sample_columns import SplitColumns
from graybox.store.sample_table import SampleTable


def table(class_names: tuple[str, ...] = (), tag: str = "") -> SampleTable:
    train = SplitColumns("train", 30, labels=np.arange(30) % 3)
    train.record(np.arange(20), np.linspace(0, 1, 20, dtype=np.float32), np.arange(20) % 2, 20)
    if tag:
        train.notes.tag(tag, np.array([1, 2]), True)
    return SampleTable([train, SplitColumns("val", 5)], class_names)


@pytest.mark.parametrize(
    ("class_names", "tag"),
    [((), ""), (("it's", "dog"), "two words"), (("\x07", "dog"), ""), (("x" * 300,), "limit"), (("", "a"), "p95")],
)
def test_every_example_runs_on_any_run(class_names: tuple[str, ...], tag: str) -> None:
    samples = table(class_names, tag)
    examples = examples_for(class_names, samples.tags())
    assert len(examples) >= len(EXAMPLES) >= 30
    assert len({each.query for each in examples}) == len(examples)
    for each in examples:
        query = parse(each.query)
        check(query, samples)
        if not query.command:
            found = rows(query, samples)
            assert query.show is None or answer(query, samples, found).lines


def test_a_class_and_a_tag_of_the_run_are_in_examples() -> None:
    samples = table(("it's", "dog"), "two words")
    queries = [each.query for each in examples_for(samples.class_names, samples.tags())]
    assert {"label == 'it''s'", "tag:'two words'"} <= set(queries)


@pytest.mark.parametrize("example", EXAMPLES)
def test_its_own_question_finds_an_example_first(example: tuple[str, str]) -> None:
    found = nearest_examples(example[0], EXAMPLES, 3)
    assert found[0] == example and len(found) == 3


@pytest.mark.parametrize(
    ("question", "query"),
    [
        ("Which samples have WRONG labels?", "aum < p5 sortby aum limit 100"),
        ("show me the confusion between classes", "show confusion"),
        ("how many are discarded", "discarded"),
        ("what was forgotten most often?", "forgetting >= 3 sortby forgetting desc"),
        ("a random sample please", "sample 50"),
    ],
)
def test_a_question_in_other_words_finds_its_example(question: str, query: str) -> None:
    assert query in [each.query for each in nearest_examples(question, EXAMPLES, 3)]


def test_a_question_without_a_known_word_gets_the_first_ones() -> None:
    assert nearest_examples("žluťoučký kůň", EXAMPLES, 4) == list(EXAMPLES[:4])
    assert nearest_examples("", EXAMPLES, 2) == list(EXAMPLES[:2])
