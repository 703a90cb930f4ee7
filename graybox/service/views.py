"""Views: what a query found, under an id that whoever reads it passes, so that two people do not share one filter."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graybox.errors import NotFound
from graybox.service import limits
from graybox.store.sample_query import Selection

KEPT_VIEWS = 64
KEPT_ROWS = 20_000_000
"""Of all views together, 10 bytes each; the newest is kept however long it is."""


@dataclass(frozen=True)
class View:
    """Samples as a query found them at that moment, in its order."""

    view_id: str
    run_id: str
    query: str
    selection: Selection

    def rows(self) -> dict[str, NDArray[np.int64]]:
        """By split, int64 [n]."""
        found = self.selection
        each = {name: found.row[found.split == number] for number, name in enumerate(found.splits)}
        return {name: rows for name, rows in each.items() if len(rows)}


class Views:
    """The newest views of all runs. Usable from several threads."""

    def __init__(self) -> None:
        self._views: OrderedDict[str, View] = OrderedDict()
        self._guard = threading.Lock()

    def add(self, run_id: str, query: str, selection: Selection) -> View:
        """Keep what a query found; the oldest view goes when there are too many."""
        made = View(f"view-{secrets.token_hex(8)}", run_id, query, selection)
        with self._guard:
            self._views[made.view_id] = made
            rows = sum(len(view.selection) for view in self._views.values())
            while len(self._views) > KEPT_VIEWS or (rows > KEPT_ROWS and len(self._views) > 1):
                _, gone = self._views.popitem(last=False)
                rows -= len(gone.selection)
        return made

    def get(self, view_id: str, run_id: str) -> View:
        """Raises NotFound for one that was never made of this run, or is no longer kept."""
        limits.check_text("view_id", view_id, limits.MAX_NAME)
        with self._guard:
            found = self._views.get(view_id)
            if found is not None and found.run_id == run_id:
                self._views.move_to_end(view_id)  # in use: others go first
                return found
        raise NotFound(
            f"there is no view {view_id!r} of this run; ask the query again: the {KEPT_VIEWS} newest are kept, until "
            "the backend ends"
        )
