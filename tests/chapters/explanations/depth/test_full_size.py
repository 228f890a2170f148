"""The recorded run of the chapter on depth: it repeats, and it says what the chapter says of it."""

import numpy as np
import pytest
import torch
from again import assert_run_again

from bncore.chapters.explanations.depth import experiments, full_size
from bncore.explanations import depth
from bncore.explanations.activation import ACTIVATIONS
from bncore.lab import data, studies

EPS, SINGLE = (float(np.finfo(kind).eps) for kind in (np.float64, np.float32))
RATE = 1e-5  # The last decimal with which rates are recorded.
ACCURACY = 1e-4  # The last decimal with which accuracies are recorded.


@pytest.fixture(scope="module")
def repeated():
    torch.set_num_threads(1)
    return full_size.run(full_size.REDUCED)


def test_the_recorded_run_is_of_this_configuration(record):
    assert record["configuration"] == full_size.CONFIGURATION
    for part in full_size.RATES:
        for row in record["full"][part]:
            predicted = depth.growth_rate(row["activation"], row["batch_size"])
            assert row["predicted"] == pytest.approx(predicted, abs=RATE / 2 + EPS)


def test_growth_rates_repeat(record, repeated):
    """Rounding errors grow by the root of the rate: 20 layers multiply them some thousandfold."""
    rounding = 1e4 * SINGLE
    for row, kept in zip(repeated["activations"], record["reduced"]["activations"], strict=True):
        assert row["measured"] == pytest.approx(kept["measured"], rel=rounding, abs=0)
        assert row["predicted"] == pytest.approx(kept["predicted"], abs=RATE + EPS)
        assert row["given_forward"] == pytest.approx(kept["given_forward"], rel=rounding, abs=0)


def test_training_repeats(record, repeated):
    assert_run_again(*({"training": some["training"]} for some in (repeated, record["reduced"])))


@pytest.mark.parametrize("part", ["training", "adam"])
def test_the_best_rates_lie_inside_their_grids_and_fresh_seeds_are_run_at_them(record, part):
    tuning, fresh = record["full"][part].values()
    chosen = studies.best(tuning, "last", smaller=False)
    learns = chosen["last"].median("seed") > 0.5
    assert not (chosen.at_an_end & learns).any()
    assert fresh.learning_rate.equals(chosen.learning_rate)
    grid = full_size.CONFIGURATION[part]
    assert (tuning.seed.values.tolist(), fresh.seed.values.tolist()) == (
        grid["seeds"],
        grid["fresh_seeds"],
    )
    assert tuning.kind.values.tolist() == list(experiments.KINDS)


def test_what_the_chapter_says_of_the_trained_networks(record):
    """Medians of fresh seeds, by depth, and at how many of seven rates all three networks reach 0.9."""
    fresh, adam = (record["full"][part]["fresh"].accuracy for part in ("training", "adam"))
    median = fresh.median("seed").sel(steps=3000)
    half = 0.005 + EPS
    for kind, said in (("plain", 0.82), ("batch norm", 0.25), ("residual", 0.97)):
        assert median.sel(kind=kind, layers=60).item() == pytest.approx(said, abs=half)
    for layers, said in ((10, 0.98), (30, 0.97)):
        found = median.sel(kind="batch norm", layers=layers).item()
        assert found == pytest.approx(said, abs=half)
    early = fresh.median("seed").sel(steps=500, layers=30)
    for kind, said in (("batch norm", 0.85), ("residual", 0.96)):
        assert early.sel(kind=kind).item() == pytest.approx(said, abs=half)
    last = adam.median("seed").sel(steps=1000, layers=60)
    for kind, said in (("plain", 0.83), ("batch norm", 0.23), ("residual", 0.97)):
        assert last.sel(kind=kind).item() == pytest.approx(said, abs=half)
    good = (record["full"]["training"]["tuning"]["last"] >= 0.9).all("seed").sum("learning_rate")
    assert good.sel(kind="plain").values.tolist() == [5, 2, 0]
    assert good.sel(kind="batch norm").values.tolist() == [6, 4, 0]
    sixty = fresh.sel(layers=60, kind="batch norm", steps=3000)
    assert (sixty < 0.5).all()
    tried = record["full"]["training"]["tuning"].accuracy.sel(kind="batch norm", layers=60)
    assert tried.max() < 0.35
    plain = fresh.median("seed").sel(layers=60, kind="plain")
    assert plain.sel(steps=3000) - plain.sel(steps=1500) > 0.2


def test_the_best_networks_of_each_depth_are_done(record):
    """From 1500 to 3000 steps the best one gains less than a point."""
    fresh = record["full"]["training"]["fresh"].accuracy.mean("seed")
    best = fresh.max("kind")
    assert (best.sel(steps=3000) - best.sel(steps=1500) < 0.01).all()


def test_a_network_is_measured_at_each_moment_with_the_statistics_of_the_test_set():
    """At this rate the weights stay where they start."""
    for kind, seed in (("batch norm", 3), ("residual", 4)):
        found = experiments.accuracies(kind, 2, 1e-9, seed, moments=[2, 6], width=16)
        split, model = data.digits(seed), experiments.classifier(kind, 2, 16, seed)
        answers = model(split.x_test).argmax(1)
        expected = (answers == split.y_test).double().mean().item()
        np.testing.assert_allclose(found["accuracy"], expected, rtol=0, atol=2 / 449)
        assert found["last"] == found["accuracy"][-1]


def test_the_optimizer_is_the_one_that_is_asked_for():
    """Adam's steps have the size of its rate, and are large where gradients are small."""
    small, large = (
        experiments.accuracies("plain", 3, 0.003, 0, moments=[100], width=32, optimizer=name)[
            "last"
        ]
        for name in ("sgd", "adam")
    )
    assert small < 0.6 < large


def test_the_command_for_the_papers_size_runs_its_configuration(small_images, monkeypatch, command):
    small = {"layers": [3], "width": 16, "moments": [2], "learning_rates": [1e-9, 2e-9, 4e-9]}
    small |= {"seeds": [0, 1], "fresh_seeds": [2], "batch_size": 8, "device": "cpu"}
    paper = {part: grid | small for part, grid in full_size.PAPER.items()}
    monkeypatch.setattr(full_size, "PAPER", paper)
    kept = command("explanations/depth", "--paper", "--cache", "somewhere")
    assert set(small_images) == {("cifar10", "somewhere")}
    assert kept["configuration"] == paper
    split = data.standard_images("cifar10", "somewhere")
    for part in paper:
        fresh = kept["full"][part]["fresh"]
        assert fresh.kind.values.tolist() == ["plain", "batch norm", "residual"]
        for kind in fresh.kind.values.tolist():
            # At these rates the weights stay where they start.
            model = experiments.classifier(kind, 3, 16, 2, 3 * 32 * 32)
            answers = model(split.x_test.flatten(1)).argmax(1)
            expected = (answers == split.y_test).double().mean().item()
            found = fresh["last"].sel(kind=kind, layers=3, seed=2).item()
            assert found == pytest.approx(expected, abs=ACCURACY / 2 + EPS)


def test_the_papers_networks_are_deeper_and_wider():
    ours, paper = full_size.CONFIGURATION, full_size.PAPER
    for part in ("training", "adam"):
        assert paper[part].keys() - ours[part].keys() == {"source", "batch_size", "device"}
        assert max(paper[part]["layers"]) > max(ours[part]["layers"])
        assert paper[part]["width"] > ours[part]["width"]


@pytest.fixture
def departures(record):
    def of(part):
        return full_size.departures(record["full"][part], record["configuration"][part]["seeds"])

    return of


def test_which_rates_agree_within_two_percent_at_width_512(departures):
    rows = departures("activations")
    assert {row.width for row in rows} == {512}
    assert {row.activation for row in rows} == set(ACTIVATIONS)
    assert len(rows) == 33
    beyond = {(row.activation, row.batch_size) for row in rows if abs(row.error) >= 2}
    assert beyond == {("softplus", 256), ("silu", 64), ("silu", 256), ("abs", 64), ("abs", 256)}


@pytest.mark.parametrize(
    ("batch_size", "within_excess", "within_chance"), [(8, 11, 11), (64, 10, 4), (256, 6, 1)]
)
def test_larger_batches_depart_from_the_rate_beyond_chance(
    departures, batch_size, within_excess, within_chance
):
    rows = [row for row in departures("activations") if row.batch_size == batch_size]
    assert sum(abs(row.of_excess) < 10 for row in rows) == within_excess
    assert sum(abs(row.error) < 3 * row.standard_error for row in rows) == within_chance


def test_the_forward_pass_tells_the_rates_that_the_symmetric_batch_misses(record):
    rows, seeds = record["full"]["activations"], record["configuration"]["activations"]["seeds"]
    beyond = {}
    for given in (False, True):
        found = full_size.departures(rows, seeds, given_forward=given)
        beyond[given] = {(row.activation, row.batch_size) for row in found if abs(row.error) >= 2}
        if given:
            errors = {(row.activation, row.batch_size): row.error for row in found}
    assert not beyond[False] & beyond[True]
    assert all(abs(errors[case]) < 1 for case in beyond[False])
    assert beyond[True] == {(name, B) for name in ("identity", "sigmoid") for B in (64, 256)}
    assert max(errors.values()) < 0


def test_wider_networks_have_fresher_weights(record):
    found = full_size.departures(record["full"]["large_batches"], 10, given_forward=True)
    for name in {row.activation for row in found}:
        sizes = [abs(row.error) for row in found if row.activation == name]
        assert sizes == sorted(sizes, reverse=True)


def test_every_recorded_rate_explodes(record):
    for part in full_size.RATES:
        for row in record["full"][part]:
            assert row["measured"] > 1 + 5 * row["spread"] / 10**0.5


def test_width_mends_large_batches_but_not_unlike_examples(departures):
    error = {(row.activation, row.width): row.error for row in departures("large_batches")}
    left = {name: error[name, 1024] / error[name, 256] for name, _ in error}
    mended = [round(left[name], 2) for name in ("identity", "relu", "softplus")]
    assert (min(mended), max(mended)) == (0.28, 0.42)
    assert all(0.5 < left[name] < 1 for name in ("silu", "abs"))
    assert all(abs(row.error) < 0.6 for row in departures("widths") if row.width >= 64)
    assert all(abs(row.error) < 0.3 for row in departures("depths"))


def test_a_departure_is_in_percent_of_the_rate_and_of_its_excess():
    row = {"activation": "relu", "batch_size": 8, "width": 64}
    row |= {"measured": 1.3, "spread": 0.06, "predicted": 1.2}
    (found,) = full_size.departures([row], 9)
    assert found[:3] == ("relu", 8, 64)
    assert found[3:] == pytest.approx((100 / 12, 2 / 1.2, 50))
