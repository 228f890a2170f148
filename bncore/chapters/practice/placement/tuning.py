"""The studies behind the page on tuning.

``study`` runs a configuration, in some twenty minutes on one core; ``tuning_results`` reads what came
out.
"""

from collections.abc import Mapping
from functools import partial

import xarray as xr

from bncore.chapters.practice.placement import horizon
from bncore.chapters.practice.placement import tuning_runs as runs
from bncore.chapters.practice.placement.running_means import errors
from bncore.lab import studies, together

CONFIGURATION = {
    "seeds": [40, 41, 42],
    "fresh_seeds": list(range(43, 53)),
    "start": {
        "normalization": ["none", "batch"],
        "gain": [0.01, 0.1, 3**-0.5, 2**0.5, 10.0],
        "learning_rates": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0],
        "seeds": list(range(43, 51)),
        "steps": 1200,
    },
    "momentum": {
        "batch_size": [4, 32, 256],
        "learning_rates": [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0],
        "moments": [30, 100, 300, 600, 1200],
    },
    "paths": {"batch_size": [4, 32, 256], "learning_rates": [0.3], "steps": 200},
    "preparation": {
        "of": ["cancer", "pixels"],
        "preparation": list(runs.PREPARED),
        "learning_rates": [1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.3, 1.0],
        "steps": 1200,
        "doublings": 1,
    },
    "decay": {
        "decayed": list(runs.DECAYED),
        "decay": [0.001, 0.003, 0.01, 0.03],
        "learning_rates": [0.03, 0.1, 0.3, 1.0],
        "steps": 1200,
        "doublings": 1,
    },
    "dropout": {
        "place": list(runs.PLACES),
        "drop": [0.1, 0.3, 0.5],
        "learning_rates": [0.1, 0.3, 1.0, 3.0],
        "steps": 1200,
        "doublings": 1,
    },
    "epsilon": {
        "inputs": ["yes"],
        "eps": [1e-12, 1e-5, 1e-3, 0.1, 10.0],
        "learning_rates": [0.1, 0.3, 1.0, 3.0],
        "steps": 1200,
        "doublings": 1,
    },
    "layers": {
        "where": list(runs.LAYERS),
        "learning_rates": [0.03, 0.1, 0.3, 1.0],
        "steps": 1200,
        "doublings": 1,
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
        "doublings": 0,
    },
    "decay": {
        "decayed": ["weights"],
        "decay": [0.01],
        "learning_rates": [0.1, 0.3, 1.0],
        "steps": 8,
        "doublings": 0,
    },
    "dropout": {
        "place": list(runs.PLACES[:2]),
        "drop": [0.3],
        "learning_rates": [0.1, 0.3, 1.0],
        "steps": 8,
        "doublings": 0,
    },
    "epsilon": {
        "inputs": ["yes"],
        "eps": [1e-3],
        "learning_rates": [0.1, 0.3, 1.0],
        "steps": 8,
        "doublings": 0,
    },
    "layers": {
        "where": ["none", "every other"],
        "learning_rates": [0.1, 0.3, 1.0],
        "steps": 12,
        "doublings": 0,
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
        of "steps", and of "tuning" and "fresh" as from ``together.at_best_rates``, with "accuracy" and
        "half" as from ``horizon.settled``, the second (and "scale") a mean over the seeds. "momentum": a dict of "fresh", at the
        rates that are best for each number of steps and momentum. "start": "accuracy" and "half" by
        rate. "paths": errors of running means, as from ``running_means.errors``.
    """
    c = configuration
    seeds = c["seeds"], c["fresh_seeds"]
    part = c["start"]
    start = together.study(
        partial(runs.by_start, steps=part["steps"]),
        {name: part[name] for name in ("normalization", "gain")},
        part["learning_rates"], part["seeds"], store=store,
    )  # fmt: skip
    found = {"start": studies.rounded(start[["half", "accuracy"]], 3)}
    for name, part in c.items():
        if name in ARMS:
            once = partial(_decision, name, part, seeds, store)
            found |= horizon.until_done(once, part["steps"], part["doublings"])
    found["momentum"] = _momentum(c["momentum"], seeds, store)
    found["paths"] = studies.rounded(_paths(c["paths"], seeds[1], store), 3)
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


def _decision(name, part, seeds, store, steps):
    """The study of one decision, and of what its arms are compared with if that is none of them."""
    run, arms = ARMS[name]
    runs_of = {name: (run, {arm: part[arm] for arm in arms})}
    if name in WITHOUT:
        runs_of[f"no {name}"] = WITHOUT[name]
    return {
        key: _tuned(partial(run, steps=steps), arms, part["learning_rates"], seeds, store)
        for key, (run, arms) in runs_of.items()
    }


def _tuned(run, arms, rates, seeds, store):
    found = together.at_best_rates(
        run, arms, rates, *seeds, "accuracy", smaller=False, extensions=EXTENSIONS,
        axes={"scale": {"layer": [1, 2]}}, store=store,
    )  # fmt: skip
    tuning, fresh = found["tuning"][["accuracy", "ran"]], found["fresh"]
    means = {name: fresh[name].mean("seed") for name in ("half", "scale") if name in fresh}
    return {"tuning": studies.rounded(tuning), "fresh": studies.rounded(fresh.assign(means))}


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
