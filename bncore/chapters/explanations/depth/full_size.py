"""The recorded run of the depth chapter: growth rates at width 512, and training at depth.

``make full CHAPTER=explanations/depth`` writes it again, in some minutes on one core.

With ``--paper`` the same code trains the networks of ``PAPER`` instead, deeper and wider ones on
CIFAR-10, fully connected like those that Yang et al. (2019) trained, and writes paper.json.
It needs the internet once, to download CIFAR-10 (``--cache`` says where to), and a GPU.
It has not been run here: no chapter, figure or claim rests on it.
"""

from typing import NamedTuple

import numpy as np
import torch

from bncore.chapters.explanations.depth import experiments
from bncore.explanations import depth

NAMES = [
    "identity", "relu", "leaky_relu", "tanh", "erf", "sigmoid", "gelu", "elu", "softplus", "silu", "abs",
]  # fmt: skip

CONFIGURATION = {
    "activations": {
        "activation": NAMES, "batch_size": [8, 64, 256], "width": [512], "layers": [30], "seeds": 10,
    },
    "widths": {
        "activation": ["relu"], "batch_size": [64], "width": [32, 64, 128, 256, 512, 1024],
        "layers": [30], "seeds": 10,
    },
    "large_batches": {
        "activation": ["identity", "relu", "softplus", "silu", "abs"], "batch_size": [256],
        "width": [128, 256, 512, 1024], "layers": [30], "seeds": 10,
    },
    "depths": {
        "activation": ["relu"], "batch_size": [64], "width": [512], "layers": [15, 30, 60],
        "seeds": 10,
    },
    "training": {
        "kinds": ["plain", "batch norm", "residual"], "layers": [10, 30, 60], "width": 64,
        "steps": 150, "learning_rates": [0.001, 0.01, 0.03, 0.1, 1.0], "seeds": 3,
    },
    "adam": {
        "kinds": ["batch norm", "residual"], "layers": [60], "width": 64, "steps": 150,
        "learning_rates": [0.001, 0.01], "seeds": 3,
    },
}  # fmt: skip

REDUCED = {
    "activations": {
        "activation": ["relu", "tanh"], "batch_size": [8, 64], "width": [512], "layers": [20],
        "seeds": 2,
    },
    "training": {
        "kinds": ["batch norm", "residual"], "layers": [40], "width": 32, "steps": 80,
        "learning_rates": [0.03], "seeds": 2,
    },
}  # fmt: skip

# Growth rates are not among it: those above are of wide networks already.
PAPER = {
    "training": {
        "kinds": ["plain", "batch norm", "residual"], "layers": [10, 20, 40, 60, 100],
        "width": 512, "steps": 8_000, "learning_rates": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0],
        "seeds": 3, "data": "cifar10", "batch_size": 128, "device": "cuda",
    },
    "adam": {
        "kinds": ["batch norm", "residual"], "layers": [20, 60, 100],
        "width": 512, "steps": 8_000, "learning_rates": [0.0001, 0.001, 0.01],
        "seeds": 3, "data": "cifar10", "batch_size": 128, "device": "cuda",
    },
}  # fmt: skip

RATES = ("activations", "widths", "large_batches", "depths")
OPTIMIZERS = {"training": torch.optim.SGD, "adam": torch.optim.Adam}


def run(configuration, cache=None):
    """Measure what the configuration asks for.

    Parameters
    ----------
    configuration : dict
        ``CONFIGURATION``, ``REDUCED`` or ``PAPER``, or some of their parts.
    cache : path, optional
        Folder of the images that are downloaded, as in ``data.openml``.

    Returns
    -------
    dict
        For each part a list of rows: growth rates with mean, standard deviation over seeds and
        prediction, or test accuracies, one a seed.
    """
    result = {}
    for part, grid in configuration.items():
        if part in RATES:
            result[part] = rates(grid)
        else:
            result[part] = training(grid, OPTIMIZERS[part], cache)
    return result


def rates(grid):
    """Measured and predicted growth rates, one row for each combination in the grid.

    "predicted" is for infinite width and a symmetric batch; "given_forward" for the forward passes of
    the measured networks, "spread_given_forward" the deviation of their ratios to it.
    """
    rows = []
    for activation in grid["activation"]:
        for batch_size in grid["batch_size"]:
            for width in grid["width"]:
                for layers in grid["layers"]:
                    case = activation, width, batch_size, layers, grid["seeds"]
                    measured = experiments.measured_rates(*case)
                    given = experiments.given_forward(*case)
                    rows.append(
                        {
                            "activation": activation,
                            "batch_size": batch_size,
                            "width": width,
                            "layers": layers,
                            "measured": round(float(np.exp(np.log(measured).mean())), 5),
                            "spread": round(float(measured.std(ddof=1)), 5),
                            "predicted": round(depth.growth_rate(activation, batch_size), 5),
                            "given_forward": round(float(np.exp(np.log(given).mean())), 5),
                            "spread_given_forward": round(float((measured / given).std(ddof=1)), 5),
                        }
                    )
    return rows


def training(grid, optimizer, cache=None):
    """Test accuracies after training, one row for each combination in the grid.

    On the digits, in batches of 64, unless the grid says otherwise with "data", "batch_size" and
    "device".
    """
    options = {key: grid[key] for key in ("batch_size", "device") if key in grid}
    split = experiments.rows(grid.get("data", "digits"), cache)

    def accuracy(kind, layers, rate, seed):
        case = kind, layers, grid["width"], grid["steps"], rate, seed, optimizer
        return round(experiments.accuracy(*case, split=split, **options), 4)

    return [
        {
            "kind": kind,
            "layers": layers,
            "learning_rate": rate,
            "accuracy": [accuracy(kind, layers, rate, seed) for seed in range(grid["seeds"])],
        }
        for kind in grid["kinds"]
        for layers in grid["layers"]
        for rate in grid["learning_rates"]
    ]


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
