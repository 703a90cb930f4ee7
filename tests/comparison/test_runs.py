from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graybox.commands import (
    DiscardSamples,
    EditNeurons,
    Pause,
    RestoreCheckpoint,
    Resume,
    SaveCheckpoint,
    SetHyperParameters,
)
from graybox.comparison.runs import compare, plain
from graybox.neuron_ops import RemoveNeurons
from graybox.store.root import Root
from tests.compared_runs import ask, finished, train, training


def test_a_run_and_itself(root: Path) -> None:
    folder = finished(root, SaveCheckpoint())
    for pair in ((folder, root), (f"{folder}@000001", f"{folder}@000001")):
        found = compare(*map(str, pair))
        assert found.settings == {} and found.interventions == {}
        assert found.structure is not None and not found.structure.differs and found.structure.resized == []
        assert found.moved is not None and found.moved.neurons == [] and not any(found.moved.layers.values())
        assert all(a == b for a, b in found.metrics.values())
        assert all(not each.most_changed and not each.by_class for each in found.samples)


def test_two_runs(root: Path) -> None:
    one = finished(root / "one")
    other = finished(
        root / "other",
        EditNeurons(RemoveNeurons("layers.1", (2,))),
        SetHyperParameters({"learning_rate": 0.25}),
        DiscardSamples((("train", "3"), ("train", "5"))),
        seed=9,
    )
    found = compare(str(root / "one"), str(root / "other"))
    assert (found.a.name, found.b.name) == (one.name, other.name)
    assert found.settings["seed"] == (7, 9) and found.settings["learning_rate"] == (0.01, 0.25)
    assert found.interventions == {"hp_change": (0, 1), "neuron_edit": (0, 1), "sample_discard": (0, 1)}
    assert found.structure is not None and found.structure.built_alike
    assert {e.layer: e.gone for e in found.structure.resized if e.gone} == {"layers.1": [2]}
    assert found.moved is not None and found.moved.neurons
    assert {each.split for each in found.samples} == {"train", "val"}
    train_split = next(each for each in found.samples if each.split == "train")
    assert train_split.discarded.first_b == [3, 5] and train_split.discarded.only_a == 0
    assert found.metrics["train/loss"][0] != found.metrics["train/loss"][1]


def test_two_checkpoints_of_a_run_that_trains_on_and_branches(root: Path) -> None:
    with training(root) as made:
        train(made, 3)
        ask(made, Pause())
        first = ask(made, SaveCheckpoint("first")).value
        ask(made, EditNeurons(RemoveNeurons("layers.1", (1, 3))))
        ask(made, Resume())
        train(made, 3)
        second = ask(made, SaveCheckpoint("second")).value
        ask(made, RestoreCheckpoint(first.id))
        ask(made, Resume())
        train(made, 2)
        found = compare(f"{root}@{first.id}", f"{root}@{second.id}")
        assert (found.a.head()["step"], found.b.head()["step"]) == (first.step, second.step)
        assert found.structure is not None
        assert {e.layer: e.gone for e in found.structure.resized if e.gone} == {"layers.1": [1, 3]}
        again = compare(f"{root}@{first.id}", str(root))
        assert again.structure is not None and not again.structure.differs, "the branch that left at the first one"


def test_moved_neurons_are_those_whose_weights_say_so(root: Path) -> None:
    with training(root) as made:
        train(made, 2)
        ask(made, Pause())
        first = ask(made, SaveCheckpoint()).value
        with torch.no_grad():
            made.experiment.model.get_parameter("head.weight")[1] *= 3
        second = ask(made, SaveCheckpoint()).value
        found = compare(f"{root}@{first.id}", f"{root}@{second.id}")
        assert found.moved is not None and found.moved.neurons[0].layer == "head" and found.moved.neurons[0].a == 1
        assert len(found.moved.neurons) == 1


def test_a_run_without_a_checkpoint(root: Path) -> None:
    finished(root / "one")
    Root(root / "other").create_run("empty")
    found = compare(str(root / "one"), str(root / "other"))
    assert found.structure is found.moved is None
    assert found.to_json()["structure"] is None and found.to_json()["b"]["weights_of_checkpoint"] is None


def test_json_is_strict_and_whole(root: Path) -> None:
    finished(root / "one")
    finished(root / "other", seed=8)
    found = compare(str(root / "one"), str(root / "other")).to_json()
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found
    assert set(found) == {"a", "b", "settings", "structure", "moved", "metrics", "interventions", "samples"}
    val = next(each for each in found["samples"] if each["split"] == "val")
    assert val["accuracy"] == [None, None]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.inf, None),
        ({"a": (1, math.nan), 2: "b"}, {"a": [1, None], "2": "b"}),
        (torch.tensor([1.5, 2.0]), [1.5, 2.0]),
        (np.float32(0.5), 0.5),
        (torch.device("cpu"), "cpu"),
        (True, True),
    ],
)
def test_plain_values(value: Any, expected: Any) -> None:
    assert plain(value) == expected
