"""A pass over a split without training on it, batch by batch, so that nobody waits for the whole of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from graybox.calling import called
from graybox.data_samples_with_ops import CollateWithRows, SeededDataset, Token, sample_seed
from graybox.evaluation_metrics import Measured, MetricSet
from graybox.experiment import Experiment
from graybox.failing_samples import LoadFailure, bad_rows, load_error
from graybox.met_labels import joined_answers, joined_labels
from graybox.randomness import mix, purpose, seeded
from graybox.store.sample_columns import Ratings
from graybox.tracking import Tally, TrackingMode
from graybox.training_step import (
    BatchOutcome,
    Parts,
    blamed,
    evaluation_mode,
    labels_met,
    read_outcome,
    split_batch,
)

MAX_CLASS_CURVES = 100


@dataclass(frozen=True)
class EvaluationResult:
    """Mean loss, and share of correct predictions (None without classes), over so many samples; and what else was
    measured."""

    split: str
    samples: int
    loss: float
    accuracy: float | None
    measured: Measured = field(default_factory=Measured)
    scores: Mapping[str, float] = field(default_factory=dict)

    def numbers(self) -> dict[str, float]:
        """All that is one number, by name."""
        known = {"loss": self.loss} if self.accuracy is None else {"loss": self.loss, "accuracy": self.accuracy}
        return {**known, **self.scores, **self.measured.values}


def curves_of(result: EvaluationResult, class_names: Sequence[str]) -> dict[tuple[str, str], float]:
    """What a pass adds to the curves, by (split, metric): its numbers and, where it measured classes one by one, the f1
    of each as a curve "SPLIT/CLASS"; of the first MAX_CLASS_CURVES classes."""
    found = {(result.split, name): value for name, value in result.numbers().items()}
    table = result.measured.classes
    if table is not None:
        for number, value in enumerate(table.f1[:MAX_CLASS_CURVES].tolist()):
            name = class_names[number] if number < len(class_names) else str(number)
            found[f"{result.split}/{name}", "f1"] = value
    return found


class EvaluationPass:
    """One pass over the samples of a split that are not discarded. Weights, running statistics, training modes and
    random state stay as they are.

    A pass counts whole or not at all, so that one that was abandoned and made again leaves nothing twice: when it is
    through, statistics go to the neurons' evaluation trackers, and `record` is called once with what all samples did.

    discarded: bool [samples], those to leave out. metrics: measure more than loss and accuracy. neurons: False, the
    neurons' statistics stay as they are.
    """

    def __init__(
        self,
        experiment: Experiment,
        split: str,
        discarded: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        record: Callable[[BatchOutcome], None],
        metrics: MetricSet | None = None,
        neurons: bool = True,
    ) -> None:
        self.split = split
        self.experiment = experiment
        self._record = record
        self._metrics = metrics
        self._mode = TrackingMode.EVAL if neurons else TrackingMode.DISABLED
        self._seed = mix(seed, purpose("evaluation"))
        rows = np.flatnonzero(~discarded)
        self.total = int(rows.size)
        self.done = 0
        self.bad: list[int] = []
        """Samples whose loss is no finite number, in batches of which others' are."""
        self._outcomes: list[BatchOutcome] = []
        self._tally = Tally()
        tokens = [Token(int(row), sample_seed(seed, 0, int(row))) for row in rows]
        batches = [tokens[i : i + batch_size] for i in range(0, len(tokens), batch_size)]
        # In this process: a pass is short, and workers would take longer to start than it takes.
        loader: DataLoader[Any] = DataLoader(
            SeededDataset(experiment.datasets[split].dataset),
            batch_sampler=batches,
            collate_fn=CollateWithRows(experiment.collate),
            generator=torch.Generator(),  # or it would draw from the global one
        )
        self._batches: Iterator[Any] = iter(loader)

    def advance(self) -> bool:
        """Do one batch. Answers False when there was none left, and the pass is counted then. Raises SampleLoadError,
        or what the user's code raises."""
        with seeded(mix(self._seed, self.done)):
            return self._advance()

    def _advance(self) -> bool:
        loaded = next(self._batches, None)
        if loaded is None:
            self._count()
            return False
        if isinstance(loaded, LoadFailure):
            raise load_error(self.split, loaded)
        rows, data = loaded
        parts: Parts | None = None
        try:
            parts = split_batch(self.experiment, data, rows, self.split)
            self._take(rows, parts)
        except Exception as error:  # the user's own code and data: named where it comes from some of the samples
            named = blamed(error, self.experiment, self.split, rows, parts)
            if named is not None:
                raise named from error
            raise
        return True

    def _take(self, rows: torch.Tensor, parts: Parts) -> None:
        inputs, target = parts
        model = self.experiment.model
        model.set_tracking_mode(self._mode)
        model.ledger.hold()
        model.ledger.samples_are(rows, target if isinstance(target, torch.Tensor) else None)
        try:
            with evaluation_mode(model):
                outputs = called(model, inputs)
                result = self.experiment.task.evaluate(outputs, target)
                if self._metrics is not None:
                    self._metrics.update(outputs, target, result)
                if result.predictions is not None:
                    model.register_prediction(result.predictions, result.classes)
        finally:
            waited = model.ledger.take_all()
            model.set_tracking_mode(TrackingMode.DISABLED)
        outcome = read_outcome(result, target, rows.numpy())
        outcome = replace(outcome, met=labels_met(self.experiment, self.split, rows, target))
        self.bad += bad_rows(outcome.loss, outcome.rows, outcome.losses)
        self._tally.add(waited)
        self._outcomes.append(outcome)
        self.done += len(outcome.rows)

    def _count(self) -> None:
        self._tally.commit()
        if self._outcomes:
            self._record(joined(self._outcomes))

    def result(self) -> EvaluationResult:
        """The means over what was done so far; NaN before the first batch. Raises what a user's metric raises."""
        if not self._outcomes:
            return EvaluationResult(self.split, 0, float("nan"), None)
        whole = joined(self._outcomes)
        measured = Measured()
        if self._metrics is not None:
            with seeded(mix(self._seed, self.done)):
                measured = self._metrics.measured(whole)
        return EvaluationResult(self.split, self.done, whole.loss, whole.accuracy, measured, whole.scores)


def joined(outcomes: list[BatchOutcome]) -> BatchOutcome:
    """Several batches as one: the loss is the mean over their samples."""
    rows = np.concatenate([o.rows for o in outcomes])
    predictions = [o.predictions for o in outcomes if o.predictions is not None]
    correct = [o.correct for o in outcomes if o.correct is not None]
    targets = [o.targets for o in outcomes if o.targets is not None]
    return BatchOutcome(
        rows=rows,
        losses=np.concatenate([o.losses for o in outcomes]),
        predictions=np.concatenate(predictions) if len(predictions) == len(outcomes) else None,
        loss=sum(o.loss * len(o.rows) for o in outcomes) / len(rows),
        correct=sum(correct) if len(correct) == len(outcomes) else None,
        targets=np.concatenate(targets) if len(targets) == len(outcomes) else None,
        ratings=_ratings_of(outcomes),
        answers=joined_answers([o.answers for o in outcomes]),
        met=joined_labels([o.met for o in outcomes]),
    )


def _ratings_of(outcomes: list[BatchOutcome]) -> Ratings | None:
    found = [o.ratings for o in outcomes if o.ratings is not None]
    if not found or len(found) < len(outcomes):
        return None
    return Ratings(np.concatenate([r.confidence for r in found]), np.concatenate([r.margin for r in found]))


@torch.no_grad()
def example_inputs(experiment: Experiment, rows: int = 2) -> Any:
    """What the network is called with for the first training samples. Raises SampleLoadError for one that fails to
    load, or what the user's code raises."""
    wrapper = experiment.datasets["train"]
    tokens = [Token(row, sample_seed(0, 0, row)) for row in range(min(rows, len(wrapper)))]
    loaded = CollateWithRows(experiment.collate)(SeededDataset(wrapper.dataset).__getitems__(tokens))
    if isinstance(loaded, LoadFailure):
        raise load_error("train", loaded)
    return split_batch(experiment, loaded[1], loaded[0])[0]


def example_outputs(experiment: Experiment, rows: int = 2) -> Any:
    """What the network answers to the first training samples, in evaluation mode, leaving no trace. Raises what the
    user's code raises."""
    inputs = example_inputs(experiment, rows)
    with evaluation_mode(experiment.model):
        return called(experiment.model, inputs)
