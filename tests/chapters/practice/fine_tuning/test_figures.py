"""The figures of the chapter on fine-tuning show what they say."""

import pytest

from bncore.chapters.practice.fine_tuning import figures


@pytest.mark.parametrize("shift", [-3, 0, 2])
def test_the_mean_moves_above_and_stays_below(shift):
    above, below = (ax.lines[1].get_xdata()[0] for ax in figures.before_and_after(shift).axes)
    assert above == pytest.approx(
        figures.before_and_after(0).axes[0].lines[1].get_xdata()[0] + shift
    )
    assert below == pytest.approx(0, abs=1e-12)
