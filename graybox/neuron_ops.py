"""What can be done to a neuron, as values: the vocabulary of edits.

An edit is immutable, names its layer by qualified name (ids are for people and the wire), and round-trips
through JSON, so that the journal can hold it and replay can apply it again. Free of torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from graybox.checks import is_whole
from graybox.errors import Invalid

MAX_INLINE_VALUES = 1_000
"""More values than this do not go into an edit's JSON but beside it, as an array."""


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
        object.__setattr__(self, "neurons", _indices(self.neurons, self.layer))

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `edit_from_json`, given the same `arrays()`, turns back into an equal edit."""
        return {"kind": self.kind, **{field.name: _plain(getattr(self, field.name)) for field in fields(self)}}

    def arrays(self) -> dict[str, np.ndarray]:
        """What is too large for JSON, by name; empty for most edits."""
        return {}

    def at(self, layer: str, neurons: tuple[int, ...]) -> NeuronEdit:
        """The same done to other neurons."""
        return replace(self, layer=layer, neurons=neurons)


@dataclass(frozen=True)
class Freeze(NeuronEdit):
    """The neurons' parameters, normalisation gain and shift included, get no update until unfrozen."""

    kind: ClassVar[str] = "freeze"


@dataclass(frozen=True)
class Unfreeze(NeuronEdit):
    """Clears the freezes of the neurons, of their biases, and of the connections from the incoming neurons of the same
    numbers; a per-neuron learning rate set before counts again."""

    kind: ClassVar[str] = "unfreeze"


@dataclass(frozen=True)
class FreezeBias(NeuronEdit):
    """The neurons' biases get no update until unfrozen; their weights go on learning."""

    kind: ClassVar[str] = "freeze_bias"


@dataclass(frozen=True)
class FreezeIncoming(NeuronEdit):
    """The connections from the given incoming neurons get no update until unfrozen.

    neurons: indices along the layer's incoming dimension; empty means all of them.
    """

    kind: ClassVar[str] = "freeze_incoming"


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


@dataclass(frozen=True)
class Zerofy(NeuronEdit):
    """Sets connections of the neurons to zero: those from the `incoming` neurons, from frozen ones, and from ones older
    than the neuron itself, together. With none of the three: all weights and the bias of the neurons.

    incoming: indices along the layer's incoming dimension. An incoming neuron that is a sum of several (a residual
    connection) is frozen, or older, when all of them are.
    """

    incoming: tuple[int, ...] = ()
    from_frozen: bool = False
    from_older: bool = False

    kind: ClassVar[str] = "zerofy"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "incoming", _indices(self.incoming, self.layer, "incoming neurons"))

    @property
    def whole(self) -> bool:
        """Whether it is about whole neurons."""
        return not (self.incoming or self.from_frozen or self.from_older)


@dataclass(frozen=True, eq=False)
class _Override(NeuronEdit):
    """Values in the place of parameters. values: finite numbers [neurons, ...], in the order of `neurons`."""

    # There is no sensible default, but the neurons before it have one.
    values: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            values = np.array(self.values)
        except ValueError:
            values = np.array(None)
        if values.dtype.kind not in "fiu" or not values.size:
            raise Invalid(f"{self.kind} of layer {self.layer!r} needs a box of numbers, one row for each neuron")
        values = values if values.dtype.kind == "f" else values.astype(np.float64)
        if not np.isfinite(values).all():
            raise Invalid(f"{self.kind} of layer {self.layer!r} takes finite numbers only, no NaN and no infinity")
        values.setflags(write=False)
        object.__setattr__(self, "values", values)

    def _small(self) -> bool:
        return self.values.size <= MAX_INLINE_VALUES

    def to_json(self) -> dict[str, Any]:
        kept = self.values.tolist() if self._small() else None
        return {"kind": self.kind, "layer": self.layer, "neurons": list(self.neurons), "values": kept}

    def arrays(self) -> dict[str, np.ndarray]:
        return {} if self._small() else {"values": self.values}

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        assert isinstance(other, _Override)
        same = (self.layer, self.neurons) == (other.layer, other.neurons)
        return same and np.array_equal(self.values, other.values)

    def __hash__(self) -> int:
        return hash((self.kind, self.layer, self.neurons, self.values.shape))


@dataclass(frozen=True, eq=False)
class OverrideWeights(_Override):
    """The neurons' weights become these. values [neurons, ...]: for each neuron its own weights, in the weight's other
    axes; the first axis may be left out for one neuron."""

    kind: ClassVar[str] = "override_weights"


@dataclass(frozen=True, eq=False)
class OverrideBiases(_Override):
    """The neurons' biases become these. values [neurons]."""

    kind: ClassVar[str] = "override_biases"


@dataclass(frozen=True)
class SortByStat(NeuronEdit):
    """Reorders the layer's neurons by a statistic (`graybox.selection.STATISTICS`); ties keep their order.

    neurons: empty; an edit that was resolved has the new order here, the old index at each new place.
    """

    statistic: str = "trigger_rate"
    descending: bool = True

    kind: ClassVar[str] = "sort_by_stat"


@dataclass(frozen=True)
class RemoveNeurons(NeuronEdit):
    """Takes neurons out of the network, with those of other layers that can only go together with them.

    allow_inexact: do it even where the function changes by more than what the neurons contributed.
    """

    allow_inexact: bool = False

    kind: ClassVar[str] = "remove_neurons"


@dataclass(frozen=True)
class AddNeurons(NeuronEdit):
    """Adds `count` neurons behind the layer's present ones, and with them what must grow along. The network's function
    stays what it was: what consumes the new neurons starts at zero.

    skip_initialization: the new neurons' own weights start at zero too. neurons: empty.
    """

    count: int = 1
    skip_initialization: bool = False
    allow_inexact: bool = False

    kind: ClassVar[str] = "add_neurons"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_whole(self.count) or self.count < 1:
            raise Invalid(f"the number of neurons to add is a whole number of 1 or more, not {self.count!r}")
        if self.neurons:
            raise Invalid("neurons to add have no numbers yet; say only how many")


@dataclass(frozen=True)
class Several(NeuronEdit):
    """Edits of several layers, of one kind, as one: all of them or none, undone together.

    Each names its neurons by the numbers that they had before the first one, an order included: where layers are sorted
    whose neurons are summed, the order of the last one stays.
    """

    layer: str = ""
    edits: tuple[NeuronEdit, ...] = ()

    kind: ClassVar[str] = "several"

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds = {edit.kind for edit in self.edits}
        if len(kinds) != 1 or kinds == {self.kind}:
            raise Invalid("several edits together are of one kind, each of one layer, and at least one")

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "edits": [edit.to_json() for edit in self.edits]}

    def arrays(self) -> dict[str, np.ndarray]:
        return {
            f"{number}/{name}": array for number, edit in enumerate(self.edits) for name, array in edit.arrays().items()
        }


class NeuronView(Protocol):
    """What a predicate may ask about one neuron."""

    @property
    def layer(self) -> str: ...
    @property
    def neuron(self) -> int: ...
    @property
    def frozen(self) -> bool: ...
    @property
    def age(self) -> int: ...
    @property
    def health(self) -> str: ...
    def __getitem__(self, statistic: str) -> float: ...


@dataclass(frozen=True)
class Select:
    """Neurons by what they are; all conditions together.

    layers: qualified names or ids as text; empty means all, of which an edit of structure leaves out the output.
    neurons: only among these. lowest: so many, or share in (0, 1]: that share of them over all layers together
    (rounded down, at least one), with the lowest `statistic`, or with `highest` the highest. health: such as "dead".
    query: as docs/queries.md says, of the columns that `graybox.neuron_table` names. predicate: of a neuron's view, for
    code only: it has no JSON.
    """

    layers: tuple[str, ...] = ()
    neurons: tuple[int, ...] = ()
    lowest: int | None = None
    share: float | None = None
    statistic: str = "trigger_rate"
    highest: bool = False
    health: str = ""
    query: str = ""
    predicate: Callable[[NeuronView], bool] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(str(layer) for layer in self.layers))
        object.__setattr__(self, "neurons", _indices(self.neurons, "of the selection"))
        if self.lowest is not None and self.share is not None:
            raise Invalid("a selection takes so many neurons or a share of them, not both")
        if self.lowest is not None and not (is_whole(self.lowest) and self.lowest >= 1):
            raise Invalid(f"the number of neurons to select is 1 or more, not {self.lowest!r}")
        if self.share is not None and not 0.0 < self.share <= 1.0:
            raise Invalid(f"the share of neurons to select lies above 0 and is at most 1, not {self.share!r}")

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `select_from_json` turns back. Raises Invalid when there is a predicate."""
        if self.predicate is not None:
            raise Invalid("a selection by a function cannot be written down; resolve it to neurons first")
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self) if field.name != "predicate"}


EDITS: dict[str, type[NeuronEdit]] = {
    edit.kind: edit
    for edit in (
        Freeze, Unfreeze, FreezeBias, FreezeIncoming, SetLearningRate, Reinitialize, Zerofy, OverrideWeights,
        OverrideBiases, SortByStat, RemoveNeurons, AddNeurons, Several,
    )
}  # fmt: skip

STRUCTURAL = (SortByStat, RemoveNeurons, AddNeurons)
"""Edits that exchange parameters for others."""


def edit_from_json(value: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> NeuronEdit:
    """The edit that `to_json` wrote, with what its `arrays()` were. Raises Invalid for an unknown kind or field, or a
    malformed value."""
    given = dict(value)
    kind = given.pop("kind", None)
    if kind not in EDITS:
        raise Invalid(f"unknown neuron edit {kind!r}; known are {', '.join(sorted(EDITS))}")
    arrays = arrays or {}
    try:
        if kind == Several.kind:
            return Several(edits=tuple(_part(n, part, arrays) for n, part in enumerate(given.pop("edits"))), **given)
        for name in ("neurons", "incoming"):
            if name in given or name == "neurons":
                given[name] = tuple(int(i) for i in given.get(name, ()))
        if issubclass(EDITS[kind], _Override) and given.get("values") is None:
            given["values"] = arrays["values"]
        return EDITS[kind](**given)
    except (TypeError, ValueError, KeyError) as error:
        raise Invalid(f"malformed neuron edit {kind!r}: {error}") from None


def select_from_json(value: Mapping[str, Any]) -> Select:
    """The selection that `to_json` wrote. Raises Invalid for a malformed one."""
    try:
        given = dict(value)
        given["layers"] = tuple(given.get("layers", ()))
        given["neurons"] = tuple(int(i) for i in given.get("neurons", ()))
        return Select(**given)
    except (TypeError, ValueError) as error:
        raise Invalid(f"malformed selection: {error}") from None


def _part(number: int, value: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> NeuronEdit:
    prefix = f"{number}/"
    return edit_from_json(value, {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)})


def _indices(values: tuple[int, ...], layer: str, what: str = "neurons") -> tuple[int, ...]:
    indices = tuple(int(i) for i in values)
    if len(set(indices)) != len(indices):
        raise Invalid(f"{what} {list(indices)} of layer {layer!r} name a neuron twice; name each once")
    return indices


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
