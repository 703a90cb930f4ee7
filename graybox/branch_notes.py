"""What people call the branches of a run, and what they note of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graybox.commands import NoteBranch
from graybox.errors import Invalid, NotFound
from graybox.intervention import Intervention, Performed
from graybox.store.runs import RunFolder

KIND = "branch_note"
MAX_NAME_LENGTH = 200
MAX_NOTE_LENGTH = 2_000


def resolve(run: RunFolder, command: NoteBranch) -> Intervention:
    """Raises NotFound for a branch that is not there, Invalid for what is no name or note, or for neither."""
    branches = [each.branch for each in run.branches]
    if command.branch not in branches:
        raise NotFound(f"there is no branch {command.branch}; there are {', '.join(map(str, branches))}")
    given = {"name": (command.name, MAX_NAME_LENGTH), "note": (command.note, MAX_NOTE_LENGTH)}
    changes = {what: (text, most) for what, (text, most) in given.items() if text is not None}
    if not changes:
        raise Invalid(f"neither a name nor a note for branch {command.branch} was given; give one, or an empty one")
    for what, (text, most) in changes.items():
        if len(text) > most:
            raise Invalid(f"a branch's {what} has at most {most:,} characters, not {len(text):,}")
        if not (text.replace("\n", "") if what == "note" else text).isprintable():
            raise Invalid(f"a branch's {what} holds a character that cannot be shown")
    return Intervention(KIND, {"branch": command.branch, **{what: text for what, (text, _) in changes.items()}})


def perform(run: RunFolder, arguments: Mapping[str, Any]) -> Performed:
    """Write them into run.json. Raises StorageError where the disk refuses; nothing has changed then."""
    number = arguments["branch"]
    changes = {what: str(arguments[what]) for what in ("name", "note") if what in arguments}
    before = run.change_branch(number, **changes)
    told = []
    if "name" in changes:
        told.append(f"named branch {number} “{changes['name']}”" if changes["name"] else f"branch {number} has no name")
    if "note" in changes:
        told.append(f"noted at branch {number}" if changes["note"] else f"removed the note at branch {number}")
    summary = ", ".join(told)

    def take_back() -> None:
        run.change_branch(number, name=before.name, note=before.note)

    return Performed(summary[0].upper() + summary[1:], take_back=take_back)
