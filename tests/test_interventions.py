"""Interventions: resolved against the present, refused before anything changes, the same when replayed from JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graybox import sample_interventions as module
from graybox.checkpoint import CheckpointKeeper
from graybox.commands import (
    Command,
    DiscardSamples,
    EditNeurons,
    Pause,
    ReadWeights,
    RestoreCheckpoint,
    Resume,
    SetHyperParameters,
    SetPlotNote,
)
from graybox.errors import Invalid, NotFound, Refused
from graybox.intervention import Intervention
from graybox.interventions import Interventions
from graybox.neuron_ops import Freeze, Reinitialize
from graybox.sample_interventions import row_of
from tests.patience import PATIENCE
from tests.small_experiments import Opened, toy_experiment, whole_state
from tests.small_networks import differences


class Desk:
    """A session that has made three steps, and its interventions."""

    def __init__(self, root: Path) -> None:
        self.opened = Opened(root, toy_experiment())
        self.session = self.opened.session
        for _ in range(3):
            self.session.train_one_step()
        self.keeper = CheckpointKeeper(self.session)
        self.interventions = Interventions(self.session, self.keeper)


@pytest.fixture
def desk(root: Path) -> Iterator[Desk]:
    made = Desk(root)
    yield made
    made.opened.close()


@pytest.mark.parametrize(
    ("command", "kind", "message"),
    [
        (DiscardSamples(()), Invalid, "no sample was named"),
        (DiscardSamples((("dev", "1"),)), NotFound, "no split 'dev'; there are train, val"),
        (DiscardSamples((("train", "1"), ("train", "50"))), NotFound, "no sample '50' in split 'train'; ids run"),
        (DiscardSamples((("train", "-1"),)), NotFound, "no sample '-1'"),
        (DiscardSamples(tuple(("train", str(row)) for row in range(50))), Refused, "no training sample; keep at least"),
        (EditNeurons(Freeze("nowhere")), NotFound, "no layer 'nowhere'"),
        (EditNeurons(Freeze("conv", (4,))), NotFound, "no neuron 4"),
        (RestoreCheckpoint("999999"), NotFound, "999999"),
        (RestoreCheckpoint("../../etc"), Invalid, "names no checkpoint"),
        (SetPlotNote("train", "speed", 0, 0, "x"), NotFound, "no metric train/speed; there are train/loss, train/acc"),
        (SetPlotNote("train", "loss", 0, 8, "x" * 2001), Invalid, "at most 2,000 characters"),
        (ReadWeights("conv"), Invalid, "unknown command ReadWeights"),
    ],
)  # fmt: skip
def test_what_is_refused_changes_nothing(desk: Desk, command: Command, kind: type[Exception], message: str) -> None:
    before = whole_state(desk.session)
    with pytest.raises(kind, match=message):
        desk.interventions.resolve(command)
    assert differences(before, whole_state(desk.session)) == []


@pytest.mark.parametrize(
    "command",
    [
        Pause(), Resume(), SetHyperParameters({"batch_size": 5, "learning_rate": 0.5}), EditNeurons(Freeze("0", (1,))),
        EditNeurons(Reinitialize("conv", (0, 2), zero_outgoing=True)), EditNeurons(Reinitialize("out", (), 0.2)),
        DiscardSamples((("train", "7"), ("val", "3"), ("train", "7"))),
        DiscardSamples((("train", "7"),), discarded=False), SetPlotNote("train", "loss", 0, 8, "here"),
    ],
)  # fmt: skip
def test_replayed_from_json_it_does_the_same(root: Path, command: Command) -> None:
    live, replayed = Desk(root), Desk(root)
    try:
        for each in (live, replayed):
            each.session.stores.samples.set_discarded("train", [9], True)
            each.session.stores.samples.set_discarded("train", [7], not getattr(command, "discarded", True))
        intervention = live.interventions.resolve(command)
        live.interventions.perform(intervention, 17)
        read = json.loads(json.dumps([intervention.kind, intervention.arguments]))
        replayed.interventions.perform(Intervention(*read), 17)
        assert differences(whole_state(live.session), whole_state(replayed.session)) == []
        for each in (live, replayed):
            each.session.train_one_step()
        assert differences(whole_state(live.session), whole_state(replayed.session)) == []
    finally:
        live.opened.close()
        replayed.opened.close()


def test_discards_add_up_and_say_what_they_did(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def do(*rows: int, discarded: bool = True) -> Any:
        ids = tuple(("train", str(row)) for row in rows)
        return desk.interventions.perform(desk.interventions.resolve(DiscardSamples(ids, discarded)), 1)

    assert (do(3, 4).summary, do(4, 5).value) == ("Discarded 2 samples (2 of train)", 1)
    nothing = do(3)
    assert (nothing.summary, nothing.value, nothing.undo) == (
        "Nothing changed: already discarded",
        0,
        {"rows": {"train": []}},
    )
    monkeypatch.setattr(module, "MAX_INLINE", 2)
    intervention = desk.interventions.resolve(DiscardSamples(tuple(("train", str(row)) for row in (3, 4, 5, 6)), False))
    assert set(intervention.arguments) == {"rows_blob"}
    restored = desk.interventions.perform(intervention, 1)
    assert restored.summary == "Restored 3 samples (3 of train)"
    assert desk.session.stores.blobs.get(restored.undo["rows_blob"])["train"].tolist() == [3, 4, 5]
    assert not desk.session.stores.samples.splits["train"].discarded.any()


def test_a_discarded_sample_is_not_served_from_the_next_batch_on(desk: Desk) -> None:
    keep = set(range(50)) - {1, 2, 3}
    command = DiscardSamples(tuple(("train", str(row)) for row in (1, 2, 3)))
    desk.interventions.perform(desk.interventions.resolve(command), 1)
    served: set[int] = set()
    epoch = desk.session.stream.position.epoch
    while desk.session.stream.position.epoch < epoch + 2:
        served |= set(desk.session.train_one_step().rows.tolist())
    assert served == keep


def test_all_but_one_training_sample_may_go(desk: Desk) -> None:
    command = DiscardSamples(tuple(("train", str(row)) for row in range(1, 50)))
    desk.interventions.perform(desk.interventions.resolve(command), 1)
    with pytest.raises(Refused, match="keep at least one"):
        desk.interventions.resolve(DiscardSamples((("train", "0"),)))


def test_going_back_makes_a_branch_and_weights_alone_do_not(desk: Desk) -> None:
    record = desk.keeper.save("asked").result(PATIENCE)
    at_three = whole_state(desk.session)
    for _ in range(2):
        desk.session.train_one_step()

    weights_only = desk.interventions.resolve(RestoreCheckpoint(f"{record.experiment_hash}@@weights_step=3"))
    performed = desk.interventions.perform(weights_only, 1)
    assert performed.value is None and desk.session.step == 5 and desk.session.branch == 0 and not desk.session.running
    changed = differences(at_three, whole_state(desk.session))
    assert changed and not any(name.startswith("model/") for name in changed)

    intervention = desk.interventions.resolve(RestoreCheckpoint(record.id))
    performed = desk.interventions.perform(intervention, 2)
    assert performed.decided == {"branch": 1} and performed.value == desk.session.branch == 1
    assert differences(at_three, whole_state(desk.session)) == []
    # Replayed, it is the same branch again.
    desk.interventions.perform(Intervention(intervention.kind, {**intervention.arguments, **performed.decided}), 2)
    assert desk.session.branch == 1 and len(desk.session.stores.run.branches) == 2


def test_rows_are_named_by_plain_numbers() -> None:
    assert row_of("train", "007", 8) == 7
    for wrong in ("", " 1", "1.0", "١", "8", "1e0", "9" * 40):
        with pytest.raises(NotFound, match="ids run from 0 to 7"):
            row_of("train", wrong, 8)


def test_an_unknown_entry_of_a_journal_is_named(desk: Desk) -> None:
    with pytest.raises(Invalid, match="an entry 'prune' that this version does not know"):
        desk.interventions.perform(Intervention("prune"), 1)


def test_a_failed_step_is_kept_until_somebody_resumes(desk: Desk) -> None:
    desk.interventions.perform(Intervention("step_failed", {"error": "boom", "traceback": "line 1"}), 1)
    assert (desk.session.running, desk.session.error, desk.session.traceback) == (False, "boom", "line 1")
    desk.session.steps_left = 0
    assert "no steps are left" in desk.interventions.perform(Intervention("resume"), 2).summary
    assert (desk.session.running, desk.session.error) == (True, "")
    assert np.isfinite(desk.session.last_train.loss)  # type: ignore[union-attr]
