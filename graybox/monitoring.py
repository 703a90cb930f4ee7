"""Text displays of what the neurons and the samples did, for terminals and logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graybox.data_samples_with_ops import DataSampleTrackingWrapper
from graybox.model_with_ops import NetworkWithOps


def describe_network(model: NetworkWithOps) -> str:
    """One line per layer: id, name, type, neurons, trigger rates in training and evaluation, dead and frozen ones.

    Waits for the device once per layer.
    """
    rows = [("id", "layer", "type", "neurons", "train", "eval", "dead", "frozen")]
    for name, layer in model.named_layers():
        train, evaluation = layer.train_dataset_tracker, layer.eval_dataset_tracker
        rates = train.rates()
        dead = int(((rates == 0) & (train.ages() > 0)).sum())
        rows.append(
            (
                str(layer.get_module_id()),
                name,
                type(layer).__name__.removesuffix("WithNeuronOps"),
                str(layer.neuron_count),
                f"{float(rates.mean()):.3f}",
                f"{float(evaluation.rates().mean()):.3f}",
                str(dead),
                str(int(layer.frozen.sum())),
            )
        )
    return "\n".join([*_table(rows), f"{model.get_parameter_count():,} parameters, age {model.get_age():,} samples"])


def describe_samples(datasets: Mapping[str, DataSampleTrackingWrapper]) -> str:
    """One line per split: samples, those discarded, seen, and predicted wrongly, and the mean of their last losses."""
    rows: list[tuple[str, ...]] = [("split", "samples", "discarded", "seen", "wrong", "loss")]
    for split, samples in datasets.items():
        found = samples.columns.summary()
        counts = (found.samples, found.discarded, found.seen, found.wrong)
        rows.append((split, *(f"{count:,}" for count in counts), f"{found.mean_loss:.4f}" if found.seen else "-"))
    return "\n".join(_table(rows))


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines with their columns one below the other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
