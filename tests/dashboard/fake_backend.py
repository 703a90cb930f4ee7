"""A real gRPC server with made-up training inside: the wire contract in memory, for tests of the dashboard alone."""

from __future__ import annotations

import io
import json
import math
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from PIL import Image

from graybox.proto import experiment_service_pb2 as pb
from graybox.proto.experiment_service_pb2_grpc import (
    ExperimentServiceServicer,
    add_ExperimentServiceServicer_to_server,
)
from tests.dashboard.fake_neurons import FakeNetwork, Missing, Refusal
from tests.patience import PATIENCE

CLASSES = [str(digit) for digit in range(10)]


class FakeRun:
    """One run's state, as far as the wire shows it."""

    def __init__(self, run_id: str, name: str, *, live: bool, steps: int, seed: int = 0, samples: int = 400) -> None:
        self.random = random.Random(seed)
        self.run_id, self.name, self.live = run_id, name, live
        self.created_ms = 1_790_000_000_000 + seed * 3_600_000
        self.step = 0
        self.total = 6000
        self.state = pb.RUNNING if live else pb.ENDED
        self.values: dict[str, Any] = {
            "experiment_name": name,
            "learning_rate": 0.01,
            "batch_size": 64,
            "full_eval_frequency": 100,
            "checkpoint_frequency": 500,
        }
        self.error = self.traceback = ""
        self.points: list[pb.LoggerDataPoint] = []
        self.generation = 1
        self.journal: list[pb.JournalEntry] = []
        self.checkpoints: list[pb.CheckpointInfo] = []
        self.branches = [pb.BranchInfo(branch=0, parent=-1)]
        self.branch = 0
        self.network = FakeNetwork(self.random)
        self.befores: dict[int, FakeNetwork] = {}
        self.samples = [
            {
                "id": index,
                "origin": "train" if index % 5 else "val",
                "label": index % 10,
                "prediction": index % 10 if self.random.random() < 0.9 else self.random.randrange(10),
                "loss": self.random.expovariate(2.0),
                "discarded": False,
            }
            for index in range(samples)
        ]
        self.advance(steps)

    @property
    def age(self) -> int:
        return self.step * int(self.values["batch_size"])

    def advance(self, steps: int) -> None:
        """Pretend to train."""
        for _ in range(steps):
            self.step += 1
            noise = self.random.gauss(0, 0.12)
            loss = 2.3 * math.exp(-self.step / 400) + 0.08 + abs(noise) * (0.2 + math.exp(-self.step / 400))
            self.log("train", "loss", loss)
            self.log("train", "accuracy", min(1.0, max(0.0, 0.985 - 0.88 * math.exp(-self.step / 300) + noise / 8)))
            if self.step % 100 == 0:
                self.log("val", "loss", 2.2 * math.exp(-self.step / 380) + 0.14)
                self.log("val", "accuracy", 0.974 - 0.86 * math.exp(-self.step / 280))
            if self.step % 500 == 0:
                self.save("", "automatic")
        if self.step >= self.total and self.live:
            self.state = pb.COMPLETED

    def log(self, split: str, metric: str, value: float) -> None:
        self.points.append(
            pb.LoggerDataPoint(
                metric_name=metric,
                split_name=split,
                metric_value=value,
                age=self.age,
                model_age=self.age,
                step=self.step,
                branch=self.branch,
                run_id=self.run_id,
            )
        )

    def note(self, kind: str, summary: str, **arguments: Any) -> int:
        """One journal entry; its sequence."""
        self.journal.append(
            pb.JournalEntry(
                sequence=len(self.journal) + 1,
                time_ms=int(time.time() * 1000),
                actor="dashboard",
                kind=kind,
                step=self.step,
                age=self.age,
                branch=self.branch,
                summary=summary,
                arguments_json=json.dumps(arguments) if arguments else "",
                outcome="applied",
            )
        )
        return len(self.journal)

    def save(self, name: str, reason: str) -> pb.CheckpointInfo:
        """One more checkpoint."""
        point = pb.CheckpointInfo(
            id=f"c{len(self.checkpoints):04d}",
            experiment_hash="abc123",
            reference=f"abc123@@step={self.step}",
            step=self.step,
            age=self.age,
            branch=self.branch,
            name=name,
            reason=reason,
            time_ms=int(time.time() * 1000),
            bytes=412_000,
            metrics={"val/accuracy": 0.97, "val/loss": 0.15, "train/loss": 0.11},
        )
        self.checkpoints.append(point)
        return point

    def info(self) -> pb.RunInfo:
        return pb.RunInfo(
            run_id=self.run_id,
            experiment_name=self.values["experiment_name"],
            state=self.state,
            live=self.live,
            created_ms=self.created_ms,
            updated_ms=int(time.time() * 1000),
            step=self.step,
            age=self.age,
            branches=self.branches,
            metrics={"val/accuracy": 0.974, "train/loss": 0.11},
        )

    def status(self, started_ms: int) -> pb.TrainerStatus:
        return pb.TrainerStatus(
            state=self.state,
            run_id=self.run_id,
            experiment_name=self.values["experiment_name"],
            step=self.step,
            age=self.age,
            steps_left=max(self.total - self.step, 0),
            branch=self.branch,
            error=self.error,
            traceback=self.traceback,
            samples_per_second=9120.0 if self.state == pb.RUNNING else 0.0,
            device="cpu",
            journal_sequence=len(self.journal),
            process_start_ms=started_ms,
            parameter_count=self.network.parameters,
            epoch=3,
            class_names=CLASSES,
            time_ms=int(time.time() * 1000),
        )

    def descs(self) -> list[pb.HyperParameterDesc]:
        number = self.values
        return [
            pb.HyperParameterDesc(
                name="experiment_name", label="Name", type="text", string_value=number["experiment_name"]
            ),
            pb.HyperParameterDesc(name="learning_rate", type="number", numerical_value=number["learning_rate"]),
            pb.HyperParameterDesc(name="batch_size", type="integer", numerical_value=number["batch_size"]),
            pb.HyperParameterDesc(
                name="training_steps_to_do", type="integer", numerical_value=max(self.total - self.step, 0)
            ),
            pb.HyperParameterDesc(
                name="full_eval_frequency", type="integer", numerical_value=number["full_eval_frequency"]
            ),
            pb.HyperParameterDesc(
                name="checkpoint_frequency", type="integer", numerical_value=number["checkpoint_frequency"]
            ),
            pb.HyperParameterDesc(name="is_training", type="bool", numerical_value=self.state == pb.RUNNING),
        ]

    @property
    def frozen(self) -> set[tuple[int, int]]:
        """(layer, neuron) of those that are frozen."""
        return {
            (number, n)
            for number, layer in enumerate(self.network.layers)
            for n, neuron in enumerate(layer.neurons)
            if neuron.frozen
        }

    @property
    def rates(self) -> dict[tuple[int, int], float]:
        """The factors that are not 1, by (layer, neuron)."""
        return {
            (number, n): neuron.factor
            for number, layer in enumerate(self.network.layers)
            for n, neuron in enumerate(layer.neurons)
            if neuron.factor != 1
        }

    def due(self) -> int:
        """The sequence of the edit that is undone next; 0 where there is none."""
        return max(self.befores, default=0)

    def told_journal(self) -> list[pb.JournalEntry]:
        """The journal, each entry with what can be undone of it."""
        for entry in self.journal:
            if entry.kind == "neuron_edit":
                later = pb.UNDO_LATER if entry.sequence in self.befores else pb.UNDONE
                entry.undo_state = pb.UNDO_NEXT if entry.sequence == self.due() else later
        return self.journal


def ended(run: FakeRun) -> str:
    """What a backend says when an ended run is asked for what only a live one can do."""
    return f"run {run.run_id} has ended; start a backend on it to do that"


class FakeService(ExperimentServiceServicer):
    """Answers from memory; `calls` counts what was asked."""

    def __init__(self, runs: list[FakeRun], pace: int = 0) -> None:
        self.runs = {run.run_id: run for run in runs}
        self.live = next((run for run in runs if run.live), None)
        self.started_ms = int(time.time() * 1000)
        self.pace = pace
        self.calls: dict[str, int] = {}
        self.sample_requests: list[pb.GetDataSamplesRequest] = []
        self.holds: dict[str, threading.Event] = {}
        """By hyper-parameter: until when a change of it takes."""

    def _count(self, what: str) -> None:
        self.calls[what] = self.calls.get(what, 0) + 1

    def _run(self, run_id: str, context: grpc.ServicerContext) -> FakeRun:
        run = self.runs.get(run_id) if run_id else self.live
        if run is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no run {run_id!r}")
        assert run is not None
        return run

    def ExperimentCommand(
        self, request: pb.ExperimentCommandRequest, context: grpc.ServicerContext
    ) -> pb.CommandResponse:
        run = self._run(request.run_id, context) if not request.get_runs else self.live
        if run is not None and not run.live and request.WhichOneof("command") is not None:
            return pb.CommandResponse(success=False, message=ended(run), run_id=run.run_id)
        answer = pb.CommandResponse(success=True, run_id=run.run_id if run else "")
        for name in ("get_status", "get_checkpoints", "get_runs", "get_journal", "get_interactive_layers"):
            if getattr(request, name):
                self._count(name)
        if request.get_runs:
            answer.runs.extend(each.info() for each in self.runs.values())
        if run is None:
            return answer
        if request.HasField("hyper_parameter_change"):
            return self._change(run, request.hyper_parameter_change.hyper_parameters)
        if request.HasField("undo_operation"):
            return self._undo(run, request.undo_operation.journal_sequence)
        if request.HasField("save_checkpoint_operation"):
            point = run.save(request.save_checkpoint_operation.name, "asked")
            run.note("checkpoint", f"Saved checkpoint at step {point.step}")
            return pb.CommandResponse(success=True, message=f"Saved checkpoint {point.name or point.id}.")
        if request.get_status:
            if run.state == pb.RUNNING:
                run.advance(self.pace)
            answer.status.CopyFrom(run.status(self.started_ms))
        if request.get_hyper_parameters:
            answer.hyper_parameters_descs.extend(run.descs())
        if request.get_checkpoints:
            answer.checkpoints.extend(run.checkpoints)
        if request.get_journal:
            answer.journal_entries.extend(run.told_journal())
        if request.get_interactive_layers:
            if not run.live:
                return pb.CommandResponse(success=False, message=f"run {run.run_id} has ended")
            answer.layer_representations.extend(
                run.network.layer(number, run.age, [], neurons=False, details=False)
                for number in range(len(run.network.layers))
            )
        if request.get_single_layer_info_id:
            wanted, details = list(request.single_layer_neuron_ids), request.with_neuron_details
            try:
                number = run.network.find(request.get_single_layer_info_id)
                told = run.network.layer(number, run.age, wanted, neurons=True, details=details)
            except Missing as missing:
                context.abort(grpc.StatusCode.NOT_FOUND, str(missing))
            answer.layer_representations.append(told)
        return answer

    def _undo(self, run: FakeRun, sequence: int) -> pb.CommandResponse:
        due = run.due()
        if not due or sequence not in (0, due):
            reason = f"entry {due} comes first" if due else "there is nothing to undo"
            return pb.CommandResponse(success=False, message=reason, run_id=run.run_id)
        run.network = run.befores.pop(due)
        message = f"Undid: {run.journal[due - 1].summary}"
        made = run.note("undo", message, sequence=due)
        run.journal[-1].undoes = due
        return pb.CommandResponse(success=True, message=message, journal_sequence=made, run_id=run.run_id)

    def _change(self, run: FakeRun, wanted: pb.HyperParameters) -> pb.CommandResponse:
        if wanted.HasField("is_training"):
            run.state = pb.RUNNING if wanted.is_training else pb.PAUSED
            run.error = run.traceback = ""
            word = "Resumed" if wanted.is_training else "Paused"
            run.note("resume" if wanted.is_training else "pause", f"{word} at step {run.step}")
            return pb.CommandResponse(success=True, message=f"{word} at step {run.step:,}.")
        for field, value in wanted.ListFields():
            self._count(f"change {field.name}")
            if field.name in self.holds:
                self.holds[field.name].wait(PATIENCE)
            if field.name == "learning_rate" and not 0 < value <= 10:
                return pb.CommandResponse(
                    success=False,
                    message=f"learning_rate is above 0 and at most 10, not {value:g}; nothing was changed",
                )
            if field.name == "training_steps_to_do":
                run.total = run.step + value
            else:
                run.values[field.name] = value
            run.note("hp_change", f"Set {field.name.replace('_', ' ')} to {value}", name=field.name, value=value)
            return pb.CommandResponse(success=True, message=f"Set {field.name.replace('_', ' ')} to {value}.")
        return pb.CommandResponse(success=True)

    def GetLatestLoggerData(
        self, request: pb.GetLatestLoggerDataRequest, context: grpc.ServicerContext
    ) -> pb.GetLatestLoggerDataResponse:
        self._count("metrics")
        run = self._run(request.run_id, context)
        generation, _, index = request.cursor.partition(":")
        known = bool(request.cursor) and int(generation) == run.generation
        first = int(index) if known else 0
        points = [
            point
            for point in run.points[first:]
            if (not request.graph_name or point.metric_name == request.graph_name)
            and point.age >= request.min_age
            and (not request.max_age or point.age <= request.max_age)
        ]
        total = len(points)
        series: dict[tuple[str, str, int], list[pb.LoggerDataPoint]] = {}
        for point in points:
            series.setdefault((point.split_name, point.metric_name, point.branch), []).append(point)
        limit = request.max_points or 10**9
        points = [point for each in series.values() for point in each[:: -(-len(each) // limit)]]
        return pb.GetLatestLoggerDataResponse(
            points=points,
            cursor=f"{run.generation}:{len(run.points)}",
            reset=not known,
            run_id=run.run_id,
            total_points=total,
        )

    def RestoreCheckpoint(
        self, request: pb.RestoreCheckpointRequest, context: grpc.ServicerContext
    ) -> pb.RestoreCheckpointResponse:
        run = self._run(request.run_id, context)
        if not run.live:
            return pb.RestoreCheckpointResponse(success=False, message=ended(run), run_id=run.run_id)
        for point in run.checkpoints:
            if request.experiment_hash in (point.id, f"{point.id}@@weights_step={point.step}"):
                break
        else:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no checkpoint {request.experiment_hash!r}")
        run.state = pb.PAUSED
        if "weights" not in request.experiment_hash:
            run.step = point.step
            run.branches.append(
                pb.BranchInfo(branch=len(run.branches), parent=run.branch, fork_step=point.step, fork_age=point.age)
            )
            run.branch = len(run.branches) - 1
        run.note("checkpoint_restore", f"Restored step {point.step} as branch {run.branch}")
        return pb.RestoreCheckpointResponse(
            success=True, message=f"Restored step {point.step:,} as branch {run.branch}; paused.", branch=run.branch
        )

    def GetDataSamples(
        self, request: pb.GetDataSamplesRequest, context: grpc.ServicerContext
    ) -> pb.DataSamplesResponse:
        run = self._run(request.run_id, context)
        self.sample_requests.append(request)
        wanted = request.filter
        found = [
            sample
            for sample in run.samples
            if (not wanted.origin or sample["origin"] == wanted.origin)
            and (not wanted.HasField("discarded") or sample["discarded"] == wanted.discarded)
            and (not wanted.HasField("wrong") or (sample["label"] != sample["prediction"]) == wanted.wrong)
            and (not wanted.HasField("min_loss") or sample["loss"] >= wanted.min_loss)
            and (not wanted.HasField("max_loss") or sample["loss"] <= wanted.max_loss)
            and (not wanted.labels or sample["label"] in wanted.labels)
            and wanted.id_contains in str(sample["id"])
        ]
        columns: dict[str, Callable[[dict[str, Any]], Any]] = {"sample_id": lambda sample: sample["id"]}
        if request.sort_by:
            name = request.sort_by
            found.sort(key=columns.get(name, lambda sample: sample.get(name, 0)), reverse=request.descending)
        page = found[request.start_index : request.start_index + request.records_cnt]
        return pb.DataSamplesResponse(
            success=True,
            run_id=run.run_id,
            number_of_matches=len(found),
            number_of_all_samples=len(run.samples),
            number_of_discarded_samples=sum(sample["discarded"] for sample in run.samples),
            data_records=[
                pb.DataRecord(
                    sample_id=str(sample["id"]),
                    origin=sample["origin"],
                    label=sample["label"],
                    original_label=sample["label"],
                    loss=sample["loss"],
                    prediction=sample["prediction"],
                    encounters=3,
                    last_age=run.age,
                    discarded=sample["discarded"],
                    label_name=CLASSES[sample["label"]] if sample["label"] >= 0 else "",
                    prediction_name=CLASSES[sample["prediction"]],
                    image_key="k1" if run.live else "",
                    metadata={"loss": "x", "file": f"{sample['id']}.png"},
                )
                for sample in page
            ],
        )

    def EditDataSample(self, request: pb.DataEditRequest, context: grpc.ServicerContext) -> pb.DataEditsResponse:
        run = self._run(request.run_id, context)
        if not run.live:
            return pb.DataEditsResponse(success=False, message=ended(run), run_id=run.run_id)
        wanted = set(zip(request.sample_origins, request.samples_ids, strict=True))
        changed = 0
        for sample in run.samples:
            if (sample["origin"], str(sample["id"])) in wanted and sample["discarded"] != request.bool_value:
                sample["discarded"] = request.bool_value
                changed += 1
        word = "Discarded" if request.bool_value else "Restored"
        run.note("sample_discard" if request.bool_value else "sample_restore", f"{word} {changed} samples")
        return pb.DataEditsResponse(success=True, message=f"{word} {changed} sample(s).", number_changed=changed)

    def GetDataSplits(self, request: pb.GetDataSplitsRequest, context: grpc.ServicerContext) -> pb.DataSplitsResponse:
        return pb.DataSplitsResponse(success=True, split_names=["train", "val"])

    def GetSamples(self, request: pb.GetSamplesRequest, context: grpc.ServicerContext) -> pb.SamplesResponse:
        self._count("pictures with labels" if request.overlay else "pictures")
        run = self._run(request.run_id, context)
        if not run.live:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, ended(run))
        answers = []
        for sample_id in request.sample_ids:
            seeded = random.Random(int(sample_id))
            image = Image.new("L", (8, 8))
            image.putdata([seeded.randrange(256) for _ in range(64)])
            out = io.BytesIO()
            image.save(out, "PNG")
            answers.append(pb.Sample(sample_id=sample_id, image=out.getvalue()))
        return pb.SamplesResponse(samples=answers)

    def ManipulateWeights(
        self, request: pb.ManipulateWeightsRequest, context: grpc.ServicerContext
    ) -> pb.ManipulateWeightsResponse:
        run = self._run(request.run_id, context)
        if not run.live:
            return pb.ManipulateWeightsResponse(success=False, message=ended(run), run_id=run.run_id)
        before = run.network.copy()
        if request.operation == pb.CHANGE_LEARNING_RATE and request.learning_rate < 0:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the factor is 0 or more")
        try:
            if request.dry_run:
                plan = run.network.plan(request)
                return pb.ManipulateWeightsResponse(success=True, plan="a plan", details=plan, run_id=run.run_id)
            places = run.network.apply(request)
        except Missing as missing:
            context.abort(grpc.StatusCode.NOT_FOUND, str(missing))
        except Refusal as refused:
            run.network = before
            return pb.ManipulateWeightsResponse(
                success=False, message=str(refused), together=refused.together, run_id=run.run_id
            )
        word = pb.NeuronOperation.Name(request.operation).lower().replace("_", " ")
        summary = "; ".join(
            f"{word} of {before.layers[number].name}: neurons {', '.join(map(str, neurons))}"
            for number, neurons in places.items()
        ).capitalize()
        sequence = run.note("neuron_edit", summary)
        run.befores[sequence] = before
        return pb.ManipulateWeightsResponse(
            success=True, message=summary + ".", plan=summary, journal_sequence=sequence, run_id=run.run_id
        )


class _TokenCheck(grpc.ServerInterceptor):  # type: ignore[misc]
    def __init__(self, token: str) -> None:
        self._token = token

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        given = dict(details.invocation_metadata).get("authorization", "")
        if given == f"Bearer {self._token}":
            return continuation(details)

        def refuse(request: Any, context: grpc.ServicerContext) -> None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong token")

        return grpc.unary_unary_rpc_method_handler(refuse)


class FakeBackend:
    """The service on a port of its own, announced in ROOT/backend.json as a real one is."""

    def __init__(self, root: Path, service: FakeService, *, token: str = "secret", port: int = 0) -> None:
        self.service = service
        self.token = token
        self._server = grpc.server(futures.ThreadPoolExecutor(4), interceptors=[_TokenCheck(token)])
        add_ExperimentServiceServicer_to_server(service, self._server)  # type: ignore[no-untyped-call]
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()
        self.file = root / "backend.json"
        content = {
            "address": f"127.0.0.1:{self.port}",
            "control_token": token,
            "watch_token": "",
            "pid": os.getpid(),
            "started_ms": service.started_ms,
        }
        self.file.write_text(json.dumps(content))

    def stop(self) -> None:
        """End, as a killed backend does: the file stays."""
        self._server.stop(0).wait()
