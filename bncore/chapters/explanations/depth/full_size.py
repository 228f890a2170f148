"""The recorded run of the depth chapter: growth rates at width 512, and training at depth.

``make full CHAPTER=explanations/depth`` writes it again, in two hours on one core; if it is
interrupted, it goes on where it was. ``--training`` repeats the trainings only.

With ``--paper`` the same code trains the networks of ``PAPER`` instead, deeper and wider ones on
CIFAR-10, fully connected like those that Yang et al. (2019) trained, and writes paper.json.
It needs the internet once, to download CIFAR-10 (``--cache`` says where to), and a GPU.
It has not been run here: no chapter, figure or claim rests on it.
"""

from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np

from bncore.chapters.explanations.depth import experiments
from bncore.explanations import depth
from bncore.lab import recorded, studies

NAMES = ["identity", "relu", "leaky_relu", "tanh", "erf", "sigmoid", "gelu", "elu", "softplus"]
NAMES += ["silu", "abs"]
GROWTH = {"width": [512], "layers": [30], "seeds": 10}
TRAINED = {
    "width": 64,
    "moments": [150, 500, 1500, 3000],
    "seeds": [0, 1, 2],
    "fresh_seeds": list(range(3, 13)),
}
DESCENT = {"optimizer": "sgd", "learning_rates": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]}
ADAM = {"optimizer": "adam", "learning_rates": [0.0001, 0.0003, 0.001, 0.003, 0.01]}
CONFIGURATION = {
    "activations": {**GROWTH, "activation": NAMES, "batch_size": [8, 64, 256]},
    "widths": {
        **GROWTH,
        "activation": ["relu"],
        "batch_size": [64],
        "width": [32, 64, 128, 256, 512, 1024],
    },
    "large_batches": {
        **GROWTH,
        "activation": ["identity", "relu", "softplus", "silu", "abs"],
        "batch_size": [256],
        "width": [128, 256, 512, 1024],
    },
    "depths": {**GROWTH, "activation": ["relu"], "batch_size": [64], "layers": [15, 30, 60]},
    "training": {**TRAINED, **DESCENT, "kinds": list(experiments.KINDS), "layers": [10, 30, 60]},
    "adam": {
        **TRAINED,
        **ADAM,
        "kinds": list(experiments.KINDS),
        "layers": [60],
        "moments": [150, 500, 1000],
        "fresh_seeds": [3, 4, 5, 6, 7],
    },
}
SMALL = {"width": 32, "moments": [20], "seeds": [0, 1]}
REDUCED = {
    "activations": {
        "activation": ["relu", "tanh"],
        "batch_size": [8, 64],
        "width": [512],
        "layers": [20],
        "seeds": 2,
    },
    "training": {
        **SMALL,
        "kinds": ["batch norm", "residual"],
        "layers": [5],
        "optimizer": "sgd",
        "learning_rates": [0.01, 0.03, 0.1],
        "fresh_seeds": [2, 3],
    },
}
# Growth rates are not among it: those above are of wide networks already.
WIDE = {
    "layers": [10, 20, 40, 60, 100],
    "width": 512,
    "moments": [500, 2000, 8000, 30_000],
    "fresh_seeds": [3, 4, 5],
    "source": "cifar10",
    "batch_size": 128,
    "device": "cuda",
}
PAPER = {part: {**CONFIGURATION[part], **WIDE} for part in ("training", "adam")}

RATES = ("activations", "widths", "large_batches", "depths")


def run(configuration: dict, cache=None, store=None) -> dict:
    """Measure what the configuration asks for.

    Parameters
    ----------
    configuration : dict
        ``CONFIGURATION``, ``REDUCED`` or ``PAPER``, or some of their parts.
    cache : path, optional
        Folder of the images that are downloaded, as in ``data.openml``.
    store : path, optional
        Folder in which finished trainings are kept.

    Returns
    -------
    dict
        For growth rates a list of rows with mean, standard deviation over seeds and prediction; for
        trainings what ``training`` returns.
    """
    return {
        part: rates(grid) if part in RATES else training(grid, cache, store)
        for part, grid in configuration.items()
    }


def rates(grid):
    """Measured and predicted growth rates, one row for each combination in the grid.

    "predicted" is for infinite width and a symmetric batch; "given_forward" for the forward passes of
    the measured networks, "spread_given_forward" the deviation of their ratios to it.
    """
    rows = []
    axes = ("activation", "batch_size", "width", "layers")
    for activation, batch_size, width, layers in product(*(grid[axis] for axis in axes)):
        case = activation, width, batch_size, layers, grid["seeds"]
        measured = experiments.measured_rates(*case)
        given = experiments.given_forward(*case)
        numbers = {
            "measured": np.exp(np.log(measured).mean()),
            "spread": measured.std(ddof=1),
            "predicted": depth.growth_rate(activation, batch_size),
            "given_forward": np.exp(np.log(given).mean()),
            "spread_given_forward": (measured / given).std(ddof=1),
        }
        row = dict(zip(axes, (activation, batch_size, width, layers), strict=True))
        rows.append(row | {name: round(float(value), 5) for name, value in numbers.items()})
    return rows


def training(grid: dict, cache=None, store=None) -> dict:
    """Test accuracies of each kind and depth at each rate, and at its best rate on fresh seeds.

    On the digits, in batches of 64, unless the grid says otherwise with "source", "batch_size" and
    "device". Grids go on beyond an end at which a network is best.

    Returns
    -------
    dict
        "tuning" and "fresh": accuracies by kind, number of layers, learning rate, seed and number of
        steps; the second at the rate at which the median of the last accuracy is best.
    """
    fixed = {"moments", "width", "optimizer", "source", "batch_size", "device"}
    run = partial(
        experiments.accuracies,
        cache=cache,
        **{name: value for name, value in grid.items() if name in fixed},
    )
    found = studies.at_best_rates(
        run,
        {"kind": grid["kinds"], "layers": grid["layers"]},
        grid["learning_rates"],
        grid["seeds"],
        grid["fresh_seeds"],
        "last",
        smaller=False,
        axes={"accuracy": {"steps": grid["moments"]}},
        store=store,
    )
    return {name: studies.rounded(some) for name, some in found.items()}


class Departure(NamedTuple):
    """How far a measured growth rate is from the predicted one.

    Attributes
    ----------
    activation, batch_size, width
        Of the networks.
    error : float
        Measured over predicted rate, less 1, in percent.
    standard_error : float
        Of that, over the seeds.
    of_excess : float
        Measured less predicted rate over the predicted rate less 1, in percent.
    """

    activation: str
    batch_size: int
    width: int
    error: float
    standard_error: float
    of_excess: float


def departures(rows, seeds, *, given_forward=False):
    """A ``Departure`` for each row of ``rates``, measured with so many seeds.

    From the rate of a symmetric batch, or from the one that is given the forward pass.
    """
    result = []
    for row in rows:
        predicted = row["given_forward" if given_forward else "predicted"]
        spread = row["spread_given_forward"] if given_forward else row["spread"] / predicted
        off = row["measured"] - predicted
        result.append(
            Departure(
                row["activation"],
                row["batch_size"],
                row["width"],
                100 * off / predicted,
                100 * spread / seeds**0.5,
                100 * off / (predicted - 1),
            )
        )
    return result


def repeat_training(store=None):
    """Repeat the trainings of the recorded run, and keep its growth rates as they are."""
    kept = recorded.load(experiments.RECORD)
    found = {}
    for size, configuration in (("full", CONFIGURATION), ("reduced", REDUCED)):
        trained = {part: grid for part, grid in configuration.items() if part not in RATES}
        found[size] = {**kept[size], **run(trained, store=store)}
    recorded.save(experiments.RECORD, configuration=CONFIGURATION, **found)


OTHERS = {"training": repeat_training}
