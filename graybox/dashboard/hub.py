"""The dashboard's one way to the backend: a poller for the state, and answers shared by all tabs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from graybox.dashboard.archive import Archive
from graybox.dashboard.cache import Answer, AnswerCache
from graybox.dashboard.client import ACTOR, CallFailed, Link
from graybox.dashboard.endpoint import BackendFinder
from graybox.dashboard.metrics_reader import MetricsReader
from graybox.dashboard.settings import Settings
from graybox.proto import experiment_service_pb2 as pb

log = logging.getLogger(__name__)

STATUS_SECONDS = 0.25
IDLE_STATUS_SECONDS = 1.0
TAB_SECONDS = 5.0
"""A tab that has asked nothing for so long is taken for closed."""
STATUS_TIMEOUT = 3.0
COMMAND_TIMEOUT = 60.0


class Hub:
    """Everything the pages know. One per process, living in the server's event loop.

    `status` is None while no live backend answers, and `problem` says why. `version` grows with every change of what
    the header shows, and from one dashboard to the next.
    """

    def __init__(self, settings: Settings, *, archive: Archive | None = None) -> None:
        self.settings = settings
        self.live = Link(
            BackendFinder(settings.root, settings.backend, settings.token), settings.tls, settings.max_message_bytes
        )
        self._archive = archive
        self._past = Link(archive, None, settings.max_message_bytes) if archive else None
        self.cache = AnswerCache()
        self.metrics = MetricsReader(self.ask, self.cache)
        self.status: pb.TrainerStatus | None = None
        self.hyper_parameters: list[pb.HyperParameterDesc] = []
        self.problem = ""
        self.version = time.time_ns() // 1_000_000
        self._on_disk: set[str] = set()
        self._seen_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._polling = asyncio.Lock()

    # -- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start polling, and the archive beside it."""
        if self._archive is not None:
            self._archive.start()
        self._tasks.append(asyncio.ensure_future(self._watch_status()))

    async def stop(self) -> None:
        """Stop polling, close every channel, end the archive."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()
        await self.live.close()
        if self._past is not None:
            await self._past.close()
        if self._archive is not None:
            await self._archive.stop()

    def seen(self) -> None:
        """A tab is open just now."""
        self._seen_at = time.monotonic()

    # -- the live backend ---------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether a live backend answers."""
        return self.status is not None

    @property
    def live_run(self) -> str:
        """The run that trains, or the one the connected backend holds; empty without a backend."""
        return self.status.run_id if self.status is not None else ""

    def waiting_message(self) -> str:
        """What is waited for, for people."""
        return (
            f"Waiting for a backend on {self.live.expected_at()} : start one with "
            f"python graybox_backend.py --root_directory {self.settings.root}, "
            "and --experiment FILE.py for a model of your own"
        )

    async def poll_status(self) -> None:
        """Ask for the state once and keep it. Never raises for a backend that does not answer."""
        # One at a time, so that an answer from before a command is never kept after one from behind it.
        async with self._polling:
            await self._poll_status()

    async def _poll_status(self) -> None:
        try:
            response = await self.live.command(STATUS_TIMEOUT, get_status=True, get_hyper_parameters=True)
        except CallFailed as failure:
            self._lost(failure)
            return
        before = self.status
        self.status = response.status
        self.hyper_parameters = list(response.hyper_parameters_descs)
        if before is None or before.process_start_ms != response.status.process_start_ms:
            log.info("connected to the backend at %s, run %s", self.live.address, response.status.run_id)
            self.cache.drop()
        self.problem = ""
        self.version += 1

    async def _watch_status(self) -> None:
        while True:
            try:
                await self.poll_status()
            except Exception:  # the poller must outlive any defect; it is logged
                log.exception("asking for the state failed")
            idle = time.monotonic() - self._seen_at > TAB_SECONDS
            await asyncio.sleep(IDLE_STATUS_SECONDS if idle else STATUS_SECONDS)

    def _lost(self, failure: CallFailed) -> None:
        problem = self.waiting_message() if failure.unreachable else str(failure)
        if self.status is None and problem == self.problem:
            return
        if self.status is not None:
            log.info("the backend is gone: %s", failure)
            self.cache.drop()
        if failure.unauthorised:
            log.warning("%s", failure)
        self.status = None
        self.hyper_parameters = []
        self.problem = problem
        self.version += 1

    # -- questions ----------------------------------------------------------------------------

    def link_for(self, run_id: str) -> Link:
        """Who can answer about a run: the live backend about its own, the archive about what it has, the live backend
        about the rest. Raises CallFailed when there is nobody to ask.
        """
        if self.connected and run_id in ("", self.live_run):
            return self.live
        if self._past is not None and self._archived(run_id):
            return self._past
        if self.connected:
            return self.live
        raise CallFailed(self.problem or self.waiting_message(), unreachable=True)

    def _archived(self, run_id: str) -> bool:
        if self._archive is None or self._archive.find() is None:
            return False
        return run_id in self._on_disk or not self.connected

    async def ask(self, run_id: str, method: str, request: Any, timeout: float = 20.0) -> Any:
        """One read about a run. Raises CallFailed."""
        return await self.link_for(run_id).call(method, request, timeout)

    async def stream(self, run_id: str, method: str, request: Any, timeout: float) -> AsyncGenerator[Any]:
        """One read about a run whose answer comes piece by piece. Raises CallFailed."""
        async with aclosing(self.link_for(run_id).stream(method, request, timeout)) as pieces:
            async for piece in pieces:
                yield piece

    async def runs(self) -> Answer[list[pb.RunInfo]]:
        """All runs, oldest first; what the live backend says of its own wins."""
        return await self.cache.get(("runs",), 1.5, self._fetch_runs)

    async def _fetch_runs(self) -> list[pb.RunInfo]:
        found: dict[str, pb.RunInfo] = {}
        failures: list[CallFailed] = []
        sources = [self._past] if self._past is not None and self._archive and self._archive.find() else []
        sources += [self.live] if self.connected else []
        for link in sources:
            try:
                response = await link.command(get_runs=True)
            except CallFailed as failure:
                failures.append(failure)
                continue
            if link is self._past:
                self._on_disk = {run.run_id for run in response.runs}
            for run in response.runs:
                if run.live or run.run_id not in found or link is self.live:
                    found[run.run_id] = run
        if failures and not found:
            raise failures[0]
        for run in found.values():
            if run.run_id != self.live_run:
                run.live = False
                run.state = pb.ENDED
        return sorted(found.values(), key=lambda run: (run.created_ms, run.run_id))

    async def focus(self, run_id: str) -> str:
        """The run that a page without a choice of its own shows: the live one, else the newest. May be empty."""
        if run_id:
            return run_id
        if self.live_run:
            return self.live_run
        try:
            runs = (await self.runs()).value
        except CallFailed:
            return ""
        return runs[-1].run_id if runs else ""

    async def checkpoints(self, run_id: str) -> Answer[list[pb.CheckpointInfo]]:
        """The checkpoints of a run, in the order the backend keeps them. Raises CallFailed."""

        async def fetch() -> list[pb.CheckpointInfo]:
            response = await self.link_for(run_id).command(get_checkpoints=True, run_id=run_id)
            return list(response.checkpoints)

        return await self.cache.get(("checkpoints", run_id), self._patience(run_id), fetch)

    async def journal(self, run_id: str) -> Answer[list[pb.JournalEntry]]:
        """The newest 1,000 journal entries of a run, oldest first. Raises CallFailed."""

        async def fetch() -> list[pb.JournalEntry]:
            response = await self.link_for(run_id).command(get_journal=True, run_id=run_id)
            return sorted(response.journal_entries, key=lambda entry: entry.sequence)

        return await self.cache.get(("journal", run_id), self._patience(run_id), fetch)

    async def layers(self, run_id: str) -> Answer[list[pb.LayerRepresentation]]:
        """The layers of a run in the order of the network, without their neurons. Raises CallFailed."""

        async def fetch() -> list[pb.LayerRepresentation]:
            response = await self.link_for(run_id).command(get_interactive_layers=True, run_id=run_id)
            if not response.success and not response.layer_representations:
                raise CallFailed(response.message)
            return list(response.layer_representations)

        return await self.cache.get(("layers", run_id), self._patience(run_id), fetch)

    async def layer(self, run_id: str, layer_id: str) -> Answer[pb.LayerRepresentation]:
        """One layer with its neurons. Raises CallFailed."""

        async def fetch() -> pb.LayerRepresentation:
            response = await self.link_for(run_id).command(get_single_layer_info_id=layer_id, run_id=run_id)
            if not response.layer_representations:
                raise CallFailed(response.message or f"there is no layer {layer_id}")
            return response.layer_representations[0]

        return await self.cache.get(("layer", run_id, layer_id), self._patience(run_id), fetch)

    async def neuron(self, run_id: str, layer_id: str, neuron: int) -> Answer[pb.LayerRepresentation]:
        """One layer with one neuron, and all that is known of it. Raises CallFailed."""

        async def fetch() -> pb.LayerRepresentation:
            response = await self.link_for(run_id).command(
                get_single_layer_info_id=layer_id,
                single_layer_neuron_ids=[neuron],
                with_neuron_details=True,
                run_id=run_id,
            )
            if not response.layer_representations or not response.layer_representations[0].neurons:
                raise CallFailed(response.message or f"there is no neuron {neuron} in layer {layer_id}")
            return response.layer_representations[0]

        return await self.cache.get(("neuron", run_id, layer_id, str(neuron)), self._patience(run_id), fetch)

    async def splits(self, run_id: str) -> list[str]:
        """The names of a run's splits. Raises CallFailed."""

        async def fetch() -> list[str]:
            response = await self.ask(run_id, "GetDataSplits", pb.GetDataSplitsRequest(run_id=run_id))
            return list(response.split_names)

        return (await self.cache.get(("splits", run_id), 10.0, fetch)).value

    async def overview(self, run_id: str) -> Answer[pb.DataQueryResponse]:
        """Which columns and tags the samples of a run have. Raises CallFailed."""

        async def fetch() -> pb.DataQueryResponse:
            request = pb.DataQueryRequest(query="@overview", run_id=run_id, actor=ACTOR)
            response = await self.ask(run_id, "ApplyDataQuery", request)
            if not response.success:
                raise CallFailed(response.message)
            assert isinstance(response, pb.DataQueryResponse)
            return response

        return await self.cache.get(("overview", run_id), 2.0, fetch)

    def class_names(self, run_id: str) -> list[str]:
        """The names of a run's classes by number, as far as they are known: an ended run does not tell them."""
        return list(self.status.class_names) if self.status is not None and run_id == self.live_run else []

    def _patience(self, run_id: str) -> float:
        return 0.7 if self.connected and run_id in ("", self.live_run) else 5.0

    # -- commands -----------------------------------------------------------------------------

    async def act(self, run_id: str, method: str, request: Any) -> Any:
        """Send a command to the live backend, once; what was read before is asked anew. Raises CallFailed.

        run_id: the run that the tab shows. The backend refuses it when it trains another one by now, so that a tab
        that has not heard of it yet does nothing to a run it does not show.
        """
        request.command_id = uuid.uuid4().hex
        try:
            return await self.ask_live(run_id, method, request)
        finally:
            self.cache.drop()
            await self.poll_status()

    async def ask_live(self, run_id: str, method: str, request: Any) -> Any:
        """Ask the live backend about the run that the tab shows what only a trainer can answer. Raises CallFailed."""
        if not self.connected:
            raise CallFailed(self.problem or self.waiting_message(), unreachable=True)
        if not run_id:
            raise CallFailed("this page does not know yet which run trains; try again in a moment")
        request.run_id = run_id
        request.actor = ACTOR
        return await self.live.call(method, request, COMMAND_TIMEOUT)

    async def set_hyper_parameters(self, run_id: str, **changes: Any) -> pb.CommandResponse:
        """Change hyper-parameters of a run, all or none. Raises CallFailed."""
        change = pb.HyperParameterChange(hyper_parameters=pb.HyperParameters(**changes))
        request = pb.ExperimentCommandRequest(hyper_parameter_change=change)
        response = await self.act(run_id, "ExperimentCommand", request)
        assert isinstance(response, pb.CommandResponse)
        return response
