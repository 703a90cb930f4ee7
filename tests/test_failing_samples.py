"""Data sets that misbehave: the sample is named and tagged, the trainer lives on, and a replay tags the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from graybox.commands import DiscardSamples, Resume, TagSamples, Undo
from graybox.data_samples_with_ops import CollateWithRows, LoadFailure, collate_samples
from graybox.errors import Invalid, Refused
from graybox.failing_samples import (
    NonFiniteLoss,
    SampleLoadError,
    SampleStepError,
    bad_rows,
    cannot_be_collated,
    fails_alone,
    odd_items,
    one_of,
)
from graybox.launch import Training, launch
from graybox.segmentation import IGNORED
from graybox.snapshot import TrainerState
from graybox.store.query import check, parse, rows
from graybox.store.sample_table import SampleTable
from graybox.training_step import check_classes
from tests.patience import PATIENCE
from tests.small_experiments import crash, tick_until, toy_data, toy_experiment

PICTURES, LABELS = toy_data(24).tensors


class Spoilt(Dataset[Any]):
    """Sample 5 is what `spoil` makes of (picture, label), until it is mended."""

    def __init__(self, spoil: Callable[[Any, Any], Any], count: int = 24) -> None:
        self.spoil, self.count, self.mended = spoil, count, False

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        picture, label = PICTURES[index], int(LABELS[index])
        return self.spoil(picture, label) if index == 5 and not self.mended else (picture, label)


def raises(picture: Any, label: Any) -> Any:
    raise OSError("the file is truncated")


SPOILT: list[tuple[Callable[[Any, Any], Any], str]] = [
    (raises, "training sample 5 failed to load: OSError: the file is truncated"),
    (lambda x, y: None, "training sample 5 failed to load: the data set answers None; a sample is a pair"),
    (lambda x, y: "a text", "training sample 5 failed to load: the data set answers a str; a sample is a pair"),
    (lambda x, y: (x,), "training sample 5 failed to load: the data set answers a tuple of 1; a sample is a pair"),
    (lambda x, y: (x, y, 0), "training sample 5 failed to load: the data set answers a tuple of 3"),
    (lambda x, y: x, "training sample 5 failed to load: the data set answers a Tensor"),
    (lambda x, y: {"labels": y}, "training sample 5 failed to load: the data set answers a dict"),
    (lambda x, y: (x[:, :3], y), "Error when its batch is put together: "),
    (lambda x, y: (x, "cat"), "training sample 5 "),
    (lambda x, y: (x, None), "Error when its batch is put together: "),
    (lambda x, y: (x, torch.tensor([y, y])), "training sample 5 "),
    (lambda x, y: (x, object()), "Error when its batch is put together: "),
    (lambda x, y: (x, 77), "training sample 5 cannot be used: IndexError: Target 77 is out of bounds"),
    (lambda x, y: (x * float("nan"), y), r"the loss is nan (from training sample 5)"),
]


def tagged(training: Training, tag: str) -> list[int]:
    table = SampleTable(list(training.stores.samples.splits.values()))
    query = parse(f"tag:{tag} and split == 'train'")
    check(query, table)
    return rows(query, table).tolist()


@pytest.mark.parametrize(("spoil", "said"), SPOILT)
@pytest.mark.parametrize("first", [True, False])
def test_the_sample_is_named_and_tagged_and_training_goes_on(
    root: Path, spoil: Callable[[Any, Any], Any], said: str, first: bool
) -> None:
    """first: it comes first in its batch, after which torch takes the kind of all."""
    data = Spoilt(spoil)
    order = {"batch_size": 5 if first else 8, "train_shuffle": False, "workers": 0}
    training = launch(toy_experiment(train_dataset=data, **order), root_directory=root)
    tick_until(training, lambda: training.trainer.latest().state is TrainerState.FAILED)
    error = training.trainer.latest().error
    tag = "bad_loss" if "loss" in said else "failed"
    assert said in error and "training sample 5" in error and f"tag:{tag} finds" in error
    assert training.trainer.session.step == int(first)
    assert tagged(training, tag) == [5]
    training.trainer.submit(DiscardSamples(rows={"train": np.array([5])}))
    training.trainer.submit(Resume())
    tick_until(training, lambda: training.trainer.session.step >= 6)
    training.close()


def test_a_mended_sample_stays_tagged_until_somebody_takes_the_tag_away(root: Path) -> None:
    data = Spoilt(raises)
    training = launch(toy_experiment(train_dataset=data), root_directory=root)
    tick_until(training, lambda: training.trainer.latest().state is TrainerState.FAILED)
    data.mended = True
    training.trainer.submit(Resume())
    step = training.trainer.session.step
    tick_until(training, lambda: training.trainer.session.step >= step + 6)
    assert tagged(training, "failed") == [5]
    sample = {"samples": (("train", "5"),), "tag": "failed"}
    training.trainer.submit(TagSamples(value=False, **sample))
    training.trainer.tick()
    assert not training.stores.samples.splits["train"].notes.tags
    training.trainer.submit(Undo())
    training.trainer.tick()
    assert tagged(training, "failed") == [5]
    refused = training.trainer.submit(TagSamples(value=True, **sample))
    training.trainer.tick()
    with pytest.raises(Refused, match="the tag failed is given by training itself"):
        refused.result(PATIENCE)
    training.close()


def test_a_replay_tags_what_was_tagged(root: Path) -> None:
    data = Spoilt(raises)
    training = launch(toy_experiment(train_dataset=data, batch_size=4), root_directory=root)
    tick_until(training, lambda: training.trainer.latest().state is TrainerState.FAILED)
    data.mended = True
    training.trainer.submit(Resume())
    tick_until(training, lambda: training.trainer.session.step >= 15)
    training.trainer.submit(TagSamples(samples=(("train", "3"),), tag="seen"))
    training.trainer.tick()
    state = training.stores.samples.state()
    step = training.trainer.session.step
    crash(training)
    again = launch(toy_experiment(train_dataset=data, batch_size=4), root_directory=root)
    tick_until(again, lambda: again.trainer.session.step == step and not again.trainer.latest().error)
    found = again.stores.samples.state()
    assert found.keys() == state.keys() and tagged(again, "failed") == [5]
    for name, value in state.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    again.close()


def test_an_evaluation_names_and_tags_too(root: Path) -> None:
    data = Spoilt(lambda x, y: (x, 77))
    training = launch(toy_experiment(eval_dataset=data, full_eval_frequency=2), root_directory=root)
    tick_until(training, lambda: training.trainer.latest().state is TrainerState.FAILED)
    assert "val sample 5 cannot be used: IndexError: Target 77" in training.trainer.latest().error
    assert np.flatnonzero(training.stores.samples.splits["val"].notes.tags["failed"]).tolist() == [5]
    training.close()


def test_an_evaluation_tags_a_loss_that_is_no_number(root: Path) -> None:
    data = Spoilt(lambda x, y: (x * float("inf"), y))
    training = launch(toy_experiment(eval_dataset=data, full_eval_frequency=2), root_directory=root)
    tick_until(training, lambda: training.trainer.session.step >= 3)
    assert np.flatnonzero(training.stores.samples.splits["val"].notes.tags["bad_loss"]).tolist() == [5]
    assert training.trainer.latest().state is TrainerState.RUNNING
    training.close()


@pytest.mark.parametrize(
    ("spoil", "kind", "tag"),
    [(raises, SampleLoadError, "failed"), (lambda x, y: (x, 77), SampleStepError, "failed"),
     (lambda x, y: (x * float("nan"), y), NonFiniteLoss, "bad_loss")],
)  # fmt: skip
def test_a_loop_of_ones_own_hears_it_and_the_sample_is_tagged(
    root: Path, spoil: Callable[[Any, Any], Any], kind: type[Exception], tag: str
) -> None:
    data = Spoilt(spoil)
    experiment = toy_experiment(train_dataset=data, eval_dataset=Spoilt(raises), root_log_dir=root, train_shuffle=False)
    with pytest.raises(kind, match="sample 5"):
        experiment.train_one_step()
    assert np.flatnonzero(experiment.datasets["train"].columns.notes.tags[tag]).tolist() == [5]
    with pytest.raises(SampleLoadError, match="val sample 5"):
        experiment.eval_full()
    assert np.flatnonzero(experiment.datasets["val"].columns.notes.tags["failed"]).tolist() == [5]
    data.mended = True
    experiment.train_one_step()
    experiment.close()


def test_a_length_that_lies_is_said(root: Path) -> None:
    training = launch(toy_experiment(train_dataset=Spoilt(raises, 30), train_shuffle=False), root_directory=root)
    training.trainer.submit(DiscardSamples(rows={"train": np.array([5])}))
    tick_until(training, lambda: training.trainer.latest().state is TrainerState.FAILED)
    error = training.trainer.latest().error
    assert "training sample 24 failed to load: IndexError" in error and "the data set says that it has 30" in error
    training.close()

    class Worse(Spoilt):
        def __len__(self) -> int:
            return -1

    with pytest.raises(Invalid, match="the length of Worse cannot be told"):
        toy_experiment(train_dataset=Worse(raises))


def test_where_no_sample_is_one_all_of_the_batch_are_named(root: Path) -> None:
    class Pictures(Spoilt):
        def __getitem__(self, index: int) -> Any:
            return (PICTURES[index],) if index >= 8 else (PICTURES[index], int(LABELS[index]))

    training = launch(toy_experiment(train_dataset=Pictures(raises), train_shuffle=False), root_directory=root)
    tick_until(training, lambda: training.trainer.latest().state is TrainerState.FAILED)
    assert (
        "training samples 8, 9, 10, 11, 12, 13, 14, 15 cannot be used: a batch is a pair"
        in training.trainer.latest().error
    )
    assert tagged(training, "failed") == [*range(8, 16)]
    training.close()


def test_what_is_not_about_samples_tags_none(root: Path) -> None:
    training = launch(toy_experiment(), root_directory=root)
    training.trainer.session.network.failure = RuntimeError("a defect of the network")  # type: ignore[assignment]
    tick_until(training, lambda: training.trainer.latest().state is TrainerState.FAILED)
    assert training.trainer.latest().error == "RuntimeError: a defect of the network"
    assert not training.stores.samples.splits["train"].notes.tags
    training.close()
    whole = launch(toy_experiment(), root_directory=root, new_run=True)
    whole.trainer.session.network.hurt = True  # type: ignore[assignment]
    tick_until(whole, lambda: whole.trainer.latest().state is TrainerState.FAILED)
    assert "the loss is nan; the weights" in whole.trainer.latest().error
    assert not whole.stores.samples.splits["train"].notes.tags
    whole.close()


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_a_class_beyond_the_networks_is_found_before_a_gpu_looks_it_up(task: str) -> None:
    if task == "classification":
        experiment = toy_experiment()
        targets = {True: torch.tensor([0, 2, -100]), False: torch.tensor([0, 3, 1])}
        answer: Any = torch.zeros(3, 3)
    else:
        model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1))
        data = TensorDataset(torch.randn(6, 1, 4, 4), torch.zeros(6, 4, 4, dtype=torch.int64))
        experiment = toy_experiment(model=model, train_dataset=data, eval_dataset=None, task="segmentation")
        right, wrong = torch.zeros(3, 4, 4, dtype=torch.int64), torch.zeros(3, 4, 4, dtype=torch.int64)
        right[0, 0, 0], wrong[1, 2, 3] = IGNORED, 3
        targets, answer = {True: right, False: wrong}, {"out": torch.zeros(3, 3, 4, 4)}
    rows = torch.tensor([7, 8, 9])
    check_classes(experiment, "train", rows, targets[False])  # nobody knows yet how many there are
    experiment.task.prepare(answer)
    check_classes(experiment, "train", rows, targets[True])
    with pytest.raises(
        SampleStepError, match="training sample 8 cannot be used: a class is beyond the 3 of the network"
    ):
        check_classes(experiment, "train", rows, targets[False])
    experiment.task.classes = 4  # an output neuron went since
    check_classes(experiment, "train", rows, targets[False])


@given(st.lists(st.sampled_from([None, "ab", (1, 2), (1, 2, 3), {"labels": 1}, 7]), min_size=1, max_size=9))
def test_what_is_no_sample_is_found(items: list[Any]) -> None:
    found = odd_items(items)
    none = [number for number, item in enumerate(items) if item is None or isinstance(item, str)]
    if none:
        assert found == none
    for number in found:
        assert items[number] is None or isinstance(items[number], str) or 2 * items.count(items[number]) < len(items)


def test_a_collate_function_that_fails_names_whom_it_fails_for() -> None:
    def collate(items: list[Any]) -> Any:
        if any(item == 3 for item in items):
            raise ValueError("three")
        return items

    assert cannot_be_collated([1, 2, 3, 4, 3], collate) == [2, 4]
    failure = CollateWithRows(collate)([(10, 1), (20, 3)])
    assert isinstance(failure, LoadFailure) and (failure.row, failure.others) == (20, ())
    assert "ValueError when its batch is put together: three" in failure.reason and "in collate" in failure.trace
    sizes = [torch.zeros(2), torch.zeros(2), torch.zeros(3)]
    assert cannot_be_collated(sizes, torch.stack) == [2]
    assert cannot_be_collated(sizes[1:], torch.stack) == [0, 1]


@given(st.sets(st.integers(0, 5)))
def test_samples_that_fail_alone(bad: set[int]) -> None:
    def run(number: int) -> None:
        assert number not in bad

    assert fails_alone(6, run) == (sorted(bad) if len(bad) < 6 else [])


def test_one_sample_of_a_batch() -> None:
    pair = (torch.arange(6).view(3, 2), [{"boxes": 1}, {"boxes": 2}, {"boxes": 3}])
    assert one_of(pair[0], 1, 3).tolist() == [[2, 3]] and one_of(pair[1], 1, 3) == [{"boxes": 2}]
    assert one_of({"a": torch.arange(3), "b": torch.tensor(7)}, 2, 3) == {"a": torch.tensor([2]), "b": torch.tensor(7)}
    two = one_of([torch.arange(2), torch.arange(2) + 5], 1, 2)
    assert [part.tolist() for part in two] == [[1], [6]]


def test_losses_that_are_no_numbers() -> None:
    numbers = np.array([4, 5, 6])
    assert bad_rows(float("nan"), numbers, np.array([1, np.nan, np.inf])) == [5, 6]
    assert bad_rows(float("inf"), numbers, np.array([1, np.nan, np.inf])) == [6]
    assert bad_rows(float("nan"), numbers, np.full(3, np.nan)) == [] == bad_rows(1.0, numbers, np.array([1, np.nan, 1]))


def test_samples_with_boxes_stay_lists() -> None:
    items = [(torch.zeros(3, 4, 4), {"boxes": torch.zeros(n, 4), "labels": torch.ones(n)}) for n in (2, 0, 1)]
    images, targets = collate_samples(items)
    assert images.shape == (3, 3, 4, 4) and [len(target["boxes"]) for target in targets] == [2, 0, 1]
    images, _ = collate_samples([*items, (torch.zeros(3, 5, 4), items[0][1])])
    assert [tuple(image.shape) for image in images] == [(3, 4, 4)] * 3 + [(3, 5, 4)]
    plain = collate_samples([(torch.zeros(2), 1), (torch.zeros(2), 0)])
    assert plain[1].tolist() == [1, 0]
