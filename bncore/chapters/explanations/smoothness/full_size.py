"""The smoothness chapter's recorded run: four kinds of network, three depths, and two more tests."""

import numpy as np

from bncore import progress
from bncore.chapters.explanations.smoothness import experiments
from bncore.lab import recorded

CONFIGURATION = {
    "kinds": list(experiments.KINDS),
    "depths": [2, 6, 10],
    "seeds": [0, 1, 2, 3, 4],
    "spectrum_seeds": [0, 1, 2],
    "steps": 200,
    "every": 25,
    "rates": [0.05, 0.1, 0.2, 0.4],
    "vgg_steps": 100,
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
}


def run(configuration):
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
        ``"vgg"``: walks in a VGG.
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
    return found


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


if __name__ == "__main__":
    recorded.save(
        experiments.RECORDED,
        configuration=CONFIGURATION,
        full=run(CONFIGURATION),
        reduced=run(REDUCED),
    )
