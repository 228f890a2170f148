"""The figures of the chapter on small batches show what they say."""

import numpy as np
import pytest

from bncore.chapters.practice.small_batches import causes, experiments, figures, results

EPS = np.finfo(np.float64).eps


def lines(ax):
    return {line.get_label(): line for line in ax.get_lines()}


@pytest.mark.parametrize("m", [2, 16])
def test_harm_shows_outputs_and_the_three_shares(m):
    above, below = figures.harm(m).axes
    outputs = lines(above)[f"batches of {m}"].get_ydata()
    outputs = outputs[~np.isnan(outputs)]
    assert np.abs(outputs).max() <= (m - 1) ** 0.5 + 1e-9
    widths = [bar.get_width() for bar in below.patches]
    np.testing.assert_allclose(widths, [100 * share for share in causes.measured(m)])
    dashes = [line.get_xdata()[0] for line in below.get_lines()]
    np.testing.assert_allclose(dashes, [100 * share for share in causes.predicted(m)])


@pytest.mark.parametrize("m", [2, 4, 16])
def test_corrections_lead_from_batch_norm_to_evaluation(m):
    def batches(r_max):
        return [
            line.get_data() for line in figures.corrected(m, r_max).axes[0].get_lines()
            if line.get_label() != "evaluation"
        ]  # fmt: skip

    # At the limits 1 and 0 each batch has mean 0 and variance 1, but for epsilon.
    for x, y in batches(1):
        share = x.var() / (x.var() + 1e-5)
        assert abs(y.mean()) <= 64 * EPS / x.std()
        assert y.var() == pytest.approx(share, abs=64 * m * EPS / x.var())
    far = [np.mean([np.abs(y - x).max() for x, y in batches(r_max)]) for r_max in (1, 1.5, 3)]
    assert far[0] > far[1] >= far[2]
    if m == 16:
        assert far[2] < 1e-4  # no limit is reached; epsilon remains


@pytest.mark.parametrize("remedy", figures.REMEDIES)
def test_the_chart_has_the_recorded_errors(record, remedy):
    (ax,) = figures.chart(record["full"], remedy).axes
    found = 100 * results.fresh(record["full"]).error
    for label, arm in (("no batch norm", "none"), ("batch norm", "batch norm"), (remedy, remedy)):
        expected = found.sel(arm=arm).mean("seed").dropna("batch_size")
        np.testing.assert_allclose(lines(ax)[label].get_ydata(), expected)
        assert np.abs(lines(ax)[label].get_xdata() / expected.batch_size - 1).max() < 0.05
    crosses = [
        line for line in ax.get_lines() if line.get_marker() == "x" and len(line.get_xdata())
    ]
    cannot = {"batch norm", remedy} - set(experiments.OF_ONE)
    assert len(crosses) == len(cannot)
    for line in crosses:
        np.testing.assert_allclose(line.get_xdata(), 1, rtol=0.15)
