"""What the owner publishes after a step: small immutable values that anybody may read without a lock. Free of torch."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from graybox.store.evaluation_report import EvaluationReport


class TrainerState(enum.Enum):
    STARTING = "starting"
    RECOVERING = "recovering"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    ENDED = "ended"


@dataclass(frozen=True)
class HyperParameter:
    """One hyper-parameter as it stands. kind: "number", "integer", "text" or "bool"; bounds are inclusive
    unless exclusive_minimum. choices: what a text may be; none: anything."""

    name: str
    label: str
    kind: str
    value: float | int | str | bool
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: bool = False
    description: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """The trainer after one step. Accuracies are shares in [0, 1], losses means; None where unknown. mode: "train",
    "audit", or "evaluation" while one that was asked for runs. evaluation: that one, or the newest that has ended."""

    run_id: str
    state: TrainerState
    experiment_name: str = ""
    step: int = 0
    age: int = 0
    epoch: int = 0
    steps_left: int = 0
    branch: int = 0
    experiment_hash: str = ""
    error: str = ""
    traceback: str = ""
    activity: str = ""
    samples_per_second: float = 0.0
    train_loss: float | None = None
    train_accuracy: float | None = None
    eval_loss: float | None = None
    eval_accuracy: float | None = None
    device: str = ""
    journal_sequence: int = 0
    time_ms: int = 0
    process_start_ms: int = 0
    parameter_count: int = 0
    kind_of_problem: str = ""
    class_names: tuple[str, ...] = ()
    hyper_parameters: tuple[HyperParameter, ...] = ()
    mode: str = "train"
    evaluation: EvaluationReport | None = None


@dataclass(frozen=True)
class LayerInfo:
    """A layer with neuron operations, as it is built."""

    layer_id: int
    name: str
    layer_type: str
    neurons: int
    incoming_neurons: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    parameter_count: int
    is_output: bool
    consumers: tuple[int, ...]


@dataclass(frozen=True)
class LayerStatistics:
    """A layer's neurons at one moment; every array has shape [neurons].

    Rates lie in [0, 1] (0 where the age is 0); ages count samples; learning_rate is the factor on the update.
    health holds NeuronHealth numbers of the wire (1 good, 2 young, 3 dead, 4 frozen, 5 overfit, 6 redundant).

    The others are None where nobody measures them, and NaN for a neuron of which they are not known. Means and standard
    deviations are of the activation, over all samples of the age; window_...: over a recent window of samples, in
    training unless it says eval. gradient_norm: at the last step. relative_change: of the weights since the last
    checkpoint. redundant_with: the similar neuron of the same layer, -1 for none; similarity: how similar, at most 1.
    class_rates [neurons, classes]: in training, NaN for a class not seen. top_samples, top_values [neurons, k]: rows of
    the training samples that excite it most, the most exciting first (-1 where there are fewer), and its mean
    activation on each. incoming_frozen: bool [incoming neurons].
    """

    info: LayerInfo
    train_rate: np.ndarray
    train_age: np.ndarray
    eval_rate: np.ndarray
    eval_age: np.ndarray
    frozen: np.ndarray
    learning_rate: np.ndarray
    health: np.ndarray
    train_mean: np.ndarray | None = None
    train_std: np.ndarray | None = None
    eval_mean: np.ndarray | None = None
    eval_std: np.ndarray | None = None
    window_rate: np.ndarray | None = None
    window_mean: np.ndarray | None = None
    window_std: np.ndarray | None = None
    eval_window_rate: np.ndarray | None = None
    weight_norm: np.ndarray | None = None
    gradient_norm: np.ndarray | None = None
    relative_change: np.ndarray | None = None
    redundant_with: np.ndarray | None = None
    similarity: np.ndarray | None = None
    class_rates: np.ndarray | None = None
    top_samples: np.ndarray | None = None
    top_values: np.ndarray | None = None
    bias_frozen: np.ndarray | None = None
    incoming_frozen: np.ndarray | None = None


@dataclass(frozen=True)
class NeuronStatistics:
    """All layers at one moment, by layer id, in the order of the network."""

    step: int
    layers: Mapping[int, LayerStatistics] = field(default_factory=dict)


class Snapshots(Protocol):
    """Reading what the owner published. Callable from any thread; never waits for a step longer than it must."""

    def latest(self) -> Snapshot:
        """The newest snapshot, at once."""
        ...

    def neurons(self, timeout: float = 5.0) -> NeuronStatistics:
        """Neuron statistics at most half a second old: the owner copies them between two steps when asked, at most
        twice a second. Falls back to the last copy when the owner does not come round within timeout seconds."""
        ...


class SamplePicture(NamedTuple):
    """A sample's picture, encoded. mask: its classes in colours, as PNG (RGBA) of the same size; empty where its target
    says none. note: how the picture was made of the data, for people, where something had to be guessed."""

    image: bytes
    media_type: str
    mask: bytes = b""
    note: str = ""


class Images(Protocol):
    """Pictures of samples, before augmentation where the data set keeps them so. Callable from any thread."""

    def image(self, split: str, sample_id: str, width: int, height: int, *, overlay: bool = False) -> SamplePicture:
        """One sample, shrunk to fit width x height pixels (0: as large as it is), JPEG for sizes up to 128, PNG above.
        overlay: with the classes of its pixels, half-transparent, and the boxes of its target drawn over it.
        Raises NotFound for an unknown sample, Refused where the sample has no picture or cannot be loaded."""
        ...

    def key(self, split: str, sample_id: str) -> str:
        """Changes when the picture would: an immutable cache key."""
        ...
