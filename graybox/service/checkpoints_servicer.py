"""RestoreCheckpoint: going back, which makes a branch."""

from __future__ import annotations

import grpc

from graybox.commands import RestoreCheckpoint
from graybox.proto import experiment_service_pb2 as pb
from graybox.service import limits
from graybox.service.area import Area
from graybox.service.errors import answers, clean
from graybox.service.owner import ask


class CheckpointsServicer(Area):
    """Only a live run can go back: for another one the answer says that it has ended."""

    @answers(pb.RestoreCheckpointResponse)
    def RestoreCheckpoint(
        self, request: pb.RestoreCheckpointRequest, context: grpc.ServicerContext
    ) -> pb.RestoreCheckpointResponse:
        reference = limits.check_text("experiment_hash", request.experiment_hash, limits.MAX_NAME, empty=False)
        backend = self.desk.run(request.run_id)
        owner = backend.need_commands("go back to a checkpoint")
        outcome = ask(
            self.desk,
            owner,
            context,
            RestoreCheckpoint(reference),
            command_id=request.command_id,
            actor=request.actor,
        )
        return pb.RestoreCheckpointResponse(
            success=True,
            message=clean(outcome.message),
            branch=int(outcome.value) if outcome.value is not None else 0,
            journal_sequence=outcome.sequence,
            run_id=backend.run.run_id,
        )
