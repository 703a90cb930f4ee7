"""GetLatestLoggerData: the curves, by cursor, so that polling costs what changed."""

from __future__ import annotations

import grpc

from graybox.errors import Invalid, Unsupported
from graybox.proto import experiment_service_pb2 as pb
from graybox.service import limits
from graybox.service.area import Area
from graybox.service.errors import answers, clean
from graybox.service.int32 import int32
from graybox.store.metric_history import MetricColumns


class MetricsServicer(Area):
    """Reads never consume: where a client stands is in its own cursor."""

    @answers(pb.GetLatestLoggerDataResponse)
    def GetLatestLoggerData(
        self, request: pb.GetLatestLoggerDataRequest, context: grpc.ServicerContext
    ) -> pb.GetLatestLoggerDataResponse:
        _check(request)
        with self.desk.logger_gate.place():
            backend = self.desk.run(request.run_id)
            run_id = backend.run.run_id
            found = backend.metrics.read(
                cursor=_own_cursor(request.cursor, run_id),
                full=request.request_full_history,
                max_points=request.max_points or limits.DEFAULT_POINTS,
                metric=request.graph_name,
                min_age=request.min_age,
                max_age=request.max_age,
            )
            return pb.GetLatestLoggerDataResponse(
                points=_points(found.points, run_id),
                cursor=f"{run_id}/{found.cursor}",
                reset=found.reset,
                run_id=run_id,
                total_points=found.total,
            )


def _check(request: pb.GetLatestLoggerDataRequest) -> None:
    limits.check_whole("max_points", request.max_points, 0, limits.MAX_POINTS)
    limits.check_text("graph_name", request.graph_name, limits.MAX_NAME)
    limits.check_text("cursor", request.cursor, limits.MAX_NAME)
    limits.check_whole("min_age", request.min_age, 0)
    limits.check_whole("max_age", request.max_age, 0)
    if request.max_age and request.max_age < request.min_age:
        raise Invalid(f"max_age {request.max_age} lies below min_age {request.min_age}; 0 means no upper bound")
    if request.break_by_slices:
        raise Unsupported("curves of single samples by tag come with a later version, together with tags")


def _own_cursor(cursor: str, run_id: str) -> str:
    """The store's part of a cursor. One of another run is none the store could know: the answer is a reset."""
    owner, _, position = cursor.rpartition("/")
    return position if not cursor or owner == run_id else "of another run"


def _points(columns: MetricColumns, run_id: str) -> list[pb.LoggerDataPoint]:
    rows = zip(
        columns.metric.tolist(),
        columns.split.tolist(),
        columns.branch.tolist(),
        columns.step.tolist(),
        columns.age.tolist(),
        columns.time_ms.tolist(),
        columns.value.tolist(),
        columns.marker.tolist(),
        columns.experiment_hash.tolist(),
        columns.note.tolist(),
        columns.tags.tolist(),
        columns.audit.tolist(),
        strict=True,
    )
    return [
        pb.LoggerDataPoint(
            metric_name=clean(metric),
            model_age=int32(age),
            metric_value=value,
            experiment_hash=experiment_hash,
            timestamp=int32(time_ms // 1000),
            is_evaluation_marker=marker,
            split_name=clean(split),
            point_note=clean(note),
            evaluation_tags=[clean(tag) for tag in tags],
            audit_mode=audit,
            age=age,
            time_ms=time_ms,
            step=step,
            branch=branch,
            run_id=run_id,
        )
        for metric, split, branch, step, age, time_ms, value, marker, experiment_hash, note, tags, audit in rows
    ]
