"""The picture of "Why does it work?" is drawn from the smoothness chapter's record."""

import numpy as np
import pytest

from bncore.chapters import full
from bncore.chapters.explanations.why import figures
from bncore.lab import recorded


@pytest.mark.parametrize("depth", [2, 6, 10])
def test_each_line_is_the_median_over_the_seeds(depth):
    kept = recorded.load(full.path("explanations/smoothness"))["full"]["tuned"]["curves"]
    (ax,) = figures.losses(depth).axes
    assert {line.get_label() for line in ax.lines} == set(kept.kind.values)
    for line in ax.lines:
        rows = kept.loss.sel(kind=line.get_label(), depth=depth).transpose("seed", "steps").values
        np.testing.assert_allclose(line.get_ydata(), np.median(rows, axis=0), rtol=1e-12)
