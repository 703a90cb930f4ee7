"""Queries over samples, which the contract has and this version does not do yet."""

from __future__ import annotations

import grpc

from graybox.errors import Unsupported
from graybox.proto import experiment_service_pb2 as pb
from graybox.service.area import Area
from graybox.service.errors import answers


class QueriesServicer(Area):
    """Answers UNIMPLEMENTED, saying what there is instead; NOT_FOUND for a run that does not exist."""

    @answers(pb.DataQueryResponse)
    def ApplyDataQuery(self, request: pb.DataQueryRequest, context: grpc.ServicerContext) -> pb.DataQueryResponse:
        self.desk.check(request.run_id)
        raise Unsupported(
            "queries over samples come with a later version; until then GetDataSamples filters and sorts by its "
            "fields filter, sort_by and descending"
        )
