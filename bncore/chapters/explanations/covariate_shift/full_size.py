"""The recorded run of the covariate shift chapter: ``python -m`` this module writes recorded.json."""

from functools import cache
from pathlib import Path

import numpy as np
import torch

from bncore.chapters.explanations.covariate_shift import experiments
from bncore.lab import recorded

PATH = Path(__file__).with_name("recorded.json")

CONFIGURATION = {
    "vgg": {
        "width": 12,
        "size": 16,
        "steps": 200,
        "rates": [0.01, 0.03, 0.1, 0.3],
        "one_rate": 0.03,
        "records": [0, 5, 20, 50, 100, 180],
        "tuning_seeds": [100, 101],
    },
    "linear": {
        "width": 32,
        "steps": 160,
        "rates": [0.001, 0.003, 0.01, 0.03, 0.1],
        "one_rate": 0.003,
        "records": [0, 5, 20, 50, 100, 150],
        "tuning_seeds": [100, 101, 102, 103],
    },
    "move": 0.01,
    "seeds": [0, 1, 2, 3, 4],
    "noise": {"strengths": [2, 4, 8], "seeds": [0, 1, 2], "record": 20},
}

REDUCED = {
    "vgg": {
        "width": 4,
        "size": 8,
        "steps": 12,
        "rates": [0.03, 0.1],
        "one_rate": 0.03,
        "records": [0],
        "tuning_seeds": [100],
    },
    "linear": {
        "width": 16,
        "steps": 12,
        "rates": [0.003, 0.01],
        "one_rate": 0.003,
        "records": [0],
        "tuning_seeds": [100],
    },
    "move": 0.01,
    "seeds": [0],
    "noise": {"strengths": [2], "seeds": [0], "record": 5},
}

FOLLOWED = (1, 4, 7)  # activations whose percentiles are kept
EVERY = {"vgg": 1, "linear": 3}  # layers that are kept, counted from the first


@cache
def record():
    """The recorded run: configuration and results."""
    kept = recorded.load(PATH)
    return kept["configuration"], kept["full"]


def column(network, name, key):
    """One entry of the recorded results as an array."""
    return np.array(record()[1][network][name][key], dtype=float)


def medians(network, name, key, compared):
    """Median over the layers after the first, for each seed and record."""
    values = column(network, name, key)[:, :, experiments.COMPARED.index(compared), 1:]
    return np.median(values, axis=-1)


def at_equal_loss(network, name, key, compared, level=0.5):
    """Median over layers of what was recorded, where each seed's training passes one loss."""
    return experiments.at_loss(
        level,
        column(network, name, "losses"),
        record()[0][network]["records"],
        medians(network, name, key, compared),
    )


def run(configuration):
    """Choose learning rates on the tuning seeds, then train and measure on the others.

    Parameters
    ----------
    configuration : dict
        As ``CONFIGURATION``.

    Returns
    -------
    dict
        For each network and model: the rate, the losses that chose it, losses, shifts, drift,
        percentiles of the first seed, and accuracies. Under "noise", for each strength and seed,
        losses and drift at the noisy model's rate. Numbers have three significant digits.
    """
    found = {}
    for network, names in (("vgg", 3), ("linear", 2)):
        options = configuration[network]
        if network == "vgg":
            task = experiments.vgg(options["width"], options["size"], options["steps"])
        else:
            task = experiments.linear(options["width"], options["steps"])
        found[network] = {
            name: _model(configuration, options, network, task, name)
            for name in list(experiments.NORMALIZATIONS)[:names]
        }
    return found | {"noise": _noise(configuration, found["vgg"]["noisy batch norm"]["rate"])}


def _noise(configuration, rate):
    """Train the VGG with stronger and stronger noise, at one learning rate."""
    options, noise = configuration["vgg"], configuration["noise"]
    task = experiments.vgg(options["width"], options["size"], options["steps"])
    runs = [
        [
            experiments.measure(
                task,
                experiments.noisier(strength),
                rate,
                seed,
                [noise["record"]],
                options["one_rate"],
                configuration["move"],
            )
            for seed in noise["seeds"]
        ]
        for strength in noise["strengths"]
    ]
    return {
        "losses": experiments.rounded(
            experiments.smoothed([[one.losses for one in row] for row in runs])
        ),
        "drift": experiments.rounded([[one.drift[0] for one in row] for row in runs]),
    }


def _model(configuration, options, network, task, name):
    rate, tuning = experiments.choose(task, name, options["rates"], options["tuning_seeds"])
    runs = [
        experiments.measure(
            task,
            name,
            rate,
            seed,
            options["records"],
            options["one_rate"],
            configuration["move"],
            drift=network == "vgg",
            follow=network == "vgg" and i == 0,
        )
        for i, seed in enumerate(configuration["seeds"])
    ]
    kept = {
        "rate": rate,
        "tuning": experiments.rounded(experiments.smoothed(tuning, 10)),
        "losses": experiments.rounded(experiments.smoothed([one.losses for one in runs])),
    }
    norm, relative, cosine = (
        np.array([getattr(one, key) for one in runs])[..., :: EVERY[network]]
        for key in ("norm", "relative", "cosine")
    )
    kept |= {
        "norm": experiments.rounded(norm[:, :, 0], 2),
        "relative": experiments.rounded(relative),
        "cosine": np.round(cosine, 3).tolist(),
    }
    if network == "vgg":
        kept |= {
            "other batch": experiments.rounded([one.other_batch for one in runs], 2),
            "drift": experiments.rounded([one.drift for one in runs]),
            "percentiles": experiments.rounded(runs[0].percentiles[:, FOLLOWED]),
            "accuracies": experiments.rounded([one.accuracies for one in runs]),
        }
    return kept


if __name__ == "__main__":
    torch.set_num_threads(1)
    recorded.save(PATH, configuration=CONFIGURATION, full=run(CONFIGURATION), reduced=run(REDUCED))
