from __future__ import annotations

import re

import pytest

from graybox.comparison.steps import DATA_ORDER, MEANING, OPERATOR, RANDOM_STATE, WEIGHTS, Difference, StepComparison
from graybox.comparison.steps_report import steps_report


def comparison(first: Difference | None, seeds: tuple[int, int] = (7, 7)) -> StepComparison:
    return StepComparison(("one", "other"), 5, (5, 8), (4, 1007), seeds, first)


def difference(kind: str, *also: str, **changes: object) -> Difference:
    values: dict[str, object] = {"tensors": [], "forward": False, "draws": False, "before": 2}
    return Difference(3, kind, [kind, *also], **{**values, **changes})  # type: ignore[arg-type]


def test_no_difference() -> None:
    assert steps_report(comparison(None)) == (
        "A  one: fingerprints of 5 steps, the last of step 4\n"
        "B  other: fingerprints of 8 steps, the last of step 1,007\n"
        "no difference in the 5 steps that both have\n"
    )


def test_seeds_and_all_that_differ() -> None:
    text = steps_report(comparison(difference(DATA_ORDER, RANDOM_STATE), seeds=(7, 8)))
    assert "the runs have other seeds: 7 and 8\n" in text
    assert f"step 3: data order\n  {MEANING[DATA_ORDER]}\n  and random state: {MEANING[RANDOM_STATE]}\n" in text


@pytest.mark.parametrize(
    ("before", "expected"),
    [(2, "at step 2 everything was the same, the gradients too"), (None, "the initialisation, or what came before")],
)
def test_weights(before: int | None, expected: str) -> None:
    told = [("B", 4, "step 3: Removed neuron 2 of conv1")] * 14
    first = difference(WEIGHTS, tensors=["a.weight", "a.bias", "b.weight"], before=before, interventions=told)
    text = steps_report(comparison(first))
    assert "tensors that differ: a (weight, bias), b (weight)\n" in text and expected in text
    assert text.count("only in B: journal entry 4, step 3: Removed neuron 2 of conv1") == 12
    assert "and 2 other interventions" in text


@pytest.mark.parametrize(
    ("forward", "draws", "expected"),
    [
        (True, False, "on the way forward: the loss differs\n"),
        (False, False, "on the way back: the loss is the same\n"),
        (True, True, "on the way forward: the loss differs; other random numbers were drawn\n"),
    ],
)
def test_operators(forward: bool, draws: bool, expected: str) -> None:
    tensors = [f"layer{number}.weight" for number in range(20)]
    text = steps_report(comparison(difference(OPERATOR, forward=forward, draws=draws, tensors=tensors)))
    assert expected in text and re.search(r"gradients that differ: layer0 \(weight\), .* and 8 other modules\n", text)
