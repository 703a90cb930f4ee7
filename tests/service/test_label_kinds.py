"""Labels of every kind over the wire, on runs that train: in words, in queries, marked as changed, tagged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from sklearn.preprocessing import MultiLabelBinarizer
from torch import nn, optim

from graybox.experiment import Experiment
from graybox.launch import launch
from graybox.proto import experiment_service_pb2 as pb
from graybox.service.backend import live_backend
from graybox.service.server import serve
from graybox.service.settings import Settings
from graybox.store.sample_table import SampleTable
from graybox.store.samples import SampleStore
from tests.service.wire_client import WireClient
from tests.small_experiments import tick_until, toy_experiment
from tests.test_failing_samples import Spoilt, raises
from tests.test_met_labels import boxes_experiment, regression
from tests.test_multilabel import Listed
from tests.test_segmentation import squares


class Served:
    """A run after a few steps, which nobody trains any more, and a client."""

    def __init__(self, root: Path, experiment: Experiment, steps: int = 6) -> None:
        self.training = launch(experiment, root_directory=root)
        tick_until(self.training, lambda: not _goes_on(self.training, steps))
        self.server = serve(live_backend(self.training), Settings(port=0))
        self.client = WireClient(self.server.address, self.server.tokens.control[0])

    def ask(self, query: str) -> list[pb.DataRecord]:
        """The records of a query's view, in its order."""
        found = self.client.call("ApplyDataQuery", pb.DataQueryRequest(query=query))
        page = self.client.call("GetDataSamples", pb.GetDataSamplesRequest(view_id=found.view_id, records_cnt=1_000))
        assert page.number_of_matches == found.number_of_matches
        return list(page.data_records)

    def show(self, query: str) -> str:
        return str(self.client.call("ApplyDataQuery", pb.DataQueryRequest(query=query)).analysis_result)

    def close(self) -> None:
        self.client.close()
        self.server.stop(grace=0)
        self.training.close()


def _goes_on(training: Any, steps: int) -> bool:
    return not training.trainer.latest().error and training.trainer.session.step < steps


@pytest.fixture
def serve_run(root: Path) -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def make(*arguments: Any, **options: Any) -> Served:
        made.append(Served(root, *arguments, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def rows(records: list[pb.DataRecord]) -> list[int]:
    return [int(record.sample_id) for record in records]


def test_several_classes(serve_run: Callable[..., Served]) -> None:
    data = Listed(True)
    run = serve_run(toy_experiment(train_dataset=data, eval_dataset=None, task="multilabel"))
    records = run.ask("sortby id")
    assert {record.label_kind for record in records} == {"classes"}
    words = [", ".join(data.classes[number] for number in wanted) for wanted in data.wanted]
    assert [record.label_text for record in records] == words
    assert rows(run.ask('"label:cat" and not "label:dog"')) == [
        row for row, wanted in enumerate(data.wanted) if 0 in wanted and 1 not in wanted
    ]
    assert rows(run.ask("labels like '%cow%'")) == [row for row, wanted in enumerate(data.wanted) if 2 in wanted]
    targets = run.training.stores.samples.splits["train"].targets
    found = targets.column("predicted_classes")
    assert found is not None
    right = MultiLabelBinarizer(classes=range(3)).fit_transform(data.wanted) == np.unpackbits(
        found, axis=1, bitorder="little"
    )[:, 1:4]  # fmt: skip
    assert rows(run.ask("correct")) == np.flatnonzero(right.all(1)).tolist()
    assert [record.prediction_text == record.label_text for record in records] == right.all(1).tolist()
    with pytest.raises(grpc.RpcError, match="no column 'label:mouse'"):
        run.ask('"label:mouse"')


def test_numbers(serve_run: Callable[..., Served]) -> None:
    run = serve_run(regression(eval_dataset=None))
    records = run.ask("sortby id")
    assert {record.label_kind for record in records} == {"number"}
    assert [float(record.label_text) for record in records] == [index / 4 for index in range(30)]
    error = run.training.stores.samples.splits["train"].targets.error()
    assert error is not None
    worst = run.ask("abs(error) >= p90 sortby error")
    assert rows(worst) == [
        row for row in np.argsort(error, kind="stable").tolist() if abs(error[row]) >= np.quantile(np.abs(error), 0.9)
    ]
    one = worst[0]
    assert float(one.metadata["error"]) == pytest.approx(
        float(one.metadata["predicted"]) - float(one.metadata["target"]), abs=1e-4
    )
    assert float(one.prediction_text) == pytest.approx(float(one.metadata["predicted"]))
    assert run.show("show max(target)").strip().endswith("7.25")


def test_masks(serve_run: Callable[..., Served]) -> None:
    data = squares(6)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    experiment = Experiment(
        model=model, optimizer_class=optim.Adam, train_dataset=data, eval_dataset=None, task="segmentation",
        batch_size=3, checkpoint_frequency=0,
    )  # fmt: skip
    run = serve_run(experiment)
    records = run.ask("sortby id")
    assert [record.label_text for record in records] == ["0", *("0, 1" if r % 2 == 0 else "0, 2" for r in range(1, 6))]
    assert {record.label_kind for record in records} == {"mask"}
    scores = [float(record.metadata["iou"]) for record in records]
    assert rows(run.ask("iou < mean(iou) and split == 'train'")) == [
        row for row, score in enumerate(scores) if score < np.mean(scores)
    ]


def test_boxes(serve_run: Callable[..., Served]) -> None:
    run = serve_run(boxes_experiment())
    records = run.ask("sortby id")
    assert {record.label_kind for record in records} == {"boxes"}
    assert [record.label_text for record in records[:3]] == ["0 boxes", "1 box (square)", "2 boxes (square)"]
    assert rows(run.ask("box_count == 2")) == [2, 5, 8, 11]


def test_a_sample_that_fails_is_found_and_discarded_by_query(serve_run: Callable[..., Served]) -> None:
    run = serve_run(toy_experiment(train_dataset=Spoilt(raises)))
    status = run.training.trainer.latest()
    assert "the query tag:failed finds it" in status.error
    (record,) = run.ask("tag:failed")
    assert (record.sample_id, list(record.tags), record.label_kind) == ("5", ["failed"], "none")


def test_what_is_learnt_counts_as_changed_and_an_ended_run_tells_the_same(
    serve_run: Callable[..., Served], root: Path
) -> None:
    run = serve_run(regression(eval_dataset=None), steps=1)
    first = run.client.call("GetDataSamples", pb.GetDataSamplesRequest(records_cnt=1_000, cursor="new"))
    before = {record.sample_id: record.prediction_text for record in first.data_records}
    run.training.trainer.session.train_one_step()
    changed = run.client.call("GetDataSamples", pb.GetDataSamplesRequest(records_cnt=1_000, cursor=first.cursor))
    after = {record.sample_id: record.prediction_text for record in changed.data_records}
    targets = run.training.stores.samples.splits["train"].targets
    predicted = targets.column("predicted")
    assert predicted is not None
    told = {**before, **after}
    assert [told[str(row)] for row in range(30)] == [
        "" if np.isnan(value) else f"{value:.6g}" for value in predicted.tolist()
    ]
    run.training.stores.samples.sync()
    read = SampleStore(run.training.stores.run.path, read_only=True)
    live = SampleTable(list(run.training.stores.samples.splits.values()))
    disk = SampleTable(list(read.splits.values()))
    assert live.names() == disk.names()
    for name in ("target", "predicted", "error"):
        np.testing.assert_array_equal(live.column(name).values, disk.column(name).values)
