from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from graybox.commands import (
    EditNeurons,
    Pause,
    RestoreCheckpoint,
    Resume,
    SaveCheckpoint,
    SetHyperParameters,
)
from graybox.comparison.steps import (
    DATA_CONTENT,
    DATA_ORDER,
    MEANING,
    OPERATOR,
    RANDOM_STATE,
    WEIGHTS,
    compare_steps,
    first_difference,
    kinds_of_difference,
    layers_of,
    only_one_has,
)
from graybox.errors import NotFound
from graybox.fingerprints import VARIABLE
from graybox.launch import Training
from graybox.neuron_ops import RemoveNeurons
from graybox.store.fingerprint_log import FILE_NAME, StepFingerprint, read_fingerprints
from graybox.store.journal import JournalEntry
from tests.compared_runs import Plain, ask, finished, train, training
from tests.small_experiments import crash

UNSEEDED = np.random.default_rng()
"""A source of its own, which nobody seeds."""


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv(VARIABLE, "1")
    return monkeypatch


class TurnedBack(torch.autograd.Function):
    """Does nothing on the way forward, and adds noise on the way back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] + float(UNSEEDED.normal())


class Noisy(Plain):
    """From some pass on: "forward" has noise in its answer, "backward" in a gradient, "draws" takes a random number."""

    def __init__(self, how: str = "", after: int = 10**9) -> None:
        super().__init__()
        self.how, self.after, self.passes = how, after, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and x.device.type != "meta":
            self.passes += 1
        noisy = self.training and self.passes > self.after
        if noisy and self.how == "backward":
            hidden = torch.relu(self.layers[0](x))
            hidden = TurnedBack.apply(hidden)
            hidden = hidden + self.back(torch.relu(self.norm(self.layers[1](hidden))))
            answer: torch.Tensor = self.head(torch.max_pool2d(torch.relu(hidden), 2).flatten(1))
            return answer
        answer = super().forward(x)
        if noisy and self.how == "forward":
            return answer * (1 + float(UNSEEDED.normal()))
        if noisy and self.how == "draws":
            torch.rand(1)
        return answer


class Shifted(Dataset[Any]):
    """Noise of another strength for the first pass over the data or not: an augmentation."""

    def __init__(self, strength: float) -> None:
        self.strength = strength
        self.targets = [index % 3 for index in range(50)]

    def __len__(self) -> int:
        return 50

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((1, 4, 4), float(index)) + self.strength * torch.randn(1, 4, 4), self.targets[index]


def noisy(how: str = "", after: int = 10**9) -> Any:
    torch.manual_seed(0)
    return Noisy(how, after)


def run(root: Path, at: Callable[[Training], object] | None = None, steps: int = 3, **changes: Any) -> str:
    finished(root, *([] if at is None else [at]), steps=steps, **changes)
    return str(root)


def test_two_runs_that_do_the_same(root: Path) -> None:
    one, other = run(root / "one", steps=6), run(root / "other", steps=6)
    found = compare_steps(one, other)
    assert found.first is None and found.compared == 6 and found.last == (5, 5) and found.seeds == (7, 7)
    again = compare_steps(one, one)
    assert again.first is None


def order(made: Training) -> None:
    made.trainer.session.stream._seed = 99
    made.trainer.session.stream._order = None
    made.trainer.session.stream.rewind()


def dropout(made: Training) -> None:
    made.trainer.session._training_step._step_seed = 99


def flip(made: Training) -> None:
    with torch.no_grad():
        made.experiment.model.get_parameter("head.weight").view(torch.int32)[1, 3] ^= 1


def statistics(made: Training) -> None:
    made.experiment.model.get_buffer("norm.running_mean")[2] += 1e-3


@pytest.mark.parametrize(
    ("at", "kind", "tensors"),
    [
        (order, DATA_ORDER, None),
        (dropout, RANDOM_STATE, None),
        (flip, WEIGHTS, ["head.weight"]),
        (statistics, WEIGHTS, ["norm.running_mean"]),
    ],
)
def test_each_kind_of_divergence_is_named_at_its_step(
    at: Callable[[Training], None], kind: str, tensors: list[str] | None, root: Path
) -> None:
    found = compare_steps(run(root / "one", lambda _: None), run(root / "other", at))
    assert found.first is not None and found.first.step == 3 and found.first.kind == kind
    assert found.first.also == [kind] and found.first.before == 2 and found.first.interventions == []
    assert tensors is None or found.first.tensors == tensors


def test_another_augmentation(root: Path) -> None:
    one = run(root / "one", train_dataset=Shifted(0.5))
    assert compare_steps(one, run(root / "same", train_dataset=Shifted(0.5))).first is None
    found = compare_steps(one, run(root / "other", train_dataset=Shifted(0.25))).first
    assert found is not None and (found.step, found.kind, found.also) == (0, DATA_CONTENT, [DATA_CONTENT])


def test_another_augmentation_from_some_step_on(root: Path) -> None:
    def stronger(made: Training) -> None:
        made.experiment.datasets["train"].dataset.strength = 0.25
        made.trainer.session.stream.rewind()

    one = run(root / "one", lambda _: None, train_dataset=Shifted(0.5))
    found = compare_steps(one, run(root / "other", stronger, train_dataset=Shifted(0.5))).first
    assert found is not None and (found.step, found.kind, found.before) == (3, DATA_CONTENT, 2)


def test_another_seed_is_all_of_them_in_order(root: Path) -> None:
    found = compare_steps(run(root / "one"), run(root / "other", seed=8))
    assert found.seeds == (7, 8) and found.first is not None
    assert found.first.step == 0 and found.first.also == [DATA_ORDER, RANDOM_STATE]


def test_another_initialisation(root: Path) -> None:
    torch.manual_seed(5)
    other = Plain()
    found = compare_steps(run(root / "one"), run(root / "other", model=other)).first
    assert found is not None and (found.step, found.also, found.before) == (0, [WEIGHTS], None)
    assert {"layers.0", "head"} < set(layers_of(found.tensors))


@pytest.mark.parametrize(
    ("how", "forward", "draws", "layers"),
    [
        ("forward", True, False, {"head", "layers.0", "layers.1", "norm", "back"}),
        ("backward", False, False, {"layers.0"}),
        ("draws", False, True, set()),
    ],
)
def test_an_operator_that_is_not_the_same_each_time(
    how: str, forward: bool, draws: bool, layers: set[str], root: Path
) -> None:
    plain = run(root / "one", steps=6, model=noisy())
    assert compare_steps(plain, run(root / "same", steps=6, model=noisy())).first is None
    # The network was looked at before training, which counts passes too: which step it is, the trainer says.
    found = compare_steps(plain, run(root / "other", steps=6, model=noisy(how, after=4))).first
    assert found is not None and found.kind == OPERATOR and found.also == [OPERATOR] and 0 < found.step < 6
    assert found.before == found.step - 1
    assert (found.forward, found.draws) == (forward, draws)
    # Noise on the way back reaches what lies before it, and only that; on the way forward all that is behind the loss.
    assert set(layers_of(found.tensors)) == layers or (how == "forward" and set(layers_of(found.tensors)) <= layers)
    assert bool(found.tensors) == bool(layers)


def test_an_intervention_that_only_one_has_is_named(root: Path) -> None:
    one = run(root / "one", lambda _: None, steps=4)
    edited = str(root / "edited")
    finished(root / "edited", EditNeurons(RemoveNeurons("layers.1", (1, 3))), steps=4)
    found = compare_steps(one, edited).first
    assert found is not None and found.kind == WEIGHTS and found.step == 4
    assert [(letter, number) for letter, number, _ in found.interventions] == [("B", 1)]
    assert "Removed neurons 1, 3 of layers.1" in found.interventions[0][2]
    back = compare_steps(edited, one).first
    assert back is not None and back.interventions[0][0] == "A"
    finished(root / "rate", SetHyperParameters({"learning_rate": 0.5}), steps=4)
    found = compare_steps(one, str(root / "rate")).first
    assert found is not None and found.kind == WEIGHTS and "learning rate" in found.interventions[0][2]


def test_a_branch_counts_from_where_it_left(root: Path) -> None:
    straight = run(root / "one", steps=9)
    with training(root / "other") as made:
        train(made, 3)
        ask(made, Pause())
        record = ask(made, SaveCheckpoint()).value
        flip(made)
        ask(made, Resume())
        train(made, 4)
        assert compare_steps(straight, str(root / "other")).first is not None
        ask(made, RestoreCheckpoint(record.id))
        ask(made, Resume())
        while made.trainer.session.step < 9:
            made.trainer.tick()
        found = compare_steps(straight, str(root / "other"))
    assert found.first is None and found.compared == found.steps[1] == 9


def test_a_run_that_was_killed_goes_through_the_same_steps_again(root: Path) -> None:
    straight = run(root / "one", steps=9)
    with training(root / "other") as made:
        train(made, 5)
        crash(made)
    with training(root / "other") as made:
        while made.trainer.session.step < 9:
            made.trainer.tick()
    found = compare_steps(straight, str(root / "other"))
    assert found.first is None and found.compared == 9


def test_with_every_second_step_it_is_known_to_two(root: Path, asked: pytest.MonkeyPatch) -> None:
    asked.setenv(VARIABLE, "2")
    one = run(root / "one", lambda _: None, steps=5)
    asked.setenv(VARIABLE, "1")
    found = compare_steps(one, run(root / "other", flip, steps=5))
    assert found.steps == (5, 10) and found.first is not None
    assert (found.first.step, found.first.before, found.first.kind) == (6, 4, WEIGHTS)


def test_what_cannot_be_compared_is_said(root: Path, asked: pytest.MonkeyPatch) -> None:
    one = run(root / "one")
    asked.delenv(VARIABLE)
    with pytest.raises(NotFound, match=r"run .* has no fingerprints: train it with GRAYBOX_FINGERPRINTS=1"):
        compare_steps(one, run(root / "other"))
    asked.setenv(VARIABLE, "50")
    with training(root / "late") as made:
        made.trainer.session.step = 49  # as after a long time without
        train(made, 2)
    with pytest.raises(NotFound, match="no step in common"):
        compare_steps(one, str(root / "late"))


def test_json(root: Path) -> None:
    found = compare_steps(run(root / "one"), run(root / "other", seed=8)).to_json()
    assert json.loads(json.dumps(found))["first"]["kind"] == DATA_ORDER


# -- the comparison alone ------------------------------------------------------------------------------------


def fingerprint(**changes: Any) -> StepFingerprint:
    names = ("a.weight", "b.weight")
    made = StepFingerprint(0, 1, 2, 3, 4, 5, 0.5, np.array([1, 2]), np.array([3, 4]), names, names)
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, []),
        ({"rows": 9, "inputs": 9}, [DATA_ORDER]),
        ({"inputs": 9}, [DATA_CONTENT]),
        ({"targets": 9}, [DATA_CONTENT]),
        ({"seed": 9, "random": 9}, [RANDOM_STATE]),
        ({"weights": np.array([1, 3])}, [WEIGHTS]),
        ({"weights": np.array([1]), "weight_names": ("a.weight",)}, [WEIGHTS]),
        ({"loss": 0.25}, [OPERATOR]),
        ({"loss": -0.0, "inputs": 9}, [DATA_CONTENT]),
        ({"gradients": np.array([3, 5])}, [OPERATOR]),
        ({"gradients": np.array([3]), "gradient_names": ("a.weight",)}, [OPERATOR]),
        ({"random": 9}, [OPERATOR]),
        ({"rows": 9, "seed": 9, "weights": np.array([1, 3])}, [DATA_ORDER, RANDOM_STATE, WEIGHTS]),
    ],
)
def test_kinds(changes: dict[str, Any], kinds: list[str]) -> None:
    assert kinds_of_difference(fingerprint(), fingerprint(**changes)) == kinds
    assert kinds == [kind for kind in MEANING if kind in kinds]


def test_a_loss_that_is_no_number_is_like_itself() -> None:
    nan = fingerprint(loss=float("nan"))
    assert kinds_of_difference(nan, fingerprint(loss=float("nan"))) == []
    assert kinds_of_difference(fingerprint(loss=0.0), fingerprint(loss=-0.0)) == [OPERATOR]


@given(
    a=st.dictionaries(st.integers(0, 12), st.integers(0, 1), max_size=12),
    b=st.dictionaries(st.integers(0, 12), st.integers(0, 1), max_size=12),
)
def test_the_first_step_that_both_have_and_that_differs(a: dict[int, int], b: dict[int, int]) -> None:
    one, other = ([fingerprint(step=s, rows=side[s]) for s in sorted(side)] for side in (a, b))
    found, compared = first_difference(one, other)
    common = sorted(a.keys() & b.keys())
    differing = [step for step in common if a[step] != b[step]]
    if not differing:
        assert found is None and compared == len(common)
        return
    assert found is not None and found.step == differing[0] and compared == common.index(differing[0]) + 1
    assert found.before == (common[compared - 2] if compared > 1 else None)


def entry(
    sequence: int, step: int, kind: str = "hp_change", outcome: str = "applied", **arguments: Any
) -> JournalEntry:
    return JournalEntry(sequence, 0, "me", kind, step, 0, 0, f"did {sequence}", arguments, outcome)


def test_interventions_of_one_only() -> None:
    a = [entry(1, 2, x=1), entry(2, 3, "pause"), entry(3, 4, x=2), entry(4, 4, x=2), entry(5, 9, x=3)]
    b = [entry(1, 2, x=1), entry(2, 4, x=2), entry(3, 5, x=2), entry(4, 5, outcome="failed", x=9)]
    assert only_one_has(a, b, step=5) == [("A", 4, "step 4: did 4"), ("B", 3, "step 5: did 3")]
    assert only_one_has(a, b, step=1) == only_one_has(a, a, step=9) == []


def test_tensors_by_their_module() -> None:
    assert layers_of(["a.b.weight", "a.b.bias", "scale"]) == {
        "a.b": ["weight", "bias"],
        "(the network itself)": ["scale"],
    }


def test_the_log_is_where_it_is_looked_for(root: Path) -> None:
    one = run(root / "one")
    (path,) = Path(one).glob(f"*/{FILE_NAME}")
    assert len(read_fingerprints(path.parent)) == 3
