"""The studies behind the page on tuning, their record, and what is read from it."""

from pathlib import Path

import nbformat
import numpy as np
import pytest
from again import assert_run_again

from bncore.chapters.practice.placement import tuning
from bncore.chapters.practice.placement import tuning_results as results
from bncore.chapters.practice.placement import tuning_runs as runs
from bncore.lab import studies

EPS = np.finfo(float).eps


@pytest.fixture(scope="module")
def full(record):
    return record["full"]["tuning"]


def test_the_record_is_of_this_configuration(record, full):
    c = tuning.CONFIGURATION
    assert record["configuration"]["tuning"] == c
    for part, (_, arms) in tuning.ARMS.items():
        for name in ("tuning", "fresh"):
            found = full[part][name]
            assert found.seed.values.tolist() == c["seeds" if name == "tuning" else "fresh_seeds"]
            for arm in arms:
                assert found[arm].values.tolist() == c[part][arm]
    assert full["start"].seed.values.tolist() == c["start"]["seeds"]
    assert full["momentum"]["fresh"].seed.values.tolist() == c["fresh_seeds"]


def test_a_part_of_the_record_can_be_run_again(record):
    assert_run_again(tuning.study(tuning.REDUCED), record["reduced"]["tuning"], but=["noise"])


def test_the_best_rates_lie_inside_their_grids(full):
    for part in (*tuning.ARMS, *(f"no {name}" for name in tuning.WITHOUT)):
        chosen = studies.best(full[part]["tuning"], "last", smaller=False)
        assert not chosen.at_an_end.any(), part
        assert full[part]["fresh"].learning_rate.equals(chosen.learning_rate), part
    rates = tuning.CONFIGURATION["momentum"]["learning_rates"]
    found = full["momentum"]["fresh"].learning_rate.sel(steps=[300, 600], momentum=slice(0.01, 0.5))
    assert not found.isin([rates[0], rates[-1]]).any()


def test_the_noise_that_is_measured_in_the_first_layer_is_predicted(full):
    """At momentum 1 all of it is noise, of one batch, with the drift of one step."""
    paths = full["paths"].isel(learning_rate=0).sel(momentum=1.0, layer=1)
    measured = (paths.measured**2).mean("seed") ** 0.5
    predicted = (paths.noise**2 + (paths.drift**2).mean("seed")) ** 0.5
    np.testing.assert_allclose(measured, predicted, rtol=0.25)


PAGE = Path(__file__).resolve().parents[4] / "book/practice/tuning.ipynb"


@pytest.fixture(scope="module")
def page():
    cells = nbformat.read(PAGE, as_version=4).cells
    return " ".join(cell.source for cell in cells if cell.cell_type == "markdown")


def lost(effect, digits):
    """What an arm loses, as the page writes it."""
    mean, low, high = (-end for end in (effect.mean, effect.high, effect.low))
    return f"{mean:.{digits}f} points ({low:.{digits}f} to {high:.{digits}f})"


def test_the_page_says_which_arms_still_gain(full, page):
    """Points of mean accuracy in the second half of the training."""
    gained = {}
    for part in (*tuning.ARMS, *(f"no {name}" for name in tuning.WITHOUT)):
        mean = 100 * full[part]["fresh"].accuracy.mean("seed")
        more = mean.isel(steps=1, drop=True) - mean.isel(steps=0, drop=True)
        gained[part] = more.stack(arm=more.dims).reset_index("arm")
    raw = gained["preparation"]
    slow = raw.preparation.isin(["raw", "raw, hidden layers"])
    layers = np.sort(gained["layers"].values)
    decay, dropout, eps = (gained[name] for name in ("decay", "dropout", "epsilon"))
    said = (
        f"raw columns still gain up to {raw[slow].max().item():.1f} points, one arm of six layers "
        f"{layers[-1]:.1f} and the others about 1, a decay of 0.03 up to "
        f"{decay[decay.decay == 0.03].max().item():.1f}, dropout of a half up to "
        f"{dropout[dropout['drop'] == 0.5].max().item():.1f}, and an $\\varepsilon$ of 10 gains "
        f"{eps[eps.eps == 10].item():.1f}"
    )
    assert said in page
    np.testing.assert_allclose(layers[:-1], 1, atol=0.5)
    others = (
        raw[~slow], decay[decay.decay != 0.03], dropout[dropout["drop"] != 0.5],
        eps[eps.eps != 10], gained["no decay"], gained["no dropout"],
    )  # fmt: skip
    assert max(one.max().item() for one in others) < 1


def test_what_the_page_says_of_rates_is_in_the_record(full, page):
    wide = results.widths(full["start"]).mean("seed")
    assert f"90 % over {wide.sel(normalization='batch').values[0]:.1f} decades" in page
    assert wide.sel(normalization="none").values[0] == 0
    assert wide.sel(normalization="batch").values[-1] == 1
    *_, torchs, he, _ = results.widening(full["start"]).values()
    assert (
        "{:.1f} decades ({:.1f} to {:.1f}), from torch's {:.1f}.".format(*he, torchs.mean) in page
    )
    assert (full["start"]["last"].sel(learning_rate=[10.0, 30.0]) < 0.5).all()


def test_what_the_page_says_of_layers_is_in_the_record(full, page):
    found = {arm: one for (arm,), one in results.effects(full, "layers").items()}
    assert f"{-found['first'].mean - 0.005:.1f} points to be had" in page
    every_other = found["every other"]
    ends = (-every_other.mean, -every_other.high, -every_other.low)
    assert "every other layer {:.1f} ({:.1f} to {:.1f})".format(*ends) in page
    output = found["all and the output"]
    assert f"beyond {max(-output.low, output.high):.1f} points" in page
    assert {arm for arm, one in found.items() if one.separates} == {"first", "every other"}
    none = found["none"]
    said = f"{-none.mean:.1f} points (−{none.high:.1f} to {-none.low:.1f})"
    assert said in page
    last = 100 * full["layers"]["fresh"]["last"]
    behind = last.sel(where="all", drop=True) - last.sel(where="none", drop=True)
    worst = behind.argmax("seed")
    assert behind[worst] > behind.sum() / 2
    assert f"ended at {last.sel(where='none')[worst].item():.0f} %" in page


def test_what_the_page_says_of_momentum_is_in_the_record(full, page):
    small, large = (results.momenta(full["momentum"], size, 600) for size in (32, 4))
    assert lost(small[0.001], 0) in page
    assert [one for one in small if small[one].separates] == [0.001]
    assert lost(large[1.0], 0) in page
    few = {size: results.momenta(full["momentum"], size, 30) for size in (4, 32, 256)}
    assert [one for one in few[4] if not few[4][one].separates] == [0.3, 0.5]
    assert not any(few[size][1.0].separates for size in (32, 256))
    chosen = full["momentum"]["fresh"].learning_rate
    largest = tuning.CONFIGURATION["momentum"]["learning_rates"][-1]
    at_the_end = (chosen == largest).any(["batch_size", "momentum"])
    assert at_the_end.steps[at_the_end.values].max() == 300
    assert "After up to 300 steps the best rate was at times 3" in page
    one = full["paths"].isel(learning_rate=0).sel(batch_size=32, layer=2, momentum=1.0)
    assert f"an error of {float(one.noise):.2f} deviations" in page
    assert f"and {one.measured.mean().item():.2f} is measured" in page


def test_what_the_page_says_of_epsilon_is_in_the_record(full, page):
    found = {eps: one for (_, eps), one in results.effects(full, "epsilon").items()}
    assert f"{-found[10.0].mean:.1f} points behind" in page
    assert [eps for eps, one in found.items() if one.separates] == [10.0]


def test_the_page_says_what_a_speck_on_a_dark_pixel_becomes(full, page):
    """Its value over the square root of ε, which the record has where ε is tiny."""
    largest = full["epsilon"]["fresh"].largest.sel(inputs="yes", eps=1e-12).values
    specks, lit = [], []
    for seed in tuning.CONFIGURATION["fresh_seeds"]:
        split = runs.digits(seed)
        dark = split.x_train.amax(0) == 0
        specks.append(split.x_test[:, dark].max().item())
        lit.append(bool(specks[-1]))
    np.testing.assert_allclose(largest[lit], np.array(specks)[lit] / 1e-6, rtol=1e-3)
    assert (largest[~np.array(lit)] < 1000).all()
    assert sum(lit) == 5
    assert "Five of the eight seeds met" in page
    faintest = min(speck for speck in specks if speck)
    assert faintest == 1 / 16
    at = [f"{faintest / eps**0.5:,.0f}".replace(",", " ") for eps in (1e-12, 1e-5)]
    assert "is {} at $\\varepsilon=10^{{-12}}$, and {} at $10^{{-5}}$".format(*at) in page
    assert f"came out at {largest.max():,.0f}.".replace(",", " ") in page


def test_what_the_page_says_of_preparation_is_in_the_record(full, page):
    found = {arm: one for (arm,), one in results.effects(full, "preparation", of="cancer").items()}
    assert f"trails by {-found['raw'].mean:.0f} points" in page
    alone = found["raw, hidden layers"]
    assert f"still by {-alone.mean:.0f} ({-alone.high:.0f} to {-alone.low:.0f})" in page
    pixels = {arm: one for (arm,), one in results.effects(full, "preparation", of="pixels").items()}
    reach = [max(-one.low, one.high) for one in (found["raw, inputs"], pixels["raw, inputs"])]
    assert "within {:.1f} points here and {:.1f} on".format(*reach) in page
    raw, alone = (-pixels[arm].mean for arm in ("raw", "raw, hidden layers"))
    assert f"trail by {raw:.0f} points, and by {alone:.0f} with" in page


def test_what_the_page_says_of_dropout_is_in_the_record(full, page):
    ratios = full["dropout"]["fresh"].measured.sel({"drop": 0.5}).mean("seed").values
    assert f"leave {ratios[0]:.2f} of the variance" in page
    assert f"to average over, {ratios[1]:.2f}." in page
    found = results.effects(full, "dropout")
    both = [-found[place, 0.5].mean for place in ("before batch norm", "after the activation")]
    assert "{:.1f} and {:.1f} points at a half".format(*both) in page
    last = 100 * full["dropout"]["fresh"]["last"]
    before, after = (last.sel(place=place).reset_coords(drop=True) for place in runs.PLACES[:2])
    apart = [
        studies.difference(after[i], before[i], looked_at=3) for i in range(last.sizes["drop"])
    ]
    assert [one.separates for one in apart] == [False, False, True]
    assert "{:.1f} points more ({:.1f} to {:.1f}".format(*apart[-1]) in page


def test_what_the_page_says_of_decay_is_in_the_record(full, page):
    found = results.effects(full, "decay")
    assert {arm for arm, one in found.items() if one.separates} == {
        (kind, 0.03) for kind in ("all", "weights", "γ and β")
    }
    assert f"alone {lost(found['γ and β', 0.03], 1)}" in page
    scales = full["decay"]["fresh"].scale.sel(decayed="all", decay=0.01).mean("seed").values
    usual = full["no decay"]["fresh"].scale.mean(["seed", "decayed", "decay"]).values
    assert f"ended at {scales[0]:.2f} (root mean square) where it is {usual[0]:.2f}" in page
    assert f"ended at {scales[1]:.2f}; without decay it grows to {usual[1]:.2f}" in page


def test_each_decision_leads_to_a_place_on_the_page(full, page):
    rows = results.decisions(full)
    assert len({row[0] for row in rows}) == 7
    for *_, anchor in rows:
        name, _, target = anchor.partition("#")
        assert name == "practice/tuning"
        assert f"({target})=" in page
