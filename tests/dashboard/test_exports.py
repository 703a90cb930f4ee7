"""Samples as a file, from the service to whoever asks the dashboard for it."""

from __future__ import annotations

import asyncio
import csv
import io
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi import FastAPI

from graybox.dashboard import exports
from graybox.dashboard.client import CallFailed
from graybox.dashboard.hub import Hub
from graybox.dashboard.pages.data import asking
from graybox.proto import experiment_service_pb2 as pb
from tests.dashboard.toy_service import toy_hub


async def fetch(hub: Hub, address: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """One GET of the route, as an ASGI server would pass it on."""
    server = FastAPI()
    exports.register(server, hub)
    parts = urlsplit(address)
    scope = {
        "type": "http", "method": "GET", "path": parts.path, "raw_path": parts.path.encode(), "root_path": "",
        "query_string": parts.query.encode(), "http_version": "1.1", "scheme": "http", "asgi": {"version": "3.0"},
        "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    told: list[dict[str, Any]] = []
    asked = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if asked.is_set():
            await asyncio.sleep(3600)
        asked.set()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        told.append(message)

    await server(scope, receive, send)
    head = {key.decode(): value.decode() for key, value in told[0]["headers"]}
    return told[0]["status"], head, b"".join(message.get("body", b"") for message in told[1:])


def test_a_view_is_saved_in_its_order(root: Path) -> None:
    async def scene() -> None:
        async with toy_hub(root) as (hub, owner):
            found = await asking.ask(hub, owner.run.run_id, "split == 'train' and loss > 0.2 sortby loss desc")
            wanted = pb.ExportSamplesRequest(
                run_id=owner.run.run_id, view_id=found.view_id, format="csv", columns=["id", "loss"]
            )
            announced = await exports.announced(hub, wanted)
            status, head, body = await fetch(hub, exports.address(wanted))
            assert (status, head["cache-control"]) == (200, "no-store")
            assert head["content-disposition"] == f"attachment; filename*=UTF-8''{announced.file_name}"
            assert head["content-type"].startswith("text/csv")
            table = list(csv.DictReader(io.StringIO(body.decode())))
            page = await hub.ask(
                owner.run.run_id, "GetDataSamples", pb.GetDataSamplesRequest(view_id=found.view_id, records_cnt=100)
            )
            assert [row["id"] for row in table] == [record.sample_id for record in page.data_records]
            assert list(table[0]) == ["id", "loss"]
            assert announced.total_rows == len(table) == found.number_of_matches > 5

    asyncio.run(scene())


def test_what_cannot_be_saved_says_why(root: Path) -> None:
    async def scene() -> None:
        async with toy_hub(root) as (hub, owner):
            run = owner.run.run_id
            for wanted, status, says in (
                (pb.ExportSamplesRequest(run_id=run, view_id="view-gone"), 404, "no view"),
                (pb.ExportSamplesRequest(run_id=run, query="lable == 1"), 503, "do you mean label"),
                (pb.ExportSamplesRequest(run_id=run, format="xlsx"), 503, "xlsx"),
            ):
                with pytest.raises(CallFailed, match=says):
                    await exports.announced(hub, wanted)
                answer = await fetch(hub, exports.address(wanted))
                assert answer[0] == status and says in answer[2].decode()
            other = await fetch(hub, f"/api/export?run={run}", sec_fetch_site="cross-site")
            assert other[0] == 403

    asyncio.run(scene())


def test_the_address_says_all_that_was_asked() -> None:
    wanted = pb.ExportSamplesRequest(run_id="r 1", query="label == 'a&b'", format="jsonl", columns=["a", "tag:b c"])
    given = parse_qs(urlsplit(exports.address(wanted)).query)
    assert given == {"run": ["r 1"], "query": ["label == 'a&b'"], "format": ["jsonl"], "column": ["a", "tag:b c"]}
