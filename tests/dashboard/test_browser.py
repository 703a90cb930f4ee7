"""Every page in a real browser, over a backend that only pretends to train."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, Route, expect
from playwright.sync_api import TimeoutError as TimedOut

from graybox.proto import experiment_service_pb2 as pb
from tests.dashboard.fake_backend import FakeBackend, FakeRun, FakeService
from tests.dashboard.programs import dashboard
from tests.patience import PATIENCE, wait_until

pytestmark = pytest.mark.browser
RUN = "20261120-131502-digits-1f3a"
CURVES = """() => {
    const plot = document.querySelector('#graph-loss .js-plotly-plot');
    if (!plot || !plot.data) return [];
    return plot.data.filter(trace => trace.name).map(trace => [trace.line.color, trace.line.dash, trace.x.length]);
}"""
STEP = "() => Number(document.querySelector('#progress-text').textContent.match(/[0-9,]+/)[0].replace(/,/g, ''))"


class Stage:
    """A dashboard over a backend, and what the browser complained about."""

    def __init__(self, page: Page, url: str, backend: FakeBackend) -> None:
        self.page, self.url, self.backend = page, url, backend
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on(
            "request", lambda r: None if r.url.startswith((url, "data:", "blob:")) else self.complaints.append(r.url)
        )

    def _watch(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.complaints.append(f"loaded from elsewhere: {request.url}")

    @property
    def run(self) -> FakeRun:
        live = self.backend.service.live
        assert live is not None
        return live

    def open(self, name: str) -> None:
        self.page.goto(f"{self.url}/{name}")
        expect(self.page.locator("#state-badge")).to_have_attribute("data-state", "running")

    def toast(self, text: str) -> None:
        expect(self.page.locator(".mantine-Notification-root", has_text=text)).to_be_visible()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    root = tmp_path_factory.mktemp("browser") / "root"
    root.mkdir()
    with dashboard(root, 0) as (_, log):
        url = log.read_text().split("Dash is running on ")[1].split()[0].rstrip("/")
        yield url, root


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """One for all tests, so that what every page loads is fetched once."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(1000 * PATIENCE)
    yield context
    context.close()


@pytest.fixture
def stage(context: BrowserContext, served: tuple[str, Path]) -> Iterator[Stage]:
    url, root = served
    old = FakeRun("20261119-090000-digits-bbbb", "older", live=False, steps=400, seed=2)
    live = FakeRun(RUN, "digits", live=True, steps=1200, seed=3, samples=240)
    backend = FakeBackend(root, FakeService([old, live], pace=2))
    # Until it has asked this backend, the dashboard shows what it knows of the one before: its first answer is taken
    # in before it asks for the second.
    wait_until(lambda: backend.service.calls.get("get_status", 0) > 1, "the dashboard to find the backend")
    stage = Stage(context.new_page(), url, backend)
    yield stage
    stage.page.evaluate("localStorage.clear()")
    stage.page.close()
    stage.backend.stop()
    assert stage.complaints == []


def test_pages_fit_the_window_and_complain_about_nothing(stage: Stage) -> None:
    page = stage.page
    shown = {
        "metrics": "#graph-accuracy .scatterlayer .trace",
        "data": "#samples-grid .ag-row .gb-thumbnail",
        "model": "#neuron-tile-3",
        "checkpoints": "#checkpoint-c0001",
        "history": "#history-list .gb-empty",
    }
    stage.open("metrics")
    background = "getComputedStyle(document.body).backgroundColor"
    colours = set()
    for scheme, width in (("light", 1440), ("light", 420), ("dark", 420), ("dark", 1440)):
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        page.set_viewport_size({"width": width, "height": 900})
        expect(page.locator("html")).to_have_attribute("data-mantine-color-scheme", scheme)
        for name, selector in shown.items():
            page.click(f"#tab-{name}")
            expect(page.locator(selector).first).to_be_visible()
            page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width)
        colours.add((scheme, page.evaluate(background)))
    assert len(colours) == 2


def test_answers_that_take_longer_than_the_clock_are_shown(stage: Stage) -> None:
    """A page that asked again meanwhile would pass over each of them."""
    page = stage.page
    late = "new Promise(go => setTimeout(go, 1300)).then(() => plain(...given))"
    page.add_init_script(f"const plain = fetch; window.fetch = (...given) => {late}")
    stage.open("history")
    expect(page.locator("#history-list .gb-empty")).to_contain_text("Nothing was done")
    step = page.evaluate(STEP)
    page.wait_for_function(f"step => ({STEP})() > step", arg=step)


def test_light_and_dark_are_remembered(stage: Stage) -> None:
    page = stage.page
    page.emulate_media(color_scheme="light")
    stage.open("metrics")
    html = page.locator("html")
    expect(html).to_have_attribute("data-mantine-color-scheme", "light")
    page.click("#theme-toggle")
    expect(html).to_have_attribute("data-mantine-color-scheme", "dark")
    page.reload()
    expect(html).to_have_attribute("data-mantine-color-scheme", "dark")
    page.click("#theme-toggle")
    expect(html).to_have_attribute("data-mantine-color-scheme", "light")


def test_curves_are_drawn_one_colour_per_run_and_hidden_with_a_tick(stage: Stage) -> None:
    page = stage.page
    stage.open("metrics")
    expect(page.locator(f"#run-toggle-{RUN}-0")).to_be_checked()
    drawn = CURVES
    page.wait_for_function(f"({drawn})().length === 4")
    lines = page.evaluate(drawn)
    assert len({colour for colour, _, _ in lines}) == 2
    assert sorted(dash for _, dash, _ in lines) == ["dash", "dash", "solid", "solid"]
    page.uncheck("#run-toggle-20261119-090000-digits-bbbb-0")
    page.wait_for_function(f"({drawn})().length === 2")
    before = page.evaluate(drawn)[0][2]
    page.wait_for_function(f"({drawn})()[0][2] > {before}")


def test_a_zoom_stays_while_points_come_in(stage: Stage) -> None:
    page = stage.page
    stage.open("metrics")
    page.wait_for_function(f"({CURVES})().length === 4")
    area = page.locator("#graph-loss .nsewdrag").first
    expect(area).to_be_visible()
    box = area.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 60, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 260, box["y"] + 200, steps=5)
    page.mouse.up()
    page.wait_for_function("!document.querySelector('#graph-loss .js-plotly-plot')._fullLayout.xaxis.autorange")
    measure = "() => document.querySelector('#graph-loss .js-plotly-plot')._fullLayout.xaxis.range"
    zoomed = page.evaluate(measure)
    step = stage.run.step
    page.wait_for_function(f"step => ({STEP})() > step + 20", arg=step)
    assert page.evaluate(measure) == zoomed
    left, top = box["x"], box["y"]

    def double_clicked() -> bool:
        """Two clicks are a double click only where the page gets round to both within 0.3 s."""
        page.mouse.dblclick(left + 100, top + 100)
        try:
            page.wait_for_function(f"high => ({measure})()[1] > high * 1.5", arg=zoomed[1], timeout=5_000)
        except TimedOut:
            return False
        return True

    wait_until(double_clicked, "the whole curve")


def test_pause_and_hyper_parameters_answer_with_a_toast_and_the_real_value(stage: Stage) -> None:
    page = stage.page
    stage.open("metrics")
    page.click("#play-pause")
    stage.toast("Paused")
    expect(page.locator("#state-badge")).to_have_attribute("data-state", "paused")
    assert stage.run.state == pb.PAUSED
    field = page.locator("#hp-learning_rate")
    expect(field).to_have_value("0.01")
    field.press("End")
    field.press_sequentially("5", delay=80)
    page.wait_for_timeout(900)
    assert stage.run.values["learning_rate"] == 0.01
    field.press("Enter")
    stage.toast("Set learning rate to 0.015")
    field.fill("99")
    field.press("Enter")
    stage.toast("at most 10")
    expect(field).to_have_value(f"{stage.run.values['learning_rate']:g}")
    field.fill("0.02")
    field.blur()
    stage.toast("Set learning rate to 0.02")
    assert stage.run.values["learning_rate"] == 0.02
    stage.run.values["learning_rate"] = 0.5
    expect(field).to_have_value("0.5")
    steps = page.locator("#hp-training_steps_to_do")
    steps.focus()
    steps.blur()
    page.wait_for_timeout(700)
    assert [entry.kind for entry in stage.run.journal].count("hp_change") == 2


def test_a_field_shows_the_real_value_though_the_cursor_stays_in_it(stage: Stage) -> None:
    """A status that was under way before the answer shows the old value; what comes after it must show too."""
    page = stage.page

    def changes() -> int:
        return [entry.kind for entry in stage.run.journal].count("hp_change")

    stage.open("metrics")
    field = page.locator("#hp-learning_rate")
    expect(field).to_have_value("0.01")
    field.fill("0.02")
    field.press("Enter")
    stage.toast("Set learning rate to 0.02")
    expect(field).to_be_focused()
    stage.run.values["learning_rate"] = 0.5
    expect(field).to_have_value("0.5")
    field.fill("0.02")
    page.wait_for_timeout(900)
    expect(field).to_have_value("0.02")
    field.press("Enter")
    wait_until(lambda: changes() == 2, "the second change to arrive")
    field.fill("0.5")  # while its answer, and the status of before, may still be under way
    field.press("Enter")
    wait_until(lambda: changes() == 3, "the last change to arrive")
    expect(field).to_have_value("0.5")
    page.wait_for_timeout(900)
    assert changes() == 3
    assert stage.run.values["learning_rate"] == 0.5


def test_a_field_whose_answer_was_overtaken_shows_the_real_value_again(stage: Stage) -> None:
    page, service = stage.page, stage.backend.service
    stage.open("metrics")
    rate, size = page.locator("#hp-learning_rate"), page.locator("#hp-batch_size")
    expect(rate).to_have_value("0.01")
    service.holds["learning_rate"] = threading.Event()
    rate.fill("0.02")
    rate.press("Enter")
    wait_until(lambda: service.calls.get("change learning_rate"), "the first change to arrive")
    size.fill("32")
    size.press("Enter")
    stage.toast("Set batch size to 32")
    service.holds["learning_rate"].set()
    wait_until(lambda: stage.run.values["learning_rate"] == 0.02, "the first change to be made")
    stage.run.values["learning_rate"] = 0.5
    expect(rate).to_have_value("0.5")
    expect(size).to_have_value("32")


def test_neurons_clicked_in_quick_succession_are_all_selected(stage: Stage) -> None:
    page = stage.page
    stage.open("model")
    page.click("#layer-1")
    expect(page.locator("#layer-title")).to_contain_text("features.conv2")
    page.evaluate("[1, 3, 5].forEach(n => document.getElementById('neuron-tile-' + n).click())")
    expect(page.locator("#selection-text")).to_have_text("3 selected")


def test_a_click_on_the_table_right_after_one_on_a_tile_is_not_lost(stage: Stage) -> None:
    """The table marks what tiles chose a moment later, and is told of a moment later what was clicked in itself."""
    page = stage.page
    stage.open("model")
    page.click("#layer-1")
    expect(page.locator("#layer-title")).to_contain_text("features.conv2")
    box = 'document.querySelector("#neuron-grid [row-id=\'1/" + n + "\'] .ag-selection-checkbox input").click()'
    expect(page.locator("#neuron-grid [row-id='1/5'] .ag-selection-checkbox")).to_be_visible()
    chosen: set[int] = set()
    for tile in range(8, 20):
        page.evaluate(
            f"([tile, n]) => {{document.getElementById('neuron-tile-' + tile).click(); {box}}}", [tile, tile % 4]
        )
        chosen = (chosen | {tile}) ^ {tile % 4}
        expect(page.locator("#selection-text")).to_have_text(f"{len(chosen)} selected")
        page.evaluate(f"n => {{{box}; {box}}}", tile % 4)
    expected = [str(n) for n in sorted(chosen)]
    assert chosen == {0, 1, 2, 3, *range(8, 20)}
    expect(page.locator("#neuron-tiles [aria-pressed='true']")).to_have_text(expected)
    expect(page.locator("#neuron-grid .ag-row-selected [col-id='id']")).to_have_text(expected)


def test_neurons_are_chosen_and_edited(stage: Stage) -> None:
    page = stage.page
    stage.open("model")
    page.click("#layer-1")
    expect(page.locator("#layer-title")).to_contain_text("features.conv2")
    expect(page).to_have_url(f"{stage.url}/model?layer=1")
    expect(page.locator("#freeze")).to_be_disabled()
    page.click("#neuron-tile-4")
    page.click("#neuron-tile-7", modifiers=["Shift"])
    expect(page.locator("#selection-text")).to_have_text("4 selected")
    expect(page.locator("#neuron-grid .ag-row-selected [col-id='id']")).to_have_text(["4", "5", "6", "7"])
    page.locator("#neuron-grid [row-id='1/5'] .ag-selection-checkbox").click()
    expect(page.locator("#neuron-tile-5")).to_have_attribute("aria-pressed", "false")
    page.click("#freeze")
    stage.toast("Freeze of features.conv2: neurons 4, 6, 7")
    assert stage.run.frozen == {(1, 4), (1, 6), (1, 7)}
    expect(page.locator("#neuron-tile-6")).to_have_attribute("data-health", "frozen")
    page.reload()
    expect(page.locator("#neuron-tile-6")).to_have_attribute("data-health", "frozen")
    page.click("#neuron-tile-6")
    page.click("#unfreeze")
    stage.toast("Unfreeze")
    page.fill("#neuron-learning-rate", "slow")
    page.click("#set-learning-rate")
    stage.toast("not 'slow'")
    page.fill("#neuron-learning-rate", "0.5")
    page.click("#set-learning-rate")
    stage.toast("Change learning rate")
    assert stage.run.rates == {(1, 6): 0.5}


def test_neurons_are_removed_after_a_look_at_the_plan_and_come_back(stage: Stage) -> None:
    page = stage.page
    stage.open("model")
    page.click("#layer-1")
    expect(page.locator("#layer-title")).to_have_text("features.conv2 · 32 neurons")
    page.click("#neuron-tile-4")
    page.click("#remove-neurons")
    expect(page.locator("#edit-refused")).to_contain_text("go in pairs")
    expect(page.locator("#edit-apply")).to_be_disabled()
    page.click("#edit-take-together")
    expect(page.locator("#edit-exact")).to_contain_text("Exact")
    expect(page.locator("#edit-plan")).to_contain_text("35,944")
    expect(page.locator("#edit-touches")).to_contain_text("classifier.fc1.weight")
    page.click("#edit-measure")
    expect(page.locator("#edit-measured")).to_contain_text("over 64 samples")
    assert not stage.run.journal, "so far it was only looked at"
    page.click("#edit-apply")
    stage.toast("Remove neurons of features.conv2: neurons 4, 5")
    expect(page.locator("#layer-title")).to_have_text("features.conv2 · 30 neurons")
    page.locator(".mantine-Notification-root .gb-undo").click()
    stage.toast("Undid: Remove neurons")
    assert len(stage.run.network.layers[1].neurons) == 32
    # Another number of neurons clears what was selected: wait until the page has seen it.
    expect(page.locator("#layer-title")).to_have_text("features.conv2 · 32 neurons")
    expect(page.locator("#remove-neurons")).to_be_disabled()
    page.click("#neuron-tile-8")
    page.click("#neuron-tile-9")
    expect(page.locator("#remove-neurons")).to_be_enabled()
    page.click("#remove-neurons")
    page.click("#edit-apply")
    expect(page.locator("#layer-title")).to_have_text("features.conv2 · 30 neurons")
    expect(page.locator("#layer-1 .gb-layer-facts")).to_contain_text("16 → 30")
    expect(page.locator("#neuron-tile-31")).to_have_count(0)
    expect(page.locator("#selection-text")).to_have_text("None selected")
    page.click("#tab-history")
    expect(page.locator("#history-1")).to_have_attribute("data-undo", "undone")
    expect(page.locator("#history-2")).to_contain_text("undoes #1")
    expect(page.locator("#history-3")).to_have_attribute("data-undo", "next")


def test_what_is_not_exact_is_asked_for_twice(stage: Stage) -> None:
    page = stage.page
    stage.open("model")
    page.click("#layer-2")
    expect(page.locator("#layer-title")).to_contain_text("classifier.fc1")
    page.click("#neuron-tile-4")
    page.click("#remove-neurons")
    expect(page.locator("#edit-exact")).to_contain_text("LayerNorm")
    expect(page.locator("#edit-apply")).to_be_disabled()
    page.check("#allow-inexact")
    page.click("#edit-cancel")
    expect(page.locator("#edit-apply")).not_to_be_visible()
    page.click("#remove-neurons")
    expect(page.locator("#edit-exact")).to_contain_text("LayerNorm")
    expect(page.locator("#allow-inexact")).not_to_be_checked()
    page.check("#allow-inexact")
    page.click("#edit-apply")
    stage.toast("Remove neurons of classifier.fc1: neurons 4")
    expect(page.locator("#layer-title")).to_have_text("classifier.fc1 · 63 neurons")


def test_a_layer_grows_and_is_sorted_without_a_selection(stage: Stage) -> None:
    page = stage.page
    stage.open("model")
    page.fill("#add-count", "none")
    page.click("#add-neurons")
    stage.toast("1 or more, not 'none'")
    page.fill("#add-count", "3")
    page.click("#add-neurons")
    expect(page.locator("#edit-exact")).to_contain_text("stays what it is")
    page.click("#edit-apply")
    stage.toast("Add neurons")
    expect(page.locator("#layer-title")).to_have_text("features.conv1 · 19 neurons")
    expect(page.locator("#neuron-tile-18")).to_have_attribute("data-health", "young")
    page.click("#neuron-tile-18")
    page.click("#sort-neurons")
    page.click("#edit-apply")
    stage.toast("Sort by stat")
    expect(page.locator("#selection-text")).to_have_text("None selected")
    rates = [neuron.rate for neuron in stage.run.network.layers[0].neurons]
    assert rates == sorted(rates, reverse=True)


def test_neurons_are_selected_by_what_they_are(stage: Stage) -> None:
    page = stage.page
    neurons = stage.run.network.layers[1].neurons
    stage.open("model")
    page.click("#layer-1")
    expect(page.locator("#layer-title")).to_contain_text("features.conv2")
    page.click("#select-options")
    page.fill("#select-amount", "no")
    page.click("#select-apply")
    expect(page.locator("#select-amount")).to_have_attribute("aria-invalid", "true")
    page.fill("#select-amount", "25")
    page.click("#select-apply")
    expect(page.locator("#selection-text")).to_have_text("8 selected")
    lowest = sorted(range(32), key=lambda n: (round(neurons[n].rate, 4), n))[:8]
    for n in range(32):
        expect(page.locator(f"#neuron-tile-{n}")).to_have_attribute("aria-pressed", str(n in lowest).lower())
    page.get_by_text("All layers", exact=True).click()
    page.click("#select-apply")
    expect(page.locator("#selection-text")).to_have_text("Lowest 25 % of all layers")
    page.keyboard.press("Escape")
    page.click("#freeze")
    stage.toast("Freeze of features.conv1")
    every = sorted(
        (n.rate, at, i) for at, layer in enumerate(stage.run.network.layers) for i, n in enumerate(layer.neurons)
    )
    assert stage.run.frozen == {(at, i) for _, at, i in every[: len(every) // 4]}
    page.click("#select-none")
    expect(page.locator("#freeze")).to_be_disabled()


def test_biases_incoming_connections_and_zeros(stage: Stage) -> None:
    page, layer = stage.page, stage.run.network.layers[1]
    stage.open("model")
    page.click("#layer-1")
    expect(page.locator("#layer-title")).to_contain_text("features.conv2")
    page.click("#freeze-options")
    page.fill("#incoming-neurons", "0, 4-6")
    page.click("#freeze-incoming")
    stage.toast("Freeze incoming of features.conv2: neurons 0, 4, 5, 6")
    assert layer.frozen_incoming == {0, 4, 5, 6}
    expect(page.locator("#layer-title")).to_contain_text("4 incoming frozen")
    page.keyboard.press("Escape")
    page.click("#neuron-tile-2")
    page.click("#freeze-options")
    page.click("#freeze-bias")
    stage.toast("Freeze bias")
    page.keyboard.press("Escape")
    expect(page.locator("#neuron-grid [row-id='1/2'] [col-id='health']")).to_contain_text("bias")
    page.click("#zerofy")
    stage.toast("Zerofy of features.conv2: neurons 2")
    assert layer.neurons[2].zeroed and layer.neurons[2].bias_frozen
    expect(page.locator("#neuron-grid [row-id='1/2'] [col-id='norm']")).to_have_text("0")
    page.click("#tab-history")
    expect(page.locator("#history-3")).to_have_attribute("data-undo", "next")
    expect(page.locator("#history-1")).to_have_attribute("data-undo", "later")
    page.locator("#history-3 .gb-undo").click()
    stage.toast("Undid: Zerofy")
    expect(page.locator("#history-2")).to_have_attribute("data-undo", "next")
    assert not stage.run.network.layers[1].neurons[2].zeroed


def test_one_neuron_in_detail_and_the_columns_one_wants(stage: Stage) -> None:
    page = stage.page
    stage.open("model")
    page.click("#layer-1")
    expect(page.locator("#layer-title")).to_contain_text("features.conv2")
    page.click("#neuron-tile-6")
    expect(page.locator("#neuron-detail .gb-detail-title")).to_have_text("features.conv2 / 6")
    expect(page.locator("#neuron-health-reason")).to_have_text("Nearly parallel to neuron 5: one of the two could go.")
    expect(page.locator("#neuron-classes .gb-class-row")).to_have_count(10)
    picture = page.locator("#neuron-samples img").first
    expect(picture).to_be_visible()
    page.wait_for_function("i => i.complete && i.naturalWidth === 8", arg=picture.element_handle())
    header = page.locator("#neuron-grid .ag-header-cell")
    expect(header.filter(has_text="Change")).to_have_count(0)
    page.click("#columns-options")
    page.get_by_label("Change", exact=True).check()
    page.get_by_label("Mean", exact=True).uncheck()
    expect(header.filter(has_text="Change")).to_have_count(1)
    page.reload()
    expect(header.filter(has_text="Change")).to_have_count(1)
    expect(page.locator("#neuron-grid .ag-header-cell[col-id='mean']")).to_have_count(0)


def test_a_layer_that_shrank_in_another_tab(stage: Stage) -> None:
    page = stage.page
    stage.open("model")
    page.click("#layer-1")
    page.click("#neuron-tile-31")
    expect(page.locator("#neuron-detail .gb-detail-title")).to_have_text("features.conv2 / 31")
    network = stage.run.network
    network.apply(pb.ManipulateWeightsRequest(operation=pb.REMOVE_NEURONS, layer_id="1", neuron_ids=range(16, 32)))
    expect(page.locator("#layer-title")).to_have_text("features.conv2 · 16 neurons")
    expect(page.locator("#selection-text")).to_have_text("None selected")
    expect(page.locator("#neuron-detail")).to_contain_text("Click a neuron")
    page.click("#neuron-tile-15")
    page.evaluate(
        "window.dash_clientside.set_props('neuron-selection', {data: "
        f"{{run: '{RUN}', layer: '1', neurons: [31], query: null}}}})"
    )
    page.click("#freeze")
    stage.toast("has no neuron 31")
    assert not stage.run.frozen


def test_samples_are_filtered_discarded_and_restored(stage: Stage) -> None:
    page = stage.page
    stage.open("data")
    row = page.locator("#samples-grid [row-id='train/2']")
    row.locator("[col-id='sample_id']").click()
    expect(page.locator("#sample-detail")).to_contain_text("train / 2")
    page.click("#discard")
    stage.toast("Discarded 1")
    expect(row).to_contain_text("discarded")
    assert stage.run.samples[2]["discarded"]
    expect(page.locator("#samples-count")).to_contain_text("1 discarded")
    page.click("#restore-samples")
    stage.toast("Restored 1")
    wrong = sum(sample["label"] != sample["prediction"] for sample in stage.run.samples)
    page.locator("label[for='filter-wrong']").first.click()
    expect(page.locator("#samples-count")).to_have_text(f"{wrong} of 240 samples")
    page.click("#samples-grid .ag-header-cell[col-id='loss']")
    worst = max((s for s in stage.run.samples if s["label"] != s["prediction"]), key=lambda sample: sample["loss"])
    first = page.locator("#samples-grid .ag-row[row-index='0'] [col-id='sample_id']")
    expect(first).to_have_text(str(worst["id"]))


def test_labels_are_shown_where_they_are_more_than_a_class(stage: Stage) -> None:
    page = stage.page
    for row in (3, 4):
        stage.run.samples[row]["label"] = -1
    stage.open("data")
    image, switch = page.locator("#sample-detail img"), page.locator("#sample-detail .mantine-Switch-root")

    def choose(row: int) -> None:
        page.locator(f"#samples-grid [row-id='train/{row}'] [col-id='sample_id']").click()
        expect(page.locator("#sample-detail")).to_contain_text(f"train / {row}")

    choose(2)
    expect(switch).to_have_count(0)
    choose(3)
    expect(image).not_to_have_attribute("src", re.compile("labels"))
    switch.locator("label").first.click()
    expect(image).to_have_attribute("src", re.compile("/train/3.*&labels=1$"))
    wait_until(lambda: stage.backend.service.calls.get("pictures with labels", 0) == 1, "the picture to be asked for")
    choose(4)
    expect(image).to_have_attribute("src", re.compile("/train/4.*&labels=1$"))
    switch.locator("label").first.click()
    expect(image).to_have_attribute("src", re.compile("/train/4[^&]*&size=0$"))


def test_a_checkpoint_is_saved_and_gone_back_to_after_a_question(stage: Stage) -> None:
    page = stage.page
    stage.open("checkpoints")
    page.fill("#checkpoint-name", "before the storm")
    page.click("#checkpoint-save")
    stage.toast("Saved checkpoint before the storm")
    row = page.locator("[data-name='before the storm']")
    expect(row).to_be_visible()
    page.locator("#checkpoint-c0000 .checkpoint-restore").click()
    page.click("#cancel-restore")
    expect(page.locator("#confirm-restore")).not_to_be_visible()
    assert stage.run.branch == 0
    page.locator("#checkpoint-c0000 .checkpoint-restore").click()
    page.click("#confirm-restore")
    stage.toast("Restored step 500 as branch 1")
    assert (stage.run.branch, stage.run.step) == (1, 500)
    expect(page.locator("#branch-tree")).to_contain_text("from step 500 of 0")
    page.click("#tab-history")
    expect(page.locator("#history-list .gb-history-row").first).to_contain_text("Restored step 500 as branch 1")


def test_a_failed_step_is_shown_on_every_page(stage: Stage) -> None:
    page = stage.page
    stage.open("metrics")
    stage.run.state, stage.run.error = pb.FAILED, "RuntimeError: a sample cannot be read"
    stage.run.traceback = "Traceback (most recent call last):\n  File step.py"
    for name in ("metrics", "data", "model", "checkpoints", "history"):
        page.click(f"#tab-{name}")
        expect(page.locator("#error-text")).to_have_text("RuntimeError: a sample cannot be read")
    page.click("#error-details summary")
    expect(page.locator("#error-traceback")).to_contain_text("File step.py")
    page.click("#play-pause")
    expect(page.locator("#error-panel")).not_to_be_visible()


def test_a_backend_that_goes_and_comes_back_is_found_again(
    stage: Stage, served: tuple[str, Path], request: pytest.FixtureRequest
) -> None:
    page = stage.page
    stage.open("data")
    expect(page.locator("#samples-grid .ag-row [col-id='sample_id']").first).to_have_text("0")
    stage.backend.stop()
    expect(page.locator("#waiting-banner")).to_contain_text("start one with python graybox_backend.py --root_directory")
    expect(page.locator("#play-pause")).to_be_disabled()
    stage.backend = FakeBackend(served[1], stage.backend.service, token="another")
    request.addfinalizer(stage.backend.stop)
    expect(page.locator("#state-badge")).to_have_attribute("data-state", "running")
    expect(page.locator("#waiting-banner")).not_to_be_visible()
    page.click("#play-pause")
    stage.toast("Paused")
    stage.complaints = [text for text in stage.complaints if "503" not in text]


def test_a_tab_left_open_over_a_new_run_acts_on_no_run_it_does_not_show(
    stage: Stage, served: tuple[str, Path], request: pytest.FixtureRequest
) -> None:
    page, first = stage.page, stage.run
    stage.open("model")
    page.click("#neuron-tile-4")
    expect(page.locator("#selection-text")).to_have_text("Neuron 4")
    page.click("#tab-data")
    page.locator("#samples-grid [row-id='train/2'] [col-id='sample_id']").click()
    expect(page.locator("#discard")).to_be_enabled()

    def deaf(route: Route) -> None:
        """The tab hears of nothing new, as one whose browser put it to sleep."""
        asks = str(json.loads(route.request.post_data or "{}").get("output"))
        if "cursor-" in asks:
            route.fulfill(status=204)
        else:
            route.continue_()

    page.route("**/_dash-update-component*", deaf)
    second = FakeRun("20261121-080000-digits-2c4b", "another", live=True, steps=600, seed=4, samples=240)
    first.live, first.state = False, pb.ENDED
    before, stage.backend = stage.backend, FakeBackend(served[1], FakeService([first, second], pace=2))
    before.stop()
    request.addfinalizer(stage.backend.stop)
    toast = page.locator(".mantine-Notification-root")
    for tab, button in (("data", "discard"), ("data", "play-pause"), ("model", "freeze")):
        page.click(f"#tab-{tab}")
        page.click(f"#{button}")
        stage.toast(f"Not done: run {RUN} has ended")
        toast.get_by_role("button").click()
        expect(toast).to_have_count(0)
    assert (second.journal, first.journal, second.state) == ([], [], pb.RUNNING)

    page.unroute("**/_dash-update-component*")
    expect(page.locator("#hp-experiment_name")).to_have_value("another")
    expect(page.locator("#selection-text")).to_have_text("None selected")
    page.click("#tab-data")
    expect(page.locator("#discard")).to_be_disabled()
    expect(page.locator("#samples-count")).to_have_text("240 samples")
    assert stage.backend.service.sample_requests[-1].run_id == second.run_id
    page.click("#tab-model")
    page.click("#neuron-tile-5")
    page.click("#freeze")
    stage.toast("neurons 5")
    assert (second.frozen, first.frozen) == ({(0, 5)}, set())
    stage.complaints = [text for text in stage.complaints if "404" not in text]  # pictures of the run that ended
