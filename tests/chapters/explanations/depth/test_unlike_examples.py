"""The figures of the page on unlike examples show what they are given."""

import numpy as np
import pytest

from bncore.chapters.explanations.depth import experiments, full_size, unlike_examples
from bncore.explanations import depth


@pytest.mark.parametrize("batch_size", unlike_examples.BATCHES)
def test_errors_stand_beside_their_activations(record, batch_size):
    rows = [row for row in record["full"]["activations"] if row["batch_size"] == batch_size]
    ax = unlike_examples.missed(record["full"]["activations"], batch_size).axes[0]
    symmetric, given = ax.containers
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == [unlike_examples.CALLED[row["activation"]] for row in rows]
    for container, key in ((symmetric, "predicted"), (given, "given_forward")):
        (line, _, (bars,)), forward = container, key == "given_forward"
        errors = [100 * (row["measured"] / row[key] - 1) for row in rows]
        np.testing.assert_allclose(line.get_xdata(orig=False), errors, atol=1e-9)
        shares = [
            row["spread_given_forward"] if forward else row["spread"] / row[key] for row in rows
        ]
        reach = [2 * 100 * share / unlike_examples.SEEN**0.5 for share in shares]
        found = [np.ptp(ends[:, 0]) / 2 for ends in bars.get_segments()]
        np.testing.assert_allclose(found, reach, rtol=1e-9)
        low, high = ax.get_xlim()
        assert low < min(errors) < max(errors) < high


def test_factors_on_differences_are_those_of_the_theory():
    ax = unlike_examples.differences(units=500).axes[0]
    for line, batch_size in zip(ax.lines, unlike_examples.BATCHES, strict=False):
        expected = [depth.symmetry_multiplier(name, batch_size) for name in full_size.NAMES]
        np.testing.assert_array_equal(line.get_xdata(), expected)
    large = [experiments.deviation_multiplier(name, 4, units=500) for name in full_size.NAMES]
    np.testing.assert_array_equal(ax.lines[3].get_xdata(), large)
