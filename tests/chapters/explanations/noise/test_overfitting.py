"""Arms mean what their names say, and are compared at their own best rates and strengths."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch.nn.functional import cross_entropy

from bncore.chapters.explanations.noise import experiments, overfitting
from bncore.explanations import ghost_batches
from bncore.lab import networks, probes, studies, training

KINDS = {
    "ghost": ghost_batches.GhostBatchNorm,
    "borrowed": ghost_batches.BorrowedStatistics,
    "injected": ghost_batches.InjectedNoise,
}


def test_the_loss_of_the_first_examples():
    scores, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    found = overfitting.first_examples(scores, labels, 2)
    torch.testing.assert_close(found, cross_entropy(scores[:2], labels[:2]))


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_noise_by_name(kind):
    of = overfitting.arm(f"{kind} 16", 128)
    assert type(of.normalization(3)) is KINDS[kind]
    assert of.normalization(3).size == 16
    assert (of.batch, of.counted, of.loss, of.drop, of.decay) == (128, None, None, 0, 0)


def test_other_arms_by_name():
    assert overfitting.arm("no batch norm", 128) == (None, 128, None, 0, 0)
    assert overfitting.arm("whole batch, dropout 0.4", 64) == ("batch", 64, None, 0.4, 0)
    assert overfitting.arm("no batch norm, L2 0.01", 64) == (None, 64, None, 0, 0.01)
    assert overfitting.arm("batch of 16", 128) == ("batch", 16, None, 0, 0)
    of = overfitting.arm("gradients of 2", 128)
    scores, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    assert of.batch == 128
    assert of.loss(scores, labels) == cross_entropy(scores[:2], labels[:2])
    with pytest.raises(ValueError, match="name is 'layer norm', expected"):
        overfitting.arm("layer norm", 128)


def test_every_network_that_is_looked_at_has_a_label():
    assert set(overfitting.KINDS) < set(overfitting.LABELS)
    assert overfitting.BASE in overfitting.LABELS


def test_an_outcome_is_that_of_training():
    found = overfitting.outcome(0.3, "whole batch, L2 0.03", 0.2, 4, moments=[0, 6, 9], batch=32)
    split = experiments.digits(4, 0.3)
    model = networks.mlp(experiments.WIDTHS, "relu", "batch", gain=2**0.5, seed=4)
    before = probes.loss("test")(model, split)

    def descent(parameters, lr):
        return torch.optim.SGD(parameters, lr, weight_decay=0.03)

    training.train(model, split, 9, 32, 0.2, 4, optimizer=descent)
    assert found["test loss"][0] == before
    assert found["last"] == found["accuracy"][2] == probes.test_accuracy(model, split)
    assert found["training loss"][2] == probes.loss("train")(model, split)
    seen = (model.eval()(split.x_train).argmax(1) == split.y_train).double().mean()
    assert found["by heart"] == seen


def test_dropout_and_noise_change_the_outcome():
    last = {
        name: overfitting.outcome(0.3, name, 0.3, 4, moments=[0, 9], batch=32)["test loss"]
        for name in ("whole batch", "whole batch, dropout 0.5", "ghost 8", "gradients of 8")
    }
    assert len({values[0] for values in last.values()}) == 1
    assert len({values[1] for values in last.values()}) == 4


def test_families_and_strengths():
    name = "whole batch, dropout 0.4"
    assert overfitting.family(name) == "whole batch, dropout"
    assert overfitting.strength(name) == 0.4
    assert overfitting.family("ghost 8") == "ghost 8"
    assert overfitting.strength("ghost 8") == 0
    scores = {
        "a": [0.5, 0.5],
        "a, L2 0.1": [0.6, 0.7],
        "a, L2 0.2": [0.7, 0.8],
        "a, L2 0.3": [0.7, 0.8],
    }
    best = xr.Dataset(
        {"last": (("network", "seed"), list(scores.values()))},
        coords={"network": list(scores), "seed": [0, 1]},
    )
    assert overfitting.strongest(best) == ["a", "a, L2 0.2"]


def test_the_study_confirms_what_was_chosen(tmp_path):
    c = {
        "pixel_noise": [0.0, 0.3],
        "networks": ["whole batch", "no batch norm, L2 0.001", "no batch norm, L2 0.1"],
        "learning_rates": [0.03, 0.1, 0.3],
        "seeds": [0],
        "fresh_seeds": [5, 6],
        "moments": [0, 10, 20],
        "batch": 64,
    }
    found = overfitting.compared(c, store=tmp_path, extensions=0)
    fresh = found["fresh"]
    assert fresh.network.values.tolist() == ["whole batch", "no batch norm, L2"]
    best = studies.best(found["tuning"], "last", smaller=False)
    for level in c["pixel_noise"]:
        at = best.sel(pixel_noise=level)
        for name in overfitting.strongest(at):
            family, strength = overfitting.family(name), overfitting.strength(name)
            one = fresh.sel(pixel_noise=level, network=family)
            assert one.strength == strength
            assert one.learning_rate == at.learning_rate.sel(network=name)
            expected = overfitting.outcome(
                level, name, one.learning_rate.item(), 6, moments=c["moments"], batch=64
            )
            assert abs(one["last"].sel(seed=6) - expected["last"]) <= 2 / 1348
            np.testing.assert_allclose(one["test loss"].sel(seed=6), expected["test loss"], 1e-4)
    assert len(list(tmp_path.glob("*.outcomes-*/*.pickle"))) == 4


@pytest.mark.parametrize(
    "name",
    [
        "no batch norm, L2 0.01",
        "whole batch",
        "ghost 8",
        "borrowed 16",
        "batch of 16",
        "gradients of 16",
    ],
)
def test_networks_side_by_side_are_what_they_are_alone(name):
    """To rounding, which few steps amplify little."""
    options = {"moments": [0, 3, 6], "batch": 32}
    found = overfitting.outcomes(0.3, name, 0.1, seeds=[5, 6], **options)
    for i, seed in enumerate((5, 6)):
        alone = overfitting.outcome(0.3, name, 0.1, seed, **options)
        assert alone.keys() == found.keys()
        for measure in ("test loss", "training loss"):
            np.testing.assert_allclose(found[measure][i], alone[measure], rtol=1e-5)
        np.testing.assert_allclose(found["accuracy"][i], alone["accuracy"], atol=2 / 1348)
        assert found["last"][i] == found["accuracy"][i, -1]
        assert abs(found["by heart"][i] - alone["by heart"]) <= 1 / 449


@pytest.mark.parametrize("name", ["whole batch, dropout 0.5", "injected 8"])
def test_networks_side_by_side_draw_noise_of_their_own(name):
    """The same weights, data and order for two networks: what differs is the noise."""
    options = {"moments": [0, 3], "batch": 32}
    loss = overfitting.outcomes(0.3, name, 0.1, seeds=[5, 5], **options)["test loss"]
    assert loss[0, 0] == loss[1, 0]
    assert loss[0, 1] != loss[1, 1]
    quiet = overfitting.outcomes(0.3, "whole batch", 0.1, seeds=[5, 5], **options)["test loss"]
    np.testing.assert_allclose(quiet[0], quiet[1], rtol=1e-5)
    assert abs(loss[:, 1] - quiet[:, 1]).max() > 1e-3


def test_gains_are_differences_by_seed():
    rng = np.random.default_rng(0)
    names = ["whole batch", "a", "b"]
    last = xr.DataArray(
        rng.uniform(size=(1, 3, 12)),
        coords={"pixel_noise": [0.3], "network": names, "seed": range(12)},
        dims=("pixel_noise", "network", "seed"),
    )
    found, (whole, a, b) = xr.Dataset({"last": last}), 100 * last.values[0]
    rounding = 100 * 16 * np.finfo(float).eps
    assert overfitting.gained(found, 0.3, "a").median == pytest.approx(
        np.median(a - whole), abs=rounding
    )
    one = overfitting.gained(found, 0.3, ["a", "b"])
    assert one.median == pytest.approx(np.median((a + b) / 2 - whole), abs=rounding)
    two = overfitting.gained(found, 0.3, "a", "b", less=("whole batch", "a"))
    assert two.median == pytest.approx(np.median(a - b - whole + a), abs=rounding)
    apart = xr.DataArray((a + b) / 2 - whole, [("seed", range(12))])
    expected = studies.median_difference(apart, 0 * apart, looked_at=overfitting.LOOKED_AT)
    assert one.low == pytest.approx(expected.low, abs=rounding)
