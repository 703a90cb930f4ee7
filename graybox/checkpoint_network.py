"""The network that a checkpoint holds: its weights alone, or the user's network brought to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from graybox.checkpoint import from_plain, other_buffers
from graybox.errors import Refused
from graybox.experiment import Experiment
from graybox.refit import refit
from graybox.store.checkpoints import CheckpointRecord
from graybox.weight_files import Weights


def weights_in(payload: Mapping[str, Any], record: CheckpointRecord, class_names: Sequence[str] = ()) -> Weights:
    """Those of a checkpoint, without the user's code. payload: what `checkpoint.read_payload` answered."""
    return Weights(
        tensors=from_plain(payload["model"]),
        attributes=from_plain(payload.get("attributes", {})),
        built={name: tuple(shape) for name, shape in payload.get("built", payload["structure"])},
        class_names=class_names,
        others={
            "step": str(record.step),
            "age": str(record.age),
            "run": str(payload.get("run_id", "")),
            "experiment_hash": record.experiment_hash,
        },
    )


def bring_network_to(experiment: Experiment, payload: Mapping[str, Any], record: CheckpointRecord) -> None:
    """Give the network of an experiment that is not at work the structure and the weights of a checkpoint.

    Raises Refused, naming every difference, where the checkpoint was made with a network that is built otherwise;
    nothing has changed then.
    """
    network = experiment.model
    there = {name: list(shape) for name, shape in payload.get("built", payload["structure"])}
    here = {name: list(getattr(value, "shape", ())) for name, value in network.state_dict().items()}
    told = [
        f"{name} is {there.get(name, 'missing')} there and {here.get(name, 'missing')} here"
        for name in {**here, **there}
        if there.get(name) != here.get(name)
    ]
    if told:
        raise Refused(f"checkpoint {record.id} was made with another network: {'; '.join(told)}")
    others = payload.get("other_buffers", {})
    structure = [*payload["structure"], *([name, list(value.shape)] for name, value in others.items())]
    refit(network, experiment.optimizer, structure, from_plain(payload.get("attributes", {})))
    with torch.no_grad():
        for name, value in other_buffers(network).items():
            if name in others:
                value.copy_(others[name])
    network.load_state_dict(from_plain(payload["model"]))
