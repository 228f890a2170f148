"""Where the tensors of a forward pass come from: by calls and shapes, not by names.

Every call of torch is followed, of functions as of modules, so that a reshape or an addition between
two modules hides nothing.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from bncore.lab.modes import is_batch_norm
from bncore.practice.handed import leaves

CONVOLUTIONS = {f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3)}
RESHAPES = {"reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze", "contiguous"}
ELEMENTWISE = {
    *("relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "elu", "selu", "celu", "gelu", "silu"),
    *("mish", "sigmoid", "tanh", "erf", "softplus", "hardtanh", "hardswish", "hardsigmoid", "exp"),
    *("add", "add_", "__add__", "__radd__", "__iadd__", "sub", "__sub__", "mul", "__mul__", "div"),
    *("__rmul__", "__truediv__", "neg", "abs", "clamp", "clone", "detach", "to", "float", "double"),
    *("half", "bfloat16", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout"),
    *("feature_alpha_dropout", "dropout_", "rrelu", "prelu", "threshold"),
}
DROPOUTS = {"dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d"}
RANDOM = {
    *DROPOUTS,
    *(
        "alpha_dropout",
        "feature_alpha_dropout",
        "rrelu",
        "bernoulli",
        "bernoulli_",
        "rand",
        "randn",
    ),
    *("rand_like", "randn_like", "randint", "randperm", "normal", "normal_", "uniform_", "poisson"),
    "multinomial",
}
NORMALIZATIONS = {"layer_norm", "group_norm", "instance_norm", "rms_norm", "batch_norm"}


class Origin(NamedTuple):
    """What is known of a tensor.

    Attributes
    ----------
    axis : int or None
        On which axis the linear layer or convolution before it puts its features, if that is known.
    layer : str
        The name of that layer.
    biased : str
        The name of the layer with a bias whose output it is, with nothing between but a reshape.
    normalized : bool
        Whether a batch norm precedes it.
    dropouts : frozenset of (str, float)
        Names and probabilities of the dropouts that reach it without a normalisation between.
    """

    axis: int | None = None
    layer: str = ""
    biased: str = ""
    normalized: bool = False
    dropouts: frozenset = frozenset()


class Origins(TorchFunctionMode):
    """While it is entered, keeps the origin of every tensor that torch's functions return."""

    def __init__(self, names: Mapping[nn.Module, str]):
        super().__init__()
        self._names, self._known = names, WeakTensorKeyDictionary()
        self._uses, self._stack, self._inside = WeakTensorKeyDictionary(), [], 0
        self._norms, self.random, self.functional = 0, False, 0

    def of(self, tensor: torch.Tensor) -> Origin:
        """What is known of a tensor."""
        return self._known.get(tensor, Origin())

    def uses(self, tensor: torch.Tensor) -> int:
        """How many calls were given the tensor and returned tensors, batch norms included."""
        return self._uses.get(tensor, 0)

    @contextmanager
    def follow(self) -> Iterator[None]:
        """Follow the calls of the modules, which give their names to what they call."""
        hooks = []
        try:
            for module in self._names:
                # Before other hooks, whose calls are then none of the network's.
                enter = module.register_forward_pre_hook(
                    self._enter, prepend=True, with_kwargs=True
                )
                hooks.append(enter)
                hooks.append(
                    module.register_forward_hook(self._leave, with_kwargs=True, always_call=True)
                )
            with self:
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def _enter(self, module, arguments, kwargs):
        self._stack.append((module, self._norms))
        if is_batch_norm(module):
            if not self._inside:
                self._use(leaves((arguments, kwargs)))
            self._inside += 1

    def _leave(self, module, arguments, kwargs, output):
        while self._stack and self._stack[-1][0] is not module:
            self._pop()
        if not self._stack:
            return
        before = self._pop()
        given = merged([self.of(t) for t in leaves((arguments, kwargs))])
        for tensor in leaves(output):
            if is_batch_norm(module):
                self._known[tensor] = Origin(normalized=True)
            elif tensor not in self._known:
                passed = given.normalized or self._norms > before
                self._known[tensor] = given._replace(axis=None, biased="", normalized=passed)

    def _pop(self):
        module, before = self._stack.pop()
        if is_batch_norm(module):
            self._inside -= 1
            self._norms += 1
        return before

    def __torch_function__(self, function, types, arguments=(), kwargs=None):
        kwargs = kwargs or {}
        output = function(*arguments, **kwargs)
        if not self._inside:
            found = leaves(output)
            if found:
                self._record(getattr(function, "__name__", ""), arguments, kwargs, found)
        return output

    def _record(self, name, arguments, kwargs, outputs):
        given = leaves((arguments, kwargs))
        self._use(given)
        self.random = self.random or _random(name, arguments, kwargs)
        if not given:
            return
        self.functional += name == "batch_norm"
        origin = self._origin(name, arguments, kwargs, given, outputs[0])
        for tensor in outputs:
            self._known[tensor] = origin

    def _use(self, tensors):
        for tensor in tensors:
            self._uses[tensor] = self.uses(tensor) + 1

    def _origin(self, name, arguments, kwargs, given, output):
        all_of, first = merged([self.of(t) for t in given]), self.of(given[0])
        if name == "batch_norm":
            return Origin(normalized=True)
        if name in NORMALIZATIONS:
            return Origin(normalized=all_of.normalized)
        if name == "linear" or name in CONVOLUTIONS:
            bias = arguments[2] if len(arguments) > 2 else kwargs.get("bias")
            here = self._here()
            last = output.ndim - 1
            known = first.axis is None or first.axis == given[0].ndim - 1
            axis = 1 if name in CONVOLUTIONS else last if known else None
            return all_of._replace(axis=axis, layer=here, biased=here if bias is not None else "")
        if name in RESHAPES:
            axis = _reshaped(first.axis, given[0].shape, output.shape)
            return first._replace(axis=axis, biased=first.biased if axis is not None else "")
        if name in ("transpose", "permute", "swapaxes", "movedim"):
            axis = _permuted(name, first.axis, given[0].ndim, arguments, kwargs)
            return first._replace(axis=axis)
        same = name in ELEMENTWISE and output.shape == given[0].shape
        pooled = "pool" in name and first.axis == 1
        axis = first.axis if same or pooled else None
        origin = all_of._replace(axis=axis, layer=first.layer, biased="")
        if name in DROPOUTS:
            p = kwargs.get("p", arguments[1] if len(arguments) > 1 else 0.5)
            active = _random(name, arguments, kwargs)
            if active:
                origin = origin._replace(dropouts=origin.dropouts | {(self._here(), float(p))})
        return origin

    def _here(self):
        return self._names.get(self._stack[-1][0], "") if self._stack else ""


def merged(origins: list[Origin]) -> Origin:
    """What is known of a tensor that is made of several."""
    if not origins:
        return Origin()
    return origins[0]._replace(
        normalized=any(one.normalized for one in origins),
        dropouts=frozenset().union(*(one.dropouts for one in origins)),
    )


def _random(name, arguments, kwargs):
    """Whether a call draws random numbers; dropout does with a probability above 0 in training."""
    if name in DROPOUTS or name in ("alpha_dropout", "feature_alpha_dropout"):
        p = kwargs.get("p", arguments[1] if len(arguments) > 1 else 0.5)
        training = kwargs.get("training", arguments[2] if len(arguments) > 2 else True)
        return bool(training) and p > 0
    if name == "rrelu":
        return bool(kwargs.get("training", arguments[3] if len(arguments) > 3 else False))
    return name in RANDOM


def _reshaped(axis, before, after):
    """Where an axis is after a reshape that leaves it whole, or None."""
    if axis is None:
        return None
    ahead = math.prod(before[:axis])
    for j, size in enumerate(after):
        if size == before[axis] and math.prod(after[:j]) == ahead:
            return j
    return None


def _permuted(name, axis, ndim, arguments, kwargs):
    """Where an axis is after its tensor's axes change places, or None."""
    if axis is None or kwargs:
        return None
    given = arguments[1] if len(arguments) == 2 else arguments[1:]
    if name == "movedim":
        order = torch.movedim(torch.empty(*range(1, ndim + 1), device="meta"), *arguments[1:]).shape
        return list(order).index(axis + 1)
    given = [i % ndim for i in given]
    if name == "permute":
        return given.index(axis)
    first, second = given
    return {first: second, second: first}.get(axis, axis)
