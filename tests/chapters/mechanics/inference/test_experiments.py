"""Training with other statistics than the batch's, and inputs that change."""

import numpy as np
import pytest
import torch

from bncore.chapters.mechanics.inference import experiments
from bncore.lab import data, networks, training
from bncore.lab.inference import accuracy


def test_a_batch_of_the_whole_training_set_has_its_statistics():
    size = len(data.digits().x_train)
    found = [
        experiments.trained_with(statistics, size, 0.3, 0, moments=[2, 10])
        for statistics in ("batch", "whole training set")
    ]
    # The rows come in another order, so that sums round differently: some images of 449.
    for name in ("kept", "exact"):
        assert found[0][name].shape == (2,)
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=0, atol=4 / 449)
    assert found[0]["last"] == found[0]["kept"][-1]


def test_statistics_make_a_difference_with_small_batches():
    found = [
        experiments.trained_with(statistics, 4, 0.1, 0, moments=[30])["last"]
        for statistics in experiments.STATISTICS
    ]
    assert len(set(found)) == 3


@pytest.mark.parametrize("kind", experiments.INPUTS[1:])
@pytest.mark.parametrize("seed", range(3))
def test_made_inputs_have_mean_0_variance_1_and_three_classes(kind, seed):
    split = experiments.inputs(kind, seed)
    x = torch.cat([split.x_train, split.x_test]).double().numpy()
    # 50 000 values: five standard errors; the variance of an exponential's square is 8.
    assert abs(x.mean()) < 5 / 50_000**0.5
    assert abs(x.var() - 1) < 5 * (8 / 50_000) ** 0.5
    assert abs((x**3).mean() - {"normal": 0, "skewed": 2}[kind]) < 0.5
    assert split.y_train.bincount(minlength=3).min() > 75


def test_inputs_change_by_contrast_by_brightness_and_by_noise():
    x = torch.linspace(-1, 1, 10_000)
    found = {name: experiments.changed(x, name, 0.5, seed=0) for name in experiments.CHANGES}
    torch.testing.assert_close(found["contrast"], 0.3 * x)
    torch.testing.assert_close(found["brightness"], x + 0.5)
    noise = (found["noise"] - x) / 0.5
    assert abs(noise.mean()) < 0.05 > abs(noise.std() - 1)


def test_what_a_change_costs_is_the_accuracy_that_is_lost():
    found = experiments.under_changes("skewed", "batch", 0.1, 0, steps=60)
    assert found["lost"].shape == found["moved"].shape == (len(experiments.CHANGES),)
    assert 0.5 < found["accuracy"] <= 1
    assert (found["accuracy"] - found["lost"] >= 0).all()
    assert found["lost"][-1] > 0.05, "noise costs"
    assert (found["moved"] > 0.1).all()


def test_batch_renorm_is_batch_norm_at_first_and_inference_later():
    """Its averages are those of batch norm; beyond its limits it is neither."""
    generator = torch.Generator().manual_seed(0)
    layer, plain = experiments.renorm(3), torch.nn.BatchNorm1d(3)
    for step in range(320):
        x = 4 + 3 * torch.randn(64, 3, generator=generator)
        at_inference = layer.eval()(x)
        y, of_batch = layer.train()(x), plain(x)
        if step < 100:
            torch.testing.assert_close(y, of_batch)
    torch.testing.assert_close(layer.running_mean, plain.running_mean)
    torch.testing.assert_close(layer.running_var, plain.running_var)
    torch.testing.assert_close(y, at_inference, rtol=0, atol=1e-4)
    far = 100 + 0.1 * x
    expected = (far - far.mean(0)) / far.std(0, correction=0) / 3 + 5
    torch.testing.assert_close(layer(far), expected, rtol=0, atol=1e-3)


def test_batch_renorm_brings_training_and_inference_together():
    found = {
        name: experiments.mismatch(name, 16, 0.1, 0, steps=320)["mismatch"]
        for name in ("batch", "renorm")
    }
    assert found["renorm"] < 0.05 < 0.1 < found["batch"]


def test_a_digit_alone_keeps_nothing_in_a_fully_connected_network():
    """All outputs are the same there; in a convolutional one it is instance norm."""
    found = experiments.alone("fully connected", 0.3, 0, steps=60)
    shares = torch.bincount(data.digits().y_test, minlength=10) / len(data.digits().y_test)
    assert (shares - found["own"]).abs().min() < 1e-6
    assert found["kept"] > 0.8
    layer = torch.nn.BatchNorm2d(3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, -1.0, 2.0]))
        layer.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.instance_norm(x, weight=layer.weight, bias=layer.bias)
    torch.testing.assert_close(experiments._by_itself(layer, x), expected)


def test_what_company_gains_is_the_accuracy_with_its_statistics():
    found = experiments.in_company("digits", 0.1, 1, steps=30, sizes=[8, 449])
    split = data.digits(1)
    model = networks.mlp((64, 64, 64, 10), "relu", "batch", gain=2**0.5, seed=1)
    training.train(model, split, 30, 32, 0.1, 1)
    assert found["gain"].shape == (2, 2)
    for contrast, gains in zip((1, 0.3), found["gain"], strict=True):
        x, y = contrast * split.x_test, split.y_test
        for size, gain in zip((8, 449), gains, strict=True):
            assert gain == accuracy(model, x, y, "batch", size) - accuracy(model, x, y)
