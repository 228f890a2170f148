"""The recorded runs of the halfspaces chapter."""

import numpy as np
import pytest
from again import assert_run_again

from bncore.chapters.convergence.halfspaces import acceleration, full_size
from bncore.lab import studies


def test_the_record_is_of_this_configuration(record):
    c = full_size.CONFIGURATION
    assert record["configuration"] == c
    assert list(record["full"]) == list(c["data"])
    for accuracy, found in record["full"].items():
        for name, seeds in (("tuning", c["seeds"]), ("fresh", c["fresh_seeds"])):
            assert found[name].data.values.tolist() == c["data"][accuracy]
            assert found[name].method.values.tolist() == c["methods"]
            assert found[name].loss.values.tolist() == c["losses"]
            assert found[name].seed.values.tolist() == seeds


def test_a_part_of_the_record_can_be_run_again(record):
    """An iteration at the edge may count or not."""
    found = full_size.run(full_size.REDUCED)
    assert_run_again(found, record["reduced"], atol={"iterations": 1})


def test_every_method_that_arrives_has_its_best_step_inside_its_grid(record):
    for found in record["full"].values():
        chosen = studies.best(found["tuning"], "iterations", smaller=True, over="step")
        arrives = chosen.iterations.notnull().all("seed")
        assert not (chosen.at_an_end & arrives).any()
        assert found["fresh"].step.equals(chosen.step)


def test_the_chapter_says_at_which_steps_descent_arrives_on_breast_cancer(record):
    found = record["full"]["0.01"]["tuning"].iterations.isel(accuracy=0)
    found = found.sel({"method": "gradient descent", "data": "breast cancer", "loss": "softplus"})
    for arrives in (found.notnull().all("seed"), found.notnull().any("seed")):
        steps = found.step.values[arrives]
        assert steps.round().tolist()[:: len(steps) - 1] == [46, 132]
        assert arrives.sel(step=slice(steps[0], steps[-1])).all()


def test_with_skewed_features_and_huber_one_run_of_gdnp_gets_stuck_and_none_of_descent(record):
    for found in record["full"].values():
        lost = found["fresh"].iterations.sel(data="skewed", loss="huber").isnull().sum(["seed"])
        assert lost.sel({"method": "GDNP"}).item() == 1
        assert lost.sel({"method": "gradient descent"}).item() == 0
    assert found["fresh"].sizes["seed"] == 10


def test_gdnp_spends_more_time_than_descent_in_all_cases_but_one(record):
    ratios = []
    for found in record["full"].values():
        fresh = found["fresh"].drop_sel(data="Gaussian").isel(accuracy=0)
        time = (fresh.iterations * fresh.seconds).median("seed")
        ratio = time.sel({"method": "GDNP"}) / time.sel({"method": "gradient descent"})
        ratios.extend(ratio.values.ravel())
    assert len(ratios) == 18
    assert sorted(ratios)[0] < 1 < sorted(ratios)[1]


@pytest.mark.parametrize("loss", acceleration.LOSSES)
@pytest.mark.parametrize("method", ["GDNP", "gradient descent"])
def test_breast_cancer_is_not_solved_to_a_ten_thousandth(record, method, loss):
    case = {"method": method, "data": "breast cancer", "loss": loss, "accuracy": 0.01}
    step = record["full"]["0.01"]["fresh"].step.sel(case).item()
    found = acceleration.run(method, "breast cancer", loss, 1e-4, step, 3)
    assert np.isnan(found["iterations"])


def test_a_comparison_is_that_of_geometric_means(record):
    fresh = record["full"]["0.01"]["fresh"]
    found = acceleration.against(fresh, "iris", "huber", "Nesterov")
    counts = [
        fresh.iterations.sel({"method": method, "data": "iris", "loss": "huber"}).values.ravel()
        for method in ("GDNP", "Nesterov")
    ]
    assert found.mean == pytest.approx(np.log(counts[0] / counts[1]).mean(), rel=1e-12)
    compared = sum(len(data) for data in full_size.CONFIGURATION["data"].values())
    assert compared * 2 * 2 == acceleration.COMPARED


def test_the_largest_lead_is_that_of_the_seeds_that_chose_the_steps(record):
    tuning = record["full"]["0.0001"]["tuning"]
    data, loss = acceleration.largest_lead(tuning)
    assert data != "Gaussian"
    least = tuning.iterations.median("seed").min("step").isel(accuracy=0)
    leads = least.sel({"method": "GDNP"}) / least.sel({"method": "gradient descent"})
    assert leads.sel(data=data, loss=loss) == leads.drop_sel(data="Gaussian").min()
