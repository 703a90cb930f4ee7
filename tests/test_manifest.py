"""A manifest gives plain PyTorch what the run trains on, bit for bit, and says what is wrong with another data set."""

from __future__ import annotations

import json
import re
from collections import UserDict, namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, WeightedRandomSampler

from graybox import curated, load_manifest
from graybox.data_samples_with_ops import DataSampleTrackingWrapper
from graybox.errors import Invalid, NotFound
from graybox.manifest import CuratedDataset, Manifest, with_label
from graybox.store.sample_export import Origin, export_samples, find
from graybox.store.sample_table import SampleTable
from graybox.store.samples import SampleStore
from graybox.training_step import split_batch
from tests.conftest import REPOSITORY
from tests.small_experiments import Opened, toy_data

COUNT = 90
Pair = namedtuple("Pair", ["data", "label"])


class Named(Dataset[Any]):
    """Samples of another make around the toy data; `make` gives the item for data and label."""

    def __init__(self, make: Callable[[torch.Tensor, int], Any], told: bool = True) -> None:
        self.inner = toy_data(COUNT)
        self.make = make
        if told:
            self.targets = self.inner.tensors[1].tolist()

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Any:
        data, label = self.inner[index]
        return self.make(data, int(label))


def soft(label: int) -> torch.Tensor:
    return 0.8 * F.one_hot(torch.tensor(label), 3).float() + 0.2 / 3


KINDS: dict[str, Callable[[], Any]] = {
    "tensors": lambda: toy_data(COUNT),
    "a part": lambda: Subset(toy_data(2 * COUNT), range(0, 2 * COUNT, 2)),
    "int32 tensors": lambda: TensorDataset(toy_data(COUNT).tensors[0], toy_data(COUNT).tensors[1].int()),
    "numbers": lambda: Named(lambda data, label: (data, label)),
    "lists, untold": lambda: Named(lambda data, label: [data, np.int16(label), "more"], told=False),
    "named tuples": lambda: Named(lambda data, label: Pair(data, torch.tensor(label, dtype=torch.uint8))),
    "dicts": lambda: Named(lambda data, label: {"x": data, "labels": label}),
    "probabilities": lambda: Named(lambda data, label: (data, soft(label)), told=False),
    "numbers that are no class": lambda: Named(lambda data, label: (data, label / 2), told=False),
}


def saved(store: SampleStore, folder: Path, query: str = "", columns: tuple[str, ...] = ()) -> Path:
    """The manifest of a query, as a file."""
    table = SampleTable(list(store.splits.values()))
    text, found = find(query, table)
    export = export_samples(table, found, text, Origin("run-1", step=3), "manifest", columns)
    path = folder / export.file_name
    path.write_bytes(b"".join(export.parts))
    return path


def edited(run: Opened) -> SampleStore:
    """Discards, corrected labels, weights and tags."""
    store, noise = run.stores.samples, np.random.default_rng(0)
    some = noise.permutation(COUNT)
    store.set_discarded("train", some[:20], True)
    for label in range(3):
        store.correct_labels("train", some[15 + 9 * label : 24 + 9 * label], np.full(9, label))
    store.set_tag("train", "hard", some[40:50], True)
    store.set_tag("val", "hard", np.array([3]), True)
    return store


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_those_of_the_run_bit_for_bit(opened: Callable[..., Opened], tmp_path: Path, kind: str) -> None:
    run = opened(train_dataset=KINDS[kind](), batch_size=7)
    manifest = load_manifest(saved(edited(run), tmp_path))
    train = curated(KINDS[kind](), manifest)  # another object: as another process would make it
    place = {row: number for number, row in enumerate(train.indices)}
    batches, seen = [], 0
    while seen < 2 * len(train):
        batch = run.session.stream.next()
        batches.append((batch.rows, *split_batch(run.session.experiment, batch.data, batch.rows)))
        run.session.stream.commit(batch)
        seen += len(batch.rows)
    assert len({row for rows, _, _ in batches for row in rows.tolist()}) == len(train) == COUNT - 20
    order = [[place[row] for row in rows.tolist()] for rows, _, _ in batches]
    loader: Any = DataLoader(train, batch_sampler=order)
    for (_, inputs, target), mine in zip(batches, loader, strict=True):
        data, label = (mine["x"], mine["labels"]) if isinstance(mine, dict) else (mine[0], mine[1])
        data_of_run = inputs["x"] if isinstance(inputs, dict) else inputs
        for found, wanted in ((data, data_of_run), (label, target)):
            assert found.dtype == wanted.dtype and torch.equal(found, wanted)


def test_labels_are_corrected_at_all(opened: Callable[..., Opened], tmp_path: Path) -> None:
    """So that the test above can fail."""
    train = curated(toy_data(COUNT), load_manifest(saved(edited(opened(train_dataset=toy_data(COUNT))), tmp_path)))
    original = toy_data(COUNT).tensors[1]
    changed = [row for position, row in enumerate(train.indices) if train[position][1] != original[row]]
    assert len(changed) > 5 and set(changed) <= set(train.labels)


def test_the_ten_lines_of_the_docs_do_the_same(
    opened: Callable[..., Opened], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(edited(opened(train_dataset=toy_data(COUNT))), tmp_path)
    text = (REPOSITORY / "docs" / "curation_files.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S) if "class Curated" in block)
    assert "graybox" not in code
    path.rename(tmp_path / "manifest.json")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"dataset": toy_data(COUNT)}
    exec(code, names)
    plain, mine = names["train"], curated(toy_data(COUNT), load_manifest("manifest.json"))
    assert len(plain) == len(mine)
    for position in range(len(mine)):
        assert torch.equal(plain[position][0], mine[position][0]) and plain[position][1] == mine[position][1]


def test_a_query_and_its_order_are_kept(opened: Callable[..., Opened], tmp_path: Path) -> None:
    run = opened(train_dataset=toy_data(COUNT))
    store = edited(run)
    store.record_batch("train", np.arange(COUNT), np.random.default_rng(1).random(COUNT), None, 1)
    query = "split == 'train' and loss > 0.5 sortby loss desc"
    manifest = load_manifest(saved(store, tmp_path, query))
    columns = store.splits["train"]
    expected = np.argsort(-columns.loss, kind="stable")
    expected = expected[(columns.loss[expected] > 0.5) & ~columns.discarded[expected]]
    assert manifest.splits["train"].rows.tolist() == expected.tolist()
    assert (manifest.query, manifest.run_id, manifest.step) == (query, "run-1", 3)
    train = manifest.splits["train"]
    assert train.discarded.tolist() == np.flatnonzero(columns.discarded).tolist()
    assert train.tags["hard"].tolist() == np.flatnonzero(columns.notes.tags["hard"]).tolist()
    assert len(curated(toy_data(20, seed=1), manifest, "val")) == 0


def test_weights_are_those_of_the_kept_samples(opened: Callable[..., Opened], tmp_path: Path) -> None:
    store = edited(opened(train_dataset=toy_data(COUNT)))
    assert curated(toy_data(COUNT), load_manifest(saved(store, tmp_path))).weights.tolist() == [1.0] * (COUNT - 20)
    weighed = np.random.default_rng(2).permutation(COUNT)[:30]
    store.set_weights("train", weighed, np.linspace(0, 3, 30, dtype=np.float32))
    train = curated(toy_data(COUNT), load_manifest(saved(store, tmp_path)))
    assert train.weights.dtype == torch.float32
    assert train.weights.numpy().tobytes() == store.splits["train"].notes.weights()[train.indices].tobytes()
    drawn = set(WeightedRandomSampler(train.weights.tolist(), 5_000))
    assert drawn == set(torch.nonzero(train.weights).flatten().tolist())


def test_it_is_a_data_set_like_others(opened: Callable[..., Opened], tmp_path: Path) -> None:
    train = curated(toy_data(COUNT), load_manifest(saved(edited(opened(train_dataset=toy_data(COUNT))), tmp_path)))
    assert isinstance(train, (CuratedDataset, Subset)) and len(train) == COUNT - 20
    together = train[[0, 5]]
    assert [int(label) for _, label in together] == [int(train[position][1]) for position in (0, 5)]
    wrapped = DataSampleTrackingWrapper(toy_data(COUNT))
    manifest = load_manifest(next(tmp_path.glob("*.json")))
    assert curated(wrapped, manifest)[3][1] == train[3][1]
    for data, label in DataLoader(train, batch_size=16, num_workers=0, shuffle=True):
        assert len(data) == len(label)
    # Curated once more: a Subset of its own, followed by Graybox like any other.
    assert len(DataSampleTrackingWrapper(train).fingerprint()) == 16


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ((1, 0), (1, 2)),
        ([1, True], [1, True]),
        ((1, 0.0), (1, 0.0)),
        ((1, "cat"), (1, "cat")),
        ((1,), (1,)),
        ({"x": 1, "label": 0}, {"x": 1, "label": 2}),
        ({"x": 1}, {"x": 1}),
        (Pair(1, 0), Pair(1, 2)),
        ("text", "text"),
    ],
)
def test_the_label_of_an_item(item: Any, expected: Any) -> None:
    found = with_label(item, 2)
    assert found == expected and type(found) is type(item)


def test_a_label_keeps_its_type() -> None:
    probabilities = torch.tensor([0.2, 0.8, 0.0])
    for known, expected in [
        (torch.tensor(1, dtype=torch.int16), torch.tensor(2, dtype=torch.int16)),
        (probabilities, torch.tensor([0.0, 0.0, 1.0])),
        (torch.tensor([0.2, 0.8]), torch.tensor([0.2, 0.8])),  # has no class 2
        (torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2])),  # several classes, or a mask
        (torch.tensor(0.5), torch.tensor(0.5)),
    ]:
        found = with_label((1, known), 2)[1]
        assert found.dtype == expected.dtype and torch.equal(found, expected)
    assert probabilities.tolist() == pytest.approx([0.2, 0.8, 0.0]), "the data set's own is not changed"
    for known in (np.int8(1), np.array(1, np.uint8), np.array([0.2, 0.8, 0.0], np.float32)):
        found = with_label([1, known], 2)[1]
        assert found.dtype == known.dtype and type(found) is type(known)
        assert int(found.argmax() if found.ndim else found) == 2
    encoded = UserDict({"ids": [1], "labels": 0})
    found = with_label(encoded, 2)
    assert isinstance(found, UserDict) and (found["labels"], encoded["labels"]) == (2, 0)


@pytest.mark.parametrize(
    ("dataset", "told"),
    [
        (lambda: toy_data(COUNT + 1), "of 90 samples, and this one has 91"),
        (lambda: toy_data(COUNT, seed=5), "as many samples, but other labels"),
        (lambda: Subset(toy_data(COUNT), range(COUNT - 1, -1, -1)), "other labels, or the same in another order"),
        (lambda: Subset(toy_data(COUNT), range(COUNT)), "with the same labels, but this Subset is of another type"),
        (lambda: KINDS["probabilities"](), "as many samples, but this Named is of another type"),
    ],
)
def test_another_data_set_is_refused_with_what_differs(
    opened: Callable[..., Opened], tmp_path: Path, dataset: Callable[[], Any], told: str
) -> None:
    manifest = load_manifest(saved(edited(opened(train_dataset=toy_data(COUNT))), tmp_path))
    with pytest.raises(Invalid, match=told):
        curated(dataset(), manifest)
    with pytest.raises(NotFound, match="no split 'test'; it has train, val"):
        curated(toy_data(COUNT), manifest, "test")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda told: told.update(format="x"), "is no manifest"),
        (lambda told: told.update(format_version=2), "format version 2; this version of Graybox reads 1"),
        (lambda told: told.pop("query"), "is broken: KeyError: 'query'"),
        (lambda told: told.update(splits=[]), "is broken"),
        (lambda told: told["splits"]["train"].update(rows=[COUNT]), "whole numbers from 0 to 89"),
        (lambda told: told["splits"]["train"].update(rows=[-1]), "whole numbers from 0 to 89"),
        (lambda told: told["splits"]["train"].update(rows=[0.5]), "whole numbers from 0 to 89"),
        (lambda told: told["splits"]["train"].update(rows=[[0]]), "whole numbers from 0 to 89"),
        (lambda told: told["splits"]["train"].update(rows=[10**30]), "whole numbers from 0 to 89"),
        (lambda told: told["splits"]["train"].update(rows="all"), "whole numbers from 0 to 89"),
        (lambda told: told["splits"]["train"]["labels"]["labels"].pop(), "is broken: ValueError"),
        (lambda told: told["splits"]["train"]["labels"].update(labels=[-1]), "labels of 'train'"),
        (lambda told: told["splits"]["train"].update(weights={"rows": [1], "weights": [-1]}), "weights are numbers"),
        (lambda told: told["splits"]["train"].update(weights={"rows": [1], "weights": []}), "weights are numbers"),
        (lambda told: told["splits"]["train"].update(samples=1e400), "is broken: OverflowError"),
    ],
)
def test_a_broken_manifest_is_refused_by_name(
    opened: Callable[..., Opened], tmp_path: Path, change: Callable[[dict[str, Any]], object], told: str
) -> None:
    path = saved(edited(opened(train_dataset=toy_data(COUNT))), tmp_path)
    known = json.loads(path.read_text())
    change(known)
    path.write_text(json.dumps(known))
    with pytest.raises(Invalid, match=told) as error:
        load_manifest(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"\xff\xfe", b"[" * 200_000])
def test_what_is_no_manifest_at_all(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(NotFound, match="there is no manifest"):
        load_manifest(path)
    path.write_bytes(content)
    with pytest.raises(Invalid, match="is no manifest"):
        load_manifest(path)


def test_an_enormous_number_of_samples_takes_no_memory(tmp_path: Path) -> None:
    empty: dict[str, Any] = {"rows": [], "labels": []}
    split = {
        "samples": 10**15, "fingerprint": "", "labels_sha256": None, "rows": [5], "discarded": [], "labels": empty,
        "weights": {"rows": [7, 5], "weights": [2, 3]}, "tags": {},
    }  # fmt: skip
    path = tmp_path / "x.json"
    head = {"format": "graybox manifest", "format_version": 1, "run_id": "r", "step": 1, "query": "", "class_names": []}
    path.write_text(json.dumps({**head, "splits": {"train": split}}))
    manifest = load_manifest(path)
    assert isinstance(manifest, Manifest) and manifest.splits["train"].weights.tolist() == [3.0]
