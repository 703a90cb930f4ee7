"""A pass over a split without training on it, batch by batch, so that nobody waits for the whole of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from graybox.data_samples_with_ops import CollateWithRows, LoadFailure, SeededDataset, Token, sample_seed
from graybox.experiment import Experiment
from graybox.sample_stream import SampleLoadError
from graybox.tracking import TrackingMode
from graybox.training_step import BatchOutcome, evaluation_mode, read_outcome, split_batch


@dataclass(frozen=True)
class EvaluationResult:
    """Mean loss, and share of correct predictions (None without classes), over so many samples."""

    split: str
    samples: int
    loss: float
    accuracy: float | None


class EvaluationPass:
    """One pass over the samples of a split that are not discarded. Statistics go to the neurons' evaluation trackers;
    weights, running statistics and training modes stay as they are.

    record: called with each batch's outcome.
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
        rows = np.flatnonzero(~discarded)
        self.total = int(rows.size)
        self.done = 0
        self._loss_sum = 0.0
        self._correct: int | None = 0
        tokens = [Token(int(row), sample_seed(seed, 0, int(row))) for row in rows]
        batches = [tokens[i : i + batch_size] for i in range(0, len(tokens), batch_size)]
        # In this process: a pass is short, and workers would take longer to start than it takes.
        loader: DataLoader[Any] = DataLoader(
            SeededDataset(experiment.datasets[split].dataset),
            batch_sampler=batches,
            collate_fn=CollateWithRows(experiment.collate),
        )
        self._batches: Iterator[Any] = iter(loader)

    def advance(self) -> bool:
        """Do one batch. Answers False when there was none left. Raises SampleLoadError, or what the user's code raises."""
        loaded = next(self._batches, None)
        if loaded is None:
            return False
        if isinstance(loaded, LoadFailure):
            raise SampleLoadError(
                f"{self.split} sample {loaded.row} failed to load: {loaded.reason}. Mend it, or discard the sample, "
                "and resume",
                loaded.trace,
            )
        rows, data = loaded
        inputs, target = split_batch(self.experiment, data, rows)
        model = self.experiment.model
        model.set_tracking_mode(TrackingMode.EVAL)
        try:
            with evaluation_mode(model):
                result = self.experiment.task.evaluate(model(inputs), target)
                if result.predictions is not None:
                    model.register_prediction(result.predictions, result.classes)
        finally:
            model.set_tracking_mode(TrackingMode.DISABLED)
        outcome = read_outcome(result, target, rows.numpy())
        self._record(outcome)
        self.done += len(outcome.rows)
        self._loss_sum += outcome.loss * len(outcome.rows)
        if self._correct is not None:
            self._correct = None if outcome.correct is None else self._correct + outcome.correct
        return True

    def result(self) -> EvaluationResult:
        """The means over what was done so far; NaN before the first batch."""
        count = self.done or float("nan")
        accuracy = None if self._correct is None else self._correct / count
        return EvaluationResult(self.split, self.done, self._loss_sum / count, accuracy)


@torch.no_grad()
def example_outputs(experiment: Experiment, rows: int = 2) -> torch.Tensor:
    """What the network answers to the first training samples, in evaluation mode, leaving no trace. Raises what the
    user's code raises."""
    wrapper = experiment.datasets["train"]
    tokens = [Token(row, sample_seed(0, 0, row)) for row in range(min(rows, len(wrapper)))]
    loaded = CollateWithRows(experiment.collate)(SeededDataset(wrapper.dataset).__getitems__(tokens))
    if isinstance(loaded, LoadFailure):
        raise SampleLoadError(f"training sample {loaded.row} failed to load: {loaded.reason}", loaded.trace)
    inputs, _ = split_batch(experiment, loaded[1], loaded[0])
    with evaluation_mode(experiment.model):
        outputs: torch.Tensor = experiment.model(inputs)
    return outputs
