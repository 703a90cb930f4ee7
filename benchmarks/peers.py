"""The same edits by torch-pruning (Fang et al., 2023), which edits structure too, but neither adds neurons nor knows of
an optimizer."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class Peer:
    """torch-pruning's dependency graph of a network, which it edits in place. Built with gradients enabled; leaves the
    network in evaluation mode."""

    def __init__(self, network: nn.Module, images: torch.Tensor) -> None:
        import torch_pruning

        self.network = network
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")  # parameters that it finds in no module
            self.graph: Any = torch_pruning.DependencyGraph().build_dependency(network.eval(), images)

    def prune(self, layer: str, neurons: Sequence[int]) -> set[int]:
        """Remove neurons of a layer with what it finds to belong to them. Answers the neurons of this layer that went,
        which may be more. Whatever it raises is passed on."""
        module = self.network.get_submodule(layer)
        pruner = self.graph.get_pruner_of_module(module)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            group = self.graph.get_pruning_group(module, pruner.prune_out_channels, list(neurons))
            gone = {
                int(index)
                for dependency, indices in group
                if dependency.target.module is module and self.graph.is_out_channel_pruning_fn(dependency.handler)
                for index in indices
            }
            group.prune()
        return gone


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises TimeoutError within once so much time of the processor is used up. In the main thread only."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"no answer after {seconds:g} s of the processor")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def version() -> str:
    """Of torch-pruning."""
    from importlib.metadata import version as installed

    return installed("torch-pruning")
