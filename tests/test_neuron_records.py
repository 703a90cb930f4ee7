from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from graybox.errors import Invalid
from graybox.exciting_samples import WAITING_SAMPLES
from graybox.neuron_records import NeuronRecords, observe_together
from graybox.observation import InputColumns, Layout
from graybox.tracking import Ledger, RecordSettings, StatisticsLevel, Tally, TrackingMode
from tests.no_waiting import NoWaiting
from tests.small_networks import one_thread  # noqa: F401


@contextmanager
def training(ledger: Ledger, step: int | None = None) -> Iterator[None]:
    ledger.mode = TrackingMode.TRAIN
    ledger.hold(step)
    yield
    ledger.mode = TrackingMode.DISABLED
    ledger.commit()


def batches(count: int, batch: int = 12, n: int = 4) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        values = torch.randn(batch, n, 3, 3, generator=generator)
        yield values, torch.arange(batch) + seed * batch, torch.randint(0, 5, (batch,), generator=generator)


def test_the_guard_finds_what_waits() -> None:
    x = torch.ones(3)
    for wait in (
        lambda: x.sum().item(),
        lambda: bool(x.any()),
        lambda: x[x > 0],
        lambda: x.nonzero(),
        lambda: int(x[0]),
    ):
        with pytest.raises(AssertionError, match="waits"), NoWaiting():
            wait()


@pytest.mark.parametrize("level", StatisticsLevel)
def test_a_step_never_waits_for_the_device(level: StatisticsLevel) -> None:
    ledger, records, output = Ledger(), NeuronRecords(4), NeuronRecords(5)
    ledger.settings = RecordSettings(level, classes=5)
    columns = Layout(columns=InputColumns([[0], [2], [1], [3]]))
    with NoWaiting():
        for values, ids, labels in batches(2 * WAITING_SAMPLES // 12):
            with training(ledger):
                ledger.samples_are(ids, labels)
                records.observe(ledger, values)
                records.observe(ledger, values, columns)
                output.observe_prediction(ledger, labels)
                output.observe(ledger, torch.randn(12, 5), triggers=False)
    assert records.train.samples == 2 * output.train.samples > 0


@pytest.mark.parametrize("level", StatisticsLevel)
def test_a_step_needs_no_value_of_any_tensor(level: StatisticsLevel) -> None:
    # A meta tensor has no values: whatever asks for one raises.
    ledger, records = Ledger(), NeuronRecords(4)
    ledger.settings = RecordSettings(level, classes=5)
    tally = Tally()
    for values, ids, labels in batches(WAITING_SAMPLES // 12 + 2):
        with training(ledger):
            ledger.samples_are(ids, labels)
            records.observe(ledger, values.to("meta"))
            records.observe_prediction(ledger, labels.to("meta"))
        ledger.mode = TrackingMode.EVAL
        ledger.hold()
        ledger.samples_are(ids, labels)
        records.observe(ledger, values.to("meta"))
        tally.add(ledger.take_all())
    tally.commit()
    assert records.train.triggers.device.type == records.eval.triggers.device.type == "meta"
    assert records.train.samples == 2 * records.eval.samples > 0


def test_a_failed_step_leaves_no_count() -> None:
    ledger, records, other = Ledger(), NeuronRecords(4), NeuronRecords(4)
    ledger.settings = RecordSettings(classes=5)
    for number, (values, ids, labels) in enumerate(batches(6)):
        ledger.mode = TrackingMode.TRAIN
        ledger.hold()
        ledger.samples_are(ids, labels)
        records.observe(ledger, values)
        assert records.train == other.train
        if number % 2:
            ledger.drop()
            continue
        ledger.commit()
        ledger.samples_are(ids, labels)
        other.observe(ledger, values)  # at once
        assert records == other and records.train.samples == 12 * (number // 2 + 1)
    assert records.eval.samples == 0 and records != NeuronRecords(4) and records != "records"


def test_every_tenth_step_is_measured_and_all_of_them_age() -> None:
    ledger, records, measured = Ledger(), NeuronRecords(4), NeuronRecords(4)
    ledger.settings = RecordSettings(every=10, classes=5)
    for number, (values, ids, labels) in enumerate(batches(25)):
        with training(ledger, number):
            ledger.samples_are(ids, labels)
            records.observe(ledger, values)
        if number % 10 == 0:
            measured.train.observe(_seen(values, ids, labels))
    assert records.train.ages().tolist() == [300] * 4 and records.train.counted().tolist() == [36] * 4
    torch.testing.assert_close(records.train.rates(), measured.train.rates(), rtol=0, atol=0)
    assert records.train.exciting.same_as(measured.train.exciting)
    assert records.train.classes.same_as(measured.train.classes)
    for values, ids, labels in batches(3):  # an evaluation is measured whole
        ledger.mode = TrackingMode.EVAL
        ledger.samples_are(ids, labels)
        records.observe(ledger, values)
    assert records.eval.counted().tolist() == [36] * 4


def test_without_a_number_steps_are_counted_and_a_failed_one_is_made_again() -> None:
    ledger, records = Ledger(), NeuronRecords(4)
    ledger.settings = RecordSettings(StatisticsLevel.TRIGGERS, every=3)
    counted = []
    for values, _, _ in batches(8):
        with training(ledger):
            records.observe(ledger, values)
        counted.append(int(records.train.counted()[0]))
    assert counted == [12, 12, 12, 24, 24, 24, 36, 36]
    ledger.mode = TrackingMode.TRAIN
    for _ in range(4):
        ledger.hold()
        ledger.drop()
    assert not ledger.due


def _seen(values: torch.Tensor, ids: torch.Tensor, labels: torch.Tensor) -> Any:
    from graybox.observation import SampleBatch, observe

    return observe(values, 4, Layout(), everything=True, batch=SampleBatch.of(ids, labels, 5))


def test_one_tensor_of_several_layers_counts_for_each() -> None:
    ledger, one, two, alone = Ledger(), NeuronRecords(4), NeuronRecords(4), NeuronRecords(4)
    ledger.settings = RecordSettings(classes=5)
    for values, ids, labels in batches(9):
        with training(ledger):
            ledger.samples_are(ids, labels)
            observe_together([one, two], ledger, values)
            alone.observe(ledger, values)
    assert one == two == alone and one.train.samples == 108
    observe_together([one], ledger, values)  # nobody records now
    assert one == two


def test_an_evaluation_counts_whole_and_leaves_nothing_before() -> None:
    ledger, records, at_once = Ledger(), NeuronRecords(4), NeuronRecords(4)
    ledger.settings = RecordSettings(classes=5)
    tally = Tally()
    for values, ids, labels in batches(5):
        ledger.mode = TrackingMode.EVAL
        ledger.hold()
        ledger.samples_are(ids, labels)
        records.observe(ledger, values)
        tally.add(ledger.take_all())
        assert records.eval.samples == 0
        at_once.eval.observe(_seen(values, ids, labels))
    tally.commit()
    tally.commit()
    assert records.eval.samples == 60 and records.train.samples == 0
    torch.testing.assert_close(records.eval.rates(), at_once.eval.rates(), rtol=1e-12, atol=0)
    assert records.eval.exciting.same_as(at_once.eval.exciting)


def test_shares_alone_can_be_taken_and_added_later() -> None:
    ledger, records = Ledger(), NeuronRecords(4)
    values, ids, labels = next(batches(1))
    ledger.mode = TrackingMode.EVAL
    ledger.hold()
    ledger.samples_are(ids, labels)
    records.observe(ledger, values)
    records.observe(ledger, values, triggers=False)
    ((tracker, shares, samples),) = ledger.take()
    assert tracker is records.eval and samples == 12
    tracker.add(shares, samples)
    torch.testing.assert_close(records.eval.rates(), (values > 0).double().mean((0, 2, 3)), rtol=1e-12, atol=0)


def test_the_output_layer_triggers_by_prediction_and_answers_by_its_values() -> None:
    ledger, records = Ledger(), NeuronRecords(3)
    logits = torch.tensor([[1.0, 5.0, 2.0], [4.0, 3.0, 2.0], [0.0, 1.0, 9.0]])
    with training(ledger):
        ledger.samples_are(torch.tensor([10, 11, 12]))
        records.observe(ledger, logits, triggers=False)
        records.observe_prediction(ledger, logits.argmax(1))
    assert records.train.triggers.tolist() == [1, 1, 1] and records.train.samples == 3
    assert records.train.totals.means(recent=True).tolist() == pytest.approx(logits.double().mean(0).tolist())
    assert records.train.exciting.top()[0][:, 0].tolist() == [11, 10, 12]


def test_how_far_weights_moved_since_the_last_checkpoint() -> None:
    records = NeuronRecords(3)
    weight = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]])
    assert records.relative_change(weight).isnan().all()
    records.keep_weights(weight)
    weight[0] += torch.tensor([3.0, 4.0])
    weight[2, 1] -= 0.5
    assert records.relative_change(weight).tolist() == [1, 0, 0.25]
    taken = records.take([0])
    records.carry([1, -1, 2])
    grown = torch.stack((weight[1], torch.ones(2), weight[2]))
    assert records.relative_change(grown).nan_to_num(-1).tolist() == [0, -1, 0.25]
    records.carry([-1, 0, 2])
    records.put([0], taken)
    assert records.relative_change(weight).tolist() == [1, 0, 0.25]
    records.carry_incoming([1, -1, 0])  # an input went, one came, two changed places
    moved = torch.stack((weight[:, 1], torch.zeros(3), weight[:, 0]), 1)
    assert records.relative_change(moved).tolist() == [1, 0, 0.25]
    assert records.relative_change(weight).isnan().all()  # not the shape that was kept
    records.keep_weights(weight.to(torch.bfloat16))
    assert records.relative_change(weight).tolist() == [0, 0, 0]
    with pytest.raises(Invalid, match="2 neurons do not fit 3"):
        records.keep_weights(weight[:2])


def test_records_round_trip_and_follow_an_edit_and_its_undo() -> None:
    ledger, records = Ledger(), NeuronRecords(4)
    ledger.settings = RecordSettings(classes=5)
    for values, ids, labels in batches(15):
        with training(ledger):
            ledger.samples_are(ids, labels)
            records.observe(ledger, values)
    records.eval.update(torch.ones(3, 4))
    records.keep_weights(torch.randn(4, 7))
    same, before = NeuronRecords(4), NeuronRecords(4)
    same.load_state_dict(records.state_dict())
    before.load_state_dict(records.state_dict())
    assert same == records
    arrays = records.take(np.array([3, 1]))
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
    records.reset([3, 1])
    assert records.train.ages().tolist() == [180, 0, 180, 0] and records.eval.ages().tolist() == [3, 0, 3, 0]
    records.put([3, 1], arrays)
    assert records == before
    records.carry(torch.tensor([0, 2]))
    assert records.neurons == 2 and records != before
    records.carry([0, -1, 1, -1])
    assert records.train.ages().tolist() == [180, 0, 180, 0]
    records.put(torch.tensor([3, 1]), arrays)
    assert records == before
    records.reset()
    assert records.train.ages().tolist() == [0] * 4


@pytest.mark.parametrize(("field", "value"), [("every", 0), ("every", -1), ("classes", -1)])
def test_settings_that_make_no_sense_are_invalid(field: str, value: int) -> None:
    with pytest.raises(Invalid, match="or more"):
        RecordSettings(**{field: value})


def test_recording_under_autocast_and_in_inference_mode_is_as_exact_as_without() -> None:
    ledger, plain, records = Ledger(), NeuronRecords(4), NeuronRecords(4)
    ledger.settings = RecordSettings(classes=5)
    for values, ids, labels in batches(2 * WAITING_SAMPLES // 12):
        with training(ledger):
            ledger.samples_are(ids, labels)
            plain.observe(ledger, values)
        with training(ledger), torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
            ledger.samples_are(ids, labels)
            records.observe(ledger, values * 1)
    assert records == plain
    records.reset([1])  # in place, outside of inference mode
    records.observe(ledger, values)
