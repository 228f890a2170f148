"""What to measure in a network while it trains.

A probe is a function of (model, split) that returns a number or an array and leaves the model as
it was. ``training.train`` calls the probes that it is given. What they return is not finite where
the model's outputs, its loss or its gradients are not, as once training has diverged.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import nn
from torch.nn.functional import cross_entropy

from bncore import arguments as check
from bncore import tensors
from bncore.lab.data import Split
from bncore.lab.modes import Statistics, evaluation

# Examples that go through a network at a time where others do not change what it says of one.
PIECE = 2048

Probe = Callable[[nn.Module, Split], float | Float[np.ndarray, "..."]]


def in_pieces(model: nn.Module, x: tensors.Examples) -> Float[torch.Tensor, "examples *outputs"]:
    """What a model in evaluation mode gives for all examples, some thousands at a time.

    With running statistics an example's outputs do not depend on the others, so that pieces change
    nothing but the memory it takes, and rounding. Statistics of a batch would be those of a piece:
    then call the model.
    """
    x = tensors.examples("x", x, model)
    return torch.cat([model(piece) for piece in x.split(PIECE)])


def test_accuracy(model: nn.Module, split: Split) -> float:
    """Fraction of the test set that the model classifies correctly, with running statistics."""
    x = tensors.examples("x_test", split.x_test, model)
    y = tensors.labels("y_test", split.y_test, len(x), x.device)
    with evaluation(model):
        return (in_pieces(model, x).argmax(1) == y).double().mean().item()


test_accuracy.__test__ = False


def inputs_of(
    model: nn.Module,
    layers: Sequence[str],
    x: tensors.Examples,
    statistics: Statistics = "running",
) -> dict[str, Float[np.ndarray, "..."]]:
    """What reaches each of the named modules when the model sees x.

    Parameters
    ----------
    model : nn.Module
    layers : sequence of str
        Names as ``model.named_modules`` has them, e.g. ``"activation3"``; modules that the model
        calls just once.
    x : Float[Tensor, "examples *features"]
    statistics : {"running", "batch"}
        As in ``evaluation``.

    Returns
    -------
    dict of str to Float[ndarray, "..."]
        In the layers' order and in the dtype that reaches them, float32 for bfloat16. Not finite
        where a model overflows.

    Raises
    ------
    TypeError
        If x holds no real numbers, or a module is called without a tensor.
    ValueError
        If x is empty or not finite, the model has no module of a name, or it calls the module
        never, or more than once: which input is meant is then not clear.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    for layer in layers:
        if layer not in modules:
            known = ", ".join(name for name in modules if name)
            raise ValueError(f"layer {layer!r} is not in the model, expected one of {known}")
    x = tensors.examples("x", x, model)
    seen = {layer: [] for layer in layers}

    def keep(layer):
        return lambda module, inputs: seen[layer].append(_first(layer, inputs))

    hooks = [modules[layer].register_forward_pre_hook(keep(layer)) for layer in seen]
    try:
        with evaluation(model, statistics):
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    for layer, inputs in seen.items():
        if len(inputs) != 1:
            raise ValueError(
                f"layer {layer!r} is called {len(inputs)} times when the model sees x, expected "
                "once: give each place a module of its own to tell its inputs apart"
            )
    return {layer: inputs[0] for layer, inputs in seen.items()}


def _first(layer, inputs):
    if not inputs or not isinstance(inputs[0], torch.Tensor):
        raise TypeError(f"layer {layer!r} is called without a tensor, expected one as its input")
    found = inputs[0].detach()
    return (found.float() if found.dtype == torch.bfloat16 else found).numpy(force=True).copy()


def percentiles(
    layer: str,
    unit: int,
    q: Sequence[float | int] = (15, 50, 85),
    statistics: Statistics = "batch",
) -> Probe:
    """A probe: percentiles, over the training set, of what reaches one unit of a module.

    Parameters
    ----------
    layer : str
        Name of the module; ``"activation3"`` measures the inputs of the third non-linearity.
    unit : int
        Index into the module's features.
    q : sequence of float
        Which percentiles, each in [0, 100].
    statistics : {"running", "batch"}
        As in ``evaluation``; with ``"batch"`` the whole training set is one batch.

    References
    ----------
    Ioffe and Szegedy (2015), Figure 1(b, c).
    """

    def probe(model, split):
        seen = inputs_of(model, [layer], split.x_train, statistics)[layer]
        return np.percentile(seen[:, unit].astype(np.float64), q)

    return probe


def loss(
    part: Literal["train", "test"] = "train",
    statistics: Statistics = "running",
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = cross_entropy,
) -> Probe:
    """A probe: the loss over the whole training or test set.

    Parameters
    ----------
    part : {"train", "test"}
    statistics : {"running", "batch"}
        As in ``evaluation``; with ``"batch"`` the whole set is one batch.
    function : callable
        From (outputs, targets) to a scalar; by default mean cross-entropy, in nats.

    Raises
    ------
    ValueError
        If part or statistics is unknown.
    """
    _check(part, statistics)

    def probe(model, split):
        x, y = _part(model, split, part)
        with evaluation(model, statistics):
            outputs = model(x) if statistics == "batch" else in_pieces(model, x)
            return function(outputs, y).item()

    return probe


def gradient_norms(
    layers: Sequence[str] | None = None,
    part: Literal["train", "test"] = "train",
    statistics: Statistics = "batch",
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = cross_entropy,
    examples: int | None = None,
) -> Probe:
    """A probe: Euclidean length of the loss's gradient with respect to each layer's weight.

    The gradients that training has accumulated stay as they are.

    Parameters
    ----------
    layers : sequence of str, optional
        Names of modules with a weight; by default all linear layers and convolutions, in order.
    part, statistics, function
        As in ``loss``.
    examples : int, optional
        Use only so many of the first examples; by default all.

    Raises
    ------
    TypeError
        If examples is not an integer.
    ValueError
        If part or statistics is unknown, examples is below 1, or, when called, the model has no
        module of that name with a weight.
    """
    _check(part, statistics)
    if examples is not None:
        check.positive_integer("examples", examples)

    def probe(model, split):
        modules = dict(model.named_modules())
        names = layers
        if names is None:
            names = [
                name
                for name, module in modules.items()
                if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
            ]
        weights = []
        for name in names:
            weight = getattr(modules.get(name), "weight", None)
            if weight is None:
                known = ", ".join(
                    key
                    for key, module in modules.items()
                    if getattr(module, "weight", None) is not None
                )
                raise ValueError(
                    f"layer {name!r} is not in the model or has no weight, expected one of {known}"
                )
            weights.append(weight)
        x, y = _part(model, split, part)
        with evaluation(model, statistics), torch.enable_grad():
            value = function(model(x[:examples]), y[:examples])
            gradients = torch.autograd.grad(value, weights)
        return np.array(
            [torch.linalg.vector_norm(g, dtype=torch.float64).item() for g in gradients]
        )

    return probe


def activation_percentiles(
    layer: str,
    q: Sequence[float | int] = (15, 50, 85),
    statistics: Statistics = "batch",
    examples: int | None = None,
) -> Probe:
    """A probe: percentiles, over examples and all units, of what reaches a module.

    ``percentiles`` is its counterpart for one unit.

    Parameters
    ----------
    layer : str
        Name of the module; ``"activation3"`` measures the inputs of the third non-linearity.
    q : sequence of float
        Which percentiles, each in [0, 100].
    statistics : {"running", "batch"}
        As in ``evaluation``.
    examples : int, optional
        Use only so many of the first training examples, as one batch; by default all.

    Raises
    ------
    TypeError
        If examples is not an integer.
    ValueError
        If statistics is unknown or examples is below 1.
    """
    _check("train", statistics)
    if examples is not None:
        check.positive_integer("examples", examples)

    def probe(model, split):
        seen = inputs_of(model, [layer], split.x_train[:examples], statistics)
        return np.percentile(seen[layer].astype(np.float64), q)

    return probe


def _part(model, split, part):
    x, y = (split.x_train, split.y_train) if part == "train" else (split.x_test, split.y_test)
    x = tensors.examples(f"x_{part}", x, model)
    return x, tensors.targets(f"y_{part}", y, x.dtype, x.device)


def _check(part, statistics):
    for name, value, known in (
        ("part", part, ("train", "test")),
        ("statistics", statistics, ("running", "batch")),
    ):
        if value not in known:
            raise ValueError(f"{name} is {value!r}, expected {known[0]!r} or {known[1]!r}")
