"""Questions that people ask about samples, each with its query: what a language model learns the language from, and
what is shown to who asks without one."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from graybox.store.query import Query
from graybox.store.query.tree import And, Comparison, Name, Tagged, Text


class Example(NamedTuple):
    """question: in words. query: the same in the query language; runs on the samples of any run."""

    question: str
    query: str


EXAMPLES = (
    Example("which samples are probably mislabelled, with a wrong label", "aum < p5 sortby aum limit 100"),
    Example("the samples with the highest loss, the worst", "sortby loss desc limit 100"),
    Example("wrong predictions, misclassified samples, mistakes", "not correct"),
    Example("how many samples are there, count them", "show count"),
    Example("accuracy and mean loss of each class", "show count, accuracy, mean(loss) by label"),
    Example("which classes are confused with each other", "show confusion"),
    Example("hard and ambiguous samples, variable", "confidence_std > p90 sortby confidence_std desc"),
    Example("easy samples, learnt early and always right", "confidence_mean > p80 and forgetting == 0"),
    Example("redundant samples that could be left out", "loss < p20 and confidence_mean > p80"),
    Example("forgotten samples, learnt and then unlearnt again", "forgetting >= 3 sortby forgetting desc"),
    Example("samples that were never learnt, never predicted right", "first_learnt is null and encounters > 0"),
    Example("samples that were never seen yet, unseen by the model", "encounters == 0"),
    Example("samples that are discarded, left out, excluded", "discarded"),
    Example("samples in use in training, not discarded", "split == 'train' and not discarded"),
    Example("samples whose label a person corrected, relabelled", "corrected"),
    Example("compare accuracy of training and validation, overfitting", "show accuracy, mean(loss) by split"),
    Example("outliers with a loss far above the mean", "loss > mean(loss) + 3 * std(loss)"),
    Example("how the loss is distributed, a histogram", "show histogram(loss, 20)"),
    Example("a random sample of 50 to look at", "sample 50"),
    Example("a tenth of all training samples at random, ten percent", "split == 'train' sample 10%"),
    Example("confident but wrong, sure of the wrong class", "not correct and confidence < 0.1"),
    Example("undecided between two classes, near the decision boundary, small margin", "abs(margin) < 0.5"),
    Example("how many samples of each class, class balance, imbalance", "show count by label"),
    Example("what is predicted how often, counts of predictions", "show histogram(prediction)"),
    Example("samples without a label, unlabelled", "label is null"),
    Example("samples drawn more often, oversampled, weighted", "weight > 1 sortby weight desc"),
    Example("samples seen most often in training, encounters", "sortby encounters desc limit 100"),
    Example("loss between 0.5 and 1, a range", "loss between 0.5 and 1"),
    Example("samples that the model has not seen for longest, stale", "last_age is not null sortby last_age limit 100"),
    Example("noisy losses that go up and down, unstable", "loss_std > p95 sortby loss_std desc limit 100"),
    Example("median and largest loss of wrong predictions", "not correct show median(loss), max(loss)"),
    Example("which columns are there, what can I ask for, help", "@overview"),
)  # fmt: skip

_WORD = re.compile(r"\w+")


def examples_for(class_names: Sequence[str], tags: Sequence[str]) -> tuple[Example, ...]:
    """All examples, and those that need a class or a tag where the run has one that is plain enough to be shown."""
    found = list(EXAMPLES)
    if class_names and _is_plain(class_names[0]):
        name = class_names[0]
        labelled = Comparison("==", Name("label"), Text(name))
        taken_for = Comparison("==", Name("prediction"), Text(name))
        others = Comparison("!=", Name("label"), Text(name))
        found.append(Example(f"samples of class {name}, labelled as it", Query(where=labelled).text()))
        wrong = Query(where=And((taken_for, others)))
        found.append(Example(f"taken for {name} by mistake, wrongly predicted as it", wrong.text()))
    if tags and _is_plain(tags[0]):
        found.append(Example(f"samples tagged {tags[0]}, with the tag", Query(where=Tagged(tags[0])).text()))
    return tuple(found)


def _is_plain(name: str) -> bool:
    return name.isprintable() and 0 < len(name) <= 60


def nearest_examples(question: str, examples: Sequence[Example], count: int) -> list[Example]:
    """Those whose words are most like the question's, the nearest first; the first ones where none has any of them.

    Likeness is the cosine of the word counts, each times the inverse document frequency log((1 + n) / (1 + df)) + 1 of
    the word (Manning, Raghavan and Schütze, Introduction to Information Retrieval, 2008, chapter 6).
    """
    documents = [_words(f"{each.question} {each.query}") for each in examples]
    spread = Counter(word for document in documents for word in document)
    idf = {word: math.log((1 + len(documents)) / (1 + known)) + 1 for word, known in spread.items()}
    asked = _words(question)

    def likeness(document: Counter[str]) -> float:
        shared = sum(count * document[word] * idf[word] ** 2 for word, count in asked.items() if word in document)
        return shared / math.sqrt(sum((count * idf[word]) ** 2 for word, count in document.items()))

    scores = [likeness(document) for document in documents]
    order = sorted(range(len(examples)), key=lambda number: -scores[number])
    return [examples[number] for number in order[:count]]


def _words(text: str) -> Counter[str]:
    return Counter(_stem(word) for word in _WORD.findall(text.lower()))


def _stem(word: str) -> str:
    """Without the endings by which English words of one stem differ most often."""
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) > len(ending) + 3:
            return word[: -len(ending)]
    return word
