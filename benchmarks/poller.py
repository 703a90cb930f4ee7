"""Polls a backend as a dashboard with one open tab does: python -m benchmarks.poller ROOT.

Ends when it is terminated.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import grpc

from graybox.proto import experiment_service_pb2 as pb
from graybox.proto import experiment_service_pb2_grpc as rpc

STATUS_SECONDS = 0.25
EVERYTHING_SECONDS = 1.0


def main() -> None:
    announced = json.loads((Path(sys.argv[1]) / "backend.json").read_text())
    stub = rpc.ExperimentServiceStub(grpc.insecure_channel(announced["address"]))
    token = [("authorization", f"Bearer {announced['watch_token']}")]
    cursor, journal, due = "", 0, 0.0
    while True:
        now = time.monotonic()
        stub.ExperimentCommand(pb.ExperimentCommandRequest(get_status=True, get_hyper_parameters=True), metadata=token)
        if now >= due:
            metrics = stub.GetLatestLoggerData(
                pb.GetLatestLoggerDataRequest(cursor=cursor, request_full_history=not cursor, max_points=2_000),
                metadata=token,
            )
            rest = stub.ExperimentCommand(
                pb.ExperimentCommandRequest(
                    get_interactive_layers=True, get_checkpoints=True, get_runs=True, get_journal=True,
                    journal_after=journal,
                ),
                metadata=token,
            )  # fmt: skip
            if not due:
                print("polling", flush=True)
            cursor = metrics.cursor
            journal = max([journal, *(entry.sequence for entry in rest.journal_entries)])
            due = now + EVERYTHING_SECONDS
        time.sleep(STATUS_SECONDS)


if __name__ == "__main__":
    main()
