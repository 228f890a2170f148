"""The figures of the chapter on fine-tuning show the recorded runs."""

import numpy as np
import pytest

from bncore.chapters.practice.fine_tuning import experiments, figures


def lines(ax):
    return {line.get_label(): line for line in ax.lines}


@pytest.mark.parametrize("kind", experiments.CHANGES)
@pytest.mark.parametrize("step", [0, 4])
def test_accuracy_is_drawn_against_the_amount_of_change(kind, step):
    above, below = figures.untrained(kind, step).axes
    found, drawn = figures.record()["untrained"].sel(kind=kind), lines(below)
    for label, name in (("old statistics", "kept"), ("recalibrated", "recalibrated")):
        np.testing.assert_array_equal(drawn[label].get_xdata(), experiments.AMOUNTS[kind])
        np.testing.assert_allclose(drawn[label].get_ydata(), found[name].median("seed"))
    assert above.patches
    assert above.get_xlim()[1] == 44


@pytest.mark.parametrize(
    ("kind", "amounts"),
    [
        ("faded", experiments.AMOUNTS["faded"]),
        ("inverted", [0.0, 0.2, 0.4]),
        ("moved", [0.0]),
        ("noisy", [0.0]),
    ],
)
def test_a_prediction_stands_where_the_proposition_makes_one(kind, amounts):
    predicted = lines(figures.untrained(kind, 1).axes[1])["predicted"]
    assert predicted.get_xdata().tolist() == amounts
    assert len(set(predicted.get_ydata().tolist())) == 1
    found = figures.record()["untrained"].sel(kind=kind, step=range(len(amounts)))
    apart = found.recalibrated.median("seed").values - predicted.get_ydata()
    # One test image of 449 more or less, in the median of eight networks.
    assert np.abs(apart).max() < 2 / 449


@pytest.mark.parametrize("domain", ["faded", "moved"])
@pytest.mark.parametrize("batch_size", [4, 20])
def test_each_way_has_its_row(domain, batch_size):
    (ax,) = figures.ways(domain, batch_size).axes
    (found,) = (
        part["fresh"].sel(batch_size=batch_size)
        for part in map(figures.record().get, ("faded", "moved", "small"))
        if domain in part["fresh"].domain and batch_size in part["fresh"].batch_size
    )
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == found.way.values.tolist()[::-1]
    for examples in found.examples.values:
        line = lines(ax)[f"{examples} examples"]
        for value, place in zip(*line.get_data(), strict=True):
            one = found.accuracy.sel(examples=examples, way=names[round(place)], domain=domain)
            assert value == pytest.approx(one.mean())
            assert ax.get_xlim()[0] <= one.min()


@pytest.mark.parametrize("domain", ["unchanged", "faded"])
def test_test_batches_are_drawn_by_their_classes(domain):
    (ax,) = figures.at_test_time(domain).axes
    found = figures.record()["at_test_time"].sel(domain=domain)
    for classes in (1, 2, 5, 10):
        line = lines(ax)[f"{classes} classes" if classes > 1 else "1 class"]
        expected = found.batch.sel(classes=classes).median("seed")
        np.testing.assert_allclose(line.get_ydata(), expected)
    assert set(lines(ax)["old statistics"].get_ydata()) == {found.kept.median().item()}
