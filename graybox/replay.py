"""Going through a run again from its beginning: the same experiment, the same seed, every intervention at its step."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graybox.checkpoint import (
    CheckpointKeeper,
    check_kinds,
    check_structure,
    from_plain,
    read_payload,
    restore_all,
)
from graybox.commands import Command
from graybox.errors import Invalid, NotFound, Refused, StorageError
from graybox.experiment import Experiment
from graybox.intervention import Intervention, Performed
from graybox.interventions import Interventions
from graybox.recovery import Recovery
from graybox.session import Session, Stores
from graybox.store.blobs import BlobStore
from graybox.store.checkpoints import CheckpointCatalogue, CheckpointRecord
from graybox.store.evaluation_report import END
from graybox.store.journal import Journal, JournalEntry
from graybox.store.root import Root
from graybox.store.runs import RunFolder, now_ms

_log = logging.getLogger(__name__)

ACTOR = "replay"
RESTORE = "checkpoint_restore"


class Source:
    """A run on disk that is gone through again; only read. The experiment's code is not in it."""

    def __init__(self, run: RunFolder) -> None:
        """Raises Refused for a run without its first checkpoint, StorageError for a broken one."""
        self.run = run
        self.blobs = BlobStore(run.path / "blobs")
        self.checkpoints = CheckpointCatalogue(run.path / "checkpoints")
        self.entries = Journal(run.path / "journal.jsonl", read_only=True).entries()
        self.records = self.checkpoints.list()
        if not self.records or self.records[0].step or self.records[0].journal_sequence:
            raise Refused(
                f"run {run.run_id} has no checkpoint of its beginning, from which it could be gone through again"
            )

    @property
    def seed(self) -> int:
        return int(self.run.record["seed"])

    def payload(self, record: CheckpointRecord) -> dict[str, Any]:
        """What a checkpoint holds. Raises StorageError for a broken one."""
        if not self.checkpoints.verify(record):
            raise StorageError(f"checkpoint {record.id} of run {self.run.run_id} is broken")
        return read_payload(self.checkpoints.folder / record.file)

    def restored(self) -> set[str]:
        """Ids of the checkpoints that the run went back to."""
        return {str(entry.arguments["id"]) for entry in self.entries if entry.kind == RESTORE and _applied(entry)}


@dataclass(frozen=True)
class Comparison:
    """A checkpoint of the first time beside the same moment of the second. differs: the first tensor that does, "" for
    none."""

    checkpoint: str
    step: int
    differs: str = ""


@dataclass
class Report:
    """What came of a replay."""

    run_id: str
    step: int = 0
    entries: int = 0
    compared: list[Comparison] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Checkpoints that are broken, or of moments that the replay did not come to."""

    @property
    def identical(self) -> bool:
        """Whether a checkpoint beyond the first, with which a replay begins, was compared, and all have the same
        bits."""
        return len(self.compared) > 1 and not any(each.differs for each in self.compared)


class Replay:
    """A new run that goes the way of another one.

    The owner of both the experiment and the new run; `close` at the end. Weights begin as in the source's first
    checkpoint, since an experiment may draw them anew each time it is built.
    """

    def __init__(self, source: Source, experiment: Experiment, root_directory: str | Path) -> None:
        """Raises Refused where the experiment is not the source's, or another backend works in root_directory."""
        self.source = source
        self.kept: dict[str, str] = {}
        """By id of the source's checkpoints, those that were made at the same moments."""
        self.report = Report("")
        self._compared: set[str] = set()
        first = source.records[0]
        begin = source.payload(first)
        root = Root(root_directory)
        self._lock = root.lock()
        try:
            run = root.create_run(str(source.run.record["name"]))
            run.update(seed=source.seed)
            self.stores = Stores.open(run)
            try:
                self.session = Session(experiment, self.stores)
                self.keeper = CheckpointKeeper(self.session)
                self.interventions = Interventions(self.session, self.keeper)
                check_structure(self.session, first, begin)
                check_kinds(self.session, first, begin)
                self.session.look_at_network()
                restore_all(self.session, begin)
                self.session.running = begin["running"]
                self.kept[first.id] = self.keeper.save("start").result().id
                self._follower = _Follower(self)
                self.look()
            except BaseException:
                self.stores.close()
                raise
        except BaseException:
            self._lock.release()
            raise
        self.report.run_id = run.run_id

    # -- going on --------------------------------------------------------------------------------------

    def until(self, step: int, *, evaluated: bool = False, audited: int = 0) -> None:
        """Train on to this step, and through so many batches of audits. evaluated: and make the pass over the
        evaluation split that is due there. Raises what a step raises."""
        place = {"evaluated": evaluated, **({"audited": audited} if audited else {})}
        self._follower.go_to(JournalEntry(0, 0, ACTOR, "", step, 0, 0, "", place))

    def do(self, command: Command) -> None:
        """Do what a person did, and journal it. Raises what resolving the command raises."""
        resolved = self.interventions.resolve(command)
        self.perform(resolved.kind, resolved.arguments)

    def perform(self, kind: str, arguments: Mapping[str, Any]) -> None:
        """The same for an intervention as the journal has it."""
        session, sequence = self.session, self.stores.journal.last_sequence + 1
        entry = JournalEntry(sequence, 0, ACTOR, kind, session.step, session.age, session.branch, "", dict(arguments))
        while kind == END and not session.evaluations.replayed(entry):
            pass
        self._follower.perform(entry)

    def skip(self, kind: str, summary: str) -> None:
        """An entry that did nothing: its number is used up, because random numbers follow from it."""
        self._follower.append(kind, {}, Performed(summary), outcome="failed")

    def arrays(self, digest: str) -> dict[str, np.ndarray]:
        """What an entry of the source's journal keeps beside it."""
        return self.source.blobs.get(digest)

    def follow(self, say: Callable[[str], None] = lambda _: None) -> Report:
        """The whole of the source: every entry of its journal at its step, then on to its last checkpoint. say: told
        each entry. Raises what a step or an intervention raises, which then cannot be gone through again."""
        follower = self._follower
        follower.say = say
        while follower.advance():
            pass
        session = self.session
        last = [record.step for record in self.source.records if record.branch == session.branch]
        self.until(max([session.step, *last]), audited=session.audit.batches)
        self.report.step = session.step
        compared = {each.checkpoint for each in self.report.compared}
        self.report.left_out = [record.id for record in self.source.records if record.id not in compared]
        return self.report

    # -- comparing -------------------------------------------------------------------------------------

    def look(self) -> None:
        """Keep and compare the checkpoints that the source has of this very moment."""
        session, sequence = self.session, self.stores.journal.last_sequence
        restored = self.source.restored()
        for record in self.source.records:
            if (record.step, record.journal_sequence) != (session.step, sequence) or record.id in self._compared:
                continue
            self._compared.add(record.id)
            if record.id in restored and record.id not in self.kept:
                self.kept[record.id] = self.keeper.save(record.reason, record.name).result().id
            try:
                self.report.compared.append(Comparison(record.id, record.step, self._difference(record)))
            except StorageError as error:
                _log.warning("%s; it is not compared", error)

    def _difference(self, record: CheckpointRecord) -> str:
        """The first parameter or buffer that is not bit for bit as it was; "" for none."""
        there = from_plain(self.source.payload(record)["model"])
        here = self.session.network.state_dict()
        if list(there) != list(here):
            return "the structure"
        return next((name for name, value in here.items() if not _same(value, there[name])), "")

    def checkpoint_for(self, old: str) -> str:
        """The checkpoint that was made at the moment of one of the source's. Raises NotFound."""
        if old not in self.kept:
            raise NotFound(f"checkpoint {old} was not reached again before the run went back to it")
        return self.kept[old]

    def close(self) -> None:
        """Keep the present as the run's last checkpoint, and let go of everything."""
        session = self.session
        try:
            self.keeper.save("exit").result()
            latest = self.stores.metrics.latest()
            metrics = {f"{split}/{metric}": point.value for (split, metric), point in latest.items()}
            self.stores.run.update(
                state="ended", step=session.step, age=session.age, branch=session.branch, metrics=metrics,
                experiment_hash=session.experiment_hash(), class_names=list(session.experiment.class_names),
            )  # fmt: skip
        finally:
            session.stream.close()
            session.optimizer.detach()
            self.stores.close()
            self._lock.release()
            for wrapper in session.experiment.datasets.values():
                wrapper.let_go()


class _Follower(Recovery):
    """What a recovery does, in a new run that has its own journal."""

    def __init__(self, replay: Replay) -> None:
        super().__init__(replay.session, replay.interventions, replay.source.entries)
        self.replay = replay
        self.say: Callable[[str], None] = lambda _: None

    def go_to(self, place: JournalEntry) -> None:
        """All the way to where an entry belongs."""
        while self._advance_to(place):
            pass

    def perform(self, entry: JournalEntry) -> None:
        """Do it and journal it."""
        self._perform(entry)

    def append(self, kind: str, arguments: dict[str, Any], performed: Performed, outcome: str = "applied") -> None:
        session = self.session
        session.stores.journal.append(
            time_ms=now_ms(), actor=ACTOR, kind=kind, step=session.step, age=session.age, branch=session.branch,
            summary=performed.summary, arguments=arguments, outcome=outcome, undo=performed.undo,
        )  # fmt: skip

    def _advance_to(self, entry: JournalEntry) -> bool:
        steps = self.session.step
        went_on = super()._advance_to(entry)
        if self.session.step != steps:
            self.session.experiment.call_back(self.session.step)
        if went_on:
            self.replay.look()
        return went_on

    def _perform(self, entry: JournalEntry) -> None:
        replay, session = self.replay, self.session
        arguments = dict(entry.arguments)
        for key, value in arguments.items():
            if key.endswith("blob"):
                session.stores.blobs.put(replay.source.blobs.get(value))
        if entry.kind == RESTORE:
            arguments["id"] = replay.checkpoint_for(str(arguments["id"]))
            arguments.pop("branch", None)
        at = session.step, session.age, session.branch
        evaluated = session.last_evaluation_step == session.step
        performed = self.interventions.perform(Intervention(entry.kind, arguments), entry.sequence)
        arguments |= {**performed.decided, "evaluated": evaluated}
        session.stores.journal.append(
            time_ms=now_ms(), actor=ACTOR, kind=entry.kind, step=at[0], age=at[1], branch=at[2],
            summary=performed.summary, arguments=arguments, undo=performed.undo,
        )  # fmt: skip
        replay.report.entries += 1
        if performed.decided.get("branch"):
            replay.keeper.save("branch")
        self.say(f"{entry.sequence:>5}  step {at[0]:>8,}  {performed.summary}")
        replay.look()

    def _pass_over(self, entry: JournalEntry) -> None:
        self.append(entry.kind, {}, Performed(entry.summary), outcome=entry.outcome)


def find_run(root_directory: str | Path, run_id: str = "") -> RunFolder:
    """A run of a root directory, the newest where none is named. Raises NotFound."""
    root = Root(root_directory, read_only=True)
    found = root.run(run_id) if run_id else root.latest_run()
    if found is None:
        raise NotFound(f"there is no run in {root_directory}")
    return found


def begin(root_directory: str | Path, run_id: str, experiment: Experiment, new_root: str | Path) -> Replay:
    """What an exported script begins with: a new run under new_root with seed and first weights of another one."""
    return Replay(Source(find_run(root_directory, run_id)), experiment, new_root)


def _applied(entry: JournalEntry) -> bool:
    return entry.outcome == "applied"


def _same(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return bool(json.dumps(one, default=repr) == json.dumps(other, default=repr))
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    mine, theirs = (value.detach().cpu().contiguous().reshape(-1) for value in (one, other))
    return bool(torch.equal(mine.view(torch.uint8), theirs.view(torch.uint8))) if mine.numel() else True


def check_new_root(source: Path, new_root: Path) -> None:
    """Raises Invalid where the new run would come to lie beside the one that is gone through again."""
    if source.resolve() == new_root.resolve():
        raise Invalid("the new run needs a root directory of its own, where no backend looks for the newest run")
