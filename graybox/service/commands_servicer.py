"""ExperimentCommand: hyper-parameters, pause and resume, notes, checkpoints, and everything about the run's state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from graybox import commands as cmd
from graybox.errors import GrayboxError, Invalid, NotFound, Refused, StorageError
from graybox.proto import experiment_service_pb2 as pb
from graybox.service import limits, neuron_messages, wire
from graybox.service.area import Area
from graybox.service.backend import Backend
from graybox.service.errors import answers, clean, log
from graybox.service.owner import ask, seconds_left
from graybox.snapshot import LayerStatistics, NeuronStatistics
from graybox.store.undo_order import undo_states

_Request = pb.ExperimentCommandRequest
_Response = pb.CommandResponse


class CommandsServicer(Area):
    """One RPC that changes at most one thing and then tells whatever was asked for."""

    @answers(pb.CommandResponse)
    def ExperimentCommand(self, request: _Request, context: grpc.ServicerContext) -> _Response:
        response = _Response(success=True)
        _check(request)
        if request.get_runs:
            response.runs.extend(self._runs())
        if _only_runs(request):
            # The list of runs must be there before the first run is.
            if self.desk.live is not None:
                response.run_id = self.desk.live.run.run_id
            return response
        try:
            backend = self.desk.run(_run_id(request))
            response.run_id = backend.run.run_id
            self._answer(backend, request, response, context)
        except Refused as error:
            _refuse(response, error)
        return response

    def _answer(self, backend: Backend, request: _Request, response: _Response, context: grpc.ServicerContext) -> None:
        chosen = request.get_single_layer_info_id
        if chosen and request.WhichOneof("command") is not None:
            # An unknown layer must be found out before the command changes anything.
            self._read_layer(backend, request, _Response(), context)
        readers: list[tuple[bool, Callable[[], None]]] = [
            (True, lambda: self._command(backend, request, response, context)),
            (request.get_hyper_parameters, lambda: _read_hyper_parameters(backend, response)),
            (request.get_interactive_layers, lambda: self._read_layers(backend, response, context)),
            (bool(chosen), lambda: self._read_layer(backend, request, response, context)),
            (request.get_data_records, lambda: _read_sample_statistics(backend, response)),
            (request.get_status, lambda: _read_status(backend, response)),
            (request.get_checkpoints, lambda: _read_checkpoints(backend, response)),
            (request.get_journal, lambda: _read_journal(backend, request, response)),
        ]
        for wanted, read in readers:
            if not wanted:
                continue
            try:
                read()
            except (Refused, StorageError) as error:
                # The first reason is told, and the other parts are answered all the same.
                _refuse(response, error)

    # -- commands --------------------------------------------------------------------------------

    def _command(self, backend: Backend, request: _Request, response: _Response, context: grpc.ServicerContext) -> None:
        kind = request.WhichOneof("command")
        if kind is None:
            return
        steps = _commands(request)
        owner = backend.need_commands(_PURPOSES[kind])
        _check_resume(backend, steps)
        messages: list[str] = []
        for number, command in enumerate(steps):
            command_id = request.command_id
            if command_id and number:
                command_id += f"#{number}"  # one request, two commands: each is applied once
            try:
                outcome = ask(self.desk, owner, context, command, command_id=command_id, actor=request.actor)
            except GrayboxError as error:
                if not messages:
                    raise
                raise Refused(f"{'; '.join(messages)}; but then: {error}") from error
            messages.append(outcome.message)
            response.journal_sequence = max(response.journal_sequence, outcome.sequence)
        response.message = clean("; ".join(messages))

    # -- reads -----------------------------------------------------------------------------------

    def _statistics(self, backend: Backend, context: grpc.ServicerContext) -> NeuronStatistics:
        snapshots = backend.need_snapshots("look at its layers and neurons")
        return snapshots.neurons(timeout=seconds_left(context, 5.0))

    def _layer(self, backend: Backend, chosen: str, context: grpc.ServicerContext) -> LayerStatistics:
        layers = self._statistics(backend, context).layers
        for layer in layers.values():
            if str(layer.info.layer_id) == chosen:
                return layer
        for layer in layers.values():
            if layer.info.name == chosen:
                return layer
        raise NotFound(f"there is no layer {chosen!r}; a layer is named by its id or its qualified name")

    def _read_layers(self, backend: Backend, response: _Response, context: grpc.ServicerContext) -> None:
        layers = self._statistics(backend, context).layers.values()
        response.layer_representations.extend(neuron_messages.layer(layer) for layer in layers)

    def _read_layer(
        self, backend: Backend, request: _Request, response: _Response, context: grpc.ServicerContext
    ) -> None:
        statistics = self._layer(backend, request.get_single_layer_info_id, context)
        layer = neuron_messages.layer(statistics)
        wanted, details = request.single_layer_neuron_ids, request.with_neuron_details
        layer.neurons.extend(neuron_messages.neurons(statistics, wanted, details=details))
        for place, listed in enumerate(response.layer_representations):
            if listed.layer_id == layer.layer_id:
                response.layer_representations[place].CopyFrom(layer)
                return
        response.layer_representations.append(layer)

    def _runs(self) -> list[pb.RunInfo]:
        """Every run of the root, oldest first. A run whose run.json is broken is left out, and logged."""
        found = []
        live = self.desk.live
        for run in self.desk.root.runs():
            if live is not None and live.snapshots is not None and run.run_id == live.run.run_id:
                found.append(wire.live_run(live, live.snapshots.latest()))
                continue
            try:
                found.append(wire.ended_run(run))
            except (StorageError, NotFound) as error:  # broken, or removed meanwhile
                log.warning("left out of the list of runs: %s", error)
        return found


MAX_OTHERS = 1_000
"""So many hyper-parameters in one change."""
_PURPOSES = {
    "hyper_parameter_change": "change it or train on",
    "redo_operation": "redo what was done to it",
    "plot_note_operation": "write a note",
    "branch_note_operation": "name a branch",
    "load_checkpoint_operation": "go back to a checkpoint",
    "save_checkpoint_operation": "save a checkpoint",
    "undo_operation": "undo what was done to it",
}


def _refuse(response: pb.CommandResponse, error: GrayboxError) -> None:
    if response.success:
        response.success = False
        response.message = clean(str(error))


def _only_runs(request: _Request) -> bool:
    rest = _Request()
    rest.CopyFrom(request)
    for name in ("get_runs", "actor", "command_id", "journal_after", "journal_limit"):
        rest.ClearField(name)
    return request.get_runs and rest == _Request()


def _run_id(request: _Request) -> str:
    """The run a request is about; a note may name its own."""
    noted = request.plot_note_operation.run_id
    if noted and request.run_id and noted != request.run_id:
        raise Invalid(f"the note is for run {noted!r} but the request for run {request.run_id!r}; name one run")
    return request.run_id or noted


def _check(request: _Request) -> None:
    """What is malformed is said before anything is done."""
    limits.check_text("actor", request.actor, limits.MAX_ACTOR)
    limits.check_text("command_id", request.command_id, limits.MAX_COMMAND_ID)
    limits.check_text("get_single_layer_info_id", request.get_single_layer_info_id, limits.MAX_LAYER_NAME)
    limits.check_whole("journal_after", request.journal_after, 0)
    limits.check_whole("journal_limit", request.journal_limit, 0, limits.MAX_JOURNAL_ENTRIES)
    limits.check_count("single_layer_neuron_ids", len(request.single_layer_neuron_ids), limits.MAX_NEURONS)
    if not request.get_single_layer_info_id and (request.single_layer_neuron_ids or request.with_neuron_details):
        raise Invalid("neurons are asked for together with their layer; set get_single_layer_info_id")
    _commands(request)


def _commands(request: _Request) -> list[cmd.Command]:
    """The commands that a request stands for, in order; none where it only reads."""
    match request.WhichOneof("command"):
        case "hyper_parameter_change":
            return _hyper_parameter_commands(request.hyper_parameter_change.hyper_parameters)
        case "plot_note_operation":
            return [_note_command(request.plot_note_operation)]
        case "branch_note_operation":
            return [_branch_command(request.branch_note_operation)]
        case "load_checkpoint_operation":
            reference = request.load_checkpoint_operation.checkpoint_id
            limits.check_text("checkpoint_id", reference, limits.MAX_NAME, empty=False)
            return [cmd.RestoreCheckpoint(reference)]
        case "save_checkpoint_operation":
            name = request.save_checkpoint_operation.name
            return [cmd.SaveCheckpoint(limits.check_text("the checkpoint's name", name, limits.MAX_NAME))]
        case "undo_operation":
            return [cmd.Undo(limits.check_whole("journal_sequence", request.undo_operation.journal_sequence, 0))]
        case "redo_operation":
            return [cmd.Redo(limits.check_whole("journal_sequence", request.redo_operation.journal_sequence, 0))]
        case _:
            return []


def _hyper_parameter_commands(wanted: pb.HyperParameters) -> list[cmd.Command]:
    given: dict[str, Any] = {field.name: value for field, value in wanted.ListFields() if field.name != "others"}
    limits.check_count("others", len(wanted.others), MAX_OTHERS)
    for other in wanted.others:
        name = limits.check_text("the hyper-parameter's name", other.name, limits.MAX_NAME, empty=False)
        kind = other.WhichOneof("value")
        if kind is None or name in given:
            raise Invalid(f"hyper-parameter {name[:100]!r} {'has no value' if kind is None else 'is given twice'}")
        given[name] = getattr(other, kind)
    running, mode = given.pop("is_training", None), given.pop("mode", None)
    if mode is not None and mode not in cmd.MODES:
        raise Invalid(f"mode is {' or '.join(cmd.MODES)}, not {mode!r:.100}; TriggerEvaluation evaluates")
    if not given and running is None and mode is None:
        raise Invalid("no hyper-parameter was given; set at least one field of HyperParameters")
    if "experiment_name" in given:
        limits.check_text("experiment_name", given["experiment_name"], limits.MAX_EXPERIMENT_NAME, empty=False)
    if running and given.get("training_steps_to_do") == 0:
        raise Invalid("training cannot go on with training_steps_to_do = 0; give it steps, or leave is_training out")
    # The change comes first: it is the one that may be refused, and then training goes on as it was.
    steps: list[cmd.Command] = [cmd.SetHyperParameters(given)] if given else []
    if mode is not None:
        steps.append(cmd.SetMode(mode))
    if running is not None:
        steps.append(cmd.Resume() if running else cmd.Pause())
    return steps


def _check_resume(backend: Backend, steps: list[cmd.Command]) -> None:
    """All of a request or nothing: what would be refused after a change was applied is refused before."""
    if len(steps) < 2 or not isinstance(steps[-1], cmd.Resume):
        return
    now = backend.need_snapshots("train on").latest()
    mode, left = now.mode, now.steps_left
    for step in steps:
        if isinstance(step, cmd.SetMode):
            mode = step.mode
        elif isinstance(step, cmd.SetHyperParameters):
            left = step.changes.get("training_steps_to_do", left)
    if left <= 0 and mode != cmd.AUDIT:
        raise Refused("nothing was changed: no steps are left to train; set training_steps_to_do as well")


def _note_command(note: pb.PlotNoteOperation) -> cmd.SetPlotNote:
    return cmd.SetPlotNote(
        split=limits.check_text("split_name", note.split_name, limits.MAX_NAME),
        metric=limits.check_text("metric_name", note.metric_name, limits.MAX_NAME, empty=False),
        branch=limits.check_whole("branch", note.branch, 0),
        age=limits.check_whole("model_age", note.model_age, 0),
        note=limits.check_text("the note", note.note, limits.MAX_NOTE),
    )


def _branch_command(noted: pb.BranchNoteOperation) -> cmd.NoteBranch:
    given = {what: getattr(noted, what) for what in ("name", "note") if noted.HasField(what)}
    if not given:
        raise Invalid("neither a name nor a note for the branch was given; set one, or an empty one to remove it")
    limits.check_text("the branch's name", given.get("name", ""), limits.MAX_NAME)
    limits.check_text("the note", given.get("note", ""), limits.MAX_NOTE)
    return cmd.NoteBranch(limits.check_whole("branch", noted.branch, 0), given.get("name"), given.get("note"))


def _read_hyper_parameters(backend: Backend, response: _Response) -> None:
    snapshots = backend.need_snapshots("see its hyper-parameters")
    response.hyper_parameters_descs.extend(wire.hyper_parameter(v) for v in snapshots.latest().hyper_parameters)


def _read_sample_statistics(backend: Backend, response: _Response) -> None:
    response.sample_statistics.CopyFrom(wire.sample_statistics(backend.samples.summary()))


def _read_status(backend: Backend, response: _Response) -> None:
    snapshots = backend.snapshots
    status = wire.status_from_disk(backend) if snapshots is None else wire.status_from_snapshot(snapshots.latest())
    response.status.CopyFrom(status)


def _read_checkpoints(backend: Backend, response: _Response) -> None:
    response.checkpoints.extend(wire.checkpoint(record) for record in backend.checkpoints.list())


def _read_journal(backend: Backend, request: _Request, response: _Response) -> None:
    everything = backend.journal.entries()
    states = undo_states(everything)
    entries = [entry for entry in everything if entry.sequence > request.journal_after]
    newest = entries[-(request.journal_limit or limits.DEFAULT_JOURNAL_ENTRIES) :]
    response.journal_entries.extend(wire.journal_entry(entry, states.get(entry.sequence)) for entry in newest)
