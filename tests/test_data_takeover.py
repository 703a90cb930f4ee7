"""A run goes on with a data set that grew, shrank or was put in another order: what is known follows the names."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from graybox.commands import (
    CorrectLabels,
    DiscardSamples,
    Pause,
    RestoreCheckpoint,
    Resume,
    SaveCheckpoint,
    SetHyperParameters,
    TagSamples,
    Undo,
    WeighSamples,
)
from graybox.errors import Refused
from graybox.launch import Training, launch
from graybox.snapshot import TrainerState
from graybox.store.checkpoints import CheckpointCatalogue
from graybox.store.samples import SampleStore
from tests.patience import PATIENCE
from tests.small_experiments import crash, tick_until, toy_data, toy_experiment

PICTURES, LABELS = toy_data(60).tensors


class Named(Dataset[Any]):
    """Samples of the same 60, by their numbers; each has a name. named: whether it says so."""

    def __init__(self, numbers: list[int], *, named: bool = True, relabelled: dict[int, int] | None = None) -> None:
        self.numbers = numbers
        other = relabelled or {}
        self.targets = [other.get(number, int(LABELS[number])) for number in numbers]
        if named:
            self.sample_ids = [f"sample {number}" for number in numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return PICTURES[self.numbers[index]], self.targets[index]


def started(root: Path, data: Dataset[Any], **changes: Any) -> Training:
    return launch(toy_experiment(train_dataset=data, eval_dataset=None, **changes), root_directory=root)


def edited(training: Training) -> None:
    """Trained, with edits of samples 3, 5 and 7."""
    trainer = training.trainer
    tick_until(training, lambda: trainer.session.step == 12)
    for command in (
        TagSamples(samples=(("train", "3"),), tag="odd"),
        DiscardSamples(samples=(("train", "5"),)),
        CorrectLabels(samples=(("train", "7"),), label=2),
        WeighSamples(samples=(("train", "3"),), weight=2.0),
        Pause(),
    ):
        done = trainer.submit(command)
        trainer.tick()
        done.result(PATIENCE)


def by_name(training: Training) -> dict[str, dict[str, Any]]:
    """What is known of each sample, by its name."""
    columns = training.stores.samples.splits["train"]
    assert columns.keys is not None
    found: dict[str, dict[str, Any]] = {}
    for row, key in enumerate(columns.keys.texts()):
        known = {name: np.asarray(column)[row].tobytes() for name, column in columns.state().items()}
        found[key] = {name: value for name, value in known.items() if not name.startswith("tag:")}
        found[key]["tags"] = [tag for tag, mask in columns.notes.tags.items() if mask[row]]
    return found


ORDER = [*range(49, 9, -1), *range(50, 55), 3, 5, 7]  # 10 samples less, 5 more, in another order


def test_what_is_known_follows_the_names_and_it_is_said(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = started(root, Named([*range(50)]))
    edited(first)
    before, journal = by_name(first), first.stores.journal.last_sequence
    met = int(first.stores.samples.splits["train"].encounters[5])
    layer = next(iter(first.trainer.session.network.named_layers()))[1]
    exciting = layer.records.train.exciting.top()
    first.close()
    with caplog.at_level(logging.WARNING):
        again = started(root, Named(ORDER))
    said = (
        "the train data set was 50 samples and is 48 (5 new, 7 gone, in another order); statistics, tags, discards and "
        "corrections follow the samples' names, and training goes on with the next epoch"
    )
    assert said in caplog.text and "begin anew" not in caplog.text
    assert again.trainer.latest().activity == said
    entry = again.stores.journal.entries(after=journal)[0]
    assert (entry.kind, entry.summary, entry.actor) == ("data_changed", said, "trainer")
    assert entry.arguments["splits"]["train"] == {
        "before": 50, "after": 48, "new": 5, "gone": 7, "reordered": True, "relabelled": 0,
    }  # fmt: skip
    after, columns = by_name(again), again.stores.samples.splits["train"]
    assert list(after) == [f"sample {number}" for number in ORDER]
    for key, known in after.items():
        if key in before:
            assert known == before[key], key
        else:
            assert known["tags"] == [] and columns.encounters[list(after).index(key)] == 0
    place = {number: row for row, number in enumerate(ORDER)}
    assert np.flatnonzero(columns.notes.tags["odd"]).tolist() == [place[3]]
    assert np.flatnonzero(columns.discarded).tolist() == [place[5]]
    assert columns.truth()[place[7]] == 2 and columns.notes.weights()[place[3]] == 2.0
    assert columns.label.tolist() == Named(ORDER).targets
    ids, _ = next(iter(again.trainer.session.network.named_layers()))[1].records.train.exciting.top()
    for neuron in range(len(ids)):
        kept = [place[i] for i in exciting[0][neuron].tolist() if i in place]
        assert ids[neuron].tolist()[: len(kept)] == kept and len(kept) > 1
    assert again.trainer.session.stream.position.offset == 0
    again.trainer.submit(Resume())
    tick_until(again, lambda: again.trainer.session.step == 30)
    assert (columns.encounters[[place[n] for n in range(50, 55)]] > 0).all() and columns.encounters[place[5]] == met
    again.close()
    silent = started(root, Named(ORDER))
    assert "was 50" not in silent.trainer.latest().activity and silent.trainer.session.step == 30
    silent.close()


def test_without_names_other_data_are_refused_and_it_is_said_how_they_differ(root: Path) -> None:
    started(root, Named([*range(50)], named=False)).close()
    for data, said in (
        (Named([*range(53)], named=False), r"50 samples, fingerprint \w+, and 53 samples.*\(3 more\)"),
        (Named([*range(40)], named=False), r"and 40 samples.*\(10 fewer\)"),
        (Named([*range(50)], named=False, relabelled={4: 9, 5: 9}), r"\(2 with another label\)"),
        (Named([*range(50)]), r"\(other samples or another order\).*no names of their own.*\(sample_ids"),
    ):
        with pytest.raises(Refused, match=said):
            started(root, data)
    started(root, Named([*range(50)], named=False)).close()


def test_labels_that_changed_are_counted(root: Path) -> None:
    first = started(root, Named([*range(50)]))
    edited(first)
    first.close()
    again = started(root, Named([*range(50)], relabelled={n: (int(LABELS[n]) + 1) % 3 for n in (4, 7)}))
    assert "(2 with another label)" in again.trainer.latest().activity
    assert again.stores.samples.splits["train"].truth()[7] == 2
    again.close()


def test_edits_of_samples_before_it_are_not_undone(root: Path) -> None:
    first = started(root, Named([*range(50)]))
    edited(first)
    first.close()
    again = started(root, Named(ORDER))
    undone = again.trainer.submit(Undo())
    again.trainer.tick()
    with pytest.raises(Refused, match="there is nothing to undo"):
        undone.result(PATIENCE)
    again.trainer.submit(SetHyperParameters({"learning_rate": 0.02})) and again.trainer.tick()
    undone = again.trainer.submit(Undo())
    again.trainer.tick()
    assert "Undid" in undone.result(PATIENCE).message
    again.close()


def test_a_checkpoint_of_before_comes_back_by_name(root: Path) -> None:
    first = started(root, Named([*range(50)]))
    edited(first)
    kept = first.trainer.submit(SaveCheckpoint("before"))
    first.trainer.tick()
    record, before = kept.result(PATIENCE).value, by_name(first)
    first.trainer.submit(Resume())
    tick_until(first, lambda: first.trainer.session.step == 20)
    first.close()
    again = started(root, Named(ORDER))
    tick_until(again, lambda: again.trainer.session.step == 25)
    restored = again.trainer.submit(RestoreCheckpoint(record.id))
    again.trainer.tick()
    assert restored.result(PATIENCE).value == 1 and again.trainer.session.step == record.step
    for key, known in by_name(again).items():
        assert key not in before or known == before[key]
    assert again.trainer.session.stream.position.offset == 0
    step = again.trainer.session.step
    crash(again)
    third = started(root, Named(ORDER))
    assert third.trainer.session.step == step and third.trainer.session.branch == 1
    third.close()


def test_what_came_after_the_last_checkpoint_needs_the_data_of_before(root: Path) -> None:
    first = started(root, Named([*range(50)]))
    edited(first)
    crash(first)
    with pytest.raises(
        Refused, match=r"the steps up to \d+, after its last checkpoint at step 0, can be made again only"
    ):
        started(root, Named(ORDER))
    again = started(root, Named([*range(50)]))
    tick_until(again, lambda: again.trainer.latest().state is TrainerState.PAUSED)
    known = by_name(again)
    again.close()
    third = started(root, Named(ORDER))
    assert {key: value for key, value in by_name(third).items() if key in known} == {
        key: value for key, value in known.items() if key in by_name(third)
    }
    third.close()


def test_edits_at_the_step_of_the_last_checkpoint_are_made_before(root: Path) -> None:
    first = started(root, Named([*range(50)]))
    tick_until(first, lambda: first.trainer.session.step == 4)
    first.trainer.submit(Pause())
    first.trainer.tick()
    kept = first.trainer.submit(SaveCheckpoint())
    first.trainer.tick()
    kept.result(PATIENCE)
    tagged = first.trainer.submit(TagSamples(samples=(("train", "3"), ("train", "20")), tag="odd"))
    first.trainer.tick()
    tagged.result(PATIENCE)
    crash(first)
    again = started(root, Named(ORDER))
    assert np.flatnonzero(again.stores.samples.splits["train"].notes.tags["odd"]).tolist() == [
        ORDER.index(20), ORDER.index(3),
    ]  # fmt: skip
    again.close()


@pytest.mark.parametrize("moment", ["journalled", "columns", "checkpoint"])
def test_a_crash_in_the_middle_is_made_good(root: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    first = started(root, Named([*range(50)]))
    edited(first)
    expected = by_name(first)
    first.close()

    class Killed(BaseException):
        pass

    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    broken = {
        "journalled": ("graybox.session_data.SessionData.take_over", kill),
        "columns": ("graybox.store.samples.SampleStore.load_state", kill),
        "checkpoint": ("graybox.data_takeover.follow_samples", kill),
    }[moment]
    if moment == "columns":
        # The first load is that of the checkpoint.
        plain, calls = SampleStore.load_state, list[int]()

        def second(self: SampleStore, state: Any) -> None:
            calls.append(1)
            plain(self, state) if len(calls) == 1 else kill()

        broken = (broken[0], second)
    with monkeypatch.context() as patch:
        patch.setattr(*broken)
        with pytest.raises(Killed):
            started(root, Named(ORDER))
    again = started(root, Named(ORDER))
    found = by_name(again)
    assert {key: known for key, known in found.items() if key in expected} == {
        key: known for key, known in expected.items() if key in found
    }
    kinds = [entry.kind for entry in again.stores.journal.entries()]
    assert kinds.count("data_changed") == 2
    again.close()
    catalogue = CheckpointCatalogue(again.stores.run.path / "checkpoints")
    assert catalogue.list()[-1].reason == "data changed"


def test_both_splits_change_at_once_and_labels_that_were_learnt_follow(root: Path) -> None:
    class Quiet(Named):
        """Tells its labels only with its samples."""

        def __init__(self, numbers: list[int]) -> None:
            super().__init__(numbers)
            self.told = self.targets
            del self.targets

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return PICTURES[self.numbers[index]], self.told[index]

    first = launch(
        toy_experiment(train_dataset=Quiet([*range(40)]), eval_dataset=Named([*range(40, 60)]), full_eval_frequency=5),
        root_directory=root,
    )
    tick_until(first, lambda: first.trainer.session.step == 12)
    first.close()
    again = launch(
        toy_experiment(train_dataset=Quiet([*range(45, 4, -1)]), eval_dataset=Named([*range(59, 39, -1)])),
        root_directory=root,
    )
    splits = again.stores.samples.splits
    assert splits["train"].label.tolist() == [-1] * 6 + LABELS[torch.arange(39, 4, -1)].tolist()
    assert splits["val"].encounters.tolist() == [2] * 20
    assert "train data set was 40" in again.trainer.latest().activity
    assert "the val data set was 20 samples and is 20 (in another order)" in again.trainer.latest().activity
    again.close()


def test_the_names_are_on_disk(root: Path) -> None:
    first = started(root, Named([*range(50)]))
    first.close()
    started(root, Named(ORDER)).close()
    files = sorted(path.name for path in first.stores.run.path.glob("keys-train-*.txt"))
    assert len(files) == 2
    assert json.loads((first.stores.run.path / "run.json").read_text())["step"] == 0
