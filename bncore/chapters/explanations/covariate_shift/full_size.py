"""The recorded run of the covariate shift chapter: ``python -m`` this module writes recorded.json.

With ``--paper`` the same code runs ``PAPER`` instead, a configuration near the size of Santurkar et
al. (2018), and writes paper.json: a VGG-11 of width 64 on CIFAR-10, and 25 linear layers of 64 units.
It needs the internet once, to download CIFAR-10 (``--cache`` says where to), and a GPU.
It has not been run here: no chapter, figure or claim rests on it.
"""

from functools import cache
from pathlib import Path

import numpy as np

from bncore.chapters.explanations.covariate_shift import experiments
from bncore.lab import recorded

PATH = Path(__file__).with_name("recorded.json")

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
        "tuning_seeds": [100, 101, 102, 103],
    },
    "move": 0.01,
    "seeds": [0, 1, 2, 3, 4],
    "noise": {"strengths": [2, 4, 8], "seeds": [0, 1, 2], "record": 20},
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
        "rates": [0.03, 0.1],
        "one_rate": 0.03,
        "records": [0],
        "tuning_seeds": [100],
    },
    "linear": {
        "examples": 256,
        "depth": 25,
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
        "tuning_seeds": [100, 101],
    },
    "move": 0.01,
    "seeds": [0, 1, 2, 3, 4],
    "noise": {"strengths": [2, 4, 8], "seeds": [0, 1, 2], "record": 1_000},
    "every": 500,
    "device": "cuda",
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


def _task(configuration, network, cache=None):
    options, device = configuration[network], configuration["device"]
    if network == "linear":
        sizes = {key: options[key] for key in ("depth", "examples")}
        return experiments.linear(options["width"], options["steps"], **sizes, device=device)
    return experiments.vgg(
        *(options[key] for key in ("width", "size", "steps", "batch_size")),
        source=options["data"],
        depth=options["depth"],
        cache=cache,
        device=device,
    )


def run(configuration, cache=None):
    """Choose learning rates on the tuning seeds, then train and measure on the others.

    Parameters
    ----------
    configuration : dict
        As ``CONFIGURATION`` or ``PAPER``. Losses are averaged over "every" so many steps, and
        percentiles kept as often.
    cache : path, optional
        Folder of the images that are downloaded, as in ``data.openml``.

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
        task = _task(configuration, network, cache)
        found[network] = {
            name: _model(configuration, options, network, task, name)
            for name in list(experiments.NORMALIZATIONS)[:names]
        }
    rate = found["vgg"]["noisy batch norm"]["rate"]
    return found | {"noise": _noise(configuration, _task(configuration, "vgg", cache), rate)}


def _noise(configuration, task, rate):
    """Train the VGG with stronger and stronger noise, at one learning rate."""
    options, noise = configuration["vgg"], configuration["noise"]
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
            experiments.smoothed(
                [[one.losses for one in row] for row in runs], configuration["every"]
            )
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
            follow=configuration["every"] if network == "vgg" and i == 0 else 0,
        )
        for i, seed in enumerate(configuration["seeds"])
    ]
    every = configuration["every"]
    kept = {
        "rate": rate,
        "tuning": experiments.rounded(experiments.smoothed(tuning, 2 * every)),
        "losses": experiments.rounded(experiments.smoothed([one.losses for one in runs], every)),
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
