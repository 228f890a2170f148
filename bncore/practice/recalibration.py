"""Recalibration: the running statistics of a trained network estimated afresh.

Running statistics are stale where weights have changed without them (averaged or edited weights,
a momentum that forgets too fast or too slowly), and those of another world where the inputs have
changed. Inputs alone mend them: no labels, no gradient, one pass.

With n_k values in batch k, of mean mu_k and biased variance v_k, n = sum n_k,

    mean = sum n_k mu_k / n,    var = (sum n_k v_k + sum n_k (mu_k - mean)²) / (n - 1)

are those of all values together. The plain average of the batches', which torch's ``update_bn`` takes
and ``bncore.lab.inference.refitted`` after the paper's Algorithm 2, counts a small last batch as
much as a whole one, and leaves out how far the means lie apart.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from bncore import arguments as check
from bncore import tensors
from bncore.lab.modes import is_batch_norm, unfrozen
from bncore.practice import handed

Batches = Iterable[handed.Batch]
BUFFERS = ("running_mean", "running_var")


def recalibrated(model: nn.Module, batches: Batches, *, layer_by_layer: bool = False) -> nn.Module:
    """A copy of the model whose running statistics are those of the given batches.

    Hand in what the network will meet: training data after averaging weights, unlabelled examples of
    another domain to adapt to it. Weights stay as they are, and so do batch norms that are frozen, or
    that no batch reaches. Dropout is off. Modes, momenta and random states are those of the model.

    In one pass, the default, each batch norm normalises by the statistics of the batch while those of
    all batches are pooled: the inputs of a deeper layer are those of training. Layer by layer, a
    batch norm is given its statistics before the next one is measured, so that each has just those
    of the inputs that it meets at inference, whatever the size of the batches. That takes a pass for
    every batch norm and one more. On one batch, both say the same but for the divisors n and n - 1.

    Parameters
    ----------
    model : nn.Module
        Of any kind, an ``AveragedModel`` too. Its batch norms normalise by ``running_mean`` and
        ``running_var`` in evaluation mode. One that counts part of its input only, as of padded
        sequences, has a method ``counted`` from its inputs to the values that count, of shape
        (values, features).
    batches : iterable
        Each an input, or a tuple or list that begins with one, as a ``DataLoader`` gives. An input is
        a tensor, an array, lists of numbers, a list of tensors, or a dict of keyword arguments, as in
        ``examine``. Read once, or, layer by layer, once for each batch norm and once more.
    layer_by_layer : bool

    Returns
    -------
    nn.Module
        Each ``running_var`` has divisor n - 1, and ``num_batches_tracked`` is the number of
        batches.

    Raises
    ------
    TypeError
        If model is no module, batches is one tensor, one dict or no iterable, a batch is none of what
        it may be, or batches can be read only once, layer by layer.
    ValueError
        If the model has lazy layers that have met no batch, there is no batch, one is empty or not
        finite, the model has no batch norm to recalibrate, one of them has fewer than two values or
        statistics that are not finite, or is called twice on the way, layer by layer.
    Exception
        What the model raises on a batch, with a note that says which.

    References
    ----------
    Ioffe and Szegedy (2015), Algorithm 2; Li et al. (2018), of another domain; Izmailov et al.
    (2018), section 3.2, of averaged weights.
    """
    _check(model, batches, layer_by_layer)
    fitted = copy.deepcopy(model)
    norms = _recalibrable(fitted)
    with _evaluation(fitted):
        if layer_by_layer:
            for norm in _in_order(fitted, norms, batches):
                one = {norm: norms[norm]}
                _settle(one, _pooled(fitted, one, batches, stop=True))
        else:
            _settle(norms, _pooled(fitted, norms, batches))
    return fitted


class _Reached(Exception):
    """The batch norm that was asked for has seen its input; the rest of the pass is not needed."""


class _Pool:
    """Count, mean and squared deviations of all values so far, in double precision."""

    def __init__(self):
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, count, mean, var):
        apart, whole = mean - self.mean, self.count + count
        self.mean = self.mean + apart * (count / whole)
        self.squares = self.squares + count * var + apart.square() * (self.count * count / whole)
        self.count = whole

    def statistics(self, name):
        if self.count < 2:
            raise ValueError(
                f"batch norm {name!r} is given one value of each feature, expected at least two to tell "
                "a variance"
            )
        mean, var = self.mean, self.squares / (self.count - 1)
        if not (mean.isfinite() & var.isfinite()).all():
            raise ValueError(
                f"batch norm {name!r} is given values that are not finite, expected finite ones: the "
                "network overflows on the way to it"
            )
        return {"running_mean": mean, "running_var": var}


def _pooled(model, norms, batches, stop=False):
    """The pool of each batch norm after one pass; on the way they normalise by the batch's statistics.

    They are in evaluation mode, and given the batch's statistics as their running ones: so every kind
    of batch norm does what its evaluation does, and keeps its momentum and counter.
    """
    pools = {norm: _Pool() for norm in norms}

    def take(norm, args, kwargs):
        values = _values(norm, norms[norm], args, kwargs)
        if not len(values):
            return
        moments = {"running_mean": values.mean(0), "running_var": values.var(0, correction=0)}
        pools[norm].add(len(values), *moments.values())
        if stop:
            raise _Reached
        if len(values) == 1:
            raise ValueError(
                f"a batch gives batch norm {norms[norm]!r} one value of each feature, which normalises "
                "to 0, expected at least two: drop it, or recalibrate layer by layer"
            )
        _write(norm, moments)

    hooks = [norm.register_forward_pre_hook(take, with_kwargs=True) for norm in norms]
    read = 0
    try:
        for given in _given(model, batches):
            with suppress(_Reached):
                handed.apply(model, given, read, "recalibrated")
            read += 1
    finally:
        for hook in hooks:
            hook.remove()
    return {norm: (pool, read) for norm, pool in pools.items()}


def _settle(norms, pools):
    """Write what was pooled into the batch norms that were reached."""
    for norm, (pool, batches) in pools.items():
        if pool.count:
            _write(norm, pool.statistics(norms[norm]))
            if isinstance(getattr(norm, "num_batches_tracked", None), torch.Tensor):
                norm.num_batches_tracked.fill_(batches)


def _write(norm, moments):
    for name in BUFFERS:
        if getattr(norm, name, None) is not None:
            getattr(norm, name).copy_(moments[name])


def _values(norm, name, args, kwargs):
    """The values of each feature that reach a batch norm, as rows in double precision."""
    if hasattr(norm, "counted"):
        return norm.counted(*args, **kwargs).double()
    x = args[0] if args else next(iter(kwargs.values()))
    features = norm.running_mean.numel()
    if x.ndim < 2 or x.shape[1] != features:
        raise ValueError(
            f"batch norm {name!r} is given a tensor of shape {tuple(x.shape)}, expected (batch, "
            f"{features}, *spatial): have batches the axes that the model takes?"
        )
    return x.movedim(1, -1).flatten(0, -2).double()


def _in_order(model, norms, batches):
    """The batch norms in the order in which they are reached."""
    order, names = [], dict(norms)

    def note(norm, args):
        seen.append(norm)

    hooks = [norm.register_forward_pre_hook(note) for norm in names]
    try:
        for number, given in enumerate(_given(model, batches)):
            seen = []
            handed.apply(model, given, number, "recalibrated")
            for norm in seen:
                if seen.count(norm) > 1:
                    raise ValueError(
                        f"batch norm {names[norm]!r} is called {seen.count(norm)} times for a batch, "
                        "expected once: what it meets later depends on its own statistics; "
                        "recalibrate in one pass"
                    )
            order += [norm for norm in seen if norm not in order]
    finally:
        for hook in hooks:
            hook.remove()
    return order


def _given(model, batches):
    """What each batch hands to the model, if that is examples without NaN or infinity."""
    empty = True
    for number, batch in enumerate(batches):
        empty, where = False, f"batches[{number}]"
        given = handed.arguments(batch, model, number)
        if handed.examples(given) == 0:
            raise ValueError(f"{where} holds no example, expected at least one")
        positional, keywords = given
        named = {where: positional} | {f"{where}[{key!r}]": one for key, one in keywords.items()}
        for name, value in named.items():
            for one in handed.leaves(value):
                tensors.finite(name, one)
        yield given
    if empty:
        raise ValueError("batches is empty, expected at least one batch")


def _recalibrable(model):
    """The batch norms with running statistics that are not frozen, each with its name."""
    whole = model.module if isinstance(model, AveragedModel) else model
    free = set(unfrozen(whole))
    found = {
        module: name
        for name, module in model.named_modules()
        if module in free and getattr(module, "running_mean", None) is not None
    }
    if not found:
        count = sum(map(is_batch_norm, model.modules()))
        raise ValueError(
            f"model has {count} batch norms, none of them with running statistics that are not "
            "frozen, expected at least one to recalibrate"
        )
    return found


@contextmanager
def _evaluation(model) -> Iterator[None]:
    """Everything in evaluation mode and no gradients; modes and torch's random numbers come back."""
    modes = {module: module.training for module in model.modules()}
    devices = {value.device for value in model.parameters() if value.device.type == "cuda"}
    try:
        for module in modes:
            module.training = False
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _check(model, batches, layer_by_layer):
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {check.type_name(model)}, expected a torch.nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("model is a ScriptModule, expected the module that it was made from")
    if any(value.is_meta for value in chain(model.parameters(), model.buffers())):
        raise ValueError("model is on the device 'meta', expected one whose weights hold numbers")
    if any(map(is_lazy, chain(model.parameters(), model.buffers()))):
        raise ValueError(
            "model has lazy layers without weights as yet, expected a trained one: run it on a batch"
        )
    if isinstance(batches, torch.Tensor | Mapping | str) or not isinstance(batches, Iterable):
        raise TypeError(
            f"batches is a {check.type_name(batches)}, expected an iterable of batches: hand in "
            "[x] for one batch"
        )
    if layer_by_layer and isinstance(batches, Iterator):
        raise TypeError(
            f"batches is a {check.type_name(batches)}, which can be read only once, expected a list "
            "or a DataLoader: layer by layer, they are read once for each batch norm"
        )
