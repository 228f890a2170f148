"""The chapter's runs at full size; ``make full CHAPTER=explanations/noise`` records them.

With ``--paper`` the same code runs ``PAPER`` instead, and writes paper.json. All on CIFAR-10: the
noise of batches in a VGG-11 of width 64; dropout in a residual network of 20 layers, before the last
convolution of each block as in Li et al. (2019), and before the first block; sampled statistics, as
in Teye et al. (2018), in the VGG. It needs the internet once, to download CIFAR-10 (``--cache`` says
where to), and a GPU.
It has not been run here: no chapter, figure or claim rests on it.
"""

import numpy as np

from bncore import progress
from bncore.chapters.explanations.noise import experiments

CONFIGURATION = {
    "seeds": 8,
    "noise": {"steps": 600, "every": 60, "batch": 128, "small": 16, "pixel_noise": [0.0, 0.3]},
    "dropout": {"steps": 400, "batch": 64, "keep": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]},
    "sampling": {
        "steps": 500,
        "batch": 32,
        "draws": 50,
        "sizes": [8, 16, 32, 64, 128, 256],
        "pixel_noise": [0.0, 0.3],
        "angles": [15, 30, 45, 60],
    },
}
REDUCED = {
    "seeds": 2,
    "noise": {"steps": 60, "every": 30, "batch": 64, "small": 16, "pixel_noise": [0.0]},
    "dropout": {"steps": 100, "batch": 64, "keep": [0.5]},
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
# Neighbouring pixels resemble each other. Injected noise takes all values of a channel for
# independent, and so is weaker here than that of ghost batches.
PAPER = {
    "seeds": 3,
    "data": "cifar10",
    "device": "cuda",
    "noise": {
        "network": VGG,
        "steps": 15_000,
        "every": 1_500,
        "batch": 128,
        "small": 16,
        "pixel_noise": [0.0],
        "learning_rate": 0.05,
    },
    "dropout": {
        "network": {"kind": "residual", "blocks": 3, "width": 16, "stages": 3},
        "steps": 15_000,
        "batch": 128,
        "keep": [0.9, 0.7, 0.5],
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


def run(configuration, cache=None):
    """Train all networks and return what was measured, by name: "noise", "dropout", "sampling".

    Parameters
    ----------
    configuration : dict
        As ``CONFIGURATION`` or ``PAPER``.
    cache : path, optional
        Folder of the images that are downloaded, as in ``data.openml``.
    """
    results = {}
    for name, measure in PARTS.items():
        part, options = dict(configuration[name]), {}
        if "network" in part:
            source, device = configuration["data"], configuration["device"]
            shape = part.pop("network")
            options["task"] = experiments.on_images(source, cache=cache, device=device, **shape)
        results[name] = measure(configuration["seeds"], part, **options)
    return results


def run_noise(seeds, part, task=experiments.DIGITS):
    """For each deviation of the pixel noise and each of ``experiments.arms``, what was measured.

    Arrays are (seeds, records, 3), with ``experiments.MEASURES`` last.
    """
    part = dict(part)
    levels, arms = part.pop("pixel_noise"), experiments.arms(part.pop("batch"), part.pop("small"))
    return {
        str(level): {
            name: _rounded(
                [
                    experiments.trained(*arm, seed=seed, pixel_noise=level, task=task, **part)
                    for seed in range(seeds)
                ]
            )
            for name, arm in progress.bar(arms.items(), "Noise", "arm")
        }
        for level in levels
    }


def run_dropout(seeds, part, task=experiments.DEEPER_DIGITS):
    """For no dropout and each place and keep probability, (seeds, 5) of ``experiments.judged``."""
    part = dict(part)
    keeps, places = part.pop("keep"), ("before batch norms", "after the last one")
    cases = {"none": (0.0, places[0])} | {
        f"{place}, {keep}": (1 - keep, place) for place in places for keep in keeps
    }
    return {
        name: _rounded(
            [
                experiments.judged(*experiments.with_dropout(*case, seed=seed, task=task, **part))
                for seed in range(seeds)
            ]
        )
        for name, case in progress.bar(cases.items(), "Dropout", "case")
    }


def run_sampling(seeds, part, task=experiments.DIGITS):
    """For each pixel noise, "numbers", "bins" and "temperature" of ``experiments.sampled``.

    Numbers and temperatures have the seeds first; bins hold the answers of all seeds together.
    """
    results = {}
    for level in part["pixel_noise"]:
        angles = part["angles"] if level == 0 else ()
        found = [
            experiments.sampled(seed, task=task, **part | {"pixel_noise": level, "angles": angles})
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


PARTS = {"noise": run_noise, "dropout": run_dropout, "sampling": run_sampling}
