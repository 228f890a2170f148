"""Examine a network on batches, or a checkpoint alone."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from bncore import arguments as check
from bncore.arguments import type_name
from bncore.practice.diagnosis import agreement, structure, values
from bncore.practice.diagnosis.parts import Parts, parts
from bncore.practice.diagnosis.report import Report
from bncore.practice.diagnosis.watching import watch


def examine(
    model: nn.Module,
    batches: Iterable,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    most: int = 32,
) -> Report:
    """Find what is wrong with the batch norms of a network. It stays exactly as it is.

    Each batch goes through the network once or twice, without gradients: as in training, with dropout
    if there is any. The first 512 examples go through it in evaluation mode too, with the running
    statistics and with those of the batches: of few batches less is found. What is judged, and from which size on, stands in
    ``CODES``. Where one cause has several symptoms, the cause is reported. The same network and batches
    give the same report.

    Parameters
    ----------
    model : nn.Module
        Any network. Batch norms are torch's, lazy and synchronised ones too, their subclasses, and
        whatever keeps a running mean. A model in training mode is taken as it trains: what is in
        evaluation mode within it is frozen. In a model that is in evaluation mode as a whole nothing
        counts as frozen but batch norms whose parameters do not learn while others do.
    batches : iterable
        Cut as in training. Each is an input, or a tuple or list that begins with one, as a
        ``DataLoader`` gives. An input is a tensor, an array, lists of numbers, a list of tensors, or a
        dict of keyword arguments, as in ``recalibrated``. Where a second entry, or "labels" in a dict,
        holds classes, lost answers are counted, and less is missed. Training data say whether training
        and evaluation agree; the data of use say whether they are prepared as in training.
    optimizer : torch.optim.Optimizer, optional
        Says what learns and what is decayed.
    most : int
        How many batches are looked at.

    Returns
    -------
    Report

    Raises
    ------
    TypeError
        If model, optimizer or a batch is of the wrong type.
    ValueError
        If there is no batch, or most is below 1.
    Exception
        What the model raises on a batch, with a note that says which.
    """
    _check_model(model)
    most = check.positive_integer("most", most)
    if isinstance(batches, torch.Tensor | Mapping | str) or not isinstance(batches, Iterable):
        raise TypeError(
            f"batches is a {type_name(batches)}, expected an iterable of batches: hand in [x] for "
            "one, or x.split(64)"
        )
    if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer is a {type_name(optimizer)}, expected a torch.optim.Optimizer")
    return judged(watch(model, batches, most), optimizer)


def judged(seen, optimizer):
    """The report on a network that was watched."""
    if not seen.layers:
        return Report((), ())
    findings = list(values.not_finite(seen))
    ill = {one.layer for one in findings}
    explained, least = set(ill), math.inf if ill else agreement.harmful(seen)
    for layer in seen.layers:
        each, met = parts(layer.module), layer.met
        name = layer.name
        own = [
            *values.few_values(layer, seen),
            *values.low_precision(name, each),
            *structure.wrong_axis(layer),
            *structure.half_frozen(layer, seen, optimizer),
            *structure.unsynchronised(layer, seen),
            *structure.redundant_bias(layer),
            *structure.decayed_affine(layer, optimizer),
        ]
        if name not in ill and met is not None:
            own += values.dead_features(name, each, met)
            own += values.epsilon_rules(name, each, met)
            own += structure.dropout_before(layer)
            causes = [*structure.reused_layer(layer)]
            if not layer.frozen:
                causes += agreement.stale(name, each, met, least)
            if causes:
                explained.add(name)
            own += causes or agreement.unlike(layer)
        findings += own
    if not any(one.layer == "" and one.code == "not-finite" for one in findings):
        findings += agreement.gaps(seen, explained)
    names = tuple(layer.name for layer in seen.layers)
    return Report(tuple(findings), names, seen.batches, tuple(_remarks(seen)))


def examine_state(
    state_dict: Mapping[str, object],
    *,
    momentum: float | int | None = 0.1,
    eps: float | int = 1e-5,
) -> Report:
    """Find what can be found in a checkpoint alone: statistics that are not finite, stale, in half
    precision, or without variance.

    Parameters
    ----------
    state_dict : mapping of str to Tensor
        As ``model.state_dict()`` gives it. A batch norm is a name with running_mean and running_var.
    momentum, eps
        Of the batch norms, which a checkpoint does not hold.

    Returns
    -------
    Report
        Its ``batches`` is None.

    Raises
    ------
    TypeError
        If state_dict is no mapping of names, a statistic in it is no tensor, or momentum or eps is
        not a real number.
    ValueError
        If a tensor holds no numbers, a mean and its variance differ in shape, a count is not one
        number, momentum lies outside [0, 1], or eps is not positive.
    """
    if not isinstance(state_dict, Mapping) or not all(isinstance(key, str) for key in state_dict):
        raise TypeError(
            f"state_dict is a {type_name(state_dict)}, expected a mapping from names to tensors: "
            "model.state_dict()"
        )
    if momentum is not None:
        momentum = check.fraction("momentum", momentum)
    eps = check.positive("eps", eps)
    _check_buffers(state_dict)
    tensors = {
        key: value.detach() for key, value in state_dict.items() if isinstance(value, torch.Tensor)
    }
    names = [
        key.removesuffix("running_mean").removesuffix(".")
        for key in tensors
        if key.rpartition(".")[2] == "running_mean"
    ]
    layers = {name: _stored(tensors, name, momentum, eps) for name in names}
    rows = {}
    for key, value in tensors.items():
        name, _, part = key.rpartition(".")
        rows[(name, part) if name in layers else ("", key)] = value
    findings = list(values.not_finite_state(rows))
    ill = {one.layer for one in findings}
    for name, each in layers.items():
        findings += values.low_precision(name, each)
        if name not in ill and each.has_statistics:
            findings += values.dead_features(name, each, None)
            findings += values.epsilon_rules(name, each, None)
            findings += agreement.stale(name, each, None)
    return Report(tuple(findings), tuple(names))


def _stored(tensors, name, momentum, eps):
    prefix = f"{name}." if name else ""
    mean, var, gamma, beta = (
        tensors.get(prefix + key) for key in ("running_mean", "running_var", "weight", "bias")
    )
    count = tensors.get(f"{prefix}num_batches_tracked")
    return Parts(mean, var, gamma, beta, None if count is None else int(count), momentum, eps)


def _check_buffers(state):
    """Refuse what no batch norm keeps under the names of its buffers."""
    for key, value in state.items():
        name = key.rpartition(".")[2]
        if isinstance(value, torch.Tensor) and value.is_meta:
            raise ValueError(
                f"state_dict[{key!r}] is on the device 'meta', expected a tensor that holds numbers"
            )
        if name not in ("running_mean", "running_var", "num_batches_tracked"):
            continue
        if value is not None and not isinstance(value, torch.Tensor):
            raise TypeError(f"state_dict[{key!r}] is a {type_name(value)}, expected a tensor")
        if name == "num_batches_tracked" and value is not None and value.numel() != 1:
            raise ValueError(
                f"state_dict[{key!r}] has shape {tuple(value.shape)}, expected one number"
            )
        mean = state.get(key.removesuffix("running_var") + "running_mean")
        both = isinstance(value, torch.Tensor) and isinstance(mean, torch.Tensor)
        if name == "running_var" and both and value.shape != mean.shape:
            raise ValueError(
                f"state_dict[{key!r}] has shape {tuple(value.shape)}, expected {tuple(mean.shape)}, "
                "that of running_mean"
            )


def _remarks(seen):
    idle = [layer.name for layer in seen.layers if not layer.training]
    if idle:
        said = ", ".join(idle[:3]) + (" …" if len(idle) > 3 else "")
        are = "batch norm is" if len(idle) == 1 else "batch norms are"
        yield f"{len(idle)} {are} never called on these batches: {said}."


def _check_model(model):
    if not isinstance(model, nn.Module):
        what = f"the class {model.__name__}" if isinstance(model, type) else f"a {type_name(model)}"
        raise TypeError(f"model is {what}, expected a torch.nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("model is a ScriptModule, expected the module that it was made from")
