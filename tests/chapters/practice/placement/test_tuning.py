"""The studies behind the page on tuning, their record, and what is read from it."""

import itertools
from pathlib import Path

import nbformat
import numpy as np
import pytest
from again import assert_run_again

from bncore.chapters.practice.placement import horizon, tuning
from bncore.chapters.practice.placement import tuning_results as results
from bncore.chapters.practice.placement import tuning_runs as runs
from bncore.lab import studies

DECISIONS = (*tuning.ARMS, *(f"no {name}" for name in tuning.WITHOUT))


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


@pytest.mark.parametrize("part", DECISIONS)
def test_a_decision_is_trained_until_no_arm_gains_a_point_or_its_steps_are_doubled(full, part):
    c = tuning.CONFIGURATION[part.removeprefix("no ")]
    assert full[part]["steps"] in [c["steps"] * 2**k for k in range(c["doublings"] + 1)]
    done = (horizon.gained(full[part]["fresh"]) <= horizon.GAIN).all()
    assert done or full[part]["steps"] == c["steps"] * 2 ** c["doublings"]
    reference, _ = results.REFERENCES.get(part, (part, None))
    assert full[reference]["steps"] == full[part]["steps"]


@pytest.mark.parametrize("part", DECISIONS)
def test_the_best_rates_lie_inside_their_grids(full, part):
    chosen = studies.best(full[part]["tuning"], "accuracy", smaller=False)
    assert not chosen.at_an_end.any()
    assert full[part]["fresh"].learning_rate.equals(chosen.learning_rate)


def test_the_best_rates_of_all_momenta_lie_inside_their_grid(full):
    rates = tuning.CONFIGURATION["momentum"]["learning_rates"]
    found = full["momentum"]["fresh"].learning_rate
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


def won(effect, digits=1):
    """What an arm gains, as the page writes it."""
    return "{:.{d}f} ({:.{d}f} to {:.{d}f})".format(*effect, d=digits)


def test_the_page_says_how_long_is_long_enough(full, page):
    gained = {part: 100 * horizon.gained(full[part]["fresh"]) for part in DECISIONS}
    raw = gained["preparation"].preparation == "raw"
    rest = [one for part, one in gained.items() if part != "preparation"]
    rest.append(gained["preparation"].where(~raw))
    assert max(one.max().item() for one in rest) < 1
    most = gained["preparation"].sel(preparation="raw")
    assert (most > 1).all()
    assert (gained["preparation"].sel(preparation="raw, hidden layers") < 1).all()
    assert "but for raw columns without batch norm, whose lag" in page
    assert f"still gains {most.sel(of='pixels').item():.1f} in the second half" in page
    assert {full[part]["steps"] for part in DECISIONS} == {2400}
    assert "on ten others, after 2400 steps" in page
    assert "up to 1200 steps" in page
    assert max(tuning.CONFIGURATION["momentum"]["moments"]) == 1200


def test_what_the_page_says_of_rates_is_in_the_record(full, page):
    wide = results.widths(full["start"]).mean("seed")
    batch, none = (wide.sel(normalization=kind).values for kind in ("batch", "none"))
    assert f"with batch norm has {batch[0]:.1f} decades of them" in page
    assert f"works over {batch[-1]:.1f} decades only" in page
    assert none[0] == none[-1] == 0
    *_, torchs, he, _ = results.widening(full["start"]).values()
    added = (won(he).replace(" (", " decades ("), won(torchs))
    assert "adds {}, from torch's {}.".format(*added) in page
    halfway = full["start"].drop_vars("accuracy").rename(half="accuracy")
    before = results.widths(halfway).mean("seed")
    narrower, without = (
        wide.sel(normalization=kind) - before.sel(normalization=kind) for kind in ("batch", "none")
    )
    assert (
        f"{narrower.min():.1f} to {narrower.max():.1f} decades narrower with batch norm, "
        f"and up to {without.max():.1f} without."
    ) in page
    steps = tuning.CONFIGURATION["start"]["steps"]
    assert f"takes eight seeds and {steps} steps" in page


def test_the_rates_that_batch_norm_adds_are_the_large_ones(full):
    """As the page says: at 1 and more nothing works without, at 10 nothing at all."""
    reached = full["start"].accuracy >= 0.9
    assert not reached.sel(normalization="none").sel(learning_rate=slice(1, None)).any()
    assert not reached.sel(learning_rate=slice(10, None)).any()
    small = reached.sel(normalization="batch").where(reached.gain < 5, drop=True).astype(bool)
    assert small.sel(learning_rate=1.0).all()
    assert small.sel(learning_rate=3.0).mean() > 0.9
    assert small.sel(learning_rate=0.3).all()


def test_what_the_page_says_of_layers_is_in_the_record(full, page):
    found = {arm: one for (arm,), one in results.effects(full, "layers").items()}
    assert f"layers costs {lost(found['none'], 1)}" in page
    assert {arm for arm, one in found.items() if one.separates} == {"none"}
    some = [found[arm] for arm in ("first", "last", "every other")]
    widest = max(some, key=lambda one: one.high - one.low)
    assert widest == found["first"]
    assert f"for the first alone, is −{-widest.low:.1f} to {widest.high:.1f}" in page


def test_what_the_page_says_of_momentum_is_in_the_record(full, page):
    momentum = full["momentum"]
    after = {steps: results.momenta(momentum, 32, steps) for steps in (600, 1200)}
    assert f"costs {lost(after[600][0.001], 0)} after 600 steps" in page
    assert (
        "still {0:.0f} ({2:.0f} to {1:.0f})".format(*(-end for end in after[1200][0.001])) in page
    )
    assert 0.5 < 0.999**600 < 0.6
    assert [one for one in after[1200] if after[1200][one].separates] == [0.001, 1.0]
    whole, small = after[1200][1.0], results.momenta(momentum, 4, 1200)[1.0]
    text = "{:.0f} ({:.0f} to {:.0f})".format(*(-end for end in (small[0], small[2], small[1])))
    assert f"costs {lost(whole, 0)}, and {text} with batches of 4" in page
    few = [results.momenta(momentum, size, 30)[0.3] for size in (32, 256)]
    assert all(one.separates for one in few)
    ends = [f"({one.low:.1f} to {one.high:.1f})" for one in few]
    assert {f"{one.mean:.1f}" for one in few} == {"1.5"}
    assert "by 1.5 points with batches of 32 {} and of 256 {}.".format(*ends) in page
    for size, steps in itertools.product((4, 32, 256), (100, 300, 600, 1200)):
        assert max(one.low for one in results.momenta(momentum, size, steps).values()) <= 0
    one = full["paths"].isel(learning_rate=0).sel(batch_size=32, layer=2, momentum=1.0)
    assert f"an error of {float(one.noise):.2f} deviations" in page
    assert f"and {one.measured.mean().item():.2f} is measured" in page


def test_what_the_page_says_of_epsilon_is_in_the_record(full, page):
    found = {eps: one for (_, eps), one in results.effects(full, "epsilon").items()}
    ten = found[10.0]
    assert f"{-ten.mean:.1f} points behind ({-ten.high:.1f} to {-ten.low:.1f})" in page
    assert [eps for eps, one in found.items() if one.separates] == [10.0]
    variance = full["epsilon"]["fresh"].end.sel(inputs="yes", eps=10.0).median().item()
    assert f"raises the variance to {variance:.1f}," in page


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
    assert sum(lit) == 7
    assert "Seven of the ten seeds met" in page
    faintest = min(speck for speck in specks if speck)
    assert faintest == 1 / 16
    at = [f"{faintest / eps**0.5:,.0f}".replace(",", " ") for eps in (1e-12, 1e-5)]
    assert "is {} at $\\varepsilon=10^{{-12}}$, and {} at $10^{{-5}}$".format(*at) in page
    assert f"came out at {largest.max():,.0f}.".replace(",", " ") in page


def test_what_the_page_says_of_preparation_is_in_the_record(full, page):
    cancer, pixels = (
        {arm: one for (arm,), one in results.effects(full, "preparation", of=of).items()}
        for of in ("cancer", "pixels")
    )
    alone = cancer["raw, hidden layers"]
    assert f"trails by {lost(alone, 0)}, and no batch norm by {-cancer['raw'].mean:.0f}," in page
    assert not cancer["raw"].separates
    raw = 100 * full["preparation"]["fresh"].accuracy.sel(of="cancer", preparation="raw")
    lowest, second = np.sort(raw.values)[:2]
    assert f"one seed at {lowest:.0f} %" in page
    assert second > 88
    inputs = cancer["raw, inputs"]
    assert f"within {max(-inputs.low, inputs.high):.1f} points." in page
    ahead = won(pixels["raw, inputs"]).replace(" (", " points ahead there (")
    assert f"Batch norm of the inputs is {ahead} of standardised columns" in page
    scaled = 100 * full["preparation"]["fresh"].accuracy.sel(of="pixels", drop=True)
    alike = [
        studies.difference(
            scaled.sel(preparation=arm, drop=True),
            scaled.sel(preparation="standardised, hidden layers", drop=True),
            looked_at=5,
        )
        for arm in ("raw, inputs", "raw, inputs and hidden layers")
    ]
    assert not any(one.separates for one in alike)
    raw, alone = (-pixels[arm].mean for arm in ("raw", "raw, hidden layers"))
    assert f"trail by {raw:.0f} points, and by {alone:.0f} with" in page


def test_what_the_page_says_of_dropout_is_in_the_record(full, page):
    before, after, last = runs.PLACES
    ratios = full["dropout"]["fresh"].measured.sel({"drop": 0.5}).mean("seed")
    assert f"leave {ratios.sel(place=before).item():.2f} of the variance" in page
    assert f"to average over, {ratios.sel(place=after).item():.2f}." in page
    found = results.effects(full, "dropout")
    both = [-found[place, 0.5].mean for place in (before, after)]
    assert "{:.1f} and {:.1f} points at a half".format(*both) in page
    free = found[last, 0.5]
    assert f"measured: {abs(free.mean):.1f} points, within {max(-free.low, free.high):.1f}." in page
    accuracy = 100 * full["dropout"]["fresh"].accuracy.sel({"drop": 0.5}, drop=True)
    leads = [
        studies.difference(
            *(accuracy.sel(place=one, drop=True) for one in (last, other)), looked_at=9
        )
        for other in (before, after)
    ]
    said = [won(lead) for lead in leads]
    said[0] = said[0].replace(" (", " points (")
    assert "before batch norm by {}, and that after the activation by {},".format(*said) in page


def test_what_the_page_says_of_decay_is_in_the_record(full, page):
    found = results.effects(full, "decay")
    assert {arm for arm, one in found.items() if one.separates} == {
        ("all", 0.003), ("weights", 0.001), ("weights", 0.003),
    }  # fmt: skip
    assert (
        f"{won(found['all', 0.003])} points on all parameters and {won(found['weights', 0.003])}"
        in page
    )
    accuracy = 100 * full["decay"]["fresh"].accuracy
    spared = {
        decay: studies.difference(
            *(accuracy.sel(decayed=of, decay=decay, drop=True) for of in ("weights", "all")),
            looked_at=4,
        )
        for decay in accuracy.decay.values
    }
    assert not any(one.separates for one in spared.values())
    strong = spared[0.003]
    reach = max(-strong.low, strong.high)
    assert f"at 0.003 it is {abs(strong.mean):.1f} points, within {reach:.1f}." in page
    scales = full["decay"]["fresh"].scale.sel(decayed="all", decay=0.01).values
    usual = full["no decay"]["fresh"].scale.values.ravel()
    assert f"ended at {scales[0]:.2f} (root mean square), where it is {usual[0]:.2f}" in page
    assert f"ended at {scales[1]:.2f}, and at {usual[1]:.2f} without decay" in page
    rate = full["decay"]["fresh"].learning_rate.sel(decayed="all", decay=0.01).item()
    assert rate == 0.03
    assert f"{np.exp(-rate * 0.01 * full['decay']['steps']):.2f}$ after 2400 steps" in page
    assert full["no decay"]["fresh"].learning_rate.item() == 0.1


def test_each_decision_leads_to_a_place_on_the_page(full, page):
    rows = results.decisions(full)
    assert len({row[0] for row in rows}) == 7
    for *_, anchor in rows:
        name, _, target = anchor.partition("#")
        assert name == "practice/tuning"
        assert f"({target})=" in page
