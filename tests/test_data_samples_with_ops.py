"""Samples with a memory: labels without loading, fingerprints, the same augmentation whenever a sample is loaded."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset
from torchvision import datasets

from graybox.data_samples_with_ops import (
    CollateWithRows,
    DataSampleTrackingWrapper,
    LoadFailure,
    SampleStats,
    SeededDataset,
    Token,
    read_labels,
    sample_seed,
)
from graybox.errors import Invalid, NotFound
from graybox.store.samples import SampleStore
from tests.small_experiments import Augmented, toy_data


class Listed(Dataset[Any]):
    """A data set with whatever attributes a user's has."""

    def __init__(self, count: int, **attributes: Any) -> None:
        self.count = count
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("labels are read without loading a sample")


def image_folder(folder: Path, **options: Any) -> datasets.ImageFolder:
    for label, names in {"cat": ("a", "b", "c"), "dog": ("d", "e")}.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for name in names:
            Image.new("RGB", (4, 4), (ord(name), 0, 0)).save(folder / label / f"{name}.png")
    return datasets.ImageFolder(str(folder), **options)


@pytest.mark.parametrize(
    ("dataset", "labels"),
    [
        (Listed(3, targets=[2, 0, 1]), [2, 0, 1]),
        (Listed(3, targets=torch.tensor([2, 0, 1], dtype=torch.uint8)), [2, 0, 1]),
        (Listed(3, labels=np.array([5, 5, 6], dtype=np.uint16)), [5, 5, 6]),
        (Listed(2, y=[1, 0]), [1, 0]),
        (Listed(2, samples=[("a.png", 1), ("b.png", 0)]), [1, 0]),
        (TensorDataset(torch.zeros(2, 1), torch.tensor([1, 0])), [1, 0]),
        (Subset(Subset(Listed(4, targets=[3, 2, 1, 0]), [3, 1, 0]), [1, 2]), [2, 3]),
        (Listed(2, targets=[1, 3], target_transform=lambda label: label - 1), [0, 2]),
        (Listed(2, targets=[1, 3], target_transform=lambda label: torch.tensor(label + 1)), [2, 4]),
        (Listed(3, targets=[0.5, 1.5, 2.5]), None),
        (Listed(3, targets=["a", "b", "c"]), None),
        (Listed(3, targets=[1, 2]), None),
        (Listed(2, targets=[[1, 2], [3]]), None),
        (Listed(2, targets=[{"boxes": 1}, {"boxes": 2}]), None),
        (Listed(2, targets=[0, 1], target_transform=lambda label: {}[label]), None),
        (Listed(2, labels=lambda: [1, 2]), None),
        (Listed(2), None),
        (TensorDataset(torch.zeros(2, 1)), None),
    ],
)
def test_labels_are_read_without_loading(dataset: Any, labels: list[int] | None) -> None:
    found = read_labels(dataset)
    assert (None if found is None else found.tolist()) == labels
    assert found is None or found.dtype == np.int64


def test_an_image_folder_tells_labels_and_names(tmp_path: Path) -> None:
    wrapper = DataSampleTrackingWrapper(Subset(image_folder(tmp_path), [0, 4]))
    labels = wrapper.labels()
    assert labels is not None and labels.tolist() == [0, 1]
    assert wrapper.class_names() == ("cat", "dog")
    assert DataSampleTrackingWrapper(Listed(2, classes="ab")).class_names() == ()


def test_an_item_says_which_sample_it_is() -> None:
    wrapper = DataSampleTrackingWrapper(TensorDataset(torch.arange(3.0), torch.tensor([2, 1, 0])))
    data, row, label = wrapper[-1]
    assert (float(data), row, int(label)) == (2.0, 2, 0)
    assert len(wrapper) == 3 and len(list(wrapper)) == 3  # iterating ends
    with pytest.raises(IndexError, match="no sample 3: the data set has 3"):
        wrapper[3]
    assert DataSampleTrackingWrapper(wrapper).dataset is wrapper.dataset
    with pytest.raises(Invalid, match="pair"):
        DataSampleTrackingWrapper([1, 2])[0]


class Stream(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(3))


class CountedStream(Stream):
    def __len__(self) -> int:
        return 3


@pytest.mark.parametrize("dataset", [Stream(), CountedStream(), iter([1]), 5, object()])
def test_what_cannot_be_indexed_is_refused(dataset: Any) -> None:
    with pytest.raises(Invalid, match="map-style"):
        DataSampleTrackingWrapper(dataset)


def test_the_fingerprint_tells_data_sets_apart(tmp_path: Path) -> None:
    data = TensorDataset(torch.zeros(6, 1))
    different = [
        Listed(3, targets=[0, 1, 2]), Listed(3, targets=[0, 2, 1]), Listed(3), Listed(4), data,
        Subset(data, [0, 1, 2]), Subset(data, [0, 1, 3]), image_folder(tmp_path / "one"),
    ]  # fmt: skip
    found = [DataSampleTrackingWrapper(dataset).fingerprint() for dataset in different]
    assert len(set(found)) == len(found)
    # The same files elsewhere are the same data; another name is another sample, with labels as before.
    moved = image_folder(tmp_path / "two")
    assert DataSampleTrackingWrapper(moved).fingerprint() == found[-1]
    (tmp_path / "two" / "cat" / "b.png").rename(tmp_path / "two" / "cat" / "bb.png")
    assert DataSampleTrackingWrapper(datasets.ImageFolder(str(tmp_path / "two"))).fingerprint() != found[-1]


@given(st.integers(0, 2**48), st.integers(0, 50), st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_a_sample_is_loaded_the_same_whatever_came_before(seed: int, epoch: int, rows: list[int]) -> None:
    dataset = SeededDataset(Augmented(10))
    together = dataset.__getitems__([Token(row, sample_seed(seed, epoch, row)) for row in rows])
    for row, (found, item) in zip(rows, together, strict=True):
        torch.rand(3)  # somebody else draws in between
        alone = dataset[Token(row, sample_seed(seed, epoch, row))]
        assert found == alone[0] == row
        assert torch.equal(item[0], alone[1][0])
    other = dataset[Token(rows[0], sample_seed(seed, epoch + 1, rows[0]))]
    # Each of the three generators draws something else in another epoch.
    assert bool((other[1][0].flatten()[1:4] != together[0][1][0].flatten()[1:4]).all())


def test_a_sample_that_cannot_be_loaded_is_named_and_the_others_are_there(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("1")
    items = SeededDataset(Augmented(3, broken)).__getitems__([Token(row, 0) for row in range(3)])
    assert [row for row, _ in items] == [0, 1, 2]
    failure = items[1][1]
    assert isinstance(failure, LoadFailure)
    assert (failure.row, failure.reason) == (1, "OSError: file 1.png is truncated")
    assert "in __getitem__" in failure.trace
    assert CollateWithRows()(items) is failure
    collated = CollateWithRows()([items[0], items[2]])
    assert isinstance(collated, tuple)
    assert collated[0].tolist() == [0, 2] and collated[1][0].shape == (2, 1, 4, 4)


def remembered(count: int = 6, labels: list[int] | None = None) -> DataSampleTrackingWrapper:
    targets = list(range(count)) if labels is None else labels
    return DataSampleTrackingWrapper(Listed(count, targets=targets))


def test_what_a_batch_did_is_remembered() -> None:
    samples = remembered()
    samples.update_batch_sample_stats(8, [1, 4, 1], torch.tensor([0.5, 0.25, 0.75], requires_grad=True), [3, 4, 2])
    samples.update_batch_sample_stats(16, torch.tensor([4]), np.array([0.125]))
    assert (samples.get_exposure_amount(1), samples.get_exposure_amount(4), samples.get_exposure_amount(0)) == (2, 2, 0)
    assert (samples.get_prediction_loss(1), samples.get_prediction_loss(4)) == (0.75, 0.125)
    assert np.isnan(samples.get_prediction_loss(0))
    assert [samples.get_prediction_age(row) for row in range(6)] == [-1, 8, -1, -1, 16, -1]
    assert [samples.get(row, SampleStats.PREDICTION) for row in (1, 4, 5)] == [2, 4, -1]
    assert (samples.get(3, "label"), samples.get(3, SampleStats.SAMPLE_ID)) == (3, 3)
    kinds = {type(samples.get(1, stat)) for stat in SampleStats}
    assert kinds == {int, float, bool}


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda s: s.update_batch_sample_stats(1, [0, 6], [1.0, 1.0]), NotFound, "no sample 6.*samples 0 to 5"),
        (lambda s: s.update_batch_sample_stats(1, [0, -1], [1.0, 1.0]), NotFound, "no sample -1"),
        (lambda s: s.update_batch_sample_stats(1, [0, 1], [1.0]), Invalid, "2 samples needs as many losses"),
        (lambda s: s.update_batch_sample_stats(1, [0, 1], [1.0, 2.0], [1]), Invalid, "as many losses and predictions"),
        (lambda s: s.update_batch_sample_stats(1, [0], [1.0], [0.5]), Invalid, "predictions are class numbers"),
        (lambda s: s.update_batch_sample_stats(-1, [0], [1.0]), Invalid, "model_age is a whole number of at least 0"),
        (lambda s: s.update_batch_sample_stats(1.5, [0], [1.0]), Invalid, "model_age"),
        (lambda s: s.update_batch_sample_stats(1, ["a"], [1.0]), Invalid, "sample ids are numbers"),
        (lambda s: s.update_batch_sample_stats(1, [[0], [1, 2]], [1.0]), Invalid, "sample ids are numbers"),
        (lambda s: s.denylist_samples([0.5]), Invalid, "sample ids are whole numbers"),
        (lambda s: s.denylist_samples([True]), Invalid, "sample ids are whole numbers"),
        (lambda s: s.denylist_samples(None), Invalid, "sample ids are numbers"),
        (lambda s: s.denylist_samples({1, 9}), NotFound, "no sample 9"),
        (lambda s: s.allowlist_samples([7]), NotFound, "no sample 7"),
        (lambda s: s.get(0, "size"), Invalid, "'size' is no statistic of a sample; there are sample_id, prediction"),
        (lambda s: s.is_deny_listed(6), NotFound, "no sample 6"),
        (lambda s: s.deny_samples_with_predicate(5), Invalid, "the predicate is a function"),
        (lambda s: s.deny_samples_with_predicate(lambda *_: 1 // 0), ZeroDivisionError, "division"),
        (lambda s: s.deny_samples_and_sample_allowed_with_predicate(lambda *_: True, -1), Invalid, "allow_to_denied"),
        (lambda s: s.load_state_dict({}), Invalid, r"pass what state_dict\(\) answered"),
        (lambda s: s.load_state_dict(remembered(5).state_dict()), Invalid, "of 5 samples; this one has 6"),
        (lambda s: s.load_state_dict(remembered(6, [0] * 6).state_dict()), Invalid, "another data set"),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(change: Any, kind: type[Exception], message: str) -> None:
    samples = remembered()
    samples.update_batch_sample_stats(8, [1, 2], [0.5, 0.25], [1, 1])
    samples.denylist_samples([3])
    before = samples.state_dict()
    with pytest.raises(kind, match=message):
        change(samples)
    same = remembered()
    same.load_state_dict(before)
    assert samples == same


def test_discards_add_up_and_are_taken_back() -> None:
    samples = remembered()
    assert samples.denylist_samples({4, 1}) == 2
    assert samples.denylist_samples(row for row in (1, 2)) == 1
    assert [samples.is_deny_listed(row) for row in range(6)] == [False, True, True, False, True, False]
    assert samples.allowlist_samples(torch.tensor([2, 3])) == 1
    assert samples.denylist_samples([]) == 0
    assert samples.allowlist_samples() == 2 and not any(map(samples.is_deny_listed, range(6)))
    assert len(samples) == 6


def test_a_predicate_is_told_what_is_known_and_adds_to_the_discards() -> None:
    samples = remembered(4, [7, 8, 9, 7])
    samples.update_batch_sample_stats(8, [1, 2], [0.5, 0.25], [8, 7])
    samples.denylist_samples([0])
    told: list[Any] = []

    def predicate(sample_id: int, age: int, loss: float, times: int, denied: bool, prediction: int, label: int) -> bool:
        told.append((sample_id, age, loss, times, denied, prediction, label))
        return prediction >= 0 and prediction != label

    assert samples.deny_samples_with_predicate(predicate) == 1
    assert told[1:3] == [(1, 8, 0.5, 1, False, 8, 8), (2, 8, 0.25, 1, False, 7, 9)]
    assert told[0][4] is True and [each[0] for each in told] == [0, 1, 2, 3]
    assert [samples.is_deny_listed(row) for row in range(4)] == [True, False, True, False]


@given(
    st.lists(st.booleans(), min_size=1, max_size=40),
    st.sets(st.integers(0, 39)),
    st.floats(0, 5),
    st.integers(0, 2**40),
)
def test_part_of_what_a_predicate_denies_stays(matches: list[bool], denied: set[int], factor: float, seed: int) -> None:
    denied = {row for row in denied if row < len(matches)}

    def used(seed: int) -> set[int]:
        samples = remembered(len(matches))
        samples.denylist_samples(denied)
        before = {row for row in range(len(matches)) if row not in denied}
        count = samples.deny_samples_and_sample_allowed_with_predicate(lambda row, *_: matches[row], factor, seed=seed)
        after = {row for row in range(len(matches)) if not samples.is_deny_listed(row)}
        assert after <= before and len(before) - len(after) == count
        return after

    found = used(seed)
    others = {row for row, match in enumerate(matches) if not match and row not in denied}
    candidates = {row for row, match in enumerate(matches) if match and row not in denied}
    assert others <= found
    assert len(found & candidates) == min(int(len(others) * factor), len(candidates))
    assert used(seed) == found


def test_what_stays_is_drawn_at_random_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    def used(seed: int) -> tuple[int, ...]:
        samples = remembered(60)
        samples.deny_samples_and_sample_allowed_with_predicate(lambda row, *_: row >= 20, 0.5, verbose=True, seed=seed)
        return tuple(row for row in range(60) if not samples.is_deny_listed(row))

    drawn = {used(seed) for seed in range(20)}
    assert len(drawn) == 20 and set().union(*drawn) == set(range(60))
    assert capsys.readouterr().out.splitlines()[0] == ("40 samples match; 30 were discarded and 10 of them stay in use")


def test_all_of_it_as_a_table_and_as_records() -> None:
    samples = remembered(3)
    samples.update_batch_sample_stats(8, [1], [0.5], [2])
    samples.denylist_samples([2])
    frame = samples.get_dataframe()
    assert list(frame.columns) == [str(stat) for stat in SampleStats] and len(frame) == 3
    assert frame.loc[1].to_dict() == {
        "sample_id": 1, "prediction_age": 8, "prediction_loss": 0.5, "exposure_amount": 1, "deny_listed": False,
        "prediction": 2, "label": 1,
    }  # fmt: skip
    records = samples.as_records()
    assert records[1] == {str(stat): samples.get(1, stat) for stat in SampleStats}
    assert records[2]["deny_listed"] is True and records[2]["sample_id"] == 2
    frame.loc[0, "deny_listed"] = True
    assert not samples.is_deny_listed(0)  # a copy


def test_its_state_is_kept_and_comes_back(tmp_path: Path) -> None:
    samples = remembered()
    samples.update_batch_sample_stats(8, [1, 2], [0.5, float("nan")], [1, 1])
    samples.denylist_samples([3])
    torch.save(samples.state_dict(), tmp_path / "samples.pt")
    same = remembered()
    assert same != samples
    same.load_state_dict(torch.load(tmp_path / "samples.pt", weights_only=True))
    assert same == samples
    same.update_batch_sample_stats(9, [5], [1.0])
    assert same != samples and samples.get_exposure_amount(5) == 0
    assert remembered(6, [0] * 6) != remembered() and samples != 5


def test_two_bytes_of_a_loss_are_enough() -> None:
    samples = remembered()
    samples.update_batch_sample_stats(8, [1, 2], torch.tensor([0.5, 0.25], dtype=torch.bfloat16))
    assert samples.get_prediction_loss(1) == 0.5


def test_a_loader_of_ones_own_works_in_a_worker() -> None:
    samples = DataSampleTrackingWrapper(toy_data(6))
    samples.denylist_samples([1])
    loader = DataLoader(samples, batch_size=4, num_workers=1, multiprocessing_context="forkserver")
    batches = list(loader)
    assert torch.cat([ids for _, ids, _ in batches]).tolist() == list(range(6))
    again = pickle.loads(pickle.dumps(samples))
    assert again == samples
    again.denylist_samples([2])
    assert not samples.is_deny_listed(2)


def test_in_a_run_it_is_the_runs_memory(opened: Any) -> None:
    data = DataSampleTrackingWrapper(toy_data())
    data.denylist_samples([3, 5])
    data.update_batch_sample_stats(1, [7], [2.0], [0])
    each = opened(train_dataset=data, learning_rate=0.01)
    session, store = each.session, each.stores.samples
    # What was known before goes along.
    assert store.splits["train"].discarded.nonzero()[0].tolist() == [3, 5] and store.splits["train"].loss[7] == 2.0
    for _ in range(7):
        session.train_one_step()
    assert data.columns is store.splits["train"]
    assert int(data.columns.encounters.sum()) == session.age + 1
    assert not data.get_exposure_amount(3) and data.get_exposure_amount(7) == 2
    assert session.experiment.datasets["val"].columns is store.splits["val"]
    state = data.state_dict()
    data.update_batch_sample_stats(9, [1], [0.0])
    data.denylist_samples([9])
    data.load_state_dict(state)
    assert not data.is_deny_listed(9) and data.is_deny_listed(5)
    data.let_go()
    assert data.is_deny_listed(3) and data.columns is store.splits["train"]


def test_a_run_that_knows_its_samples_goes_on_with_what_it_knows(root: Path) -> None:
    store = SampleStore(root)
    data = DataSampleTrackingWrapper(toy_data())
    store.add_split("train", 50, data.labels(), data.fingerprint())
    store.set_discarded("train", [1], True)
    data.denylist_samples([2])
    data.keep_in(store, "train")
    assert data.is_deny_listed(1) and not data.is_deny_listed(2)
    data.let_go(keep=False)
    assert data.is_deny_listed(2) and not data.is_deny_listed(1)
    store.close()
