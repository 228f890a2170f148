"""What a network does, traced by ``torch.fx``, so that it can be taken apart without changing it.

A list of a network's children says neither which of them are called, nor how often, nor with what.
"""

import copy
import inspect
import warnings
from collections.abc import Collection
from typing import NamedTuple

import jaxtyping
import torch
from torch import fx, nn
from torch.nn.utils import parametrize

from bncore import tensors
from bncore.arguments import type_name
from bncore.lab.modes import is_batch_norm

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Traced(NamedTuple):
    """The calls of a network, and which of its modules are called as modules."""

    graph: fx.Graph
    called: frozenset[str]


def check_model(model: object) -> None:
    """Refuse anything but a network that can be copied, whose tensors have shapes."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type_name(model)}, expected a torch.nn.Module")
    if is_batch_norm(model):
        raise ValueError(f"model is itself a {type_name(model)}, expected a network that holds it")
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if nn.parameter.is_lazy(value):
            raise ValueError(
                f"model's {name} has no shape yet, expected one: apply the model to a batch first"
            )
    try:
        copy.deepcopy(model)
    except Exception as error:
        raise ValueError(f"model cannot be copied: {_first_line(error)}") from error


def traced(model: nn.Module) -> Traced:
    """What the model calls, in the mode that it is in, without optional arguments and identities.

    Modules of torch, batch norms, and modules that hold no batch norm and cannot be traced, count as
    one call.

    Raises
    ------
    ValueError
        If the calls depend on the data, or cannot be followed for another reason.
    """
    tracer = _Tracer()
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with warnings.catch_warnings(action="ignore"):
            graph = tracer.trace(copy.deepcopy(model), _defaults(model))
    except Exception as error:
        raise ValueError(
            f"model cannot be traced ({_first_line(error)}); expected calls that do not depend on "
            "the data, of modules that are registered"
        ) from error
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
    for node in list(graph.nodes):
        if node.op == "call_module" and type(model.get_submodule(node.target)) is nn.Identity:
            node.replace_all_uses_with(node.all_input_nodes[0])
            graph.erase_node(node)
    return Traced(graph, frozenset(tracer.called))


def batch_norms(model: nn.Module, graph: fx.Graph) -> dict[str, list[fx.Node]]:
    """The calls of each batch norm in a graph, by its name. All are torch's own, and plain.

    Raises
    ------
    ValueError
        If a batch norm is of another class, has hooks, is never called, or is called as a function.
    """
    calls = {}
    for node in graph.nodes:
        if node.op == "call_module" and is_batch_norm(model.get_submodule(node.target)):
            calls.setdefault(node.target, []).append(node)
        if node.op == "call_function" and "batch_norm" in getattr(node.target, "__name__", ""):
            raise ValueError(
                f"the model calls {node.target.__name__} as a function, expected batch norms that "
                "are modules"
            )
    for name, module in model.named_modules():
        if not is_batch_norm(module):
            continue
        if type(module) not in NORMS:
            raise ValueError(
                f"{name} is a {type_name(module)}, expected one of torch's own batch norms: what "
                "others compute is not known"
            )
        check_plain(name, module)
        if name not in calls:
            raise ValueError(f"{name} is never called, expected it in use: remove it first")
    return calls


def check_plain(name: str, module: nn.Module) -> None:
    """Refuse a module whose parameters are computed elsewhere, or with hooks."""
    if parametrize.is_parametrized(module):
        raise ValueError(
            f"{name} is parametrised, expected plain parameters: call "
            "torch.nn.utils.parametrize.remove_parametrizations first"
        )
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    if any(getattr(module, kind) for kind in hooks) or "forward" in vars(module):
        raise ValueError(
            f"{name} has hooks or a forward of its own, expected none: what they do to it is not "
            "known"
        )


def reads_shape(node: fx.Node) -> bool:
    """Whether a call asks a tensor for its shape or kind alone."""
    if node.op == "call_method":
        return node.target in ("size", "dim")
    return node.target is getattr and node.args[1] in ("shape", "ndim", "dtype", "device")


def replace(model: nn.Module, name: str, new: nn.Module, cut: Collection[nn.Module] = ()) -> None:
    """Put another module in a module's place, under all of its names. From ``cut`` it is removed."""
    old = model.get_submodule(name)
    for parent in list(model.modules()):
        for child, module in list(parent._modules.items()):
            if module is old and any(parent is one for one in cut):
                del parent._modules[child]
            elif module is old:
                parent._modules[child] = new


def calls_of(model: nn.Module, gone: Collection[str] = ()) -> list[str]:
    """One line for each call of a model, to compare, as if the modules in ``gone`` did nothing."""
    numbers, lines = {}, []
    for node in traced(model).graph.nodes:
        if node.op == "call_module" and node.target in gone:
            numbers[node] = numbers[node.all_input_nodes[0]]
            continue
        numbers[node] = len(lines)
        arguments = fx.node.map_arg((node.args, node.kwargs), lambda n: f"%{numbers[n]}")
        lines.append(f"{node.op} {node.target} {arguments}")
    return lines


def inputs(example: object, model: nn.Module) -> tuple:
    """The arguments that an example stands for: one tensor, or a tuple of several.

    Refuse what the model cannot be applied to.
    """
    if isinstance(example, tuple) and all(isinstance(one, torch.Tensor) for one in example):
        found = example
    else:
        found = (tensors.examples("example", example, model),)
    try:
        with torch.no_grad():
            copy.deepcopy(model)(*found)
    except Exception as error:
        raise ValueError(
            f"model cannot be applied to the example, of shape {tuple(found[0].shape)}: "
            f"{_first_line(error)}"
        ) from error
    return found


def in_double(model: nn.Module, arguments: tuple) -> tuple[nn.Module, tuple]:
    """The model and its arguments in float64, if it can be applied to them, or else as they are."""
    exact = copy.deepcopy(model).double()
    wide = tuple(a.double() if a.is_floating_point() else a for a in arguments)
    try:
        with torch.no_grad():
            copy.deepcopy(exact)(*wide)
    except Exception:
        return model, arguments
    return exact, wide


def check_same(model: nn.Module, other: nn.Module, arguments: tuple, what: str) -> None:
    """Refuse two models whose outputs differ by more than half of their dtype's digits.

    Both draw the same random numbers. Buffers of copies change, not those of the models.
    """
    found = []
    for each in (model, other):
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            found.append(_leaves(copy.deepcopy(each)(*arguments)))
    if not found[0]:
        raise ValueError("the model returns no tensor on the example, expected one to compare")
    for first, second in zip(*found, strict=True):
        if not torch.isfinite(first).all():
            raise ValueError(
                "the model's output on the example is not finite, expected finite values"
            )
        if not first.is_floating_point() or first.shape != second.shape or not first.numel():
            same = torch.equal(first, second)
        else:
            allowed = torch.finfo(first.dtype).eps ** 0.5 * first.abs().max()
            same = bool(((first - second).abs() <= allowed).all())
        if not same:
            raise ValueError(
                f"{what} computes something else on the example: the model does what its trace does "
                "not show"
            )


def _leaves(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return (
        [leaf for one in value for leaf in _leaves(one)] if isinstance(value, list | tuple) else []
    )


def _defaults(model):
    """Optional arguments of forward, which a caller of the model on a batch leaves out."""
    parameters = inspect.signature(model.forward).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _first_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0]


class _Tracer(fx.Tracer):
    def __init__(self):
        super().__init__()
        self.called = {""}

    def is_leaf_module(self, module, name):
        if is_batch_norm(module):
            return True
        return super().is_leaf_module(module, name) and not _holds_batch_norm(module)

    def call_module(self, module, forward, args, kwargs):
        name = self.path_of_module(module)
        self.called.add(name)
        before = set(self.graph.nodes)
        try:
            return super().call_module(module, forward, args, kwargs)
        except Exception:
            if _holds_batch_norm(module):
                raise
            for node in reversed(list(self.graph.nodes)):
                if node not in before:
                    self.graph.erase_node(node)
            return self.create_proxy("call_module", name, args, kwargs)


def _holds_batch_norm(module):
    return any(is_batch_norm(inside) for inside in module.modules())
