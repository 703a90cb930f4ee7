"""One neuron in the side panel: how it is and why, its rate per class, the samples that excite it most."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from dash import html

from graybox.dashboard.attributes import attributes
from graybox.dashboard.icons import icon
from graybox.dashboard.view import HEALTH_WORDS, count, number, optional, share
from graybox.proto import experiment_service_pb2 as pb

CLASSES_SHOWN = 24
SAMPLES_SHOWN = 12
THUMBNAIL = 64


def empty(message: str = "Click a neuron to see more of it.") -> html.Div:
    """What the panel says where there is no neuron to show."""
    return html.Div(
        [html.Span(icon("binary-tree", 26), className="gb-empty-icon"), html.Div(message, className="gb-muted")],
        className="gb-empty",
    )


def panel(layer: pb.LayerRepresentation, run_id: str, classes: Sequence[str]) -> list[Any]:
    """A layer that holds the one neuron, as the panel shows it. classes: names by number."""
    neuron = layer.neurons[0]
    word = HEALTH_WORDS.get(neuron.health, "")
    return [
        html.Div(
            [
                html.Div(f"{layer.layer_name} / {neuron.neuron_id}", className="gb-detail-title"),
                html.Span(word, className=f"gb-chip gb-chip-{word}") if word else None,
            ],
            className="gb-detail-head gb-detail-first",
        ),
        html.P(reason(neuron), className="gb-small gb-reason", id="neuron-health-reason"),
        html.Dl(_facts(neuron), className="gb-facts"),
        *_classes(neuron, classes),
        *_samples(neuron, run_id),
    ]


def reason(neuron: pb.NeuronStatistics) -> str:
    """A neuron's health in a sentence, with the figures behind it."""
    recent, tested = optional(neuron, "window_trigger_rate"), optional(neuron, "eval_window_trigger_rate")
    train = share(neuron.train_trigger_rate if recent is None else recent)
    evaluation = share(neuron.eval_trigger_rate if tested is None else tested)
    match neuron.health:
        case pb.YOUNG:
            return f"Has seen {count(neuron.train_age)} training samples since it began: too few to judge."
        case pb.DEAD:
            return f"Answers to {train} of the training samples of late: it hardly ever triggers."
        case pb.OVERFIT:
            return f"Answers to {train} of the training samples of late but to {evaluation} in evaluation."
        case pb.REDUNDANT if neuron.HasField("redundant_with"):
            alike = f" ({share(neuron.similarity)} alike)" if neuron.HasField("similarity") else ""
            return f"Nearly parallel to neuron {neuron.redundant_with}{alike}: one of the two could go."
        case pb.REDUNDANT:
            return "Nearly parallel to another neuron: one of the two could go."
        case pb.FROZEN:
            return "Gets no update, its normalisation included, until it is unfrozen."
        case pb.GOOD:
            return f"Answers to {train} of the training samples of late; nothing stands out."
    return "Not judged."


def _facts(neuron: pb.NeuronStatistics) -> list[Any]:
    def spread(mean: str, deviation: str) -> str:
        middle, width = optional(neuron, mean), optional(neuron, deviation)
        if middle is None:
            return ""
        return number(middle, 3) + (f" ± {number(width, 3)}" if width is not None else "")

    def measured(field: str, form: Callable[[float], str] = number) -> str:
        value = optional(neuron, field)
        return "" if value is None else form(value)

    frozen = [w for w, on in (("neuron", neuron.frozen), ("bias", neuron.bias_frozen)) if on]
    facts = {
        "Rate, training": share(neuron.train_trigger_rate),
        "Rate, evaluation": share(neuron.eval_trigger_rate) if neuron.eval_age else "",
        "Rate, recently": measured("window_trigger_rate", share),
        "Activation, training": spread("train_mean", "train_std"),
        "Activation, evaluation": spread("eval_mean", "eval_std"),
        "Samples": count(neuron.train_age),
        "Weight norm": measured("weight_norm"),
        "Gradient norm": measured("gradient_norm"),
        "Change since checkpoint": measured("relative_change", share),
        "Learning rate ×": "" if neuron.learning_rate == 1 else number(neuron.learning_rate),
        "Frozen": " and ".join(frozen),
    }
    return [part for name, text in facts.items() if text for part in (html.Dt(name), html.Dd(text))]


def _classes(neuron: pb.NeuronStatistics, names: Sequence[str]) -> list[Any]:
    rates = [(n, rate) for n, rate in enumerate(neuron.class_trigger_rates) if math.isfinite(rate)]
    if not rates:
        return []
    shown = sorted(rates, key=lambda row: -row[1])[:CLASSES_SHOWN] if len(rates) > CLASSES_SHOWN else rates
    rows = []
    for n, rate in shown:
        name = names[n] if n < len(names) and names[n] else str(n)
        bar = html.Span(className="gb-class-bar", style={"width": f"{100 * min(max(rate, 0.0), 1.0):.1f}%"})
        rows.append(
            html.Div(
                [
                    html.Span(name, className="gb-class-name", title=name),
                    html.Span(bar, className="gb-class-track"),
                    html.Span(f"{100 * rate:.0f} %", className="gb-class-rate gb-number", title=share(rate)),
                ],
                className="gb-class-row",
            )
        )
    rest = f" (the highest {len(shown)} of {len(rates)})" if len(shown) < len(rates) else ""
    return [
        html.Div(f"Trigger rate per class{rest}", className="gb-detail-heading"),
        html.Div(rows, id="neuron-classes", className="gb-classes"),
    ]


def _samples(neuron: pb.NeuronStatistics, run_id: str) -> list[Any]:
    if not neuron.top_samples:
        return []
    pictures = []
    for sample in neuron.top_samples[:SAMPLES_SHOWN]:
        name = f"{sample.origin} / {sample.sample_id}"
        said = f"{name}: {number(sample.activation)}" if sample.HasField("activation") else name
        place = "/".join(quote(part, safe="") for part in (run_id, sample.origin, sample.sample_id))
        pictures.append(
            html.Figure(
                [
                    html.Img(
                        src=f"/thumbnail/{place}?size={THUMBNAIL}",
                        alt="",
                        className="gb-thumbnail gb-exciting",
                        **attributes({"data-sample": f"{sample.origin}/{sample.sample_id}"}),
                    ),
                    html.Figcaption(sample.sample_id, className="gb-muted"),
                ],
                title=said,
            )
        )
    return [
        html.Div("Samples that excite it most", className="gb-detail-heading"),
        html.Div(pictures, id="neuron-samples", className="gb-exciting-samples"),
    ]
