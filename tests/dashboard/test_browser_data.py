"""The data page in a real browser over a run that really trains: what is asked is shown, what is edited is in the store
and in the journal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas
import pytest
from playwright.sync_api import Browser, Page, expect

from graybox.proto import experiment_service_pb2 as pb
from tests.dashboard.programs import dashboard
from tests.dashboard.real_backend import CLASSES, RealBackend
from tests.patience import PATIENCE, wait_until
from tests.service.language_server import LanguageServer

pytestmark = pytest.mark.browser
COUNT, VALIDATION, STEPS = 100_000, 20, 60
FIGURE = "selector => document.querySelector(selector + ' .js-plotly-plot')?.data || []"
END = """async ([count, row]) => {
    const api = await window.dash_ag_grid.getApiAsync('samples-grid');
    if (api.getDisplayedRowCount() !== count) return false;
    api.ensureIndexVisible(row);
    return true;
}"""


class Stage:
    """The page, the backend behind it, and what the browser complained about."""

    def __init__(self, page: Page, url: str, backend: RealBackend) -> None:
        self.page, self.url, self.backend = page, url, backend
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)

    def open(self, run: str = "") -> None:
        self.page.goto(f"{self.url}/data{f'?run={run}' if run else ''}")
        expect(self.page.locator("#samples-grid .ag-row [col-id='sample_id']").first).to_be_visible()

    def ask(self, query: str) -> None:
        self.page.fill("#query", query)
        self.page.press("#query", "Enter")

    def finds(self, query: str, count: str) -> None:
        """Asks, and waits until that many samples are found."""
        self.ask(query)
        expect(self.page.locator("#view-count")).to_have_text(count)
        expect(self.page.locator("#view-query")).to_contain_text(query)

    def rows(self, first: list[int]) -> None:
        """Waits until the grid begins with these samples."""
        for place, number in enumerate(first):
            cell = self.page.locator(f"#samples-grid .ag-row[row-index='{place}'] [col-id='sample_id']")
            expect(cell).to_have_text(str(number))

    def toast(self, text: str | re.Pattern[str]) -> None:
        expect(self.page.locator(".mantine-Notification-root", has_text=text)).to_be_visible()

    def undo(self) -> None:
        """By the history: a toast may be gone before somebody on a busy machine gets round to it."""
        self.page.click("#tab-history")
        self.page.locator("#history-list .gb-undo").click()
        self.toast("Undid")
        self.page.click("#tab-data")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, RealBackend, str]]:
    """(address, backend, id of a run that has ended)."""
    root = tmp_path_factory.mktemp("data") / "root"
    root.mkdir()
    before = RealBackend(root, 50, 20)
    ended = before.run_id
    before.close()
    backend = RealBackend(root, COUNT, STEPS, new_run=True)
    try:
        with dashboard(root, 0) as (_, log):
            url = log.read_text().split("Dash is running on ")[1].split()[0].rstrip("/")
            yield url, backend, ended
    finally:
        backend.close()


@pytest.fixture
def stage(browser: Browser, served: tuple[str, RealBackend, str]) -> Iterator[Stage]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
    context.set_default_timeout(1000 * PATIENCE)
    stage = Stage(context.new_page(), served[0], served[1])
    yield stage
    context.close()
    assert stage.complaints == []


def by_loss(backend: RealBackend) -> list[int]:
    """Samples that were seen, the highest loss first; all of them are of the training split."""
    loss = backend.train.loss
    seen = np.flatnonzero(np.isfinite(loss))
    return [int(row) for row in seen[np.argsort(-loss[seen], kind="stable")]]


def test_a_query_is_asked_marked_refined_and_cleared(stage: Stage) -> None:
    page, train = stage.page, stage.backend.train
    worst, all_samples = by_loss(stage.backend), f"{COUNT + VALIDATION:,}"
    stage.open()
    expect(page.locator("#samples-count")).to_have_text(f"{all_samples} samples")
    page.click("#query")
    page.keyboard.type("encounters > 0 sortby los")
    suggested = page.locator("#query-suggestions .gb-suggestion")
    expect(suggested.first).to_contain_text("loss")
    page.keyboard.press("Tab")
    expect(page.locator("#query")).to_have_value("encounters > 0 sortby loss")
    page.keyboard.type(" desc")
    page.keyboard.press("Enter")
    expect(page.locator("#view-count")).to_have_text(f"{len(worst)} of {all_samples} match")
    stage.rows(worst[:5])
    expect(page.locator("#samples-filters")).not_to_be_visible()

    stage.ask("encounters > 0 and lable == 'cat'")
    expect(page.locator("#query-problem .gb-query-mark")).to_have_text("lable")
    expect(page.locator("#query-problem")).to_contain_text("there is no column 'lable'; do you mean label?")
    assert page.evaluate("document.getElementById('query').selectionStart") == len("encounters > 0 and ")
    stage.rows(worst[:5])

    page.locator("label[for='query-within']").first.click()
    stage.ask("label == 'it''s a fish'")
    fish = [row for row in worst if train.truth(np.array([row]))[0] == 2]
    expect(page.locator("#view-count")).to_have_text(f"{len(fish)} of {len(worst)} match")
    expect(page.locator("#view-query")).to_have_text("encounters > 0 sortby loss desc  ›  label == 'it''s a fish'")
    expect(page.locator("#query-problem")).not_to_be_visible()
    stage.rows(fish[:4])
    stage.ask("loss < 0")
    expect(page.locator("#view-count")).to_have_text(f"No sample of {all_samples} matches")
    expect(page.locator("#samples-problem")).to_have_text("No sample matches.")
    expect(page.locator("#discard")).to_be_disabled()

    page.fill("#query", "")
    page.click("#query-recent")
    expect(suggested.first).to_contain_text("loss < 0")
    expect(suggested).to_have_count(3)  # what was wrong is not kept
    suggested.nth(2).click()
    expect(page.locator("#query")).to_have_value("encounters > 0 sortby loss desc")
    page.click("#query-run")
    stage.rows(worst[:5])
    page.click("#view-clear")
    expect(page.locator("#view-bar")).not_to_be_visible()
    expect(page.locator("#samples-filters")).to_be_visible()
    stage.rows([0, 1, 2])

    page.locator("label[for='filter-wrong']").first.click()
    page.click("#filters-to-query")
    expect(page.locator("#view-query")).to_have_text("label != prediction")
    wrong = int(np.sum((train.prediction >= 0) & (train.prediction != train.label)))
    expect(page.locator("#view-count")).to_have_text(f"{wrong} of {all_samples} match")


def test_columns_are_chosen_and_sorted_by(stage: Stage) -> None:
    page, backend = stage.page, stage.backend
    stage.open()
    header = page.locator("#samples-grid .ag-header-cell")
    expect(header.filter(has_text="AUM")).to_have_count(1)
    page.click("#sample-columns-options")
    page.get_by_label("my.signal", exact=True).check()
    page.get_by_label("AUM", exact=True).uncheck()
    expect(header.filter(has_text="my.signal")).to_have_count(1)
    expect(header.filter(has_text="AUM")).to_have_count(0)
    page.click("#sample-columns-options")
    page.click("#samples-grid .ag-header-cell[col-id='column:my.signal']")
    stage.rows([0, 7, 14])
    page.click("#samples-grid .ag-header-cell[col-id='column:my.signal']")
    stage.rows([6, 13, 20])
    cell = page.locator("#samples-grid .ag-row[row-index='1'] [col-id='column:my.signal']")
    expect(cell).to_have_text("6")
    page.reload()
    expect(header.filter(has_text="my.signal")).to_have_count(1)
    expect(header.filter(has_text="AUM")).to_have_count(0)
    wait_until(lambda: page.evaluate(END, [COUNT + VALIDATION, COUNT - 1]), "the rows to be counted")
    expect(page.locator(f"#samples-grid [row-id='train/{COUNT - 1}'] [col-id='sample_id']")).to_be_visible()
    stage.finds("encounters > 0", f"{len(by_loss(backend))} of {COUNT + VALIDATION:,} match")
    page.click("#samples-grid .ag-header-cell[col-id='loss']")
    stage.rows(by_loss(backend)[:4])


def test_what_show_tells_is_a_table_a_heat_map_and_bars(stage: Stage) -> None:
    page, train = stage.page, stage.backend.train
    stage.open()
    seen = np.flatnonzero(train.prediction >= 0)
    title = page.locator("#analysis-title")
    stage.ask("show confusion")
    expect(title).to_have_text(f"Confusion · of {COUNT + VALIDATION:,} samples")
    page.wait_for_function(f"selector => ({FIGURE})(selector).length", arg="#analysis-body")
    (trace,) = page.evaluate(FIGURE, "#analysis-body")
    counts = [[int(text.replace(",", "") or 0) for text in line] for line in trace["text"]]
    expected = np.zeros((3, 3), dtype=int)
    np.add.at(expected, (train.label[seen], train.prediction[seen]), 1)
    assert counts == expected.tolist()
    expect(page.locator("#samples-filters")).to_be_visible()  # nothing was filtered by it

    page.emulate_media(color_scheme="dark")
    stage.ask("show histogram(loss, 12)")
    expect(title).to_contain_text("Histogram(loss, 12)")
    page.wait_for_function(f"selector => ({FIGURE})(selector)[0]?.type === 'bar'", arg="#analysis-body")
    (bars,) = page.evaluate(FIGURE, "#analysis-body")
    assert sum(bars["y"]) == len(seen)

    stage.ask("encounters > 0 show count, mean(loss) by label")
    rows = page.locator("#analysis-body tbody tr")
    expect(rows).to_have_count(3)
    for place, name in enumerate(CLASSES):
        count = int(np.sum(train.label[seen] == place))
        expect(rows.nth(place).locator("td").nth(0)).to_have_text(name)
        expect(rows.nth(place).locator("td").nth(1)).to_have_text(str(count))
    expect(page.locator("#view-count")).to_have_text(f"{len(seen)} of {COUNT + VALIDATION:,} match")
    page.click("#analysis-close")
    expect(title).not_to_be_visible()
    page.click("#query-help")
    page.locator(".gb-example", has_text="show count by tag").click()
    expect(title).to_contain_text("Count by tag")


def test_what_a_query_found_is_tagged_relabelled_and_discarded(stage: Stage) -> None:
    page, backend = stage.page, stage.backend
    train, worst = backend.train, by_loss(backend)
    before = len(backend.edits())
    stage.open()
    page.locator("#samples-grid [row-id='train/5'] [col-id='sample_id']").click()
    expect(page.locator("#samples-target")).to_contain_text("Selected 1")
    stage.finds("encounters > 0 sortby loss desc limit 12", f"12 of {COUNT + VALIDATION:,} match")
    expect(page.locator("#discard-text")).to_have_text("Discard all 12")
    rows = np.array(worst[:12])

    page.click("#tag-options")
    page.fill("#tag-name", "two words")
    expect(page.locator("#add-tag-text")).to_have_text("Add to all 12")
    page.click("#add-tag")
    stage.toast("Tagged 12 samples")
    assert np.flatnonzero(train.notes.tags["two words"]).tolist() == sorted(rows)
    first = page.locator(f"#samples-grid [row-id='train/{worst[0]}']")
    expect(first.locator(".gb-tag")).to_have_text("two words")
    page.click("#tag-options")

    first.locator("[col-id='sample_id']").click()
    expect(page.locator("#discard-text")).to_have_text("Discard")
    other = 1 if train.label[worst[0]] != 1 else 0
    page.click("#label-options")
    page.fill("#label-name", "bird")
    page.click("#set-label")
    stage.toast("there is no class 'bird'")
    page.fill("#label-name", CLASSES[other])
    page.click("#set-label")
    stage.toast(re.compile("1 sample"))
    assert train.truth(rows[:1])[0] == other != train.label[worst[0]]
    expect(first.locator("[col-id='label']")).to_have_text(CLASSES[other] + CLASSES[train.label[worst[0]]])
    expect(page.locator("#sample-facts")).to_contain_text(f"was {CLASSES[train.label[worst[0]]]}")
    page.click("#original-label")
    wait_until(lambda: train.truth(rows[:1])[0] == train.label[worst[0]], "the data set's label")
    page.click("#label-options")

    page.get_by_text("All 12 found").click()
    page.click("#discard")
    stage.toast("Discarded 12 samples")
    assert train.discarded[rows].all() and train.discarded.sum() == 12
    expect(first).to_contain_text("discarded")
    stage.undo()
    assert not train.discarded.any()

    stage.finds("split == 'train' limit 500", f"500 of {COUNT + VALIDATION:,} match")
    expect(page.locator("#discard-text")).to_have_text("Discard all 500")
    page.click("#discard")
    expect(page.locator("#confirm-which")).to_contain_text("500 samples of the query split == 'train' limit 500")
    page.click("#confirm-cancel")
    expect(page.locator("#confirm-which")).not_to_be_visible()
    assert not train.discarded.any()
    page.click("#discard")
    expect(page.locator("#confirm-edit")).to_have_text("Discard 500 samples")
    page.click("#confirm-edit")
    stage.toast("Discarded 500 samples")
    assert np.flatnonzero(train.discarded).tolist() == list(range(500))
    stage.undo()

    stage.finds("tag:'two words'", f"12 of {COUNT + VALIDATION:,} match")
    backend.call(
        "EditDataSample",
        pb.DataEditRequest(stat_name="tags:two words", type="EDIT_REMOVE", samples_ids=[str(row) for row in rows[:5]]),
    )
    page.click("#samples-refresh")
    expect(page.locator("#view-count")).to_have_text(f"7 of {COUNT + VALIDATION:,} match")
    for _ in range(70):  # the backend keeps 64 views
        backend.call("ApplyDataQuery", pb.DataQueryRequest(query="limit 1"))
    page.click("#samples-grid .ag-header-cell[col-id='sample_id']")
    stage.rows(sorted(worst[5:12])[:3])
    stage.complaints = [text for text in stage.complaints if "410" not in text]
    assert backend.edits()[before:] == [
        "tag_add", "label_change", "label_change", "sample_discard", "undo", "sample_discard", "undo", "tag_remove",
    ]  # fmt: skip


def test_samples_are_drawn_more_often_rebalanced_and_thinned_out(stage: Stage) -> None:
    page, backend = stage.page, stage.backend
    notes, train = backend.train.notes, backend.train
    stage.open()
    stage.finds("label == 'dog' and split == 'train' limit 40", f"40 of {COUNT + VALIDATION:,} match")
    dogs = np.flatnonzero(train.label == 1)[:40]

    def open_dialog(name: str) -> None:
        page.click("#weigh-options")
        page.click(f"#ask-{name}")
        expect(page.locator("#weigh-which")).to_contain_text("40 samples of the query")

    open_dialog("sampling-weight")
    page.fill("#weigh-value", "lots")
    page.click("#weigh-apply")
    stage.toast("not 'lots'")
    page.fill("#weigh-value", "2.5")
    page.click("#weigh-apply")
    expect(page.locator("#weigh-which")).not_to_be_visible()
    assert (notes.weights()[dogs] == 2.5).all() and notes.weights().sum() == COUNT + 40 * 1.5
    open_dialog("keep-share")
    page.fill("#keep-share-value", "25 %")
    page.click("#weigh-apply")
    expect(page.locator("#weigh-which")).not_to_be_visible()
    assert train.discarded[dogs].sum() == 30 == train.discarded.sum()
    stage.undo()
    page.click("#view-clear")
    expect(page.locator("#view-bar")).not_to_be_visible()
    page.click("#weigh-options")
    page.click("#ask-rebalance")
    expect(page.locator("#weigh-which")).to_have_text("All training samples in use")
    page.click("#weigh-apply")
    expect(page.locator("#weigh-which")).not_to_be_visible()
    sums = [notes.weights()[train.label == number].sum() for number in range(3)]
    assert sums == pytest.approx([COUNT / 3] * 3, rel=1e-4)
    stage.undo()
    assert (notes.weights()[dogs] == 2.5).all()


def test_one_sample_in_detail(stage: Stage) -> None:
    page, backend = stage.page, stage.backend
    stage.open()
    row = by_loss(backend)[0]
    stage.finds("encounters > 0 sortby loss desc", f"{len(by_loss(backend))} of {COUNT + VALIDATION:,} match")
    page.locator(f"#samples-grid [row-id='train/{row}'] [col-id='sample_id']").click()
    expect(page.locator("#sample-picture .gb-detail-title")).to_have_text(f"train / {row}")
    page.wait_for_function(f"selector => ({FIGURE})(selector)[0]?.y?.length", arg="#sample-losses")
    (line,) = page.evaluate(FIGURE, "#sample-losses")
    encounters, losses = backend.train.losses_of(row)
    assert line["x"] == [int(number) + 1 for number in encounters]
    assert line["y"] == pytest.approx(losses.tolist(), rel=1e-5)
    scores = backend.train.scores.of(row)
    expect(page.locator("#sample-facts")).to_contain_text(f"AUM{scores['aum']:.4g}")
    picture = page.locator("#sample-picture img")
    page.wait_for_function("i => i.complete && i.naturalWidth > 0", arg=picture.element_handle())
    expect(page.locator("#sample-picture .mantine-Switch-root")).to_have_count(0)
    expect(page.locator("#sample-picture .gb-image-note")).to_have_count(1 if note_of(backend, row) else 0)


def note_of(backend: RealBackend, row: int) -> str:
    return backend.training.images.image("train", str(row), 64, 64).note


def test_a_run_that_has_ended_can_be_asked_but_not_edited(stage: Stage, served: tuple[str, RealBackend, str]) -> None:
    page = stage.page
    stage.open(served[2])
    expect(page.locator("#samples-count")).to_have_text("70 samples")
    stage.finds("split == 'train' sortby id desc limit 3", "3 of 70 match")
    stage.rows([49, 48, 47])
    page.locator("#samples-grid [row-id='train/48'] [col-id='sample_id']").click()
    expect(page.locator("#sample-picture")).to_contain_text("train / 48")
    expect(page.locator("#samples-target")).to_contain_text("Selected 1")
    for name in ("discard", "restore-samples", "tag-options", "label-options", "weigh-options"):
        expect(page.locator(f"#{name}")).to_be_disabled()
    stage.ask("show count by split")
    expect(page.locator("#analysis-body tbody")).to_contain_text("50")
    page.evaluate("window.dash_clientside.set_props('url', {search: ''})")
    expect(page.locator("#view-bar")).not_to_be_visible()
    expect(page.locator("#samples-count")).to_contain_text(f"{COUNT + VALIDATION:,} samples")


def test_what_the_grid_shows_is_saved_as_a_file(stage: Stage, tmp_path: Path) -> None:
    page, backend = stage.page, stage.backend
    stage.open()
    worst = by_loss(backend)[:300]
    stage.finds("encounters > 0 sortby loss desc limit 300", f"300 of {COUNT + VALIDATION:,} match")

    def saved(kind: str) -> Path:
        page.click("#export-options")
        with page.expect_download() as download:
            page.click(f"#export-{kind}")
        stage.toast("Saving")
        assert backend.run_id in download.value.suggested_filename
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        return path

    table = pandas.read_csv(saved("csv"))
    assert table["id"].tolist() == worst
    assert table["loss"].to_numpy() == pytest.approx(backend.train.loss[worst], rel=1e-6)
    assert pandas.read_parquet(saved("parquet"))["id"].tolist() == worst
    lines = saved("jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == worst
    assert json.loads(saved("manifest").read_text())
    page.click("#view-clear")
    page.locator("label[for='filter-wrong']").first.click()
    wrong = np.flatnonzero((backend.train.prediction >= 0) & (backend.train.prediction != backend.train.label))
    page.click("#export-options")
    expect(page.locator("#export-what")).to_have_text("The samples that the filters leave")
    page.click("#export-options")
    assert pandas.read_csv(saved("csv"))["id"].tolist() == wrong.tolist()
    page.fill("#filter-id", "1")
    expect(page.locator("#samples-count")).to_contain_text("of")
    page.click("#export-options")
    page.click("#export-csv")
    stage.toast("cannot be said in a query")


def test_a_question_in_plain_english_proposes_and_does_nothing_by_itself(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, backend = stage.page, stage.backend
    query = "split == 'train' sortby loss desc limit 9"
    edits = [{"action": "tag", "value": "suspect"}, {"action": "discard"}]
    replies = [json.dumps({"query": query, "edits": edits}), json.dumps({"query": None})]
    stage.open()
    page.locator("label[for='query-natural']").first.click()
    stage.ask("which are bad?")
    expect(page.locator("#query-problem")).to_contain_text("no language model is set up")
    expect(page.locator("#query-nearest .gb-example")).not_to_have_count(0)
    with LanguageServer(*replies) as model:
        monkeypatch.setenv("GRAYBOX_LLM_URL", model.url)
        monkeypatch.setenv("GRAYBOX_LLM_MODEL", "toy")
        before = len(backend.edits())
        stage.ask("which are the nine worst? tag them, throw them out")
        expect(page.locator("#query")).to_have_value(query)
        expect(page.locator("#view-count")).to_have_text(f"9 of {COUNT + VALIDATION:,} match")
        proposed = page.locator("#query-proposals .gb-proposal")
        expect(proposed).to_have_count(2)
        assert backend.edits()[before:] == []
        proposed.filter(has_text="Tag 9 samples").click()
        stage.toast("Tagged 9 samples")
        worst = by_loss(backend)[:9]
        assert np.flatnonzero(backend.train.notes.tags["suspect"]).tolist() == sorted(worst)
        assert not backend.train.discarded.any()
        stage.ask("what is the weather like?")
        expect(page.locator("#query-problem")).to_contain_text("no question about the samples")
    page.locator("#query-nearest .gb-example").first.click()
    expect(page.locator("#query-problem")).not_to_be_visible()
    expect(page.locator("#query-natural")).not_to_be_checked()
