"""What batch norm buys is measured as it says: against the training loop, by hand, and where it fails."""

import math

import numpy as np
import pytest
import torch

from bncore.chapters.mechanics.forward import benefits
from bncore.lab import networks, probes, training
from bncore.lab.training import train


def trained(kind, normalization, gain, rate, seed, steps):
    split = benefits.digits(kind, seed)
    model = benefits.network(kind, normalization, gain, seed)
    losses = train(model, split, steps, 64, rate, seed, every=steps).losses
    return losses, probes.test_accuracy(model, split)


@pytest.mark.parametrize("normalization", ["batch", "batch, γ and β fixed"])
def test_a_network_arrives_at_the_first_step_at_which_it_is_there(normalization):
    case = ("ReLU", normalization, 1.0, 0.3, 1)
    found = benefits.arrival(*case, horizon=500)
    step = int(found["loss_score"])
    assert step < 500
    losses, _ = trained(*case, step)
    means = np.convolve(losses, np.ones(benefits.EPOCH) / benefits.EPOCH, "valid")
    assert (means <= benefits.LOSS).tolist() == [False] * (len(means) - 1) + [True]
    step = int(found["accuracy_score"])
    assert trained(*case, step)[1] >= benefits.ACCURACY > trained(*case, step - 10)[1]
    assert found["peak"] < 1


@pytest.mark.parametrize("kind", ["sigmoid", "convolutional"])
def test_a_network_that_does_not_arrive_is_scored_by_what_it_lacks(kind):
    case = (kind, "none", 2**0.5, 0.1, 0)
    found = benefits.arrival(*case, horizon=30)
    losses, accuracy = trained(*case, 30)
    assert found["loss_score"] == 30 * (1 + np.mean(losses[-benefits.EPOCH :]))
    assert found["accuracy_score"] == 30 * (2 - accuracy)


def test_a_network_that_diverges_is_behind_every_other():
    found = benefits.arrival("ReLU", "none", 16.0, 0.1, 0, horizon=60)
    assert found == {
        "loss_score": math.inf, "accuracy_score": math.inf, "rises": 1, "peak": math.inf,
    }  # fmt: skip


def test_rises_and_peaks_are_those_of_epochs():
    means = [3.0, 5.0, 1.0, 2.0, 9.0]
    losses = [4.0, *np.repeat(means, benefits.EPOCH)[1:]]
    found = benefits._steadiness(losses, 3 * benefits.EPOCH)
    first = np.mean(losses[: benefits.EPOCH])
    assert found["rises"] == np.mean([first > 4, first < 5, False])
    assert found["peak"] == 9 / 4


def test_fixed_scales_and_shifts_are_not_learned():
    model = benefits.network("ReLU", "batch, γ and β fixed", 1.0, 0)
    assert [name for name, _ in model.named_parameters() if "norm" in name] == []
    assert isinstance(model.norm5, torch.nn.BatchNorm1d)


def test_the_saturated_share_is_that_of_the_last_hidden_layers_sums():
    found = benefits.saturation("none", 3.0, 1, moments=[20, 40])
    split, model = benefits.digits("sigmoid", 1), networks.mlp(benefits.WIDTHS, "sigmoid", seed=1)
    training.train(model, split, 40, 64, 3.0, 1)
    with torch.no_grad():
        sums = model[: list(dict(model.named_children())).index("activation5")](split.x_train)
    assert found["share"][1] == pytest.approx((sums.abs() > 4).double().mean().item(), abs=1e-4)
    assert found["accuracy"][1] == probes.test_accuracy(model, split)
    assert 0 < found["share"][1] < 1


def test_momentum_and_eps_are_those_that_are_asked_for():
    one, slow, rough = (
        benefits.with_constants(*constants, 0.1, 0, steps=30, batch_size=8)["accuracy"]
        for constants in ((0.1, 1e-5), (1e-3, 1e-5), (0.1, 1e3))
    )
    assert one > slow + 0.1
    assert one > rough + 0.1


def test_a_step_takes_time_with_each_normalisation():
    found = benefits.step_seconds("ReLU", 3)
    assert list(found) == ["none", "batch"]
    assert all(0 < seconds < 10 for seconds in found.values())


def test_gradients_range_over_the_layers_and_over_training():
    """Against the gradients of the same network, trained step by step."""
    case = {"gain": 2**0.5, "learning_rate": 0.3, "seed": 1}
    found = benefits.gradient_range("ReLU", "batch", **case, steps=20, every=10, depth=3)
    lengths = []
    for steps in (0, 10, 20):
        split = benefits.digits("ReLU", 1)
        model = networks.mlp((64, 50, 50, 50, 10), "relu", "batch", gain=2**0.5, seed=1)
        if steps:
            training.train(model, split, steps, 64, 0.3, 1, every=steps)
        model.train().zero_grad()
        torch.nn.functional.cross_entropy(model(split.x_train), split.y_train).backward()
        weights = (model.linear1, model.linear2, model.linear3)
        accumulated = [layer.weight.grad for layer in weights]
        lengths.append([torch.linalg.norm(one).item() for one in accumulated])
    decades = np.log10(lengths)
    across = decades[:, 0] - decades[:, -1]
    assert found["least"] == pytest.approx(across.min(), abs=1e-3)
    assert found["most"] == pytest.approx(across.max(), abs=1e-3)
    assert found["grown"] == pytest.approx((decades - decades[0]).max(), abs=1e-3)


def test_gradients_that_are_not_finite_range_without_end():
    found = benefits.gradient_range("ReLU", "none", 16.0, 10.0, 0, steps=20)
    assert (found["grown"], found["least"], found["most"]) == (math.inf, -math.inf, math.inf)
