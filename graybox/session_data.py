"""The samples of a run: which data set each split is, what is noted of them, and what becomes of that when the data
set is another one than the run was trained on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from graybox.data_change import DataChange, change_of
from graybox.data_samples_with_ops import DataSampleTrackingWrapper
from graybox.errors import Refused
from graybox.experiment import Experiment
from graybox.store.sample_columns import Rows
from graybox.store.sample_identity import carried, carried_state
from graybox.store.sample_keys import keys_on_disk
from graybox.store.samples import SampleStore
from graybox.store.targets import OF_DATA, TARGET, LabelKind, Labels

if TYPE_CHECKING:
    from graybox.training_step import BatchOutcome

_log = logging.getLogger(__name__)

Identity = tuple[int, str]
"""How many samples, and the fingerprint."""


class SessionData:
    """The samples of one session. Touched by the owner only.

    pending: splits whose data set is another one than the run knows, and whose samples have names by which they are
    known again: `take_over` carries over what is known of them, once the run stands where it was left. notice: what was
    said of that, for people. Raises Refused, naming the first difference, where a run that has checkpoints was trained
    on other data whose samples cannot be known again.
    """

    def __init__(self, experiment: Experiment, samples: SampleStore, *, has_checkpoints: bool) -> None:
        self.experiment = experiment
        self.samples = samples
        self.notice = ""
        self.pending: list[str] = []
        self._without_labels: set[str] = set()
        for split, wrapper in experiment.datasets.items():
            if has_checkpoints and self._is_other(split):
                self._check_names(split, wrapper)
                self.pending.append(split)
        for split, wrapper in experiment.datasets.items():
            if split not in self.pending:
                self._add(split, wrapper)
            wrapper.keep_in(samples, split)

    # -- what the data set tells -------------------------------------------------------------------------

    def _classes(self, wrapper: DataSampleTrackingWrapper) -> np.ndarray | None:
        """Whole numbers are no classes where the task says that they are numbers."""
        return None if self.experiment.label_reader.kind is LabelKind.NUMBER else wrapper.labels()

    def _labels(self, wrapper: DataSampleTrackingWrapper) -> Labels | None:
        return wrapper.offered_labels(self.experiment.label_reader.kind)

    def _add(self, split: str, wrapper: DataSampleTrackingWrapper, learnt: np.ndarray | None = None) -> None:
        """learnt: class labels where the data set tells none beforehand."""
        labels = self._classes(wrapper)
        known = learnt if labels is None else labels
        self.samples.add_split(split, len(wrapper), known, wrapper.fingerprint(), wrapper.names())
        if labels is None:
            self._without_labels.add(split)
        offered = self._labels(wrapper)
        if offered is not None:
            self.samples.learn_targets(split, None, offered)

    def _is_other(self, split: str) -> bool:
        known, wrapper = self.samples.splits.get(split), self.experiment.datasets[split]
        return known is not None and (known.count, known.fingerprint) != (len(wrapper), wrapper.fingerprint())

    def _check_names(self, split: str, wrapper: DataSampleTrackingWrapper) -> None:
        known = self.samples.splits[split]
        if known.keys is not None and wrapper.names() is not None:
            return
        change = change_of(known, len(wrapper), None, self._classes(wrapper), self._labels(wrapper))
        raise Refused(
            f"its {split} data set is {known.count:,} samples, fingerprint {known.fingerprint}, and "
            f"{len(wrapper):,} samples, fingerprint {wrapper.fingerprint()}, in this experiment ({change.in_words()}), "
            "and its samples have no names of their own by which they would be known again (sample_ids, see "
            "docs/samples.md); start a new run, or go back to the data it was made with"
        )

    # -- noting what happens -----------------------------------------------------------------------------

    def record(self, split: str, outcome: BatchOutcome, age: int) -> None:
        """Note what a batch did to its samples; and their labels, where the data set does not tell them beforehand."""
        samples = self.samples
        if split in self._without_labels and outcome.targets is not None:
            # What a person put in the place of the data set's label is not the data set's.
            own = samples.splits[split].notes.corrections(outcome.rows) < 0
            samples.learn_labels(split, outcome.rows[own], outcome.targets[own])
        if outcome.met is not None:
            samples.learn_targets(split, outcome.met.rows, outcome.met.labels)
        samples.record_batch(split, outcome.rows, outcome.losses, outcome.predictions, age, outcome.ratings)
        if outcome.answers is not None:
            samples.record_answers(split, outcome.rows, outcome.answers, age)

    def mark(self, marks: Mapping[str, Any]) -> None:
        """Tag samples that failed, as SampleError.marks names them; {} none. Raises StorageError."""
        for split, rows in marks.get("rows", {}).items():
            self.samples.set_tag(split, marks["tag"], np.asarray(rows, dtype=np.int64), True)

    # -- another data set --------------------------------------------------------------------------------

    def identities(self) -> dict[str, Any]:
        """Which data the columns are of, for a checkpoint."""
        splits = self.samples.splits
        return {
            split: {"count": splits[split].count, "fingerprint": splits[split].fingerprint}
            for split in self.experiment.datasets
            if split in splits
        }

    def can_carry(self, split: str, identities: Mapping[str, Any]) -> bool:
        """Whether what a checkpoint of other data knows of the samples can be carried over to the present data."""
        there, wrapper = identities.get(split), self.experiment.datasets.get(split)
        if there is None or wrapper is None or wrapper.names() is None:
            return False
        return keys_on_disk(self.samples.folder, split, there["fingerprint"]) is not None

    def go_back_to(self, identities: Mapping[str, Any]) -> None:
        """The columns become those of the data of a checkpoint, of which nothing is known; `take_over` leads on to the
        present data. For a replay, whose edits name samples by their places then."""
        for split, there in identities.items():
            known = self.samples.splits.get(split)
            if split not in self.experiment.datasets or known is None:
                continue
            if (known.count, known.fingerprint) != (there["count"], there["fingerprint"]):
                names = keys_on_disk(self.samples.folder, split, there["fingerprint"])
                self.samples.add_split(split, there["count"], None, there["fingerprint"], names)
            if self._is_other(split) and split not in self.pending:
                self.pending.append(split)

    def changes(self) -> dict[str, DataChange]:
        """How the data sets of the pending splits differ from what the run knows."""
        found = {}
        for split in self.pending:
            wrapper, known = self.experiment.datasets[split], self.samples.splits[split]
            source = self._source(split, known.fingerprint)
            found[split] = change_of(known, len(wrapper), source, self._classes(wrapper), self._labels(wrapper))
        return found

    def _source(self, split: str, fingerprint: str) -> Rows:
        """Where each sample of the present data set was in the one of a fingerprint."""
        names = self.experiment.datasets[split].names()
        before = keys_on_disk(self.samples.folder, split, fingerprint)
        assert names is not None and before is not None
        return names.rows_in(before)

    def take_over(self, changes: Mapping[str, DataChange]) -> None:
        """From now on the columns are those of the present data: what is known of a sample follows its name. Raises
        StorageError; a restart goes back to the last checkpoint then."""
        state = self.samples.state()
        for split, change in changes.items():
            known, source = self.samples.splits[split], change.source
            assert source is not None
            mine = {key.rpartition("/")[2]: v for key, v in state.items() if key.rpartition("/")[0] == split}
            told = carried_state(known.targets.of_data(), source)
            kind, learnt = known.targets.kind, carried(known.label, source, -1)
            state = {key: value for key, value in state.items() if key.rpartition("/")[0] != split}
            state |= {f"{split}/{name}": value for name, value in carried_state(mine, source).items()}
            self._add(split, self.experiment.datasets[split], learnt)
            columns = {name: told[TARGET + name] for name in OF_DATA if TARGET + name in told}
            if columns and self.samples.splits[split].targets.kind is LabelKind.NONE:
                self.samples.learn_targets(split, None, Labels(kind, columns))
        self.samples.load_state(state)
        self.pending = []

    def of_checkpoint(self, payload: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Rows]]:
        """(the state of the samples that a checkpoint holds, as the present columns have it; by split, of those that
        were other data, where each sample was then)."""
        state = {name: np.asarray(value) for name, value in payload["samples"].items()}
        sources: dict[str, Rows] = {}
        for split, there in payload.get("data", {}).items():
            known = self.samples.splits.get(split)
            if known is None or (known.count, known.fingerprint) == (there["count"], there["fingerprint"]):
                continue
            if split in self.experiment.datasets and self.can_carry(split, payload["data"]):
                sources[split] = self._source(split, there["fingerprint"])
        for split, source in sources.items():
            mine = {key.rpartition("/")[2]: v for key, v in state.items() if key.rpartition("/")[0] == split}
            state |= {f"{split}/{name}": value for name, value in carried_state(mine, source).items()}
        return state, sources


def told_changes(changes: Mapping[str, DataChange]) -> str:
    """What changed, for people."""
    parts = [
        f"the {split} data set was {change.before:,} samples and is {change.after:,} ({change.in_words()})"
        for split, change in changes.items()
    ]
    return (
        f"{'; '.join(parts)}; statistics, tags, discards and corrections follow the samples' names, and training goes "
        "on with the next epoch"
    )
