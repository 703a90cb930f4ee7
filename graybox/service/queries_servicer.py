"""Queries over samples: what is found becomes a view, what is asked to be shown is answered."""

from __future__ import annotations

import json
import threading

import grpc
import numpy as np

from graybox.commands import Commands, RecordQuery
from graybox.proto import experiment_service_pb2 as pb
from graybox.service import limits, wire
from graybox.service.area import Area
from graybox.service.backend import Backend
from graybox.service.errors import answers, clean
from graybox.service.int32 import int32
from graybox.service.owner import DEFAULT_ACTOR
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
        limits.check_text("query", request.query, limits.MAX_QUERY)
        backend = self.desk.run(request.run_id)
        table = SampleTable(list(backend.samples.splits.values()), wire.class_names(backend))
        query = parse(request.query)
        check(query, table)
        return self._found(request, backend, table, query)

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
