"""A data set as people curated it in a run, for plain PyTorch: without what was discarded, with corrected labels.

    manifest = load_manifest("manifest.json")
    train = curated(ImageFolder("my-pictures/train", picture), manifest)
    loader = DataLoader(train, batch_size=64, shuffle=True)

The file is what an export of the format "manifest" writes; graybox/store/sample_manifest.py documents it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Subset

from graybox.data_samples_with_ops import DataSampleTrackingWrapper
from graybox.errors import Invalid, NotFound, StorageError
from graybox.store.sample_manifest import FORMAT, FORMAT_VERSION, labels_digest

Rows = NDArray[np.int64]
_ITEM_LABELS = ("labels", "label")


@dataclass(frozen=True)
class SplitManifest:
    """What a manifest says of one split of `samples` samples.

    rows: int64 [kept], the samples to train on, by their index in the data set. discarded: int64, ascending. labels:
    the corrected ones by row. weights: float32 [kept], how often an epoch of the run draws each of `rows`. tags: rows
    by tag. fingerprint, labels_sha256: what the data set is known by; "" and None where it is not.
    """

    samples: int
    rows: Rows
    discarded: Rows
    labels: Mapping[int, int]
    weights: NDArray[np.float32]
    tags: Mapping[str, Rows]
    fingerprint: str = ""
    labels_sha256: str | None = None


@dataclass(frozen=True)
class Manifest:
    """A manifest as it was read. query: what found the samples, "" where all were meant."""

    run_id: str
    step: int
    query: str
    class_names: tuple[str, ...]
    splits: Mapping[str, SplitManifest]


class CuratedDataset(Subset[Any]):
    """Some samples of a data set, in the manifest's order, with corrected labels; all else is the data set's own.

    A label is corrected where the run corrects it: a whole number, or probabilities of classes, in a pair (data, label)
    or under "labels" or "label" of a dict. Labels of any other kind stay as they are. weights: float32 [len], as
    `torch.utils.data.WeightedRandomSampler` takes them.
    """

    def __init__(self, dataset: Dataset[Any], manifest: SplitManifest) -> None:
        super().__init__(dataset, manifest.rows.tolist())
        self.labels = dict(manifest.labels)
        self.weights = torch.from_numpy(manifest.weights.copy())

    def __getitem__(self, index: Any) -> Any:
        # Subset takes lists, too, and a list of positions may mean a sample with a corrected label each.
        if isinstance(index, list):
            return self.__getitems__(index)
        row = self.indices[index]
        return self._corrected(row, self.dataset[row])

    def __getitems__(self, indices: list[int]) -> list[Any]:
        rows = [self.indices[index] for index in indices]
        return [self._corrected(row, item) for row, item in zip(rows, super().__getitems__(indices), strict=True)]

    def _corrected(self, row: int, item: Any) -> Any:
        label = self.labels.get(row)
        return item if label is None else with_label(item, label)


def load_manifest(path: Path | str) -> Manifest:
    """Reads a manifest. Raises NotFound where there is no such file, StorageError where it cannot be read, Invalid,
    saying what is wrong, where it is no manifest or not a whole one."""
    path = Path(path)
    try:
        told = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NotFound(f"there is no manifest {path}") from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{path} is no manifest: it is no JSON ({error})") from None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise Invalid(f'{path} is no manifest: right is a JSON object with "format": "{FORMAT}"')
    if told.get("format_version") != FORMAT_VERSION:
        version = told.get("format_version")
        raise Invalid(f"{path} has format version {version}; this version of Graybox reads {FORMAT_VERSION}")
    try:
        return Manifest(
            str(told["run_id"]),
            int(told["step"]),
            str(told["query"]),
            tuple(map(str, told["class_names"])),
            {str(name): _split(str(name), split) for name, split in told["splits"].items()},
        )
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise Invalid(f"{path} is broken: {type(error).__name__}: {error}") from None


def curated(dataset: Dataset[Any], manifest: Manifest, split: str = "train") -> CuratedDataset:
    """The samples of a data set that a manifest keeps, with the labels that people corrected.

    dataset: the one that the run was made with, of this split. Raises NotFound for a split that the manifest does not
    have, Invalid, saying what differs, for another data set: its rows would mean other samples.
    """
    told = manifest.splits.get(split)
    if told is None:
        raise NotFound(f"the manifest has no split {split!r}; it has {', '.join(manifest.splits) or 'none'}")
    known = DataSampleTrackingWrapper(dataset)
    _check_same(known, told, split)
    return CuratedDataset(known.dataset, told)


def with_label(item: Any, label: int) -> Any:
    """A sample with another class; as it is where it has none that could be another one."""
    if isinstance(item, Mapping):
        for name in _ITEM_LABELS:
            if name in item:
                made = copy.copy(item) if isinstance(item, MutableMapping) else dict(item)
                made[name] = _like(item[name], label)
                return made
        return item
    if isinstance(item, (tuple, list)) and len(item) >= 2:
        parts = [item[0], _like(item[1], label), *item[2:]]
        return type(item)(*parts) if hasattr(item, "_fields") else type(item)(parts)
    return item


def _like(known: Any, label: int) -> Any:
    """A class in the place of a known one, of its type; what is no class stays."""
    if isinstance(known, (int, np.integer, np.bool_)):
        return type(known)(label)
    if isinstance(known, (torch.Tensor, np.ndarray)):
        floating = known.is_floating_point() if isinstance(known, torch.Tensor) else known.dtype.kind == "f"
        if known.ndim == 0 and not floating:
            return torch.full_like(known, label) if isinstance(known, torch.Tensor) else np.full_like(known, label)
        if known.ndim == 1 and floating and label < len(known):
            certain = torch.zeros_like(known) if isinstance(known, torch.Tensor) else np.zeros_like(known)
            certain[label] = 1
            return certain
    return known


def _check_same(known: DataSampleTrackingWrapper, told: SplitManifest, split: str) -> None:
    what = f"the manifest is of another data set in {split!r}"
    if len(known) != told.samples:
        raise Invalid(f"{what}: of {told.samples:,} samples, and this one has {len(known):,}")
    if not told.fingerprint or told.fingerprint == known.fingerprint():
        return
    labels = known.labels()
    if labels is not None and told.labels_sha256 not in (None, labels_digest(labels)):
        raise Invalid(f"{what}: it has as many samples, but other labels, or the same in another order")
    alike = "as many samples with the same labels" if labels is not None and told.labels_sha256 else "as many samples"
    kind = type(known.dataset).__name__
    raise Invalid(
        f"{what}: it has {alike}, but this {kind} is of another type, has files of other names or is another part of a "
        f"data set (fingerprint {known.fingerprint()}, not {told.fingerprint})"
    )


def _split(name: str, told: Mapping[str, Any]) -> SplitManifest:
    count = int(told["samples"])

    def whole(found: Any, what: str, below: int = count) -> Rows:
        made = np.asarray(found)
        if made.ndim != 1 or (made.size and (made.dtype.kind != "i" or made.min() < 0 or made.max() >= below)):
            raise ValueError(f"{what} of {name!r} are whole numbers from 0 to {below - 1}")
        return made.astype(np.int64)

    kept = whole(told["rows"], "rows")
    relabelled = whole(told["labels"]["rows"], "rows of labels").tolist()
    labels = whole(told["labels"]["labels"], "labels", np.iinfo(np.int64).max).tolist()
    digest = told["labels_sha256"]
    return SplitManifest(
        samples=count,
        rows=kept,
        discarded=whole(told["discarded"], "discarded rows"),
        labels=dict(zip(relabelled, labels, strict=True)),
        weights=_weights(kept, whole(told["weights"]["rows"], "rows of weights"), told["weights"]["weights"]),
        tags={str(tag): whole(found, "tagged rows") for tag, found in told["tags"].items()},
        fingerprint=str(told["fingerprint"]),
        labels_sha256=None if digest is None else str(digest),
    )


def _weights(kept: Rows, rows: Rows, told: Any) -> NDArray[np.float32]:
    """Of the kept rows, 1 where nothing is told."""
    weights = np.asarray(told, dtype=np.float32)
    if weights.shape != rows.shape or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError("weights are numbers of at least 0, one for each of their rows")
    found = np.ones(len(kept), dtype=np.float32)
    if len(rows):
        order = np.argsort(rows, kind="stable")
        place = np.minimum(np.searchsorted(rows, kept, sorter=order), len(rows) - 1)
        known = rows[order[place]] == kept
        found[known] = weights[order[place[known]]]
    return found
