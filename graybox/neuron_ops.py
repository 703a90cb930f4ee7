"""What can be done to a neuron, as values: the vocabulary of edits.

An edit is immutable, names its layer by qualified name (ids are for people and the wire), and round-trips
through JSON, so that the journal can hold it and replay can apply it again. Free of torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from graybox.errors import Invalid


@dataclass(frozen=True)
class NeuronEdit:
    """Base of all edits of one layer's neurons.

    layer: the layer's qualified name, or its id as text.
    neurons: indices along the layer's output dimension, each at most once; empty means all of them.
    """

    layer: str
    neurons: tuple[int, ...] = ()

    kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if len(set(self.neurons)) != len(self.neurons):
            raise Invalid(f"neurons {list(self.neurons)} of layer {self.layer!r} name a neuron twice; name each once")

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `edit_from_json` turns back into an equal edit."""
        return {"kind": self.kind, **asdict(self), "neurons": list(self.neurons)}


@dataclass(frozen=True)
class Freeze(NeuronEdit):
    """The neurons' parameters, normalisation gain and shift included, get no update until unfrozen."""

    kind: ClassVar[str] = "freeze"


@dataclass(frozen=True)
class Unfreeze(NeuronEdit):
    """Clears the freeze; a per-neuron learning rate set before counts again."""

    kind: ClassVar[str] = "unfreeze"


@dataclass(frozen=True)
class SetLearningRate(NeuronEdit):
    """Scales the neurons' update: new = old + rate * (unscaled new - old). 1 is the optimizer's own update."""

    rate: float = 1.0

    kind: ClassVar[str] = "change_learning_rate"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.rate) or self.rate < 0:
            raise Invalid(f"a per-neuron learning rate is a finite factor of 0 or more, not {self.rate}")


@dataclass(frozen=True)
class Reinitialize(NeuronEdit):
    """The neurons start anew: own initialisation, normalisation gain 1 and shift 0, fresh optimizer state.

    perturbation_ratio: None for the layer's own initialisation; r in (0, 1) multiplies each weight by 1 + u
        instead, u uniform in (-r, r).
    zero_outgoing: what consumes the neurons gets zero weights for them, so that the function changes only by
        what the old neurons contributed.
    """

    perturbation_ratio: float | None = None
    zero_outgoing: bool = False

    kind: ClassVar[str] = "reinitialize"

    def __post_init__(self) -> None:
        super().__post_init__()
        ratio = self.perturbation_ratio
        if ratio is not None and not 0.0 < ratio < 1.0:
            raise Invalid(f"a perturbation ratio lies between 0 and 1, both excluded, not {ratio}")


EDITS: dict[str, type[NeuronEdit]] = {edit.kind: edit for edit in (Freeze, Unfreeze, SetLearningRate, Reinitialize)}


def edit_from_json(value: Mapping[str, Any]) -> NeuronEdit:
    """The edit that `to_json` wrote. Raises Invalid for an unknown kind or field, or a malformed value."""
    fields = dict(value)
    kind = fields.pop("kind", None)
    if kind not in EDITS:
        raise Invalid(f"unknown neuron edit {kind!r}; known are {', '.join(sorted(EDITS))}")
    try:
        fields["neurons"] = tuple(int(i) for i in fields.get("neurons", ()))
        return EDITS[kind](**fields)
    except (TypeError, ValueError) as error:
        raise Invalid(f"malformed neuron edit {kind!r}: {error}") from None
