"""What a person names on a command line: a root directory, a run's folder, or a checkpoint of either."""

from __future__ import annotations

from pathlib import Path

from graybox.errors import NotFound, StorageError
from graybox.store.checkpoints import CheckpointCatalogue, CheckpointRecord
from graybox.store.root import Root
from graybox.store.runs import RECORD_NAME, RunFolder

HELP = "a root directory (its newest run), a run's folder, or either with @CHECKPOINT: an id, hash or hash@@step=N"


class Place:
    """A run, and a checkpoint of it where one is named. Only ever read.

    text: `ROOT`, `ROOT/RUN`, or one of them with `@REFERENCE` behind it; a folder whose own name has an @ is found
    first. Raises NotFound for what is not there, Invalid for what names no checkpoint.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        path, self.reference = _split(text)
        if (path / RECORD_NAME).is_file():
            self.run = RunFolder(path)
        else:
            found = Root(path, read_only=True).latest_run()
            if found is None:
                raise NotFound(f"there is no run in {path}: name a root directory, or a run's folder in it")
            self.run = found
        self.checkpoints = CheckpointCatalogue(self.run.path / "checkpoints")
        if self.reference:
            self.checkpoint()  # what is wrong with it is said now

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.run.run_id}@{self.reference}" if self.reference else self.run.run_id

    def checkpoint(self) -> CheckpointRecord | None:
        """The one that is named, else the newest whole one; None where there is none yet."""
        if self.reference:
            return self.checkpoints.resolve(self.reference)[0]
        return self.checkpoints.newest_whole()

    def file_of(self, record: CheckpointRecord) -> Path:
        """Its file, the checksum compared. Raises StorageError where it is broken or gone."""
        if not self.checkpoints.verify(record):
            raise StorageError(f"checkpoint {record.id} of {self.run.run_id} is broken, or was removed just now")
        return self.checkpoints.folder / record.file


def _split(text: str) -> tuple[Path, str]:
    whole = Path(text).expanduser()
    if whole.is_dir():
        return whole, ""
    at = text.rfind("@")
    while at > 0:  # the longest first: a folder's own name may have an @
        path = Path(text[:at]).expanduser()
        if path.is_dir():
            return path, text[at + 1 :]
        at = text.rfind("@", 0, at)
    folder = text.partition("@")[0]
    raise NotFound(f"there is no folder {folder!r} in {Path.cwd()}: name a root directory, or a run's folder in it")
