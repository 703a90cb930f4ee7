"""From a ManipulateWeightsRequest to the edit it stands for. Raises Invalid for whatever is malformed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from graybox import neuron_ops as ops
from graybox.errors import Invalid
from graybox.proto import experiment_service_pb2 as pb
from graybox.service import limits
from graybox.service.values import override_values

# Which of the optional fields an operation knows.
_FIELDS: dict[int, frozenset[str]] = {
    pb.FREEZE: frozenset(),
    pb.UNFREEZE: frozenset(),
    pb.FREEZE_BIAS: frozenset(),
    pb.FREEZE_INCOMING: frozenset(),
    pb.CHANGE_LEARNING_RATE: frozenset({"learning_rate"}),
    pb.REINITIALIZE: frozenset({"perturbation_ratio", "zero_outgoing"}),
    pb.ZEROFY: frozenset({"incoming_ids", "from_frozen", "from_older"}),
    pb.OVERRIDE_WEIGHTS: frozenset({"values_npy", "values", "values_shape"}),
    pb.OVERRIDE_BIASES: frozenset({"values_npy", "values", "values_shape"}),
    pb.SORT_BY_STAT: frozenset({"statistic", "descending"}),
    pb.REMOVE_NEURONS: frozenset({"allow_inexact"}),
    pb.ADD_NEURONS: frozenset({"count", "skip_initialization", "allow_inexact"}),
}
_OPTIONAL = frozenset().union(*_FIELDS.values())
_WHOLE_LAYERS = frozenset({pb.SORT_BY_STAT, pb.ADD_NEURONS})
# What they say of neurons depends on the one layer they are for.
_ONE_LAYER = frozenset({pb.FREEZE_INCOMING, pb.OVERRIDE_WEIGHTS, pb.OVERRIDE_BIASES})


@dataclass(frozen=True)
class AskedEdit:
    """An edit, and which neurons it is for where the edit itself does not say."""

    edit: ops.NeuronEdit
    select: ops.Select | None = None


def asked_edit(request: pb.ManipulateWeightsRequest) -> AskedEdit:
    """The edit a request stands for, all of its fields checked as far as that goes without the network."""
    operation = request.operation
    if operation not in _FIELDS:
        raise Invalid(f"the neuron operation {int(operation)} is not known; name one of NeuronOperation")
    name = pb.NeuronOperation.Name(operation)
    given = {field.name for field, _ in request.ListFields()}
    odd = (given & _OPTIONAL) - _FIELDS[operation]
    if odd:
        raise Invalid(f"{name} takes no {' and no '.join(sorted(odd))}")
    if request.measure and not request.dry_run:
        raise Invalid("measure is for a dry run; set dry_run too, or leave measure out")
    if request.HasField("selection"):
        if given & {"layer_id", "neuron_ids"}:
            raise Invalid("a selection stands instead of layer_id and neuron_ids; give one or the other")
        if operation in _ONE_LAYER:
            raise Invalid(f"{name} is for the neurons of one layer: give layer_id and neuron_ids, not a selection")
        return AskedEdit(_edit(request, name, "", ()), _select(request.selection, name, operation in _WHOLE_LAYERS))
    layer = limits.check_text("layer_id", request.layer_id, limits.MAX_LAYER_NAME, empty=False)
    neurons = _neurons("neuron_ids", request.neuron_ids)
    if neurons and operation in _WHOLE_LAYERS:
        raise Invalid(f"{name} is about a whole layer; leave neuron_ids out")
    return AskedEdit(_edit(request, name, layer, neurons))


def _edit(request: pb.ManipulateWeightsRequest, name: str, layer: str, neurons: tuple[int, ...]) -> ops.NeuronEdit:
    match request.operation:
        case pb.FREEZE:
            return ops.Freeze(layer, neurons)
        case pb.UNFREEZE:
            return ops.Unfreeze(layer, neurons)
        case pb.FREEZE_BIAS:
            return ops.FreezeBias(layer, neurons)
        case pb.FREEZE_INCOMING:
            return ops.FreezeIncoming(layer, neurons)
        case pb.CHANGE_LEARNING_RATE:
            if not request.HasField("learning_rate"):
                raise Invalid("CHANGE_LEARNING_RATE needs learning_rate, a factor of 0 or more on the update")
            return ops.SetLearningRate(layer, neurons, rate=request.learning_rate)
        case pb.REINITIALIZE:
            ratio = request.perturbation_ratio if request.HasField("perturbation_ratio") else None
            return ops.Reinitialize(layer, neurons, perturbation_ratio=ratio, zero_outgoing=request.zero_outgoing)
        case pb.ZEROFY:
            incoming = _neurons("incoming_ids", request.incoming_ids)
            return ops.Zerofy(layer, neurons, incoming, request.from_frozen, request.from_older)
        case pb.OVERRIDE_WEIGHTS:
            return ops.OverrideWeights(layer, neurons, values=override_values(request, name))
        case pb.OVERRIDE_BIASES:
            return ops.OverrideBiases(layer, neurons, values=override_values(request, name))
        case pb.SORT_BY_STAT:
            statistic = limits.check_text("statistic", request.statistic, limits.MAX_NAME) or "trigger_rate"
            descending = request.descending if request.HasField("descending") else True
            return ops.SortByStat(layer, neurons, statistic=statistic, descending=descending)
        case pb.REMOVE_NEURONS:
            return ops.RemoveNeurons(layer, neurons, allow_inexact=request.allow_inexact)
        case _:
            limits.check_whole("count", request.count, 1, limits.MAX_ADDED_NEURONS)
            return ops.AddNeurons(
                layer,
                neurons,
                count=request.count,
                skip_initialization=request.skip_initialization,
                allow_inexact=request.allow_inexact,
            )


def _neurons(field: str, given: Iterable[int]) -> tuple[int, ...]:
    neurons = tuple(given)
    limits.check_count(field, len(neurons), limits.MAX_NEURONS)
    if neurons and min(neurons) < 0:
        raise Invalid(f"{field} are 0 or more, not {min(neurons)}")
    if len(set(neurons)) != len(neurons):
        raise Invalid(f"{field} name a neuron twice; name each once")
    return neurons


def _select(wanted: pb.NeuronSelection, name: str, whole_layers: bool) -> ops.Select:
    limits.check_count("layer_ids", len(wanted.layer_ids), limits.MAX_LAYERS)
    layers = tuple(
        limits.check_text("a layer of the selection", layer, limits.MAX_LAYER_NAME, empty=False)
        for layer in wanted.layer_ids
    )
    if bool(layers) == wanted.all_layers:
        raise Invalid("a selection names its layers by layer_ids, or all of them by all_layers; give one of the two")
    given = {field.name for field, _ in wanted.ListFields()}
    amount = wanted.WhichOneof("amount")
    if whole_layers and given - {"layer_ids", "all_layers"}:
        raise Invalid(f"{name} is about whole layers; its selection takes layer_ids or all_layers alone")
    if amount is None and given & {"statistic", "highest"}:
        raise Invalid("statistic and highest say of what so many or that share is taken; give lowest or share too")
    if amount == "lowest":
        limits.check_whole("lowest", wanted.lowest, 1)
    if amount == "share" and not (math.isfinite(wanted.share) and 0 < wanted.share <= 1):
        raise Invalid(f"share is above 0 and at most 1, not {wanted.share}")
    if wanted.health not in pb.NeuronHealth.values():
        raise Invalid(f"the health {int(wanted.health)} is not known; name one of NeuronHealth")
    statistic = limits.check_text("statistic", wanted.statistic, limits.MAX_NAME) or "trigger_rate"
    return ops.Select(
        layers=layers,
        neurons=_neurons("neuron_ids of the selection", wanted.neuron_ids),
        lowest=wanted.lowest if amount == "lowest" else None,
        share=wanted.share if amount == "share" else None,
        statistic=statistic,
        highest=wanted.highest,
        health=pb.NeuronHealth.Name(wanted.health).lower() if wanted.health else "",
        query=limits.check_text("query of the selection", wanted.query, limits.MAX_QUERY),
    )
