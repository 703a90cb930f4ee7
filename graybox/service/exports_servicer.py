"""Exports: what a query finds, as a file that is sent piece by piece."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from graybox.errors import Invalid
from graybox.proto import experiment_service_pb2 as pb
from graybox.service import limits, wire
from graybox.service.area import Area
from graybox.service.backend import Backend
from graybox.service.errors import ClientGone, clean, streams
from graybox.store.sample_export import Export, Origin, check_format, export_samples, find
from graybox.store.sample_table import SampleTable

PIECE_BYTES = 1024 * 1024
"""At most, so that a client with gRPC's own limit of 4 MB can read them."""


class ExportsServicer(Area):
    """Reads the columns in memory, of live runs and of ended ones alike; the trainer is not asked."""

    @streams(pb.ExportChunk)
    def ExportSamples(
        self, request: pb.ExportSamplesRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ExportChunk]:
        check_format(request.format, request.columns)
        for name in request.columns:
            limits.check_text("a column's name", name, limits.MAX_NAME)
        limits.check_text("query", request.query, limits.MAX_QUERY)
        if request.view_id and request.query:
            raise Invalid("give view_id or query, not both: a view is what its query found")
        backend = self.desk.run(request.run_id)
        leave = self.desk.export_gate.enter()
        try:
            # However the call ends, also where gRPC forgets this generator in the middle.
            if not context.add_callback(leave):
                raise ClientGone("the client hung up")
            yield from _pieces(self._export(request, backend))
        finally:
            leave()

    def _export(self, request: pb.ExportSamplesRequest, backend: Backend) -> Export:
        table = SampleTable(list(backend.samples.splits.values()), wire.class_names(backend))
        if request.view_id:
            view = self.desk.views.get(request.view_id, backend.run.run_id)
            query, found = view.query, view.selection
        else:
            query, found = find(request.query, table)
        return export_samples(table, found, query, _origin(backend), request.format, list(request.columns))


def _origin(backend: Backend) -> Origin:
    run_id = backend.run.run_id
    if backend.snapshots is not None:
        now = backend.snapshots.latest()
        return Origin(run_id, now.step, now.age, now.branch)
    status = wire.status_from_disk(backend)
    return Origin(run_id, status.step, status.age, status.branch)


def _pieces(export: Export) -> Iterator[pb.ExportChunk]:
    """The first tells about the file, and comes also where there is nothing in it."""
    first = pb.ExportChunk(file_name=clean(export.file_name), mime_type=export.mime_type, total_rows=export.total_rows)
    yield first
    for part in export.parts:
        for start in range(0, len(part), PIECE_BYTES):
            yield pb.ExportChunk(data=part[start : start + PIECE_BYTES])
