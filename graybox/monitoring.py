"""Text displays of what the neurons did, for terminals and logs."""

from __future__ import annotations

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
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, f"{model.get_parameter_count():,} parameters, age {model.get_age():,} samples"])
