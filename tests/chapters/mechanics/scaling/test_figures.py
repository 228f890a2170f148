"""What the figures of the feature scaling chapter draw is what the mathematics says."""

import numpy as np
import pytest
from scipy import stats

from bncore.chapters.mechanics.scaling import experiments, figures, full_size
from bncore.lab import recorded
from bncore.mechanics import scaling

EPS = np.finfo(np.float64).eps


def line(ax, label):
    (found,) = [line for line in ax.get_lines() if line.get_label() == label]
    return found.get_data()


@pytest.mark.parametrize("correlation", [-0.95, -0.3, 0, 0.8])
@pytest.mark.parametrize("ratio", [1, 7])
def test_two_features_have_exactly_the_moments_asked_for(correlation, ratio):
    X = figures.two_features(correlation, ratio)
    covariance = np.array([[1, correlation * ratio], [correlation * ratio, ratio**2]])
    rounding = len(X) * EPS * ratio
    np.testing.assert_allclose(np.cov(X.T, bias=True), covariance, rtol=0, atol=rounding * ratio)
    np.testing.assert_allclose(X.mean(axis=0), 0, atol=rounding)


@pytest.mark.parametrize("name", ["diabetes", "breast cancer"])
def test_tables_are_raw_and_targets_standardised(name):
    X, y = figures.table(name)
    assert X.mean(axis=0).max() > 10
    assert y.mean() == pytest.approx(0, abs=len(y) * EPS)
    assert y.var() == pytest.approx(1, rel=len(y) * EPS, abs=0)


def test_every_scaling_does_what_it_is_called():
    X, _ = figures.table("diabetes")
    assert figures.scaled(X, "raw") is X
    rounding = len(X) * EPS
    centred, unit, whitened = (
        figures.scaled(X, how) for how in ("centred", "standardised", "whitened")
    )
    np.testing.assert_allclose(centred.mean(axis=0), 0, atol=rounding * X.max())
    np.testing.assert_allclose(np.ptp(figures.scaled(X, "min–max"), axis=0), 1, rtol=4 * EPS)
    np.testing.assert_allclose(unit.std(axis=0), 1, rtol=rounding)
    lost = 10 * EPS * np.linalg.cond(np.cov(unit.T))
    np.testing.assert_allclose(np.cov(whitened.T, bias=True), np.eye(10), rtol=0, atol=lost)


@pytest.mark.parametrize(
    ("ratio", "how", "kappa"), [(1, "raw", 3), (9, "standardised", 3), (9, "whitened", 1)]
)
def test_the_path_shrinks_at_the_predicted_rate(ratio, how, kappa):
    fig = figures.path(ratio, how)
    assert fig.axes[0].get_title().startswith(f"κ = {kappa}:")
    path = np.array(fig.axes[0].get_lines()[-2].get_data())
    sizes = np.linalg.norm(path, axis=0)
    rate = scaling.gradient_descent_rate(kappa)
    # 20 steps, by a matrix that sums 100 samples.
    expected = rate ** np.arange(len(sizes))
    np.testing.assert_allclose(sizes, expected, rtol=0, atol=(20 + 100) * EPS)


@pytest.mark.parametrize("mean", [0, 1, 4])
def test_the_path_off_centre_keeps_the_bound_of_the_theorem(mean):
    title = figures.path_off_centre(mean).axes[0].get_title()
    assert float(title.split()[2].rstrip(":")) >= (1 + mean**2) ** 2


@pytest.mark.parametrize(
    ("how", "kappa", "left"), [("batch norm", 9, 0.8), ("PCA", 1, 0), ("ZCA", 1, 0)]
)
def test_the_cloud_keeps_or_loses_its_correlation(how, kappa, left):
    top, bottom = figures.cloud(0.8, how).axes
    cloud = np.array(top.get_lines()[0].get_data())
    rounding = 100 * EPS  # sums over 100 samples
    assert abs(np.corrcoef(cloud)[0, 1]) == pytest.approx(left, abs=rounding)
    assert bottom.get_title() == f"κ = {kappa}"
    steps, measured = line(bottom, "measured")
    _, predicted = line(bottom, "predicted")
    np.testing.assert_allclose(measured, predicted[: len(steps)], rtol=0, atol=rounding)


@pytest.mark.parametrize("data", ["diabetes", "breast cancer"])
@pytest.mark.parametrize("scale", figures.SCALINGS)
def test_measured_lies_on_predicted_and_below_the_worst_case(data, scale):
    (ax,) = figures.real_data(data, scale).axes
    times, measured = line(ax, "measured")
    at = np.isin(line(ax, "predicted")[0], times)
    X, y = figures.table(data)
    design = experiments.with_intercept(figures.scaled(X, scale))
    # Eigenvalues are off by the rounding of the largest, which the weights' squares multiply; what
    # is drawn is relative to the loss that the weights explain.
    weights = np.linalg.lstsq(design, y)[0]
    largest, explained = np.linalg.norm(design, 2) ** 2, ((design @ weights) ** 2).sum()
    powers = 2 * figures.STEPS * EPS
    rounding = powers + 10 * EPS * largest * (weights @ weights) / explained
    predicted = line(ax, "predicted")[1][at]
    np.testing.assert_allclose(measured, predicted, rtol=0, atol=rounding)
    bound = line(ax, "worst case")[1][at]
    assert (measured <= bound + rounding).all()
    kappa = np.linalg.cond(design) ** 2
    promised = (1 - 1 / kappa) ** (2 * (times - 1))
    np.testing.assert_allclose(bound[bound > 1e-5], promised[bound > 1e-5], rtol=10 * powers)


@pytest.mark.parametrize("name", ["diabetes", "breast cancer"])
def test_raw_the_steepest_direction_is_that_of_the_mean_with_under_a_fifth_of_the_loss(name):
    X, y = figures.table(name)
    design = experiments.with_intercept(X)
    values, vectors = np.linalg.eigh(design.T @ design / len(X))
    steepest = vectors[:, -1]
    mean = design.mean(axis=0)
    assert abs(steepest @ mean) > 0.999 * np.linalg.norm(mean)
    there = (steepest @ design.T @ y / len(X)) ** 2 / values[-1]
    explained = np.square(design @ np.linalg.lstsq(design, y)[0]).mean()
    assert there < 0.2 * explained


def test_the_ladder_stands_on_the_condition_numbers_with_an_intercept():
    (ax,) = figures.ladder().axes
    for name in ("diabetes", "breast cancer"):
        found, places = line(ax, name)
        X, _ = figures.table(name)
        for place, how in zip(places, figures.SCALINGS, strict=True):
            design = experiments.with_intercept(figures.scaled(X, how))
            wanted = np.linalg.cond(design) ** 2
            assert found[place] == pytest.approx(wanted, rel=1e-6)


def test_the_leads_are_means_over_the_fresh_seeds_around_which_their_intervals_lie():
    last = recorded.load(full_size.PATH)["full"]["first"]["fresh"]["last"]
    (ax,) = figures.leads(last).axes
    bars = [one for one in ax.get_lines() if len(one.get_xdata()) == 2][:-1]
    marks = [one.get_xdata()[0] for one in ax.get_lines() if len(one.get_xdata()) == 1]
    apart = [
        100 * (last.sel(source=source, first=first) - last.sel(source=source, first="batch norm"))
        for first in ("nothing", "z-score", "logarithm")
        for source in ("breast cancer", "product", "sum")
    ]
    wanted = [float(one.mean()) for one in apart]
    np.testing.assert_allclose(marks, wanted, rtol=1e-9)
    np.testing.assert_allclose([bar.get_xdata().mean() for bar in bars], wanted, rtol=1e-9)
    # Student's intervals, of ten that are looked at.
    seeds = last.sizes["seed"]
    quantile = stats.t.isf(0.05 / 10 / 2, seeds - 1)
    reach = [quantile * float(one.std(ddof=1)) / seeds**0.5 for one in apart]
    np.testing.assert_allclose([np.ptp(bar.get_xdata()) / 2 for bar in bars], reach, rtol=1e-9)
    ahead = [bar.get_xdata()[0] > 0 for bar in bars]
    assert ahead == [False, True, False, False, True, True, False, True, False]


def test_an_outlier_presses_min_max_more_than_standardising():
    widths = [
        [float(ax.get_title().split()[-2]) for ax in figures.outlier(size).axes]
        for size in (10, 1000)
    ]
    (near_range, near_deviation), (far_range, far_deviation) = widths
    assert near_range / far_range > 50
    assert near_deviation / far_deviation < near_range / far_range


def test_no_random_start_is_slower_than_the_worst():
    (ax,) = figures.spread_over_starts().axes
    kappas, worst = line(ax, "predicted, worst start")
    for bar in ax.containers[0].lines[2][0].get_segments():
        (kappa, _), (_, slowest) = bar
        assert slowest <= np.interp(kappa, kappas, worst) + 1


def test_the_logistic_runs_end_on_the_predicted_slope():
    (ax,) = figures.logistic().axes
    for how in ("standardised", "whitened"):
        steps, errors = line(ax, f"{how}, measured")
        slope = np.diff(np.log(errors[-3:])) / np.diff(steps[-3:])
        predicted = [
            np.diff(np.log(other.get_ydata()[-2:]))[0]
            for other in ax.get_lines()
            if other.get_linestyle() == "--" and len(other.get_ydata())
        ]
        assert min(abs(slope[-1] / p - 1) for p in predicted) < 0.02


def test_powers_of_ten_are_written_plainly():
    assert figures._plain(100.0) == "100"
    assert figures._plain(1e-6) == "10⁻⁶"
