"""What following many samples costs: scores per batch, queries, pages, keeping; plain pandas beside it.

update      a batch of 512 with all online scores and its record in the log (aim: 250 µs at a million)
step        the same between two steps of a plain ResNet-18 on batches of 512 x 3 x 32 x 32 (aim: 1 % of the step)
query       filter, sort and the first page of 64 (aim: 150 ms at a million); the same in pandas
page        64 records of a view, over the columns alone (aim: 10 ms)
changes     what a batch of 512 changed, found among all samples; and that nothing did
flush       the logs of 100,000 changed rows are made durable (aim: 500 ms); the trainer does not wait for it
snapshot    samples.h5 worked out anew from the logs, in a thread of this process and in a process of its own, in turn;
            how long the longest update beside it was; memory of that process
memory      bytes for a sample in memory, and in samples.h5

    python -m benchmarks.samples [--samples N [N ...]] [--rounds N] [--no-step] [--device cuda]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from graybox.service import wire
from graybox.store import sample_compaction
from graybox.store.query import parse, rows
from graybox.store.sample_columns import Ratings
from graybox.store.sample_query import SampleFilter
from graybox.store.sample_table import COLUMNS, SampleTable
from graybox.store.samples import SampleStore

BATCH = 512
CLASSES = 10
PAGE = 64
QUERIES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "loss > 0.9 sortby loss desc, id limit 64": lambda frame: frame[frame.loss > 0.9].sort_values(
        ["loss", "id"], ascending=[False, True]
    ),
    "aum < p5 and label == 3 sortby aum limit 64": lambda frame: frame[
        (frame.aum < frame.aum.quantile(0.05)) & (frame.label == 3)
    ].sort_values("aum"),
    "forgetting >= 1 and confidence_mean between 0.3 and 0.7 sortby loss_std desc limit 64": lambda frame: frame[
        (frame.forgetting >= 1) & frame.confidence_mean.between(0.3, 0.7)
    ].sort_values("loss_std", ascending=False),
}
Figures = dict[str, str]
"""What was measured at one number of samples, by what it is."""


def batches(count: int, number: int) -> list[tuple[Any, ...]]:
    """Random rows, losses, predictions and ratings: what they are makes no difference to the time."""
    random = np.random.default_rng(0)
    return [
        (
            random.integers(0, count, BATCH),
            random.random(BATCH, dtype=np.float32),
            random.integers(0, CLASSES, BATCH),
            Ratings(random.random(BATCH, dtype=np.float32), random.normal(size=BATCH).astype(np.float32)),
        )
        for _ in range(number)
    ]


def shown(seconds: list[float], unit: float, name: str) -> str:
    low, high = np.percentile(seconds, [10, 90])
    return f"{statistics.median(seconds) / unit:,.1f} {name} ({low / unit:,.1f} to {high / unit:,.1f})"


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def update(store: SampleStore, given: list[tuple[Any, ...]]) -> list[float]:
    return [
        timed(lambda one=one, at=at: store.record_batch("train", *one[:3], at, one[3])) for at, one in enumerate(given)
    ]


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def most_of_a_child() -> int:
    """The most bytes that any process of this one's had in memory; 0 where there is none."""
    most = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
            if int(status["PPid"]) == os.getpid():
                most = max(most, int(status.get("VmHWM", "0 kB").split()[0]))
    return most * 1024


def filled(folder: str, count: int) -> SampleStore:
    """Every sample was met before, so that nothing is easier than it is in the middle of a training."""
    store = SampleStore(folder)
    store.add_split("train", count, np.random.default_rng(1).integers(0, CLASSES, count))
    order = np.random.default_rng(2).permutation(count)
    for at in range(0, count, 65_536):
        part, n = order[at : at + 65_536], len(order[at : at + 65_536])
        rated = Ratings(np.random.default_rng(at).random(n, dtype=np.float32), np.zeros(n, np.float32))
        store.record_batch("train", part, np.random.default_rng(at).random(n), part % CLASSES, at, rated)
    return store


def measured(count: int, rounds: int, device: str | None) -> Figures:
    figures: Figures = {}

    def tell(name: str, figure: str) -> None:
        figures[name] = figure
        print(f"{name:<60} {figure}", flush=True)

    print(f"{count:,} samples, {len(COLUMNS)} columns, {rounds} rounds; medians (10 % to 90 %)")
    with tempfile.TemporaryDirectory() as folder:
        before = resident()
        store = filled(folder, count)
        tell("bytes for a sample in memory", f"{(resident() - before) / count:,.0f}")
        store.snapshot()
        tell("bytes for a sample in samples.h5", f"{(Path(folder) / 'samples.h5').stat().st_size / count:,.0f}")
        given = batches(count, 200)
        update(store, given)
        times, flushes = [], []
        for _ in range(rounds):
            times += update(store, given)
            flushes.append(timed(store.sync))
        tell("update of a batch, aim 250 µs", shown(times, 1e-6, "µs"))
        if device is not None:
            beside_training(store, given, rounds, device, tell)
        tell(f"flush of {200 * BATCH:,} changed rows, aim 500 ms", shown(flushes, 1e-3, "ms"))
        queries(store, rounds, tell)
        changes(store, given, rounds, tell)
        snapshots(store, given, rounds, tell)
        store.close()
    return figures


def beside_training(
    store: SampleStore, given: list[tuple[Any, ...]], rounds: int, device: str, tell: Callable[[str, str], None]
) -> None:
    """Between two steps, as in training: the processor's caches hold the network by then."""
    import torch

    from benchmarks.networks import PLAIN, resnet18

    torch.manual_seed(0)
    model = resnet18(PLAIN).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    x, y = torch.randn(BATCH, 3, 32, 32, device=device), torch.randint(0, CLASSES, (BATCH,), device=device)
    steps, updates = [], []
    for at in range(rounds + 2):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        loss.item()  # waits for the device
        steps.append(time.perf_counter() - start)
        updates += update(store, given[at : at + 1])
    steps, updates = steps[2:], updates[2:]
    share = [one / step for one, step in zip(updates, steps, strict=True)]
    where = f"{torch.get_num_threads()} threads" if device == "cpu" else torch.cuda.get_device_name()
    tell(f"step of ResNet-18 on {BATCH} x 3 x 32 x 32, {where}", shown(steps, 1e-3, "ms"))
    tell("update between two steps", shown(updates, 1e-6, "µs"))
    tell("of the step, aim 1 %", shown(share, 1e-2, "%").replace(".0 %", " %"))


def queries(store: SampleStore, rounds: int, tell: Callable[[str, str], None]) -> None:
    """Each query in turn with the same in pandas, whose table is made beforehand."""
    columns = store.splits["train"]
    table = SampleTable([columns])
    frame = pd.DataFrame({name: table.column(name).values for name in COLUMNS if name not in ("split", "correct")})
    pages: list[float] = []
    for text, plain in QUERIES.items():
        ours, theirs = [], []
        for _ in range(rounds):
            start = time.perf_counter()
            fresh = SampleTable([columns])
            found = fresh.selection(rows(parse(text), fresh))
            ours.append(time.perf_counter() - start)
            theirs.append(timed(lambda plain=plain: plain(frame).head(PAGE)))
            pages.append(
                timed(lambda found=found: [wire.data_record(columns, int(row), ()) for row in found.row[:PAGE]])
            )
        tell(f"`{text}`", f"{shown(ours, 1e-3, 'ms')}; pandas {statistics.median(theirs) * 1e3:,.1f}")
    tell(f"page of {PAGE} records, aim 10 ms", shown(pages, 1e-3, "ms"))


def changes(store: SampleStore, given: list[tuple[Any, ...]], rounds: int, tell: Callable[[str, str], None]) -> None:
    """As GetDataSamples with a cursor asks, but for the records."""
    some, none = [], []
    cursor = store.cursor()
    for at in range(rounds):
        update(store, given[at : at + 1])
        for times in (some, none):
            start = time.perf_counter()
            found = store.changed_since(cursor, store.select(SampleFilter()), 1_000)
            cursor = found.cursor
            store.summary()
            times.append(time.perf_counter() - start)
            if len(found.selection) != (len(set(given[at][0].tolist())) if times is some else 0):
                raise RuntimeError("other samples were found than changed; the figures would be worth nothing")
    tell(f"what changed in a batch of {BATCH}, found among all", shown(some, 1e-3, "ms"))
    tell("that nothing changed", shown(none, 1e-6, "µs"))


def snapshots(store: SampleStore, given: list[tuple[Any, ...]], rounds: int, tell: Callable[[str, str], None]) -> None:
    """While batches go on coming, as in training."""
    usual, peak = sample_compaction.IN_THE_THREAD, 0
    took: dict[str, list[float]] = {"thread": [], "process": []}
    longest: dict[str, list[float]] = {"thread": [], "process": []}
    for _ in range(rounds):
        for where, times in took.items():
            update(store, given)
            sample_compaction.IN_THE_THREAD = 0 if where == "process" else 1 << 50
            thread = threading.Thread(target=lambda times=times: times.append(timed(store.snapshot)))
            thread.start()
            worst = 0.0
            while thread.is_alive():
                worst = max(worst, *update(store, given[:10]))
                peak = max(peak, most_of_a_child())
                time.sleep(0.02)  # a training step
            thread.join()
            longest[where].append(worst)
    sample_compaction.IN_THE_THREAD = usual
    for where in took:
        tell(f"snapshot, in a {where}{' of its own' if where == 'process' else ''}", shown(took[where], 1e-3, "ms"))
        tell(f"longest update beside it, in a {where}", shown(longest[where], 1e-3, "ms"))
    tell("memory of the snapshot's process", f"{peak / 1e6:,.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[1_000_000], help="several: one after the other")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-step", action="store_true", help="without ResNet-18, and without torch")
    parser.add_argument("--device", default="cpu", help="where ResNet-18 trains (default: cpu)")
    arguments = parser.parse_args()
    device = None if arguments.no_step else arguments.device
    found = {count: measured(count, arguments.rounds, device) for count in sorted(arguments.samples)}
    if len(found) > 1:
        print("\n| samples | " + " | ".join(f"{count:,}" for count in found) + " |\n|---" + "|---" * len(found) + "|")
        for name in next(iter(found.values())):
            print(f"| {name} | " + " | ".join(figures[name] for figures in found.values()) + " |")


if __name__ == "__main__":
    main()
