"""Where a request finds the run it is about, and what all servicers share."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from graybox.errors import GrayboxError, Refused
from graybox.service import limits
from graybox.service.backend import Backend, open_ended
from graybox.service.views import Views
from graybox.store.root import Root

OPEN_RUNS = 4
"""Runs that have ended and are kept in memory for the next request."""


class Desk:
    """The live backend, if there is one, and the other runs of its root, opened read-only as they are asked for."""

    def __init__(self, root: Root, live: Backend | None) -> None:
        self.root = root
        self.live = live
        self.logger_gate = limits.Gate(
            limits.LOGGER_READS,
            f"{limits.LOGGER_READS} GetLatestLoggerData calls are running already; ask again in a moment",
        )
        self.owner_gate = limits.Gate(
            limits.WAITING_AT_OWNER,
            f"{limits.WAITING_AT_OWNER} requests wait for the trainer already; ask again in a moment",
        )
        self.image_gate = limits.Gate(
            limits.PICTURE_READS,
            f"{limits.PICTURE_READS} requests for pictures are answered already; ask again in a moment",
        )
        self.language_gate = limits.Gate(
            limits.LANGUAGE_CALLS,
            f"{limits.LANGUAGE_CALLS} questions are put to the language model already; ask again in a moment",
        )
        self.export_gate = limits.Gate(
            limits.EXPORTS, f"{limits.EXPORTS} exports are being sent already; ask again when one has ended"
        )
        self.views = Views()
        self.image_pool = ThreadPoolExecutor(limits.IMAGE_THREADS, thread_name_prefix="graybox-image")
        self._lock = threading.Lock()
        self._ended: OrderedDict[str, Backend] = OrderedDict()

    def run(self, run_id: str) -> Backend:
        """The run a request means. Empty: the live one, else the newest.

        Raises NotFound for an unknown run, and Refused where no run is named and there is none.
        """
        limits.check_text("run_id", run_id, limits.MAX_NAME)
        live = self.live
        if live is not None and run_id in ("", live.run.run_id):
            return live
        if not run_id:
            newest = self.root.latest_run()
            if newest is None:
                raise Refused(f"there is no run in {self.root.path} yet; start a backend to make one")
            run_id = newest.run_id
        return self._open(run_id)

    def check(self, run_id: str) -> None:
        """Raises NotFound for a run that is named and does not exist."""
        limits.check_text("run_id", run_id, limits.MAX_NAME)
        if run_id and (self.live is None or run_id != self.live.run.run_id):
            self.root.run(run_id)

    def run_id(self, asked: str) -> str:
        """The id of the run a request means, for an answer that cannot say more; empty where there is none."""
        if asked:
            return asked
        if self.live is not None:
            return self.live.run.run_id
        try:
            newest = self.root.latest_run()
        except GrayboxError:
            return ""
        return newest.run_id if newest is not None else ""

    def close(self) -> None:
        """Ends the threads that load pictures; the live backend stays with its owner."""
        self.image_pool.shutdown(wait=True, cancel_futures=True)

    def _open(self, run_id: str) -> Backend:
        folder = self.root.run(run_id)
        with self._lock:
            backend = self._ended.get(run_id)
            if backend is None:
                # Read-only stores hold no files open, so that those pushed out need no closing.
                backend = self._ended[run_id] = open_ended(self.root, folder)
                while len(self._ended) > OPEN_RUNS:
                    self._ended.popitem(last=False)
            self._ended.move_to_end(run_id)
            # The other stores follow their files by themselves; a backend may have taken the run up meanwhile.
            backend.samples.refresh()
            return backend
