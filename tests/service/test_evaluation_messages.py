"""Reports of evaluations as messages: nothing is lost, and what cannot be said is absent."""

from __future__ import annotations

import numpy as np

from graybox.proto import experiment_service_pb2 as pb
from graybox.service.evaluation_messages import evaluation_status
from graybox.store.evaluation_report import ClassTable, EvaluationReport


def test_where_there_was_none_it_is_idle() -> None:
    assert evaluation_status(None, [], "run") == pb.GetEvaluationStatusResponse(status="idle", run_id="run")


def test_everything_is_told() -> None:
    table = ClassTable(np.array([2, 0]), *(np.array([share, np.nan]) for share in (0.5, 0.25, 0.75, 1.5)))
    report = EvaluationReport(
        7, "test", "completed", 2**40, 9, ("dark", "\ud800"), True, "loss > 1", "done", "", "", 5, 40, 1_700,
        {"loss": 0.5}, table, np.array([[1, 2], [3, 4]]),
    )  # fmt: skip
    answer = evaluation_status(report, ["cat"], "run")
    assert (answer.status, answer.current, answer.total) == ("completed", 2**31 - 1, 9)
    assert (answer.evaluation_id, answer.step, answer.age, answer.started_ms) == (7, 5, 40, 1_700)
    assert (list(answer.tags), answer.use_full_set, answer.query) == (["dark", "?"], True, "loss > 1")
    assert (answer.message, answer.split_name, answer.cancelled) == ("done", "test", False)
    assert dict(answer.metrics) == {"loss": 0.5}
    (told,) = answer.tables
    seen = pb.EvaluationRow(name="cat", support=2, precision=0.5, recall=0.25, f1=0.75, accuracy=0.25, mean_loss=1.5)
    assert told == pb.EvaluationTable(name="class", rows=[seen, pb.EvaluationRow(name="1", support=0)])
    assert not told.rows[1].HasField("precision")
    assert answer.confusion_matrix == pb.ConfusionMatrix(class_names=["cat", "1"], counts=[1, 2, 3, 4])


def test_what_went_wrong_is_told() -> None:
    failed = EvaluationReport(7, "test", "failed", 3, 9, error="E", traceback="T", message="no")
    answer = evaluation_status(failed, ["cat", "dog"], "run")
    assert (answer.status, answer.error, answer.traceback, answer.cancelled) == ("failed", "E", "T", False)
    assert evaluation_status(EvaluationReport(7, "test", "cancelled"), [], "run").cancelled
    assert not answer.HasField("confusion_matrix") and not answer.tables
