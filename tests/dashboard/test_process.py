"""weights_lab.py as a process: what it prints, serves and refuses."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from graybox.store.metrics import MetricStore
from graybox.store.root import Root
from tests.dashboard.fake_backend import FakeBackend
from tests.dashboard.programs import REPOSITORY, dashboard, fetch
from tests.patience import PATIENCE, wait_until

Port = Callable[[], int]


def run(*flags: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "weights_lab.py", *flags], cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE
    )
    return done.returncode, (done.stdout + done.stderr).strip()


def test_what_cannot_be_done_is_one_line_and_code_2(root: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = run("--root_directory", str(root), "--port", str(port))
    assert (code, len(said.splitlines())) == (2, 1)
    assert f"port {port} on 127.0.0.1 is in use" in said
    code, said = run("--root_directory", str(tmp_path / "no" / "such"))
    assert (code, len(said.splitlines())) == (2, 1)
    assert "does not exist" in said


def test_it_serves_its_own_pages_samples_and_pictures(
    root: Path, free_port: Port, start_backend: Callable[..., FakeBackend]
) -> None:
    backend = start_backend()
    with dashboard(root, free_port()) as (url, log):
        assert log.read_text().strip() == f"Dash is running on {url}/"
        for page in ("/", "/metrics", "/data", "/model", "/checkpoints", "/history"):
            status, text, headers = fetch(url + page)
            assert status == 200 and "/assets/graybox.js" in text
            assert re.findall(r"""(?:src|href)=["'](?:https?:)?//""", text) == []
            assert headers["x-frame-options"] == "DENY"
        foreign = fetch(url + "/_dash-update-component", b"{}", Origin="http://evil.example")
        assert foreign[0] == 403
        assert fetch(url + "/", Host="evil.example")[0] == 403

        wait_until(lambda: fetch(url + "/api/samples?end=1")[0] == 200, "the backend to be found")
        status, text, _ = fetch(url + "/api/samples?start=10&end=15&sort=loss&desc=1&split=train&min_loss=0.1")
        page_of_rows = json.loads(text)
        losses = [row["loss"] for row in page_of_rows["rows"]]
        assert len(losses) == 5 and losses == sorted(losses, reverse=True)
        asked = backend.service.sample_requests[-1]
        assert (asked.start_index, asked.records_cnt, asked.filter.origin, asked.sort_by) == (10, 5, "train", "loss")
        assert fetch(url + "/api/samples?sort=nothing")[0] == 400

        picture = url + page_of_rows["rows"][0]["thumbnail"]
        for _ in range(2):
            status, _, headers = fetch(picture)
            assert (status, headers["content-type"]) == (200, "image/png")
            assert "immutable" in headers["cache-control"]
        assert backend.service.calls["pictures"] == 1
        labelled = fetch(picture + "&labels=1")
        assert labelled[0] == 200 and backend.service.calls["pictures with labels"] == 1
        assert labelled[2]["etag"] != headers["etag"], "another picture"
        assert fetch(picture + "&labels=often")[0] == 422
        assert fetch(picture.replace("/train/", "/../"))[0] != 500


def test_a_run_that_has_ended_is_read_without_a_backend(root: Path, free_port: Port) -> None:
    run_folder = Root(root).create_run("an old one")
    metrics = MetricStore(run_folder.path)
    for step in range(1, 30):
        metrics.append(
            branch=0, step=step, age=step * 8, time_ms=step, values={("train", "loss"): float(np.exp(-step))}
        )
    metrics.close()
    with dashboard(root, free_port()) as (url, _):
        asked = json.dumps(LIST_RUNS).encode()

        def options() -> str:
            return fetch(url + "/_dash-update-component", asked, Content_Type="application/json")[1]

        wait_until(lambda: run_folder.run_id in options(), "the archive to be read")
        assert "an old one" in options()


LIST_RUNS = {
    "output": "..run-select.data...run-select-cursor.data..",
    "outputs": [{"id": "run-select", "property": "data"}, {"id": "run-select-cursor", "property": "data"}],
    "inputs": [{"id": "tick-runs", "property": "n_intervals", "value": 1}],
    "state": [{"id": "run-select-cursor", "property": "data", "value": None}],
    "changedPropIds": ["tick-runs.n_intervals"],
}


def test_elsewhere_than_on_loopback_a_login_is_needed(root: Path, free_port: Port) -> None:
    with dashboard(root, free_port(), "--host", "0.0.0.0") as (url, log):
        where = re.compile(r"http://\S+:\d+/\?token=(\S+)\n")
        wait_until(lambda: where.search(log.read_text()), "the address with its token, which is said after the other")
        found = where.search(log.read_text())
        assert found
        assert fetch(url + "/metrics")[0] == 401
        assert fetch(url + "/metrics", Cookie=f"graybox_token={found[1]}")[0] == 200
        assert fetch(url + "/api/samples", Cookie="graybox_token=wrong")[0] == 401
