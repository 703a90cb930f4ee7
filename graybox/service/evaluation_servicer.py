"""Evaluations on demand: asked for, followed, and cancelled."""

from __future__ import annotations

import grpc
import numpy as np

from graybox.commands import CancelEvaluation, StartEvaluation
from graybox.errors import NotFound
from graybox.proto import experiment_service_pb2 as pb
from graybox.service import limits, wire
from graybox.service.area import Area
from graybox.service.backend import Backend
from graybox.service.errors import answers, clean
from graybox.service.evaluation_messages import evaluation_status
from graybox.service.owner import ask
from graybox.store.blobs import BlobStore
from graybox.store.evaluation_report import EvaluationReport, last_report

MAX_TAGS = 256
MAX_METRICS = 256
MAX_REASON = 1_000


class EvaluationServicer(Area):
    """The trainer evaluates, batch by batch between its steps; its snapshots tell how far it is."""

    @answers(pb.TriggerEvaluationResponse)
    def TriggerEvaluation(
        self, request: pb.TriggerEvaluationRequest, context: grpc.ServicerContext
    ) -> pb.TriggerEvaluationResponse:
        _check(request)
        backend = self.desk.run(request.run_id)
        owner = backend.need_commands("evaluate it")
        splits = backend.samples.splits
        if request.split_name not in splits:
            raise NotFound(f"there is no split {request.split_name!r}; there are {', '.join(splits)}")
        rows, query = None, ""
        if request.view_id:
            view = self.desk.views.get(request.view_id, backend.run.run_id)
            rows, query = view.rows().get(request.split_name, np.zeros(0, dtype=np.int64)), view.query
        command = StartEvaluation(
            request.split_name, tuple(request.tags), request.use_full_set, tuple(request.metrics), rows, query
        )
        outcome = ask(self.desk, owner, context, command, command_id=request.command_id, actor=request.actor)
        return pb.TriggerEvaluationResponse(success=True, message=clean(outcome.message), run_id=backend.run.run_id)

    @answers(pb.GetEvaluationStatusResponse)
    def GetEvaluationStatus(
        self, request: pb.GetEvaluationStatusRequest, context: grpc.ServicerContext
    ) -> pb.GetEvaluationStatusResponse:
        backend = self.desk.run(request.run_id)
        return evaluation_status(_report(backend), wire.class_names(backend), backend.run.run_id)

    @answers(pb.CancelEvaluationResponse)
    def CancelEvaluation(
        self, request: pb.CancelEvaluationRequest, context: grpc.ServicerContext
    ) -> pb.CancelEvaluationResponse:
        limits.check_text("reason", request.reason, MAX_REASON)
        backend = self.desk.run(request.run_id)
        owner = backend.need_commands("cancel an evaluation of it")
        command = CancelEvaluation(request.reason)
        outcome = ask(self.desk, owner, context, command, command_id=request.command_id, actor=request.actor)
        return pb.CancelEvaluationResponse(success=True, message=clean(outcome.message), run_id=backend.run.run_id)


def _check(request: pb.TriggerEvaluationRequest) -> None:
    """What is malformed is said before anything is done."""
    limits.check_text("split_name", request.split_name, limits.MAX_NAME, empty=False)
    limits.check_count("tags", len(request.tags), MAX_TAGS)
    limits.check_count("metrics", len(request.metrics), MAX_METRICS)
    for name, values in (("a tag", request.tags), ("a metric", request.metrics)):
        for value in values:
            limits.check_text(name, value, limits.MAX_NAME, empty=False)


def _report(backend: Backend) -> EvaluationReport | None:
    """Of a run that has ended, as its journal tells."""
    if backend.snapshots is not None:
        return backend.snapshots.latest().evaluation
    return last_report(backend.journal.entries(), BlobStore(backend.run.path / "blobs"))
