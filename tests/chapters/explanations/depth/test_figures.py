"""The figures of the chapter on depth show what they are given."""

import numpy as np

from bncore.chapters.explanations.depth import figures


def test_a_gradient_without_batch_norm_at_the_first_layer():
    for variance in (0.8, 4.0):
        runs, predicted, _ = figures.unnormalized("tanh", variance, layers=16, seeds=4)
        measured = np.exp(np.log(runs / runs[:, -1:]).mean(axis=0))
        np.testing.assert_allclose(measured, predicted, rtol=0.25)
        assert len(predicted) == 16
