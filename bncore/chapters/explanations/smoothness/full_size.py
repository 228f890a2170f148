"""The smoothness chapter's recorded run: four kinds of network, three depths, and more tests.

``make full CHAPTER=explanations/smoothness`` writes it again, in some ten minutes on one core;
``--walks`` repeats all but the tuning, and leaves that as it is.
``--paper`` walks in the networks of ``PAPER`` instead, a configuration near the size of Santurkar et
al. (2018), and writes paper.json: VGG-11 of width 64 on CIFAR-10. No result of it is kept here.
"""

from functools import partial

from bncore.chapters.explanations.smoothness import experiments, records
from bncore.chapters.explanations.smoothness.runs import (
    AXES,
    density_run,
    ends_run,
    paper_run,
    walk_run,
)
from bncore.lab import recorded, studies

CONFIGURATION = {
    "kinds": list(experiments.KINDS),
    "depths": [2, 6, 10],
    "seeds": [3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
    "few_seeds": [3, 4, 5, 6, 7],
    "steps": 200,
    "every": 25,
    "common_rate": 0.1,
    "rates": [0.05, 0.1, 0.2, 0.4],
    "slow_rate": 0.0125,
    "vgg_steps": 100,
    "density_depths": [2, 10],
    "density_seeds": [3, 4, 5],
    "lanczos": [40, 1],
    "tuned": {
        "learning_rates": [0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6],
        "seeds": [0, 1, 2],
        "moments": [0, 20, 40, 60, 80, 100, 140, 200, 260, 300, 400, 500, 600, 700, 800],
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
    "seeds": [1],
    "few_seeds": [1],
    "steps": 20,
    "every": 10,
    "common_rate": 0.1,
    "rates": [0.1],
    "slow_rate": 0.0125,
    "vgg_steps": 10,
    "density_depths": [2],
    "density_seeds": [1],
    "lanczos": [10, 1],
    "tuned": {
        "learning_rates": [0.1, 0.2, 0.4],
        "seeds": [0],
        "moments": [0, 10, 20],
    },
}


def run(configuration, store=None):
    """Tune each kind of network at each depth, then walk and look at spectra at its best rate.

    Parameters
    ----------
    configuration : dict
        As ``CONFIGURATION``; "seeds" are none of those that choose the rates.
    store : path, optional
        Folder of finished runs.

    Returns
    -------
    dict
        "tuned", see there, and what ``walks`` returns.
    """
    found = tuned(configuration, store)
    return {"tuned": found, **walks(configuration, found, store)}


def tuned(configuration, store=None):
    """Loss curves of every kind and depth, at each rate, and at the best one on fresh seeds.

    The best rate of an arm is the one with the least median loss at the end.

    Returns
    -------
    dict of str to Dataset
        "rates": losses at the end by kind, depth, learning rate and seed; "curves": losses by kind,
        depth, seed and number of steps.
    """
    c = configuration["tuned"]
    one = partial(experiments.loss_curve, moments=c["moments"])
    arms = {"kind": configuration["kinds"], "depth": configuration["depths"]}
    found = studies.at_best_rates(
        one,
        arms,
        c["learning_rates"],
        c["seeds"],
        configuration["seeds"],
        "last",
        smaller=True,
        axes={"loss": {"steps": c["moments"]}},
        store=store,
    )
    rates, curves = found["tuning"].drop_dims("steps"), found["fresh"].drop_vars("last")
    return {"rates": studies.rounded(rates, 3), "curves": studies.rounded(curves, 3)}


def walks(configuration, tuned, store=None):
    """Walks and spectra of the networks of ``tuned``, at each one's best rate if not said otherwise.

    Parameters
    ----------
    configuration : dict
    tuned : dict
        As ``tuned`` returns it.
    store : path, optional

    Returns
    -------
    dict of str to Dataset
        Walks: "walks"; "common", of the kinds with and without batch norm at one rate; "plateau",
        the same from torch's own initial weights at the largest depth; "vgg", in a VGG. Ends of the
        spectra: "start"; "end"; "rates", of two kinds at the least depth after training at other
        rates; "slow", of two kinds at larger depths after training at one small rate. Densities: "start density" and "end density".
    """
    c, found = configuration, {}
    chosen = studies.best(tuned["rates"], "last", smaller=True)
    pair, deep = c["kinds"][:2], c["depths"][-1:]
    walk = partial(walk_run, steps=c["steps"], every=c["every"])
    one_rate = {"learning_rate": [c["common_rate"]]}
    vgg = partial(walk_run, steps=c["vgg_steps"], every=c["every"], make=experiments.small_vgg)

    def fixed(name, run, grid, seeds):
        found[name] = studies.study(run, grid, seeds, axes=AXES, store=store)

    def best(name, run, arms, seeds):
        found[name] = studies.confirmed(run, arms, seeds, axes=AXES, store=store)

    best("walks", walk, chosen, c["seeds"])
    fixed("common", walk, {"kind": pair, "depth": c["depths"], **one_rate}, c["few_seeds"])
    plain = partial(walk, gain=None)
    fixed("plateau", plain, {"kind": pair, "depth": deep, **one_rate}, c["few_seeds"])
    fixed("vgg", vgg, {"kind": pair, "depth": [11], **one_rate}, c["few_seeds"])
    fresh, trained = partial(ends_run, steps=0), partial(ends_run, steps=c["steps"])
    arms = {"kind": c["kinds"], "depth": c["depths"], **one_rate}
    fixed("start", fresh, arms, c["few_seeds"])
    best("end", trained, chosen, c["seeds"])
    grid = {"kind": pair, "depth": c["depths"][:1], "learning_rate": c["rates"]}
    fixed("rates", trained, grid, c["few_seeds"])
    grid = {"kind": pair, "depth": c["depths"][-2:], "learning_rate": [c["slow_rate"]]}
    fixed("slow", trained, grid, c["seeds"])
    for name in ("rates", "slow"):  # The file has no room for what nothing reads.
        found[name] = found[name][["largest", "tenth", "concentration"]]
    some = chosen.sel(kind=pair, depth=c["density_depths"])
    for name, steps in (("start density", 0), ("end density", c["steps"])):
        density = partial(density_run, steps=steps, lanczos=c["lanczos"])
        best(name, density, some, c["density_seeds"])
    return {name: _kept(part, c["every"]) for name, part in found.items()}


def _kept(found, every):
    """What is recorded of a study: without axes of one depth or rate, with the steps of its records."""
    found = found.squeeze([d for d in ("depth", "learning_rate") if found.sizes.get(d) == 1])
    if "record" in found.dims:
        found = found.assign_coords(record=every * found.record)
    return studies.rounded(found, 3)


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
    dict of str to Dataset
        "walks", as those of ``run``, NaN where a network has diverged or died.
    """
    c = configuration
    one = partial(paper_run, configuration=c, cache=cache)
    grid = {"kind": c["kinds"], "learning_rate": c["rates"]}
    return {"walks": studies.rounded(studies.study(one, grid, c["seeds"], axes=AXES), 3)}


def repeat_walks(store=None):
    """Repeat all but the tuning of the recorded run, and keep that as it is."""
    kept = recorded.load(records.RECORDED)
    found = {
        size: {"tuned": kept[size]["tuned"], **walks(c, kept[size]["tuned"], store)}
        for size, c in (("full", CONFIGURATION), ("reduced", REDUCED))
    }
    recorded.save(records.RECORDED, configuration=CONFIGURATION, **found)


OTHERS = {"walks": repeat_walks}
