"""How two networks differ in layers, sizes and neurons. Neurons are matched by who they are, not by place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graybox.neuron_identity import source_between

Shape = list[int]


@dataclass(frozen=True)
class LayerDifference:
    """One layer that both have, and that differs. gone: numbers in A of neurons that B does not have; new: numbers in
    B of those that A does not have; moved: how many of the others have another number. frozen: how many."""

    layer: str
    neurons: tuple[int, int]
    incoming: tuple[int, int]
    gone: list[int]
    new: list[int]
    moved: int
    frozen: tuple[int, int]


@dataclass(frozen=True)
class StructureDifference:
    """only_a, only_b: layers that one has, with their numbers of neurons. resized: layers whose neurons, incoming
    neurons or freezes differ. tensors: by name, (shape in A, shape in B), None where it is not. built_alike: whether
    the user's code makes the same network in both, so that a neuron's identity means the same."""

    parameters: tuple[int, int]
    built_alike: bool
    only_a: dict[str, int]
    only_b: dict[str, int]
    resized: list[LayerDifference]
    tensors: dict[str, tuple[Shape | None, Shape | None]]

    @property
    def differs(self) -> bool:
        """Whether anything does but freezes."""
        return bool(self.only_a or self.only_b or self.tensors or any(d.gone or d.new or d.moved for d in self.resized))


def structure_difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> StructureDifference:
    """Of two checkpoints' payloads."""
    here, there = a["layers"], b["layers"]
    shapes = [{name: list(shape) for name, shape in payload["structure"]} for payload in (a, b)]
    found = [layer_difference(name, here[name], there[name]) for name in here if name in there]
    return StructureDifference(
        parameters=(_parameters(a), _parameters(b)),
        built_alike=_built(a) == _built(b),
        only_a={name: len(state["neuron_identity"]) for name, state in here.items() if name not in there},
        only_b={name: len(state["neuron_identity"]) for name, state in there.items() if name not in here},
        resized=[each for each in found if each is not None],
        tensors={
            name: (shapes[0].get(name), shapes[1].get(name))
            for name in {**shapes[0], **shapes[1]}
            if shapes[0].get(name) != shapes[1].get(name)
        },
    )


def layer_difference(name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> LayerDifference | None:
    """Of two `ops_state` of one layer; None where nothing differs."""
    source = source_between(a["neuron_identity"], b["neuron_identity"])
    back = source_between(b["neuron_identity"], a["neuron_identity"])
    gone = (back < 0).nonzero().flatten().tolist()
    new = (source < 0).nonzero().flatten().tolist()
    kept = source[source >= 0]
    # Their order among each other: who stands behind a neuron that went has not moved.
    moved = int((kept != kept.sort().values).sum())
    incoming = len(a["incoming_identity"]), len(b["incoming_identity"])
    frozen = int(a["frozen"].sum()), int(b["frozen"].sum())
    if not gone and not new and not moved and incoming[0] == incoming[1] and frozen[0] == frozen[1]:
        return None
    return LayerDifference(name, (len(back), len(source)), incoming, gone, new, moved, frozen)


def _built(payload: Mapping[str, Any]) -> list[list[Any]]:
    return [[name, list(shape)] for name, shape in payload.get("built", payload["structure"])]


def _parameters(payload: Mapping[str, Any]) -> int:
    """How many numbers a state_dict holds, running statistics included."""
    return sum(math.prod(shape) for _, shape in payload["structure"])
