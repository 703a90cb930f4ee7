"""Neurons, weights and activations: edits, and what needs the model itself."""

from __future__ import annotations

import io

import grpc
import numpy as np

from graybox.commands import EditNeurons, ReadActivations, ReadWeights
from graybox.errors import Invalid, Unsupported
from graybox.neuron_ops import Freeze, NeuronEdit, Reinitialize, SetLearningRate, Unfreeze
from graybox.proto import experiment_service_pb2 as pb
from graybox.service import limits
from graybox.service.area import Area
from graybox.service.errors import answers, clean
from graybox.service.owner import ask
from graybox.service.sample_ids import check_samples

_LATER = {
    pb.REMOVE_NEURONS: "removing neurons",
    pb.ADD_NEURONS: "adding neurons",
    pb.SORT_BY_STAT: "sorting neurons by a statistic",
    pb.ZEROFY: "zeroing connections",
    pb.OVERRIDE_WEIGHTS: "overriding weights",
    pb.OVERRIDE_BIASES: "overriding biases",
    pb.FREEZE_BIAS: "freezing biases alone",
    pb.FREEZE_INCOMING: "freezing incoming connections",
}

# Which of the optional fields an operation knows.
_FIELDS: dict[int, frozenset[str]] = {
    pb.FREEZE: frozenset(),
    pb.UNFREEZE: frozenset(),
    pb.CHANGE_LEARNING_RATE: frozenset({"learning_rate"}),
    pb.REINITIALIZE: frozenset({"perturbation_ratio", "zero_outgoing"}),
}


class NeuronsServicer(Area):
    """Layers are named by id or qualified name; the trainer, which owns the model, resolves both."""

    @answers(pb.ManipulateWeightsResponse)
    def ManipulateWeights(
        self, request: pb.ManipulateWeightsRequest, context: grpc.ServicerContext
    ) -> pb.ManipulateWeightsResponse:
        edit = _edit(request)
        backend = self.desk.run(request.run_id)
        owner = backend.need_commands("edit its neurons")
        outcome = ask(
            self.desk,
            owner,
            context,
            EditNeurons(edit, dry_run=request.dry_run),
            command_id=request.command_id,
            actor=request.actor,
        )
        return pb.ManipulateWeightsResponse(
            success=True,
            message=clean(outcome.message),
            plan=clean(str(outcome.value)) if outcome.value is not None else "",
            journal_sequence=outcome.sequence,
            run_id=backend.run.run_id,
        )

    @answers(pb.WeightsResponse)
    def GetWeights(self, request: pb.GetWeightsRequest, context: grpc.ServicerContext) -> pb.WeightsResponse:
        layer = limits.check_text("layer_id", request.layer_id, limits.MAX_LAYER_NAME, empty=False)
        tensor = request.tensor or "weight"
        if tensor not in ("weight", "bias"):
            raise Invalid(f"the tensor is 'weight' or 'bias', not {tensor[:50]!r}")
        backend = self.desk.run(request.run_id)
        owner = backend.need_commands("read its weights")
        outcome = ask(self.desk, owner, context, ReadWeights(layer, tensor))
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(outcome.value), allow_pickle=False)
        return pb.WeightsResponse(weights_data=buffer.getvalue(), format="npy", run_id=backend.run.run_id)

    @answers(pb.ActivationsResponse)
    def GetActivations(
        self, request: pb.GetActivationsRequest, context: grpc.ServicerContext
    ) -> pb.ActivationsResponse:
        layer = limits.check_text("layer_id", request.layer_id, limits.MAX_LAYER_NAME, empty=False)
        backend = self.desk.run(request.run_id)
        owner = backend.need_commands("compute activations")
        ((split, sample),) = check_samples(backend.samples, [request.sample_id], [request.origin])
        outcome = ask(self.desk, owner, context, ReadActivations(layer, split, sample))
        values = np.ascontiguousarray(outcome.value, dtype="<f4")
        return pb.ActivationsResponse(
            activation_data=values.tobytes(),
            shape=",".join(str(n) for n in values.shape),
            format="float32",
            run_id=backend.run.run_id,
        )


def _edit(request: pb.ManipulateWeightsRequest) -> NeuronEdit:
    """The edit a request stands for. Raises Invalid, or Unsupported for operations of a later version."""
    operation = request.operation
    if operation in _LATER:
        raise Unsupported(
            f"{_LATER[operation]} comes with a later version; known are freeze, unfreeze, "
            "change learning rate and reinitialize"
        )
    if operation not in _FIELDS:
        raise Invalid(f"the neuron operation {int(operation)} is not known; name one of NeuronOperation")
    name = pb.NeuronOperation.Name(operation)
    layer = limits.check_text("layer_id", request.layer_id, limits.MAX_LAYER_NAME, empty=False)
    limits.check_count("neuron_ids", len(request.neuron_ids), limits.MAX_NEURONS)
    neurons = tuple(request.neuron_ids)
    if neurons and min(neurons) < 0:
        raise Invalid(f"neuron ids are 0 or more, not {min(neurons)}")
    given = {field.name for field, _ in request.ListFields()}
    odd = (given & {"learning_rate", "perturbation_ratio", "zero_outgoing"}) - _FIELDS[operation]
    if odd:
        raise Invalid(f"{name} takes no {' and no '.join(sorted(odd))}")
    match operation:
        case pb.FREEZE:
            return Freeze(layer, neurons)
        case pb.UNFREEZE:
            return Unfreeze(layer, neurons)
        case pb.CHANGE_LEARNING_RATE:
            if "learning_rate" not in given:
                raise Invalid("CHANGE_LEARNING_RATE needs learning_rate, a factor of 0 or more on the update")
            return SetLearningRate(layer, neurons, rate=request.learning_rate)
        case _:
            ratio = request.perturbation_ratio if "perturbation_ratio" in given else None
            return Reinitialize(layer, neurons, perturbation_ratio=ratio, zero_outgoing=request.zero_outgoing)
