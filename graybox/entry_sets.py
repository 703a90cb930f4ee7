"""Which entries of a tensor: exact sets of them, and where they are found.

Edits touch rows, columns, or where both cross; what is known of the entries (who is young, since when) must follow
through every later edit. A set is kept as disjoint boxes, each the product of indices along every axis, decomposed in
one canonical way, so that two equal sets are equal in memory and on the disk however they came about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from graybox.errors import Invalid, NotFound

Box = tuple[np.ndarray, ...]
"""One ascending int64 array of indices per axis: their product."""

Where = Mapping[int, torch.Tensor]
"""Entries of a tensor: the product of int64 indices along some axes, everything along the others."""


class EntrySet:
    """Some entries of a tensor of a given shape. A value: every operation answers a new set."""

    def __init__(self, shape: Sequence[int], boxes: Iterable[Box] = ()) -> None:
        self.shape = tuple(shape)
        self.boxes = tuple(_canonical(list(boxes)))

    @classmethod
    def product(cls, shape: Sequence[int], where: Where) -> EntrySet:
        """The entries `where` says. Raises NotFound for an axis or an index that a tensor of this shape lacks."""
        named = checked_where(shape, where)
        axes = [
            np.unique(named[axis].numpy()) if axis in named else np.arange(size, dtype=np.int64)
            for axis, size in enumerate(shape)
        ]
        return cls(shape, [tuple(axes)])

    def __len__(self) -> int:
        """How many entries."""
        return sum(int(np.prod([len(axis) for axis in box])) for box in self.boxes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EntrySet) and self.shape == other.shape and self.key() == other.key()

    def __hash__(self) -> int:
        return hash((self.shape, self.key()))

    def key(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """The indices as plain numbers, by box and axis: the same for equal sets, and in a fixed order."""
        return tuple(tuple(tuple(axis.tolist()) for axis in box) for box in self.boxes)

    def __or__(self, other: EntrySet) -> EntrySet:
        return EntrySet(self.shape, [*self.boxes, *other.boxes])

    def __and__(self, other: EntrySet) -> EntrySet:
        return EntrySet(self.shape, [_common(a, b) for a in self.boxes for b in other.boxes])

    def __sub__(self, other: EntrySet) -> EntrySet:
        left = list(self.boxes)
        for taken in other.boxes:
            left = [piece for box in left for piece in _without(box, taken)]
        return EntrySet(self.shape, left)

    def selected(self, axis: int, source: np.ndarray) -> EntrySet:
        """The set after the tensor was index-selected: source, int64 [new size], names the old index of each new one
        along `axis`; -1, a new entry, is not in the set."""
        shape = (*self.shape[:axis], len(source), *self.shape[axis + 1 :])
        boxes = [(*b[:axis], _places(b[axis], source, self.shape[axis]), *b[axis + 1 :]) for b in self.boxes]
        return EntrySet(shape, boxes)

    def within(self, where: Where) -> EntrySet:
        """The part that lies in the region `where`, numbered by place in it."""
        found = self
        for axis, indices in checked_where(self.shape, where).items():
            found = found.selected(axis, indices.numpy())
        return found

    def placed(self, shape: Sequence[int], where: Where) -> EntrySet:
        """The inverse of `within`: a set numbered by place in the region `where` of a tensor of this shape, in the
        tensor's own numbers."""
        named = {axis: indices.numpy() for axis, indices in checked_where(shape, where).items()}
        boxes = [
            tuple(np.unique(named[axis][places]) if axis in named else places for axis, places in enumerate(box))
            for box in self.boxes
        ]
        return EntrySet(shape, boxes)

    def wheres(self) -> list[dict[int, torch.Tensor]]:
        """One per box; an axis along which the box has everything is left out."""
        return [
            {axis: torch.from_numpy(i) for axis, i in enumerate(box) if len(i) < self.shape[axis]} for box in self.boxes
        ]


def _places(indices: np.ndarray, source: np.ndarray, size: int) -> np.ndarray:
    """Where, in a source, some indices of an axis are."""
    named = np.zeros(size + 1, dtype=bool)  # one more, for -1
    named[indices] = True
    return np.flatnonzero(named[source])


def _canonical(boxes: list[Box]) -> list[Box]:
    """The union of boxes as disjoint ones: indices of the first axis behind which the same lies are taken together."""
    boxes = [box for box in boxes if all(len(axis) for axis in box)]
    if len(boxes) < 2 or not boxes[0]:
        return boxes[:1]
    # What the general way below comes to where the boxes differ along one axis only, which is the rule.
    if all(np.array_equal(box[0], boxes[0][0]) for box in boxes[1:]):
        return [(boxes[0][0], *box) for box in _canonical([box[1:] for box in boxes])]
    if all(np.array_equal(a, b) for box in boxes[1:] for a, b in zip(box[1:], boxes[0][1:], strict=True)):
        return [(np.unique(np.concatenate([box[0] for box in boxes])), *boxes[0][1:])]
    indices = np.unique(np.concatenate([box[0] for box in boxes]))
    inside = np.stack([np.isin(indices, box[0]) for box in boxes], axis=1)  # [indices, boxes]
    patterns, which = np.unique(inside, axis=0, return_inverse=True)
    sections: dict[tuple[tuple[bytes, ...], ...], tuple[list[Box], list[np.ndarray]]] = {}
    for number, pattern in enumerate(patterns):
        section = _canonical([box[1:] for box, held in zip(boxes, pattern, strict=True) if held])
        key = tuple(tuple(axis.tobytes() for axis in box) for box in section)
        sections.setdefault(key, (section, []))[1].append(indices[which.reshape(-1) == number])
    joined = [(np.sort(np.concatenate(pieces)), section) for section, pieces in sections.values()]
    joined.sort(key=lambda item: int(item[0][0]))
    return [(first, *box) for first, section in joined for box in section]


def _common(one: Box, other: Box) -> Box:
    return tuple(a[_among(a, b)] for a, b in zip(one, other, strict=True))


def _among(indices: np.ndarray, others: np.ndarray) -> np.ndarray:
    """bool: which of some indices are among others; both ascend."""
    if not len(indices) or not len(others):
        return np.zeros(len(indices), dtype=bool)
    places = np.searchsorted(others, indices)
    return np.asarray(others[np.minimum(places, len(others) - 1)] == indices)


def _without(box: Box, taken: Box) -> list[Box]:
    """What is left of a box, as disjoint boxes."""
    common = _common(box, taken)
    if not all(len(axis) for axis in common):
        return [box]
    left = []
    for axis in range(len(box)):
        rest = box[axis][~_among(box[axis], common[axis])]
        if len(rest):
            left.append((*common[:axis], rest, *box[axis + 1 :]))
    return left


def checked_where(shape: Sequence[int], where: Where) -> dict[int, torch.Tensor]:
    """The indices as int64 tensors on the CPU, by axis. Raises Invalid where they are not whole numbers, NotFound for
    an axis or an index that a tensor of this shape does not have."""
    found = {}
    for axis, indices in where.items():
        if not 0 <= axis < len(shape):
            raise NotFound(f"no axis {axis} in a tensor of shape {tuple(shape)}; its axes are 0 to {len(shape) - 1}")
        index = torch.as_tensor(indices).cpu()
        if index.dim() != 1 or (index.numel() and (index.is_floating_point() or index.dtype is torch.bool)):
            raise Invalid(f"indices are a list of whole numbers, not {index.dtype} of shape {tuple(index.shape)}")
        index = index.to(torch.int64)
        numbers = index.numpy()
        outside = (numbers < 0) | (numbers >= shape[axis])
        if outside.any():
            wrong = int(numbers[outside][0])
            raise NotFound(f"no index {wrong} along axis {axis}: it has {shape[axis]}, numbered from 0")
        found[axis] = index
    return found


class EntryIndex:
    """Reads and writes the entries `where` of tensors of one shape on one device, in the order in which the indices
    are given."""

    def __init__(self, shape: Sequence[int], where: Where, device: torch.device) -> None:
        # Kept on the device: copying them there at every step would wait for it. The axis that leaves the least first.
        order = sorted(where, key=lambda axis: where[axis].numel() / max(shape[axis], 1))
        self._axes = [(axis, where[axis].to(device)) for axis in order]
        self._grid: tuple[torch.Tensor, ...] = ()
        if len(order) > 1:
            self._grid = tuple(
                (where[axis] if axis in where else torch.arange(size))
                .view([-1 if axis == other else 1 for other in range(len(shape))])
                .to(device)
                for axis, size in enumerate(shape)
            )

    def take(self, tensor: torch.Tensor) -> torch.Tensor:
        """A contiguous copy of the entries."""
        found = tensor
        for axis, index in self._axes:
            found = found.index_select(axis, index)
        return found.contiguous() if self._axes else tensor.clone(memory_format=torch.contiguous_format)

    def put(self, tensor: torch.Tensor, values: torch.Tensor) -> None:
        """Overwrite the entries, in place; values are shaped as `take` answers them."""
        if not self._axes:
            tensor.copy_(values)
        elif self._grid:
            tensor.index_put_(self._grid, values)
        else:
            axis, index = self._axes[0]
            tensor.index_copy_(axis, index, values)

    def fill(self, tensor: torch.Tensor, value: complex) -> None:
        """Set the entries to one number, in place."""
        if not self._axes:
            tensor.fill_(value)
        elif self._grid:
            tensor.index_put_(self._grid, torch.tensor(value, dtype=tensor.dtype, device=tensor.device))
        else:
            axis, index = self._axes[0]
            tensor.index_fill_(axis, index, value)
