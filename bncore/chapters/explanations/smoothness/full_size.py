"""The smoothness chapter's recorded run: four kinds of network, three depths, and more tests.

``--densities`` repeats the densities of the spectra only, and leaves the rest of the file as it is.
``--paper`` walks in the networks of ``PAPER`` instead, a configuration near the size of Santurkar et
al. (2018), and writes paper.json: VGG-11 of width 64 on CIFAR-10. No result of it is kept here.
"""

from functools import partial

import numpy as np

from bncore import progress
from bncore.chapters.explanations.smoothness import experiments
from bncore.lab import data, recorded, studies, training

CONFIGURATION = {
    "kinds": list(experiments.KINDS),
    "depths": [2, 6, 10],
    "seeds": [0, 1, 2, 3, 4],
    "spectrum_seeds": [0, 1, 2],
    "steps": 200,
    "every": 25,
    "rates": [0.05, 0.1, 0.2, 0.4],
    "vgg_steps": 100,
    "density_depths": [2, 10],
    "lanczos": [40, 2],
    "tuned": {
        "learning_rates": [0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6],
        "seeds": [0, 1, 2],
        "fresh_seeds": [3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
        "moments": [0, 20, 40, 60, 80, 100, 140, 200, 260, 300, 400, 500, 600, 700, 800],
        "kept": [100, 200, 400, 800],
    },
}

# Near the size of Santurkar et al. (2018), Figure 4. It has not been run for the chapter.
PAPER = {
    "kinds": ["no batch norm", "batch norm"],
    "data": "cifar10",
    "depth": 11,
    "width": 64,
    "hidden": [512],
    "seeds": [0, 1, 2],
    "steps": 15_000,
    "every": 500,
    "rates": [0.01, 0.1],
    "batch_size": 128,
    "walk_on": 256,
    "device": "cuda",
}
REDUCED = {
    "kinds": ["no batch norm", "batch norm"],
    "depths": [2],
    "seeds": [0],
    "spectrum_seeds": [0],
    "steps": 20,
    "every": 10,
    "rates": [0.1],
    "vgg_steps": 0,
    "density_depths": [2],
    "lanczos": [20, 2],
    "tuned": {
        "learning_rates": [0.1, 0.2, 0.4],
        "seeds": [0],
        "fresh_seeds": [1],
        "moments": [0, 10, 20],
        "kept": [10, 20],
    },
}


def run(configuration, store=None):
    """Train, walk along the gradient and look at the ends of the spectrum.

    Parameters
    ----------
    configuration : dict
        As ``CONFIGURATION``.

    Returns
    -------
    dict
        ``"depths"``: by "kind, depth", the walks of each seed and the ends of the spectrum at the
        start and at the end; ``"rates"``: by "kind, rate", the ends after training at other
        learning rates; ``"plateau"``: walks from torch's own initialisation at the largest depth;
        ``"vgg"``: walks in a VGG; ``"densities"``: as ``densities``.
    """
    c = configuration
    kinds, depths = c["kinds"], c["depths"]
    both = [kind for kind in kinds if kind in ("no batch norm", "batch norm")]
    _, x, y = experiments.digits()
    found = {"depths": {}, "rates": {}, "plateau": {}, "vgg": {}}
    jobs = [(kind, depth) for depth in depths for kind in kinds]
    for kind, depth in progress.bar(jobs, "Depths", "network"):
        kept, models = experiments.walks(kind, depth, c["seeds"], c["steps"], c["every"])
        spectra = {}
        for when in ("start", "end"):
            spectra[when] = [
                experiments.ends(
                    experiments.network(kind, depth, seed) if when == "start" else model, x, y
                )
                for seed, model in zip(c["spectrum_seeds"], models, strict=False)
            ]
        found["depths"][f"{kind}, {depth}"] = {**_summary(kept), **_spectra(spectra)}
    for kind in both:
        for rate in c["rates"]:
            _, models = experiments.walks(
                kind, depths[0], c["spectrum_seeds"], c["steps"], c["steps"], rate
            )
            spectra = {"end": [experiments.ends(model, x, y) for model in models]}
            found["rates"][f"{kind}, {rate:g}"] = _spectra(spectra)
        kept, _ = experiments.walks(kind, depths[-1], c["seeds"], c["steps"], c["every"], gain=None)
        found["plateau"][kind] = _summary(kept)
        if c["vgg_steps"]:
            kept, _ = experiments.walks(
                kind, 11, c["spectrum_seeds"], c["vgg_steps"], c["every"],
                make=experiments.small_vgg,
            )  # fmt: skip
            found["vgg"][kind] = _summary(kept)
    found["densities"] = densities(c)
    found["tuned"] = tuned(c, store)
    return found


def run_paper(configuration, cache=None):
    """Walk along the gradient of VGGs on images while they train.

    Parameters
    ----------
    configuration : dict
        As ``PAPER``: "walk_on" is the number of training images on which to walk, "rates" are the
        learning rates of the training.
    cache : path, optional
        Folder of the downloaded images, as in ``data.openml``.

    Returns
    -------
    dict
        By "kind, rate": as the walks of ``run``, NaN where a network has diverged or died.
    """
    c = configuration
    channels, size, _ = data.OPENML[c["data"]].shape
    split = data.openml(c["data"], cache)
    on = split, split.x_train[: c["walk_on"]], split.y_train[: c["walk_on"]]
    jobs, found = [(kind, rate) for kind in c["kinds"] for rate in c["rates"]], {}
    for kind, rate in progress.bar(jobs, "Paper", "network"):
        kept, _ = experiments.walks(
            kind, c["depth"], c["seeds"], c["steps"], c["every"], rate, experiments.vgg, on,
            c["batch_size"], c["device"],
            width=c["width"], channels=channels, size=size, hidden=c["hidden"],
        )  # fmt: skip
        found[f"{kind}, {rate:g}"] = _summary(kept)
    return found


def densities(configuration):
    """Lanczos quadratures of the networks of ``run``, before and after the same training.

    Returns
    -------
    dict
        By "kind, depth": nodes and weights at the start and at the end, each of shape (seeds,
        probes, steps).
    """
    c, found = configuration, {}
    _, x, y = experiments.digits()
    kinds = [kind for kind in c["kinds"] if kind in ("no batch norm", "batch norm")]
    jobs = [(kind, depth) for depth in c["density_depths"] for kind in kinds]
    for kind, depth in progress.bar(jobs, "Densities", "network"):
        kept = {f"{what} at {when}": [] for when in ("start", "end") for what in _NODES}
        for seed in c["spectrum_seeds"]:
            model = experiments.network(kind, depth, seed)
            for when in ("start", "end"):
                if when == "end":
                    training.train(model, experiments.digits()[0], c["steps"], 64, 0.1, seed)
                quadrature = experiments.density_of(model, x, y, *c["lanczos"], seed)
                for what in _NODES:
                    kept[f"{what} at {when}"].append(_short(getattr(quadrature, what)))
        found[f"{kind}, {depth}"] = kept
    return found


_NODES = ("nodes", "weights")


def _summary(kept):
    before = kept.row("absolute", "before")[..., 0]
    return {
        "steps": kept.steps,
        "loss": _short(before),
        "range": _short(kept.loss_range()),
        "absolute": _short(kept.smoothness("absolute")),
        "relative": _short(kept.smoothness("relative")),
        "change": _short(kept.relative_change("relative")[..., 1]),
    }


def _spectra(spectra):
    return {
        f"{name} at {when}": _short(np.array([getattr(one, name) for one in some]))
        for when, some in spectra.items()
        for name in experiments.Ends._fields
    }


def _short(values):
    """Four significant digits: more would be noise, and would fill the file."""
    return [_short(v) for v in values] if np.ndim(values) else float(f"{values:.4g}")


def tuned(configuration, store=None):
    """Loss curves of every kind and depth, at each rate, and at the best one on fresh seeds.

    The best rate of an arm is the one with the least median loss at the end.

    Returns
    -------
    dict
        "rates" and "curves": losses by kind, depth, learning rate, seed and number of steps, those
        of "rates" at the moments that are "kept".
    """
    c = configuration["tuned"]
    one = partial(experiments.loss_curve, moments=c["moments"])
    arms = {"kind": configuration["kinds"], "depth": configuration["depths"]}
    found = studies.at_best_rates(
        one, arms, c["learning_rates"], c["seeds"], c["fresh_seeds"], "last",
        smaller=True, axes={"loss": ("steps",)}, store=store,
    )  # fmt: skip
    rates, curves = (some.assign_coords(steps=c["moments"]) for some in found.values())
    return {
        "rates": studies.rounded(rates.sel(steps=c["kept"]), 3),
        "curves": studies.rounded(curves, 3),
    }


def repeat_tuned(store=None):
    """Repeat the tuned loss curves of the recorded run, and keep the rest of it as it is."""
    _repeat("tuned", partial(tuned, store=store))


def repeat_densities():
    """Repeat the densities of the recorded run, and keep the rest of it as it is."""
    _repeat("densities", densities)


def _repeat(part, measure):
    kept = recorded.load(experiments.RECORDED)
    found = {
        size: {**kept[size], part: measure(configuration)}
        for size, configuration in (("full", CONFIGURATION), ("reduced", REDUCED))
    }
    recorded.save(experiments.RECORDED, configuration=CONFIGURATION, **found)


OTHERS = {"densities": repeat_densities, "tuned": repeat_tuned}
