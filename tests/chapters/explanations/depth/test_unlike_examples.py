"""The figures of the page on unlike examples show what they are given."""

import numpy as np
import pytest

from bncore.chapters.explanations.depth import full_size, unlike_examples
from bncore.explanations import depth


@pytest.mark.parametrize("batch_size", unlike_examples.BATCHES)
def test_errors_stand_beside_their_activations(record, batch_size):
    rows = [row for row in record["full"]["activations"] if row["batch_size"] == batch_size]
    ax = unlike_examples.missed(record["full"]["activations"], batch_size).axes[0]
    symmetric, given = (bar.lines[0] for bar in ax.containers)
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == [unlike_examples.CALLED[row["activation"]] for row in rows]
    for line, key in ((symmetric, "predicted"), (given, "given_forward")):
        errors = [100 * (row["measured"] / row[key] - 1) for row in rows]
        np.testing.assert_allclose(line.get_xdata(orig=False), errors, atol=1e-9)
        low, high = ax.get_xlim()
        assert low < min(errors) < max(errors) < high


def test_factors_on_differences_are_those_of_the_theory():
    ax = unlike_examples.differences(units=500).axes[0]
    for line, batch_size in zip(ax.lines, unlike_examples.BATCHES, strict=False):
        expected = [depth.symmetry_multiplier(name, batch_size) for name in full_size.NAMES]
        np.testing.assert_array_equal(line.get_xdata(), expected)
