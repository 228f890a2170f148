"""One run of each study of the chapter on smoothness."""

import numpy as np
import pytest

from bncore.chapters.explanations.smoothness import experiments, records, runs, spectra
from bncore.explanations import landscape, spectrum
from bncore.lab import data, studies, training

SINGLE = float(np.finfo(np.float32).eps)


def taught(steps, seed=4, rate=0.1):
    split, model = data.digits(seed), experiments.network("batch norm", 2, seed)
    if steps:
        training.train(model, split, steps, 64, rate, seed)
    return model, split.x_train[:256], split.y_train[:256]


def test_a_walk_is_one_in_the_network_whose_losses_are_recorded():
    found = runs.walk_run("batch norm", 2, 0.1, 4, steps=4, every=2)
    along = landscape.along_gradient(*taught(4), experiments.RATES)
    assert found["absolute"].shape == (3,)
    assert found["absolute"][-1] == pytest.approx(along.smoothness, rel=1e4 * SINGLE, abs=0)
    assert found["loss"][-1] == pytest.approx(along.loss, rel=64 * SINGLE, abs=0)
    losses = np.append(along.losses, along.loss)
    assert found["range"][-1] == pytest.approx(np.ptp(losses), rel=1e3 * SINGLE, abs=0)


@pytest.mark.parametrize("steps", [0, 3])
def test_spectra_are_those_of_the_networks_that_were_trained(steps):
    case = taught(steps)
    found = runs.ends_run("batch norm", 2, 0.1, 4, steps=steps)
    expected = spectra.ends(*case)
    assert found["largest"] == pytest.approx(expected.largest, rel=1e-3, abs=0)
    assert found["along"] == pytest.approx(expected.along, rel=1e-3, abs=0)
    density = runs.density_run("batch norm", 2, 0.1, 4, steps=steps, lanczos=[12, 3])
    ours = spectrum.lanczos(spectrum.hessian_operator(*case), 12, 3, seed=4)
    # Lanczos' method in float32 repeats few digits.
    np.testing.assert_allclose(density["nodes"], ours.nodes, rtol=0.01, atol=1e-3)
    np.testing.assert_allclose(density["weights"], ours.weights, rtol=0.01, atol=1e-3)


def test_starts_are_the_first_records_of_the_walks():
    kept = records.ratios(10, "absolute").sel(record=0, seed=[3, 4])
    found = runs.starts(10, range(3, 5))
    # The record keeps three digits of each smoothness.
    np.testing.assert_allclose(found, np.log(kept), rtol=0, atol=0.011)
    assert found.seed.values.tolist() == [3, 4]


def test_ten_layers_start_rougher_with_batch_norm_on_other_seeds_as_the_chapter_says():
    start = runs.starts(10, range(20, 50))
    found = studies.difference(start, 0 * start, looked_at=76)
    rougher = [round(np.exp(-end), 1) for end in (found.high, found.mean, found.low)]
    assert rougher == [1.2, 1.6, 2.2]
    assert (start < 0).sum() == 24
