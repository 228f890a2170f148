"""The recorded runs of the forward chapter: deep networks at every learning rate, from every start.

``make full CHAPTER=mechanics/forward`` writes recorded.json again, in an hour and a half on one core;
if it is interrupted, it goes on where it was. ``python -m bncore.chapters.full mechanics/forward
--starts`` repeats one of PARTS and keeps the rest. With ``--paper`` the same code trains ``PAPER``
instead, the network of Ioffe and Szegedy's first figure on MNIST, and writes paper.json. It needs the
internet once, to download MNIST. It has not been run here: no chapter, figure or claim rests on it.
"""

from functools import partial
from pathlib import Path

from bncore.chapters.mechanics.forward import benefits, experiments
from bncore.lab import recorded, studies

RATES = {
    "networks": list(experiments.NETWORKS),
    "learning_rates": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0],
    "seeds": [0, 1, 2, 3, 4],
    "fresh_seeds": list(range(5, 15)),
    "moments": [100, 300, 1000, 3000, 10_000],
}
ARRIVAL = {
    "normalizations": ["none", "batch"],
    "learning_rates": [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0],
    "seeds": [0, 1, 2],
    "fresh_seeds": list(range(5, 15)),
    "horizon": 1000,
}
STEADINESS = {
    "gains": {"sigmoid": 4.0, "ReLU": 2**0.5, "convolutional": 2**0.5},
    "best_rates": {
        "sigmoid": {"none": 1.0, "batch": 3.0},
        "ReLU": {"none": 0.1, "batch": 1.0},
        "convolutional": {"none": 0.3, "batch": 1.0},
    },
    "seeds": {
        "sigmoid": list(range(100, 140)),
        "ReLU": list(range(100, 140)),
        "convolutional": list(range(100, 120)),
    },
    "rates": {"sigmoid": [0.3, 1.0, 3.0, 10.0], "ReLU": [0.03, 0.1, 0.3, 1.0, 3.0, 10.0]},
    "seeds_of_rates": list(range(100, 110)),
    "horizon": {"sigmoid": 1000, "ReLU": 1000, "convolutional": 2000},
}
CONFIGURATION = {
    **RATES,
    "starts": {
        **ARRIVAL,
        "kinds": ["sigmoid", "ReLU"],
        "gains": [1 / 16, 1 / 4, 3**-0.5, 2**0.5, 4.0, 16.0],
    },
    "convolutional": {
        **ARRIVAL,
        "kinds": ["convolutional"],
        "gains": [2**0.5],
        "learning_rates": [0.1, 0.3, 1.0],
        "seeds": [0, 1],
        "horizon": 600,
    },
    "convolutional-2000": {
        **ARRIVAL,
        "kinds": ["convolutional"],
        "gains": [2**0.5],
        "learning_rates": [0.1, 0.3, 1.0],
        "horizon": 2000,
    },
    "learned": {
        **ARRIVAL,
        "kinds": ["sigmoid", "ReLU"],
        "normalizations": ["batch", "batch, γ and β fixed"],
        "gains": [1.0],
    },
    "saturation": {
        "normalizations": ["none", "batch"],
        "learning_rates": [0.03, 0.3, 3.0],
        "seeds": [0, 1, 2, 3, 4],
        "moments": [100, 300, 1000, 3000],
    },
    "wandering": {
        "normalizations": ["none", "batch"],
        "learning_rates": [0.3, 1.0, 3.0],
        "seeds": [0, 1, 2],
        "fresh_seeds": list(range(5, 15)),
        "steps": 600,
    },
    "gradients": {
        "networks": {
            "sigmoid": {"kind": "sigmoid", "gain": 4.0, "depth": 5},
            "ReLU": {"kind": "ReLU", "gain": 2**0.5, "depth": 5},
            "ReLU, 30 layers": {"kind": "ReLU", "gain": 2**0.5, "depth": 30},
        },
        "learning_rates": {"sigmoid": [10.0], "ReLU": [1.0, 3.0], "ReLU, 30 layers": [1.0, 3.0]},
        "seeds": list(range(100, 105)),
        "steps": 300,
    },
    "steadiness": STEADINESS,
    "constants": {
        "momentum": [0.01, 0.1, 0.5],
        "eps": [1e-5, 1e-3, 1e-1],
        "learning_rates": [0.03, 0.1, 0.3],
        "seeds": [0, 1, 2],
        "fresh_seeds": list(range(5, 15)),
        "steps": 500,
        "batch_size": 8,
    },
    "seconds": {"kinds": list(benefits.KINDS), "repeats": 500},
}
REDUCED = {
    "networks": ["sigmoid, batch norm", "ReLU, gain √2"],
    "learning_rates": [0.03, 0.1, 0.3],
    "seeds": [0, 1],
    "fresh_seeds": [2, 3],
    "moments": [20, 60],
    "starts": {
        **ARRIVAL,
        "kinds": ["sigmoid", "ReLU"],
        "gains": [2.0],
        "learning_rates": [0.03, 0.1, 0.3],
        "seeds": [0, 1],
        "fresh_seeds": [2, 3],
        "horizon": 60,
    },
    "convolutional": {
        **ARRIVAL,
        "kinds": ["convolutional"],
        "gains": [2**0.5],
        "learning_rates": [0.1, 0.3, 1.0],
        "seeds": [0],
        "fresh_seeds": [1],
        "horizon": 30,
    },
    "saturation": {
        "normalizations": ["none", "batch"],
        "learning_rates": [0.3, 3.0],
        "seeds": [0],
        "moments": [20, 60],
    },
    "steadiness": {
        "gains": {"ReLU": 2**0.5},
        "best_rates": {"ReLU": {"none": 0.1, "batch": 1.0}},
        "seeds": {"ReLU": [2, 3]},
        "rates": {"ReLU": [0.1, 0.3]},
        "seeds_of_rates": [2],
        "horizon": {"ReLU": 60},
    },
    "wandering": {
        "normalizations": ["batch"],
        "learning_rates": [0.3, 1.0, 3.0],
        "seeds": [0],
        "fresh_seeds": [1],
        "steps": 40,
    },
    "gradients": {
        "networks": {"ReLU": {"kind": "ReLU", "gain": 2**0.5, "depth": 5}},
        "learning_rates": {"ReLU": [0.3]},
        "seeds": [0],
        "steps": 20,
    },
    "constants": {
        "momentum": [0.01, 0.1],
        "eps": [1e-5, 1e-3],
        "learning_rates": [0.03, 0.1, 0.3],
        "seeds": [0],
        "fresh_seeds": [1, 2],
        "steps": 10,
        "batch_size": 8,
    },
}
PAPER = {
    **RATES,
    "fresh_seeds": list(range(5, 10)),
    "moments": [100, 1000, 10_000, 50_000],
    "widths": [784, 100, 100, 100, 10],
    "data": "mnist",
}
PATH = Path(__file__).with_name("recorded.json")


def run(configuration: dict, cache=None, store=None) -> dict:
    """Every part of the configuration: the accuracies of ``by_rate``, and one for each of PARTS.

    Parameters
    ----------
    configuration : dict
        As ``CONFIGURATION``, with any of PARTS; grids go on beyond an end at which a network is best.
    cache : path, optional
        Folder of the images that are downloaded, as in ``data.openml``.
    store : path, optional
        Folder in which finished runs are kept.
    """
    parts = {name: part for name, part in PARTS.items() if name in configuration}
    found = {name: part(configuration[name], store) for name, part in parts.items()}
    return {**by_rate(configuration, cache, store), **found}


def by_rate(c, cache=None, store=None):
    """Test accuracy of each network at each rate, and at its best rate on fresh seeds.

    Returns
    -------
    dict
        "tuning" and "fresh": accuracies by network, learning rate, seed and number of steps; the
        second at the rate at which the median of the last accuracy is best.
    """
    widths = tuple(c.get("widths", experiments.WIDTHS))
    one = partial(
        experiments.accuracies, moments=c["moments"], widths=widths,
        source=c.get("data", "digits"), cache=cache,
    )  # fmt: skip
    found = studies.at_best_rates(
        one, {"network": c["networks"]}, c["learning_rates"], c["seeds"], c["fresh_seeds"], "last",
        smaller=False, axes={"accuracy": {"steps": c["moments"]}}, store=store,
    )  # fmt: skip
    return {name: studies.rounded(some) for name, some in found.items()}


def arrivals(c, store=None):
    """Steps to a training loss and to a test accuracy, by kind, normalisation and initial gain.

    Returns
    -------
    dict
        "tuning"; "by_loss" and "by_accuracy": fresh seeds at the rate that gets there in the fewest,
        the second at that of the first where none gets there.
    """
    one = partial(benefits.arrival, horizon=c["horizon"])
    arms = {"kind": c["kinds"], "normalization": c["normalizations"], "gain": c["gains"]}
    found = studies.at_best_rates(
        one, arms, c["learning_rates"], c["seeds"], c["fresh_seeds"], "loss_score",
        smaller=True, store=store,
    )  # fmt: skip
    chosen = studies.best(found["tuning"], "accuracy_score", smaller=True)
    arrives = chosen.accuracy_score.median("seed") <= c["horizon"]
    rates = chosen.learning_rate.where(arrives, found["fresh"].learning_rate)
    chosen = chosen.assign(learning_rate=rates)
    by_accuracy = studies.confirmed(one, chosen, c["fresh_seeds"], store=store)
    return {
        "tuning": studies.rounded(found["tuning"].drop_vars("rises")),
        "by_loss": studies.rounded(found["fresh"].drop_vars("accuracy_score")),
        "by_accuracy": studies.rounded(by_accuracy[["accuracy_score", "learning_rate"]]),
    }


def saturation(c, store=None):
    """Shares of saturated sigmoids, by normalisation, learning rate, seed and number of steps."""
    grid = {"normalization": c["normalizations"], "learning_rate": c["learning_rates"]}
    axes = {key: {"steps": c["moments"]} for key in ("share", "accuracy")}
    one = partial(benefits.saturation, moments=c["moments"])
    found = studies.study(one, grid, c["seeds"], axes=axes, store=store)
    return studies.rounded(found, 3)


def steadiness(c, store=None):
    """Rises and peaks of the loss, as from ``benefits.arrival``, by kind and normalisation.

    Returns
    -------
    dict
        "at_best": ``rises`` at the gains and rates that arrive first in the part "starts".
        "over_rates": ``peak`` from the same gains, over the rates from the lowest at which both
        networks arrive there.
    """

    def arm(kind, normalization, rates, seeds, keep):
        one = partial(
            benefits.arrival, kind, normalization, c["gains"][kind], horizon=c["horizon"][kind]
        )
        found = studies.study(one, {"learning_rate": rates}, seeds, store=store)
        return studies.rounded(found[[keep, "loss_score"]])

    at_best = {
        kind: {
            name: arm(kind, name, [rate], c["seeds"][kind], "rises") for name, rate in arms.items()
        }
        for kind, arms in c["best_rates"].items()
    }
    over_rates = {
        kind: {
            name: arm(kind, name, rates, c["seeds_of_rates"], "peak") for name in ("none", "batch")
        }
        for kind, rates in c["rates"].items()
    }
    return {"at_best": at_best, "over_rates": over_rates}


def wandering(c, store=None):
    """How far inputs of sigmoids wander: "tuning", and "fresh" seeds at the most accurate rates."""
    found = studies.at_best_rates(
        partial(experiments.wandering, steps=c["steps"]),
        {"normalization": c["normalizations"]}, c["learning_rates"], c["seeds"], c["fresh_seeds"],
        "accuracy", smaller=False, store=store,
    )  # fmt: skip
    return {name: studies.rounded(one) for name, one in found.items()}


def gradients(c, store=None):
    """Ranges of gradients in training, by network, normalisation and learning rate."""
    found = {}
    for name, network in c["networks"].items():
        one = partial(benefits.gradient_range, **network, steps=c["steps"])
        grid = {"normalization": ["none", "batch"], "learning_rate": c["learning_rates"][name]}
        found[name] = studies.rounded(studies.study(one, grid, c["seeds"], store=store))
    return found


def constants(c, store=None):
    """Test accuracies by momentum and eps: "tuning", and "fresh" of the best pair and of DEFAULTS.

    Of those on fresh seeds the pairs under "best" and in DEFAULTS count.
    """
    one = partial(benefits.with_constants, steps=c["steps"], batch_size=c["batch_size"])
    arms = {"momentum": c["momentum"], "eps": c["eps"]}
    tuning = studies.tuned(
        one, arms, c["learning_rates"], c["seeds"], "accuracy", smaller=False, store=store
    )
    chosen = studies.best(tuning, "accuracy", smaller=False)
    at = chosen["accuracy"].median("seed").argmax(...)
    best = {name: chosen[name].values[at[name].item()].item() for name in arms}
    pairs = [best, *benefits.DEFAULTS.values()]
    some = {name: sorted({pair[name] for pair in pairs} & set(arms[name])) for name in arms}
    fresh = studies.confirmed(one, chosen.sel(some), c["fresh_seeds"], store=store)
    return {"tuning": studies.rounded(tuning), "fresh": studies.rounded(fresh), "best": best}


def seconds(c, store=None):
    """Median seconds of a training step, by kind, without batch norm ("none") and with it."""
    return {kind: benefits.step_seconds(kind, c["repeats"]) for kind in c["kinds"]}


PARTS = {
    "starts": arrivals,
    "convolutional": arrivals,
    "convolutional-2000": arrivals,
    "learned": arrivals,
    "saturation": saturation,
    "steadiness": steadiness,
    "wandering": wandering,
    "gradients": gradients,
    "constants": constants,
    "seconds": seconds,
}
OTHERS = recorded.repeats(PATH, PARTS, CONFIGURATION, REDUCED)
