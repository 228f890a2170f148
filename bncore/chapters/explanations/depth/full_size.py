"""The recorded run of the depth chapter: growth rates at width 512, and training at depth.

``make full CHAPTER=explanations/depth`` writes it again, in some minutes on one core.
"""

from typing import NamedTuple

import numpy as np
import torch

from bncore.chapters.explanations.depth import experiments
from bncore.explanations import depth
from bncore.lab import recorded

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

RATES = ("activations", "widths", "large_batches", "depths")
OPTIMIZERS = {"training": torch.optim.SGD, "adam": torch.optim.Adam}


def run(configuration):
    """Measure what the configuration asks for.

    Parameters
    ----------
    configuration : dict
        ``CONFIGURATION`` or ``REDUCED``, or some of their parts.

    Returns
    -------
    dict
        For each part a list of rows: growth rates with mean, standard deviation over seeds and
        prediction, or test accuracies, one a seed.
    """
    result = {}
    for part, grid in configuration.items():
        result[part] = rates(grid) if part in RATES else training(grid, OPTIMIZERS[part])
    return result


def rates(grid):
    """Measured and predicted growth rates, one row for each combination in the grid."""
    rows = []
    for activation in grid["activation"]:
        for batch_size in grid["batch_size"]:
            for width in grid["width"]:
                for layers in grid["layers"]:
                    measured = experiments.measured_rates(
                        activation, width, batch_size, layers, grid["seeds"]
                    )
                    rows.append(
                        {
                            "activation": activation,
                            "batch_size": batch_size,
                            "width": width,
                            "layers": layers,
                            "measured": round(float(np.exp(np.log(measured).mean())), 5),
                            "spread": round(float(measured.std(ddof=1)), 5),
                            "predicted": round(depth.growth_rate(activation, batch_size), 5),
                        }
                    )
    return rows


def training(grid, optimizer):
    """Test accuracies after training, one row for each combination in the grid."""
    return [
        {
            "kind": kind,
            "layers": layers,
            "learning_rate": rate,
            "accuracy": [
                round(
                    experiments.accuracy(
                        kind, layers, grid["width"], grid["steps"], rate, seed, optimizer
                    ),
                    4,
                )
                for seed in range(grid["seeds"])
            ],
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


def departures(rows, seeds):
    """A ``Departure`` for each row of ``rates``, measured with so many seeds."""
    result = []
    for row in rows:
        off, predicted = row["measured"] - row["predicted"], row["predicted"]
        result.append(
            Departure(
                row["activation"],
                row["batch_size"],
                row["width"],
                100 * off / predicted,
                100 * row["spread"] / seeds**0.5 / predicted,
                100 * off / (predicted - 1),
            )
        )
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    recorded.save(
        experiments.RECORD,
        configuration=CONFIGURATION,
        full=run(CONFIGURATION),
        reduced=run(REDUCED),
    )
