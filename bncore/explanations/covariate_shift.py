"""How much a layer's gradient changes because the layers before it have moved.

Internal covariate shift as Santurkar, Tsipras, Ilyas and Madry (2018) measure it, Definition 2.1.
"""

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from bncore import arguments as check
from bncore import tensors
from bncore.explanations import _models
from bncore.explanations.layering import Layers, check_layers, layers_of, output

Loss = Callable[..., torch.Tensor]
Parameters = Mapping[str, torch.Tensor | np.ndarray | check.Listed]


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
    x: tensors.Examples,
    y: _models.Targets,
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
        The batch, finite; or arrays or lists.
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
        If model is not a module with real parameters, x or y are not numbers, loss not callable, or
        update neither a number nor a mapping.
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
    start, layers, gradient = _parts(model, loss, x, y, layers)
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
    x: tensors.Examples,
    y: _models.Targets,
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
    start, layers, gradient = _parts(model, loss, x, y, layers)
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
            found = output(self.model, values | leaves, self.x)
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


def _parts(model, loss, x, y, layers):
    """The trainable parameters of a model, its layers, and the gradient of the loss."""
    _models.check_model(model)
    x, y = _models.batch(model, x, y)
    start = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    if layers is None:
        layers = layers_of(model, x)
    else:
        check_layers(layers, start)
    return start, layers, _Gradient(model, loss, x, y)


def _compared(layers, before, afterwards):
    rows = [
        _compare([before[name] for name in names], [after[name] for name in names])
        for names, after in zip(layers.values(), afterwards, strict=True)
    ]
    return Shift(tuple(layers), *np.array(rows, dtype=float).reshape(-1, 4).T)


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
        return {name: _value(f"update[{name!r}]", update[name], old) for name, old in start.items()}
    if isinstance(update, bool) or not isinstance(update, Real):
        raise TypeError(
            f"update is a {check.type_name(update)}, expected a learning rate or a mapping from "
            "parameter names to new values"
        )
    rate = check.nonnegative("update", update)
    return {name: value - rate * gradients[name] for name, value in start.items()}


def _value(name, value, old):
    """A new value of a parameter; floats of another kind are rounded to the parameter's."""
    value = tensors.tensor(name, value, None if isinstance(value, torch.Tensor) else old.dtype)
    tensors.finite(name, value)
    if value.shape != old.shape:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}, expected that of the parameter, "
            f"{tuple(old.shape)}"
        )
    return value.detach().to(old)


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
