"""The figures of the chapter on diagnosis show what they are given."""

import numpy as np
import pytest
import xarray as xr

from bncore.chapters.practice.diagnosis import experiments, figures, sick

NAMES = list(sick.MISTAKES)
PARTS = (("found", 0.03), ("unlabelled", 0.12))
STEPS = np.arange(0, sick.STEPS + 1, sick.EVERY)


@pytest.fixture
def patients():
    rng = np.random.default_rng(0)
    dims = ["patient", "seed", "course"]
    loss = rng.random((10, 5, 2, 10)) + 0.01
    accuracy = rng.random((10, 5, 2, len(STEPS)))
    return xr.Dataset(
        {"loss": ((*dims, "piece"), loss), "accuracy": ((*dims, "steps"), accuracy)},
        {"patient": NAMES, "course": ["sick", "twin"], "steps": STEPS},
    )


@pytest.mark.parametrize("letter", "AJ")
def test_curves_are_medians_over_the_seeds(patients, letter):
    above, below = figures.curves(patients, letter).axes
    rows = patients.sel(patient=figures.LETTERS[letter])
    for ax, name in ((above, "loss"), (below, "accuracy")):
        for line, course in zip(ax.lines, ("sick", "twin"), strict=True):
            middle = rows[name].sel(course=course).median("seed")
            np.testing.assert_allclose(line.get_ydata(), middle, rtol=1e-12)
    np.testing.assert_array_equal(below.lines[0].get_xdata(), STEPS)
    # A loss stands in the middle of the steps that it is the mean of.
    np.testing.assert_allclose(above.lines[0].get_xdata(), 20 * np.arange(10) + 10)
    words = [text.get_text() for text in above.get_legend().get_texts()]
    assert words == ["patient", "healthy twin"]


def test_letters_name_all_patients_and_give_none_away():
    assert list(figures.LETTERS.values()) == NAMES
    assert all(len(letter) == 1 for letter in figures.LETTERS)


def test_shares_are_drawn_over_the_classes_of_costs():
    cost = np.linspace(0, 0.3, 40).reshape(2, 20)
    rows = xr.Dataset(
        {name: (("fault", "seed"), (cost > low).astype(float)) for name, low in PARTS}
        | {"cost": (("fault", "seed"), cost)}
    )
    ax = figures.graded(rows).axes[0]
    for container, (_, low) in zip(ax.containers, PARTS, strict=True):
        expected = [
            one.count / one.of for one in experiments.by_cost(cost.ravel() > low, cost.ravel())
        ]
        np.testing.assert_allclose(container.lines[0].get_ydata(), expected)
    names = [text.get_text() for text in ax.get_xticklabels()]
    assert [name.split("\n")[0] for name in names] == ["< 1", "1–2", "2–5", "5–10", "10–20", "> 20"]
    assert sum(int(name.split("\n")[1]) for name in names) == 40


def test_a_disc_has_the_area_of_its_share():
    shares = {"one": [1.0, 0.25] + 8 * [0.0], "the-other": 10 * [1.0]}
    ax = figures.found(shares).axes[0]
    rings = [line for line in ax.lines if line.get_markerfacecolor() == "none"]
    discs = [line for line in ax.lines if line.get_markerfacecolor() != "none"]
    assert (len(rings), len(discs)) == (20, 12)
    sizes = {
        (line.get_xdata()[0], line.get_ydata()[0]): line.get_markersize()
        / rings[0].get_markersize()
        for line in discs
    }
    assert sizes[0, 0] == pytest.approx(1)
    assert sizes[0, 1] ** 2 == pytest.approx(0.25)
    assert (0, 2) not in sizes
    assert [text.get_text() for text in ax.get_xticklabels()] == ["one", "the-\nother"]
    rows = [text.get_text() for text in ax.get_yticklabels()]
    assert rows[0] == f"{sick.MISTAKES[NAMES[0]].words}  A"


@pytest.mark.parametrize("momentum", [0.3, 0.03, 0.001])
def test_running_statistics_leave_their_beginning_as_predicted(momentum):
    """But for what sampling explains, 3 / 2m of a / (2 - a)."""
    [ax] = figures.beginning(momentum).axes
    measured, predicted = (line.get_ydata() for line in ax.lines[:2])
    noise = (3 / 64 * momentum / (2 - momentum)) ** 0.5
    assert np.median(np.abs(measured - predicted)) < 2 * noise
    assert predicted[0] == pytest.approx(
        np.hypot(1.5 * (1 - momentum), np.log(4 / (1 + 3 * momentum)) / 2)
    )
    assert ax.lines[2].get_ydata()[0] == 0.5
