"""What is trained at every learning rate: each arm's weights, rates and start."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from bncore.chapters.explanations.scale_invariance import experiments, rates
from bncore.lab import data, probes, training

SINGLE = float(np.finfo(np.float32).eps)
SMALL = {"moments": [2, 4], "every": 2, "widths": [64, 8, 10]}


@pytest.fixture
def made(monkeypatch):
    """The networks that are trained, in their order."""
    seen, train = [], training.train

    def keep(model, *arguments, **options):
        seen.append(model)
        return train(model, *arguments, **options)

    monkeypatch.setattr(training, "train", keep)
    return seen


def start(name, **of):
    """A network of an arm before it trains, of seed 0."""
    make, split_of = rates.task(**of)
    return rates.network(rates.ARMS[name], make, 0, split_of(0).x_train[:64])


def test_hidden_weights_stay_where_their_rate_is_zero(made):
    arm = "batch norm, hidden rate"
    rates.trained(arm, 0.0, 0, **SMALL)
    before = start(arm, widths=SMALL["widths"])
    assert torch.equal(made[0].linear1.weight, before.linear1.weight)
    assert not torch.equal(made[0].output.weight, before.output.weight)


def test_a_rate_of_the_hidden_weights_is_one_of_kernels_too(small_images, made):
    of = {"source": "cifar10", "vgg": {"depth": 11, "width": 2, "hidden": [4]}}
    rates.trained("batch norm, hidden rate", 0.0, 0, moments=[2], every=2, batch=8, **of)
    before = dict(start("batch norm, hidden rate", **of).named_parameters())
    for name, value in made[0].named_parameters():
        still = torch.equal(value, before[name])
        assert still == (value.ndim > 1 and name != "output.weight"), name


def test_all_parameters_have_the_rate_unless_an_arm_says_otherwise(made):
    rates.trained("batch norm", 0.0, 0, **SMALL)
    before = dict(start("batch norm", widths=SMALL["widths"]).named_parameters())
    for name, value in made[0].named_parameters():
        assert torch.equal(value, before[name]), name


def test_what_is_measured_is_the_trained_network_on_all_images(made):
    found = rates.trained("no batch norm", 0.1, 3, **SMALL)
    split = data.digits(3)
    with torch.no_grad():
        loss = cross_entropy(made[0](split.x_train), split.y_train).item()
    assert found["loss"][-1] == pytest.approx(loss, rel=64 * SINGLE)
    assert found["accuracy"][-1] == probes.test_accuracy(made[0], split)
    assert np.isnan(found["to 0.01"])


def test_the_steps_to_a_loss_are_the_first_at_which_it_is_measured_below():
    found = rates.trained("batch norm", 0.3, 0, moments=[100, 300], every=5)
    steps = int(found["to 0.1"])
    assert 0 < steps < found["to 0.01"] <= 300
    before, at = rates.trained("batch norm", 0.3, 0, moments=[steps - 5, steps], every=5)["loss"]
    assert at < 0.1 <= before


def test_a_loss_is_infinite_once_training_has_diverged():
    found = rates.trained("no batch norm", 1e30, 0, **SMALL)
    assert found["loss"].tolist() == [np.inf, np.inf]


@pytest.mark.parametrize("name", rates.ARMS)
def test_weights_are_hes_unless_an_arm_says_otherwise(name):
    model, torchs = start(name), "torch" in name
    assert (rates.ARMS[name].gain is None) == torchs
    if "normalised start" in name:
        return
    scale = {"linear1": 64, "linear2": 64, "output": 64}
    for layer, inputs in scale.items():
        variance = getattr(model, layer).weight.var(correction=0).item() * inputs
        # The variance of at least 640 draws is known to some 6 %; torch's is 1/3.
        assert variance == pytest.approx(1 / 3 if torchs else 2, rel=0.25)


@pytest.mark.parametrize("name", ["weight norm", "no batch norm"])
def test_a_normalised_start_is_normalised(name):
    """Hidden units have mean 0 and variance 1 over the first 64 images, and only then."""
    x = data.digits(0).x_train[:64]

    def values(name):
        model, inputs = start(name), x
        for i in (1, 2):
            found = getattr(model, f"linear{i}")(inputs).detach()
            yield found
            inputs = found.relu()

    rounding = {"rtol": 0, "atol": 64 * SINGLE}  # means over 64 images
    for found in values(f"{name}, normalised start"):
        torch.testing.assert_close(found.mean(0), torch.zeros(64), **rounding)
        torch.testing.assert_close(found.std(0, correction=0), torch.ones(64), **rounding)
    assert (next(values(name)).std(0, correction=0) - 1).abs().max() > 0.1


@pytest.mark.parametrize("end", ["", ", normalised start"])
def test_weight_normalisation_starts_as_the_network_without_it(end):
    x = data.digits(0).x_train
    split, plain = (start(f"{name}{end}")(x) for name in ("weight norm", "no batch norm"))
    # Sums of 64 terms, three layers.
    torch.testing.assert_close(
        split, plain, rtol=0, atol=3 * 64 * SINGLE * plain.abs().max().item()
    )


@pytest.mark.parametrize("longer", [0.1, 1.0, 30.0])
def test_division_by_the_deviation_sees_no_length_and_keeps_the_mean(longer):
    """Of batches far from 0, and with any scale and shift."""
    layer = rates.ByDeviation(5, eps=1e-12).double()
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, gamma, beta = rng.normal(3, 2, size=(16, 5)), rng.normal(size=5), rng.normal(size=5)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(gamma))
            layer.bias.copy_(torch.tensor(beta))
            found = layer(torch.tensor(longer * x)).numpy()
        # The epsilon of 1e-12 is beside a variance of 0.01 at least.
        np.testing.assert_allclose(found, gamma * x / x.std(axis=0) + beta, rtol=0, atol=1e-8)


def test_only_with_batch_norm_do_longer_weights_have_smaller_gradients():
    """One step at a large rate of the hidden weights lengthens them in both networks."""
    for seed in (20, 21):
        normalised = rates.grown("batch norm, hidden rate", 10.0, seed)
        plain = rates.grown("no batch norm, hidden rate", 10.0, seed)
        assert min(normalised["weights"], plain["weights"]) > 1.1
        assert normalised["gradient"] < 1 < plain["gradient"]


def test_what_grows_is_over_what_was_before():
    found = rates.grown("batch norm", 1e-12, 0)
    assert found["weights"] == pytest.approx(1, abs=64 * SINGLE)
    assert found["gradient"] == pytest.approx(1, abs=64 * 64 * SINGLE)


def test_longer_weights_turn_as_at_a_rate_over_the_square_of_their_length():
    """The hidden weights of descent, while the rest is still: a power of two rounds nothing."""

    def descent(parameters, lr):
        return torch.optim.SGD([p for p in parameters if p.ndim > 1 and len(p) == 64], lr)

    for rate, seed in ((0.1, 0), (0.5, 1)):
        short = rates.turned(descent, rate, 1.0, seed, 3)
        # Epsilon is 1e-5, beside variances of some 0.1 or more, but for a few units.
        assert rates.turned(descent, 16 * rate, 4.0, seed, 3) == pytest.approx(short, rel=0.01)
        assert rates.turned(descent, 1e-9, 4.0, seed, 3) < 1e-6 < short


def test_effective_rates_are_those_of_the_hidden_units():
    found = rates.felt(0.5, 0, steps=3, at=[0, 3], widths=[64, 8, 10])["felt"]
    run = experiments.decayed_on_digits(
        0.5, 0.0, 0, 3, make=experiments.perceptron([64, 8, 10]), split=data.digits(0)
    )
    np.testing.assert_array_equal(found, np.median(0.5 / run.length**2, axis=1)[[0, 3]])


def test_an_image_must_fit_the_first_layer():
    with pytest.raises(ValueError, match=r"widths\[0\] is 63, expected 64, the pixels of an image"):
        rates.task(widths=[63, 10])
