"""A tab that has not heard yet that another run trains: what it asks for is done to its own run or to none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from graybox.dashboard import toasts
from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.dashboard.pages.model.rows import neuron_rows
from graybox.dashboard.settings import Settings
from graybox.dashboard.view import shown_run, status_view
from graybox.proto import experiment_service_pb2 as pb
from graybox.service.server import serve
from graybox.service.settings import Settings as ServerSettings
from graybox.store.root import Root
from tests.patience import PATIENCE
from tests.service.toy_owner import ToyOwner, make_record


@contextmanager
def backend(root: Path, name: str) -> Iterator[ToyOwner]:
    """A new run behind the real service, with a checkpoint '000001'; over at the end of the block."""
    owner = ToyOwner(Root(root), name)
    owner.checkpoints.add(make_record(owner, "", 0))
    running = serve(owner.backend(), ServerSettings(port=0))
    try:
        yield owner
    finally:
        running.stop(grace=0)
        owner.close()


async def follow(hub: Hub, run_id: str) -> None:
    give_up = time.monotonic() + PATIENCE
    while hub.live_run != run_id:
        assert time.monotonic() < give_up, f"did not follow: {hub.problem}"
        await hub.poll_status()
        await asyncio.sleep(0.01)


def freeze() -> pb.ManipulateWeightsRequest:
    return pb.ManipulateWeightsRequest(operation=pb.FREEZE, layer_id="0", neuron_ids=[1])


ACTIONS: dict[str, Callable[[Hub, str], Awaitable[Any]]] = {
    "freeze": lambda hub, run: hub.act(run, "ManipulateWeights", freeze()),
    "discard": lambda hub, run: hub.act(
        run, "EditDataSample", pb.DataEditRequest(stat_name="discarded", samples_ids=["3"], bool_value=True)
    ),
    "restore": lambda hub, run: hub.act(
        run, "RestoreCheckpoint", pb.RestoreCheckpointRequest(experiment_hash="000001")
    ),
    "save": lambda hub, run: hub.act(
        run, "ExperimentCommand", pb.ExperimentCommandRequest(save_checkpoint_operation=pb.SaveCheckpointOperation())
    ),
    "hyper-parameter": lambda hub, run: hub.set_hyper_parameters(run, batch_size=4),
    "pause": lambda hub, run: hub.set_hyper_parameters(run, is_training=False),
}


@pytest.mark.parametrize("restarted_unseen", [False, True])
def test_a_stale_tab_is_told_and_does_nothing_to_the_new_run(root: Path, restarted_unseen: bool) -> None:
    """restarted_unseen: the dashboard itself has not asked for the state since the restart either."""

    async def scene() -> None:
        hub = Hub(Settings(root=root))
        try:
            with backend(root, "first") as first:
                await follow(hub, first.run.run_id)
                tab = shown_run({"run": ""}, status_view(hub))
                assert tab == first.run.run_id
            with backend(root, "second") as second:
                if not restarted_unseen:
                    await follow(hub, second.run.run_id)
                before = second.fingerprint()
                for name, action in ACTIONS.items():
                    answer = await action(hub, tab)
                    assert not answer.success, name
                    (toast, _) = toasts.answer(answer)
                    assert f"run {tab} has ended" in toast["message"], name
                assert (second.fingerprint(), second.applied) == (before, [])
                # Asking was enough to hear of the new run, which the tab shows with its next tick, and acts on.
                tab = shown_run({"run": ""}, status_view(hub))
                assert tab == second.run.run_id
                for name, action in ACTIONS.items():
                    assert (await action(hub, tab)).success, name
        finally:
            await hub.stop()

    asyncio.run(scene())


def test_a_page_that_names_an_ended_run_does_not_save_the_live_one(root: Path) -> None:
    async def scene() -> None:
        hub = Hub(Settings(root=root))
        try:
            with backend(root, "first") as first:
                await follow(hub, first.run.run_id)
            with backend(root, "second") as second:
                await follow(hub, second.run.run_id)
                shown = shown_run({"run": first.run.run_id}, status_view(hub))
                assert not (await ACTIONS["save"](hub, shown)).success
                assert second.applied == []
        finally:
            await hub.stop()

    asyncio.run(scene())


def test_a_tab_that_knows_no_run_does_nothing(root: Path) -> None:
    async def scene() -> None:
        hub = Hub(Settings(root=root))
        try:
            with backend(root, "first") as first:
                await follow(hub, first.run.run_id)
                for action in ACTIONS.values():
                    with pytest.raises(CallFailed, match="which run trains"):
                        await action(hub, shown_run({"run": ""}, None))
                assert first.applied == []
        finally:
            await hub.stop()

    asyncio.run(scene())


def test_a_selection_of_neurons_belongs_to_the_run_it_was_made_in() -> None:
    assert neuron_rows(pb.LayerRepresentation(layer_id="1"), "r1")["run"] == "r1"
