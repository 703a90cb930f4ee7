"""What a data set remembers of its samples, and what can be done to them: discard, take back, look."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from graybox.checks import in_range, is_whole
from graybox.errors import Invalid, NotFound
from graybox.randomness import mix, purpose
from graybox.sample_keeper import OwnSamples, SampleKeeper, StoredSamples, untouched
from graybox.store.sample_columns import Rows, SplitColumns
from graybox.store.sample_snapshot import OF_VERSION_1

if TYPE_CHECKING:
    import pandas as pd

    from graybox.store.samples import SampleStore

SamplePredicate = Callable[[int, int, float, int, bool, int, int], Any]
"""fn(id, age, loss, exposure, denied, prediction, label), called by position; what it answers is true or false."""


class SampleStats(enum.StrEnum):
    """What is known of a sample. Age, prediction and label are -1 and the loss is NaN where there is none yet."""

    SAMPLE_ID = "sample_id"
    PREDICTION_AGE = "prediction_age"
    """The age of the model when it saw the sample last."""
    PREDICTION_LOSS = "prediction_loss"
    EXPOSURE_AMOUNT = "exposure_amount"
    """How often it was seen."""
    DENY_LISTED = "deny_listed"
    PREDICTION = "prediction"
    LABEL = "label"


_COLUMNS = {
    SampleStats.PREDICTION_AGE: "last_age",
    SampleStats.PREDICTION_LOSS: "loss",
    SampleStats.EXPOSURE_AMOUNT: "encounters",
    SampleStats.DENY_LISTED: "discarded",
    SampleStats.PREDICTION: "prediction",
    SampleStats.LABEL: "label",
}


class SampleMemory(ABC):
    """A data set's samples with what they did, each named by its index.

    It is kept in columns: in memory while the data set is used on its own; those of the run while an experiment trains
    on it, where a discard goes through the trainer and is journalled. Discards add up: `denylist_samples` adds to them,
    `allowlist_samples()` takes all back. A discarded sample keeps its index, and is left out of training and
    evaluation.
    """

    def __init__(self) -> None:
        self._own: OwnSamples | None = None
        self._keeper: SampleKeeper | None = None

    @abstractmethod
    def __len__(self) -> int:
        """How many samples there are, the discarded ones among them."""

    @abstractmethod
    def labels(self) -> np.ndarray | None:
        """Class labels, int64 [samples]; None where the data set does not tell."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Differs for other data."""

    @property
    def columns(self) -> SplitColumns:
        """What the samples did, each column of shape [samples]; to be read only."""
        return self._samples().columns

    def update_batch_sample_stats(self, model_age: int, ids: Any, losses: Any, predictions: Any = None) -> None:
        """Note what a batch did when the model had seen `model_age` samples; one vectorised write.

        ids: [n]. losses: [n]. predictions: class numbers [n], or None to leave them as they are. A sample that comes
        twice counts twice, its last value wins. Raises NotFound for an unknown sample, Invalid for other shapes;
        nothing is changed then.
        """
        rows = self._rows(ids)
        loss = np.ascontiguousarray(_numbers(losses, "losses"), dtype=np.float32)
        predicted = None if predictions is None else _numbers(predictions, "predictions")
        if loss.shape != rows.shape or (predicted is not None and predicted.shape != rows.shape):
            raise Invalid(f"a batch of {len(rows)} samples needs as many losses and predictions, one number each")
        if predicted is not None:
            if predicted.dtype.kind not in "iub" and predicted.size:
                raise Invalid(f"predictions are class numbers, not {predicted.dtype}")
            predicted = predicted.astype(np.int64)
        if not is_whole(model_age) or model_age < 0:
            raise Invalid(f"model_age is a whole number of at least 0, not {model_age!r:.100}")
        self._samples().record(rows, loss, predicted, int(model_age))

    def log_signal(self, name: str, ids: Any, values: Any) -> None:
        """Note a number of your own for each of some samples, such as an entropy, in a column of this name.

        ids: [n]. values: [n]; the last of a sample that comes twice counts. Raises NotFound for an unknown sample,
        Invalid for other shapes or a name that a column has already; nothing is changed then.
        """
        rows = self._rows(ids)
        found = np.ascontiguousarray(_numbers(values, "values"), dtype=np.float32)
        if found.shape != rows.shape:
            raise Invalid(f"{len(rows)} samples need as many values of {name!r}, not {list(found.shape)}")
        self._samples().log(name, rows, found)

    def denylist_samples(self, ids: Any) -> int:
        """Discard these samples too; how many were not discarded before. Raises NotFound for an unknown one and, in a
        run, Refused where none would be left to train on."""
        return self._mark(self._rows(ids), True)

    def allowlist_samples(self, ids: Any = None) -> int:
        """Take discarded samples back, all of them where ids is None; how many. Raises NotFound for an unknown one."""
        return self._mark(np.flatnonzero(self.columns.discarded) if ids is None else self._rows(ids), False)

    def deny_samples_with_predicate(self, predicate: SamplePredicate) -> int:
        """Discard the samples for which predicate(id, age, loss, exposure, denied, prediction, label) is true, beside
        those that are discarded already; how many were not."""
        return self._mark(self._matching(predicate), True)

    def deny_samples_and_sample_allowed_with_predicate(
        self, predicate: SamplePredicate, allow_to_denied_factor: float, verbose: bool = False, *, seed: int = 0
    ) -> int:
        """Discard the samples for which the predicate is true, but for a random part of them: for every sample in use
        for which it is false, `allow_to_denied_factor` of them stay in use, rounded down. How many were discarded.

        seed: of what stays; the same seed keeps the same ones. verbose: print how many. Raises Invalid for a factor
        that is no number of 0 or more.
        """
        factor = in_range("allow_to_denied_factor", allow_to_denied_factor, 0.0, float(1 << 40))
        matching = self._matching(predicate)
        in_use = ~self.columns.discarded
        candidates = matching[in_use[matching]]
        others = int(np.count_nonzero(in_use)) - len(candidates)
        keep = min(int(others * factor), len(candidates))
        order = np.random.Generator(np.random.PCG64(mix(seed, purpose("allowed samples")))).permutation(len(candidates))
        count = self._mark(np.sort(candidates[order[keep:]]), True)
        if verbose:
            print(f"{len(matching):,} samples match; {count:,} were discarded and {keep:,} of them stay in use")
        return count

    def is_deny_listed(self, sample_id: int) -> bool:
        """Whether a sample is discarded. Raises NotFound for an unknown one, as all that follow."""
        return bool(self.get(sample_id, SampleStats.DENY_LISTED))

    def get_prediction_loss(self, sample_id: int) -> float:
        """The loss when it was seen last; NaN before."""
        return float(self.get(sample_id, SampleStats.PREDICTION_LOSS))

    def get_prediction_age(self, sample_id: int) -> int:
        """The age of the model when it saw the sample last; -1 before."""
        return int(self.get(sample_id, SampleStats.PREDICTION_AGE))

    def get_exposure_amount(self, sample_id: int) -> int:
        """How often the sample was seen."""
        return int(self.get(sample_id, SampleStats.EXPOSURE_AMOUNT))

    def get(self, sample_id: int, stat: SampleStats | str) -> int | float | bool:
        """One statistic of one sample, as a plain number. Raises NotFound for an unknown sample, Invalid for an unknown
        statistic."""
        try:
            wanted = SampleStats(stat)
        except ValueError:
            raise Invalid(f"{stat!r:.100} is no statistic of a sample; there are {', '.join(SampleStats)}") from None
        row = int(self._rows([sample_id])[0])
        if wanted is SampleStats.SAMPLE_ID:
            return row
        found: int | float | bool = getattr(self.columns, _COLUMNS[wanted])[row].item()
        return found

    def get_dataframe(self) -> pd.DataFrame:
        """A copy of the columns, one row per sample, with the names of SampleStats."""
        import pandas as pd  # loading it takes longer than most scripts that never ask for this

        columns = self.columns
        ids = {str(SampleStats.SAMPLE_ID): np.arange(columns.count)}
        return pd.DataFrame({**ids, **{str(stat): np.array(getattr(columns, n)) for stat, n in _COLUMNS.items()}})

    def as_records(self) -> list[dict[str, Any]]:
        """The same as one dictionary of plain numbers per sample."""
        columns = self.columns
        lists = [range(columns.count), *(getattr(columns, name).tolist() for name in _COLUMNS.values())]
        names = [str(SampleStats.SAMPLE_ID), *(str(stat) for stat in _COLUMNS)]
        return [dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """Copies of what the samples did, as tensors [samples] by column, with the fingerprint of the data set; can be
        kept by torch.save and read with weights_only=True."""
        state = {name: torch.from_numpy(column) for name, column in self.columns.state().items()}
        return {"fingerprint": self.fingerprint(), "columns": state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace what the samples did by what `state_dict` answered. Raises Invalid for that of another data set;
        nothing is changed then. In a run, restoring a checkpoint is the way that its journal knows."""
        columns = state.get("columns")
        if not isinstance(columns, Mapping) or not set(OF_VERSION_1) <= set(columns):
            raise Invalid("this is no state of a DataSampleTrackingWrapper; pass what state_dict() answered")
        found = {name: _numbers(column, name) for name, column in columns.items()}
        if state.get("fingerprint") != self.fingerprint() or any(len(c) != len(self) for c in found.values()):
            count = len(found["loss"])
            raise Invalid(f"the state belongs to another data set, of {count:,} samples; this one has {len(self):,}")
        self._samples().replace(found)

    def __eq__(self, other: object) -> bool:
        """Whether it is the same data, as far as the fingerprint tells, and its samples did the same."""
        if not isinstance(other, SampleMemory):
            return NotImplemented
        mine, theirs = self.columns, other.columns
        if self.fingerprint() != other.fingerprint():
            return False
        here, there = mine.state(), theirs.state()
        return here.keys() == there.keys() and all(
            np.array_equal(value, there[name], equal_nan=value.dtype.kind == "f") for name, value in here.items()
        )

    __hash__ = None  # type: ignore[assignment]  # what is equal changes with every batch

    # -- who keeps it ----------------------------------------------------------------------------------

    def keep_in(self, store: SampleStore, split: str, discard: Callable[[Rows, bool], int] | None = None) -> None:
        """From now on the samples are those of a split of a run's store. What was known of them before is taken along
        into a run that knows nothing of its samples yet.

        discard: see StoredSamples.
        """
        stored = StoredSamples(store, split, discard)
        fits = stored.columns.count == len(self)  # a run may know other data, see SessionData
        if fits and self._own is not None and not untouched(self._own.columns) and untouched(stored.columns):
            stored.replace(self._own.columns.state())
        self._keeper = stored

    def let_go(self, *, keep: bool = True) -> None:
        """The run has ended: the data set is on its own again, with what its samples did there or, unless that is
        kept, what they had done before."""
        if self._keeper is not None and keep:
            self._own = OwnSamples(self._keeper.columns)
        self._keeper = None

    def __getstate__(self) -> dict[str, Any]:
        # For a DataLoader's workers: a store stays where it is.
        columns = self._samples().columns
        own = SplitColumns("own", columns.count, labels=columns.label)
        own.set_state(columns.state())
        own.targets.set_of_data(columns.targets.of_data())
        return {**self.__dict__, "_keeper": None, "_own": OwnSamples(own)}

    def _samples(self) -> SampleKeeper:
        if self._keeper is not None:
            return self._keeper
        if self._own is None:
            self._own = OwnSamples(SplitColumns("own", len(self), labels=self.labels()))
        return self._own

    def _rows(self, ids: Any) -> Rows:
        """Sample ids as checked rows, int64 [n]."""
        if isinstance(ids, (set, frozenset)) or (isinstance(ids, Iterable) and not hasattr(ids, "__len__")):
            ids = sorted(ids)
        found = _numbers(ids, "sample ids")
        if found.ndim != 1 or (found.dtype.kind not in "iu" and found.size):
            raise Invalid(f"sample ids are whole numbers [n], not {found.dtype} {list(found.shape)}")
        found = found.astype(np.int64)
        strange = found[(found < 0) | (found >= len(self))]
        if strange.size:
            raise NotFound(f"there is no sample {strange[0]}; the data set has samples 0 to {len(self) - 1}")
        return found

    def _mark(self, rows: Rows, denied: bool) -> int:
        return self._samples().set_discarded(rows, denied) if len(rows) else 0

    def _matching(self, predicate: SamplePredicate) -> Rows:
        """The rows for which the user's predicate is true. It is called for every sample: it may be any function."""
        if not callable(predicate):
            raise Invalid(f"the predicate is a function, not a {type(predicate).__name__}")
        known = self.columns
        columns = (known.last_age, known.loss, known.encounters, known.discarded, known.prediction, known.label)
        rows = enumerate(zip(*(column.tolist() for column in columns), strict=True))
        return np.flatnonzero(np.fromiter((bool(predicate(row, *values)) for row, values in rows), bool, known.count))


def _numbers(values: Any, what: str) -> np.ndarray:
    """Numbers of a tensor (on any device), an array or a sequence."""
    if isinstance(values, torch.Tensor):
        # NumPy has no bfloat16; float64 holds every value of the others.
        return (values.detach().double() if values.is_floating_point() else values).cpu().numpy()
    try:
        found = np.asarray(values)
    except (TypeError, ValueError) as error:  # lists of different lengths
        raise Invalid(f"{what} are numbers [n]: {error}") from None
    if found.dtype.kind not in "iufb":
        raise Invalid(f"{what} are numbers [n], not {type(values).__name__} of {found.dtype}")
    return found
