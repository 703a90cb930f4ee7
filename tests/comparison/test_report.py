from __future__ import annotations

import re
from dataclasses import replace

import pytest

from graybox.commands import DiscardSamples, EditNeurons, SetHyperParameters
from graybox.comparison.report import report
from graybox.comparison.runs import Comparison, compare
from graybox.comparison.samples import SplitDifference
from graybox.neuron_ops import AddNeurons, Freeze, RemoveNeurons
from tests.compared_runs import finished


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    root = tmp_path_factory.mktemp("runs")
    finished(root / "one")
    finished(
        root / "other",
        EditNeurons(RemoveNeurons("layers.1", (2,))),
        EditNeurons(AddNeurons("layers.0", count=2)),
        EditNeurons(Freeze("back", (1,))),
        SetHyperParameters({"learning_rate": 0.25}),
        DiscardSamples((("train", "3"), ("train", "5"))),
    )
    return compare(str(root / "one"), str(root / "other"))


def test_everything_that_differs_is_in_it(found: Comparison) -> None:
    text = report(found)
    assert text.endswith("\n") and "\n\n\n" not in text
    assert f"A  {found.a.name} (experiment): ended, step 3" in text
    for line in (
        "learning_rate: 0.01 -> 0.25",
        "neuron_edit: 0 in A, 3 in B",
        "layers.1: 5 -> 4 neurons; gone (numbers in A): 2; 6 -> 8 incoming",
        "layers.0: 6 -> 8 neurons; new (numbers in B): 6, 7",
        "discarded in B only: 2 samples (3, 5)",
    ):
        assert f"  {line}\n" in text, line
    assert re.search(r"back: 6 -> 8 neurons; .*; 0 -> 1 frozen\n", text)
    assert found.moved is not None and f"    {found.moved.neurons[0].layer} " in text
    assert re.search(r"train/loss: [\d.e-]+ -> [\d.e-]+ \([+-][\d.e-]+\)\n", text)
    titles = ["Hyper-parameters", "Interventions", "Structure", "Weights", "Metrics", "Samples of train"]
    assert [text.index(f"\n{title}\n") for title in titles] == sorted(text.index(f"\n{title}\n") for title in titles)


def test_what_does_not_differ_says_so(found: Comparison) -> None:
    text = report(replace(found, settings={}, interventions={}, samples=[SplitDifference("val", True, (20, 20))]))
    assert "Hyper-parameters\n  no difference\n" in text and "Interventions\n  no difference\n" in text
    assert "Samples of val\n  no difference\n" in text


def test_what_is_not_known_says_so(found: Comparison) -> None:
    text = report(replace(found, structure=None, moved=None, samples=[SplitDifference("train", False, (5, 1000))]))
    assert "Structure\n  unknown: one of the two has no checkpoint yet\n" in text
    assert "the data sets are not the same (5 and 1,000 samples)" in text


def test_classes_have_their_names(found: Comparison) -> None:
    named = replace(found, b=replace(found.b, record={**found.b.record, "class_names": ["cat", "dog", "owl"]}))
    text = report(named)
    (split,) = [each for each in found.samples if each.split == "train"]
    most = split.most_changed[0]
    assert f"    {most.sample} ({['cat', 'dog', 'owl'][most.label]}): loss " in text and "class 1" not in text


def test_long_lists_are_cut_and_counted(found: Comparison) -> None:
    assert found.structure is not None
    long = replace(found.structure.resized[0], gone=list(range(50)))
    text = report(replace(found, structure=replace(found.structure, resized=[long])))
    assert "gone (numbers in A): " + ", ".join(map(str, range(20))) + " and 30 others" in text
