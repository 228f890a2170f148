"""The studies behind the page on tuning.

``study`` runs a configuration, in some five minutes on one core; ``tuning_results`` reads what came out.
"""

from collections.abc import Mapping
from functools import partial

import xarray as xr

from bncore.chapters.practice.placement import tuning_runs as runs
from bncore.chapters.practice.placement.running_means import errors
from bncore.lab import studies, together

CONFIGURATION = {
    "seeds": [0, 1],
    "fresh_seeds": list(range(10, 18)),
    "start": {
        "normalization": ["none", "batch"],
        "gain": [0.01, 0.1, 3**-0.5, 2**0.5, 10.0],
        "learning_rates": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0],
        "seeds": [10, 11, 12, 13, 14],
        "steps": 600,
    },
    "momentum": {
        "batch_size": [4, 32, 256],
        "learning_rates": [0.01, 0.03, 0.1, 0.3, 1.0, 3.0],
        "moments": [30, 100, 300, 600],
    },
    "paths": {"batch_size": [4, 32, 256], "learning_rates": [0.3], "steps": 200},
    "preparation": {
        "of": ["cancer", "pixels"],
        "preparation": list(runs.PREPARED),
        "learning_rates": [1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.3, 1.0],
        "steps": 600,
    },
    "decay": {
        "decayed": list(runs.DECAYED),
        "decay": [0.01, 0.03],
        "learning_rates": [0.03, 0.1, 0.3, 1.0],
        "steps": 600,
    },
    "dropout": {
        "place": list(runs.PLACES[:2]),
        "drop": [0.1, 0.3, 0.5],
        "learning_rates": [0.1, 0.3, 1.0, 3.0],
        "steps": 600,
    },
    "epsilon": {
        "inputs": ["yes"],
        "eps": [1e-12, 1e-5, 1e-3, 0.1, 10.0],
        "learning_rates": [0.1, 0.3, 1.0, 3.0],
        "steps": 600,
    },
    "layers": {
        "where": list(runs.LAYERS),
        "learning_rates": [0.03, 0.1, 0.3, 1.0],
        "steps": 600,
    },
}
REDUCED = {
    "seeds": [0],
    "fresh_seeds": [1, 2],
    "start": {
        "normalization": ["none", "batch"],
        "gain": [2**0.5],
        "learning_rates": [0.1, 0.3],
        "seeds": [0, 1],
        "steps": 8,
    },
    "momentum": {"batch_size": [32], "learning_rates": [0.1, 0.3, 1.0], "moments": [4, 12]},
    "paths": {"batch_size": [32], "learning_rates": [0.3], "steps": 5},
    "preparation": {
        "of": ["cancer"],
        "preparation": ["raw, inputs"],
        "learning_rates": [0.1, 0.3, 1.0],
        "steps": 8,
    },
    "decay": {
        "decayed": ["weights"],
        "decay": [0.01],
        "learning_rates": [0.1, 0.3, 1.0],
        "steps": 8,
    },
    "dropout": {
        "place": list(runs.PLACES[:2]),
        "drop": [0.3],
        "learning_rates": [0.1, 0.3, 1.0],
        "steps": 8,
    },
    "epsilon": {"inputs": ["yes"], "eps": [1e-3], "learning_rates": [0.1, 0.3, 1.0], "steps": 8},
    "layers": {
        "where": ["none", "every other"],
        "learning_rates": [0.1, 0.3, 1.0],
        "steps": 12,
    },
}
EXTENSIONS = 3


def study(configuration: Mapping, store=None) -> dict:
    """All parts of a configuration.

    Parameters
    ----------
    configuration : mapping
        As ``CONFIGURATION``; grids of rates go on beyond an end at which an arm is best.
    store : path, optional
        Folder in which finished runs are kept.

    Returns
    -------
    dict
        "layers", "epsilon", "preparation", "dropout", "no dropout", "decay" and "no decay": each a dict
        of "tuning" and "fresh", as from ``together.at_best_rates``. "momentum": a dict of "fresh", at the
        rates that are best for each number of steps and momentum. "start": accuracies by rate. "paths": errors of running means, as from
        ``running_means.errors``.
    """
    c = configuration
    seeds = c["seeds"], c["fresh_seeds"]
    part = c["start"]
    start = together.study(
        partial(runs.by_start, steps=part["steps"]),
        {name: part[name] for name in ("normalization", "gain")},
        part["learning_rates"], part["seeds"], axes=_axes(part["steps"]), store=store,
    )  # fmt: skip
    found = {"start": studies.rounded(start[["last"]])}
    for name, (run, arms) in ARMS.items():
        part = c[name]
        found[name] = _tuned(run, {arm: part[arm] for arm in arms}, part, seeds, store)
    for name, (run, arms) in WITHOUT.items():
        found[f"no {name}"] = _tuned(run, arms, c[name], seeds, store)
    found["momentum"] = _momentum(c["momentum"], seeds, store)
    found["paths"] = studies.rounded(_paths(c["paths"], seeds[1], store))
    return found


ARMS = {
    "layers": (runs.by_layers, ("where",)),
    "preparation": (runs.by_preparation, ("of", "preparation")),
    "decay": (runs.by_decay, ("decayed", "decay")),
    "dropout": (runs.by_dropout, ("place", "drop")),
    "epsilon": (runs.by_epsilon, ("inputs", "eps")),
}
WITHOUT = {
    "decay": (runs.by_decay, {"decayed": ["all"], "decay": [0.0]}),
    "dropout": (runs.by_dropout, {"place": [runs.PLACES[0]], "drop": [0.0]}),
}


def _axes(steps):
    return {"accuracy": {"steps": [steps // 2, steps]}, "scale": {"layer": [1, 2]}}


def _tuned(run, arms, part, seeds, store):
    found = together.at_best_rates(
        partial(run, steps=part["steps"]), arms, part["learning_rates"], *seeds, "last",
        smaller=False, extensions=EXTENSIONS, axes=_axes(part["steps"]), store=store,
    )  # fmt: skip
    tuning = found["tuning"][["last", "ran"]]
    return {"tuning": studies.rounded(tuning, 3), "fresh": studies.rounded(found["fresh"])}


def _momentum(part, seeds, store):
    run = partial(runs.by_momentum, moments=tuple(part["moments"]))
    axes = {"accuracy": {"steps": part["moments"], "momentum": list(runs.MOMENTA)}}
    both = together.study(
        run, {"batch_size": part["batch_size"]}, part["learning_rates"], [*seeds[0], *seeds[1]],
        axes=axes, store=store,
    )  # fmt: skip
    chosen = studies.best(both.sel(seed=seeds[0]), "accuracy", smaller=False)
    fresh = both.sel(seed=seeds[1]).sel(learning_rate=chosen.learning_rate)
    return {"fresh": studies.rounded(fresh.reset_coords("learning_rate"))}


def _paths(part, seeds, store):
    places = {"layer": [1, 2], "feature": list(range(32))}
    axes = {
        "exact": {"steps": list(range(part["steps"] + 1)), **places},
        "deviations": places,
        "kept": {"layer": [1, 2], "momentum": list(runs.MOMENTA), "feature": places["feature"]},
    }
    found = together.study(
        partial(runs.paths, steps=part["steps"]), {"batch_size": part["batch_size"]},
        part["learning_rates"], seeds, axes=axes, store=store,
    )  # fmt: skip
    parts = [errors(found.sel(batch_size=[m]), m) for m in part["batch_size"]]
    return xr.concat(parts, "batch_size")
