"""Queries and edits of samples over the wire, on a run that trains: found, shown, edited, undone."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from graybox.launch import Training, launch
from graybox.proto import experiment_service_pb2 as pb
from graybox.service.backend import live_backend
from graybox.service.server import serve
from graybox.service.settings import Settings
from tests.patience import PATIENCE
from tests.service.wire_client import WireClient
from tests.small_experiments import tick_until, toy_data, toy_experiment

COUNT = 200


class Running:
    """A run whose owner ticks in a thread, and a client."""

    def __init__(self, root: Path) -> None:
        self.training: Training = launch(
            toy_experiment(train_dataset=toy_data(COUNT), training_steps_to_do=100_000), root_directory=root
        )
        tick_until(self.training, lambda: self.training.trainer.session.step == 60)
        self.server = serve(live_backend(self.training), Settings(port=0))
        self.client = WireClient(self.server.address, self.server.tokens.control[0])
        self._owner = threading.Thread(target=self.training.trainer.run, daemon=True)
        self._owner.start()
        self.samples = self.training.stores.samples.splits["train"]

    def ask(self, query: str, **fields: object) -> pb.DataQueryResponse:
        found: pb.DataQueryResponse = self.client.call("ApplyDataQuery", pb.DataQueryRequest(query=query, **fields))  # type: ignore[arg-type]
        return found

    def page(self, **fields: object) -> pb.DataSamplesResponse:
        request = pb.GetDataSamplesRequest(**{"records_cnt": 1_000, **fields})  # type: ignore[arg-type]
        found: pb.DataSamplesResponse = self.client.call("GetDataSamples", request)
        return found

    def edit(self, **fields: object) -> pb.DataEditsResponse:
        found: pb.DataEditsResponse = self.client.call("EditDataSample", pb.DataEditRequest(**fields))  # type: ignore[arg-type]
        return found

    def undo(self) -> pb.CommandResponse:
        request = pb.ExperimentCommandRequest(undo_operation=pb.UndoOperation())
        found: pb.CommandResponse = self.client.call("ExperimentCommand", request)
        return found

    def pause(self) -> None:
        change = pb.HyperParameterChange(hyper_parameters=pb.HyperParameters(is_training=False))
        self.client.call("ExperimentCommand", pb.ExperimentCommandRequest(hyper_parameter_change=change))

    def close(self) -> None:
        self.client.close()
        self.server.stop(grace=0)
        self.training.trainer.stop()
        self._owner.join(PATIENCE)
        self.training.close()


@pytest.fixture
def run(root: Path) -> Iterator[Running]:
    made = Running(root)
    yield made
    made.close()


def ids(page: pb.DataSamplesResponse) -> list[int]:
    return [int(record.sample_id) for record in page.data_records]


def test_a_query_makes_a_view_that_is_read_in_pages(run: Running) -> None:
    run.pause()
    asked = run.ask("split == 'train' and loss > p50 sortby loss desc, id")
    losses = run.samples.loss
    expected = np.lexsort((np.arange(COUNT), -losses))
    over_all = np.concatenate([columns.loss for columns in run.training.stores.samples.splits.values()])
    limit = np.quantile(over_all[np.isfinite(over_all)].astype(np.float64), 0.5)
    expected = expected[losses[expected] > limit]
    assert asked.number_of_matches == len(expected) and asked.success and asked.agent_intent_type == "filter"
    found = [
        row
        for start in range(0, COUNT, 7)
        for row in ids(run.page(view_id=asked.view_id, start_index=start, records_cnt=7))
    ]
    assert found == expected.tolist()
    again = run.page(view_id=asked.view_id, sort_by="aum")
    assert again.number_of_matches == len(expected) and again.view_id == asked.view_id
    aum = run.samples.column("aum")[expected]
    assert ids(again) == expected[np.argsort(aum, kind="stable")].tolist()
    within = run.ask("limit 5", within_view_id=asked.view_id)
    assert ids(run.page(view_id=within.view_id)) == expected[:5].tolist()
    assert (
        ids(run.page(sort_by="loss_std", descending=True, filter=pb.SampleFilter(origin="train")))[:3]
        == np.argsort(-run.samples.column("loss_std"), kind="stable")[:3].tolist()
    )


def test_the_pandas_notation_is_the_same_query(run: Running) -> None:
    run.pause()
    plain = run.ask("loss > 0.5 and encounters >= 1")
    pandas = run.ask("df[(df['loss'] > 0.5) & (df.encounters >= 1)]")
    assert plain.query == pandas.query and plain.number_of_matches == pandas.number_of_matches


def test_what_is_shown_is_told_as_text_and_as_data(run: Running) -> None:
    run.pause()
    asked = run.ask("split == 'train' show count, accuracy, mean(loss) by label")
    told = json.loads(asked.analysis_json)
    label, right, loss = run.samples.truth(), run.samples.column("right"), run.samples.loss.astype(np.float64)
    for name, count, accuracy, mean in told["lines"]:
        rows = label == int(name)
        assert count == rows.sum() and accuracy == pytest.approx(right[rows].mean())
        assert mean == pytest.approx(loss[rows].mean(), rel=1e-6)
    assert asked.agent_intent_type == "analysis" and "accuracy" in asked.analysis_result
    confusion = json.loads(run.ask("split == 'train' show confusion").analysis_json)
    assert sum(sum(line[1:]) for line in confusion["lines"]) == COUNT
    histogram = json.loads(run.ask("show histogram(loss, 5)").analysis_json)
    assert len(histogram["lines"]) == 5


def test_overview_and_reset(run: Running) -> None:
    overview = run.ask("@overview")
    columns = {column.name: column for column in overview.columns}
    assert (
        columns["aum"].kind == "number" and "margin" in columns["aum"].description and "aum" in overview.analysis_result
    )
    reset = run.ask("@reset")
    assert (reset.view_id, reset.number_of_matches) == ("", COUNT + 20)
    assert reset.number_of_samples_in_the_loop == COUNT + 20


def test_edits_of_a_view_are_made_and_undone(run: Running) -> None:
    asked = run.ask("split == 'train' sortby aum limit 12")
    done = run.edit(stat_name="tags:suspect", type="EDIT_ADD", view_id=asked.view_id)
    assert (done.success, done.number_changed) == (True, 12)
    assert done.message == "Tagged 12 samples (12 of train) suspect"
    tagged = run.ask("tag:suspect")
    assert tagged.number_of_matches == 12 and list(tagged.unique_tags) == ["suspect"]
    assert all(list(record.tags) == ["suspect"] for record in run.page(view_id=tagged.view_id).data_records)
    labelled = run.edit(stat_name="label", string_value="2", samples_ids=["5"])
    assert labelled.success
    record = run.page(view_id=run.ask("id == 5 and split == 'train'").view_id).data_records[0]
    assert (record.label, record.original_label) == (2, run.samples.label[5])
    assert run.edit(stat_name="discarded", bool_value=True, view_id=asked.view_id).number_changed == 12
    assert run.ask("discarded").number_of_discarded_samples == 12
    assert run.edit(stat_name="__copy_metadata__", string_value="loss=loss_then").success
    assert run.ask("loss_then > 0").success
    assert run.edit(stat_name="__delete_metadata__", string_value="loss_then").success
    for _ in range(5):
        assert run.undo().success
    assert (
        run.ask(
            "discarded or tag:suspect or corrected" if run.samples.notes.tags else "discarded or corrected"
        ).number_of_matches
        == 0
    )
    assert not run.samples.notes.tags and not run.samples.notes.copies


def test_samples_are_weighed_rebalanced_and_thinned_by_query(run: Running) -> None:
    run.pause()
    rare = run.ask("split == 'train' and label == 1")
    rows = sorted(ids(run.page(view_id=rare.view_id)))
    done = run.edit(stat_name="sampling_weight", view_id=rare.view_id, string_value="2.5")
    message = f"Draws {len(rows)} samples ({len(rows)} of train) 2.5 times in an epoch"
    assert (done.number_changed, done.message) == (len(rows), message)
    assert ids(run.page(view_id=run.ask("weight > 1").view_id)) == rows
    balanced = run.edit(stat_name="__rebalance__", string_value="undersample")
    totals = np.bincount(run.samples.truth(), weights=run.samples.notes.weights())
    assert balanced.number_changed and len(totals) > 1 and np.allclose(totals, totals[0], rtol=1e-5)
    run.undo()
    assert np.array_equal(np.flatnonzero(run.samples.notes.weights() == 2.5), rows)
    run.edit(stat_name="__keep_share__", view_id=rare.view_id, string_value="0.25")
    assert (~run.samples.discarded[rows]).sum() == -(-len(rows) // 4)
    run.undo()
    run.edit(stat_name="__allowed_to_denied__", view_id=rare.view_id, string_value="0.1")
    assert (~run.samples.discarded[rows]).sum() == (COUNT - len(rows)) // 10
    empty = run.ask("id < 0")
    with pytest.raises(grpc.RpcError, match="the view has no samples"):
        run.edit(stat_name="__rebalance__", view_id=empty.view_id)
    with pytest.raises(grpc.RpcError, match="sampling_weight takes a number in string_value"):
        run.edit(stat_name="sampling_weight", view_id=rare.view_id, string_value="often")


def test_the_trainer_meets_no_discarded_sample_once_it_was_told(run: Running) -> None:
    view = run.ask("split == 'train' and id < 100").view_id
    assert run.edit(stat_name="discarded", bool_value=True, view_id=view).success
    met = run.samples.encounters[:100].copy()
    step = run.training.trainer.latest().step
    deadline = time.monotonic() + PATIENCE
    while run.training.trainer.latest().step < step + 60:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert run.samples.encounters[:100].tolist() == met.tolist()


def test_queries_are_journalled_with_their_actor(run: Running) -> None:
    run.ask("loss > 1e9", actor="ada")
    deadline = time.monotonic() + PATIENCE
    while not any(entry.kind == "query_execute" for entry in run.training.stores.journal.entries()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    entry = next(e for e in run.training.stores.journal.entries() if e.kind == "query_execute")
    assert (
        entry.actor == "ada" and entry.arguments["query"] == "loss > 1000000000.0" and entry.arguments["matches"] == 0
    )


def test_the_losses_of_a_sample_can_be_drawn(run: Running) -> None:
    run.pause()
    record = run.page(records_cnt=1, with_history=True).data_records[0]
    numbers, losses = run.samples.losses_of(0)
    assert list(record.loss_history.encounters) == numbers.tolist()
    assert list(record.loss_history.losses) == pytest.approx(losses.tolist())
    assert record.loss_history.losses[-1] == pytest.approx(record.loss)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("los > 1", "loss"),
        ("loss > 'abc'", "character"),
        ("loss >", "character"),
        ("tag:none", "none"),
        ("loss.__class__ > 1", "character"),
        ("@pd.read_csv('x')", "character"),
        ("x" * 5_000, "at most 4000 characters"),
    ],
)
def test_a_query_that_is_none_is_refused_with_the_place(run: Running, query: str, said: str) -> None:
    code, details = run.client.status_of("ApplyDataQuery", pb.DataQueryRequest(query=query))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and said in details, details


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"stat_name": "colour"}, "INVALID_ARGUMENT", "known are 'discarded', 'tags'"),
        ({"stat_name": "tags", "type": "EDIT_ADD", "samples_ids": ["1"]}, "INVALID_ARGUMENT", "a tag needs a name"),
        ({"stat_name": "tags:x", "type": "OVERRIDE", "samples_ids": ["1"]}, "INVALID_ARGUMENT", "EDIT_ADD or EDIT_REM"),
        ({"stat_name": "tags:x", "type": "ADD"}, "INVALID_ARGUMENT", "no sample was named"),
        ({"stat_name": "tags:a/b", "type": "ADD", "samples_ids": ["1"]}, "INVALID_ARGUMENT", "cannot name a tag"),
        ({"stat_name": "label", "string_value": "cat", "samples_ids": ["1"]}, "INVALID_ARGUMENT", "no class 'cat'"),
        ({"stat_name": "label", "string_value": "3", "samples_ids": ["1"]}, "INVALID_ARGUMENT", "no class 3"),
        ({"stat_name": "discarded", "view_id": "view-0"}, "NOT_FOUND", "ask the query again"),
        ({"stat_name": "tags:x", "type": "ADD", "samples_ids": ["999"]}, "NOT_FOUND", "no sample '999'"),
        ({"stat_name": "__copy_metadata__", "string_value": "colour"}, "NOT_FOUND", "no column 'colour' to copy"),
        ({"stat_name": "__delete_metadata__", "string_value": "loss"}, "NOT_FOUND", "copied or logged"),
        ({"stat_name": "__copy_metadata__", "string_value": "loss=aum"}, "INVALID_ARGUMENT", "already"),
        ({"stat_name": "__copy_metadata__", "samples_ids": ["1"]}, "INVALID_ARGUMENT", "name no samples"),
    ],
)
def test_an_edit_that_cannot_be_is_refused(run: Running, fields: dict[str, object], code: str, said: str) -> None:
    found, details = run.client.status_of("EditDataSample", pb.DataEditRequest(**fields))  # type: ignore[arg-type]
    assert (found, said in details) == (grpc.StatusCode[code], True), details


def test_eight_clients_edit_at_once_and_the_end_is_that_of_a_serial_order(run: Running) -> None:
    def work(number: int) -> None:
        random = np.random.default_rng(number)
        with WireClient(run.server.address, run.server.tokens.control[0]) as client:
            for _ in range(12):
                some = [str(row) for row in random.choice(COUNT, 20, replace=False)]
                kind = random.integers(0, 4)
                if kind == 0:
                    request = pb.DataEditRequest(stat_name="discarded", bool_value=bool(random.random() < 0.4))
                elif kind == 1:
                    request = pb.DataEditRequest(
                        stat_name="tags:a", type=str(random.choice(["EDIT_ADD", "EDIT_REMOVE"]))
                    )
                elif kind == 2:
                    request = pb.DataEditRequest(
                        stat_name="label", string_value=str(random.choice(["0", "1", "2", ""]))
                    )
                else:
                    request = pb.DataEditRequest(stat_name="tags:b", type="EDIT_ADD")
                request.samples_ids.extend(some)
                assert client.call("EditDataSample", request).success

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    discarded, labels = np.zeros(COUNT, bool), np.full(COUNT, -1)
    tags = {"a": np.zeros(COUNT, bool), "b": np.zeros(COUNT, bool)}
    entries = [entry for entry in run.training.stores.journal.entries() if entry.kind != "pause"]
    assert len(entries) == 96
    for entry in entries:  # one after the other, as the journal has them
        rows = entry.arguments["rows"]["train"]
        if entry.kind.startswith("sample"):
            discarded[rows] = entry.kind == "sample_discard"
        elif entry.kind.startswith("tag"):
            tags[entry.arguments["tag"]][rows] = entry.kind == "tag_add"
        else:
            labels[rows] = entry.arguments["label"]
    assert run.samples.discarded.tolist() == discarded.tolist()
    for name, expected in tags.items():
        assert run.samples.notes.tags.get(name, np.zeros(COUNT, bool)).tolist() == expected.tolist()
    assert run.samples.notes.corrections(np.arange(COUNT)).tolist() == labels.tolist()


def test_the_same_language_selects_neurons(run: Running) -> None:
    selection = pb.NeuronSelection(all_layers=True, query="layer_type == 'Conv2d' and neuron >= 2")
    answer = run.client.call("ManipulateWeights", pb.ManipulateWeightsRequest(operation=pb.FREEZE, selection=selection))
    assert answer.success, answer.message
    layers = dict(run.training.trainer.session.network.named_layers())
    assert layers["conv"].frozen.tolist() == [False, False, True, True] and not layers["out"].frozen.any()
    selection.query = "layer_typ == 'Conv2d'"
    request = pb.ManipulateWeightsRequest(operation=pb.FREEZE, selection=selection)
    code, details = run.client.status_of("ManipulateWeights", request)
    assert code is grpc.StatusCode.INVALID_ARGUMENT and "layer_type" in details
