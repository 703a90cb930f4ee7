from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graybox.errors import Invalid
from graybox.neuron_health import DEAD, FROZEN, GOOD, OVERFIT, REDUNDANT, YOUNG, HealthThresholds, health, redundancy
from graybox.proto import experiment_service_pb2 as pb
from tests.small_networks import one_thread  # noqa: F401

DEFAULTS = HealthThresholds()


def test_the_numbers_are_those_of_the_wire() -> None:
    ours = (GOOD, YOUNG, DEAD, FROZEN, OVERFIT, REDUNDANT)
    assert ours == (pb.GOOD, pb.YOUNG, pb.DEAD, pb.FROZEN, pb.OVERFIT, pb.REDUNDANT)


rates = st.sampled_from([0.0, 9e-4, 1e-3, 0.3, 0.5, 1.0])
neurons = st.tuples(
    rates, st.sampled_from([0, 999, 1000, 10**9]), rates, st.sampled_from([0, 99, 100]), st.booleans(), st.booleans()
)


@given(st.lists(neurons))
def test_the_first_that_holds_is_the_verdict(neurons: list[Any]) -> None:
    def verdict(rate: float, age: int, eval_rate: float, eval_age: int, frozen: bool, redundant: bool) -> int:
        if frozen:
            return FROZEN
        if age < 1000:
            return YOUNG
        if rate < 0.001:
            return DEAD
        if eval_age >= 100 and abs(2 * np.arcsin(rate**0.5) - 2 * np.arcsin(eval_rate**0.5)) > 0.5:
            return OVERFIT
        return REDUNDANT if redundant else GOOD

    rate, age, eval_rate, eval_age, frozen, redundant = (np.array([n[i] for n in neurons]) for i in range(6))
    found = health(
        rate, age, frozen.astype(bool),
        eval_rate=eval_rate, eval_age=eval_age, redundant_with=np.where(redundant, 0, -1),
    )  # fmt: skip
    assert found.tolist() == [verdict(*neuron) for neuron in neurons]


def test_thresholds_are_settings() -> None:
    rate, age, no = np.array([0.2]), np.array([50]), np.array([False])
    assert health(rate, age, no).tolist() == [YOUNG]
    assert health(rate, age, no, HealthThresholds(young_below=50)).tolist() == [GOOD]
    assert health(rate, age, no, HealthThresholds(young_below=0, dead_below=0.3)).tolist() == [DEAD]
    seen = {"eval_rate": np.array([0.1]), "eval_age": np.array([10])}
    strict = HealthThresholds(young_below=0, overfit_above=0.2, evaluated_above=10)
    assert health(rate, age, no, strict, **seen).tolist() == [OVERFIT]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [("dead_below", 1.1), ("dead_below", -0.1), ("redundant_above", 0.0), ("redundant_above", 1.5),
     ("young_below", -1), ("evaluated_above", -1), ("compared_below", -1), ("overfit_above", float("nan"))],
)  # fmt: skip
def test_thresholds_that_make_no_sense_are_invalid(field: str, value: float) -> None:
    with pytest.raises(Invalid, match=field):
        HealthThresholds(**{field: value})  # type: ignore[arg-type]


def oracle(weights: np.ndarray, activations: np.ndarray, comparable: np.ndarray, above: float) -> list[int]:
    """One neuron after the other, each compared with those kept before it."""
    n = len(weights)
    alike = np.full((n, n), -1.0)
    for i in range(n):
        for j in range(i):
            a, b = weights[i], weights[j]
            if a.any() and b.any():
                alike[i, j] = a @ b / np.sqrt((a @ a) * (b @ b))
            c, d = activations[:, i] - activations[:, i].mean(), activations[:, j] - activations[:, j].mean()
            if np.abs(c).max() > 1e-6 and np.abs(d).max() > 1e-6:
                alike[i, j] = max(alike[i, j], c @ d / np.sqrt((c @ c) * (d @ d)))
    kept: list[int] = []
    found = []
    for i in range(n):
        similar = [j for j in kept if comparable[i] and comparable[j] and alike[i, j] >= above]
        if similar:
            found.append(max(similar, key=lambda j: alike[i, j]))
        else:
            kept.append(i)
            found.append(-1)
    return found


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 14), kinds=st.integers(1, 5), seed=st.integers(0, 10_000))
def test_who_is_redundant_with_whom_is_as_one_look_per_neuron_finds(n: int, kinds: int, seed: int) -> None:
    numbers = np.random.default_rng(seed)
    # Copies in some direction, scaled, so that similarity is clear and no rounding decides.
    directions = numbers.normal(size=(kinds, 40)).astype(np.float32)
    weights = directions[numbers.integers(0, kinds, n)] * numbers.choice([0.0, 1e-20, 0.5, 3.0, -1.0], (n, 1))
    patterns = numbers.normal(size=(60, kinds)).astype(np.float32)
    activations = patterns[:, numbers.integers(0, kinds, n)] * numbers.choice([0.0, 1.0, 8.0], n) + numbers.integers(
        0, 3
    )
    weights, activations = weights.astype(np.float32), activations.astype(np.float32)
    comparable = numbers.random(n) < 0.8
    found = redundancy(*map(torch.from_numpy, (weights, activations, comparable)), DEFAULTS)
    expected = oracle(weights.astype(np.float64) * 1e10, activations.astype(np.float64), comparable, 0.98)
    partners = found["redundant_with"].tolist()
    assert [p >= 0 for p in partners] == [p >= 0 for p in expected]
    similarity = found["similarity"].numpy()
    for i, partner in enumerate(map(int, partners)):
        assert np.isnan(similarity[i]) if partner < 0 else similarity[i] >= 0.98
        assert partner < 0 or (partner < i and expected[partner] < 0)  # who it is similar to stays


def test_chains_of_similar_neurons_keep_some() -> None:
    # Each is similar to its neighbours alone.
    angle = torch.arange(12) * 0.15  # cos 0.15 = 0.989, cos 0.3 = 0.955
    weights = torch.stack((angle.cos(), angle.sin()), 1)
    nothing = torch.full((0, 12), 0.0)
    found = redundancy(weights, nothing, torch.ones(12, dtype=torch.bool), DEFAULTS)["redundant_with"]
    assert found.tolist() == [-1, 0, -1, 2, -1, 4, -1, 6, -1, 8, -1, 10]


def test_unknown_activations_constants_and_wide_layers_make_nobody_redundant() -> None:
    yes = torch.ones(3, dtype=torch.bool)
    apart = torch.eye(3)
    same = torch.randn(20, 1, generator=torch.Generator().manual_seed(0)).expand(20, 3).clone()
    assert redundancy(apart, same, yes, DEFAULTS)["redundant_with"].tolist() == [-1, 0, 0]
    same[4, 1] = torch.nan
    assert redundancy(apart, same, yes, DEFAULTS)["redundant_with"].tolist() == [-1, -1, 0]
    assert redundancy(apart, torch.ones(20, 3), yes, DEFAULTS)["redundant_with"].tolist() == [-1] * 3
    assert redundancy(apart, torch.ones(1, 3), yes, DEFAULTS)["redundant_with"].tolist() == [-1] * 3
    found = redundancy(torch.ones(3, 2), same, yes, HealthThresholds(compared_below=2))
    assert found["redundant_with"].tolist() == [-1] * 3 and found["similarity"].isnan().all()
