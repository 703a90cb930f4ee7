"""What a batch did at one layer: a few numbers per neuron, worked out on the device where the activations are.

A neuron triggers where it is positive on the tensor that the next weighted layer consumes. Over an image or a
sequence the share of positive positions counts, so that a trigger rate lies in [0, 1] for every layer type. Nothing
here ever waits for the device.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from graybox.errors import Invalid

PROBED_SAMPLES = 8
"""Of each batch so many samples' values are kept for a while, to see which neurons do the same."""
FEW_POSITIONS = 64
"""Over fewer positions than this, summing over the batch first is faster."""


class Scratch(threading.local):
    """A reusable buffer per device and type, of each thread its own: writing where the last layer wrote is several
    times faster than taking new memory, and counting in floats several times faster than summing booleans."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[torch.device, torch.dtype], torch.Tensor] = {}

    def like(self, tensor: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """An uninitialised contiguous tensor of the same shape and device, valid until the next call."""
        count, key = tensor.numel(), (tensor.device, dtype)
        buffer = self._buffers.get(key)
        if buffer is None or buffer.numel() < count:
            # Outside a user's inference mode, or the buffer could never be written to again outside of one.
            with torch.inference_mode(False):
                buffer = torch.empty(count, dtype=dtype, device=tensor.device)
            self._buffers[key] = buffer
        return buffer[:count].view(tensor.shape)


_SCRATCH = Scratch()


class InputColumns:
    """Which columns of a consumer's input belong to each neuron, as a concatenation or a view scatters them.

    columns: int64 [neurons, positions], indices along the axis that the consumer weighs (its channels or features).
    Made once, when a network is wired: columns that lie side by side are then read without a copy.
    """

    def __init__(self, columns: np.ndarray | torch.Tensor | Sequence[Sequence[int]]) -> None:
        table = np.asarray(columns, dtype=np.int64)
        if table.ndim != 2 or table.size == 0 or table.min() < 0:
            raise Invalid(f"columns are indices of 0 or more, of shape [neurons, positions], not {table.shape}")
        self.neurons, self.positions = table.shape
        self.position_major = table.shape[1] > 1 and bool((np.diff(table.T.ravel()) == 1).all())
        flat = table.T.ravel() if self.position_major else table.ravel()
        self._start = int(flat[0]) if bool((np.diff(flat) == 1).all()) else -1
        self._last = int(table.max())
        self._index = torch.from_numpy(flat.copy())

    def select(self, values: torch.Tensor, axis: int) -> torch.Tensor:
        """These columns of `values` along `axis`, neuron by neuron (position by position if position_major)."""
        if self._last >= values.shape[axis]:
            raise Invalid(f"there is no column {self._last} in a tensor of shape {tuple(values.shape)}, axis {axis}")
        if self._start >= 0:
            return values.narrow(axis, self._start, self._index.numel())
        if self._index.device != values.device:
            self._index = self._index.to(values.device)
        return values.index_select(axis, self._index)


@dataclass(frozen=True)
class Layout:
    """Where the neurons are in a tensor.

    features_last: [batch, ..., neurons] (a linear layer's side) instead of [batch, neurons, ...] (a convolution's).
    flat_features_last: whether [batch, neurons * positions] was flattened from the former. columns: which columns
    along that axis belong to whom, where it is not simply all of them in order.
    """

    features_last: bool = False
    flat_features_last: bool = False
    columns: InputColumns | None = None


@dataclass(frozen=True)
class SampleBatch:
    """Which samples a batch holds, made once per step.

    ids: int64 [batch]. classes: int64 [batch] in [0, C], 0 for a label that is no class, c + 1 for class c;
    class_counts: float64 [C + 1], how many of each. None where unknown.
    """

    ids: torch.Tensor | None = None
    classes: torch.Tensor | None = None
    class_counts: torch.Tensor | None = None
    _moved: dict[torch.device, SampleBatch] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    @torch.no_grad()
    def of(cls, ids: torch.Tensor | None, labels: torch.Tensor | None, number_of_classes: int) -> SampleBatch:
        """From ids int64 [batch], and labels: whole numbers [batch], or probabilities [batch, classes], whose largest
        counts. Labels of any other shape, and labels outside [0, number_of_classes), are no class."""
        ids = ids.reshape(-1).to(torch.int64) if isinstance(ids, torch.Tensor) and ids.dim() == 1 else None
        if not isinstance(labels, torch.Tensor) or number_of_classes <= 0:
            return cls(ids)
        if labels.dim() == 2 and labels.is_floating_point() and labels.shape[1] == number_of_classes:
            labels = labels.argmax(1)
        if labels.dim() != 1 or labels.is_floating_point() or labels.is_complex():
            return cls(ids)
        known = (labels >= 0) & (labels < number_of_classes)
        classes = torch.where(known, labels.to(torch.int64) + 1, 0)
        counts = torch.zeros(number_of_classes + 1, dtype=torch.float64, device=labels.device)
        counts.index_add_(0, classes, torch.ones_like(classes, dtype=torch.float64))
        return cls(ids, classes, counts)

    def on(self, device: torch.device) -> SampleBatch:
        """The same on a device; copied there once."""
        parts = (self.ids, self.classes, self.class_counts)
        if all(part is None or part.device == device for part in parts):
            return self
        if device not in self._moved:
            ids, classes, counts = (None if part is None else part.to(device, non_blocking=True) for part in parts)
            self._moved[device] = SampleBatch(ids, classes, counts)
        return self._moved[device]


@dataclass(frozen=True)
class Observation:
    """One layer's neurons over one batch; tensors on the device of the activations, None where not measured.

    shares: float64 [n], sum over samples of the share of positive positions. counts: float [batch, n], positive
    positions of each sample, out of `positions`. moments: float64 [2, n], sums over samples of the mean activation
    and of the mean square. means: float [batch, n], mean activation of each sample. probe: float [k, n], activations
    of the first k samples at one position. seen: samples that age the neurons (0 where another observation of the
    same step does).
    """

    samples: int
    seen: int
    shares: torch.Tensor | None = None
    counts: torch.Tensor | None = None
    positions: int = 1
    moments: torch.Tensor | None = None
    means: torch.Tensor | None = None
    probe: torch.Tensor | None = None
    batch: SampleBatch | None = None


@torch.no_grad()
def observe(
    values: torch.Tensor,
    neurons: int,
    layout: Layout,
    *,
    everything: bool,
    triggers: bool = True,
    batch: SampleBatch | None = None,
    probed_position: int = 0,
) -> Observation:
    """What the neurons did. values: as `layout` says. everything: means, squares and what is kept per sample too;
    triggers: False where positive values are no triggers (the prediction is). probed_position: any number; modulo the
    number of positions it says which one is probed. Raises Invalid when the shape does not fit. Never waits."""
    x, axis = by_neuron(values.detach(), neurons, layout)
    samples, positions = x.shape[0], x.shape[3 - axis]
    shares = counts = None
    if triggers:
        positive = torch.gt(x, 0, out=_SCRATCH.like(x))
        if everything:
            counts = _over_positions(positive, axis)
            shares = counts.sum(0).to(torch.float64) / max(positions, 1)
        else:
            shares = _over_all(positive, axis) / max(positions, 1)
    seen = samples if triggers else 0
    if not everything:
        return Observation(samples, seen, shares, positions=positions)
    moments, means = _moments(x, axis)
    probe = None
    if positions:  # a copy, or it would keep all of the activations
        probe = x[:PROBED_SAMPLES].select(3 - axis, probed_position % positions).to(means.dtype, copy=True)
    return Observation(samples, seen, shares, counts, positions, moments, means, probe, batch)


def _over_positions(x: torch.Tensor, axis: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Sums over positions, [batch, neurons]. In float32 exact for counts up to 2**24 positions."""
    if x.shape[3 - axis] == 1:
        return x.squeeze(3 - axis).to(dtype or x.dtype, copy=True)
    return x.sum(3 - axis, dtype=dtype)


def _over_all(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Sums over samples and positions, float64 [neurons], of a contiguous buffer."""
    if axis == 1 and x.shape[2] < FEW_POSITIONS:
        return x.flatten(1).sum(0).view(x.shape[1:]).sum(1, dtype=torch.float64)
    return x.sum(3 - axis).sum(0, dtype=torch.float64)


def _moments(x: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(moments float64 [2, n], means [batch, n]) as in Observation.

    Squares are taken about the mean of the batch (the two-pass algorithm; Chan, Golub and LeVeque, 1983), so that
    nothing is lost where the mean is large beside the deviation; from there on everything is float64.
    """
    narrow = x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    dtype = torch.float32 if narrow else torch.float64
    samples, positions = x.shape[0], max(x.shape[3 - axis], 1)
    means = _over_positions(x, axis, dtype).div_(positions)
    mean = means.sum(0, dtype=torch.float64).div_(max(samples, 1))
    squares = _over_all(_squared_distances(x, mean.to(dtype), axis), axis).div_(positions)
    return torch.stack((mean * samples, squares.addcmul_(mean, mean, value=samples))), means


def _squared_distances(x: torch.Tensor, center: torch.Tensor, axis: int) -> torch.Tensor:
    """(x - center)**2 in one pass, in a buffer like x."""
    buffer = _SCRATCH.like(x, center.dtype)
    if axis == 1 and x.shape[2] < FEW_POSITIONS and x.is_contiguous():
        # Whole samples as rows: long inner loops.
        repeated = center.repeat_interleave(x.shape[2], output_size=x.shape[1] * x.shape[2])
        torch.ops.aten.mse_loss.out(x.flatten(1), repeated, 0, out=buffer.flatten(1))
        return buffer
    torch.ops.aten.mse_loss.out(x, center[:, None] if axis == 1 else center, 0, out=buffer)
    return buffer


def by_neuron(values: torch.Tensor, neurons: int, layout: Layout) -> tuple[torch.Tensor, int]:
    """(tensor, 1) as [batch, neurons, positions], or (tensor, 2) as [batch, positions, neurons], whichever is
    cheaper to read. Raises Invalid when the shape does not fit the number of neurons."""
    last = layout.features_last and values.dim() > 2
    columns = layout.columns
    if columns is not None and columns.neurons != neurons:
        raise Invalid(f"columns of {columns.neurons} neurons do not fit {neurons} neurons")
    if columns is None:
        _check_shape(values, neurons, last)
    elif values.dim() >= 2:
        values = columns.select(values, values.dim() - 1 if last else 1)
    else:
        raise Invalid(f"a tensor of shape {tuple(values.shape)} has no columns")
    axis = values.dim() - 1 if last else 1
    positions = values.shape[axis] // max(neurons, 1)
    if positions > 1:
        position_major = columns.position_major if columns is not None else layout.flat_features_last
        values = values.unflatten(axis, (positions, neurons) if position_major else (neurons, positions))
        axis += position_major
        if not position_major and last:
            values = values.movedim(axis, 1)
            axis = 1
    if values.dim() == 2:
        return values.unsqueeze(1), 2
    if axis == values.dim() - 1:
        return values.flatten(1, -2), 2
    if axis != 1:
        values = values.movedim(axis, 1)
    if not values.is_contiguous() and values.movedim(1, -1).is_contiguous():
        return values.movedim(1, -1).flatten(1, -2), 2  # channels last in memory
    return values.flatten(2), 1


def _check_shape(values: torch.Tensor, neurons: int, last: bool) -> None:
    if last:
        if values.shape[-1] != neurons:
            raise Invalid(f"a tensor of shape {tuple(values.shape)} does not end in {neurons} neurons")
    elif values.dim() == 2:
        if values.shape[1] != neurons and (neurons == 0 or values.shape[1] % neurons):
            raise Invalid(f"{values.shape[1]} features cannot be flattened from {neurons} neurons")
    elif values.dim() < 2 or values.shape[1] != neurons:
        raise Invalid(f"a tensor of shape {tuple(values.shape)} does not have {neurons} neurons in dimension 1")


def trigger_shares(
    values: torch.Tensor, neurons: int, *, features_last: bool = False, flat_features_last: bool = False
) -> torch.Tensor:
    """Sum over the batch of each neuron's share of positive values; float64 [neurons], on the device of `values`.

    values: [batch, neurons, ...] (a convolution's side), or with features_last [batch, ..., neurons] (a linear layer's
        side); or [batch, neurons * positions], flattened from the former, with flat_features_last from the latter.
    Raises Invalid when the shape does not fit the number of neurons. Never waits for the device.
    """
    found = observe(values, neurons, Layout(features_last, flat_features_last), everything=False).shares
    assert found is not None
    return found


def predicted(predictions: torch.Tensor, neurons: int, batch: SampleBatch | None = None) -> Observation:
    """The output layer's triggers: its neurons trigger when they are the prediction, int64 [batch]. A prediction
    outside [0, neurons) is nobody's. Never waits for the device."""
    one_hot = (predictions[:, None] == torch.arange(neurons, device=predictions.device)).to(torch.float32)
    samples = predictions.shape[0]
    return Observation(samples, samples, one_hot.sum(0).to(torch.float64), one_hot, batch=batch)


__all__ = [
    "InputColumns", "Layout", "Observation", "SampleBatch", "by_neuron", "observe", "predicted", "trigger_shares",
]  # fmt: skip
