"""Names that users' scripts call: each is there and takes what scripts pass, area by area.

What the names do is tested beside the modules they live in.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.utils.data import TensorDataset

import graybox.checkpoint
import graybox.dash
import graybox.data_samples_with_ops
import graybox.experiment
import graybox.model_with_ops
import graybox.modules_with_ops
import graybox.monitoring
import graybox.tracking
from tests.small_experiments import DropNet, toy_experiment

AREAS = ("samples", "experiment", "checkpoints", "logger", "monitoring", "network", "layers", "trackers")


@dataclass(frozen=True)
class Call:
    """A call that a script makes. Keywords are those that scripts may write out."""

    name: str
    arguments: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)


def call(name: str, *arguments: Any, **keywords: Any) -> Call:
    return Call(name, arguments, keywords)


@dataclass(frozen=True)
class Owner:
    """Something that scripts hold, with the attributes they read and the calls they make on it."""

    area: str
    name: str
    attributes: tuple[str, ...]
    calls: tuple[Call, ...]


def nothing(*arguments: Any) -> None:
    """Stands for a function of the user's."""


OWNERS = (
    Owner("network", "model", ("layers", "flatten_conv_id"), (
        call("register_dependencies", []), call("get_layer_by_id", 0), call("get_layer_by_id", layer_id=0),
        call("get_age"), call("maybe_update_age", 0), call("get_parameter_count"), call("set_tracking_mode", 0),
        call("reset_all_stats"), call("reset_stats_by_layer_id", 0),
        call("freeze", 0), call("freeze", layer_id=0, neuron_ids={1}), call("freeze", 0, None),
        call("reinit_neurons", 0, {1}), call("reinit_neurons", 0, {1}, 0.5),
        call("reinit_neurons", layer_id=0, neuron_indices={1}, perturbation_ratio=None),
        call("prune", 0, {1}), call("prune", layer_id=0, neuron_indices={1}),
        call("add_neurons", 0, 1), call("add_neurons", layer_id=0, neuron_count=1, skip_initialization=False),
        call("reorder_neurons_by_trigger_rate", 0), call("reorder_neurons_by_trigger_rate", layer_id=0),
        call("register_hook_fn_for_architecture_change", nothing),
    )),
    *(
        Owner("layers", layer, (
            "neuron_count", "incoming_neuron_count", "train_dataset_tracker", "eval_dataset_tracker", "tracking_mode",
        ), (
            call("get_module_id"), call("forward", 0), call("forward", 0, skip_register=True, intermediary={}),
            call("register", 0), call("reset_stats"),
            *(
                each
                for what in ("", "incoming_")
                for each in (
                    call("reorder" if not what else "reorder_incoming_neurons", [0]),
                    call("prune" if not what else "prune_incoming_neurons", {0}),
                    call("reset" if not what else "reset_incoming_neurons", {0}),
                    call("reset" if not what else "reset_incoming_neurons", {0},
                         skip_initialization=False, perturbation_ratio=None),
                    call(f"add_{what}neurons", 1), call(f"add_{what}neurons", 1, skip_initialization=True),
                )
            ),
            call("set_per_neuron_learning_rate", {0}, 0.5),
            call("set_per_neuron_learning_rate", neuron_ids={0}, lr=0.5),
            call("get_per_neuron_learning_rate", 0), call("set_per_incoming_neuron_learning_rate", {0}, 0.5),
            call("set_per_incoming_neuron_learning_rate", neuron_ids={0}, lr=0.5),
        ))
        for layer in ("linear", "conv")
    ),
    Owner("layers", "norm", ("neuron_count",), (
        call("get_module_id"), call("forward", 0), call("reorder", [0]), call("prune", {0}), call("reset", {0}),
        call("add_neurons", 1),
    )),
    *(
        Owner("trackers", tracker, ("number_of_neurons",), (
            call("update", 0), call("reorder", [0]), call("prune", {0}), call("reset", {0}), call("add_neurons", 1),
            call("get_neuron_number"), call("get_neuron_triggers", 0), call("get_neuron_age", 0),
            call("get_neuron_stats", 0), call("state_dict"), call("load_state_dict", {}), call("__eq__", 0),
        ))
        for tracker in ("tracker", "class_tracker")
    ),
    Owner("samples", "samples", ("dataset",), (
        call("__len__"), call("__getitem__", 0),
        call("update_batch_sample_stats", 8, [0], [0.5]), call("update_batch_sample_stats", 8, [0], [0.5], [1]),
        call("update_batch_sample_stats", model_age=8, ids=[0], losses=[0.5], predictions=None),
        call("denylist_samples", {0}), call("denylist_samples", ids={0}), call("allowlist_samples", None),
        call("allowlist_samples", {0}), call("allowlist_samples", ids=None), call("allowlist_samples"),
        call("deny_samples_with_predicate", nothing),
        call("deny_samples_and_sample_allowed_with_predicate", nothing, 0.5),
        call("deny_samples_and_sample_allowed_with_predicate", nothing, allow_to_denied_factor=0.5, verbose=False),
        call("is_deny_listed", 0), call("get_prediction_loss", 0), call("get_prediction_age", 0),
        call("get_exposure_amount", 0), call("get", 0, "label"), call("get_dataframe"), call("as_records"),
        call("state_dict"), call("load_state_dict", {}), call("__eq__", 0),
    )),
    Owner("experiment", "experiment", (
        "model", "optimizer", "train_loader", "eval_loader", "learning_rate", "batch_size", "chkpt_manager", "name",
        "logger", "device", "training_steps_to_do", "root_log_dir",
    ), (
        call("train_one_step"), call("train_n_steps", 3), call("train_n_steps", n=3),
        call("train_n_steps_with_eval_full", 3), call("train_n_steps_with_eval_full", n=3),
        call("eval_one_step"), call("eval_n_steps", 3), call("eval_n_steps", n=3), call("eval_full"), call("dump"),
        call("load", 1), call("load", checkpoint_id=1), call("set_learning_rate", 0.1), call("set_batch_size", 4),
        call("set_name", "v1"), call("set_is_training", True), call("get_is_training"), call("toggle_training_status"),
        call("set_training_steps_to_do", 5), call("reset_data_iterators"),
        call("register_train_loop_callback", nothing), call("set_train_loop_clbk_freq", 5), call("display_stats"),
    )),
    Owner("checkpoints", "manager", ("id_to_path", "id_to_prnt", "next_id", "prnt_id"), (
        call("dump", 0), call("dump", experiment=0), call("load", 1, 0), call("get_latest_experiment"),
    )),
    Owner("logger", "logger", (), (
        call("add_scalars", "loss", {"train": 0.5}), call("add_scalars", "loss", {"train": 0.5}, global_step=8),
    )),
)  # fmt: skip

MODULES = {
    "network": {graybox.model_with_ops: ("NetworkWithOps", "DepType")},
    "layers": {
        graybox.modules_with_ops: ("LinearWithNeuronOps", "Conv2dWithNeuronOps", "BatchNorm2dWithNeuronOps"),
    },
    "trackers": {
        graybox.tracking: (
            "TrackingMode", "add_tracked_attrs_to_input_tensor", "TriggersTracker", "TriggersTrackerClazzAndSampleID",
        ),
    },
    "samples": {graybox.data_samples_with_ops: ("DataSampleTrackingWrapper", "SampleStats")},
    "experiment": {graybox.experiment: ("Experiment",)},
    "checkpoints": {graybox.checkpoint: ("CheckpointManager",)},
    "logger": {graybox.dash: ("Dash",)},
    "monitoring": {graybox.monitoring: ("describe_network", "describe_samples")},
}  # fmt: skip


def make(name: str, root: Path) -> Any:
    """What scripts hold, made as scripts make it."""
    match name:
        case "experiment":
            return toy_experiment(root_log_dir=root)
        case "manager":
            return graybox.checkpoint.CheckpointManager(root)
        case "logger":
            return graybox.dash.Dash(str(root))
        case "samples":
            return graybox.data_samples_with_ops.DataSampleTrackingWrapper(TensorDataset(torch.zeros(2), torch.ones(2)))
        case "model":
            return DropNet()
        case "linear":
            return graybox.modules_with_ops.LinearWithNeuronOps(in_features=3, out_features=2)
        case "conv":
            return graybox.modules_with_ops.Conv2dWithNeuronOps(in_channels=3, out_channels=2, kernel_size=3, padding=1)
        case "norm":
            return graybox.modules_with_ops.BatchNorm2dWithNeuronOps(2)
        case "tracker":
            return graybox.tracking.TriggersTracker(2, device="cpu")
        case "class_tracker":
            return graybox.tracking.TriggersTrackerClazzAndSampleID(2, device=torch.device("cpu"))
    raise AssertionError(name)


def in_areas(owners: tuple[Owner, ...]) -> list[Owner]:
    return [owner for owner in owners if owner.area in AREAS]


@pytest.mark.parametrize("area", AREAS)
def test_every_module_has_its_names(area: str) -> None:
    missing = [
        f"{module.__name__}.{name}"
        for module, names in MODULES[area].items()
        for name in names
        if not hasattr(module, name)
    ]
    assert missing == []


@pytest.mark.parametrize("owner", in_areas(OWNERS), ids=lambda owner: owner.name)
def test_every_name_is_there_and_takes_what_scripts_pass(owner: Owner, root: Path) -> None:
    made = make(owner.name, root)
    assert [name for name in owner.attributes if not hasattr(made, name)] == []
    wrong = []
    for each in owner.calls:
        method = getattr(made, each.name, None)
        if not callable(method):
            wrong.append(f"{each.name} is missing")
            continue
        try:
            inspect.signature(method).bind(*each.arguments, **each.keywords)
        except TypeError as error:
            wrong.append(f"{each.name}{each.arguments}{each.keywords}: {error}")
    assert wrong == []


def test_a_call_that_does_not_fit_is_seen(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = Owner("logger", "logger", ("gone",), ())
    with pytest.raises(AssertionError, match="gone"):
        test_every_name_is_there_and_takes_what_scripts_pass(owner, root)
    for wrong in (call("add_scalars", "loss"), call("add_scalars", "loss", {}, step=1), call("add_images", "loss")):
        with pytest.raises(AssertionError, match=wrong.name):
            test_every_name_is_there_and_takes_what_scripts_pass(Owner("logger", "logger", (), (wrong,)), root)


def test_the_tables_speak_of_the_same_areas() -> None:
    assert {owner.area for owner in OWNERS} | {"monitoring"} == set(MODULES) >= set(AREAS)


def test_what_an_experiment_takes() -> None:
    parameters = inspect.signature(graybox.experiment.Experiment).parameters
    asked = (
        "model", "optimizer_class", "train_dataset", "eval_dataset", "device", "learning_rate", "batch_size",
        "training_steps_to_do", "name", "root_log_dir", "logger", "skip_loading", "train_shuffle", "criterion",
    )  # fmt: skip
    assert [name for name in asked if name not in parameters] == []


def test_a_script_of_its_own_runs_from_end_to_end(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A loop as people write it: without a backend, on one thread."""
    data = toy_experiment().datasets
    exp = graybox.experiment.Experiment(
        model=DropNet(), optimizer_class=optim.Adam, train_dataset=data["train"].dataset,
        eval_dataset=data["val"].dataset, device=torch.device("cpu"), learning_rate=1e-2, batch_size=8,
        training_steps_to_do=1000, name="v0", root_log_dir=str(root), logger=graybox.dash.Dash(str(root)),
        skip_loading=False, train_shuffle=True, criterion=nn.CrossEntropyLoss(reduction="none"),
    )  # fmt: skip
    try:
        exp.register_train_loop_callback(exp.display_stats)
        exp.set_train_loop_clbk_freq(10)
        exp.train_n_steps_with_eval_full(20)
        loss, percent = exp.eval_full()
        exp.logger.add_scalars("mine", {"train": loss}, global_step=exp.model.get_age())
        kept = exp.dump()
        samples = exp.train_loader.dataset
        samples.deny_samples_with_predicate(lambda i, age, loss, seen, denied, prediction, label: prediction == label)
        in_use = samples.get_dataframe().query("not deny_listed")
        assert 0 < len(in_use) < 50
        exp.set_learning_rate(1e-3)
        exp.train_n_steps(2)
        exp.chkpt_manager.load(kept, exp)
        assert exp.learning_rate == 1e-2 and not samples.is_deny_listed(int(in_use.sample_id.iloc[0]))
        assert not samples.get_dataframe().deny_listed.any()
        assert exp.eval_full() == (pytest.approx(loss), percent)
        assert capsys.readouterr().out.count("Conv2d") == 2
    finally:
        exp.close()
