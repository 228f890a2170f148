"""The chapter's runs at full size; ``make full CHAPTER=explanations/noise`` records them.

It takes some forty minutes on one core; if it is interrupted, what compares networks goes on where it
was. With ``--paper`` the same code runs ``PAPER`` instead, and writes paper.json. All on CIFAR-10: the
noise of batches in a VGG-11 of width 64; dropout in a residual network of 20 layers, before the last
convolution of each block as in Li et al. (2019), and before the first block; sampled statistics, as
in Teye et al. (2018), in the VGG. It needs the internet once, to download CIFAR-10 (``--cache`` says
where to), and a GPU.
It has not been run here: no chapter, figure or claim rests on it.
"""

from functools import partial

import numpy as np

from bncore import progress
from bncore.chapters.explanations.noise import dropout, experiments, overfitting, sampling
from bncore.lab import studies

NETWORKS = [
    "no batch norm",
    "whole batch",
    "ghost 8",
    "ghost 16",
    "ghost 32",
    "ghost 64",
    "borrowed 16",
    "injected 16",
    "batch of 16",
    "gradients of 16",
]
STRENGTHS = [
    *(f"dropout {drop}" for drop in (0.2, 0.4, 0.6, 0.8)),
    *(f"L2 {decay}" for decay in (0.001, 0.003, 0.01, 0.03)),
]
TUNED = {
    "pixel_noise": [0.0, 0.3],
    "learning_rates": [0.03, 0.1, 0.3, 1.0],
    "seeds": [0, 1, 2],
    "fresh_seeds": list(range(10, 26)),
}
CONFIGURATION = {
    "seeds": 8,
    "overfitting": {
        **TUNED,
        "networks": [
            *NETWORKS,
            *(f"{base}, {how}" for base in NETWORKS[:2] for how in STRENGTHS),
        ],
        "moments": [0, 100, 200, 300, 600],
        "batch": 128,
    },
    "refitting": {
        **TUNED,
        "place": "before batch norms",
        "keep": 0.5,
        "steps": 600,
        "batch": 64,
    },
    "dropout": {"steps": 400, "batch": 64, "keep": [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]},
    "sampling": {
        "steps": 500,
        "batch": 32,
        "draws": 50,
        "sizes": [8, 16, 32, 64, 128, 256],
        "pixel_noise": [0.0, 0.3],
        "angles": [15, 30, 45, 60],
    },
}
FEW = {"pixel_noise": [0.3], "learning_rates": [0.1, 0.3, 1.0], "seeds": [0], "fresh_seeds": [1]}
REDUCED = {
    "seeds": 2,
    "overfitting": {
        **FEW,
        "networks": [
            "no batch norm",
            "whole batch",
            "ghost 8",
            "borrowed 16",
            "injected 16",
            "batch of 16",
            "gradients of 16",
            "whole batch, dropout 0.4",
            "whole batch, L2 0.001",
        ],
        "moments": [0, 15, 30],
        "batch": 128,
    },
    "refitting": {
        **FEW,
        "place": "before batch norms",
        "keep": 0.5,
        "steps": 30,
        "batch": 64,
    },
    "dropout": {"steps": 100, "batch": 64, "keep": [1.0, 0.5]},
    "sampling": {
        "steps": 100,
        "batch": 32,
        "draws": 10,
        "sizes": [16, 64],
        "pixel_noise": [0.0],
        "angles": [30],
    },
}

VGG = {"kind": "vgg", "depth": 11, "width": 64, "hidden": [512]}
RESIDUAL = {"kind": "residual", "blocks": 3, "width": 16, "stages": 3}
LARGE = {
    "pixel_noise": [0.0],
    "learning_rates": [0.01, 0.05, 0.25],
    "seeds": [0],
    "fresh_seeds": [1, 2, 3],
}
# Neighbouring pixels resemble each other. Injected noise takes all values of a channel for
# independent, and so is weaker here than that of ghost batches.
PAPER = {
    "seeds": 3,
    "data": "cifar10",
    "device": "cuda",
    "overfitting": {
        **CONFIGURATION["overfitting"],
        **LARGE,
        "network": VGG,
        "moments": [0, 1_500, 3_000, 7_500, 15_000],
    },
    "refitting": {
        **CONFIGURATION["refitting"],
        **LARGE,
        "network": RESIDUAL,
        "steps": 15_000,
        "batch": 128,
    },
    "dropout": {
        "network": RESIDUAL,
        "steps": 15_000,
        "batch": 128,
        "keep": [1.0, 0.9, 0.7, 0.5],
        "learning_rate": 0.1,
    },
    "sampling": {
        "network": VGG,
        "steps": 15_000,
        "batch": 128,
        "draws": 50,
        "sizes": [16, 32, 64, 128, 256],
        "pixel_noise": [0.0],
        "angles": [15, 30, 45, 60],
        "learning_rate": 0.05,
    },
}


def run(configuration, cache=None, store=None):
    """Train all networks and return what was measured, by the names of ``PARTS``.

    Parameters
    ----------
    configuration : dict
        As ``CONFIGURATION`` or ``PAPER``.
    cache : path, optional
        Folder of the images that are downloaded, as in ``data.openml``.
    store : path, optional
        Folder in which finished runs of studies are kept.
    """
    results = {}
    for name, measure in PARTS.items():
        part, options = dict(configuration[name]), {}
        if "network" in part:
            source, device = configuration["data"], configuration["device"]
            shape = part.pop("network")
            options["task"] = experiments.on_images(source, cache=cache, device=device, **shape)
        if name in STUDIES:
            options["store"] = store
        results[name] = measure(configuration["seeds"], part, **options)
    return results


def run_overfitting(seeds, part, **options):
    """``overfitting.compared``, with what the chapter shows of it."""
    found = overfitting.compared(part, **options)
    tuning, fresh = found["tuning"], found["fresh"]
    curves = ["accuracy", "test loss", "training loss"]
    kept = {
        "tuning": tuning[["last", "ran"]],
        "fresh": fresh.drop_vars(curves).assign(
            {f"{name} at the end": fresh[name].isel(steps=-1, drop=True) for name in curves[1:]}
        ),
        "curves": fresh[curves].mean("seed"),
    }
    return {name: studies.rounded(one) for name, one in kept.items()}


def run_refitting(seeds, part, store=None, **options):
    """``dropout.outcome`` before batch norms at each rate, and at the best one on fresh seeds."""
    own = {name: part[name] for name in ("place", "keep", "steps", "batch")}
    found = studies.at_best_rates(
        partial(dropout.outcome, **own, **options),
        {"pixel_noise": part["pixel_noise"]},
        part["learning_rates"],
        part["seeds"],
        part["fresh_seeds"],
        "accuracy",
        smaller=False,
        store=store,
    )
    return {name: studies.rounded(one) for name, one in found.items()}


def run_dropout(seeds, part, store=None, **options):
    """``dropout.outcome`` by place, probability of keeping a value, and seed."""
    grid = {"place": dropout.PLACES, "keep": part["keep"]}
    own = {name: value for name, value in part.items() if name != "keep"}
    one = partial(dropout.outcome, **own, **options)
    return studies.rounded(studies.study(one, grid, range(seeds), store=store))


def run_sampling(seeds, part, task=experiments.DIGITS):
    """For each pixel noise, "numbers", "bins" and "temperature" of ``sampling.sampled``.

    Numbers and temperatures have the seeds first; bins hold the answers of all seeds together.
    """
    results = {}
    for level in part["pixel_noise"]:
        angles = part["angles"] if level == 0 else ()
        found = [
            sampling.sampled(seed, task=task, **part | {"pixel_noise": level, "angles": angles})
            for seed in progress.bar(range(seeds), "Sampling", "seed")
        ]
        numbers, bins, temperatures = zip(*found, strict=True)
        results[str(level)] = {
            "numbers": {way: _rounded([n[way] for n in numbers]) for way in numbers[0]},
            "bins": {way: _rounded(_pooled([b[way] for b in bins])) for way in bins[0]},
            "temperature": _rounded(temperatures),
        }
    return results


def _pooled(bins):
    """Bins of all seeds taken together: mean confidence, frequency and count."""
    counts = np.stack([b[2] for b in bins])
    total = counts.sum(axis=0)
    weights = counts / np.where(total > 0, total, 1)
    means = [np.nansum(weights * np.stack([b[i] for b in bins]), axis=0) for i in (0, 1)]
    return np.stack([*(np.where(total > 0, mean, np.nan) for mean in means), total])


def _rounded(values):
    return np.round(np.array(values, dtype=float), 4)


STUDIES = {"overfitting": run_overfitting, "refitting": run_refitting, "dropout": run_dropout}
PARTS = {**STUDIES, "sampling": run_sampling}
