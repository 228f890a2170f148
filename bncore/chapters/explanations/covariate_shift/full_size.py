"""The recorded run of the covariate shift chapter, and what it says.

``make full CHAPTER=explanations/covariate_shift`` writes it again, in some ten minutes on one core.

With ``--paper`` the same code runs ``PAPER`` instead, a configuration near the size of Santurkar et
al. (2018), and writes paper.json: a VGG-11 of width 64 on CIFAR-10, and 25 linear layers of 64 units.
It needs the internet once, to download CIFAR-10 (``--cache`` says where to), and a GPU.
It has not been run here: no chapter, figure or claim rests on it.
"""

from functools import partial

from bncore.chapters.explanations.covariate_shift import experiments, measures, readings
from bncore.chapters.explanations.covariate_shift.runs import (
    AXES,
    distance_run,
    loss_run,
    moved_run,
    noise_run,
    percentile_run,
    returned_run,
    shift_run,
)
from bncore.lab import studies

CONFIGURATION = {
    "vgg": {
        "data": "digits",
        "size": 16,
        "depth": 11,
        "width": 12,
        "batch_size": 64,
        "steps": 200,
        "rates": [0.01, 0.03, 0.1, 0.3],
        "one_rate": 0.03,
        "records": [0, 5, 20, 50, 100, 180],
        "drawn": [5, 20, 50, 100, 180],
        "tuning_seeds": [100, 101],
    },
    "linear": {
        "examples": 256,
        "depth": 25,
        "width": 32,
        "steps": 160,
        "rates": [0.001, 0.003, 0.01, 0.03, 0.1],
        "one_rate": 0.003,
        "records": [0, 5, 20, 50, 100, 150],
        "drawn": [5, 50, 150],
        "tuning_seeds": [100, 101, 102, 103],
    },
    "move": 0.01,
    "seeds": [0, 1, 2, 3, 4],
    "fresh_seeds": [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19],
    "noise": {"strengths": [2, 4, 8], "seeds": [0, 1, 2], "record": 20},
    "moved": {
        "strengths": [0, 2, 4],
        "gains": [0.1, 1, 10],
        "rates": [0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0],
        "steps": 120,
        "seeds": [100, 101, 102, 103, 104],
        "fresh_seeds": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    },
    "extensions": 2,
    "every": 5,
    "device": "cpu",
}

REDUCED = {
    "vgg": {
        "data": "digits",
        "size": 8,
        "depth": 11,
        "width": 4,
        "batch_size": 64,
        "steps": 12,
        "rates": [0.03, 0.1, 0.3],
        "one_rate": 0.03,
        "records": [0],
        "drawn": [0],
        "tuning_seeds": [100],
    },
    "linear": {
        "examples": 256,
        "depth": 25,
        "width": 16,
        "steps": 12,
        "rates": [0.003, 0.01, 0.03],
        "one_rate": 0.003,
        "records": [0],
        "drawn": [0],
        "tuning_seeds": [100],
    },
    "move": 0.01,
    "seeds": [0],
    "fresh_seeds": [1],
    "noise": {"strengths": [2], "seeds": [0], "record": 5},
    "moved": {
        "strengths": [0, 4],
        "gains": [1],
        "rates": [0.1, 1.0, 10.0],
        "steps": 12,
        "seeds": [100],
        "fresh_seeds": [0],
    },
    "extensions": 0,
    "every": 5,
    "device": "cpu",
}

# Near the size of Santurkar et al. (2018); learning rates are chosen from the grids, as above.
PAPER = {
    "vgg": {
        "data": "cifar10",
        "size": 32,
        "depth": 11,
        "width": 64,
        "batch_size": 128,
        "steps": 15_000,
        "rates": [0.01, 0.03, 0.1, 0.3],
        "one_rate": 0.03,
        "records": [0, 100, 1_000, 3_000, 8_000, 14_000],
        "drawn": [100, 1_000, 3_000, 8_000, 14_000],
        "tuning_seeds": [100, 101],
    },
    "linear": {
        "examples": 1_000,
        "depth": 25,
        "width": 64,
        "steps": 10_000,
        "rates": [0.0001, 0.001, 0.003, 0.01, 0.03, 0.1],
        "one_rate": 0.003,
        "records": [0, 100, 1_000, 3_000, 6_000, 9_000],
        "drawn": [100, 3_000, 9_000],
        "tuning_seeds": [100, 101],
    },
    "move": 0.01,
    "seeds": [0, 1, 2],
    "fresh_seeds": [3, 4],
    "noise": {"strengths": [2, 4, 8], "seeds": [0, 1, 2], "record": 1_000},
    "moved": None,
    "extensions": 2,
    "every": 500,
    "device": "cuda",
}


def run(configuration, cache=None, store=None):
    """Choose learning rates on the tuning seeds, then train and measure on the others.

    Parameters
    ----------
    configuration : dict
        As ``CONFIGURATION`` or ``PAPER``. Losses are averaged over "every" so many steps, and
        percentiles kept half as often.
    cache : path, optional
        Folder of the images that are downloaded, as in ``data.openml``.
    store : path, optional
        Folder of finished runs.

    Returns
    -------
    dict of str to dict of str to Dataset
        For each network "tuning", "runs", "fresh" and "layers", see ``readings.runs``; of the VGG
        also "drift" of each activation, "distances" that one step moves distributions, "percentiles"
        of the first seed, and "noise", with stronger noise at the noisy model's rate.
        Under "returned", the VGG with batch norm whose means are moved as without it, and under
        "moved", where it is asked for, the perceptrons whose inputs are moved: "tuning" and "fresh".
    """
    c, found = configuration, {}
    for network in ("vgg", "linear"):
        found[network] = _network(c, network, cache, store)
    vgg = found["vgg"]
    noise = partial(
        noise_run,
        learning_rate=vgg["runs"].learning_rate.sel(kind="noisy batch norm").item(),
        configuration=c,
        cache=cache,
    )
    grid = {"strength": c["noise"]["strengths"]}
    seeds, axes = c["noise"]["seeds"], {**AXES, "drift": ("activation",)}
    vgg["noise"] = studies.rounded(studies.study(noise, grid, seeds, axes=axes, store=store), 3)
    found["returned"] = _returned(c, vgg["drift"].drift, cache, store)
    return found | ({"moved": _moved(c["moved"], store)} if c["moved"] else {})


def _network(c, network, cache, store):
    """The studies of one network."""
    options, named = c[network], {"configuration": c, "network": network, "cache": cache}
    kinds = list(experiments.NORMALIZATIONS)[: 3 if network == "vgg" else 2]
    losses, shifts = (partial(one, **named) for one in (loss_run, shift_run))
    tuning = studies.tuned(
        losses,
        {"kind": kinds},
        options["rates"],
        options["tuning_seeds"],
        "end",
        smaller=True,
        extensions=c["extensions"],
        axes=AXES,
        store=store,
    )
    chosen = studies.best(tuning, "end", smaller=True)

    def measured(arms, seeds):
        found = studies.confirmed(shifts, arms, seeds, axes=AXES, store=store)
        return found.assign_coords(record=options["records"], compared=list(measures.COMPARED))

    whole = measured(chosen, c["seeds"])
    fresh = measured(chosen.sel(kind=kinds[:2]), c["fresh_seeds"])
    found = {
        "tuning": studies.rounded(tuning, 3),
        "runs": studies.rounded(_medians(whole), 3),
        "fresh": studies.rounded(_medians(fresh.sel(compared=["own rate", "one rate"])), 3),
        "layers": studies.rounded(_layers(whole.sel(kind=kinds[:2]), options["drawn"]), 2),
    }
    if network == "linear":
        found["tuning"] = found["tuning"].drop_vars("losses")
    else:
        found["fresh"] = found["fresh"].drop_vars(["other", "accuracies"])
        found["drift"] = studies.rounded(whole[["drift"]], 3)
        one = partial(percentile_run, configuration=c, cache=cache)
        followed = studies.confirmed(one, chosen, c["seeds"][:1], axes=AXES, store=store)
        found["distances"] = _distances(c, chosen.sel(kind=kinds[:2]), cache, store)
        found["percentiles"] = studies.rounded(followed, 2)
    return found


def _layers(found, records):
    """What is drawn layer by layer; the first layer never shifts."""
    found = found[["relative", "cosine"]].sel(record=records)
    return found.isel(layer=slice(1, None)).assign_coords(layer=range(1, found.sizes["layer"]))


def _medians(found):
    """Medians over the layers after the first, and over the activations."""
    found = found.copy()
    for name in {"relative", "cosine", "other"} & set(found):
        found[name] = found[name].isel(layer=slice(1, None)).median("layer")
    if "drift" in found:
        found["drift"] = found.drift.median("activation")
    return found


def _returned(c, drift, cache, store):
    """The VGG whose means are moved as those without batch norm, at each rate, and at the best one."""
    plain = readings.typical(drift.sel(kind="no batch norm")).round(4)
    one = partial(returned_run, drift=plain.tolist(), configuration=c, cache=cache)
    found = studies.at_best_rates(
        one,
        {"times": [1]},
        c["vgg"]["rates"],
        c["vgg"]["tuning_seeds"],
        c["seeds"],
        "end",
        smaller=True,
        extensions=c["extensions"],
        axes=AXES,
        store=store,
    )
    found["tuning"] = found["tuning"].drop_vars(["steps", "accuracies", "ran"])
    return {name: studies.rounded(part, 3) for name, part in found.items()}


def _distances(c, chosen, cache, store):
    """How far one step moves the distributions of the VGG, with and without batch norm."""
    one = partial(distance_run, configuration=c, cache=cache)
    found = studies.confirmed(one, chosen, c["fresh_seeds"][:10], axes=AXES, store=store)
    return studies.rounded(found.assign_coords(record=c["vgg"]["records"]), 2)


def _moved(c, store):
    """Perceptrons whose inputs are moved, at each gain and rate, and at the best rate on other seeds."""
    one = partial(moved_run, steps=c["steps"])
    found = studies.at_best_rates(
        one,
        {"strength": c["strengths"], "gain": c["gains"]},
        c["rates"],
        c["seeds"],
        c["fresh_seeds"],
        "loss",
        smaller=True,
        store=store,
    )
    found["tuning"] = found["tuning"].drop_vars("ran")
    return {name: studies.rounded(part, 3) for name, part in found.items()}
