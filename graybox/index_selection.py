"""A tensor with other entries along one axis: some gone, some new, some moved; in the same memory format."""

from __future__ import annotations

import functools

import numpy as np
import torch

MOST_RUNS = 16
"""So many runs of neighbours are copied slice by slice, which is several times faster than by index."""


def selected(tensor: torch.Tensor, axis: int, source: np.ndarray, fresh: torch.Tensor | None = None) -> torch.Tensor:
    """A new tensor. source: int64 [new size], the old index of each entry along `axis`; -1 for a new one, which is the
    next of `fresh` (zero where that is None)."""
    new = np.flatnonzero(source < 0)
    if not len(new):
        return in_format_of(tensor, _gathered(tensor, axis, source))
    if fresh is None:
        fresh = tensor.new_zeros((*tensor.shape[:axis], len(new), *tensor.shape[axis + 1 :]))
    if len(new) == len(source):
        return in_format_of(tensor, fresh)
    runs = _runs(source)
    if len(runs) > MOST_RUNS:
        index = torch.from_numpy(np.maximum(source, 0)).to(tensor.device)
        found = tensor.index_select(axis, index)
        found.index_copy_(axis, torch.from_numpy(new).to(tensor.device), fresh)
        return in_format_of(tensor, found)
    pieces, taken = [], 0
    for first, count in runs:
        if first < 0:
            pieces.append(fresh.narrow(axis, taken, count))
            taken += count
        else:
            pieces.append(tensor.narrow(axis, first, count))
    return in_format_of(tensor, torch.cat(pieces, axis))


def in_format_of(model: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with its dimensions in the same order in memory as the model's (channels_last, transposed)."""
    if model.is_contiguous():
        return tensor.contiguous()
    strides = list(model.stride())
    order = sorted(range(model.dim()), key=lambda dim: (-strides[dim], dim))
    return tensor.permute(order).contiguous().permute([order.index(dim) for dim in range(model.dim())])


def _gathered(tensor: torch.Tensor, axis: int, source: np.ndarray) -> torch.Tensor:
    runs = _runs(source)
    if 0 < len(runs) <= MOST_RUNS:
        return torch.cat([tensor.narrow(axis, first, count) for first, count in runs], axis)
    return tensor.index_select(axis, torch.from_numpy(source).to(tensor.device))


def _runs(source: np.ndarray) -> list[tuple[int, int]]:
    """(first old index, or -1; length) of each run of consecutive ones or of new entries."""
    return _runs_in(source.astype(np.int64, copy=False).tobytes())


@functools.lru_cache(maxsize=4)  # a weight's gradient and its optimizer's state follow it by the same source
def _runs_in(data: bytes) -> list[tuple[int, int]]:
    source = np.frombuffer(data, dtype=np.int64)
    if not len(source):
        return []
    step = source[1:] - source[:-1]
    broken = np.where(source[1:] < 0, source[:-1] >= 0, (step != 1) | (source[:-1] < 0))
    starts = np.concatenate([[0], np.flatnonzero(broken) + 1])
    counts = np.diff(np.concatenate([starts, [len(source)]]))
    return [(int(source[start]), int(count)) for start, count in zip(starts, counts, strict=True)]
