"""Changes of a network and its optimizer that are kept whole, or put back whole."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import nn

from graybox.entry_sets import EntryIndex, Where
from graybox.model_with_ops import NetworkWithOps
from graybox.modules_with_ops import NeuronLayer
from graybox.newcomers import check_elementwise
from graybox.optimizer_with_ops import OptimizerWithOps
from graybox.structure.change import Change
from graybox.tensor_table import TensorTable
from graybox.tracking import TrackingMode


class Transaction:
    """A context: what was done by its methods and not kept is put back at its end, bit for bit, whatever was raised.

    Tensors that were exchanged are put back as the objects that they were, so that this needs no copies of them.
    """

    def __init__(self, network: NetworkWithOps, optimizer: OptimizerWithOps, *, commits: bool = True) -> None:
        """commits: whether flags, statistics and the structure's bookkeeping follow changes of structure. What comes
        after them needs it; to see what the network answers it is not needed."""
        self.network = network
        self.commits = commits
        self.optimizer = optimizer
        self.renewable = not check_elementwise(optimizer.optimizer)
        """Whether entries of the optimizer's state can start anew one by one."""
        self.tensors = TensorTable(network)
        self._back = ExitStack()
        self._when_kept: list[Callable[[], None]] = []
        self._committed = False

    def __enter__(self) -> Transaction:
        self._back.__enter__()
        # What comes first is put back last: the scalings are read anew when everything else is as it was.
        self._back.callback(self.optimizer.refresh)
        self._back.callback(self._look_again)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._back.__exit__(kind, error, trace)

    def keep(self) -> None:
        """Nothing is put back any more."""
        self._back.pop_all()
        for function in self._when_kept:
            function()

    def on_failure(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call the function when things are put back; those named last come first."""
        self._back.callback(function, *arguments)

    # -- values --------------------------------------------------------------------------------------

    @torch.no_grad()
    def overwrite(self, tensor: torch.Tensor, where: Where, values: torch.Tensor) -> None:
        """Put values [as EntryIndex.take answers them] in the place of entries."""
        index = EntryIndex(tensor.shape, where, tensor.device)
        target = tensor.detach()
        old = index.take(target)
        # In an autocast region the network multiplies with copies of its weights, made before.
        self.on_failure(torch.clear_autocast_cache)
        self.on_failure(index.put, target, old)
        index.put(target, values.to(target.device, target.dtype))
        torch.clear_autocast_cache()

    def renew(self, parameter: nn.Parameter, where: Where) -> None:
        """The optimizer's state of these entries starts anew."""
        self._keep_entries(parameter, where)
        self.optimizer.renew_at(parameter, where)

    def put_entries(
        self, parameter: nn.Parameter, where: Where, entries: dict[str, torch.Tensor], young: list[Any]
    ) -> None:
        """The optimizer's state of these entries becomes this, as `entries_at` and `young_at` answered once."""
        self._keep_entries(parameter, where)
        self.optimizer.put_entries_at(parameter, where, entries)
        if entries:  # before the first step none was young, and what was made since is new to the optimizer
            self.optimizer.put_young_at(parameter, where, young)

    def _keep_entries(self, parameter: nn.Parameter, where: Where) -> None:
        self.on_failure(self.optimizer.put_young, parameter, self.optimizer.young(parameter))
        self.on_failure(self.optimizer.put_entries_at, parameter, where, self.optimizer.entries_at(parameter, where))

    # -- tensors -------------------------------------------------------------------------------------

    def exchange(self, old: nn.Parameter, new: nn.Parameter, axis: int, source: np.ndarray) -> None:
        """The optimizer goes on with `new`, its state index-selected along the axis."""
        inner = self.optimizer.optimizer
        state = inner.state.get(old)
        kept = None if state is None else dict(state)
        young = self.optimizer.young(old)

        def put_back() -> None:
            self.optimizer.put_young(new, [])
            for group in inner.param_groups:
                group["params"][:] = [old if p is new else p for p in group["params"]]
            inner.state.pop(new, None)
            if kept is not None:
                inner.state[old] = kept
            self.optimizer.put_young(old, young)

        self.on_failure(put_back)
        self.optimizer.exchange(old, new, axis, torch.from_numpy(source))

    def put_tensor(self, name: str, value: torch.Tensor) -> None:
        """Another parameter or buffer in the place of the present one, wherever it is shared."""
        old = self.tensors.get(name)
        self.tensors.put(old, value)
        self.on_failure(self.tensors.put, value, old)

    # -- what modules know ---------------------------------------------------------------------------

    def set_attribute(self, module: nn.Module, name: str, value: object) -> None:
        """A number that a module keeps, or a tensor of flags: replaced, never changed in place."""
        self.on_failure(setattr, module, name, getattr(module, name))
        setattr(module, name, value)

    def carry_records(self, layer: NeuronLayer, source: np.ndarray, size: int) -> dict[str, np.ndarray]:
        """What is known of the layer's `size` neurons follows them: source int64 [new count], -1 for a new one.
        Answers what is known of those that go, none: {}."""
        records = layer.records
        back = inverted(source, size)
        gone = np.flatnonzero(back < 0)
        taken = records.take(gone) if len(gone) else {}

        def put_back() -> None:
            records.carry(torch.from_numpy(back))
            if taken:
                records.put(gone, taken)

        records.carry(torch.from_numpy(source))
        self.on_failure(put_back)
        return taken

    def reset_records(self, layer: NeuronLayer, neurons: np.ndarray) -> None:
        """What is known of these neurons is forgotten."""
        self.put_records(layer, neurons, None)

    def put_records(self, layer: NeuronLayer, neurons: np.ndarray, taken: dict[str, np.ndarray] | None) -> None:
        """What is known of these neurons becomes what `take` answered once; None: nothing."""
        self.on_failure(layer.records.put, neurons, layer.records.take(neurons))
        if taken is None:
            layer.records.reset(neurons)
        else:
            layer.records.put(neurons, taken)

    def carry_incoming(self, layer: NeuronLayer, source: np.ndarray, axis: int) -> None:
        """What is known of the layer's weights follows its incoming neurons, along the axis that counts the layer's
        own neurons as 0. Done at the end, since what it drops cannot be put back."""
        self._when_kept.append(lambda: layer.records.carry_incoming(torch.from_numpy(source), axis))

    def commit(self, change: Change) -> None:
        """The structure's own bookkeeping follows."""
        self._committed = self.commits
        if self.commits:
            with untracked(self.network):
                self.network.structure.commit(change)

    def _look_again(self) -> None:
        if self._committed:
            with untracked(self.network):
                self.network.structure.refresh()
            rewire(self.network)


@contextmanager
def untracked(network: NetworkWithOps) -> Iterator[None]:
    """To look at the network by running it is not to use it: no statistics, no age."""
    mode, network.ledger.mode = network.ledger.mode, TrackingMode.DISABLED
    try:
        yield
    finally:
        network.ledger.mode = mode


def rewire(network: NetworkWithOps) -> None:
    """Statistics are read where the neurons are now."""
    with warnings.catch_warnings():
        # What is not declared was said when the network was built; an edit changes nothing about it.
        warnings.simplefilter("ignore", UserWarning)
        network.rewire()


def inverted(source: np.ndarray, size: int) -> np.ndarray:
    """The source that leads back to an axis of `size` entries; -1 where nothing is left of the entry."""
    back = np.full(size, -1, dtype=np.int64)
    places = np.flatnonzero(source >= 0)
    back[source[places]] = places
    return back
