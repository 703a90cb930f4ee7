"""Wrong labels are found by how they train; without them, most of what they cost comes back while it trains."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from graybox.commands import Undo
from graybox.examples.curation import (
    DISCARD_AT,
    SHARE,
    STEPS,
    WRONG,
    Curation,
    Trained,
    discard,
    find,
    get_exp,
    left_out,
    main,
    peer_of,
    suspicion,
    train,
)
from graybox.examples.digits import write_digits
from graybox.examples.noisy_digits import noisy_digits, training_scans
from graybox.experiment import Experiment
from graybox.launch import launch
from graybox.service.backend import live_backend
from graybox.service.server import serve
from graybox.service.settings import Settings
from graybox.store.query import QueryError
from tests.conftest import REPOSITORY
from tests.patience import PATIENCE, wait_until
from tests.service.wire_client import WireClient

DOCUMENT = REPOSITORY / "docs" / "curation.md"


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits, written once."""
    return write_digits(tmp_path_factory.mktemp("scans") / "digits")


@pytest.fixture
def root(root: Path, scans: Path) -> Path:
    """A root directory that has them."""
    (root / "digits").symlink_to(scans, target_is_directory=True)
    return root


class Served:
    """A run that trains by itself behind a server, and a client, as a person's."""

    def __init__(self, experiment: Experiment, root: Path) -> None:
        self.training = launch(experiment, root_directory=root)
        self.server = serve(live_backend(self.training), Settings(port=0))
        self.client = WireClient(self.server.address, self.server.tokens.control[0])
        self._owner = threading.Thread(target=self.training.run, daemon=True)
        self._owner.start()

    def step(self) -> int:
        return int(self.client.ExperimentCommand(get_status=True).status.step)

    def is_over(self) -> bool:
        return int(self.client.ExperimentCommand(get_status=True).status.steps_left) == 0

    def discard(self, query: str) -> int:
        """What a query finds; how many."""
        view = self.client.ApplyDataQuery(query=query).view_id
        done = self.client.EditDataSample(stat_name="discarded", bool_value=True, view_id=view)
        assert done.success, done.message
        return int(done.number_changed)

    def close(self) -> None:
        self.client.close()
        self.server.stop(grace=0)
        self.training.stop()
        self._owner.join(PATIENCE)
        self.training.close()


def accuracy_of(experiment: Experiment) -> float:
    """On the scans that validate, by nothing but torch."""
    scans = experiment.datasets["val"].dataset
    images, labels = torch.stack([image for image, _ in scans]), torch.tensor(scans.targets)
    with torch.no_grad():
        return float((experiment.model.eval()(images).argmax(dim=1) == labels).double().mean())


def curated_live(root: Path, seed: int, steps: int = STEPS, look_at: int = DISCARD_AT) -> Trained:
    """A run on wrong labels that is told over the wire, while it trains, to leave out what the query finds."""
    scans = training_scans(root, SHARE, seed)
    experiment = noisy_digits(root, scans=scans, steps=steps, seed=seed, name="digits, curated live")
    experiment.skip_loading = True
    run = Served(experiment, root)
    try:
        wait_until(lambda: run.step() >= look_at, "the step to look at", 5 * PATIENCE)
        count = run.discard(WRONG)
        wait_until(run.is_over, "the last step", 5 * PATIENCE)
        discarded = run.training.stores.samples.splits["train"].discarded.copy()
    finally:
        run.close()
    assert count == discarded.sum() > 0
    return Trained(accuracy_of(experiment), scans, {}, discarded)


def found_of(trained: Trained) -> tuple[float, float]:
    """Which share of what was discarded is wrong, and which share of what is wrong was discarded."""
    hits = (trained.discarded & trained.scans.wrong).sum()
    return float(hits / trained.discarded.sum()), float(hits / trained.scans.wrong.sum())


# -- its parts -----------------------------------------------------------------------------------------


@pytest.fixture
def experiment(root: Path) -> Iterator[Experiment]:
    made = noisy_digits(root, scans=training_scans(root, SHARE, 1), steps=60, seed=1, name="digits")
    made.skip_loading = True
    yield made
    made.close()


def test_what_is_found_is_left_out_and_comes_back(experiment: Experiment) -> None:
    experiment.train_n_steps(60)
    columns = experiment.datasets["train"].columns
    aum = columns.column("aum")
    found = find(experiment, WRONG)
    assert np.array_equal(found["train"], np.flatnonzero(aum < 0)) and not len(found["val"])
    assert 0 < len(found["train"]) < len(aum)
    lowest = find(experiment, "split == 'train' sortby aum limit 9")["train"]
    assert np.array_equal(lowest, np.argsort(aum, kind="stable")[:9])
    assert discard(experiment, found) == len(found["train"])
    assert np.array_equal(np.flatnonzero(columns.discarded), found["train"])
    seen = columns.encounters.copy()
    experiment.train_n_steps(30)
    again = columns.encounters != seen
    assert again.any() and not again[found["train"]].any()
    experiment.loop().command(Undo())
    assert not columns.discarded.any()
    with pytest.raises(QueryError, match="aum"):
        find(experiment, "ahm < 0")


def test_suspicion_is_the_order_that_a_query_sorts_by(experiment: Experiment) -> None:
    experiment.train_n_steps(45)
    wrong = experiment.datasets["train"].dataset.wrong
    sorted_by = {"aum": "aum", "confidence_mean": "confidence_mean", "loss_mean": "loss_mean desc"}
    for name, key in sorted_by.items():
        rows = find(experiment, f"split == 'train' sortby {key}")["train"]
        # The definition: the mean, over the wrong ones, of the share of wrong ones down to each.
        hits = wrong[rows]
        precision = np.cumsum(hits) / np.arange(1, len(rows) + 1)
        assert average_precision_score(wrong, suspicion(experiment)[name]) == pytest.approx(
            precision[hits].mean(), 1e-3
        )
    never = experiment.datasets["train"].columns.column("first_learnt") < 0
    late = suspicion(experiment)["first_learnt"]
    assert never.any() and not never.all() and late[never].min() > late[~never].max()


def test_the_backend_takes_it_and_pauses_to_be_looked_at(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = get_exp(root)
    run = Served(experiment, root)
    try:
        wait_until(lambda: not experiment.get_is_training(), "the pause")
        assert run.step() == DISCARD_AT
        samples = run.training.stores.samples.splits["train"]
        suspects = samples.column("aum") < 0
        assert experiment.datasets["train"].dataset.wrong[suspects].mean() > 0.7
        # As the documentation says.
        (code,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        exec(code.replace("my-runs", str(root)), {})
        assert f"{suspects.sum()} samples" in capsys.readouterr().out
        assert np.array_equal(samples.discarded, suspects)
        seen = samples.encounters.copy()
        run.client.ExperimentCommand(hyper_parameter_change={"hyper_parameters": {"is_training": True}})
        wait_until(lambda: run.step() > DISCARD_AT + 5, "training to go on")
    finally:
        run.close()
    again = samples.encounters != seen
    assert again.any() and not again[suspects].any()


def test_the_command_line_prints_all_tables(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--root_directory", str(root), "--steps", "5", "--seeds", "1"])
    printed = capsys.readouterr().out
    for text in ("given back", "Average precision", "cleanlab self_confidence", "Taken for wrong", "the hardest, 75%"):
        assert text in printed
    with pytest.raises(SystemExit):
        main(["--root_directory", str(root), "--steps", "1"])


# -- what it is good for -------------------------------------------------------------------------------


def test_in_short(root: Path) -> None:
    """One seed and less than half of the steps: what is wrong is not yet learnt by heart, and costs less."""
    noisy = train(root, seed=1, share=SHARE, steps=320, look_at=100)
    curated = curated_live(root, seed=1, steps=320, look_at=100)
    for steps in (100, 320):
        assert average_precision_score(noisy.scans.wrong, noisy.suspicion[steps]["aum"]) >= 0.9
    precision, recall = found_of(curated)
    assert precision > 0.7 and recall > 0.9
    assert curated.accuracy >= noisy.accuracy + 0.02


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_wrong_labels_are_found_and_half_of_what_they_cost_comes_back(root: Path, seed: int) -> None:
    clean, noisy = train(root, seed=seed), train(root, seed=seed, share=SHARE)
    curated = curated_live(root, seed)
    done = Curation(clean, noisy, curated, peer_of(noisy.scans, (DISCARD_AT, STEPS), seed))
    # It is worth it: the network learns what is wrong by heart.
    assert done.lost >= 0.05
    # After one training the ranking by the area under the margin finds them, as well as five more trainings do.
    after = done.average_precisions(STEPS)
    assert after["aum"] >= 0.9 and after["aum"] >= max(score for name, score in after.items() if "cleanlab" in name)
    early = done.average_precisions(DISCARD_AT)
    assert early["aum"] >= 0.95 and early["aum"] >= early["cleanlab self_confidence"] - 0.01
    assert min(found_of(curated)) > 0.85
    assert done.given_back >= 0.5


@pytest.mark.slow
def test_most_of_the_data_is_redundant_and_the_hard_part_is_not(root: Path) -> None:
    accuracy = left_out(root, seed=1, shares=(0.75,))
    whole, easiest, at_random, hardest = accuracy.values()
    assert list(accuracy)[1:] == [("the easiest", 0.75), ("as many at random", 0.75), ("the hardest", 0.75)]
    assert easiest >= whole - 0.01
    assert easiest > at_random
    assert hardest < at_random - 0.03
