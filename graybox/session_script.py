"""A run as a Python script: every intervention at its step, to be read, changed and run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graybox.neuron_ops import edit_from_json
from graybox.replay import RESTORE, Source
from graybox.store.journal import JournalEntry

WIDTH = 116


def session_script(source: Source, experiment: str, new_root: str = "replayed") -> str:
    """The script's text. experiment: FILE.py[:FUNCTION] of the experiment that the run was made with. What it needs
    beside that file are the first weights and the large selections, which it reads from the run's folder."""
    run = source.run
    reference = experiment if ":" in Path(experiment).name else f"{experiment}:get_exp"
    lines = [
        f'"""What was done to run {run.run_id} ({_plain(str(run.record["name"]))}), step by step.',
        "",
        f"Made by `graybox replay`. `python` runs it: a new run under {_plain(new_root)}/ goes the same way.",
        '"""',
        "",
        "from graybox.cli.experiment_file import load_experiment",
        "from graybox.commands import *  # noqa: F403",
        "from graybox.neuron_ops import *  # noqa: F403",
        "from graybox.replay import begin",
        "",
        "if __name__ == '__main__':",
        f"    experiment = load_experiment({reference!r})",
        f"    run = begin({str(run.path.parent)!r}, {run.run_id!r}, experiment, {new_root!r})  # seed {source.seed}",
    ]
    place = (0, False, 0)
    for entry in source.entries:
        lines.append(f"    # {_heading(entry)}")
        if entry.outcome != "applied":
            lines.append(f"    run.skip({entry.kind!r}, {entry.summary!r})")
            continue
        there = (entry.step, bool(entry.arguments.get("evaluated")), int(entry.arguments.get("audited", 0)))
        if there != place:
            lines.insert(-1, f"    run.until({_place(*there)})")
        lines.append(f"    {_call(entry)}")
        place = _behind(entry, there)
    last = max((r.step for r in source.records if r.branch == _last_branch(source)), default=place[0])
    lines += [f"    run.until({_place(max(last, place[0]), False, place[2])})", "    run.close()", ""]
    return "\n".join(lines)


def _heading(entry: JournalEntry) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time_ms / 1000))
    text = f"{entry.sequence}, {when}, {_plain(entry.actor)}: {_plain(entry.summary)}"
    return text if len(text) <= WIDTH else text[: WIDTH - 3] + "..."


def _plain(text: str) -> str:
    """In one line, and nothing that could end a comment or a docstring."""
    return " ".join(text.replace("\\", "/").replace('"""', "'''").split())


def _call(entry: JournalEntry) -> str:
    command = _command(entry.kind, entry.arguments)
    if command is not None:
        return f"run.do({command})"
    arguments = {key: value for key, value in entry.arguments.items() if key not in ("evaluated", "command_id")}
    return f"run.perform({entry.kind!r}, {arguments!r})"


def _command(kind: str, given: Mapping[str, Any]) -> str | None:
    """The command that an intervention came from, as Python; None for one that is better said as the journal does."""
    match kind:
        case "pause" | "resume" | "undo" | "redo":
            return f"{kind.capitalize()}()"
        case "hp_change":
            return f"SetHyperParameters({given['changes']!r})"
        case "neuron_edit":
            if "edit_blob" in given:
                return f"EditNeurons(edit_from_json({given['edit']!r}, run.arrays({given['edit_blob']!r})))"
            shown = repr(edit_from_json(given["edit"]))
            # What holds numbers shows them as NumPy does, which is no Python.
            return (
                f"EditNeurons({shown})" if "array(" not in shown else f"EditNeurons(edit_from_json({given['edit']!r}))"
            )
        case "sample_discard" | "sample_restore":
            return f"DiscardSamples(rows={_rows(given)}, discarded={kind == 'sample_discard'})"
        case "tag_add" | "tag_remove":
            return f"TagSamples(rows={_rows(given)}, tag={given['tag']!r}, value={kind == 'tag_add'})"
        case "label_change":
            label = given["label"] if given["label"] >= 0 else None
            return f"CorrectLabels(rows={_rows(given)}, label={label!r})"
        case "sample_weight" if "weight" in given:
            return f"WeighSamples(rows={_rows(given)}, weight={given['weight']!r})"
        case "metadata_copy":
            return f"CopyColumn({given['source']!r}, {given['name']!r})"
        case "metadata_delete":
            return f"DeleteColumn({given['name']!r})"
        case "query_execute":
            return f"RecordQuery({given['query']!r}, {given['matches']!r})"
    return None


def _rows(given: Mapping[str, Any]) -> str:
    return f"run.arrays({given['rows_blob']!r})" if "rows_blob" in given else repr(given["rows"])


def _place(step: int, evaluated: bool, audited: int) -> str:
    return f"{step}{', evaluated=True' if evaluated else ''}{f', audited={audited}' if audited else ''}"


def _behind(entry: JournalEntry, there: tuple[int, bool, int]) -> tuple[int, bool, int]:
    """Where training stands after an entry: somewhere else after the run went back."""
    if entry.kind != RESTORE or entry.arguments.get("weights_only"):
        return there
    return (-1, False, 0)  # said anew


def _last_branch(source: Source) -> int:
    branches = [int(e.arguments["branch"]) for e in source.entries if e.kind == RESTORE and "branch" in e.arguments]
    return branches[-1] if branches else 0


def write_script(path: Path, text: str) -> None:
    """Raises OSError where it cannot be written."""
    path.write_text(text, encoding="utf-8")
