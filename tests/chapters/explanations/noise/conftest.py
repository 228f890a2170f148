"""The recorded run that experiments and figures are tested on."""

import pytest

from bncore.chapters.explanations.noise import experiments


@pytest.fixture(scope="session")
def full():
    return experiments.record()["full"]
