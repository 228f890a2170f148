"""The experiments of the chapter on noise, against formulas, other libraries and the record."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.nn.functional import cross_entropy

from bncore.chapters.explanations.noise import experiments
from bncore.explanations import variance_shift
from bncore.explanations.noise import GaussianOutput
from bncore.lab import inference, networks, probes

EPS, SINGLE = (float(np.finfo(kind).eps) for kind in (np.float64, np.float32))


@pytest.mark.parametrize(("z", "m"), [(0, 4), (1, 16), (3, 8)])
def test_companies_follow_the_exact_distribution(z, m):
    assert stats.kstest(experiments.companies(z, m), GaussianOutput(z, m).cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", list(experiments.populations()))
def test_measured_scatter_is_the_exact_one(name):
    sizes = [2, 8, 64, 128]
    measured, exact = experiments.batch_statistics(experiments.populations()[name], sizes)
    for way, values in measured.items():
        expected = exact[way][:, np.array(sizes) - sizes[0]]
        np.testing.assert_allclose(values, expected, rtol=0.2)


@given(st.floats(0.1, 1), st.floats(-2, 2), st.floats(0, 16))
def test_alike_inputs_have_the_formula_of_the_chapter(keep, mean, pull):
    ones = 1 + pull
    expected = ones / ((1 + (1 - keep) * mean**2) / keep + pull)
    assert experiments.alike(keep, mean, pull) == pytest.approx(expected, rel=16 * EPS, abs=0)


@pytest.mark.parametrize(("mean", "pull"), [(0, 0), (1, 4), (2, 4)])
def test_the_measured_shift_is_the_predicted_one(mean, pull):
    found = experiments.measured_shift(0.4, mean, pull)
    expected = (variance_shift.direct(0.4, mean, 1.0), experiments.alike(0.4, mean, pull))
    np.testing.assert_allclose(found, expected, rtol=0.06)


def test_the_loss_of_the_first_examples():
    scores, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    found = experiments.first_examples(scores, labels, 2)
    torch.testing.assert_close(found, cross_entropy(scores[:2], labels[:2]))


def test_pixel_noise_belongs_to_the_data():
    clean, noisy, again = (experiments.digits(3, level) for level in (0.0, 0.3, 0.3))
    apart = noisy.x_train - clean.x_train
    assert apart.std().item() == pytest.approx(0.3, rel=0.02)
    assert torch.equal(noisy.x_test, again.x_test)
    assert torch.equal(noisy.y_train, clean.y_train)
    assert len(clean.x_train) < 0.26 * (len(clean.x_train) + len(clean.x_test))


def assert_between_pixels(found, expected):
    """To the rounding of where pixels lie, of which there are at most 8 in a row."""
    atol = 8 * SINGLE * 2 * expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def test_digits_turned_by_a_right_angle():
    x = experiments.digits(0).x_test[:5]
    expected = torch.rot90(x.reshape(-1, 8, 8), 1, (1, 2)).reshape(-1, 64)
    assert_between_pixels(experiments.rotated(x, 90), expected)
    assert torch.equal(experiments.rotated(x, 0), x)


def test_images_turned_by_a_right_angle():
    x = torch.randn(4, 3, 6, 6)
    turned = experiments.rotated(x, 90)
    assert_between_pixels(turned, torch.rot90(x, 1, (2, 3)))


@pytest.mark.parametrize(
    ("make", "inside", "last"),
    [
        (experiments.DEEPER_DIGITS.network, ["activation1", "activation2"], "activation3"),
        (
            lambda norm, seed: networks.vgg(11, norm, width=2, hidden=[4], seed=seed),
            [f"activation{i}" for i in range(1, 9)],
            "activation9",
        ),
        (
            lambda norm, seed: networks.residual(1, 4, norm, stages=2, seed=seed),
            ["activation1", "block1.body.activation1", "block2.body.activation1"],
            "flatten",
        ),
    ],
)
@pytest.mark.parametrize("where", ["before batch norms", "after the last one"])
def test_dropout_stands_where_it_should(make, inside, last, where):
    model, plain = make("batch", 3), make("batch", 3)
    experiments.add_dropout(model, 0.4, where)
    names = [name for name, m in model.named_modules() if not isinstance(m, nn.Dropout)]
    assert names == [name for name, _ in plain.named_modules()]
    # The module before each dropout, in the same chain.
    before = [
        f"{path}.{name}".lstrip(".")
        for path, part in model.named_modules()
        if isinstance(part, nn.Sequential)
        for (name, _), after in zip([*part.named_children()], [*part][1:], strict=False)
        if isinstance(after, nn.Dropout)
    ]
    assert before == (inside if where == "before batch norms" else [last])
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.4}
    for name, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_fitting_again_is_without_dropout_and_keeps_the_network():
    model, split = experiments.with_dropout(0.5, "before batch norms", steps=5, seed=0, batch=32)
    before = model.norm2.running_var.clone()
    fitted = experiments.refit(model, split.x_train)
    quiet = nn.Sequential(*(m for m in model if not isinstance(m, nn.Dropout)))
    x = split.x_train
    for layer in list(quiet.train())[:4]:
        x = layer(x)
    rounding = 64 * SINGLE * x.square().max().item()
    torch.testing.assert_close(fitted.norm2.running_var, x.var(0), rtol=0, atol=rounding)
    assert model.dropout1.p == 0.5
    assert torch.equal(model.norm2.running_var, before)


def test_fitting_again_to_many_examples_is_in_batches(monkeypatch):
    model, x = networks.residual(1, 4, seed=1), torch.randn(50, 1, 8, 8)
    monkeypatch.setattr(probes, "PIECE", 20)
    found, expected = experiments.refit(model, x), inference.refitted(model, x, 20)
    whole = inference.refitted(model, x)
    for layer in ("norm1", "block1.body.norm2"):
        ours, theirs, other = (m.get_submodule(layer) for m in (found, expected, whole))
        assert torch.equal(ours.running_var, theirs.running_var)
        assert not torch.equal(ours.running_var, other.running_var)
        torch.testing.assert_close(ours.running_var, other.running_var, rtol=0.1, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("digits", "vgg"), "source is 'digits', expected 'mnist' or 'cifar10'"),
        (("cifar10", "mlp"), "kind is 'mlp', expected 'vgg' or 'residual'"),
    ],
)
def test_networks_that_there_are_not_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        experiments.on_images(*arguments)


def test_paired_differences():
    runs = {"a": np.zeros((4, 2, 3)), "whole batch": np.zeros((4, 2, 3))}
    runs["a"][:, -1, 1] = [1.0, 2.0, 3.0, 4.0]
    mean, error = experiments.paired(runs, "a", "test loss")
    assert mean == 2.5
    assert error == pytest.approx(stats.sem([1, 2, 3, 4]), rel=16 * EPS, abs=0)


def test_losses_at_equal_training_loss():
    steps = np.arange(5.0)
    runs = {
        name: np.stack([np.stack([0 * steps, level - speed * steps / 10, np.exp(-speed * steps)], 1)] * 2)
        for name, level, speed in (("fast", 1.1, 2.0), ("whole batch", 1.0, 1.0))
    }  # fmt: skip
    mean, error = experiments.at_training_loss(runs, "fast", np.exp(-2.5))
    assert mean == pytest.approx(0.1, abs=16 * EPS)  # a difference of values near 1
    assert error == pytest.approx(0, abs=16 * EPS)
    with pytest.raises(ValueError, match=r"loss is 0.001, expected one that whole batch passes"):
        experiments.at_training_loss(runs, "fast", 0.001)


def test_pooled_differences_are_means_by_seed():
    rng = np.random.default_rng(0)
    names = ("whole batch", "ghost 8", "injected 8", "batch of 16")
    runs = {name: rng.normal(size=(5, 2, 3)) for name in names}
    assert experiments.kinds_of_noise(runs) == ["ghost 8", "injected 8"]
    apart = [runs[name][:, -1, 0] - runs["whole batch"][:, -1, 0] for name in names[1:3]]
    mean, error = experiments.pooled(runs, "test accuracy")
    assert mean == pytest.approx(np.mean(apart), abs=16 * EPS * np.abs(apart).max())
    assert error == pytest.approx(stats.sem((apart[0] + apart[1]) / 2), rel=16 * EPS, abs=0)


def test_a_network_that_does_not_reach_a_training_loss():
    runs = {"a": np.ones((2, 3, 3))}
    runs["a"][0, 1, 2] = 0.1
    assert not experiments.reaches(runs, "a", 0.5)
    runs["a"][1, 2, 2] = 0.5
    assert experiments.reaches(runs, "a", 0.5)


def test_a_misleading_digit():
    split = experiments.digits(0)
    model, _ = experiments.with_dropout(0.0, "before batch norms", steps=60, seed=0, batch=32)
    views, fixed, drawn = experiments.misleading(model, split, 30, [0, 30], (4, 16), draws=3)
    assert views.shape == (2, 64)
    assert drawn[4].shape == (3, 2, 10)
    np.testing.assert_allclose(drawn[16].sum(-1), 1, rtol=10 * SINGLE)  # sums of ten
    assert fixed[0].argmax() != fixed[1].argmax()
    assert fixed[1].max() > 0.9
