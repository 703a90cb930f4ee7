"""A run that really trains behind the real service, in the test's process, for browser tests that look at its store."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

from graybox.launch import Training, launch
from graybox.proto import experiment_service_pb2 as pb
from graybox.service.backend import live_backend
from graybox.service.server import serve
from graybox.service.settings import Settings
from graybox.store.journal import JournalEntry
from graybox.store.sample_columns import SplitColumns
from tests.patience import PATIENCE
from tests.service.wire_client import WireClient
from tests.small_experiments import tick_until, toy_data, toy_experiment

CLASSES = ("cat", "dog", "it's a fish")


class NamedData(TensorDataset):
    """Toy samples with names of classes: [count, 1, 4, 4]."""

    classes = CLASSES

    def __init__(self, count: int, seed: int = 0) -> None:
        super().__init__(*toy_data(count, seed).tensors)


class RealBackend:
    """Trained for some steps, then paused: what is asked and edited finds the same samples each time. It goes on when
    it is told to."""

    def __init__(self, root: Path, count: int, steps: int, *, new_run: bool = False) -> None:
        torch.manual_seed(0)
        experiment = toy_experiment(
            train_dataset=NamedData(count), eval_dataset=NamedData(20, seed=1), training_steps_to_do=1_000_000
        )
        self.training: Training = launch(experiment, root_directory=root, new_run=new_run)
        trainer = self.training.trainer
        tick_until(self.training, lambda: trainer.session.step == steps)
        self.signal = np.arange(count, dtype=np.float32) % 7
        experiment.datasets["train"].log_signal("my.signal", np.arange(count), self.signal)
        self._server = serve(live_backend(self.training), Settings(port=0))
        self._client = WireClient(self._server.address, self._server.tokens.control[0])
        self._owner = threading.Thread(target=trainer.run, daemon=True)
        self._owner.start()
        change = pb.HyperParameterChange(hyper_parameters=pb.HyperParameters(is_training=False))
        self.call("ExperimentCommand", pb.ExperimentCommandRequest(hyper_parameter_change=change))

    @property
    def run_id(self) -> str:
        return self.training.stores.run.run_id

    @property
    def train(self) -> SplitColumns:
        return self.training.stores.samples.splits["train"]

    def journal(self) -> list[JournalEntry]:
        return self.training.stores.journal.entries()

    def edits(self) -> list[str]:
        """Kinds of the entries that changed samples, or took that back."""
        others = ("pause", "resume", "query_execute")
        return [entry.kind for entry in self.journal() if entry.kind not in others]

    def call(self, method: str, request: Any) -> Any:
        """As another client."""
        return self._client.call(method, request)

    def close(self) -> None:
        self._client.close()
        self._server.stop(grace=0)
        self.training.trainer.stop()
        self._owner.join(PATIENCE)
        self.training.close()
