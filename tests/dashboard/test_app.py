"""The application as a whole, without a browser: callbacks, layout, what a page loads, what a value becomes."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from dash import Dash

from graybox.dashboard import ids
from graybox.dashboard.app import create_app
from graybox.dashboard.hub import Hub
from graybox.dashboard.hyper_parameters import parse
from graybox.dashboard.pages.metrics.figure import (
    Line,
    Marks,
    View,
    full_figure,
    patch_figure,
    structure,
    versions,
)  # fmt: skip
from graybox.dashboard.series import Series
from graybox.dashboard.settings import Settings


@pytest.fixture
def app(root: Path) -> Dash:
    return create_app(Hub(Settings(root=root)))


def component_ids(component: Any) -> set[str]:
    found = {item.id for item in component._traverse() if isinstance(getattr(item, "id", None), str)}
    return found | ({component.id} if isinstance(getattr(component, "id", None), str) else set())


def test_every_callback_is_a_coroutine(app: Dash) -> None:
    functions = {
        name: entry["callback"] for name, entry in {**app.callback_map}.items() if entry.get("callback") is not None
    }
    assert len(functions) > 8
    blocking = [name for name, call in functions.items() if not inspect.iscoroutinefunction(inspect.unwrap(call))]
    assert blocking == []


def test_documented_ids_are_in_the_layout(app: Dash) -> None:
    present = component_ids(app.layout)
    documented = set(re.findall(r"\b[a-z]+(?:-[a-z_]+)+\b", ids.__doc__ or ""))
    made_later = {
        "neuron-tile", "data-neuron", "data-health", "aria-pressed", "row-id", "run-toggle", "checkpoint-restore",
        "checkpoint-restore-weights", "hyper-parameters", "run-select", "edit-exact", "edit-refused", "edit-touches",
        "neuron-health-reason", "neuron-classes", "neuron-samples", "data-undo", "gb-undo",
    }  # fmt: skip
    assert documented - made_later - present == set()
    assert {ids.page(name) for name in ids.PAGES} <= present
    assert {ids.hyper_parameter(name) for name in ids.HYPER_PARAMETERS} <= present


def test_assets_name_no_other_host() -> None:
    folder = Path(ids.__file__).parent / "assets"
    allowed = {"http://www.w3.org/2000/svg"}
    found = {
        address
        for path in folder.rglob("*")
        if path.suffix in {".js", ".css", ".svg"}
        for address in re.findall(r"https?://[^\s\"')]+", path.read_text(encoding="utf-8"))
    }
    assert found <= allowed
    assert "MIT License" in (folder / "icons" / "LICENSE.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("learning_rate", " 1e-3 ", 0.001),
        ("batch_size", "1,024", 1024),
        ("training_steps_to_do", "10 000", 10_000),
        ("experiment_name", "  run two ", "run two"),
    ],
)
def test_what_is_typed_becomes_a_value(name: str, text: str, value: object) -> None:
    assert parse(name, text) == value


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("learning_rate", "fast", "Learning rate is a number"),
        ("learning_rate", "", "Learning rate is a number .* not empty"),
        ("batch_size", "1.5", "Batch size is a whole number"),
        ("checkpoint_frequency", "99999999999", "at most"),
    ],
)
def test_what_makes_no_value_says_why(name: str, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(name, text)


def line(ages: list[int], version: str, run: str = "r") -> Line:
    return Line(run, 0, "train", "digits", "#123456", "solid", Series(ages, [1.0] * len(ages)), version)


def test_a_change_of_data_is_sent_as_the_data_of_that_trace_alone() -> None:
    before, after = [line([1], "a"), line([1], "x", "s")], [line([1, 2], "b"), line([1], "x", "s")]
    marks, view = [Marks(), Marks()], View()
    assert structure(before, view) == structure(after, view)
    patch = patch_figure(after, marks, view, versions(before, marks, view), versions(after, marks, view))
    operations = json.loads(json.dumps(patch.to_plotly_json()))["operations"]
    touched = {tuple(operation["location"][:3]) for operation in operations}
    assert touched == {
        ("data", 0, "x"), ("data", 0, "y"), ("data", 1, "x"), ("data", 1, "y"), ("layout", "yaxis", "autorangeoptions"),
    }  # fmt: skip


def test_a_new_curve_is_another_structure_and_the_whole_plot_keeps_the_zoom() -> None:
    view = View(zoom={"x": [3.0, 9.0]})
    assert structure([line([1], "a")], view) != structure([line([1], "a"), line([1], "x", "s")], view)
    layout = full_figure([line([1], "a")], [Marks(), Marks()], view, percent=False)["layout"]
    assert (layout["xaxis"]["range"], layout["xaxis"]["autorange"]) == ([3.0, 9.0], False)


def test_values_that_json_does_not_have_become_gaps() -> None:
    curve = Line("r", 0, "train", "d", "#1", "solid", Series([1, 2, 3], [1.0, float("nan"), float("inf")]), "a")
    figure = full_figure([curve], [Marks(), Marks()], View(), percent=False)
    assert figure["data"][1]["y"] == [1.0, None, None]
