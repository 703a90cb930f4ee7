"""What the buttons of the model page ask for, as the wire wants it. Raises ValueError with a message for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graybox.proto import experiment_service_pb2 as pb

OPERATIONS = {
    "freeze": pb.FREEZE,
    "unfreeze": pb.UNFREEZE,
    "freeze-bias": pb.FREEZE_BIAS,
    "freeze-incoming": pb.FREEZE_INCOMING,
    "reinitialise": pb.REINITIALIZE,
    "zerofy": pb.ZEROFY,
    "set-learning-rate": pb.CHANGE_LEARNING_RATE,
}
"""Done at once; the toast undoes them."""
STRUCTURAL = {
    "remove-neurons": pb.REMOVE_NEURONS,
    "add-neurons": pb.ADD_NEURONS,
    "sort-neurons": pb.SORT_BY_STAT,
}
"""Shown as a plan first."""
FREE = frozenset({"add-neurons", "sort-neurons", "freeze-incoming"})
"""What needs a layer but no neurons."""

OPTIONS = {
    "perturbation-ratio": "value",
    "zero-outgoing": "checked",
    "neuron-learning-rate": "value",
    "incoming-neurons": "value",
    "zerofy-incoming": "value",
    "zerofy-from-frozen": "checked",
    "zerofy-from-older": "checked",
    "add-count": "value",
    "sort-statistic": "value",
    "sort-ascending": "checked",
}
"""The fields that say how, by the property that holds their value."""

STATISTICS = {
    "trigger_rate": "Trigger rate in training",
    "eval_trigger_rate": "Trigger rate in evaluation",
    "mean_activation": "Mean activation",
    "std_activation": "Spread of the activation",
    "weight_norm": "Weight norm",
    "gradient_norm": "Gradient norm",
    "relative_change": "Change since the checkpoint",
    "age": "Samples seen",
}
"""What a trainer sorts and selects by, and what it is called here."""
MAX_INDEX = 2**31 - 1
MAX_LISTED = 100_000


def edit_request(
    button: str, selection: Mapping[str, Any] | None, options: Mapping[str, Any]
) -> pb.ManipulateWeightsRequest:
    """The edit that a button stands for.

    An empty selection is refused here where the edit is of neurons: on the wire it would mean all of the layer.
    """
    selection = selection or {}
    request = pb.ManipulateWeightsRequest(operation={**OPERATIONS, **STRUCTURAL}[button])
    _choose(request, button, selection)
    match button:
        case "reinitialise":
            request.zero_outgoing = bool(options.get("zero-outgoing"))
            ratio = _text(options, "perturbation-ratio")
            if ratio:
                request.perturbation_ratio = _number(ratio, "The perturbation ratio is a number between 0 and 1")
        case "set-learning-rate":
            factor = _text(options, "neuron-learning-rate")
            rule = "The factor on the learning rate is a number of 0 or more, such as 0.5"
            request.learning_rate = _number(factor, rule)
        case "freeze-incoming":
            request.neuron_ids.extend(indices(_text(options, "incoming-neurons")))
        case "zerofy":
            incoming = _text(options, "zerofy-incoming")
            request.incoming_ids.extend(indices(incoming) if incoming else [])
            request.from_frozen = bool(options.get("zerofy-from-frozen"))
            request.from_older = bool(options.get("zerofy-from-older"))
        case "add-neurons":
            request.count = _whole(_text(options, "add-count"), "The number of neurons to add is 1 or more")
        case "sort-neurons":
            request.statistic = _text(options, "sort-statistic") or "trigger_rate"
            request.descending = not options.get("sort-ascending")
    return request


def _choose(request: pb.ManipulateWeightsRequest, button: str, selection: Mapping[str, Any]) -> None:
    query = selection.get("query")
    if query and button == "freeze-incoming":
        raise ValueError("Incoming connections are those of one layer; clear the selection over all layers first.")
    if query:
        request.selection.all_layers = True
        if button not in FREE:
            _fill(request.selection, query)
        return
    if not selection.get("layer"):
        raise ValueError("Choose a layer first.")
    request.layer_id = str(selection["layer"])
    if button in FREE:
        return
    neurons = selection.get("neurons") or []
    if not neurons:
        raise ValueError("Select at least one neuron first.")
    request.neuron_ids.extend(neurons)


def _fill(wanted: pb.NeuronSelection, query: Mapping[str, Any]) -> None:
    if query.get("health"):
        wanted.health = pb.NeuronHealth.Value(str(query["health"]).upper())
    amount = query.get("amount")
    if not amount:
        return
    if query.get("unit") == "percent":
        wanted.share = float(amount) / 100
    else:
        wanted.lowest = int(amount)
    wanted.statistic = str(query.get("statistic") or "trigger_rate")
    wanted.highest = bool(query.get("highest"))


def indices(text: str) -> list[int]:
    """What "0, 4-7" names: 0, 4, 5, 6, 7; in order, each once."""
    rule = "Neurons are written as 3, 5-9"
    found: set[int] = set()
    for part in text.replace(",", " ").split():
        first, dash, last = part.partition("-")
        low = _whole(first, rule, 0)
        high = _whole(last, rule, low) if dash else low
        if high - low > MAX_LISTED or len(found) > MAX_LISTED:
            raise ValueError(f"At most {MAX_LISTED:,} neurons can be written down.")
        found.update(range(low, high + 1))
    if not found:
        raise ValueError(f"{rule}; none was written.")
    return sorted(found)


def _text(options: Mapping[str, Any], name: str) -> str:
    value = options.get(name)
    return "" if value is None else str(value).strip()


def _number(text: str, rule: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{rule}, not {text!r}.") from None


def _whole(text: str, rule: str, least: int = 1) -> int:
    if not (text.isascii() and text.isdigit()) or not least <= int(text) <= MAX_INDEX:
        raise ValueError(f"{rule}, not {text!r}.")
    return int(text)
