"""A pass over a split without training on it, batch by batch, so that nobody waits for the whole of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from graybox.calling import called
from graybox.data_samples_with_ops import CollateWithRows, LoadFailure, SeededDataset, Token, sample_seed
from graybox.experiment import Experiment
from graybox.randomness import mix, purpose, seeded
from graybox.sample_stream import SampleLoadError
from graybox.store.sample_columns import Ratings
from graybox.tracking import Tally, TrackingMode
from graybox.training_step import BatchOutcome, evaluation_mode, read_outcome, split_batch


@dataclass(frozen=True)
class EvaluationResult:
    """Mean loss, and share of correct predictions (None without classes), over so many samples."""

    split: str
    samples: int
    loss: float
    accuracy: float | None


class EvaluationPass:
    """One pass over the samples of a split that are not discarded. Weights, running statistics, training modes and
    random state stay as they are.

    A pass counts whole or not at all, so that one that was abandoned and made again leaves nothing twice: when it is
    through, statistics go to the neurons' evaluation trackers, and `record` is called once with what all samples did.
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
    ) -> None:
        self.split = split
        self.experiment = experiment
        self._record = record
        self._seed = mix(seed, purpose("evaluation"))
        rows = np.flatnonzero(~discarded)
        self.total = int(rows.size)
        self.done = 0
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
            raise SampleLoadError(
                f"{self.split} sample {loaded.row} failed to load: {loaded.reason}. Mend it, or discard the sample, "
                "and resume",
                loaded.trace,
            )
        rows, data = loaded
        inputs, target = split_batch(self.experiment, data, rows, self.split)
        model = self.experiment.model
        model.set_tracking_mode(TrackingMode.EVAL)
        model.ledger.hold()
        model.ledger.samples_are(rows, target if isinstance(target, torch.Tensor) else None)
        try:
            with evaluation_mode(model):
                result = self.experiment.task.evaluate(called(model, inputs), target)
                if result.predictions is not None:
                    model.register_prediction(result.predictions, result.classes)
        finally:
            waited = model.ledger.take_all()
            model.set_tracking_mode(TrackingMode.DISABLED)
        outcome = read_outcome(result, target, rows.numpy())
        self._tally.add(waited)
        self._outcomes.append(outcome)
        self.done += len(outcome.rows)
        return True

    def _count(self) -> None:
        self._tally.commit()
        if self._outcomes:
            self._record(joined(self._outcomes))

    def result(self) -> EvaluationResult:
        """The means over what was done so far; NaN before the first batch."""
        if not self._outcomes:
            return EvaluationResult(self.split, 0, float("nan"), None)
        whole = joined(self._outcomes)
        return EvaluationResult(self.split, self.done, whole.loss, whole.accuracy)


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
        raise SampleLoadError(f"training sample {loaded.row} failed to load: {loaded.reason}", loaded.trace)
    return split_batch(experiment, loaded[1], loaded[0])[0]


def example_outputs(experiment: Experiment, rows: int = 2) -> Any:
    """What the network answers to the first training samples, in evaluation mode, leaving no trace. Raises what the
    user's code raises."""
    inputs = example_inputs(experiment, rows)
    with evaluation_mode(experiment.model):
        return called(experiment.model, inputs)
