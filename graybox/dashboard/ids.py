"""The ids that browser tests and scripts may rely on. Everything else is an inner matter of its component.

header       state-badge, play-pause, progress-text, progress-bar, throughput, theme-toggle
hyper-parameters   hp-<name>: hp-experiment_name, hp-learning_rate, hp-batch_size, hp-training_steps_to_do,
             hp-full_eval_frequency, hp-checkpoint_frequency; hp-toggle opens them on a narrow screen
navigation   tab-<page> with page of PAGES; the address is /<page>?run=<run>&layer=<layer>; run-select
everywhere   waiting-banner, error-panel, error-text, error-traceback, toasts (each toast: .mantine-Notification-root)
metrics      run-toggle-<run>-<branch>, smoothing, log-scale, ignore-outliers, graph-<metric> (holds the plot)
data         query (Enter asks), query-run, query-natural, query-recent, query-help, query-problem, query-proposals,
             query-suggestions; view-bar with view-count, view-query, query-within, view-redraw, view-clear;
             samples-analysis with analysis-title, analysis-body, analysis-close;
             samples-grid (rows: [row-id="<split>/<id>"]), sample-columns-options opens sample-columns; filter-split,
             filter-status, filter-wrong, filter-label, filter-id, filter-min-loss, filter-max-loss, filters-to-query;
             samples-count, samples-refresh, samples-target, discard, restore-samples; tag-options opens tag-name,
             add-tag, remove-tag; label-options opens label-name, set-label, original-label; weigh-options opens
             ask-sampling-weight, ask-rebalance, ask-keep-share, which open weigh-which, weigh-value, rebalance-how,
             keep-share-value, weigh-apply, weigh-cancel; export-options opens export-csv, export-parquet, export-jsonl,
             export-manifest; confirm-which, confirm-edit, confirm-cancel; sample-detail with sample-picture,
             sample-losses, sample-facts
model        layer-<id>, neuron-tile-<n> (class neuron-tile, data-neuron, data-health, aria-pressed), neuron-grid,
             select-all, select-none, select-dead, select-redundant, select-options opens select-scope, select-health,
             select-end, select-amount, select-unit, select-statistic, select-apply; freeze, freeze-options opens
             freeze-bias, incoming-neurons, freeze-incoming; unfreeze; reinitialise, reinitialise-options opens
             perturbation-ratio, zero-outgoing; zerofy, zerofy-options opens zerofy-incoming, zerofy-from-frozen,
             zerofy-from-older; neuron-learning-rate, set-learning-rate; sort-neurons, sort-options opens
             sort-statistic, sort-ascending; add-neurons, add-count; remove-neurons; columns-options opens
             neuron-columns; neuron-detail with neuron-health-reason, neuron-classes, neuron-samples;
             in the dialog before an edit of structure: edit-plan with edit-exact, edit-refused, edit-touches;
             edit-measure, edit-measured, allow-inexact, edit-take-together, edit-cancel, edit-apply
checkpoints  checkpoint-name, checkpoint-save, checkpoint-<id> (the row; in it .checkpoint-restore and
             .checkpoint-restore-weights), confirm-restore, cancel-restore, branch-tree
history      history-list (rows: history-<sequence>, data-undo: next, later, undone, gone or empty)
undo         .gb-undo, in a toast and in the row of the history that is undone next
"""

from __future__ import annotations

PAGES = ("metrics", "data", "model", "checkpoints", "history")

HYPER_PARAMETERS = (
    "experiment_name",
    "learning_rate",
    "batch_size",
    "training_steps_to_do",
    "full_eval_frequency",
    "checkpoint_frequency",
)

URL = "url"
FOCUS = "focus"
"""Store: {"run": id or "", "layer": id or ""}, as the address says."""
STATUS = "status"
"""Store: what the header shows, as view.py makes it."""
TOASTS = "toasts"
UNDO = "undo-asked"
"""Store: {"run": id, "sequence": n, "count": clicks so far}, the undo button that was clicked last."""
SAMPLES_CHANGED = "samples-changed"
"""Store: grows when this tab changed samples, so that the grid asks anew."""
MODEL_EDITED = "model-edited"
"""Store: grows when numbers of neurons may mean others than before, so that nothing stays selected."""


def page(name: str) -> str:
    """The panel of a page."""
    return f"page-{name}"


def tick(name: str) -> str:
    """The interval that a page polls by while it is shown."""
    return f"tick-{name}"


def hyper_parameter(name: str) -> str:
    """The field of a hyper-parameter."""
    return f"hp-{name}"
