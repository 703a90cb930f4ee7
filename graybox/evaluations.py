"""Evaluations that somebody asks for: any split, one at a time, batch by batch between two steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graybox.commands import StartEvaluation
from graybox.errors import Invalid, NotFound, Refused, StorageError
from graybox.evaluation import EvaluationPass, EvaluationResult
from graybox.evaluation_metrics import MetricSet
from graybox.evaluation_rows import kept_rows, rows_for, rows_of, tags_text
from graybox.intervention import Intervention, Performed
from graybox.metric_choice import Chosen, chosen, library_ready, needs_library
from graybox.store.evaluation_report import (
    CANCELLED,
    COMPLETED,
    END,
    FAILED,
    RUNNING,
    START,
    EvaluationReport,
    kept,
    numbers_for,
    numbers_from,
)
from graybox.store.journal import JournalEntry
from graybox.store.metric_history import About
from graybox.store.runs import now_ms
from graybox.store.undo_order import REDO, UNDO, as_edit
from graybox.tunable import RESERVED, RESERVED_BEGINNINGS

if TYPE_CHECKING:
    from graybox.session import Session
    from graybox.training_step import BatchOutcome

TRAIN = "train"
LOADING_SECONDS = 0.02
_HARMLESS = frozenset(
    {"pause", "resume", "plot_note", "tag_add", "tag_remove", "sample_discard", "sample_restore", "sample_weight",
     "metadata_copy", "metadata_delete", "query_execute", "mode_switch", START}
)  # fmt: skip
"""What changes neither the network nor what a pass compares its answers with."""


@dataclass
class _Running:
    """One that has not ended. rows: int64 [total]. made: its pass, once it has begun; whole, result: when it is
    through."""

    report: EvaluationReport
    arguments: Mapping[str, Any]
    rows: NDArray[np.int64]
    made: EvaluationPass | None = None
    whole: BatchOutcome | None = None
    result: EvaluationResult | None = None


class Evaluations:
    """The evaluations on demand of one session. Touched by the owner only.

    Nothing that trains changes: no weight, no running statistic, no random state, no position in the data; nor do the
    neurons' statistics. What the samples did is noted of any split but the training set, whose columns tell how it
    trains.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.last: EvaluationReport | None = None
        """The newest one that has ended."""
        self._running: _Running | None = None

    @property
    def active(self) -> bool:
        """Whether one has begun and not ended."""
        return self._running is not None

    def report(self) -> EvaluationReport | None:
        """The one that runs, or the newest that has ended; None where there was none."""
        running = self._running
        if running is None:
            return self.last
        done = 0 if running.made is None else running.made.done
        return replace(running.report, status=RUNNING, done=done) if done else running.report

    # -- asking ----------------------------------------------------------------------------------------

    def resolve(self, command: StartEvaluation) -> Intervention:
        """Check it against the present. Raises Invalid, NotFound or Refused; changes nothing."""
        experiment = self.session.experiment
        if self._running is not None:
            raise Refused(f"{self._progress()}; wait for it, or cancel it")
        if command.split not in experiment.datasets:
            raise NotFound(f"there is no split {command.split!r:.100}; there are {', '.join(experiment.datasets)}")
        wanted = chosen(command.metrics, experiment.metrics, experiment.task)
        splits = self.session.stores.samples.splits
        rows = rows_for(command, splits)
        some = not command.full
        return Intervention(
            START,
            {
                "split": command.split,
                "tags": list(command.tags) if some else [],
                "full": command.full,
                "query": (command.query or "a view") if some and command.rows is not None else "",
                "metrics": list(wanted),
                "strict": bool(command.metrics) or experiment.metrics is not None,
                "count": len(rows),
                "batch_size": self.session.stream.batch_size,
                **kept_rows(rows, splits[command.split].count, self.session.stores.blobs),
            },
        )

    def check(self, intervention: Intervention) -> None:
        """Raises Refused for what would change the network, or what its answers are compared with, while an evaluation
        runs."""
        if self._running is None:
            return
        kind, arguments = intervention.kind, intervention.arguments
        if kind in (UNDO, REDO):
            entries = {entry.sequence: entry for entry in self.session.stores.journal.entries()}
            edit, _ = as_edit(entries[arguments["sequence"]], entries)
            kind, arguments = edit.kind, edit.arguments
        if kind in _HARMLESS or (kind == "hp_change" and all(map(_is_apart, arguments["changes"]))):
            return
        raise Refused(f"{self._progress()}, and this would change what it measures; wait for it, or cancel it")

    def cancel(self, reason: str = "") -> str:
        """End the one that runs, without a trace; a line for people. Raises Refused where none runs."""
        running = self._running
        if running is None:
            raise Refused("no evaluation is running")
        report = self.report()
        assert report is not None
        text = f"Cancelled the evaluation of {report.split} after {report.done:,} of {report.total:,} samples"
        text += f": {reason}" if reason else ""
        self._running, self.last = None, replace(report, status=CANCELLED, message=text)
        return text

    # -- its course ------------------------------------------------------------------------------------

    def advance(self) -> Intervention | None:
        """One batch. Answers the intervention that ends it when it is through. Raises SampleLoadError, or what the
        user's code raises."""
        running = self._running
        assert running is not None
        wanted = self._wanted(running)
        if running.made is None and needs_library(wanted) and not library_ready(LOADING_SECONDS):
            return None
        if running.made is None:
            metrics = None
            if wanted:
                experiment, strict = self.session.experiment, running.arguments["strict"]
                metrics = MetricSet(wanted, experiment.task, experiment.device, strict=strict)
            running.made = self._pass(running, metrics)
        if running.made.advance():
            return None
        running.result = running.made.result()
        return Intervention(
            END, {"start": running.report.evaluation_id, "status": COMPLETED, "done": running.made.done}
        )

    def failure(self, described: Mapping[str, str]) -> Intervention:
        """What ends the one that runs after `advance` raised. described: as graybox.failures.describe_error."""
        report = self.report()
        assert report is not None
        return Intervention(END, {"start": report.evaluation_id, "status": FAILED, "done": report.done, **described})

    def replayed(self, end: JournalEntry) -> bool:
        """For a replay that has come to the end of an evaluation: do one batch of it anew; whether it is through. What
        was measured is in the journal; what the samples did is not."""
        if end.arguments["status"] != COMPLETED:
            return True
        running = self._begun(end.arguments["start"])
        if running.whole is not None or running.report.split == TRAIN:
            return True
        if running.made is None:
            running.made = self._pass(running, None)
        try:
            return not running.made.advance()
        except BaseException:
            running.made = None  # it may have lost a batch
            raise

    def _begun(self, number: int) -> _Running:
        """The one that has this number; begun anew, as the journal tells it, where a replay began after its start."""
        if self._running is None or self._running.report.evaluation_id != number:
            start = next(
                (e for e in self.session.stores.journal.entries(after=number - 1)[:1] if e.kind == START), None
            )
            if start is None:
                raise Invalid(f"evaluation {number} ended without having begun")
            self.start(start.arguments, number)
        assert self._running is not None
        return self._running

    def replay_is_over(self, last: EvaluationReport | None) -> None:
        """One that had not ended when the process did is not done again. last: as the journal tells it."""
        self._running, self.last = None, last

    def _wanted(self, running: _Running) -> Chosen:
        experiment = self.session.experiment
        names = running.arguments["metrics"]
        return chosen(names, experiment.metrics, experiment.task) if names else {}

    def _pass(self, running: _Running, metrics: MetricSet | None) -> EvaluationPass:
        session, report = self.session, running.report
        left_out = np.ones(session.stores.samples.splits[report.split].count, dtype=bool)
        left_out[running.rows] = False

        def record(whole: BatchOutcome) -> None:
            running.whole = whole

        return EvaluationPass(
            session.experiment,
            report.split,
            left_out,
            batch_size=running.arguments["batch_size"],
            seed=session.seed,
            record=record,
            metrics=metrics,
            neurons=False,
        )

    # -- performing ------------------------------------------------------------------------------------

    def start(self, arguments: Mapping[str, Any], sequence: int) -> Performed:
        """Begin. arguments: as `resolve` made them."""
        session = self.session
        tags, some = tuple(arguments["tags"]), f"{arguments['count']:,} samples of {arguments['split']}"
        chosen_by = " in ".join(filter(None, (tags_text(tags), arguments["query"] and f"“{arguments['query']}”")))
        summary = f"Evaluates {some}" + (f" ({chosen_by})" if chosen_by else "")
        report = EvaluationReport(
            evaluation_id=sequence, split=arguments["split"], total=arguments["count"], tags=tags,
            full=arguments["full"], query=arguments["query"], message=summary, step=session.step, age=session.age,
            started_ms=now_ms(),
        )  # fmt: skip
        count = session.stores.samples.splits[report.split].count
        rows = rows_of(arguments, count, session.stores.blobs)
        before = self._running
        self._running = _Running(report, dict(arguments), rows)

        def take_back() -> None:
            self._running = before

        return Performed(summary, value=sequence, take_back=take_back)

    def end(self, arguments: Mapping[str, Any]) -> Performed:
        """Record what was found. Raises StorageError; it has failed then."""
        running = self._begun(arguments["start"])
        report = replace(running.report, status=arguments["status"], done=arguments["done"])
        self._running = None
        if report.status == FAILED:
            text = f"The evaluation of {report.split} failed: {arguments['error']}"
            self.last = replace(report, message=text, error=arguments["error"], traceback=arguments["traceback"])
            return Performed(text)
        try:
            self.last, decided = self._recorded(report, running, arguments)
        except StorageError as error:
            self.last = replace(report, status=FAILED, error=str(error))
            raise
        return Performed(self.last.message, decided=decided)

    def _recorded(
        self, report: EvaluationReport, running: _Running, arguments: Mapping[str, Any]
    ) -> tuple[EvaluationReport, dict[str, Any]]:
        session, result = self.session, running.result
        if "metrics" in arguments:  # as they were found the first time
            numbers = numbers_from(arguments["metrics"])
        else:
            assert result is not None
            numbers = result.numbers()
        if report.split != TRAIN and running.whole is not None:
            session.record_samples(report.split, running.whole)
        about = About(marker=True, tags=points_tags(report))
        session.append_metrics({(report.split, name): value for name, value in numbers.items()}, about=about)
        classes = confusion = None
        if result is not None:
            classes, confusion = result.measured.classes, result.measured.confusion
        shown = ", ".join(f"{name} {numbers[name]:.4g}" for name in ("loss", "accuracy") if name in numbers)
        text = f"Evaluated {report.done:,} samples of {report.split}: {shown}"
        decided = {"metrics": numbers_for(numbers), **kept(classes, confusion, session.stores.blobs)}
        return replace(report, message=text, metrics=numbers, classes=classes, confusion=confusion), decided

    def _progress(self) -> str:
        report = self.report()
        assert report is not None
        return (
            f"evaluation {report.evaluation_id} of {report.split} is running ({report.done:,} of {report.total:,} "
            "samples)"
        )


def points_tags(report: EvaluationReport) -> tuple[str, ...]:
    """How the points of an evaluation say which samples it was of; nothing for a whole split."""
    return report.tags + ((f"query: {report.query}",) if report.query else ())


def _is_apart(setting: str) -> bool:
    """Whether a hyper-parameter has no part in what an evaluation measures: not in the loss, nor a person's own."""
    return (setting in RESERVED and not setting.startswith("loss.")) or setting.split(".")[0] in RESERVED_BEGINNINGS
