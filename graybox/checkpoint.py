"""Checkpoints: the whole run at one step, as tensors and plain values; written in the background, read back safely."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn, optim

from graybox.checkpoint_files import FORMAT_VERSION
from graybox.checkpoint_files import read_payload as read_payload
from graybox.checkpoint_files import write_payload as write_payload
from graybox.checkpoint_manager import CheckpointManager as CheckpointManager
from graybox.errors import Refused, StorageError
from graybox.hyper_parameters import restore_live
from graybox.neuron_identity import carried, moved
from graybox.newcomers import begin_anew
from graybox.random_state import random_state, set_random_state
from graybox.refit import belonging, refit
from graybox.restored_samples import fits, restore_samples
from graybox.session import Session
from graybox.state_copy import Lease, Space, Spaces
from graybox.state_copy import from_plain as from_plain
from graybox.state_copy import to_plain as to_plain
from graybox.store.checkpoints import CheckpointRecord
from graybox.store.files import sha256_of
from graybox.store.runs import now_ms
from graybox.structural_edits import edits_behind
from graybox.structure.attributes import shape_attributes

_log = logging.getLogger(__name__)


class CheckpointKeeper:
    """Keeps and brings back the state of one session. `save` copies it at once and writes it in the background."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.written_step = -1
        """The step of the newest checkpoint that is whole on the disk."""
        self._checked: tuple[str, dict[str, Any]] | None = None
        self._pinned: set[str] = set()
        """What was gone back to, or is about to be: no rule removes it."""
        self._copying: Space | None = None
        session.optimizer.before_change = session.stores.samples.before_change = self.settle
        self._spaces = Spaces(1)
        # The weights of the newest checkpoint are what neurons tell their changes from, until the next one.
        self._weight_spaces = Spaces(2)
        self._remembered: Lease | None = None

    def save(self, reason: str, name: str = "", metrics: Mapping[str, float] | None = None) -> Future[CheckpointRecord]:
        """Keep the present. The future is done when the checkpoint is whole on the disk; its exception is a
        StorageError. What the optimizer keeps, and the samples, are copied while a forward and a backward pass go on;
        what changes them waits.

        metrics: by "split/metric", what is known where this branch has measured nothing yet.
        """
        session = self.session
        stores = session.stores
        self.settle()
        rest, weights = self._spaces.lease(), self._weight_spaces.lease(2)
        try:
            payload = copy_of(session, rest.space, weights.space)
        except BaseException:
            rest.release()
            weights.release(2)
            raise
        self._copying = rest.space
        rest.space.start()
        weights.space.start()
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
        session.audit.kept = session.audit.batches
        session.network.remember_weights(payload["model"])
        before, self._remembered = self._remembered, weights
        if before is not None:
            before.release()

        def write() -> CheckpointRecord:
            try:
                rest.space.wait()
                weights.space.wait()
                return self._write(facts, finished(payload))
            finally:
                rest.release()
                weights.release()

        return stores.flusher.submit(write)

    def settle(self) -> None:
        """Until the newest checkpoint's copy is made. Called before the optimizer's state or a sample changes."""
        copying = self._copying  # asked for once: a snapshot of the samples comes from another thread
        if copying is not None:
            copying.settle()
            self._copying = None

    def _write(self, facts: dict[str, Any], payload: dict[str, Any]) -> CheckpointRecord:
        """In the background."""
        stores = self.session.stores
        checkpoints = stores.checkpoints
        entries = stores.journal.entries()
        payload["edits"] = edits_behind(entries, payload["journal_sequence"], checkpoints.list())
        path = checkpoints.path(facts["id"])
        try:
            # First what it builds on: it must not know of entries that a power cut could still take away.
            stores.journal.sync()
            written = write_payload(path, payload, checkpoints.shared)
            record = checkpoints.add(
                CheckpointRecord(
                    **facts,
                    bytes=written.size,
                    added=written.added,
                    sha256=sha256_of(path),
                    file=path.name,
                    chunks=written.chunks,
                )
            )
        except StorageError:
            with suppress(StorageError):  # the disk that refused the one may refuse the other, and the first is told
                checkpoints.collect()
            raise
        self.written_step = record.step
        self._remove_old()
        return record

    def _remove_old(self) -> None:
        """As the experiment's rule says. A disk that refuses is told in the log: the new checkpoint is whole, and the
        next one tries again."""
        stores = self.session.stores
        # A replay that comes through a restore loads what was restored.
        restored = {str(e.arguments["id"]) for e in stores.journal.entries() if e.kind == "checkpoint_restore"}
        try:
            stores.checkpoints.apply_retention(
                self.session.experiment.checkpoints, frozenset(restored | self._pinned.copy())
            )
        except StorageError as error:
            _log.warning("old checkpoints could not be removed: %s", error)

    def _metrics_of_branch(self) -> dict[str, float]:
        latest = self.session.stores.metrics.latest()
        return {
            f"{split}/{metric}": point.value
            for (split, metric), point in latest.items()
            if point.branch == self.session.branch
        }

    def check(self, record: CheckpointRecord, *, weights_only: bool = False) -> None:
        """Whether it can be restored: raises what `load` raises. The `load` that follows does not read it again."""
        self._pinned.add(record.id)  # before the checkpoint of the present is written, which may push this one out
        self._checked = (record.id, self.load(record, weights_only=weights_only))

    def load(self, record: CheckpointRecord, *, weights_only: bool = False) -> dict[str, Any]:
        """What the file of a checkpoint holds, its checksum compared. The caller owns it.

        Raises StorageError naming a broken file, Refused when it belongs to another structure or, unless only the
        weights are wanted, to another optimizer or other data.
        """
        checked, self._checked = self._checked, None
        if checked is not None and checked[0] == record.id:
            return checked[1]
        checkpoints = self.session.stores.checkpoints
        if not checkpoints.verify_file(record):
            raise StorageError(f"checkpoint {record.id} is broken: its file does not fit its checksum")
        try:
            payload = read_payload(checkpoints.folder / record.file, checkpoints.shared)
        except StorageError as error:
            raise StorageError(f"checkpoint {record.id} is broken: {error}") from error
        check_structure(self.session, record, payload)
        if not weights_only:
            check_kinds(self.session, record, payload)
        return payload


def capture(session: Session) -> dict[str, Any]:
    """Copies of everything, on the CPU, in memory of their own."""
    return finished(copy_of(session))


def finished(copied: dict[str, Any]) -> dict[str, Any]:
    """What `copy_of` answered, with what it left to be worked out from its copies."""
    return {**copied, "samples": {name: torch.from_numpy(column) for name, column in copied["samples"]().items()}}


def copy_of(session: Session, space: Space | None = None, weights: Space | None = None) -> dict[str, Any]:
    """Copies of everything, for `finished`: the session may go on once they are settled, see `Space`. weights: where
    those of the model's tensors lie, space: all others; None: in memory of their own."""
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
        "model": to_plain(session.network.state_dict(), weights),
        "other_buffers": to_plain(other_buffers(session.network), space),
        # Whatever changes these in their place waits until they are copied.
        "optimizer": to_plain(experiment.optimizer.state_dict(), space, later=True),
        "scheduler": None if scheduler is None else to_plain(scheduler.state_dict(), space),
        "layers": {
            name: to_plain(layer.ops_state(copied=False), space) for name, layer in session.network.named_layers()
        },
        "newcomers": to_plain(session.optimizer.state_dict(), space),
        "stream": asdict(session.stream.position),
        "audit": session.audit.state(),
        "data": session.data.identities(),
        "samples": stores.samples.copied(np.array if space is None else partial(space.copy_array, later=True)),
        "task": to_plain(experiment.task.state_dict(), space),
        "random": random_state(),
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
        session.optimizer.load_state_dict([])  # of tensors that are no longer there
    for name, value in other_buffers(session.network).items():
        if name in others and value.shape == others[name].shape:
            value.copy_(others[name])
    session.network.load_state_dict(from_plain(payload["model"]))
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
    session.network.remember_weights()  # which loading what is known of the neurons forgot
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
    restore_samples(session, payload)
    session.audit.load_state(payload.get("audit"))
    experiment.task.load_state_dict(from_plain(payload["task"]))
    if "random" in payload:  # not in format 1
        set_random_state(payload["random"])
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
        if there.get(name, "missing") != here.get(name, "missing") and not fits(session, name, payload):
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
