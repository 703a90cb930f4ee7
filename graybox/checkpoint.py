"""Checkpoints: the whole run at one step, as tensors and plain values; written in the background, read back safely."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn, optim

from graybox.checkpoint_manager import CheckpointManager as CheckpointManager
from graybox.errors import Refused, StorageError
from graybox.hyper_parameters import restore_live
from graybox.neuron_identity import carried, moved
from graybox.newcomers import begin_anew
from graybox.refit import belonging, refit
from graybox.sample_stream import Position
from graybox.session import Session
from graybox.store.checkpoints import CheckpointRecord
from graybox.store.files import sha256_of, write_atomically
from graybox.store.runs import now_ms
from graybox.structure.attributes import shape_attributes

FORMAT_VERSION = 1
KEEP_AUTOMATIC = 10
"""So many of the newest automatic checkpoints stay; all that a person asked for stay."""


class CheckpointKeeper:
    """Keeps and brings back the state of one session. `save` copies it at once and writes it in the background."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.written_step = -1
        """The step of the newest checkpoint that is whole on the disk."""
        self._checked: tuple[str, dict[str, Any]] | None = None

    def save(self, reason: str, name: str = "", metrics: Mapping[str, float] | None = None) -> Future[CheckpointRecord]:
        """Keep the present. The future is done when the checkpoint is whole on the disk; its exception is a
        StorageError.

        metrics: by "split/metric", what is known where this branch has measured nothing yet.
        """
        session = self.session
        stores = session.stores
        payload = capture(session)
        identity = stores.checkpoints.next_id()
        facts: dict[str, Any] = {
            "id": identity,
            "experiment_hash": session.experiment_hash(),
            "step": session.step,
            "age": session.age,
            "branch": session.branch,
            "name": name,
            "reason": reason,
            "time_ms": now_ms(),
            "journal_sequence": payload["journal_sequence"],
            "metrics": {**(metrics or {}), **self._metrics_of_branch()},
        }
        session.last_checkpoint_step = session.step
        session.network.remember_weights()
        # A replay that comes through a restore loads what was restored.
        needed = {e.arguments["id"] for e in stores.journal.entries() if e.kind == "checkpoint_restore"}

        def write() -> CheckpointRecord:
            path = stores.checkpoints.folder / f"{identity}.pt"
            write_payload(path, payload)
            record = CheckpointRecord(**facts, bytes=path.stat().st_size, sha256=sha256_of(path), file=path.name)
            stores.checkpoints.add(record)
            self.written_step = record.step
            stores.checkpoints.apply_retention(keep_automatic=KEEP_AUTOMATIC, keep=needed)
            return record

        return stores.flusher.submit(write)

    def _metrics_of_branch(self) -> dict[str, float]:
        latest = self.session.stores.metrics.latest()
        return {
            f"{split}/{metric}": point.value
            for (split, metric), point in latest.items()
            if point.branch == self.session.branch
        }

    def check(self, record: CheckpointRecord, *, weights_only: bool = False) -> None:
        """Whether it can be restored: raises what `load` raises. The `load` that follows does not read it again."""
        self._checked = (record.id, self.load(record, weights_only=weights_only))

    def load(self, record: CheckpointRecord, *, weights_only: bool = False) -> dict[str, Any]:
        """What the file of a checkpoint holds, its checksum compared. The caller owns it.

        Raises StorageError naming a broken file, Refused when it belongs to another structure or, unless only the
        weights are wanted, to another optimizer or other data.
        """
        checked, self._checked = self._checked, None
        if checked is not None and checked[0] == record.id:
            return checked[1]
        if not self.session.stores.checkpoints.verify(record):
            raise StorageError(f"checkpoint {record.id} is broken: its file does not fit its checksum")
        payload = read_payload(self.session.stores.checkpoints.folder / record.file)
        check_structure(self.session, record, payload)
        if not weights_only:
            check_kinds(self.session, record, payload)
        return payload


def capture(session: Session) -> dict[str, Any]:
    """Copies of everything, on the CPU: the session may go on at once."""
    experiment, stores = session.experiment, session.stores
    scheduler = experiment.scheduler
    return {
        "format_version": FORMAT_VERSION,
        "run_id": stores.run.run_id,
        "step": session.step,
        "age": session.age,
        "branch": session.branch,
        "running": session.running,
        "error": session.error,
        "traceback": session.traceback,
        "steps_left": session.steps_left,
        "last_evaluation_step": session.last_evaluation_step,
        "journal_sequence": stores.journal.last_sequence,
        "metric_position": stores.metrics.position,
        "seed": session.seed,
        "hyper_parameters": {
            "experiment_name": session.name,
            "learning_rate": session.learning_rate,
            "batch_size": session.stream.batch_size,
            "full_eval_frequency": session.full_eval_frequency,
            "checkpoint_frequency": session.checkpoint_frequency,
            "live": dict(session.live),
        },
        "structure": session.structure(),
        "built": session.built,
        "attributes": to_plain(shape_attributes(session.network)),
        "kinds": kinds(session),
        "model": to_plain(session.network.state_dict()),
        "other_buffers": to_plain(other_buffers(session.network)),
        "optimizer": to_plain(experiment.optimizer.state_dict()),
        "scheduler": None if scheduler is None else to_plain(scheduler.state_dict()),
        "layers": {name: to_plain(layer.ops_state()) for name, layer in session.network.named_layers()},
        "newcomers": to_plain(session.optimizer.state_dict()),
        "stream": asdict(session.stream.position),
        "samples": {name: torch.from_numpy(np.array(value)) for name, value in stores.samples.state().items()},
        "task": experiment.task.state_dict(),
    }


def restore_weights(session: Session, payload: Mapping[str, Any]) -> list[str]:
    """Weights and running statistics as they were, and with them the structure and the order of the neurons; everything
    else as it is. Answers the layers some of whose neurons, or incoming ones, have come, gone or moved since.

    There flags and statistics of today go along to where each neuron is then; one that is not there today has the
    flags of the checkpoint, and no statistics. The optimizer starts anew for every tensor that such neurons have a part
    of, since its moments are of weights that are no longer in those places.
    """
    network, young = session.network, session.optimizer.state_dict()
    here = {name: layer.ops_state() for name, layer in network.named_layers()}
    there = {name: from_plain(state) for name, state in payload["layers"].items() if name in here}
    rows = [name for name in there if moved(here[name], there[name], "neuron_identity")]
    columns = [name for name in there if moved(here[name], there[name], "incoming_identity")]
    layers = [name for name in there if name in rows or name in columns]
    followed = {name: carried(here[name], there[name]) for name in layers}
    before = dict(network.named_parameters())
    _load_weights(session, payload)
    for name, state in followed.items():
        network.find_layer(name)[1].load_ops_state(state)
    renewed = belonging(network, rows, columns)
    renewed |= {name for name, value in network.named_parameters() if before.get(name) is not value}
    for name, value in network.named_parameters():
        if name in renewed and session.optimizer.holds(value):
            begin_anew(session.experiment.optimizer, value)
    session.optimizer.load_state_dict([kept for kept in young if kept["parameter"] not in renewed])
    network.remember_weights()
    return layers


def _load_weights(session: Session, payload: Mapping[str, Any]) -> None:
    optimizer = session.experiment.optimizer
    others = payload.get("other_buffers", {})
    structure = [*payload["structure"], *([name, list(value.shape)] for name, value in others.items())]
    if refit(session.network, optimizer, structure, from_plain(payload.get("attributes", {}))):
        for name, value in other_buffers(session.network).items():
            if name in others:
                value.copy_(others[name])
        session.optimizer.load_state_dict([])  # of tensors that are no longer there
    session.network.load_state_dict(from_plain(payload["model"]))
    session.network.remember_weights()
    session.structure_changed()


def other_buffers(network: nn.Module) -> dict[str, torch.Tensor]:
    """Buffers that a state_dict leaves out. Edits change their shape like any other's."""
    known = network.state_dict()
    return {name: value for name, value in network.named_buffers() if name not in known}


def restore_all(session: Session, payload: Mapping[str, Any]) -> None:
    """Everything but the branch and whether training runs, which whoever restores decides."""
    experiment = session.experiment
    _load_weights(session, payload)
    load_optimizer(experiment.optimizer, from_plain(payload["optimizer"]))
    if experiment.scheduler is not None and payload["scheduler"] is not None:
        experiment.scheduler.load_state_dict(from_plain(payload["scheduler"]))
    layers = dict(session.network.named_layers())
    for name, state in payload["layers"].items():
        layers[name].load_ops_state(from_plain(state))
    session.optimizer.load_state_dict(from_plain(payload["newcomers"]))
    session.network.set_age(payload["age"])
    session.step = payload["step"]
    session.steps_left = payload["steps_left"]
    session.last_evaluation_step = payload["last_evaluation_step"]
    session.last_checkpoint_step = payload["step"]
    values = payload["hyper_parameters"]
    session.name = values["experiment_name"]
    session.learning_rate = values["learning_rate"]
    session.stream.batch_size = values["batch_size"]
    session.full_eval_frequency = values["full_eval_frequency"]
    session.checkpoint_frequency = values["checkpoint_frequency"]
    restore_live(session, values.get("live", {}))
    session.stores.samples.load_state({name: value.numpy() for name, value in payload["samples"].items()})
    session.stream.rewind(Position(**payload["stream"]))
    experiment.task.load_state_dict(payload["task"])
    session.abandon_evaluation()
    session.last_train = None  # what the future did
    session.last_evaluation = None
    session.structure_changed()


def kinds(session: Session) -> dict[str, str]:
    """What else must be the same for a checkpoint to fit, in words for people."""
    experiment = session.experiment
    found = {
        "the optimizer": type(experiment.optimizer).__name__,
        "the optimizer's parameters": ", ".join(
            str(len(group["params"])) for group in experiment.optimizer.param_groups
        ),
        "the scheduler": "none" if experiment.scheduler is None else type(experiment.scheduler).__name__,
        "the task": experiment.task.name,
    }
    for split, wrapper in experiment.datasets.items():
        found[f"the {split} data set"] = f"{len(wrapper):,} samples, fingerprint {wrapper.fingerprint()}"
    return found


def check_kinds(session: Session, record: CheckpointRecord, payload: Mapping[str, Any]) -> None:
    """Raises Refused, naming the first difference, when a checkpoint was made with another optimizer or other data."""
    there, here = payload["kinds"], kinds(session)
    for name in [*here, *there]:
        if there.get(name, "missing") != here.get(name, "missing"):
            raise Refused(
                f"checkpoint {record.id} does not fit: {name} is {there.get(name, 'missing')} there and "
                f"{here.get(name, 'missing')} in this experiment; start a new run, take over its weights only, or go "
                "back to what it was made with"
            )


def load_optimizer(optimizer: optim.Optimizer, state: Mapping[str, Any]) -> None:
    """As `optimizer.load_state_dict`, but numbers that belong to a whole tensor keep their own type: torch casts them
    to the parameter's, which loses bits of NAdam's and ASGD's in any type but float32."""
    optimizer.load_state_dict(dict(state))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, kept in state["state"].items():
        loaded = optimizer.state[parameters[index]]
        for key, value in kept.items():
            if isinstance(value, torch.Tensor) and value.dim() == 0:
                loaded[key] = value.to(loaded[key].device, copy=True)


def check_structure(session: Session, record: CheckpointRecord, payload: Mapping[str, Any]) -> None:
    """Raises Refused, naming the first difference, when a checkpoint was made with a network that is built otherwise;
    what edits made of it since is no difference."""
    there = dict(map(tuple, payload.get("built", payload["structure"])))
    here = dict(map(tuple, session.built))
    for name in [*here, *there]:
        if there.get(name) != here.get(name):
            raise Refused(
                f"checkpoint {record.id} has another structure: {name} is {there.get(name, 'missing')} there and "
                f"{here.get(name, 'missing')} in this model; start a new run, or go back to the model it was made with"
            )


def write_payload(path: Path, payload: Mapping[str, Any]) -> None:
    """Write a checkpoint file whole or not at all. Raises StorageError naming it."""
    try:
        os.makedirs(path.parent, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot create {path.parent}: {error.strerror or error}") from error
    write_atomically(path, lambda file: torch.save(dict(payload), file))


def read_payload(path: Path) -> dict[str, Any]:
    """Read a checkpoint file: tensors and plain values only. Raises StorageError naming it."""
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise StorageError(f"checkpoint file {path.name} is missing") from None
    except Exception as error:  # torch raises whatever the broken bytes lead it to
        raise StorageError(f"checkpoint file {path.name} cannot be read: {error}") from error
    version = payload.get("format_version") if isinstance(payload, dict) else None
    if version != FORMAT_VERSION:
        raise StorageError(f"checkpoint file {path.name} has format {version}; this version reads {FORMAT_VERSION}")
    return dict(payload)


_COUNTER = "__counter__"


def to_plain(value: Any) -> Any:
    """A copy of nested state as tensors on the CPU, numbers, text, lists and dicts. Raises StorageError naming a type
    that cannot be kept."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, np.generic):  # before the others: NumPy's float64 is a float too, which torch would not load
        return value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, Counter):  # MultiStepLR keeps its milestones in one
        return {_COUNTER: [[to_plain(k), v] for k, v in value.items()]}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(to_plain(item) for item in value)
    if isinstance(value, list):
        return [to_plain(item) for item in value]
    raise StorageError(
        f"a checkpoint holds tensors and plain values; {type(value).__name__} in the state of the model, the optimizer "
        "or the scheduler is neither"
    )


def from_plain(value: Any) -> Any:
    """What `to_plain` made, turned back."""
    if isinstance(value, dict):
        if set(value) == {_COUNTER}:
            return Counter(dict(value[_COUNTER]))
        return {key: from_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    return value
