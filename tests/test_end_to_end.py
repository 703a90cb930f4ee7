"""What the product promises, as a newcomer does it: both processes, a real browser, the digits.

Every effect is checked on the backend by a second gRPC client, not only on the page.
"""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from graybox.proto import experiment_service_pb2 as pb
from graybox.proto import experiment_service_pb2_grpc as rpc
from tests.patience import PATIENCE, wait_until

REPOSITORY = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.browser


class Process:
    """One of the two programs, as a user starts it."""

    def __init__(self, log: Path, *command: str) -> None:
        self._log = open(log, "ab")  # noqa: SIM115  # closed in stop
        self.log = log
        self._process = subprocess.Popen(
            [sys.executable, *command], cwd=REPOSITORY, stdout=self._log, stderr=subprocess.STDOUT
        )

    def stop(self) -> int:
        """Ctrl-C; the exit code."""
        self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._log.close()

    def running(self) -> bool:
        return self._process.poll() is None


class Client:
    """A second client beside the dashboard."""

    def __init__(self, root: Path) -> None:
        announced = json.loads((root / "backend.json").read_text())
        self.stub = rpc.ExperimentServiceStub(grpc.insecure_channel(announced["address"]))
        self.token = [("authorization", f"Bearer {announced['watch_token']}")]

    def command(self, **request: object) -> pb.CommandResponse:
        return self.stub.ExperimentCommand(
            pb.ExperimentCommandRequest(**request), metadata=self.token, timeout=PATIENCE
        )

    def status(self) -> pb.TrainerStatus:
        return self.command(get_status=True).status

    def hyper_parameter(self, name: str) -> float:
        described = self.command(get_hyper_parameters=True).hyper_parameters_descs
        return next(d.numerical_value for d in described if d.name == name)

    def neuron(self, layer: str, number: int) -> pb.NeuronStatistics:
        return self.command(get_single_layer_info_id=layer).layer_representations[0].neurons[number]

    def weights(self, layer: str) -> np.ndarray:
        answer = self.stub.GetWeights(pb.GetWeightsRequest(layer_id=layer), metadata=self.token, timeout=PATIENCE)
        return np.load(io.BytesIO(answer.weights_data), allow_pickle=False)

    def sample(self, split: str, sample_id: str) -> pb.DataRecord:
        asked = pb.GetDataSamplesRequest(records_cnt=1_000, filter=pb.SampleFilter(origin=split, id_contains=sample_id))
        records = self.stub.GetDataSamples(asked, metadata=self.token, timeout=PATIENCE).data_records
        return next(record for record in records if record.sample_id == sample_id)


def start_backend(root: Path, port: int, log: Path) -> tuple[Process, Client]:
    process = Process(log, "graybox_backend.py", "--root_directory", str(root), "--port", str(port))
    announced = root / "backend.json"
    wait_until(announced.exists, f"the backend to announce itself\n{log.read_text()}")
    client = Client(root)
    return process, client


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE * 1000)
    page = context.new_page()
    page.errors = []  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.errors.append(str(error)))  # type: ignore[attr-defined]
    yield page
    context.close()


def toast(page: Page, text: str) -> None:
    """A toast says it."""
    expect(
        page.locator("#toasts .mantine-Notification-root, .mantine-Notification-root").filter(has_text=text).first
    ).to_be_visible()


def drawn(page: Page, metric: str) -> tuple[int, float]:
    """How many points of real curves the plot of a metric holds, and the greatest age among them.

    A long curve grows no more points, for it is thinned.
    """
    points, age = page.evaluate(
        """metric => {
            const plot = document.querySelector(`#graph-${metric} .js-plotly-plot`);
            if (!plot || !plot.data) return [0, 0];
            const ages = plot.data.filter(t => t.mode === 'lines').flatMap(t => Array.from(t.x || []));
            return [ages.length, ages.reduce((high, age) => Math.max(high, age), 0)];
        }""",
        metric,
    )
    return int(points), float(age)


def select_none(page: Page) -> None:
    """What is clicked next must find it done."""
    page.click("#select-none")
    expect(page.locator("#selection-text")).to_have_text("None selected")


def test_the_main_job(page: Page, tmp_path: Path, free_port: Callable[[], int]) -> None:
    root, url = tmp_path / "root", f"http://127.0.0.1:{(port := free_port())}/"
    root.mkdir()
    dashboard = Process(tmp_path / "dash.log", "weights_lab.py", "--root_directory", str(root), "--port", str(port))
    backend = None
    try:
        wait_until(lambda: f"Dash is running on {url}" in dashboard.log.read_text(), "the dashboard's address")
        waits_for_a_backend(page, url)
        backend, client = start_backend(root, free_port(), tmp_path / "backend.log")
        watches(page, client)
        pauses(page, client)
        frozen = freezes_a_neuron(page, client)
        reinitialises_another(page, client)
        removes_neurons_and_takes_it_back(page, client)
        changes_the_learning_rate(page, client)
        discarded = throws_out_a_sample(page, client)
        saved_step = saves_a_checkpoint(page, client)
        page.reload()
        resumes(page, client, frozen, discarded)

        assert backend.stop() == 0
        sees_the_run_that_has_ended(page, client)
        backend, client = start_backend(root, free_port(), tmp_path / "backend-again.log")
        finds_everything_again(page, client, frozen, discarded)
        goes_back(page, client, saved_step, frozen)
        assert page.errors == []  # type: ignore[attr-defined]
        assert backend.running() and dashboard.running()
    except BaseException:
        page.screenshot(path=tmp_path / "failed.png")
        print(f"what the page showed: {tmp_path / 'failed.png'}; its errors: {page.errors}")  # type: ignore[attr-defined]
        print((tmp_path / "dash.log").read_text()[-5_000:])
        raise
    finally:
        codes = [process.stop() for process in (backend, dashboard) if process is not None and process.running()]
    assert codes == [0, 0]


def waits_for_a_backend(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.locator("#waiting-banner")).to_contain_text("graybox_backend.py")


def watches(page: Page, client: Client) -> None:
    expect(page.locator("#state-badge")).to_contain_text("running")
    wait_until(lambda: drawn(page, "loss")[0] > 10, "a curve of the loss")
    _, before = drawn(page, "loss")
    wait_until(lambda: drawn(page, "loss")[1] > before, "the curve to grow")
    assert client.status().state == pb.RUNNING
    assert client.status().step > 0


def pauses(page: Page, client: Client) -> None:
    page.click("#play-pause")
    expect(page.locator("#state-badge")).to_contain_text("paused")
    toast(page, "Paused")
    step = client.status().step
    time.sleep(0.5)
    assert (client.status().state, client.status().step) == (pb.PAUSED, step)


def freezes_a_neuron(page: Page, client: Client) -> np.ndarray:
    page.click("#tab-model")
    page.click("#layer-0")
    page.click("#neuron-tile-3")
    page.click("#freeze")
    toast(page, "Froze neuron 3 of layer1")
    assert client.neuron("0", 3).frozen and not client.neuron("0", 4).frozen
    expect(page.locator("#neuron-tile-3")).to_have_attribute("data-health", "frozen")
    return client.weights("layer1")[3].copy()


def reinitialises_another(page: Page, client: Client) -> None:
    before = client.weights("layer1")
    select_none(page)
    page.click("#neuron-tile-5")
    page.click("#reinitialise")
    toast(page, "Reinitialised neuron 5 of layer1")
    after = client.weights("layer1")
    changed = [n for n in range(len(after)) if not np.array_equal(after[n], before[n])]
    assert changed == [5]
    assert client.neuron("0", 5).train_age == 0


def removes_neurons_and_takes_it_back(page: Page, client: Client) -> None:
    weights, following = client.weights("layer1"), client.weights("layer2")
    select_none(page)
    page.click("#neuron-tile-1")
    page.click("#neuron-tile-2")
    expect(page.locator("#selection-text")).to_have_text("2 selected")
    page.click("#remove-neurons")
    expect(page.locator("#edit-exact")).to_contain_text("Exact")
    expect(page.locator("#edit-touches")).to_contain_text("layer2.weight")
    page.click("#edit-measure")
    expect(page.locator("#edit-measured")).to_contain_text("Logits move by up to")
    assert np.array_equal(client.weights("layer1"), weights), "so far it was only looked at"
    page.click("#edit-apply")
    toast(page, "Removed neurons 1-2 of layer1")
    left = [n for n in range(16) if n not in (1, 2)]
    assert np.array_equal(client.weights("layer1"), weights[left])
    assert np.array_equal(client.weights("layer2"), following[:, left])
    expect(page.locator("#layer-title")).to_have_text("layer1 · 14 neurons")
    page.click("#tab-history")
    page.locator("#history-list .gb-undo").click()
    toast(page, "Undid: Removed neurons 1-2 of layer1")
    assert np.array_equal(client.weights("layer1"), weights)
    assert np.array_equal(client.weights("layer2"), following)
    told = [(entry.undo_state, entry.undoes) for entry in client.command(get_journal=True).journal_entries]
    assert told[-3:] == [(pb.UNDO_NEXT, 0), (pb.REDO_NEXT, 0), (pb.UNDO_STATE_UNSPECIFIED, len(told) - 1)]


def changes_the_learning_rate(page: Page, client: Client) -> None:
    field = page.locator("#hp-learning_rate")
    field.click()
    field.fill("0.005")
    time.sleep(1.0)
    assert client.hyper_parameter("learning_rate") == 0.001, "sent before Enter"
    field.press("Enter")
    toast(page, "0.005")
    assert client.hyper_parameter("learning_rate") == 0.005
    field.fill("-1")
    field.press("Enter")
    toast(page, "learning_rate is a number above 0")
    assert client.hyper_parameter("learning_rate") == 0.005
    expect(field).to_have_value("0.005")


def throws_out_a_sample(page: Page, client: Client) -> str:
    page.click("#tab-data")
    # Which row is the first in the document may change while they come in.
    identity = str(page.locator("#samples-grid [row-id^='train/']").first.get_attribute("row-id")).split("/")[1]
    page.locator(f"#samples-grid [row-id='train/{identity}'] [col-id='sample_id']").first.click()
    expect(page.locator("#sample-detail")).to_contain_text(f"train / {identity}")
    image = page.locator("#samples-grid img").first
    wait_until(lambda: image.evaluate("i => i.complete && i.naturalWidth > 0"), "a thumbnail")
    page.click("#discard")
    toast(page, "Discarded 1 sample")
    assert client.sample("train", identity).discarded
    return identity


def saves_a_checkpoint(page: Page, client: Client) -> int:
    page.click("#tab-checkpoints")
    page.fill("#checkpoint-name", "before the storm")
    page.click("#checkpoint-save")
    toast(page, "Saved checkpoint")
    kept = client.command(get_checkpoints=True).checkpoints
    saved = next(c for c in kept if c.name == "before the storm")
    assert saved.step == client.status().step
    return int(saved.step)


def resumes(page: Page, client: Client, frozen: np.ndarray, discarded: str) -> None:
    expect(page.locator("#state-badge")).to_contain_text("paused")
    encounters, step = client.sample("train", discarded).encounters, client.status().step
    page.click("#play-pause")
    expect(page.locator("#state-badge")).to_contain_text("running")
    # Two epochs: every sample in use is seen, the one thrown out is not.
    wait_until(lambda: client.status().step > step + 45, "two epochs")
    weights = client.weights("layer1")
    assert np.array_equal(weights[3], frozen)
    assert not np.array_equal(weights[4], frozen)
    assert client.sample("train", discarded).encounters == encounters


def sees_the_run_that_has_ended(page: Page, client: Client) -> None:
    page.click("#tab-metrics")
    expect(page.locator("#waiting-banner")).to_be_visible()
    page.reload()
    wait_until(lambda: drawn(page, "loss")[0] > 10, "the curves of the run that has ended")


def finds_everything_again(page: Page, client: Client, frozen: np.ndarray, discarded: str) -> None:
    wait_until(lambda: client.status().state == pb.RUNNING, "the backend to go on")
    expect(page.locator("#state-badge")).to_contain_text("running")
    expect(page.locator("#waiting-banner")).not_to_be_visible()
    assert client.hyper_parameter("learning_rate") == 0.005
    assert client.neuron("0", 3).frozen
    assert client.sample("train", discarded).discarded
    assert np.array_equal(client.weights("layer1")[3], frozen)
    kinds = [entry.kind for entry in client.command(get_journal=True).journal_entries]
    assert kinds == [
        "pause", "neuron_edit", "neuron_edit", "neuron_edit", "undo", "hp_change", "sample_discard", "resume",
    ]  # fmt: skip


def goes_back(page: Page, client: Client, saved_step: int, frozen: np.ndarray) -> None:
    page.click("#tab-checkpoints")
    saved = next(c for c in client.command(get_checkpoints=True).checkpoints if c.name == "before the storm")
    page.locator(f"#checkpoint-{saved.id} .checkpoint-restore").click()
    page.click("#confirm-restore")
    toast(page, "Went back to checkpoint")
    now = client.status()
    assert (now.state, now.step, now.branch) == (pb.PAUSED, saved_step, 1)
    expect(page.locator("#state-badge")).to_contain_text("paused")
    page.click("#play-pause")
    wait_until(lambda: client.status().step > saved_step + 3, "training to go on from there")
    assert np.array_equal(client.weights("layer1")[3], frozen)
    page.click("#tab-metrics")
    branches = page.locator("[id^='run-toggle-']")
    wait_until(lambda: branches.count() == 2, "a curve of its own for the new branch")
    assert re.search(r"-1$", str(branches.nth(1).get_attribute("id"))) or re.search(
        r"-1$", str(branches.nth(0).get_attribute("id"))
    )
