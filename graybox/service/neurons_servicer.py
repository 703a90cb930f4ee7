"""Neurons, weights and activations: edits, and what needs the model itself."""

from __future__ import annotations

import io

import grpc
import numpy as np

from graybox.commands import EditNeurons, ReadActivations, ReadWeights
from graybox.errors import Invalid, Refused
from graybox.plan_summary import PlanSummary
from graybox.proto import experiment_service_pb2 as pb
from graybox.service import limits
from graybox.service.area import Area
from graybox.service.errors import answers, clean
from graybox.service.neuron_edits import asked_edit
from graybox.service.owner import ask
from graybox.service.plans import edit_plan, together
from graybox.service.sample_ids import check_samples


class NeuronsServicer(Area):
    """Layers are named by id or qualified name; the trainer, which owns the model, resolves both."""

    @answers(pb.ManipulateWeightsResponse)
    def ManipulateWeights(
        self, request: pb.ManipulateWeightsRequest, context: grpc.ServicerContext
    ) -> pb.ManipulateWeightsResponse:
        asked = asked_edit(request)
        backend = self.desk.run(request.run_id)
        owner = backend.need_commands("edit its neurons")
        command = EditNeurons(asked.edit, asked.select, dry_run=request.dry_run, measure=request.measure)
        response = pb.ManipulateWeightsResponse(success=True, run_id=backend.run.run_id)
        try:
            outcome = ask(self.desk, owner, context, command, command_id=request.command_id, actor=request.actor)
        except Refused as error:
            response.success = False
            response.message = clean(str(error))
            response.together.extend(together(error, asked.edit.layer))
            return response
        response.message = clean(outcome.message)
        response.plan = clean(str(outcome.value)) if outcome.value is not None else ""
        response.journal_sequence = outcome.sequence
        if isinstance(outcome.value, PlanSummary):
            response.details.CopyFrom(edit_plan(outcome.value))
        return response

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
