"""The one service of the contract, put together from its areas."""

from __future__ import annotations

from graybox.proto import experiment_service_pb2_grpc as pb_grpc
from graybox.service.checkpoints_servicer import CheckpointsServicer
from graybox.service.commands_servicer import CommandsServicer
from graybox.service.evaluation_servicer import EvaluationServicer
from graybox.service.exports_servicer import ExportsServicer
from graybox.service.metrics_servicer import MetricsServicer
from graybox.service.neurons_servicer import NeuronsServicer
from graybox.service.queries_servicer import QueriesServicer
from graybox.service.samples_servicer import SamplesServicer


class ExperimentServicer(
    CommandsServicer,
    MetricsServicer,
    CheckpointsServicer,
    EvaluationServicer,
    SamplesServicer,
    QueriesServicer,
    ExportsServicer,
    NeuronsServicer,
    pb_grpc.ExperimentServiceServicer,
):
    """All RPCs of ExperimentService."""
