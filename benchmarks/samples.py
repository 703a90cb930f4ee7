"""What following a million samples costs: scores per batch, queries, pages, keeping; plain pandas beside it.

update      a batch of 512 with all online scores and its record in the log (aim: 250 µs)
query       filter, sort and the first page of 64 (aim: 150 ms); the same in pandas
page        64 records of a view, over the columns alone (aim: 10 ms)
flush       the logs of 100,000 changed rows are made durable (aim: 500 ms); the trainer does not wait for it
snapshot    samples.h5 worked out anew from the logs, in a thread of its own; how long the longest update beside it was
memory      bytes for a sample

python -m benchmarks.samples [--samples N] [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from graybox.service import wire
from graybox.store.query import parse, rows
from graybox.store.sample_columns import Ratings
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
    return f"{statistics.median(seconds) / unit:,.1f} {name} (10 % to 90 %: {low / unit:,.1f} to {high / unit:,.1f})"


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def update(store: SampleStore, given: list[tuple[Any, ...]]) -> list[float]:
    return [
        timed(lambda one=one, at=at: store.record_batch("train", *one[:3], at, one[3])) for at, one in enumerate(given)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    count, rounds = arguments.samples, arguments.rounds
    print(f"{count:,} samples, {len(COLUMNS)} columns, {rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        store = SampleStore(folder)
        store.add_split("train", count, np.random.default_rng(1).integers(0, CLASSES, count))
        # Every sample was met before, so that nothing is easier than it is in the middle of a training.
        order = np.random.default_rng(2).permutation(count)
        for at in range(0, count, 65_536):
            part, n = order[at : at + 65_536], len(order[at : at + 65_536])
            rated = Ratings(np.random.default_rng(at).random(n, dtype=np.float32), np.zeros(n, np.float32))
            store.record_batch("train", part, np.random.default_rng(at).random(n), part % CLASSES, at, rated)
        store.snapshot()
        given = batches(count, 200)
        print(f"update    {shown(update(store, given), 1e-6, 'µs')}, aim 250 µs")
        flushes = []
        for _ in range(rounds):
            update(store, given)  # 102,400 rows
            flushes.append(timed(store.sync))
        print(f"flush     {shown(flushes, 1e-3, 'ms')} after {200 * BATCH:,} changed rows, aim 500 ms")
        queries(store, rounds)
        snapshots(store, given, rounds)
        state = store.splits["train"].state()
        print(f"memory    {sum(v.nbytes for v in state.values()) / count + 8:,.0f} bytes for a sample")
        store.close()


def queries(store: SampleStore, rounds: int) -> None:
    """Each query in turn with the same in pandas, whose table is made beforehand."""
    table = SampleTable([store.splits["train"]])
    frame = pd.DataFrame({name: table.column(name).values for name in COLUMNS if name not in ("split", "correct")})
    columns = store.splits["train"]
    for text, plain in QUERIES.items():
        ours, theirs, pages = [], [], []
        for _ in range(rounds):
            start = time.perf_counter()
            fresh = SampleTable([columns])
            found = fresh.selection(rows(parse(text), fresh))
            ours.append(time.perf_counter() - start)
            theirs.append(timed(lambda plain=plain: plain(frame).head(PAGE)))
            pages.append(
                timed(lambda found=found: [wire.data_record(columns, int(row), ()) for row in found.row[:PAGE]])
            )
        ratio = statistics.median(theirs) / statistics.median(ours)
        print(f"query     {shown(ours, 1e-3, 'ms')}, aim 150 ms; pandas {statistics.median(theirs) * 1e3:,.1f} ms, "
              f"{ratio:.1f} x; page {statistics.median(pages) * 1e3:.1f} ms, aim 10 ms: {text}")  # fmt: skip


def snapshots(store: SampleStore, given: list[tuple[Any, ...]], rounds: int) -> None:
    """In a thread, as the trainer has it, while batches go on coming."""
    times, longest = [], []
    for _ in range(rounds):
        update(store, given)
        thread = threading.Thread(target=lambda: times.append(timed(store.snapshot)))
        thread.start()
        worst = 0.0
        while thread.is_alive():
            worst = max(worst, *update(store, given[:10]))
            time.sleep(0.02)  # a training step
        thread.join()
        longest.append(worst)
    print(f"snapshot  {shown(times, 1e-3, 'ms')}; longest update beside it {shown(longest, 1e-3, 'ms')}")


if __name__ == "__main__":
    main()
