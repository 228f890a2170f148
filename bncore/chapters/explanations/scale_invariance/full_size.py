"""The sweep over five decades of learning rates: digits, with and without batch norm.

python -m bncore.chapters.explanations.scale_invariance.full_size writes recorded.json. The same on
MNIST, which is downloaded once:

    run({**CONFIGURATION, "data": "mnist", "widths": [784, 64, 64, 10], "cache": "folder"})
"""

from functools import partial
from pathlib import Path

import numpy as np

from bncore.chapters.explanations.scale_invariance import experiments
from bncore.lab import recorded
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


def run(configuration: dict) -> dict:
    """Train at every learning rate, in each of ``experiments.ARMS``, with every seed.

    Parameters
    ----------
    configuration : dict
        ``rates``, ``tracked``, ``seeds``, ``steps`` and ``widths``; optionally ``data``, "digits",
        "mnist" or "cifar10", which must fit the first of ``widths``, and ``cache``, the folder of
        the downloaded files.

    Returns
    -------
    dict
        ``rates``; ``loss`` and ``accuracy`` of each arm, a row for each rate with an entry for each
        seed; ``frozen``, the same for a rate of 0 of the hidden weights, an entry for each seed;
        ``felt``, the effective rates of each tracked rate, for each seed at each of ``moments``.
    """
    rates, seeds = configuration["rates"], configuration["seeds"]
    steps, widths = configuration["steps"], tuple(configuration["widths"])
    split = partial(
        experiments.rows, configuration.get("data", "digits"), cache=configuration.get("cache")
    )
    pixels = split(seed=seeds[0]).x_train.shape[1]
    if widths[0] != pixels:
        raise ValueError(
            f"widths[0] is {widths[0]}, expected {pixels}, the pixels of an image of the data set"
        )
    results = {"rates": rates, "loss": {}, "accuracy": {}, "frozen": {}}
    for arm, (_, rest) in experiments.ARMS.items():
        runs = sweep(
            lambda rate, seed, arm=arm: experiments.final(
                arm, rate, seed, steps, widths, split(seed=seed)
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
        lambda rate, seed: experiments.felt_on_digits(rate, seed, steps, widths, split(seed=seed)),
        {"rate": configuration["tracked"], "seed": seeds},
    )
    felt = np.array([found.result for found in tracked])[:, moments]
    results |= {"tracked": configuration["tracked"], "moments": moments}
    results["felt"] = _rounded(felt.reshape(-1, len(seeds), len(moments)))
    return results


def _rounded(values):
    """To four digits, which is all that another processor would reproduce, and more."""
    return np.vectorize(lambda value: float(f"{value:.4g}"))(np.asarray(values)).tolist()


if __name__ == "__main__":
    recorded.save(
        Path(__file__).with_name("recorded.json"),
        configuration=CONFIGURATION,
        full=run(CONFIGURATION),
        reduced=run(REDUCED),
    )
