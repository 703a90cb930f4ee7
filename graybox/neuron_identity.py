"""Which neuron is which, whatever place it has by now: what is known of it goes to where it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from graybox.neuron_records import NeuronRecords

UNKNOWN = -1
"""The identity of a neuron of which nobody knows where it came from: it is like no other."""
ROWS = ("frozen", "learning_rate", "bias_frozen", "neuron_identity")
COLUMNS = ("incoming_frozen", "incoming_learning_rate", "incoming_identity")
"""What a layer's `ops_state` holds for each of its neurons, and for each place along its incoming axis."""


def new_identities(count: int) -> torch.Tensor:
    """Of neurons that nobody has seen before, int64 [count]. Draws from the global random state, which the caller
    seeds: a replay gives the same."""
    return torch.randint(1 << 32, 1 << 62, (count,), dtype=torch.int64)


def source_between(here: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """For each of `there` the place of the same neuron in `here`, -1 where it is not; identities int64."""
    places = {identity: place for place, identity in enumerate(here.tolist()) if identity != UNKNOWN}
    return torch.tensor([places.get(identity, -1) for identity in there.tolist()], dtype=torch.int64)


def moved(state: Mapping[str, Any], other: Mapping[str, Any], name: str) -> bool:
    """Whether two states of one layer have other neurons, or in other places. name: of the identities."""
    there = other.get(name)  # a checkpoint of before knows nothing of them
    return there is not None and not torch.equal(state[name], there)


def carried(here: Mapping[str, Any], there: Mapping[str, Any]) -> dict[str, Any]:
    """A layer's `ops_state` for the neurons of `there`: as `here`, where they are known; else flags as there, and no
    statistics, since those of there were gathered beside other samples than those of here."""
    rows = source_between(here["neuron_identity"], there["neuron_identity"])
    columns = source_between(here["incoming_identity"], there["incoming_identity"])
    flags = {
        name: _merged(here[name], there[name], source)
        for names, source in ((ROWS, rows), (COLUMNS, columns))
        for name in names
    }
    records = NeuronRecords(len(here["neuron_identity"]))
    records.load_state_dict(here)
    records.carry(rows)
    return {**flags, **records.state_dict()}


def _merged(here: torch.Tensor, there: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    if not len(here):
        return there.clone()
    return torch.where(source >= 0, here[source.clamp(min=0)], there)
