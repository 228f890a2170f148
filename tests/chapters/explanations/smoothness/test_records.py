"""What is read off the recorded run of the chapter on smoothness, and what the chapter says of it."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from bncore.chapters.explanations.smoothness import experiments, records
from bncore.lab import studies

EPS = float(np.finfo(np.float64).eps)
PAIR = experiments.KINDS[:2]


def clear(depth, measure, *, above, **options):
    """Whether an interval of the logarithm of the ratios is on one side of 0."""
    found = records.log_ratio(depth, measure, **options)
    return found.low > 0 if above else found.high < 0


@pytest.mark.parametrize("depth", [2, 6, 10])
def test_batch_norm_is_recorded_as_smoother_once_training_has_begun(depth):
    for units in experiments.UNITS:
        assert clear(depth, units, above=True)
        equal = records.ratios(depth, units, at_equal_loss=True).sel(record=slice(25, None))
        assert (equal.values[np.isfinite(equal)] > 1).all()
        if (depth, units) != (10, "absolute"):
            assert clear(depth, units, above=True, part="common")


def test_the_relative_change_is_recorded_as_smaller_where_the_chapter_says():
    assert [clear(d, "change", above=True) for d in (2, 6, 10)] == [False, False, True]
    common = [clear(d, "change", above=True, part="common") for d in (2, 6, 10)]
    assert common == [True, False, False]


@pytest.mark.parametrize("depth", [2, 6, 10])
def test_the_loss_is_recorded_as_ranging_farther_with_batch_norm_at_the_start_only(depth):
    assert clear(depth, "range", above=False, records=records.START)
    assert clear(depth, "range", above=True)


def test_ten_layers_are_recorded_as_rougher_with_batch_norm_before_training():
    assert clear(10, "relative", above=False, records=records.START)
    start = records.ratios(10, "absolute").sel(record=0)
    assert (start < 1).sum() == 9


def test_the_mean_alone_is_recorded_as_smoothest_and_the_deviation_as_roughest_at_the_start():
    for depth in (2, 6, 10):
        for measure in experiments.UNITS:
            found = {
                kind: kept[measure].sel(record=0).median().item()
                for kind, kept in records.of("walks", depth)
            }
            assert min(found, key=found.get) == "mean only"
            assert max(found, key=found.get) == "variance only"


def test_the_halves_are_recorded_as_smoothing_where_the_chapter_says():
    for depth in (2, 6, 10):
        kinds = ("no batch norm", "mean only")
        assert all(clear(depth, units, above=True, kinds=kinds) for units in experiments.UNITS)
        assert clear(depth, "change", above=True, kinds=kinds) == (depth == 10)
    kinds = ("no batch norm", "variance only")
    assert clear(6, "absolute", above=False, kinds=kinds)
    assert clear(6, "relative", above=True, kinds=kinds)
    assert clear(6, "change", above=False, kinds=kinds)
    for depth, smoother in ((2, False), (10, True)):
        for units in experiments.UNITS:
            assert clear(depth, units, above=True, kinds=kinds) == smoother
            assert not clear(depth, units, above=False, kinds=kinds)


def test_each_kind_is_recorded_at_a_rate_inside_its_grid():
    full = records.record()["full"]
    chosen = studies.best(full["tuned"]["rates"], "last", smaller=True)
    assert not chosen.at_an_end.any()
    for part in (full["tuned"]["curves"], full["walks"], full["end"]):
        assert part.learning_rate.equals(chosen.learning_rate)
    rates = chosen.learning_rate
    for smooth in ("batch norm", "mean only"):
        for rough in ("no batch norm", "variance only"):
            assert (rates.sel(kind=smooth) >= 2 * rates.sel(kind=rough)).all()


def test_the_networks_of_the_walks_are_those_of_the_tuned_curves():
    full = records.record()["full"]
    # The walks see 256 digits of the training set, the curves all of it.
    walked = np.log(full["walks"].loss.sel(record=[0, 100, 200]))
    curves = np.log(full["tuned"]["curves"].loss.sel(steps=[0, 100, 200]))
    apart = walked.rename(record="steps").assign_coords(steps=[0, 100, 200]) - curves
    assert abs(apart.mean("seed")).max() < 0.7
    assert abs(apart.sel(steps=0)).max() < 0.15


@pytest.mark.parametrize("depth", [2, 6, 10])
def test_the_kinds_that_subtract_the_mean_are_recorded_as_far_ahead_after_100_steps(depth):
    for smooth in ("batch norm", "mean only"):
        for rough in ("no batch norm", "variance only"):
            found = records.tuned_ratio(smooth, rough, depth, 100)
            assert found.high < 0.55
            assert 1 / 14 < found.mean < 1 / 4
            assert records.tuned_ratio(rough, smooth, depth, 100).mean == pytest.approx(
                1 / found.mean, rel=64 * EPS
            )


def test_the_lead_is_recorded_as_lost_in_deeper_networks():
    for depth in (6, 10):
        found = records.tuned_ratio("batch norm", "no batch norm", depth, 800)
        assert found.low < 1 < found.high
    assert records.tuned_ratio("batch norm", "no batch norm", 2, 800).high < 0.2


def test_ranks_agree_as_the_chapter_says():
    for depth in (2, 6, 10):
        for units in experiments.UNITS:
            for steps in (100, 200):
                found = records.rank_agreement(depth, units, steps)
                assert found.low > 0
                assert 0.4 < found.mean < 0.9
            assert records.rank_agreement(depth, units, 800).separates == (depth == 2)


def test_the_agreement_of_ranks_is_kendalls():
    full = records.record()["full"]
    taus = []
    for seed in full["walks"].seed.values:
        rough = full["walks"].relative.sel(depth=6, seed=seed, record=[25, 50, 75, 100])
        rough = [np.log(rough.sel(kind=kind)).mean().item() for kind in experiments.KINDS]
        loss = full["tuned"]["curves"].loss.sel(depth=6, seed=seed, steps=100)
        loss = [loss.sel(kind=kind).item() for kind in experiments.KINDS]
        taus.append(kendalltau(rough, loss).statistic)
    found = records.rank_agreement(6, "relative", 100).mean
    assert found == pytest.approx(np.mean(taus), rel=16 * EPS, abs=0)


@pytest.mark.parametrize("depth", [2, 10])
@pytest.mark.parametrize("when", ["start", "end"])
def test_recorded_densities_end_where_the_recorded_spectra_end(depth, when):
    for kind, kept in records.of(when, depth, PAIR):
        found = records.recorded_density(kind, depth, when)
        assert len(found) == 3
        for i, one in enumerate(found):
            assert one.nodes.shape == one.weights.shape == (1, 40)
            np.testing.assert_allclose(one.weights.sum(axis=1), 1, rtol=40 * EPS)
            largest, smallest = (kept[name][i].item() for name in ("largest", "smallest"))
            for value, node in ((largest, one.nodes.max()), (smallest, one.nodes.min())):
                assert abs(node - value) < 0.01 * (largest - smallest)


def test_eigenvalues_are_counted_on_both_sides():
    assert records.parameters(2) == 64 * 50 + 50 * 50 + 50 * 10
    assert (records.outside("batch norm", 2, "start", 1e-9).sum(axis=1) == 6200).all()


def test_ratios_at_equal_loss_interpolate_between_records():
    found = records.ratios(2, "absolute", at_equal_loss=True)
    (_, plain), (_, normalised) = records.of("walks", 2, PAIR)
    low, high = plain.loss.min("record"), plain.loss.max("record")
    reached = (normalised.loss >= low) & (normalised.loss <= high)
    np.testing.assert_array_equal(np.isfinite(found), reached)
    theirs = (found * normalised.absolute).where(reached)
    least, most = plain.absolute.min("record"), plain.absolute.max("record")
    inside = (theirs >= least * (1 - 64 * EPS)) & (theirs <= most * (1 + 64 * EPS))
    assert (inside | ~reached).all()


def test_spectra_are_recorded_as_the_chapter_says():
    full = records.record()["full"]
    for depth, low, high in ((2, 1.8, 21), (6, 2.6, 15), (10, 9, 146)):
        (_, plain), (_, normalised) = records.of("end", depth, PAIR)
        ratio = plain.largest / normalised.largest
        assert low < ratio.min() < ratio.max() < high
        (_, plain), (_, normalised) = records.of("start", depth, PAIR)
        assert (normalised.along / normalised.largest).max() < 1 / 3
        longer = normalised.smallest / plain.smallest
        assert (longer > 1).sum() == {2: 4, 6: 4, 10: 5}[depth]
        sides = -normalised.smallest / normalised.largest
        assert 0.35 < sides.min() < sides.max() < 1.05
    assert (normalised.largest > plain.largest).sum() == 2
    assert 2.1 < longer.min() < longer.max() < 4.5
    ends = full["end"].smallest
    assert (ends.sel(kind=PAIR[0]) < ends.sel(kind=PAIR[1])).sum() == 29


def test_isolated_eigenvalues_are_recorded_alike_at_the_best_rates():
    end = records.record()["full"]["end"].sel(kind=list(PAIR))
    isolation = (end.largest / end.tenth).median("seed")
    assert 5 < isolation.min() < isolation.max() < 8.5
    shares = end.concentration.median("seed")
    assert 0.845 < shares.min() < shares.max() < 0.945


def test_ten_layers_are_recorded_with_more_large_eigenvalues_on_both_sides_at_the_start():
    plain, normalised = (np.median(records.outside(k, 10, "start"), axis=0) for k in PAIR)
    assert (normalised > 6 * plain).all()


def test_the_gradient_is_recorded_among_the_largest_eigenvectors_at_high_rates():
    found = records.record()["full"]["rates"].concentration.sel(kind="batch norm").median("seed")
    assert (found.diff("learning_rate") > 0).all()
    assert found.sel(learning_rate=0.05) < 0.3
    assert found.sel(learning_rate=0.4) > 0.8


def test_the_largest_eigenvalue_is_recorded_near_the_edge_at_high_rates_only():
    found = records.record()["full"]["rates"].largest
    plain = found.sel(kind="no batch norm")
    share = plain * plain.learning_rate / 2
    for rate, low, high in ((0.05, 0.28, 0.33), (0.2, 0.45, 0.87), (0.4, 0.43, 1.03)):
        at = share.sel(learning_rate=rate)
        assert low < at.min() < at.max() < high
    factor = plain.mean("seed") / found.sel(kind="batch norm").mean("seed")
    assert (factor.diff("learning_rate") < 0).all()
    assert (found.mean("seed").diff("learning_rate") < 0).all()
    assert 4 < factor.min() < factor.max() < 11


def test_networks_that_hardly_learn_are_recorded_as_smooth():
    full = records.record()["full"]
    kept = full["plateau"].sel(record=records.LATE)
    plain, normalised = (kept.sel(kind=kind) for kind in PAIR)
    assert (normalised.absolute > 1000 * plain.absolute).all()
    assert plain.loss.min() > 2.2
    plain, normalised = (full["vgg"].sel(kind=kind) for kind in PAIR)
    assert plain.absolute.max() < normalised.absolute.min()
    assert plain.loss.min() > 2.2


def test_the_mean_alone_is_recorded_as_last_at_the_lowest_rate():
    found = records.record()["full"]["tuned"]["rates"].last.isel(learning_rate=0).median("seed")
    for depth in (2, 6, 10):
        assert found.sel(depth=depth).idxmax("kind").item() == "mean only"


def test_the_earlier_range_parts_the_records_at_step_100():
    depth, kind = 6, experiments.KINDS[0]
    walks = records.record()["full"]["walks"].sel(depth=depth, kind=kind)
    logs = np.log(walks["range"].transpose("record", "seed").values)
    assert list(walks.record.values) == [0, 25, 50, 75, 100, 125, 150, 175, 200]
    by_seed = logs[1:5].mean(axis=0) - logs[5:].mean(axis=0)
    found = records.earlier_range(depth, kind)
    assert found.mean == pytest.approx(by_seed.mean(), rel=1e-9)
    assert found.low < found.mean < found.high
