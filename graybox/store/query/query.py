"""A parsed query."""

from __future__ import annotations

from dataclasses import dataclass, field

from graybox.store.query.tree import Node, Sample, Show, SortKey
from graybox.store.query.wording import node_text, sample_text, show_text, sort_text

COMMANDS = ("reset", "overview")


@dataclass(frozen=True)
class Query:
    """What to find, in the order in which it is done; each part may be absent.

    where: a condition; None all rows. sample: keeps some of the rows found. sort: up to 8 keys, the first decides
    first. limit: at most so many rows. show: what to tell about the rows instead of listing them. command: "",
    "reset" or "overview", which stands alone. source: the text it was parsed from, for errors to cite.
    """

    where: Node | None = None
    sample: Sample | None = None
    sort: tuple[SortKey, ...] = ()
    limit: int | None = None
    show: Show | None = None
    command: str = ""
    source: str = field(default="", compare=False, repr=False)

    def text(self) -> str:
        """The canonical way to write it; `parse` makes an equal query of it."""
        if self.command:
            return f"@{self.command}"
        parts = [
            "" if self.where is None else node_text(self.where),
            "" if self.sample is None else sample_text(self.sample),
            sort_text(self.sort) if self.sort else "",
            "" if self.limit is None else f"limit {self.limit}",
            "" if self.show is None else show_text(self.show),
        ]
        return " ".join(filter(None, parts))
