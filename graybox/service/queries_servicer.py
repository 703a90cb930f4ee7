"""Queries over samples: what is found becomes a view, what is asked to be shown is answered. A question in natural
language becomes a query first, and the edits that it asks for are proposed, never made."""

from __future__ import annotations

import json
import threading

import grpc
import numpy as np

from graybox.commands import Commands, RecordQuery
from graybox.errors import Invalid
from graybox.proto import experiment_service_pb2 as pb
from graybox.service import limits, wire
from graybox.service.area import Area
from graybox.service.backend import Backend
from graybox.service.errors import answers, clean
from graybox.service.int32 import int32
from graybox.service.language_model import LanguageModel, LanguageModelFailed
from graybox.service.language_settings import HOW, language_settings
from graybox.service.owner import DEFAULT_ACTOR
from graybox.service.question_answer import Understood
from graybox.service.questions import MAX_QUESTION, NotUnderstood, ask, example_queries
from graybox.store.query import Query, answer, check, parse, rows
from graybox.store.sample_table import SampleTable

JOURNALLED_AT_ONCE = 32
"""So many queries may wait to be noted in the journal; those beyond are answered all the same."""


class QueriesServicer(Area):
    """Evaluates queries on the columns in memory; the trainer only notes them in its journal."""

    _waiting = threading.BoundedSemaphore(JOURNALLED_AT_ONCE)

    @answers(pb.DataQueryResponse)
    def ApplyDataQuery(self, request: pb.DataQueryRequest, context: grpc.ServicerContext) -> pb.DataQueryResponse:
        limits.check_text("actor", request.actor, limits.MAX_ACTOR)
        if request.is_natural_language:
            return self._question(request, context)
        limits.check_text("query", request.query, limits.MAX_QUERY)
        backend = self.desk.run(request.run_id)
        table = _table(backend)
        query = parse(request.query)
        check(query, table)
        return self._found(request, backend, table, query)

    def _question(self, request: pb.DataQueryRequest, context: grpc.ServicerContext) -> pb.DataQueryResponse:
        limits.check_text("the question", request.query.strip(), MAX_QUESTION, empty=False)
        backend = self.desk.run(request.run_id)
        if request.within_view_id:
            self.desk.views.get(request.within_view_id, backend.run.run_id)  # before the model is bothered
        try:
            settings = language_settings()
            if settings is None:
                return _unanswered(request, backend, f"no language model is set up to read questions: {HOW}")
            with self.desk.language_gate.place():
                meant = ask(LanguageModel(settings), request.query, lambda: _table(backend), context)
        except (Invalid, LanguageModelFailed, NotUnderstood) as error:
            return _unanswered(request, backend, str(error))
        if meant.query is None:
            return _unanswered(request, backend, "the language model sees no question about the samples in this")
        response = self._found(request, backend, _table(backend), meant.query)
        if meant.edits:
            _propose(response, request, backend, meant)
        return response

    def _found(
        self, request: pb.DataQueryRequest, backend: Backend, table: SampleTable, query: Query
    ) -> pb.DataQueryResponse:
        run_id = backend.run.run_id
        within = None
        if request.within_view_id and query.command != "reset":
            kept = self.desk.views.get(request.within_view_id, run_id).selection
            within = table.numbers(kept)
        statistics = wire.sample_statistics(backend.samples.summary())
        response = pb.DataQueryResponse(
            success=True,
            number_of_all_samples=int32(statistics.number_of_samples),
            number_of_samples_in_the_loop=int32(statistics.number_of_samples - statistics.number_of_discarded),
            number_of_discarded_samples=int32(statistics.number_of_discarded),
            unique_tags=[clean(tag) for tag in table.tags()],
            run_id=run_id,
            query=query.text(),
            agent_intent_type=_intent(query),
        )
        if query.command:
            response.number_of_matches = len(table)
            response.message = "All samples" if query.command == "reset" else "What samples can be asked by"
            if query.command == "overview":
                _overview(response, table)
            return response
        found = rows(query, table, seed=request.seed, within=within)
        response.number_of_matches = len(found)
        response.message = _matches(len(found), len(table) if within is None else len(within))
        response.view_id = self.desk.views.add(run_id, query.text(), table.selection(found)).view_id
        if query.show is not None:
            told = answer(query, table, found)
            response.analysis_result = clean(told.text())
            response.analysis_json = json.dumps(told.to_json())
        if backend.commands is not None:
            self._note(backend.commands, query.text(), len(found), request.actor or DEFAULT_ACTOR)
        return response

    def _note(self, commands: Commands, query: str, matches: int, actor: str) -> None:
        """In the journal, when the trainer comes to it: nobody waits for a step because of a question."""
        if self._waiting.acquire(blocking=False):
            try:
                noted = commands.submit(RecordQuery(query, matches), actor=actor)
            except BaseException:
                self._waiting.release()
                raise
            noted.add_done_callback(lambda _: self._waiting.release())


def _table(backend: Backend) -> SampleTable:
    return SampleTable(list(backend.samples.splits.values()), wire.class_names(backend))


def _unanswered(request: pb.DataQueryRequest, backend: Backend, reason: str) -> pb.DataQueryResponse:
    """Why there is no query, and what the language could have been asked instead."""
    nearest = [clean(query) for query in example_queries(request.query, _table(backend))]
    return pb.DataQueryResponse(
        success=False, message=clean(reason), run_id=backend.run.run_id, example_queries=nearest
    )


def _propose(response: pb.DataQueryResponse, request: pb.DataQueryRequest, backend: Backend, meant: Understood) -> None:
    """Adds what EditDataSample would be sent for the samples that were found; nothing of it is done."""
    response.agent_intent_type = "edit"
    if backend.commands is None:
        response.message += f"; not to be edited: {backend.ended('edit samples')}"
        return
    if response.number_of_matches:
        proposals = [
            edit.proposal(response.number_of_matches, response.view_id, response.run_id, request.actor)
            for edit in meant.edits
        ]
        response.proposed_edits.extend(proposals)


def _intent(query: Query) -> str:
    """What was asked for, in a word."""
    return query.command or ("analysis" if query.show is not None else "filter")


def _matches(count: int, among: int) -> str:
    if not count:
        return f"No sample of {among:,} matches"
    return f"{count:,} of {among:,} samples" if count < among else f"All {among:,} samples"


def _overview(response: pb.DataQueryResponse, table: SampleTable) -> None:
    """Which columns there are, for people and as data."""
    lines = []
    for name in table.names():
        column = table.column(name)
        response.columns.add(name=clean(name), kind=column.kind.value, description=column.description)
        lines.append(f"{name:16} {column.kind.value:7} {column.description}".rstrip())
    counts = {tag: int(np.count_nonzero(table.tag(tag))) for tag in table.tags()}
    lines += [f"tag:{tag} {count:,} samples" for tag, count in counts.items()]
    response.analysis_result = clean("\n".join(lines))
