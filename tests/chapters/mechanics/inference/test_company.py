"""One example in the company of others."""

import numpy as np
import pytest
import torch

from bncore.chapters.mechanics.inference import company, faults
from bncore.lab import data
from bncore.lab.inference import predictions

SIZES = [4, 64, 512]


@pytest.fixture(scope="module")
def trained():
    split = data.digits()
    return faults.trained(split, 0, steps=100), split.x_test[:120], split.y_test[:120]


def test_one_batch_of_all_gives_one_answer_and_small_ones_several(trained):
    model, x, _ = trained
    assert (company.answers(model, x, len(x), rounds=3) == predictions(model, x, "batch")).all()
    found = company.answers(model, x, 4, rounds=5)
    assert found.shape == (5, len(x))
    assert (found != found[0]).any(0).double().mean() > 1 / 3


def test_the_undecided_is_right_at_inference_and_nearest_to_half_of_its_batches(trained):
    model, x, y = trained
    chosen = company.undecided(model, x, y)
    right = (company.answers(model, x, 8) == y).double().mean(0)
    at_inference = predictions(model, x) == y
    assert at_inference[chosen]
    distance = (right - 0.5).abs()
    assert distance[chosen] == distance[at_inference & (right != 1)].min()


@pytest.mark.parametrize("index", [0, 7, 119])
def test_shares_are_of_the_answers_in_random_company(trained, index):
    model, x, _ = trained
    found = company.shares(model, x, index, 4, draws=25)
    assert found.shape == (10,)
    np.testing.assert_allclose(25 * found, np.round(25 * found), rtol=0, atol=1e-9)
    assert abs(found.sum() - 1) < 1e-12
    alone = company.shares(model, x, index, len(x), draws=3)
    assert alone[predictions(model, x, "batch")[index]] == 1


@pytest.mark.parametrize("law", ["normal", "exponential"])
@pytest.mark.parametrize("distance", [-0.5, 0, 1, 2])
def test_the_spread_is_as_predicted_in_large_batches_and_bounded_in_all(law, distance):
    values = 5 + 3 * getattr(np.random.default_rng(0), f"standard_{law}")(20_000)
    found = company.in_batches(values, distance, SIZES, draws=2000)
    standard = (values - values.mean()) / values.std()
    assert found.value == standard[np.abs(standard - distance).argmin()]
    # Deviations of 2000 draws are right to 1.6 %; the next order is 1 / m. Four standard errors.
    assert abs(found.measured[-1] / found.predicted[-1] - 1) < 0.08
    scaled = np.array(found.predicted) * np.sqrt(SIZES)
    np.testing.assert_allclose(scaled, scaled[0], rtol=1e-12)
    for m in SIZES:
        assert np.abs(found.outputs[m]).max() <= np.sqrt(m - 1)


def test_the_example_is_in_its_batch():
    found = company.in_batches(np.arange(10.0), 1.0, [2], draws=50)
    assert set(np.abs(found.outputs[2]).round(3)) <= {0.0, 1.0}
    assert torch.tensor(found.outputs[2]).std() > 0
