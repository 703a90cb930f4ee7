"""The names that a data set has for its samples, by which they are known again when it grows or is put in order."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Subset

from graybox.errors import Invalid
from graybox.offered_labels import listed_samples
from graybox.store.sample_keys import SampleKeys, checked_keys


def own_names(dataset: Any) -> SampleKeys | None:
    """What the samples are called: by the attribute `sample_ids` or `ids` (one text or whole number for each), else the
    method `get_sample_id(index)`, else the files of a torchvision folder data set, from its folder on. Through Subset
    and ConcatDataset. None where there are no such names, or the same sample is there twice.

    Raises Invalid where `sample_ids` is no such list, or names that the data set tells are not names of one sample
    each.
    """
    if isinstance(dataset, Subset):
        inner = own_names(dataset.dataset)
        rows = np.asarray(dataset.indices, dtype=np.int64)
        if inner is None or len(np.unique(rows)) < len(rows):
            return None
        texts = inner.texts()
        return SampleKeys([texts[row] for row in rows.tolist()])
    if isinstance(dataset, ConcatDataset):
        parts = [own_names(part) for part in dataset.datasets]
        together = [text for part in parts if part is not None for text in part.texts()]
        whole = None not in parts and len(set(together)) == len(together)
        return SampleKeys(together) if whole else None
    declared = declared_names(dataset)
    return declared if declared is not None else _file_names(dataset)


def declared_names(dataset: Any) -> SampleKeys | None:
    """Those that a data set says itself. Raises Invalid as `own_names`."""
    kind = type(dataset).__name__
    given = _listed(getattr(dataset, "sample_ids", None), len(dataset))
    if given is None and getattr(dataset, "sample_ids", None) is not None:
        raise Invalid(
            f"sample_ids of {kind} is one text or whole number for each of its {len(dataset):,} samples; mend it, or "
            "leave it out, and a sample is known by its place"
        )
    if given is not None:
        return SampleKeys(checked_keys(given, f"sample_ids of {kind}"))
    given = _listed(getattr(dataset, "ids", None), len(dataset))
    if given is not None:
        return SampleKeys(checked_keys(given, f"ids of {kind} (sample_ids would go before them)"))
    method = getattr(dataset, "get_sample_id", None)
    if not callable(method):
        return None
    try:
        found = _listed([method(row) for row in range(len(dataset))], len(dataset))
    except Exception as error:  # the user's own code
        raise Invalid(f"get_sample_id of {kind} raised {type(error).__name__}: {error}") from error
    if found is None:
        raise Invalid(f"get_sample_id of {kind} answers one text or whole number for each sample")
    return SampleKeys(checked_keys(found, f"get_sample_id of {kind}"))


def _listed(found: Any, count: int) -> list[Any] | None:
    """Texts or whole numbers, one for each sample; None for anything else."""
    if isinstance(found, (torch.Tensor, np.ndarray)):
        found = found.tolist()
    if not isinstance(found, Sequence) or isinstance(found, (str, bytes)) or len(found) != count or not count:
        return None
    listed = [each.item() if isinstance(each, (np.generic, torch.Tensor)) else each for each in found]
    return listed if {type(each) for each in listed} <= {str, int} else None


def _file_names(dataset: Any) -> SampleKeys | None:
    files = [str(sample[0]) for sample in listed_samples(dataset)]
    if not files or len(files) != len(dataset):
        return None
    root = os.path.join(os.fspath(getattr(dataset, "root", None) or ""), "")
    inside = len(root) > 0 and all(file.startswith(root) for file in files)
    names = [file[len(root) :] if inside else os.path.basename(file) for file in files]
    try:
        return SampleKeys(checked_keys((name.replace(os.sep, "/") for name in names), "the names of files"))
    except Invalid:
        return None  # nobody said that these are names of samples
