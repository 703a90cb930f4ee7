"""How long a newcomer waits: from `graybox demo` on an empty folder to the first curve in the browser.

Each round starts from nothing but the installed packages: a new root directory, a new browser profile. Beside it, what
cannot be less: the time a bare `import torch, torchvision` takes in a new process on the same machine.

    python -m benchmarks.first_curve [--rounds N]
"""

from __future__ import annotations

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from graybox.cli.arguments import free_port
from scripts.browser import FLAGS, NO_BROWSER, find_browser

CURVE = """() => {
    const plot = document.querySelector('#graph-loss .js-plotly-plot');
    return !!plot && !!plot.data && plot.data.some(t => t.mode === 'lines' && t.x && t.x.length > 1);
}"""


def first_curve(browser: Browser, root: Path) -> tuple[float, float]:
    """Seconds until both processes answer, and until the curve is drawn."""
    port, backend_port = free_port(), free_port()
    command = [sys.executable, "-m", "graybox.cli", "demo", f"--root_directory={root}"]
    start = time.perf_counter()
    demo = subprocess.Popen(
        [*command, f"--port={port}", f"--backend_port={backend_port}"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert demo.stdout is not None
        demo.stdout.readline()
        answered = time.perf_counter() - start
        page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_function(CURVE, timeout=120_000)
        drawn = time.perf_counter() - start
        page.context.close()
        return answered, drawn
    finally:
        demo.send_signal(signal.SIGINT)
        demo.wait(90)


def bare_import() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch, torchvision"], check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    found = find_browser()
    if found is None:
        raise SystemExit(NO_BROWSER)
    imports, answers, curves = [], [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        for _ in range(rounds):
            imports.append(bare_import())
            with tempfile.TemporaryDirectory() as folder:
                answered, drawn = first_curve(browser, Path(folder))
            answers.append(answered)
            curves.append(drawn)
        browser.close()
    for title, seconds in (
        ("import torch, torchvision alone", imports),
        ("both processes answer", answers),
        ("first curve in the browser", curves),
    ):
        low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
        print(f"{title:<32} median {middle:5.1f} s   ({low:.1f} to {high:.1f}, {len(seconds)} rounds)")
    print(f"first curve over bare imports: {statistics.median(curves) / statistics.median(imports):.1f}")


if __name__ == "__main__":
    main()
