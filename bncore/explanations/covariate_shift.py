"""How much a layer's gradient changes because the layers before it have moved.

Internal covariate shift as Santurkar et al. (2018) measure it, and the noise with which they disturb
batch norm. Source: Santurkar, Tsipras, Ilyas and Madry (2018), Definition 2.1 and section 2.1.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import nn
from torch.func import functional_call

from bncore import arguments as check
from bncore.explanations import _models

Loss = Callable[..., torch.Tensor]
Parameters = Mapping[str, torch.Tensor]
Layers = Mapping[str, Sequence[str]]


class Shift(NamedTuple):
    """Each layer's gradient before and after the layers before it moved, in forward order.

    Attributes
    ----------
    layers : tuple of str
        Names of the layers.
    before, after : Float[ndarray, "layers"]
        Lengths of G and of G'.
    norm : Float[ndarray, "layers"]
        Length of G' - G, the shift.
    cosine : Float[ndarray, "layers"]
        Of the angle between G and G'. NaN where one of them is zero: there is no angle then.
    """

    layers: tuple[str, ...]
    before: Float[np.ndarray, "layers"]
    after: Float[np.ndarray, "layers"]
    norm: Float[np.ndarray, "layers"]
    cosine: Float[np.ndarray, "layers"]

    @property
    def relative(self) -> Float[np.ndarray, "layers"]:
        """The shift over the length of G; 0 where nothing changed, infinite where only G is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.norm == 0, 0.0, self.norm / self.before)


def gradient_shift(
    model: nn.Module,
    loss: Loss,
    x: torch.Tensor,
    y: torch.Tensor,
    update: Real | Parameters,
    *,
    layers: Layers | None = None,
) -> Shift:
    """Measure the internal covariate shift of every layer for one update of a model.

    With parameters W_1 ... W_k at time t and the same batch throughout,

        G_i  = gradient in W_i of L(W_1[t],   ..., W_{i-1}[t],   W_i[t], ..., W_k[t]),
        G'_i = gradient in W_i of L(W_1[t+1], ..., W_{i-1}[t+1], W_i[t], ..., W_k[t]).

    The model stays as it is: parameters, their gradients, buffers, modes, and torch's random
    state. Where the model draws random numbers, every gradient sees the same ones.

    Parameters
    ----------
    model : nn.Module
        In the mode in which it is trained; batch norms in training mode use the batch's statistics.
        Frozen parameters stay and are measured in no layer.
    loss : callable
        From (outputs, targets) to a scalar tensor, for example ``cross_entropy``.
    x, y : Tensor
        The batch, finite.
    update : float or mapping of str to Tensor
        What leads from t to t+1: the learning rate of a step along the gradient of this batch, or
        the new value of every trainable parameter by its name.
    layers : mapping of str to sequence of str, optional
        For each layer the names of its parameters, in forward order; by default ``layers_of``.

    Returns
    -------
    Shift
        Not finite where a gradient is not.

    Raises
    ------
    TypeError
        If model is not a module with real parameters, x or y not a tensor, loss not callable, or
        update neither a number nor a mapping of tensors.
    ValueError
        If x or y is empty or not finite, the model or the loss cannot be applied, the loss is not a
        scalar, the learning rate is negative or not finite, a new value is missing, not expected or
        of another shape, or a layer names what is not a trainable parameter, or one twice.
    RuntimeError
        Under ``torch.inference_mode``, which takes no derivatives.

    References
    ----------
    Santurkar et al. (2018), Definition 2.1.
    """
    start, layers = _parts(model, x, y, layers)
    gradient = _Gradient(model, loss, x, y)
    before = gradient(start, list(start))
    new = _updated(start, before, update)
    moved, afterwards = dict(start), []
    for i, names in enumerate(layers.values()):
        # Before the first layer nothing has moved: G' is G.
        afterwards.append(gradient(moved, names) if i else before)
        moved |= {name: new[name] for name in names}
    return _compared(layers, before, afterwards)


def linearized_shift(
    model: nn.Module,
    loss: Loss,
    x: torch.Tensor,
    y: torch.Tensor,
    update: Real | Parameters,
    *,
    layers: Layers | None = None,
) -> Shift:
    """The shift to first order in the update: blocks of the Hessian below its diagonal.

    With the Hessian's blocks H_ij for layers i and j,

        G'_i = G_i + sum over j < i of H_ij (W_j[t+1] - W_j[t]).

    Arguments, result and errors are those of ``gradient_shift``. The second derivatives exist where
    activations and loss have them; at a ReLU's kink torch takes them from one side.
    """
    start, layers = _parts(model, x, y, layers)
    gradient = _Gradient(model, loss, x, y)
    leaves, graph = gradient.with_graph(start)
    before = {name: value.detach() for name, value in graph.items()}
    new = _updated(start, before, update)
    product, afterwards = 0, []
    for names in layers.values():
        afterwards.append(
            {name: before[name] + _derivative(product, leaves[name]) for name in names}
        )
        for name in names:
            product = product + (graph[name] * (new[name] - start[name])).sum()
    return _compared(layers, before, afterwards)


def layers_of(model: nn.Module, x: torch.Tensor) -> dict[str, list[str]]:
    """The trainable parameters of each layer, in the order in which a forward pass meets them.

    A module whose parameters include a matrix or a kernel begins a layer and names it; one that has
    vectors only, such as a normalisation, belongs to the layer before it, or to the first one.

    Parameters
    ----------
    model : nn.Module
        It stays as it is.
    x : Tensor
        A batch.

    Raises
    ------
    TypeError
        If model is not a module with real parameters, or x not a tensor.
    ValueError
        If x is empty or not finite, the model cannot be applied to it or has no trainable
        parameters, or one takes no part in the forward pass, or one is used more than once and so
        belongs to no single layer.
    """
    _models.check_model(model)
    _models.check_tensor("x", x)
    owners = {
        module: (name, list(own))
        for name, module in model.named_modules(remove_duplicate=False)
        if (own := _own(name, module))
    }
    met = []
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: met.append(module))
        for module in owners
    ]
    try:
        with torch.no_grad():
            _run(model, {}, x)
    finally:
        for hook in hooks:
            hook.remove()
    _check_forward_pass(owners, met, model)
    layers, waiting = {}, []
    for module in met:
        name, own = owners[module]
        if any(parameter.ndim > 1 for parameter in module.parameters(recurse=False)):
            layers[name] = waiting + own
            waiting = []
        elif layers:
            layers[list(layers)[-1]] += own
        else:
            waiting += own
    return layers if layers else {owners[met[0]][0]: waiting}


class NoisyBatchNorm(nn.Module):
    """Batch norm whose outputs are moved and stretched at random, anew at every training step.

    In training mode each step draws a distribution for each feature, and each value of the batch
    its own noise from it. With a the output of batch norm,

        mean ~ U(-shift, shift) and scale ~ U(1, stretch)                 for each feature,
        m ~ U(mean - jitter, mean + jitter) and s ~ N(scale, jitter^2)    for each value,
        output = s a + m.

    In evaluation mode there is no noise.

    Parameters
    ----------
    num_features : int
        Features or channels, on axis 1 of (batch, features, *spatial).
    shift : float
        Largest mean of the noise.
    stretch : float
        Largest scale, at least 1.
    jitter : float
        How far single values stray from the distribution's mean and scale.

    Raises
    ------
    TypeError
        If an argument is not a number; in a forward pass, if x is not a tensor of the layer's
        dtype, or, where the layer is in single precision, of that or half precision.
    ValueError
        If num_features is below 1, shift or jitter negative, or stretch below 1; in a forward pass,
        if x has other features than the layer, or in training mode fewer than two values of each.

    References
    ----------
    Santurkar et al. (2018), section 2.1: batch norm with time-varying noise of non-zero mean and
    non-unit variance.
    """

    is_batch_norm = True  # The lab's batch statistics put it in training mode, noise included.

    def __init__(
        self, num_features: int, shift: Real = 0.5, stretch: Real = 1.25, jitter: Real = 0.1
    ):
        super().__init__()
        features = check.positive_integer("num_features", num_features)
        self.shift = check.nonnegative("shift", shift)
        self.stretch = check.positive("stretch", stretch)
        self.jitter = check.nonnegative("jitter", jitter)
        if self.stretch < 1:
            raise ValueError(f"stretch is {stretch}, expected at least 1, which is no stretch")
        self.norm = _BatchNorm(features)

    def forward(
        self, x: Float[torch.Tensor, "batch features *spatial"]
    ) -> Float[torch.Tensor, "batch features *spatial"]:
        """Normalise and, in training mode, disturb."""
        a = self.norm(x)
        if not self.training:
            return a
        each = (1, a.shape[1], *(1 for _ in a.shape[2:]))
        mean = self.shift * (2 * torch.rand(each, device=a.device, dtype=a.dtype) - 1)
        scale = 1 + (self.stretch - 1) * torch.rand(each, device=a.device, dtype=a.dtype)
        m = mean + self.jitter * (2 * torch.rand_like(a) - 1)
        s = scale + self.jitter * torch.randn_like(a)
        return s * a + m


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """torch's batch norm for any number of trailing axes."""

    def _check_input_dim(self, input):
        if not isinstance(input, torch.Tensor):
            raise TypeError(f"x is a {check.type_name(input)}, expected a tensor")
        shape = tuple(input.shape)
        if input.ndim < 2:
            raise ValueError(f"x has shape {shape}, expected (batch, features, *spatial)")
        if shape[1] != self.num_features:
            raise ValueError(
                f"x has {shape[1]} features on axis 1, expected {self.num_features}, those of the layer"
            )
        dtype = self.weight.dtype
        # Torch mixes half precision with parameters in single precision, and nothing else.
        halves = (torch.float16, torch.bfloat16) if dtype == torch.float32 else ()
        if input.dtype not in (dtype, *halves):
            raise TypeError(f"x has dtype {input.dtype}, expected {dtype}, that of the layer")
        count = input.numel() // shape[1]
        if count < 1 + self.training:
            raise ValueError(
                f"x has shape {shape}, {count} values of each feature, expected at least "
                f"{1 + self.training}"
            )


class TwoLayers(NamedTuple):
    """The second layer's gradient in a linear network of two layers, before and after a step."""

    before: Float[np.ndarray, "outputs hidden"]
    after: Float[np.ndarray, "outputs hidden"]


def two_linear_layers(
    W1: Float[np.ndarray, "hidden inputs"],
    W2: Float[np.ndarray, "outputs hidden"],
    C: Float[np.ndarray, "inputs inputs"],
    D: Float[np.ndarray, "outputs inputs"],
    learning_rate: Real,
) -> TwoLayers:
    """The shift of the second layer of x -> W2 W1 x in closed form.

    For the loss E (W2 W1 x - y)^2 / 2 with C = E[x x'] and D = E[y x'], and R = W2 W1 C - D,

        G  = R W1',
        G' = (R - h W2 W2' R C) (W1 - h W2' R)'      after a step of learning rate h.

    Parameters
    ----------
    W1, W2 : ndarray
        The weights.
    C, D : ndarray
        Second moments of the inputs, and of outputs and inputs.
    learning_rate : float
        Of the first layer's step; at least 0.

    Raises
    ------
    TypeError
        If an argument is not a plain array of floats, or learning_rate not a number.
    ValueError
        If shapes disagree, a value is not finite, entries of C differ from those of C' by more than
        a thousandth of what they can be at most, (C_ii C_jj)^(1/2), or learning_rate is negative or
        not finite.
    """
    h = check.nonnegative("learning_rate", learning_rate)
    for name, value in (("W1", W1), ("W2", W2), ("C", C), ("D", D)):
        check.array(name, value)
        if value.ndim != 2 or 0 in value.shape:
            raise ValueError(f"{name} has shape {value.shape}, expected a matrix with entries")
        check.finite(name, value)
    (hidden, inputs), outputs = W1.shape, len(W2)
    for name, value, expected in (
        ("W2", W2, (outputs, hidden)),
        ("C", C, (inputs, inputs)),
        ("D", D, (outputs, inputs)),
    ):
        if value.shape != expected:
            raise ValueError(
                f"{name} has shape {value.shape}, expected {expected} beside W1 and W2"
            )
    wide = C.astype(np.float64)
    sizes = np.sqrt(np.abs(wide.diagonal()))
    if (np.abs(wide - wide.T) > 1e-3 * np.outer(sizes, sizes)).any():
        raise ValueError("C is not symmetric, expected second moments E[x x']")
    R = W2 @ W1 @ C - D
    moved = W1 - h * W2.T @ R
    return TwoLayers(R @ W1.T, (R - h * W2 @ W2.T @ R @ C) @ moved.T)


class _Gradient:
    """The gradient of the loss in some parameters, at values that the model does not hold."""

    def __init__(self, model, loss, x, y):
        self.model, self.loss, self.x, self.y = model, loss, x, y

    def __call__(self, values, names):
        leaves = {name: values[name].detach().clone().requires_grad_() for name in names}
        return self._found(values, leaves, create_graph=False)

    def with_graph(self, values):
        """The values as leaves, and the gradient in all of them as a function of them."""
        leaves = {name: value.detach().clone().requires_grad_() for name, value in values.items()}
        return leaves, self._found(values, leaves, create_graph=True)

    def _found(self, values, leaves, create_graph):
        with torch.enable_grad():
            found = _run(self.model, values | leaves, self.x)
            value = _models.loss_of(self.loss, found, self.y)
            if not value.requires_grad:
                raise ValueError(
                    "loss returns a constant, expected it to depend on the model's trainable "
                    "parameters"
                )
            found = torch.autograd.grad(
                value,
                list(leaves.values()),
                create_graph=create_graph,
                materialize_grads=True,
            )
        return dict(zip(leaves, found, strict=True))


def _derivative(scalar, leaf):
    if not isinstance(scalar, torch.Tensor) or not scalar.requires_grad:
        return torch.zeros_like(leaf)
    (found,) = torch.autograd.grad(scalar, leaf, retain_graph=True, materialize_grads=True)
    return found


def _parts(model, x, y, layers):
    """The trainable parameters of a model, and its layers."""
    _models.check_model(model)
    _models.check_batch(x, y)
    start = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    if layers is None:
        return start, layers_of(model, x)
    _check_layers(layers, start)
    return start, layers


def _compared(layers, before, afterwards):
    rows = [
        _compare([before[name] for name in names], [after[name] for name in names])
        for names, after in zip(layers.values(), afterwards, strict=True)
    ]
    return Shift(tuple(layers), *np.array(rows, dtype=float).reshape(-1, 4).T)


def _run(model, parameters, x):
    """The model's output for other parameters; its buffers and torch's random state stay."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    devices = {value.device for value in model.parameters() if value.device.type == "cuda"}
    with torch.random.fork_rng(devices=devices):
        return _models.outputs(lambda x: functional_call(model, (parameters, buffers), (x,)), x)


def _updated(start, gradients, update):
    if isinstance(update, Mapping):
        missing, unknown = (
            sorted(map(str, some))
            for some in (start.keys() - update.keys(), update.keys() - start.keys())
        )
        if missing or unknown:
            raise ValueError(
                f"update lacks {', '.join(missing) or 'nothing'} and has {', '.join(unknown) or 'nothing'} "
                "too many, expected the new value of every trainable parameter by its name"
            )
        for name, value in update.items():
            if not isinstance(value, torch.Tensor):
                raise TypeError(
                    f"update[{name!r}] is a {check.type_name(value)}, expected a tensor"
                )
            if value.shape != start[name].shape:
                raise ValueError(
                    f"update[{name!r}] has shape {tuple(value.shape)}, expected that of the "
                    f"parameter, {tuple(start[name].shape)}"
                )
            if not value.is_floating_point():
                raise TypeError(
                    f"update[{name!r}] has dtype {value.dtype}, expected a floating-point one"
                )
        return {name: value.detach().to(start[name]) for name, value in update.items()}
    if isinstance(update, bool) or not isinstance(update, Real):
        raise TypeError(
            f"update is a {check.type_name(update)}, expected a learning rate or a mapping from "
            "parameter names to new values"
        )
    rate = check.nonnegative("update", update)
    return {name: value - rate * gradients[name] for name, value in start.items()}


def _compare(before, after):
    """Lengths of two gradients and of their difference, and the cosine between them."""
    a, b = (
        torch.cat([part.detach().flatten().double() for part in parts]).numpy(force=True)
        for parts in (before, after)
    )
    lengths, difference = (_length(a), _length(b)), _length(b - a)
    if not all(map(math.isfinite, lengths)) or 0 in lengths:
        return *lengths, difference, math.nan
    # Scaled first, so that no square of a tiny gradient is lost; exactly 1 where a equals b.
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    cosine = a @ b / math.sqrt((a @ a) * (b @ b))
    return *lengths, difference, min(max(cosine, -1.0), 1.0)


def _length(vector):
    largest = np.abs(vector).max(initial=0.0)
    if largest == 0 or not np.isfinite(largest):
        return float(largest)
    return float(largest * np.linalg.norm(vector / largest))


def _own(name, module):
    prefix = f"{name}." if name else ""
    return [prefix + key for key, p in module.named_parameters(recurse=False) if p.requires_grad]


def _check_layers(layers, start):
    if not isinstance(layers, Mapping):
        raise TypeError(
            f"layers is a {check.type_name(layers)}, expected a mapping from each layer's name to "
            "the names of its parameters"
        )
    if not layers:
        raise ValueError("layers is empty, expected at least one layer")
    seen = set()
    for layer, names in layers.items():
        if isinstance(names, str) or not isinstance(names, Sequence) or not names:
            raise ValueError(
                f"layers[{layer!r}] is {names!r}, expected a sequence of at least one parameter name"
            )
        for name in names:
            if not isinstance(name, str) or name not in start:
                raise ValueError(
                    f"layers[{layer!r}] names {name!r}, expected one of the trainable parameters "
                    f"{', '.join(start)}"
                )
            if name in seen:
                raise ValueError(
                    f"layers[{layer!r}] names {name!r} again, expected it in one layer"
                )
            seen.add(name)


def _check_forward_pass(owners, met, model):
    if not owners:
        raise ValueError("model has no trainable parameters, expected at least one layer")
    names = dict(model.named_parameters(remove_duplicate=False))
    holders = {}
    for name, parameter in names.items():
        holders.setdefault(parameter, []).append(name)
    for shared in holders.values():
        if len(shared) > 1:
            raise ValueError(
                f"{' and '.join(shared)} are one parameter, expected each layer to have its own: "
                "pass layers to say where it belongs"
            )
    for module, (name, _) in owners.items():
        if met.count(module) != 1:
            times = "no part" if module not in met else f"part {met.count(module)} times"
            raise ValueError(
                f"{name or type(module).__name__} takes {times} in the forward pass, expected "
                "once: pass layers to say which parameters form a layer"
            )
