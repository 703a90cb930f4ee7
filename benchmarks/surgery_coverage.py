"""Surgery on every classification network that torchvision knows, with random weights: is it exact?

One row for each: how long tracing takes; and for the median group of neurons by depth, and for one residual stream
where there is one, whether an edit is exact (=), refused with a reason (r) or failed (F):

    p prune           the logits are those of the network with the neurons masked where they are consumed
    a add             the logits are those of before
    f freeze          after 3 steps of Adam the neuron's parameters are what they were, bit for bit, and others are not
    i reinitialise    own initialisation, gain 1 and shift 0 behind it, and nothing else changed
    0 the same with outgoing weights zeroed: the logits are those with the neuron masked where it is consumed next

in float64, in evaluation mode, with calibrated statistics, to 1e-9 of the largest logit, where the mask moves the
logits by at least 1e-7 of it. After each edit but freezing its undo has to bring back the logits, bit for bit. Beside
it the same neuron removed by torch-pruning, judged likewise: right, wrong or error.

Each network has a process of its own. With --json FILE each row is written there as it comes, and what is there already
is not run again.

    python -m benchmarks.surgery_coverage [MODEL ...] [--json FILE] [--limit SECONDS] [--threads N] [--reasons]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks.judge import Judge, case_of, median_group, peer_prune, residual_stream
from benchmarks.oracle import Oracle
from benchmarks.peers import version
from benchmarks.zoo import SIDE, SIDES, SKIPPED, Subject, names, subject
from graybox.operable_network import operable
from graybox.structure import Structure

EDITS = {"prune": "p", "add": "a", "freeze": "f", "reinitialise": "i", "silence": "0"}
MARKS = {"exact": "=", "refused": "r", "failed": "F"}
Row = dict[str, Any]


def examined(given: Subject) -> Row:
    """One row: all edits in the median group and in the residual stream."""
    network, images = given.network, given.images
    started = time.perf_counter()
    structure = Structure.trace(network, images[:1])
    row: Row = {"model": given.name, "side": images.shape[-1], "trace_s": time.perf_counter() - started}
    oracle = Oracle(network, images)
    layers = {"median": median_group(structure), "residual": residual_stream(structure)}
    cases = {name: case_of(oracle, structure, layer) for name, layer in layers.items() if layer is not None}
    if any(case.note for case in cases.values()):  # it was changed to make a neuron visible
        oracle = Oracle(network, images)
        cases = {name: case_of(oracle, structure, case.layer) for name, case in cases.items()}
    peers = {name: peer_prune(given, oracle, case) for name, case in cases.items()}
    edits = Judge(given, operable(network, images[:1]), oracle).all(cases)
    for name, case in cases.items():
        row[name] = {
            "layer": case.layer, "neurons": case.width, "unit": list(case.unit), "note": case.note,
            **edits[name], "torch-pruning": peers[name],
        }  # fmt: skip
    return {**row, "seconds": time.perf_counter() - started}


def in_own_process(name: str, limit: float, threads: int) -> Row:
    """A row, or {"model", "failed": why}."""
    command = [sys.executable, "-m", "benchmarks.surgery_coverage", "--child", name, "--threads", str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"model": name, "failed": f"not done after {limit:g} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"model": name, "failed": f"ended with {done.returncode}: {lines[-1] if lines else 'no word'}"}
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


# -- what is shown ---------------------------------------------------------------------------------------


def verdict(answer: str) -> str:
    """Its first word."""
    return answer.partition(":")[0]


def _verdicts(case: Row, *, all_but: str = "") -> list[str]:
    return [verdict(case[edit]) for edit in EDITS if edit != all_but]


def line(row: Row) -> str:
    if "failed" in row:
        return f"{row['model']:<20} FAILED: {row['failed']}"
    shown = f"{row['model']:<20} {row['trace_s']:>6.2f} s "
    for name in ("median", "residual"):
        case = row.get(name)
        if case is None:
            shown += f"| {'none':<24}"
            continue
        marks = "".join(f"{short}{MARKS[verdict(case[edit])]} " for edit, short in EDITS.items())
        shown += f"| {marks} {verdict(case['torch-pruning']):<7} "
    return shown


def reasons(row: Row) -> list[str]:
    """All that is not exact, in words."""
    found = []
    for name in ("median", "residual"):
        case = row.get(name) or {}
        for edit in (*EDITS, "torch-pruning"):
            if case and case[edit] not in ("exact", "right"):
                found.append(f"    {name} ({case['layer']}), {edit}: {case[edit]}")
        if case.get("note"):
            found.append(f"    {name} ({case['layer']}): {case['note']}, or its mask would move nothing")
    return found


def summary(rows: Iterable[Row]) -> list[str]:
    """Counts over all rows."""
    rows = list(rows)
    broken = [row["model"] for row in rows if "failed" in row]
    rows = [row for row in rows if "failed" not in row]
    shown = []
    for name in ("median", "residual"):
        cases = [row[name] for row in rows if row.get(name)]
        for edit in (*EDITS, "torch-pruning"):
            counts = Counter(verdict(case[edit]) for case in cases)
            told = ", ".join(f"{n} {word}" for word, n in sorted(counts.items()))
            shown.append(f"{name:<9}{edit:<14}of {len(cases):>2}: {told}")
        refused = [row["model"] for row in rows if name in row and "refused" in _verdicts(row[name])]
        kept = [row["model"] for row in rows if name in row and "refused" in _verdicts(row[name], all_but="silence")]
        shown.append(
            f"{name:<9}models with an edit refused: {len(refused)}; with another than zeroing what sums neurons: "
            f"{len(kept)} {' '.join(kept)}"
        )
    failed = sum(_verdicts(row[name]).count("failed") for row in rows for name in ("median", "residual") if name in row)
    traces = [row["trace_s"] for row in rows]
    if traces:
        shown.append(f"trace: median {statistics.median(traces):.2f} s, longest {max(traces):.2f} s")
    broke = f" ({' '.join(broken)})" if broken else ""
    return [*shown, f"{len(rows)} models, {failed} edits failed, {len(broken)} models not finished{broke}"]


def run(wanted: Iterable[str], kept: Path | None, examine: Callable[[str], Row], *, told: bool = False) -> list[Row]:
    """All rows, printed as they come. kept: a file of rows; what is there is not examined again."""
    known: dict[str, Row] = {}
    if kept is not None and kept.exists():
        known = {row["model"]: row for row in json.loads(kept.read_text()) if "failed" not in row}
    rows = []
    for name in wanted:
        row = known[name] if name in known else examine(name)
        known[name] = row
        rows.append(row)
        print("\n".join([line(row), *(reasons(row) if told else ())]), flush=True)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial = kept.with_suffix(".partial")
            partial.write_text(json.dumps(list(known.values()), indent=1) + "\n")
            partial.replace(kept)
    print("\n".join(summary(rows)))
    return rows


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Surgery on every classification network of torchvision.")
    parser.add_argument("models", nargs="*", help="some of them; without, all")
    parser.add_argument("--json", type=Path, help="write rows here, and go on where it ends")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds for one network")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--reasons", action="store_true", help="say of what is not exact why")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    torch.set_num_threads(arguments.threads)
    if arguments.child:
        print(json.dumps(examined(subject(arguments.child))))
        return
    sides = ", ".join(f"{name} {side}" for name, side in SIDES.items())
    print(f"torch {torch.__version__}, torch-pruning {version()}; images of {SIDE} x {SIDE} pixels ({sides})")
    for name, reason in SKIPPED.items():
        print(f"{name:<20} skipped: {reason}")
    print(f"{'model':<20} {'trace':>8} | {'median group':<24}| residual stream")
    run(
        arguments.models or names(), arguments.json,
        lambda name: in_own_process(name, arguments.limit, arguments.threads), told=arguments.reasons,
    )  # fmt: skip


if __name__ == "__main__":
    main()
