"""Evaluation on demand, which the contract has and this version does not do yet."""

from __future__ import annotations

import grpc

from graybox.errors import Unsupported
from graybox.proto import experiment_service_pb2 as pb
from graybox.service.area import Area
from graybox.service.errors import answers

_LATER = (
    "evaluation on demand comes with a later version; until then the evaluation split is passed every "
    "full_eval_frequency steps, and GetLatestLoggerData has the results"
)


class EvaluationServicer(Area):
    """Answers UNIMPLEMENTED, saying what there is instead; NOT_FOUND for a run that does not exist."""

    @answers(pb.TriggerEvaluationResponse)
    def TriggerEvaluation(
        self, request: pb.TriggerEvaluationRequest, context: grpc.ServicerContext
    ) -> pb.TriggerEvaluationResponse:
        self.desk.check(request.run_id)
        raise Unsupported(_LATER)

    @answers(pb.GetEvaluationStatusResponse)
    def GetEvaluationStatus(
        self, request: pb.GetEvaluationStatusRequest, context: grpc.ServicerContext
    ) -> pb.GetEvaluationStatusResponse:
        self.desk.check(request.run_id)
        raise Unsupported(_LATER)

    @answers(pb.CancelEvaluationResponse)
    def CancelEvaluation(
        self, request: pb.CancelEvaluationRequest, context: grpc.ServicerContext
    ) -> pb.CancelEvaluationResponse:
        self.desk.check(request.run_id)
        raise Unsupported(_LATER)
