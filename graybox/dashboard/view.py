"""What a browser gets of the backend's state: plain JSON values, worded for people."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from graybox.dashboard.hub import Hub
from graybox.proto import experiment_service_pb2 as pb

STATE_WORDS = {
    pb.STARTING: "starting",
    pb.RECOVERING: "recovering",
    pb.RUNNING: "running",
    pb.PAUSED: "paused",
    pb.COMPLETED: "completed",
    pb.FAILED: "failed",
    pb.ENDED: "ended",
}

HEALTH_WORDS = {
    pb.GOOD: "good",
    pb.YOUNG: "young",
    pb.DEAD: "dead",
    pb.FROZEN: "frozen",
    pb.OVERFIT: "overfit",
    pb.REDUNDANT: "redundant",
}


def status_view(hub: Hub) -> dict[str, Any]:
    """What the header, the hyper-parameter fields, the banner and the status bar show."""
    status = hub.status
    if status is None:
        waiting = hub.problem or hub.waiting_message()
        return {"version": hub.version, "connected": False, "state": "waiting", "waiting": waiting, "hp": {}}
    return {
        "version": hub.version,
        "connected": True,
        "state": STATE_WORDS.get(status.state, "unknown"),
        "waiting": "",
        "run": status.run_id,
        "name": status.experiment_name,
        "step": status.step,
        "age": status.age,
        "steps_left": status.steps_left,
        "epoch": status.epoch,
        "branch": status.branch,
        "throughput": status.samples_per_second,
        "device": status.device,
        "parameters": status.parameter_count,
        "activity": status.activity,
        "error": status.error,
        "traceback": status.traceback,
        "address": hub.live.address,
        "hash": status.experiment_hash,
        "hp": {desc.name: _field(desc) for desc in hub.hyper_parameters},
    }


def shown_run(focus: Mapping[str, str], status: Mapping[str, Any] | None) -> str:
    """The run that a tab shows, by its stores FOCUS and STATUS: the one its address names, else the one it last saw
    live; empty where it knows of none."""
    return focus.get("run") or (status or {}).get("run") or ""


def _field(desc: pb.HyperParameterDesc) -> dict[str, str]:
    return {"text": hyper_parameter_text(desc), "label": desc.label, "description": desc.description}


def hyper_parameter_text(desc: pb.HyperParameterDesc) -> str:
    """A hyper-parameter's value as one would type it."""
    if desc.type == "text":
        return desc.string_value
    if desc.type == "integer":
        return str(int(desc.numerical_value))
    if desc.type == "bool":
        return "true" if desc.numerical_value else "false"
    return f"{desc.numerical_value:.12g}"


def optional(message: Any, field: str) -> Any:
    """A message's optional field; None where it is absent."""
    return getattr(message, field) if message.HasField(field) else None


def number(value: float, digits: int = 4) -> str:
    """A measured value in few characters: 0.1234, 12.3, 1.2e-07."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    if abs(value) < 10.0**-digits:
        return f"{value:.2e}"
    return f"{value:.{digits}g}"


def share(value: float) -> str:
    """A share in [0, 1] as a percentage."""
    return "NaN" if math.isnan(value) else f"{value * 100:.1f} %"


def count(value: float) -> str:
    """A whole number with thousands separated."""
    return f"{int(value):,}"


def metric(name: str, value: float) -> str:
    """A metric's value; an accuracy is a share."""
    return share(value) if "accuracy" in name and 0 <= value <= 1 else number(value)


def clock(milliseconds: int) -> str:
    """A moment in local time: the hour today, the date before."""
    if not milliseconds:
        return ""
    moment = time.localtime(milliseconds / 1000)
    today = time.localtime()
    same_day = (moment.tm_year, moment.tm_yday) == (today.tm_year, today.tm_yday)
    return time.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M", moment)


def run_title(run: pb.RunInfo) -> str:
    """A run's name for people: what the experiment is called, and when it began."""
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.created_ms / 1000)) if run.created_ms else run.run_id
    return f"{run.experiment_name or 'unnamed'} · {began}"
