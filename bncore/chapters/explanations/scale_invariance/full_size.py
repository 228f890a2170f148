"""The sweep over five decades of learning rates: digits, with and without batch norm.

``make full CHAPTER=explanations/scale_invariance`` writes recorded.json. With ``--paper`` the same
code runs ``PAPER`` instead, and writes paper.json: a VGG-11 of width 64 on CIFAR-10, as Arora, Li and
Lyu (2019) trained a VGG at many learning rates of its scale-invariant weights. It makes 156
runs of 15,000 steps one after the other, and keeps nothing until the last is done. It needs the
internet once, to download CIFAR-10 (``--cache`` says where to), and a GPU.
It has not been run here: no chapter, figure or claim rests on it.

The sweep of fully connected networks on MNIST:

    run({**CONFIGURATION, "data": "mnist", "widths": [784, 64, 64, 10]}, "folder")
"""

from pathlib import Path

import numpy as np

from bncore.chapters.explanations.scale_invariance import experiments
from bncore.lab import data
from bncore.lab.sweep import sweep

CONFIGURATION = {
    "rates": [float(f"{10**power:.4g}") for power in np.arange(-3, 2.1, 0.5)],
    "tracked": [0.001, 0.01, 0.1, 1.0, 10.0, 100.0],
    "seeds": [0, 1, 2, 3, 4],
    "steps": 500,
    "widths": [64, 64, 64, 10],
}
REDUCED = {
    "rates": [0.001, 0.1, 10.0],
    "tracked": [0.1, 100.0],
    "seeds": [0],
    "steps": 40,
    "widths": [64, 64, 64, 10],
}
PAPER = {
    "rates": CONFIGURATION["rates"],
    "tracked": CONFIGURATION["tracked"],
    "seeds": [0, 1, 2],
    "steps": 15_000,
    "data": "cifar10",
    "vgg": {"depth": 11, "width": 64, "hidden": [512]},
    "batch": 128,
    "examples": 5_000,
    "device": "cuda",
}
PATH = Path(__file__).with_name("recorded.json")


def run(configuration: dict, cache=None) -> dict:
    """Train at every learning rate, in each of ``experiments.ARMS``, with every seed.

    Parameters
    ----------
    configuration : dict
        ``rates``, ``tracked``, ``seeds``, ``steps``, and ``widths`` of a fully connected network or
        the shape of a ``vgg``. Optionally ``data``, "digits", "mnist" or "cifar10", which must fit
        the first of ``widths``; ``batch``, by default 64; ``examples``, the number of training
        images over which the loss is taken in one batch, by default all; and ``device``.
    cache : path, optional
        Folder of the images that are downloaded, as in ``data.openml``.

    Returns
    -------
    dict
        ``rates``; ``loss`` and ``accuracy`` of each arm, a row for each rate with an entry for each
        seed; ``frozen``, the same for a rate of 0 of the hidden weights, an entry for each seed;
        ``felt``, the effective rates of each tracked rate, for each seed at each of ``moments``.
    """
    rates, seeds = configuration["rates"], configuration["seeds"]
    steps = configuration["steps"]
    make, split = _task(configuration, cache)
    options = {key: configuration[key] for key in ("batch", "device") if key in configuration}
    examples = configuration.get("examples")
    results = {"rates": rates, "loss": {}, "accuracy": {}, "frozen": {}}
    for arm, (_, rest) in experiments.ARMS.items():
        runs = sweep(
            lambda rate, seed, arm=arm: experiments.final(
                arm, rate, seed, steps, make, split(seed), examples=examples, **options
            ),
            {"rate": rates if rest is None else [*rates, 0.0], "seed": seeds},
        )
        table = np.array([found.result for found in runs]).reshape(-1, len(seeds), 2)
        results["loss"][arm] = _rounded(table[: len(rates), :, 0])
        results["accuracy"][arm] = _rounded(table[: len(rates), :, 1])
        if rest is not None:
            last = dict(zip(("loss", "accuracy"), table[-1].T, strict=True))
            results["frozen"][arm] = {kind: _rounded(values) for kind, values in last.items()}
    moments = sorted({0, steps, *np.geomspace(1, steps, 25).round().astype(int).tolist()})
    tracked = sweep(
        lambda rate, seed: experiments.felt_on_digits(
            rate, seed, steps, make, split(seed), **options
        ),
        {"rate": configuration["tracked"], "seed": seeds},
    )
    felt = np.array([found.result for found in tracked])[:, moments]
    results |= {"tracked": configuration["tracked"], "moments": moments}
    results["felt"] = _rounded(felt.reshape(-1, len(seeds), len(moments)))
    return results


def _task(configuration, cache):
    """What makes the networks, and a function from a seed to data."""
    name = configuration.get("data", "digits")
    if "vgg" in configuration:
        make = experiments.vgg(name, **configuration["vgg"])
        return make, lambda seed: data.standard_images(name, cache)
    widths = tuple(configuration["widths"])
    pixels = experiments.rows(name, cache=cache).x_train.shape[1]
    if widths[0] != pixels:
        raise ValueError(
            f"widths[0] is {widths[0]}, expected {pixels}, the pixels of an image of the data set"
        )
    return experiments.perceptron(widths), lambda seed: experiments.rows(name, seed, cache)


def _rounded(values):
    """To four digits, which is all that another processor would reproduce, and more."""
    return np.vectorize(lambda value: float(f"{value:.4g}"))(np.asarray(values)).tolist()
