"""Short runs that measures and figures are tested on."""

import pytest

from bncore.chapters.explanations.covariate_shift import experiments, measures


@pytest.fixture(scope="session")
def measured():
    task = experiments.vgg(2, 8, 6)
    return {
        name: measures.measure(task, name, 0.03, 0, [0, 5], 0.03, 0.01)
        for name in experiments.NORMALIZATIONS
    }
