"""The recorded runs of the forward chapter."""

import itertools

import numpy as np
import pytest
from again import assert_run_again

from bncore.chapters.mechanics.forward import benefits, experiments, full_size
from bncore.lab import studies


def test_the_record_is_of_this_configuration(record):
    c = full_size.CONFIGURATION
    assert record["configuration"] == c
    tuning, fresh = record["full"]["tuning"], record["full"]["fresh"]
    for found, seeds in ((tuning, c["seeds"]), (fresh, c["fresh_seeds"])):
        assert found.network.values.tolist() == c["networks"] == list(experiments.NETWORKS)
        assert found.steps.values.tolist() == c["moments"]
        assert found.seed.values.tolist() == seeds
    assert set(c["learning_rates"]) <= set(tuning.learning_rate.values.tolist())


def test_a_part_of_the_record_can_be_run_again(record):
    assert_run_again(full_size.run(full_size.REDUCED), record["reduced"])


def test_the_best_rates_lie_inside_their_grids_and_the_best_network_is_done(record):
    """Half a point a doubling is what still counts. Where nothing learns no rate is the best."""
    tuning = record["full"]["tuning"]
    chosen = studies.best(tuning, "last", smaller=False)
    learns = chosen["last"].median("seed") > 0.5
    assert not (chosen.at_an_end & learns).any()
    medians = chosen.accuracy.median("seed").transpose("network", "steps").values
    before, after = medians[medians[:, -1].argmax(), -2:]
    doublings = np.log2(
        full_size.CONFIGURATION["moments"][-1] / full_size.CONFIGURATION["moments"][-2]
    )
    assert (after - before) / doublings < 0.005


def test_fresh_seeds_are_run_at_the_rates_that_were_chosen(record):
    chosen = studies.best(record["full"]["tuning"], "last", smaller=False)
    assert record["full"]["fresh"].learning_rate.equals(chosen.learning_rate)


def test_runs_of_the_papers_size_take_images_as_rows(monkeypatch):
    """The digits in the shape of the images that are downloaded."""
    asked = []

    def images(name, cache):
        asked.append((name, cache))
        split = experiments.data.digits()
        return split._replace(
            x_train=split.x_train.reshape(-1, 1, 8, 8), x_test=split.x_test.reshape(-1, 1, 8, 8)
        )

    monkeypatch.setattr(experiments.data, "standard_images", images)
    small = {
        "networks": ["sigmoid, batch norm"], "learning_rates": [0.1, 0.3, 1.0], "seeds": [0],
        "fresh_seeds": [1], "moments": [2, 4], "widths": [64, 10, 10, 10, 10],
    }  # fmt: skip
    found = full_size.run(full_size.PAPER | small, "somewhere")
    assert set(asked) == {("mnist", "somewhere")}
    assert found["fresh"].accuracy.shape == (1, 1, 2)


ARRIVAL_HORIZON = full_size.CONFIGURATION["starts"]["horizon"]
ARRIVALS = ("starts", "convolutional", "convolutional-2000", "learned")


@pytest.mark.parametrize("part", ARRIVALS)
def test_arms_that_arrive_do_so_at_a_rate_inside_their_grid(record, part):
    """To the test accuracy those from the best gain, which alone are compared."""
    c, found = full_size.CONFIGURATION[part], record["full"][part]
    assert found["tuning"].kind.values.tolist() == c["kinds"]
    assert found["tuning"].normalization.values.tolist() == c["normalizations"]
    assert found["tuning"].gain.values.tolist() == sorted(c["gains"])
    for score, fresh in (("loss_score", "by_loss"), ("accuracy_score", "by_accuracy")):
        chosen = studies.best(found["tuning"], score, smaller=True)
        medians = chosen[score].median("seed")
        arrives = medians <= c["horizon"]
        assert arrives.any("gain").sel(normalization="batch").all()
        counts = arrives if score == "loss_score" else medians == medians.min("gain")
        counts = counts & arrives
        assert not (chosen.at_an_end & counts).any()
        rates = found[fresh].learning_rate
        np.testing.assert_array_equal(rates.where(arrives), chosen.learning_rate.where(arrives))
        assert found[fresh].seed.values.tolist() == c["fresh_seeds"]


def test_steadiness_is_measured_at_the_best_gains_and_rates_and_where_both_train(record):
    c, found = full_size.CONFIGURATION["steadiness"], record["full"]["steadiness"]
    for kind, arms in c["best_rates"].items():
        part = record["full"]["convolutional-2000" if kind == "convolutional" else "starts"]
        chosen = studies.best(part["tuning"], "loss_score", smaller=True).sel(kind=kind)
        assert set(c["seeds"][kind]).isdisjoint(chosen.seed.values)
        for name, rate in arms.items():
            one = chosen.sel(normalization=name)
            gain = one.loss_score.median("seed").idxmin("gain").item()
            assert gain == c["gains"][kind]
            assert rate == one.learning_rate.sel(gain=gain)
            rises = found["at_best"][kind][name].rises
            assert rises.seed.values.tolist() == c["seeds"][kind]
            assert rises.learning_rate == rate
    tuning = record["full"]["starts"]["tuning"]
    medians = tuning.loss_score.median("seed").dropna("learning_rate")
    for kind, rates in c["rates"].items():
        both = []
        for name in ("none", "batch"):
            at = medians.sel(kind=kind, normalization=name, gain=c["gains"][kind])
            both.append(at <= c["horizon"][kind])
            peak = found["over_rates"][kind][name].peak
            assert peak.seed.values.tolist() == c["seeds_of_rates"]
            assert peak.learning_rate.values.tolist() == rates
        of_all = medians.learning_rate.values
        lowest = of_all[(both[0] & both[1]).values].min()
        assert rates == of_all[of_all >= lowest].tolist()


def test_gradients_are_measured_above_every_rate_at_which_the_plain_network_trains(record):
    c, starts = full_size.CONFIGURATION["gradients"], record["full"]["starts"]["tuning"]
    assert set(c["seeds"]).isdisjoint(starts.seed.values)
    medians = starts.loss_score.median("seed")
    for name, network in c["networks"].items():
        found = record["full"]["gradients"][name]
        assert found.learning_rate.values.tolist() == c["learning_rates"][name]
        assert found.seed.values.tolist() == c["seeds"]
        assert found.normalization.values.tolist() == ["none", "batch"]
        kind = {"kind": network["kind"], "gain": network["gain"]}
        highest = {}
        for one in ("none", "batch"):
            arrives = medians.sel(normalization=one, **kind) <= ARRIVAL_HORIZON
            highest[one] = medians.learning_rate.where(arrives).max().item()
        for rate in c["learning_rates"][name]:
            assert highest["none"] < rate
            assert network["depth"] != 5 or rate <= highest["batch"]


def test_wandering_is_measured_at_the_most_accurate_rate(record):
    c, found = full_size.CONFIGURATION["wandering"], record["full"]["wandering"]
    chosen = studies.best(found["tuning"], "accuracy", smaller=False)
    assert not chosen.at_an_end.any()
    assert found["fresh"].learning_rate.equals(chosen.learning_rate)
    assert found["fresh"].seed.values.tolist() == c["fresh_seeds"]


def test_the_constants_that_are_compared_are_the_best_and_the_defaults(record):
    found = record["full"]["constants"]
    chosen = studies.best(found["tuning"], "accuracy", smaller=False)
    medians = chosen["accuracy"].median("seed")
    assert medians.sel(found["best"]) == medians.max()
    pairs = itertools.product(found["fresh"].momentum.values, found["fresh"].eps.values)
    fresh_pairs = [{"momentum": momentum, "eps": eps} for momentum, eps in pairs]
    for one in (found["best"], *benefits.DEFAULTS.values()):
        assert one in fresh_pairs
    for one in fresh_pairs:
        fresh = found["fresh"].sel(one)
        assert fresh.seed.values.tolist() == full_size.CONFIGURATION["constants"]["fresh_seeds"]
        assert fresh.learning_rate == chosen.learning_rate.sel(one)
        assert not chosen.at_an_end.sel(one)


def test_steps_with_and_without_batch_norm_are_timed(record):
    seconds = record["full"]["seconds"]
    assert list(seconds) == full_size.CONFIGURATION["seconds"]["kinds"]
    for one in seconds.values():
        assert 0.2 < one["batch"] / one["none"] < 20
