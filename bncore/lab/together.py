"""Small networks of one architecture, trained many at a time, each as ``training.train`` would alone.

A step of a small network costs little but the calls; a hundred networks with a leading axis make the
same calls once. Use it for a study over rates and seeds::

    def run(rates, seeds):
        splits = [data.digits(seed) for seed in seeds]
        models = [networks.mlp(WIDTHS, "relu", "batch", seed=seed) for seed in seeds]
        train(models, splits, steps=600, learning_rate=rates, seeds=seeds)
        return {"accuracy": [probes.test_accuracy(*one) for one in zip(models, splits)]}

    found = at_best_rates(run, {}, [0.03, 0.1, 0.3], range(3), range(3, 15), "accuracy", smaller=False)
"""

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Real
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import cross_entropy

from bncore import arguments as check
from bncore import progress
from bncore.lab import _grids, studies
from bncore.lab.batches import Batches
from bncore.lab.data import Split
from bncore.lab.fingerprint import folder
from bncore.lab.layers import seeded
from bncore.lab.modes import held, prepare_training
from bncore.lab.probes import Probe
from bncore.lab.sweep import Run, sweep

Call = Callable[..., Mapping[str, object]]
OVER = "learning_rate"
TRACED = 300
"""Steps from which on it pays to trace one, which takes a second, to be two to three times as fast."""


def train(
    models: Sequence[nn.Module],
    splits: Sequence[Split],
    steps: int,
    batch_size: int = 64,
    *,
    learning_rate: Sequence[Real],
    seeds: Sequence[int],
    weight_decay: Sequence[Real] | None = None,
    decayed: Callable[[str], bool] = lambda name: True,
    record: Mapping[str, Probe] | None = None,
    moments: Sequence[int] = (),
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = cross_entropy,
) -> dict[str, Float[np.ndarray, "networks moments *_"]]:
    """Train networks in place by stochastic gradient descent, each on batches of its own.

    Each goes where ``training.train`` with its seed and rate takes it, up to rounding. Dropout draws
    for all of them from one generator, seeded by the first seed.

    Parameters
    ----------
    models : sequence of nn.Module
        Of one architecture, on the CPU.
    splits : sequence of Split
        One for each network, all of one shape.
    steps, batch_size : int
        As in ``training.train``.
    learning_rate, seeds : sequence of float, sequence of int
        One for each network.
    weight_decay : sequence of float, optional
        One for each network: the gradient of a parameter w is increased by so much times w.
    decayed : callable
        From a parameter's name to whether it decays; by default all do.
    record : mapping of str to probe, optional
        What to measure in each network at ``moments``, numbers of steps taken, ascending.
    loss : callable
        From (outputs, targets) of a batch to a scalar.

    Returns
    -------
    dict of str to Float[ndarray, "networks moments *_"]
        What each probe returned, by its name.

    Raises
    ------
    ValueError
        If there are not as many splits, rates, seeds and decays as networks, the networks or the
        splits differ in their shapes, a number is outside its range, or moments do not ascend from 0
        to at most ``steps``.
    """
    rates, decays = _check(
        models, splits, steps, batch_size, learning_rate, seeds, weight_decay, moments
    )
    base = copy.deepcopy(models[0])
    frozen = [set(held(model)) for model in models]
    if any(names != frozen[0] for names in frozen):
        raise ValueError(
            "models have other modules in evaluation mode than the first, expected the same"
        )
    prepare_training(base)
    for model in models:
        prepare_training(model)
    parameters, buffers = stack_module_state(list(models))
    learns = {name: one.requires_grad for name, one in base.named_parameters()}
    parameters = {name: one.detach() for name, one in parameters.items()}
    learning = {name: one for name, one in parameters.items() if learns[name]}
    x, y = (torch.stack([getattr(one, part) for one in splits]) for part in ("x_train", "y_train"))
    batches = [Batches(x.shape[1], batch_size, seed) for seed in seeds]
    each = torch.arange(len(models))[:, None]

    def losses(own, kept, examples, targets):
        return loss(functional_call(base, (own, kept), (examples,)), targets)

    together, found = vmap(losses, randomness="different"), {name: [] for name in record or {}}

    def gradients(own, kept, examples, targets):
        own = {name: one.detach().requires_grad_(learns[name]) for name, one in own.items()}
        total = together(own, kept, examples, targets).sum()
        return torch.autograd.grad(total, [own[name] for name in learning])

    with seeded(seeds[0]):
        for step in progress.bar(range(steps + 1), "Training", "step"):
            if step in moments:
                _write_back(models, parameters, buffers)
                with torch.random.fork_rng(devices=[]):
                    for name, probe in (record or {}).items():
                        values = [probe(*one) for one in zip(models, splits, strict=True)]
                        found[name].append(np.array(values, float))
            if step == steps:
                break
            batch = torch.stack([next(order) for order in batches])
            given = parameters, buffers, x[each, batch], y[each, batch]
            if step == 0 and steps >= TRACED:
                gradients = _traced(gradients, *given)
            for (name, one), gradient in zip(learning.items(), gradients(*given), strict=True):
                if decays is not None and decayed(name):
                    gradient = gradient + _along(decays, one) * one
                one.sub_(_along(rates, one) * gradient)
    _write_back(models, parameters, buffers)
    return {name: np.stack(values, axis=1) for name, values in found.items() if values}


def _traced(gradients, parameters, buffers, examples, targets):
    """The same function as a list of tensor operations, without what Python does around them."""
    buffers = {name: one.clone() for name, one in buffers.items()}
    with torch.random.fork_rng(devices=[]):
        return make_fx(gradients)(parameters, buffers, examples, targets)


def _along(numbers, parameter):
    """One number a network, along the axes of a stacked parameter."""
    return numbers.to(parameter.dtype).reshape(-1, *[1] * (parameter.ndim - 1))


def _write_back(models, parameters, buffers):
    with torch.no_grad():
        for i, model in enumerate(models):
            for stacked, own in (
                (parameters, model.named_parameters()),
                (buffers, model.named_buffers()),
            ):
                for name, one in own:
                    one.copy_(stacked[name][i])


def study(
    run: Call,
    arms: Mapping[str, Sequence],
    rates: Sequence[float],
    seeds: Sequence[int],
    *,
    axes: studies.Axes | None = None,
    store: studies.Store | None = None,
) -> xr.Dataset:
    """``studies.study`` of all arms, rates and seeds, for a run that makes all its networks at once.

    Parameters
    ----------
    run : callable
        From one keyword argument for each arm's name, and ``rates`` and ``seeds``, tuples of equal
        length with one of each for each network, to arrays by name with a first axis of networks.
    arms, rates, seeds, axes, store
        As in ``studies.tuned``.

    Raises
    ------
    TypeError, ValueError
        As ``studies.study``, or if an array has another number of networks.
    """
    kept = [one for case in _cases(arms) for one in _runs(run, store, case, rates, list(seeds))]
    return _grids.dataset(kept, axes or {}).drop_vars("ran")


def at_best_rates(
    run: Call,
    arms: Mapping[str, Sequence],
    rates: Sequence[float],
    seeds: Sequence[int],
    fresh_seeds: Sequence[int],
    score: str,
    *,
    smaller: bool,
    extensions: int = 4,
    axes: studies.Axes | None = None,
    store: studies.Store | None = None,
) -> dict[str, xr.Dataset]:
    """``studies.at_best_rates`` for a run that makes all its networks at once.

    Parameters
    ----------
    run
        As in ``study``.
    arms, rates, seeds, fresh_seeds, score, smaller, extensions, axes, store
        As in ``studies.at_best_rates``.

    Returns
    -------
    dict
        "tuning" and "fresh", as from ``studies.at_best_rates``.

    Raises
    ------
    TypeError, ValueError
        As ``studies.at_best_rates``.
    """
    seeds, fresh_seeds = list(seeds), list(fresh_seeds)
    if used := sorted(set(seeds) & set(fresh_seeds)):
        raise ValueError(f"fresh_seeds has {used[0]}, one of seeds, expected fresh ones")
    runs, cases = partial(_runs, run, store), _cases(arms)
    # Fresh seeds run at every rate: in one stack with the others they cost little.
    kept = [one for case in cases for one in runs(case, rates, seeds + fresh_seeds)]
    for _ in range(extensions):
        beyond = _grids.beyond(_tuning(kept, seeds, axes), score, OVER, smaller)
        kept += [one for case, rate in beyond for one in runs(case, [rate], seeds + fresh_seeds)]
        if not beyond:
            break
    tuning = _tuning(kept, seeds, axes)
    chosen = studies.best(tuning, score, smaller=smaller).learning_rate
    fresh = _grids.dataset(
        [one for one in kept if one.parameters["seed"] in fresh_seeds], axes or {}
    )
    fresh = fresh.sel({OVER: chosen})
    return {"tuning": tuning, "fresh": fresh.reset_coords(OVER).drop_vars("ran")}


def _tuning(runs, seeds, axes):
    return _grids.dataset([one for one in runs if one.parameters["seed"] in seeds], axes or {})


def _cases(arms):
    return [dict(zip(arms, values, strict=True)) for values in itertools.product(*arms.values())]


def _runs(run, store, case, rates, seeds):
    """One call for all rates and seeds of a case, taken apart into one run for each network."""
    pairs = list(itertools.product(rates, seeds))
    of_all = {
        "rates": [tuple(rate for rate, _ in pairs)],
        "seeds": [tuple(seed for _, seed in pairs)],
    }
    place = None if store is None else Path(store) / folder(run)
    alone = {name: [value] for name, value in case.items()}
    (whole,) = sweep(run, {**alone, **of_all}, store=place)
    found = {name: np.asarray(values) for name, values in whole.result.items()}
    for name, values in found.items():
        if values.shape[:1] != (len(pairs),):
            raise ValueError(
                f"{name} has shape {values.shape}, expected ({len(pairs)}, ...): a number or array for "
                "each network"
            )
    return [
        Run({**case, OVER: rate, "seed": seed}, {name: values[i] for name, values in found.items()})
        for i, (rate, seed) in enumerate(pairs)
    ]


def _check(models, splits, steps, batch_size, learning_rate, seeds, weight_decay, moments):
    """The rates and decays as tensors."""
    count = len(models)
    given = {"splits": splits, "learning_rate": learning_rate, "seeds": seeds}
    if weight_decay is not None:
        given["weight_decay"] = weight_decay
    if count == 0:
        raise ValueError("models is empty, expected at least one network")
    for name, values in given.items():
        if len(values) != count:
            raise ValueError(
                f"{name} has {len(values)} entries, expected {count}: one for each network"
            )
    for i, model in enumerate(models):
        if _shapes(model) != _shapes(models[0]):
            raise ValueError(
                f"models[{i}] has other layers or shapes than models[0], expected one architecture"
            )
    for i, split in enumerate(splits):
        shape, first = split.x_train.shape, splits[0].x_train.shape
        if shape != first:
            raise ValueError(
                f"splits[{i}].x_train has shape {tuple(shape)}, expected {tuple(first)}, as splits[0]"
            )
    check.positive_integer("steps", steps)
    check.positive_integer("batch_size", batch_size)
    examples = len(splits[0].x_train)
    if not 2 <= batch_size <= examples:
        raise ValueError(
            f"batch_size is {batch_size}, expected from 2 (a batch norm needs two values) to {examples}, "
            "the size of a training set"
        )
    numbers = [check.integer(f"moments[{i}]", moment, 0) for i, moment in enumerate(moments)]
    if numbers != sorted(set(numbers)) or max(numbers, default=0) > steps:
        raise ValueError(f"moments is {numbers}, expected numbers that ascend to at most {steps}")
    rates = [check.positive(f"learning_rate[{i}]", one) for i, one in enumerate(learning_rate)]
    if weight_decay is None:
        return torch.tensor(rates, dtype=torch.float64), None
    decays = [check.nonnegative(f"weight_decay[{i}]", one) for i, one in enumerate(weight_decay)]
    return tuple(torch.tensor(some, dtype=torch.float64) for some in (rates, decays))


def _shapes(model):
    modules = [(name, type(module)) for name, module in model.named_modules()]
    return modules, [(name, tuple(value.shape)) for name, value in model.state_dict().items()]
