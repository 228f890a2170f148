"""The covariate shift chapter: its exercises, experiments, figures and recorded run."""

import copy

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from bncore.chapters.explanations.covariate_shift import (
    exercises,
    experiments,
    figures,
    full_size,
)
from bncore.explanations.covariate_shift import NoisyBatchNorm, gradient_shift
from bncore.lab import data, networks, recorded, training

SEEDS = st.integers(0, 10**6)
few = settings(max_examples=25)


def half_square(outputs, targets):
    return ((outputs - targets) ** 2).sum() / (2 * len(targets))


def linear_model(*weights):
    layers = [nn.Linear(*W.shape[::-1], bias=False, dtype=torch.float64) for W in weights]
    for layer, W in zip(layers, weights, strict=True):
        layer.weight = nn.Parameter(torch.tensor(W))
    return nn.Sequential(*layers)


@few
@given(SEEDS, st.floats(0, 1))
def test_the_exercise_of_two_weights_is_the_measure(seed, rate):
    a, b, c = np.random.default_rng(seed).normal(size=3)
    model = linear_model(np.full((1, 1), a), np.full((1, 1), b))
    one = torch.ones(1, 1, dtype=torch.float64)
    shift = gradient_shift(model, half_square, one, c * one, rate)
    assert abs(exercises.two_weights(a, b, c, rate)) == pytest.approx(shift.norm[1], abs=1e-12)


@few
@given(SEEDS, st.floats(0, 1))
def test_the_exercise_of_three_layers_is_the_measure(seed, rate):
    rng = np.random.default_rng(seed)
    W1, W2, W3 = rng.normal(size=(3, 2)), rng.normal(size=(4, 3)), rng.normal(size=(2, 4))
    x, y = rng.normal(size=(7, 2)), rng.normal(size=(7, 2))
    shift = gradient_shift(
        linear_model(W1, W2, W3), half_square, torch.tensor(x), torch.tensor(y), rate
    )
    answer = exercises.three_layers(W1, W2, W3, x, y, rate)
    np.testing.assert_allclose(answer, shift.norm, rtol=1e-9, atol=1e-12)


@given(SEEDS, st.integers(1, 3), st.floats(0.01, 1))
def test_the_exercise_of_the_first_order_is_exact_for_a_quadratic(seed, size, rate):
    rng = np.random.default_rng(seed)
    root, start = rng.normal(size=(3 * size, 3 * size)), rng.normal(size=3 * size)
    hessian = root + root.T
    parts = np.split(start - rate * hessian @ start, 3)
    expected = []
    for i in range(3):
        mixed = np.concatenate([*parts[:i], start[i * size :]])
        expected.append(np.linalg.norm((hessian @ (mixed - start))[i * size : (i + 1) * size]))
    answer = exercises.first_order(hessian, hessian @ start, size, rate)
    np.testing.assert_allclose(answer, expected, atol=1e-10)


@pytest.mark.parametrize("relative", [0.1, 0.5, 0.9, 1.5, 3.0])
def test_the_worst_cosine_is_approached_and_never_passed(relative):
    angles = np.linspace(0, np.pi, 20001)
    after = 1 + relative * np.exp(1j * angles)
    cosines = after.real / np.abs(after)
    assert cosines.min() == pytest.approx(exercises.worst_cosine(relative), abs=1e-5)


@pytest.mark.parametrize("move", [0.001, 0.1])
def test_the_rate_for_a_move_moves_the_parameters_so_far(move):
    model = networks.mlp([64, 16, 10], "relu", "batch")
    x, y = torch.randn(32, 64), torch.arange(32) % 10
    kept = copy.deepcopy(model.state_dict())
    rate = experiments.rate_for(model, cross_entropy, x, y, move)
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    start = nn.utils.parameters_to_vector(model.parameters()).detach()
    cross_entropy(model(x), y).backward()
    torch.optim.SGD(model.parameters(), rate).step()
    end = nn.utils.parameters_to_vector(model.parameters()).detach()
    assert ((end - start).norm() / start.norm()).item() == pytest.approx(move, rel=1e-3)


def test_standardized_images_have_mean_0_and_variance_1():
    split = experiments.vgg(2, 8, 1).split(0)
    assert abs(split.x_train.mean().item()) < 1e-5
    assert split.x_train.std().item() == pytest.approx(1, abs=1e-5)
    assert abs(split.x_test.mean().item()) < 0.1


def test_the_best_rate_is_chosen_and_divergence_is_not():
    task = experiments.linear(8, 20, depth=3, examples=32)
    rate, losses = experiments.choose(task, "no batch norm", [1e-4, 0.05, 1e4], [0, 1])
    assert losses.shape == (3, 2, 20)
    assert not np.isfinite(losses[2]).all()
    assert losses[1, :, -1].mean() < losses[0, :, -1].mean()
    assert rate == 0.05


def test_losses_are_smoothed_and_timed():
    losses = np.array([[4.0, 2.0, 1.0, 1.0, 0.0], [4.0, 4.0, 4.0, 4.0, 4.0]])
    np.testing.assert_array_equal(experiments.smoothed(losses, 2), [[3, 1], [4, 4]])
    np.testing.assert_array_equal(experiments.steps_to(losses, 1.5, 10), [30, np.inf])


def test_values_are_read_off_where_a_run_passes_a_loss():
    # Losses e^0, e^-1, ... a window; the first run comes back up once, which does not count.
    losses = np.exp(-np.array([[0.0, 1.0, 0.5, 3.0], [0.0, 2.0, 4.0, 6.0]]))
    values = np.array([[0.0, 10.0, 20.0, 30.0], [0.0, 10.0, 20.0, 30.0]])
    found = experiments.at_loss(np.exp(-2.0), losses, [0, 5, 10, 19], values)
    np.testing.assert_allclose(found, [25.0, 10.0])


@pytest.mark.parametrize("strength", [1, 4])
def test_stronger_noise_is_the_usual_noise_times_so_much(strength):
    layer, usual = experiments.noisier(strength)(3), NoisyBatchNorm(3)
    assert layer.shift == strength * usual.shift
    assert layer.stretch - 1 == pytest.approx(strength * (usual.stretch - 1))
    assert layer.jitter == pytest.approx(strength * usual.jitter)


def test_moved_distributions_are_those_of_plain_batch_norm_where_nothing_moves():
    found = experiments.moved(0, seeds=[3], steps=12, rate=0.1)
    model = networks.mlp([64, 32, 32, 32, 32, 10], "relu", "batch", gain=2**0.5, seed=3)
    losses = training.train(model, data.digits(3), 12, 64, 0.1, 3).losses
    np.testing.assert_allclose(found, losses[-10:].mean(), rtol=1e-5)
    assert abs(experiments.moved(2, seeds=[3], steps=12, rate=0.1) / found - 1) > 0.01


def test_numbers_are_rounded_to_significant_digits():
    values = experiments.rounded(np.array([[1234.5, 0.012345], [np.nan, np.inf]]))
    assert values[0] == [1230.0, 0.0123]
    assert np.isnan(values[1][0])
    assert np.isinf(values[1][1])


@pytest.fixture(scope="module")
def measured():
    task = experiments.vgg(2, 8, 6)
    return {
        name: experiments.measure(task, name, 0.03, 0, [0, 5], 0.03, 0.01, follow=5)
        for name in experiments.NORMALIZATIONS
    }


def test_what_is_measured_has_the_layers_of_the_network(measured):
    for found in measured.values():
        assert found.losses.shape == (6,)
        for values in (found.norm, found.relative, found.cosine):
            assert values.shape == (2, 3, 10)
        assert found.other_batch.shape == (2, 10)
        assert found.drift.shape == (2, 9)
        assert found.percentiles.shape == (2, 9, 3)
        np.testing.assert_array_equal(found.norm[..., 0], 0)
        # Training and common learning rate are the same here, a move is another step.
        np.testing.assert_array_equal(found.norm[:, 0], found.norm[:, 1])
        assert (found.norm[:, 2, 1:] != found.norm[:, 0, 1:]).any()
        assert (np.diff(found.percentiles, axis=-1) >= 0).all()


def test_the_noise_moves_distributions_that_batch_norm_holds(measured):
    assert (measured["batch norm"].drift < 0.1).all()
    assert (measured["noisy batch norm"].drift > 0.1).all()


def test_measuring_does_not_change_the_run(measured):
    task = experiments.vgg(2, 8, 6)
    for name, found in measured.items():
        model, split, history = experiments.train(task, name, 0.03, 0)
        np.testing.assert_array_equal(history.losses, found.losses)
        torch.rand(1)  # another state outside must not matter
        assert experiments._accuracies(model, split) == found.accuracies


def test_a_run_that_diverges_is_measured_as_nan():
    task = experiments.linear(16, 12, depth=8)
    found = experiments.measure(task, "no batch norm", 10.0, 0, [0, 11], 0.01, 0.01, drift=False)
    assert np.isfinite(found.norm[0, 1:]).all()
    assert np.isnan(found.norm[1]).all()


def test_the_reduced_run_is_reproduced():
    kept = recorded.load(full_size.PATH)["reduced"]
    found = full_size.run(full_size.REDUCED)
    assert found.keys() == kept.keys()
    noise = kept.pop("noise")
    np.testing.assert_allclose(found["noise"]["losses"], noise["losses"], rtol=0.05)
    for network, models in kept.items():
        assert found[network].keys() == models.keys()
        for name, expected in models.items():
            ours = found[network][name]
            assert ours.keys() == expected.keys()
            assert ours["rate"] == expected["rate"]
            # float32 sums in another order move the last digits, and 12 steps amplify them.
            np.testing.assert_allclose(ours["losses"], expected["losses"], rtol=0.05)
            start = [np.array(values["relative"])[:, 0] for values in (ours, expected)]
            np.testing.assert_allclose(*start, rtol=0.05, atol=1e-4)


def test_the_recorded_configuration_is_the_one_in_the_code():
    kept = recorded.load(full_size.PATH)
    assert kept["configuration"] == full_size.CONFIGURATION


@pytest.mark.parametrize("depth", [11, 16])
def test_the_command_for_the_papers_size_runs_its_configuration(
    depth, small_images, monkeypatch, tmp_path
):
    small = copy.deepcopy(full_size.PAPER)
    small["vgg"] |= {"width": 2, "depth": depth, "batch_size": 8, "steps": 3}
    small["linear"] |= {"width": 4, "examples": 8, "depth": 4, "steps": 3}
    for network in ("vgg", "linear"):
        small[network] |= {"rates": [0.003], "records": [0, 2], "tuning_seeds": [100]}
    small |= {"seeds": [0], "every": 1, "device": "cpu"}
    small["noise"] = {"strengths": [2], "seeds": [0], "record": 1}
    monkeypatch.setattr(full_size, "PAPER", small)
    monkeypatch.setattr(full_size, "PATH", tmp_path / "recorded.json")
    full_size.main(["--paper", "--cache", "somewhere"])
    assert small_images == [("cifar10", "somewhere")]
    assert not full_size.PATH.exists()
    kept = recorded.load(tmp_path / "paper.json")
    assert kept["configuration"] == small
    layers = {"vgg": {11: 10, 16: 15}[depth], "linear": 2}
    for network, models in layers.items():
        found = kept["full"][network]["batch norm"]
        assert np.array(found["relative"]).shape == (1, 2, 3, models)
        assert np.isfinite(found["losses"]).all()
    assert np.array(kept["full"]["vgg"]["batch norm"]["percentiles"]).shape[0] == 4


def test_the_papers_configuration_has_the_fields_of_the_recorded_one():
    ours, paper = full_size.CONFIGURATION, full_size.PAPER
    assert paper.keys() == ours.keys() == full_size.REDUCED.keys()
    for network in ("vgg", "linear"):
        assert paper[network].keys() == ours[network].keys() == full_size.REDUCED[network].keys()
        assert max(paper[network]["records"]) < paper[network]["steps"]
    task = full_size._task(paper, "vgg")
    assert (task.batch_size, task.steps, task.device) == (128, 15_000, "cuda")
    model = task.network("batch", 0)
    assert model.conv1.weight.shape == (64, 3, 3, 3)
    assert sum(name.startswith("conv") for name, _ in model.named_children()) == 8


@pytest.mark.parametrize(
    ("source", "size", "message"),
    [
        ("cifar10", 28, "size is 28, expected 32, that of the images of cifar10"),
        ("mnist", 32, "size is 32, expected 28, that of the images of mnist"),
        ("letters", 32, "source is 'letters', expected 'digits', 'mnist' or 'cifar10'"),
    ],
)
def test_images_that_a_set_does_not_have_are_refused(source, size, message):
    with pytest.raises(ValueError, match=message):
        experiments.vgg(2, size, 1, source=source)


def test_the_recorded_rates_are_the_best_of_their_grid():
    configuration, full = full_size.record()
    for network in ("vgg", "linear"):
        for kept in full[network].values():
            ends = np.array(kept["tuning"], dtype=float)[..., -2:].mean(axis=(1, 2))
            best = configuration[network]["rates"][np.nanargmin(ends)]
            assert kept["rate"] == best


def points(fig, panel, label):
    lines = {line.get_label(): line for line in fig.axes[panel].get_lines()}
    found = np.asarray(lines[label].get_xydata(), dtype=float)
    plt.close(fig)
    return found


@pytest.mark.parametrize("b", figures.SECOND)
@pytest.mark.parametrize("rate", figures.RATES)
def test_the_measured_dot_lies_on_the_closed_form(b, rate):
    ((x, y),) = points(figures.two_weights(rate, b), 1, "measured")
    assert x == rate
    expected = abs(exercises.two_weights(figures.START, b, figures.TARGET, rate))
    assert y == pytest.approx(expected, abs=1e-12)
    curve = points(figures.two_weights(rate, b), 1, "closed form")
    assert np.interp(rate, *curve.T) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("normalization", [None, "batch"])
def test_small_steps_follow_the_first_order(normalization):
    measured, first = np.moveaxis(figures.small_steps(normalization), 1, 0)
    np.testing.assert_allclose(measured[:, 0, 1:], first[:, 0, 1:], rtol=0.05)
    assert (np.abs(measured / np.where(first, first, 1) - 1)[:, -1, 1:] > 0.1).any()


def test_the_recorded_figures_show_each_network():
    configuration, _ = full_size.record()
    for network in ("vgg", "linear"):
        step = configuration[network]["records"][-1]
        fig = figures.across_layers(network, "one move", step)
        assert {line.get_label() for line in fig.axes[0].get_lines()} == {"none", "batch norm"}
        plt.close(fig)
    for fig in (
        figures.rates(configuration["vgg"]["rates"][0]),
        figures.disturbed(1),
        figures.percentiles(5),
        figures.straight("none"),
    ):
        assert all(ax.has_data() for ax in fig.axes)
        plt.close(fig)


def inside(fig):
    """Whether every line and band of a figure with logarithmic or fixed axes is on the paper."""
    for ax in fig.axes:
        low, high = ax.get_ylim()
        drawn = [line.get_ydata() for line in ax.lines]
        drawn += [path.vertices[:, 1] for band in ax.collections for path in band.get_paths()]
        values = np.concatenate([np.asarray(some, dtype=float).ravel() for some in drawn])
        if not ((low <= values) & (values <= high)).all():
            return False
    return True


@pytest.mark.parametrize("compared", experiments.COMPARED)
@pytest.mark.parametrize("network", ["vgg", "linear"])
def test_no_recorded_curve_leaves_the_paper(network, compared):
    for step in full_size.CONFIGURATION[network]["records"][1:]:
        assert inside(figures.across_layers(network, compared, step)), step
        plt.close()


def test_no_recorded_loss_or_percentile_leaves_the_paper():
    for strength in [1, *full_size.CONFIGURATION["noise"]["strengths"]]:
        assert inside(figures.disturbed(strength)), strength
        plt.close()
    for layer in (2, 5, 8):
        fig = figures.percentiles(layer)
        assert inside(fig)
        assert len({ax.get_ylim() for ax in fig.axes}) == 1
        plt.close()


def test_the_vggs_are_recorded_at_one_best_rate_and_the_linear_networks_at_two():
    _, full = full_size.record()
    assert {kept["rate"] for kept in full["vgg"].values()} == {0.1}
    assert [kept["rate"] for kept in full["linear"].values()] == [0.01, 0.03]


def test_the_shift_of_the_linear_network_is_recorded_as_larger_with_batch_norm():
    ratios = {}
    for compared in ("own rate", "one rate"):
        batch, none = (
            full_size.medians("linear", name, "relative", compared)
            for name in ("batch norm", "no batch norm")
        )
        ratios[compared] = (batch / none)[:, 1:]
    own, one = (np.median(some, axis=0) for some in ratios.values())
    assert own.min() > 8
    assert own.max() < 21
    assert one.min() > 2.5
    assert one.max() < 7.5
    np.testing.assert_allclose(own / one, 3, rtol=0.2)
    assert 1.5 < ratios["own rate"].min() < ratios["own rate"].max() < 31


def test_a_move_of_one_per_cent_is_recorded_as_a_long_shift_in_both_linear_networks():
    for name, bound in (("no batch norm", 0.25), ("batch norm", -0.25)):
        assert full_size.medians("linear", name, "relative", "one move")[:, 1:].min() > 1
        assert full_size.medians("linear", name, "cosine", "one move")[:, 1:].max() < bound


def test_the_drift_is_recorded_as_the_chapter_says():
    none, batch, noisy = (
        full_size.column("vgg", name, "drift")[:, :3] for name in experiments.NORMALIZATIONS
    )
    deep = np.median(none[..., 6:], axis=(1, 2))
    assert 1.5 < deep.min() < deep.max() < 3.1
    assert batch[..., 6:].max() < 0.01
    assert np.median(noisy[:, 2] / batch[:, 2], axis=1).min() > 500
    assert (none[..., 8] > 10 * none[..., 1]).all()


def test_equal_losses_lie_between_the_records_that_the_chapter_names():
    records = full_size.CONFIGURATION["vgg"]["records"]
    for name, before, after in (("no batch norm", 100, 180), ("batch norm", 5, 20)):
        lowest = np.minimum.accumulate(full_size.column("vgg", name, "losses"), axis=1)
        windows = np.array(records) // full_size.CONFIGURATION["every"]
        heights = dict(zip(records, lowest[:, windows].T, strict=True))
        assert (heights[before] > 0.5).all()
        assert (heights[after] < 0.4).all()
