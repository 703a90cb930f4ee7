"""What became of an evaluation, as a message of the contract."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graybox.proto import experiment_service_pb2 as pb
from graybox.service.errors import clean
from graybox.service.int32 import int32
from graybox.store.evaluation_report import CANCELLED, ClassTable, EvaluationReport

IDLE = "idle"


def evaluation_status(
    report: EvaluationReport | None, class_names: Sequence[str], run_id: str
) -> pb.GetEvaluationStatusResponse:
    """class_names: by number; a class without one is called by its number."""
    if report is None:
        return pb.GetEvaluationStatusResponse(status=IDLE, run_id=run_id)
    answer = pb.GetEvaluationStatusResponse(
        status=report.status,
        current=int32(report.done),
        total=int32(report.total),
        message=clean(report.message),
        error=clean(report.error),
        split_name=clean(report.split),
        run_id=run_id,
        metrics={clean(name): value for name, value in report.metrics.items()},
        evaluation_id=report.evaluation_id,
        cancelled=report.status == CANCELLED,
        tags=[clean(tag) for tag in report.tags],
        use_full_set=report.full,
        query=clean(report.query),
        step=report.step,
        age=report.age,
        started_ms=report.started_ms,
        traceback=clean(report.traceback),
    )
    if report.classes is not None:
        names = _names(class_names, len(report.classes.support))
        answer.tables.append(pb.EvaluationTable(name="class", rows=_rows(report.classes, names)))
    if report.confusion is not None:
        answer.confusion_matrix.CopyFrom(_matrix(report.confusion, _names(class_names, len(report.confusion))))
    return answer


def _names(known: Sequence[str], count: int) -> list[str]:
    return [*known[:count], *map(str, range(len(known), count))]


def _rows(table: ClassTable, names: list[str]) -> list[pb.EvaluationRow]:
    columns = (table.support, table.precision, table.recall, table.f1, table.mean_loss)
    return [
        pb.EvaluationRow(
            name=name,
            support=support,
            precision=_known(precision),
            recall=_known(recall),
            f1=_known(f1),
            accuracy=_known(recall),  # of a single class they are the same
            mean_loss=_known(loss),
        )
        for name, support, precision, recall, f1, loss in zip(names, *(c.tolist() for c in columns), strict=True)
    ]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _matrix(counts: NDArray[np.int64], names: list[str]) -> pb.ConfusionMatrix:
    return pb.ConfusionMatrix(class_names=names, counts=counts.ravel().tolist())
