"""The figures of trained networks show what they are given."""

import numpy as np
import pytest

from bncore.chapters.explanations.depth import trained_networks


@pytest.mark.parametrize(("layers", "steps"), [(10, 150), (60, 3000)])
def test_a_line_is_the_median_over_the_seeds_at_each_rate(record, layers, steps):
    tuning = record["full"]["training"]["tuning"]
    fig = trained_networks.trained(tuning, layers, steps)
    lines = {line.get_label(): line for line in fig.axes[0].lines}
    for kind, name in trained_networks.NAMES.items():
        found = tuning.accuracy.sel(kind=kind, layers=layers, steps=steps)
        found = found.dropna("learning_rate")
        np.testing.assert_array_equal(lines[name].get_xdata(), found.learning_rate)
        np.testing.assert_array_equal(lines[name].get_ydata(), np.median(found, axis=-1))
