"""Looking into the model and the data on behalf of somebody else, without a trace. For the owner, between two steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from graybox.calling import called
from graybox.data_samples_with_ops import CollateWithRows, LoadFailure, SeededDataset, Token, sample_seed
from graybox.errors import NotFound, Refused
from graybox.model_with_ops import NetworkWithOps
from graybox.randomness import seeded
from graybox.sample_interventions import row_of
from graybox.session import Session
from graybox.tracking import TrackingMode
from graybox.training_step import evaluation_mode, split_batch


def read_weights(network: NetworkWithOps, layer: str, tensor: str) -> np.ndarray:
    """A copy of a layer's parameter ("weight" or "bias"). Raises NotFound for an unknown layer or tensor."""
    name, module = network.find_layer(layer)
    parameters = dict(module.named_parameters(recurse=False))
    if tensor not in parameters:
        raise NotFound(f"layer {name} has no {tensor!r}; it has {', '.join(parameters)}")
    return parameters[tensor].detach().cpu().numpy().copy()


def read_activations(session: Session, layer: str, split: str, sample_id: str) -> np.ndarray:
    """What a layer answers to one sample, in evaluation mode: float32, shaped as its output without the batch axis.

    Raises NotFound for an unknown layer, split or sample, Refused when the sample cannot be loaded or the network does
    not call the layer.
    """
    _, module = session.network.find_layer(layer)
    row = checked_row(session, split, sample_id)
    experiment = session.experiment
    with seeded(session.seed):
        items = SeededDataset(experiment.datasets[split].dataset).__getitems__(
            [Token(row, sample_seed(session.seed, 0, row))]
        )
        loaded = CollateWithRows(experiment.collate)(items)
        if isinstance(loaded, LoadFailure):
            raise Refused(f"sample {sample_id} of {split} failed to load: {loaded.reason}")
        inputs, _ = split_batch(experiment, loaded[1], loaded[0])
        seen: list[torch.Tensor] = []
        hook = module.register_forward_hook(lambda _m, _i, output: seen.append(output.detach()))
        session.network.set_tracking_mode(TrackingMode.DISABLED)
        try:
            with evaluation_mode(session.network):
                called(session.network, inputs)
        finally:
            hook.remove()
    if not seen:
        raise Refused(f"the network does not call layer {layer!r} in its forward pass")
    return seen[-1][0].float().cpu().numpy()


def read_sample(session: Session, split: str, sample_id: str) -> Any:
    """One item as its data set answers it. Raises NotFound for an unknown one, Refused when it cannot be loaded."""
    row = checked_row(session, split, sample_id)
    with seeded(session.seed):
        dataset = SeededDataset(session.experiment.datasets[split].dataset)
        _, item = dataset.__getitems__([Token(row, sample_seed(session.seed, 0, row))])[0]
    if isinstance(item, LoadFailure):
        raise Refused(f"sample {sample_id} of {split} failed to load: {item.reason}")
    return item


def checked_row(session: Session, split: str, sample_id: str) -> int:
    """The row that a sample's id names. Raises NotFound."""
    datasets = session.experiment.datasets
    if split not in datasets:
        raise NotFound(f"no split {split!r}; there are {', '.join(datasets)}")
    return row_of(split, sample_id, len(datasets[split]))
