"""Where two runs begin to differ, and of what: their fingerprints step by step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from graybox.comparison.place import Place
from graybox.errors import NotFound
from graybox.store.fingerprint_log import Digests, StepFingerprint, read_fingerprints
from graybox.store.journal import Journal, JournalEntry

DATA_ORDER, DATA_CONTENT = "data order", "data content"
RANDOM_STATE, WEIGHTS, OPERATOR = "random state", "weights", "operator"
MEANING = {
    DATA_ORDER: "other samples were in the batch, or in another order",
    DATA_CONTENT: "the same samples held other numbers (augmentation, the data itself) or other targets",
    RANDOM_STATE: "the step's random numbers had another seed",
    WEIGHTS: "parameters or running statistics were others before the step",
    OPERATOR: "of the same samples, random numbers and weights came something else: an operator that does not give the "
    "same bits each time, a random source of its own, another device or version, or other code",
}


@dataclass(frozen=True)
class Difference:
    """What differs first. kind: the first of `also`, which are all that differ at this step, in the order of MEANING:
    each can be the cause of those after it, and of the loss.

    step: how many were made before. tensors: of WEIGHTS, those that differ; of OPERATOR, those whose gradients do.
    forward: whether the loss differs too. draws: of OPERATOR, whether other random numbers were drawn. before: whether
    everything at the step before was the same, the gradients too; None where nobody knows, as at the first step.
    interventions: those up to here that only one of the two has, (A or B, number in its journal, what it did).
    """

    step: int
    kind: str
    also: list[str]
    tensors: list[str]
    forward: bool
    draws: bool
    before: int | None
    interventions: list[tuple[str, int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class StepComparison:
    """compared: steps of which both have a fingerprint. steps: how many each has. last: the last step of each.
    seeds: of the two runs. first: what differs first, None where nothing does."""

    names: tuple[str, str]
    compared: int
    steps: tuple[int, int]
    last: tuple[int, int]
    seeds: tuple[int | None, int | None]
    first: Difference | None

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def compare_steps(a: str, b: str) -> StepComparison:
    """The fingerprints of two runs, as `graybox compare-steps` names them: `ROOT` or `ROOT/RUN`.

    Raises NotFound for a run that is not there or has no fingerprints, and where no step has one in both; StorageError
    for a broken file.
    """
    places = Place(a), Place(b)
    found = [read_fingerprints(place.run.path) for place in places]
    for place, steps in zip(places, found, strict=True):
        if not steps:
            raise NotFound(
                f"run {place.run.run_id} has no fingerprints: train it with GRAYBOX_FINGERPRINTS=1 in the environment"
            )
    first, compared = first_difference(*found)
    if not compared:
        raise NotFound("the two runs have no step in common of which both have a fingerprint")
    if first is not None:
        one, other = (Journal(place.run.path / "journal.jsonl", read_only=True).entries() for place in places)
        first = replace(first, interventions=only_one_has(one, other, first.step))
    return StepComparison(
        (places[0].name, places[1].name),
        compared,
        (len(found[0]), len(found[1])),
        (found[0][-1].step, found[1][-1].step),
        (places[0].run.record.get("seed"), places[1].run.record.get("seed")),
        first,
    )


def first_difference(a: Sequence[StepFingerprint], b: Sequence[StepFingerprint]) -> tuple[Difference | None, int]:
    """(what differs first; how many steps were compared until then, that one included)."""
    others = {fingerprint.step: fingerprint for fingerprint in b}
    before: int | None = None
    compared = 0
    for one in a:
        other = others.get(one.step)
        if other is None:
            continue
        compared += 1
        kinds = kinds_of_difference(one, other)
        if kinds:
            return _difference(one, other, kinds, before), compared
        before = one.step
    return None, compared


def kinds_of_difference(a: StepFingerprint, b: StepFingerprint) -> list[str]:
    """All that differ, in the order of MEANING; OPERATOR only where nothing else explains what came out."""
    found = []
    if a.rows != b.rows:
        found.append(DATA_ORDER)
    elif (a.inputs, a.targets) != (b.inputs, b.targets):
        found.append(DATA_CONTENT)
    if a.seed != b.seed:
        found.append(RANDOM_STATE)
    if _other(a.weight_names, a.weights, b.weight_names, b.weights):
        found.append(WEIGHTS)
    if not found and (_loss_bits(a) != _loss_bits(b) or a.random != b.random or _gradients(a, b)):
        found.append(OPERATOR)
    return found


def _difference(a: StepFingerprint, b: StepFingerprint, kinds: list[str], before: int | None) -> Difference:
    kind = kinds[0]
    weights = _other(a.weight_names, a.weights, b.weight_names, b.weights)
    return Difference(
        step=a.step,
        kind=kind,
        also=kinds,
        tensors=_gradients(a, b) if kind == OPERATOR else weights,
        forward=_loss_bits(a) != _loss_bits(b),
        draws=kind == OPERATOR and a.random != b.random,
        before=before,
    )


def _gradients(a: StepFingerprint, b: StepFingerprint) -> list[str]:
    return _other(a.gradient_names, a.gradients, b.gradient_names, b.gradients)


def _other(a_names: Sequence[str], a: Digests, b_names: Sequence[str], b: Digests) -> list[str]:
    """Names of those that differ, or that only one has."""
    if a_names == b_names:
        return [name for name, differs in zip(a_names, (a != b).tolist(), strict=True) if differs]
    here, there = dict(zip(a_names, a.tolist(), strict=True)), dict(zip(b_names, b.tolist(), strict=True))
    return [name for name in {**here, **there} if here.get(name) != there.get(name)]


def _loss_bits(fingerprint: StepFingerprint) -> bytes:
    return np.float64(fingerprint.loss).tobytes()


def layers_of(tensors: Sequence[str]) -> dict[str, list[str]]:
    """The same by the module that they belong to."""
    found: dict[str, list[str]] = {}
    for name in tensors:
        module, _, own = name.rpartition(".")
        found.setdefault(module or "(the network itself)", []).append(own)
    return found


def only_one_has(a: Sequence[JournalEntry], b: Sequence[JournalEntry], step: int) -> list[tuple[str, int, str]]:
    """Interventions up to a step that change training and that only one of two journals has at that step."""
    keys = [Counter(_key(entry) for entry in journal if _counts(entry, step)) for journal in (a, b)]
    found: list[tuple[str, int, str]] = []
    for letter, journal, others in (("A", a, keys[1]), ("B", b, keys[0])):
        left = Counter(others)
        for entry in journal:
            if not _counts(entry, step):
                continue
            if left[_key(entry)]:
                left[_key(entry)] -= 1
            else:
                found.append((letter, entry.sequence, f"step {entry.step}: {entry.summary or entry.kind}"))
    return found


SILENT = frozenset({"pause", "resume", "query_execute", "plot_note", "step_failed"})
"""Kinds of entries that change nothing of what training does."""


def _counts(entry: JournalEntry, step: int) -> bool:
    return entry.step <= step and entry.outcome == "applied" and entry.kind not in SILENT


def _key(entry: JournalEntry) -> tuple[int, str, str]:
    return entry.step, entry.kind, _text(entry.arguments)


def _text(value: Mapping[str, Any]) -> str:
    return repr(sorted(value.items()))
