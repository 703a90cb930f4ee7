"""How each neuron is doing, from what is known of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from graybox.errors import Invalid

GOOD, YOUNG, DEAD, FROZEN, OVERFIT, REDUNDANT = 1, 2, 3, 4, 5, 6


@dataclass(frozen=True)
class HealthThresholds:
    """When a neuron counts as what. The first that holds is the verdict: frozen, young, dead, overfit, redundant, good.

    young_below (1,000): a neuron that has seen fewer training samples since it began or was reinitialised is young,
        and not judged.
    dead_below (0.001): a neuron is dead whose recent training trigger rate is below: it answers less than one sample
        in a thousand.
    overfit_above (0.5): a neuron is overfit whose recent trigger rates in training and evaluation differ by more, as
        Cohen's h = |2 asin sqrt(p) - 2 asin sqrt(q)| (Cohen, Statistical Power Analysis, 1988, calls 0.2 small, 0.5
        medium, 0.8 large): 0.5 against 0.26, or 0.1 against 0.005.
    evaluated_above (100): with fewer evaluation samples than this it is not judged so.
    redundant_above (0.98): a neuron is redundant whose weights (with bias; cosine) or recent activations (correlation)
        are at least that similar to those of a neuron before it in its layer, which stays. One that is dead or young
        makes no other redundant.
    compared_below (4,096): in a layer with more neurons than this none is compared with another.
    """

    young_below: int = 1_000
    dead_below: float = 0.001
    overfit_above: float = 0.5
    evaluated_above: int = 100
    redundant_above: float = 0.98
    compared_below: int = 4_096

    def __post_init__(self) -> None:
        if not 0 <= self.dead_below <= 1:
            raise Invalid(f"dead_below is a trigger rate in [0, 1], not {self.dead_below}")
        if not 0 < self.redundant_above <= 1:
            raise Invalid(f"redundant_above is a similarity above 0, at most 1, not {self.redundant_above}")
        if min(self.young_below, self.evaluated_above, self.compared_below) < 0 or not self.overfit_above >= 0:
            raise Invalid("young_below, evaluated_above, compared_below and overfit_above are 0 or more")


DEFAULT_THRESHOLDS = HealthThresholds()


def health(
    train_rate: np.ndarray,
    train_age: np.ndarray,
    frozen: np.ndarray,
    thresholds: HealthThresholds = DEFAULT_THRESHOLDS,
    *,
    eval_rate: np.ndarray | None = None,
    eval_age: np.ndarray | None = None,
    redundant_with: np.ndarray | None = None,
) -> np.ndarray:
    """A verdict per neuron (int64 [neurons], numbers of NeuronHealth), from recent rates in [0, 1], ages in samples,
    and which other neuron each is similar to (-1 for none)."""
    verdict = np.full(len(train_rate), GOOD, dtype=np.int64)
    if redundant_with is not None:
        verdict[redundant_with >= 0] = REDUNDANT
    if eval_rate is not None and eval_age is not None:
        apart = divergence(train_rate, eval_rate) > thresholds.overfit_above
        verdict[apart & (eval_age >= max(thresholds.evaluated_above, 1))] = OVERFIT
    verdict[train_rate < thresholds.dead_below] = DEAD
    verdict[train_age < thresholds.young_below] = YOUNG
    verdict[frozen] = FROZEN
    return verdict


def divergence(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cohen's h between rates in [0, 1]: in [0, pi], and 0 where they are the same."""
    apart: np.ndarray = np.abs(2 * np.arcsin(np.sqrt(one)) - 2 * np.arcsin(np.sqrt(other)))
    return apart


@torch.no_grad()
def redundancy(
    weights: torch.Tensor, activations: torch.Tensor, comparable: torch.Tensor, thresholds: HealthThresholds
) -> dict[str, torch.Tensor]:
    """Which neuron each one repeats, on the device; never waits for it.

    weights [n, k]; activations [rows, n], NaN where unknown; comparable: bool [n], neurons that others may be similar
    to, and that may be similar themselves. Answers `redundant_with` float64 [n], the neuron before it that stays and
    is most similar, -1 for none, and `similarity` float64 [n] to that one, NaN for none.

    The neurons that stay are those that a pass from the first to the last would keep, each unless it is similar to
    one kept before: so of a group of similar neurons at least one is never called redundant.
    """
    n = weights.shape[0]
    none = torch.full((n,), -1.0, dtype=torch.float64, device=weights.device)
    if n > thresholds.compared_below:
        return {"redundant_with": none, "similarity": torch.full_like(none, torch.nan)}
    alike = torch.maximum(_cosines(weights), _cosines(_centred(activations)))
    pairs = (alike >= thresholds.redundant_above).tril(-1) & comparable[:, None] & comparable[None, :]
    kept = _kept(pairs)
    chosen = torch.where(pairs & kept[None, :] & ~kept[:, None], alike, -torch.inf)
    similarity, partner = chosen.max(1)
    found = similarity > -torch.inf
    return {
        "redundant_with": torch.where(found, partner.to(torch.float64), none),
        "similarity": torch.where(found, similarity.to(torch.float64), torch.nan),
    }


def _centred(activations: torch.Tensor) -> torch.Tensor:
    """[n, rows] about each neuron's mean."""
    if activations.shape[0] < 2:
        return torch.full((activations.shape[1], 1), torch.nan, device=activations.device)
    return (activations - activations.mean(0)).t()


def _cosines(vectors: torch.Tensor) -> torch.Tensor:
    """Cosine of the angle of every two rows, float32 [n, n]; -1 where one has no direction: zero or not finite."""
    vectors = vectors.to(torch.float32)
    # By the largest entry first, or the squares of small entries would be lost.
    vectors = vectors / vectors.abs().amax(1, keepdim=True)
    unit = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    known = unit.isfinite().all(1)
    unit = torch.where(known[:, None], unit, 0.0)
    return torch.where(known[:, None] & known[None, :], (unit @ unit.t()).clamp_(-1.0, 1.0), -1.0)


_ROUNDS = 16


def _kept(pairs: torch.Tensor) -> torch.Tensor:
    """Bool [n]: which neurons a pass in order would keep, pairs[i, j] with j < i meaning that i is similar to j.

    In rounds, as the pass itself would take one look per neuron: whoever has only fallen neurons before it is kept,
    whoever has a kept one falls. Chains of similarities longer than the rounds leave their ends undecided, and kept.
    """
    before = pairs.to(torch.float32)
    n = pairs.shape[0]
    kept = torch.zeros(n, dtype=torch.float32, device=pairs.device)
    fallen = torch.zeros_like(kept)
    for _ in range(_ROUNDS):
        kept = ((before @ (1 - fallen)) == 0).to(torch.float32) * (1 - fallen)
        fallen = ((before @ kept) > 0).to(torch.float32)
    return fallen == 0
