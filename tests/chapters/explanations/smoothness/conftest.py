"""Short walks that experiments and figures are tested on."""

import pytest

from bncore.chapters.explanations.smoothness import experiments


@pytest.fixture(scope="session")
def kept():
    kinds = experiments.KINDS[:2]
    return {kind: experiments.walks(kind, 2, (0, 1), 20, 10)[0] for kind in kinds}
