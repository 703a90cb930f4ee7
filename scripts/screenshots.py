"""Makes screen-shots/ from the running product: the default experiment, a real browser, both colour schemes.

A run of a few hundred steps with interventions, and one before it that has ended, so that every page has something
to show.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
from playwright.sync_api import Browser, Page, sync_playwright

from graybox.cli.arguments import free_port
from graybox.proto import experiment_service_pb2 as pb
from graybox.proto import experiment_service_pb2_grpc as rpc
from scripts.browser import FLAGS, NO_BROWSER, find_browser

PAGES = ("metrics", "data", "model", "checkpoints", "history")
WIDE, NARROW = (1440, 900), (420, 900)
STEPS_BEFORE, STEPS = 250, 400


class Stage:
    """The product on a root directory of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port, self.backend_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        command = [sys.executable, "-m", "graybox.cli", "demo", f"--root_directory={self.root}"]
        ports = [f"--port={self.port}", f"--backend_port={self.backend_port}"]
        self._process = subprocess.Popen([*command, *ports, *options], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise SystemExit("the demo did not start; see what it said above")

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(90)

    def stub(self) -> tuple[rpc.ExperimentServiceStub, list[tuple[str, str]]]:
        announced = json.loads((self.root / "backend.json").read_text())
        token = [("authorization", f"Bearer {announced['control_token']}")]
        return rpc.ExperimentServiceStub(grpc.insecure_channel(announced["address"])), token

    def train(self, steps: int) -> None:
        """Wait until the run has made so many steps."""
        stub, token = self.stub()
        while stub.ExperimentCommand(pb.ExperimentCommandRequest(get_status=True), metadata=token).status.step < steps:
            time.sleep(0.2)

    def learning_rate(self, value: float) -> None:
        """Set it, as a person would."""
        stub, token = self.stub()
        change = pb.HyperParameterChange(hyper_parameters=pb.HyperParameters(learning_rate=value))
        stub.ExperimentCommand(pb.ExperimentCommandRequest(hyper_parameter_change=change, actor="demo"), metadata=token)

    def intervene(self) -> None:
        """What a person might do in the first minutes."""
        stub, token = self.stub()
        stub.ManipulateWeights(
            pb.ManipulateWeightsRequest(operation=pb.FREEZE, layer_id="layer1", neuron_ids=[3, 4, 9], actor="demo"),
            metadata=token,
        )
        stub.EditDataSample(
            pb.DataEditRequest(stat_name="discarded", samples_ids=["12", "400"], bool_value=True, actor="demo"),
            metadata=token,
        )
        self.learning_rate(0.0005)
        keep = pb.SaveCheckpointOperation(name="good so far")
        stub.ExperimentCommand(
            pb.ExperimentCommandRequest(save_checkpoint_operation=keep, actor="demo"), metadata=token
        )
        stub.ManipulateWeights(
            pb.ManipulateWeightsRequest(operation=pb.REINITIALIZE, layer_id="fc1", neuron_ids=[7], actor="demo"),
            metadata=token,
        )


def photograph(browser: Browser, stage: Stage, folder: Path) -> None:
    """Every page, light and dark, wide and narrow."""
    for scheme in ("light", "dark"):
        for name, (width, height) in (("", WIDE), ("_narrow", NARROW)):
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            page = context.new_page()
            for shown in PAGES:
                page.goto(f"http://127.0.0.1:{stage.port}/{shown}")
                if shown == "metrics":
                    page.wait_for_selector("#graph-loss .scatterlayer .trace", timeout=60_000)
                if shown == "model":
                    page.click("#layer-2", timeout=60_000)
                    page.click("#neuron-tile-4")
                if shown == "data":
                    page.locator("#samples-grid [row-id^='train/'] [col-id='sample_id']").first.click(timeout=60_000)
                page.wait_for_timeout(3_000)
                page.screenshot(path=folder / f"{shown}_{scheme}{name}.png")
                print(f"{shown}_{scheme}{name}.png", flush=True)
                if shown == "model":
                    photograph_plan(page, folder / f"plan_{scheme}{name}.png")
            context.close()


def photograph_plan(page: Page, target: Path) -> None:
    """The dialog before neurons are removed, with the change of the logits measured; nothing is applied."""
    page.click("#neuron-tile-5")
    page.click("#remove-neurons")
    page.wait_for_selector("#edit-exact", timeout=60_000)
    page.click("#edit-measure")
    page.wait_for_function("document.getElementById('edit-measured').textContent", timeout=60_000)
    page.wait_for_timeout(500)
    page.screenshot(path=target)
    print(target.name, flush=True)
    page.click("#edit-cancel")


def main() -> None:
    """Makes them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("screen-shots"))
    folder: Path = parser.parse_args().folder
    found = find_browser()
    if found is None:
        raise SystemExit(NO_BROWSER)
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        stage = Stage(Path(temporary))
        try:
            stage.start()
            stage.learning_rate(0.0002)  # slower, so that the two runs can be told apart
            stage.train(STEPS_BEFORE)
            stage.stop()
            stage.start("--new_run")
            stage.train(STEPS // 2)
            stage.intervene()
            stage.train(STEPS)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
                photograph(browser, stage, folder)
                browser.close()
        finally:
            stage.stop()


if __name__ == "__main__":
    main()
