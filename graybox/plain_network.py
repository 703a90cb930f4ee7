"""A network as somebody who has no Graybox would write it: a copy of plain torch modules, with the weights of now."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch.utils._pytree import tree_leaves

from graybox.errors import Invalid, Refused
from graybox.model_with_ops import NetworkWithOps
from graybox.modules_with_ops import ModuleWithOps
from graybox.neuron_records import NeuronRecords
from graybox.randomness import seeded
from graybox.tracking import Ledger
from graybox.training_step import evaluation_mode

OWN_ATTRIBUTES = (
    "_module_id", "ledger", "records", "frozen", "bias_frozen", "neuron_learning_rate", "incoming_frozen",
    "incoming_learning_rate", "neuron_identity", "incoming_identity", "triggers_counted_by", "_initialization",
)  # fmt: skip
"""What a layer with neurons keeps beside what its plain class keeps."""
OWN_ARGUMENTS = ("skip_register", "intermediary")
"""What the forward of such a layer takes beside what its plain class takes."""


def plain_module(model: nn.Module) -> nn.Module:
    """A deep copy of a network without Graybox: the same modules under the same names, of the classes that they had
    before Graybox came, with the parameters, buffers and sizes of now, frozen or not.

    No statistics, flags and hooks of Graybox are left; hooks of the user's own stay. A network that inherits from
    NetworkWithOps has Graybox in its own code: its copy is a torch.fx.GraphModule, for which its forward is followed
    once, with its optional arguments as they are by default. Like any other it can be trained, pickled and exported.
    The copy is in evaluation mode where the network is. Made by whoever owns the training, between two steps.

    Raises Invalid for what is no module, Refused where it cannot be copied, its forward cannot be followed, or the
    copy would not answer on the example input, bit for bit, what the network answers.
    """
    if not isinstance(model, nn.Module):
        raise Invalid(f"a model is a torch.nn.Module, not a {type(model).__name__}")
    copied = copy_of(model)
    plain = without_ops(copied)
    if isinstance(model, NetworkWithOps):
        check_same(model, plain)
    return plain


def inner_network(model: nn.Module) -> nn.Module:
    """The network inside of what `graybox.operable` and torch.compile put around it."""
    inner = vars(model).get("_plain", model)
    found: nn.Module = getattr(inner, "_orig_mod", inner)
    return found


def copy_of(model: nn.Module) -> nn.Module:
    """A deep copy of the network inside, statistics left out. Raises Refused where it cannot be copied."""
    network = inner_network(model)
    memo: dict[int, Any] = {}
    ledger = Ledger()
    for module in network.modules():
        if isinstance(module, (ModuleWithOps, NetworkWithOps)):
            memo[id(module.ledger)] = ledger
        if isinstance(module, ModuleWithOps) and "records" in vars(module):
            memo[id(module.records)] = NeuronRecords(0)
        if isinstance(module, NetworkWithOps):
            memo[id(module._architecture_listeners)] = []
        for value in (*vars(module).values(), *module._buffers.values()):
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()  # worked out anew by the next pass, as by weight_norm
    try:
        return copy.deepcopy(network, memo)
    except Exception as error:  # the user's own objects, whatever they raise
        raise Refused(f"{type(network).__name__} cannot be copied: {type(error).__name__}: {error}") from error


def without_ops(network: nn.Module) -> nn.Module:
    """The same modules, of their plain classes; changed in place. Raises Refused where a forward cannot be followed."""
    if isinstance(network, NetworkWithOps):
        network = followed(network)
    else:
        for name, child in network._modules.items():
            if child is not None:
                network._modules[name] = without_ops(child)
    for key, hook in list(network._forward_pre_hooks.items()):
        if is_our_hook(hook):
            del network._forward_pre_hooks[key]
    if isinstance(network, ModuleWithOps):
        _forget_ops(network)
    return network


def _forget_ops(layer: nn.Module) -> None:
    for attribute in OWN_ATTRIBUTES:
        vars(layer).pop(attribute, None)
    layer.__class__ = plain_class(type(layer))


def is_our_hook(hook: Any) -> bool:
    """Whether Graybox registered a hook, and not the user."""
    return str(getattr(hook, "__module__", "")).partition(".")[0] == __name__.partition(".")[0]


def plain_class(kind: type[nn.Module]) -> type[nn.Module]:
    """The class of a module before Graybox came: the first one behind it that has nothing of Graybox."""
    bases = (base for base in kind.__mro__ if issubclass(base, nn.Module))
    return next(base for base in bases if not issubclass(base, (ModuleWithOps, NetworkWithOps)))


def check_same(model: nn.Module, plain: nn.Module) -> None:
    """Raises Refused where the copy does not answer what the network answers on its example input, in evaluation mode
    and bit for bit."""
    example = getattr(model, "example_input", None)
    if example is None:
        return
    try:
        with without_fast_path():
            with seeded(0), evaluation_mode(model):
                wanted = called_with(model, example)
            with seeded(0), evaluation_mode(plain):
                found = called_with(plain, example)
    except Exception as error:  # the user's own code
        raise Refused(
            f"{type(inner_network(model)).__name__} does not run without Graybox: {type(error).__name__}: {error}"
        ) from error
    if not same_answers(wanted, found):
        raise Refused(
            f"{type(inner_network(model)).__name__} answers something else without Graybox: save its weights, and "
            "build it by hand"
        )


@contextmanager
def without_fast_path() -> Iterator[None]:
    """torch's transformer layers go the way of their own modules for a while, as those with neurons always do; the
    other way, which they take in evaluation mode without gradients, rounds otherwise."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


def called_with(model: nn.Module, example: Any) -> Any:
    """A network's answer to a tensor, a tuple of arguments or a dict of keyword arguments."""
    if isinstance(example, Mapping):
        return model(**example)
    return model(*example) if isinstance(example, (tuple, list)) else model(example)


def same_answers(one: Any, other: Any) -> bool:
    """Whether all tensors of two answers are the same, bit for bit but for NaN, which is like any other NaN."""
    tensors = [[leaf for leaf in tree_leaves(answer) if isinstance(leaf, torch.Tensor)] for answer in (one, other)]
    return len(tensors[0]) == len(tensors[1]) and all(
        a.dtype == b.dtype and a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
        for a, b in zip(*tensors, strict=True)
    )


# -- a forward that speaks to Graybox ----------------------------------------------------------------------


class _Follower(fx.Tracer):
    """Layers with neurons are called, not looked into; but those whose class is the user's own are."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, ModuleWithOps):
            return type(m).__module__ == ModuleWithOps.__module__ or "__reduce_ex__" in vars(type(m))
        return super().is_leaf_module(m, module_qualified_name)


def followed(network: NetworkWithOps) -> fx.GraphModule:
    """What a network's own forward does, as a module of torch.fx with the same modules under the same names, which are
    taken out of the network."""
    found: dict[bool, tuple[fx.Graph, nn.Module]] = {}
    for training in (True, False):  # evaluation last: its failure is the one that counts
        trial = copy.deepcopy(network)  # what forward keeps in the network would be none of its numbers
        trial.train(training)
        try:
            found[training] = _graph_of(trial), trial
        except Exception as error:  # the user's own code, which may do what cannot be followed
            failure = error
    if False not in found:
        raise Refused(
            f"the forward of {type(network).__name__} cannot be followed ({type(failure).__name__}: {failure}): it "
            "decides by the values of tensors, or takes them apart; export it as a program, or save its weights"
        ) from failure
    graph, seen = found[False]
    if True not in found or found[True][0].python_code("self").src != graph.python_code("self").src:
        warnings.warn(
            f"the forward of {type(network).__name__} looks at whether it trains; its copy without Graybox does always "
            "what it does in evaluation mode",
            stacklevel=4,
        )
    made = fx.GraphModule(nn.Module(), fx.Graph(), type(network).__name__)
    made._modules.update({name: None if m is None else without_ops(m) for name, m in network._modules.items()})
    made._parameters.update(network._parameters)
    made._buffers.update(network._buffers)
    made._non_persistent_buffers_set = set(network._non_persistent_buffers_set)
    for node in graph.nodes:  # tensors that forward makes, which torch.fx puts into the network
        if node.op == "get_attr" and str(node.target).startswith("_tensor_constant"):
            made.register_buffer(str(node.target), getattr(seen, str(node.target)), persistent=False)
    made.graph = graph
    made.training = network.training
    return made


def _graph_of(network: NetworkWithOps) -> fx.Graph:
    defaults = _plain_defaults(network)
    graph = _Follower().trace(network, concrete_args=dict(defaults))
    modules = dict(network.named_modules())
    for node in list(graph.nodes):
        if node.op == "placeholder" and str(node.target).rpartition("_")[0] in defaults:
            _erase_with_users(graph, node)
        elif node.op == "call_module" and isinstance(modules[str(node.target)], ModuleWithOps):
            _drop_own_arguments(node, modules[str(node.target)])
    return graph


def _plain_defaults(network: NetworkWithOps) -> dict[str, Any]:
    """Optional arguments of forward that the example input does not give, with what they are by default."""
    parameters = list(inspect.signature(network.forward).parameters.values())
    example = network.example_input
    given = set(example) if isinstance(example, Mapping) else set()
    count = len(example) if isinstance(example, (tuple, list)) else 1
    given |= {parameter.name for parameter in parameters[:count]} if not isinstance(example, Mapping) else set()
    return {
        p.name: p.default
        for p in parameters
        if p.name not in given and (p.default is None or type(p.default) in (bool, int, float, str))
    }


def _erase_with_users(graph: fx.Graph, node: fx.Node) -> None:
    """What torch.fx asserts of an argument that it has taken for a constant, and the argument."""
    for user in list(node.users):
        _erase_with_users(graph, user)
    graph.erase_node(node)


def _drop_own_arguments(node: fx.Node, layer: nn.Module) -> None:
    kwargs = {name: value for name, value in node.kwargs.items() if name not in OWN_ARGUMENTS}
    args = node.args
    if "x" in kwargs:  # as a layer with neurons calls its input
        args = (kwargs.pop("x"),)
    if not isinstance(layer, nn.modules.conv._ConvTransposeNd):  # which takes an output size by place
        args = args[:1]
    node.args, node.kwargs = args, kwargs
