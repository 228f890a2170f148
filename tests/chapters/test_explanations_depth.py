"""What the depth chapter's experiments claim, and that its recorded run can be repeated."""

import numpy as np
import pytest
import torch

from bncore.chapters.explanations.depth import experiments, figures, full_size
from bncore.explanations import depth
from bncore.explanations._activation import ACTIVATIONS
from bncore.lab import data, recorded


@pytest.fixture(scope="module")
def record():
    return recorded.load(experiments.RECORD)


@pytest.fixture(scope="module")
def repeated():
    torch.set_num_threads(1)
    return full_size.run(full_size.REDUCED)


def test_the_recorded_run_is_of_this_configuration(record):
    assert record["configuration"] == full_size.CONFIGURATION
    for part in full_size.RATES:
        for row in record["full"][part]:
            predicted = depth.growth_rate(row["activation"], row["batch_size"])
            assert row["predicted"] == pytest.approx(predicted, abs=1e-5)


def test_growth_rates_repeat(record, repeated):
    """Rounding errors grow by the root of the rate: 20 layers make 1e-7 some 1e-4."""
    for row, kept in zip(repeated["activations"], record["reduced"]["activations"], strict=True):
        assert row["measured"] == pytest.approx(kept["measured"], rel=1e-3)
        assert row["predicted"] == kept["predicted"]
        assert row["given_forward"] == pytest.approx(kept["given_forward"], rel=1e-3)


def test_training_repeats(record, repeated):
    """Training amplifies rounding, so that accuracies repeat only roughly on another processor."""
    for row, kept in zip(repeated["training"], record["reduced"]["training"], strict=True):
        assert (row["kind"], row["layers"]) == (kept["kind"], kept["layers"])
        np.testing.assert_allclose(row["accuracy"], kept["accuracy"], atol=0.15)
    plain, residual = (row["accuracy"] for row in repeated["training"])
    assert max(plain) < 0.5 < min(residual)


def test_the_command_for_the_papers_size_runs_its_configuration(
    small_images, monkeypatch, tmp_path
):
    small = {"layers": [3], "width": 16, "steps": 2, "learning_rates": [1e-9], "seeds": 2}
    small |= {"batch_size": 8, "device": "cpu"}
    paper = {part: grid | small for part, grid in full_size.PAPER.items()}
    monkeypatch.setattr(full_size, "PAPER", paper)
    monkeypatch.setattr(experiments, "RECORD", tmp_path / "recorded.json")
    full_size.main(["--paper", "--cache", "somewhere"])
    assert small_images == [("cifar10", "somewhere")]
    assert not experiments.RECORD.exists()
    kept = recorded.load(tmp_path / "paper.json")
    assert kept["configuration"] == paper
    assert [row["kind"] for row in kept["full"]["training"]] == ["plain", "batch norm", "residual"]
    split = data.standard_images("cifar10", "somewhere")
    for row in kept["full"]["training"] + kept["full"]["adam"]:
        for seed, accuracy in enumerate(row["accuracy"]):
            # At this rate the weights stay where they start.
            model = experiments.classifier(row["kind"], 3, 16, seed, 3 * 32 * 32)
            answers = model(split.x_test.flatten(1)).argmax(1)
            expected = (answers == split.y_test).double().mean().item()
            assert accuracy == pytest.approx(expected, abs=1e-4)


def test_the_papers_networks_are_deeper_and_wider():
    ours, paper = full_size.CONFIGURATION, full_size.PAPER
    for part in ("training", "adam"):
        assert paper[part].keys() - ours[part].keys() == {"data", "batch_size", "device"}
        assert max(paper[part]["layers"]) > max(ours[part]["layers"])
        assert paper[part]["width"] > ours[part]["width"]


@pytest.fixture
def departures(record):
    def of(part):
        return full_size.departures(record["full"][part], record["configuration"][part]["seeds"])

    return of


def test_which_rates_agree_within_two_percent_at_width_512(departures):
    rows = departures("activations")
    assert {row.width for row in rows} == {512}
    assert {row.activation for row in rows} == set(ACTIVATIONS)
    assert len(rows) == 33
    beyond = {(row.activation, row.batch_size) for row in rows if abs(row.error) >= 2}
    assert beyond == {("softplus", 256), ("silu", 64), ("silu", 256), ("abs", 64), ("abs", 256)}


@pytest.mark.parametrize(
    ("batch_size", "within_excess", "within_chance"), [(8, 11, 11), (64, 10, 4), (256, 6, 1)]
)
def test_larger_batches_depart_from_the_rate_beyond_chance(
    departures, batch_size, within_excess, within_chance
):
    rows = [row for row in departures("activations") if row.batch_size == batch_size]
    assert sum(abs(row.of_excess) < 10 for row in rows) == within_excess
    assert sum(abs(row.error) < 3 * row.standard_error for row in rows) == within_chance


def test_the_forward_pass_tells_the_rates_that_the_symmetric_batch_misses(record):
    rows, seeds = record["full"]["activations"], record["configuration"]["activations"]["seeds"]
    beyond = {}
    for given in (False, True):
        found = full_size.departures(rows, seeds, given_forward=given)
        beyond[given] = {(row.activation, row.batch_size) for row in found if abs(row.error) >= 2}
        if given:
            errors = {(row.activation, row.batch_size): row.error for row in found}
    assert not beyond[False] & beyond[True]
    assert all(abs(errors[case]) < 1 for case in beyond[False])
    assert beyond[True] == {(name, B) for name in ("identity", "sigmoid") for B in (64, 256)}
    assert max(errors.values()) < 0


def test_wider_networks_have_fresher_weights(record):
    found = full_size.departures(record["full"]["large_batches"], 10, given_forward=True)
    for name in {row.activation for row in found}:
        sizes = [abs(row.error) for row in found if row.activation == name]
        assert sizes == sorted(sizes, reverse=True)


def test_every_recorded_rate_explodes(record):
    for part in full_size.RATES:
        for row in record["full"][part]:
            assert row["measured"] > 1 + 5 * row["spread"] / 10**0.5


def test_width_mends_large_batches_but_not_unlike_examples(departures):
    error = {(row.activation, row.width): row.error for row in departures("large_batches")}
    left = {name: error[name, 1024] / error[name, 256] for name, _ in error}
    assert all(0.25 < left[name] < 0.45 for name in ("identity", "relu", "softplus"))
    assert all(0.5 < left[name] < 1 for name in ("silu", "abs"))
    assert all(abs(row.error) < 1 for row in departures("widths") if row.width >= 64)


def test_a_departure_is_in_percent_of_the_rate_and_of_its_excess():
    row = {
        "activation": "relu", "batch_size": 8, "width": 64, "layers": 30,
        "measured": 1.3, "spread": 0.06, "predicted": 1.2,
    }  # fmt: skip
    (found,) = full_size.departures([row], 9)
    assert found[:3] == ("relu", 8, 64)
    assert found[3:] == pytest.approx((100 / 12, 2 / 1.2, 50))


def test_sixty_layers_train_neither_with_batch_norm_nor_without(record):
    best = {}
    for row in record["full"]["training"]:
        key = row["kind"], row["layers"]
        best[key] = max(best.get(key, 0), np.mean(row["accuracy"]))
        if row["kind"] == "residual" and row["learning_rate"] == 1:
            assert row["accuracy"] == [0, 0, 0]
        if row["kind"] != "residual" and row["layers"] == 60:
            assert max(row["accuracy"]) < 0.25
    assert best["batch norm", 60] < best["plain", 60] < 0.2 < 0.9 < best["residual", 60]
    for layers in (10, 30):
        assert best["plain", layers] < best["batch norm", layers]


@pytest.mark.parametrize("activation", ["silu", "abs"])
def test_width_only_postpones_unlike_examples(activation):
    narrow, wide = (
        np.mean([experiments.asymmetry(activation, 24, width, 64, seed)[0] for seed in (0, 1)], 0)
        for width in (100, 400)
    )
    assert wide[1] < 0.7 * narrow[1]
    assert (narrow > 0.6).argmax() + 2 < (wide > 0.6).argmax()
    assert wide[-1] > 4 * wide[1]


@pytest.mark.parametrize(("activation", "seeds"), [("relu", 3), ("gelu", 3), ("identity", 3)])
def test_so_do_they_live(activation, seeds):
    measured = experiments.measured_rates(activation, 512, 64, 24, seeds).mean()
    assert measured == pytest.approx(depth.growth_rate(activation, 64), rel=0.02)


def test_a_wrong_prediction_would_be_noticed():
    measured = experiments.measured_rates("relu", 512, 64, 24, 2).mean()
    for wrong in (depth.growth_rate("relu") ** 0.5, depth.growth_rate("relu", 16), 62 / 61):
        assert abs(measured / wrong - 1) > 0.05


def test_weight_gradients_are_width_times_variance_times_signal_gradients():
    norms = experiments.gradients("tanh", 12, 400, 32, 0)
    factor = 400 * depth.batch_variance("tanh", 32)
    np.testing.assert_allclose((norms.weights / norms.signals)[2:], factor, rtol=0.03)


def test_a_residual_network_follows_the_power_law():
    runs = [experiments.gradients("tanh", 40, 256, 32, seed, skip=True).weights for seed in (0, 1)]
    measured = np.exp(np.mean(np.log(runs), axis=0))
    rate, variance = depth.growth_rate("tanh", 32), depth.batch_variance("tanh", 32)
    predicted = depth.residual_growth(rate, 40, 1 / variance)[1:]
    np.testing.assert_allclose(measured / measured[-1], predicted, rtol=0.25)
    assert measured[0] / measured[-1] < 30 < rate**39


@pytest.mark.parametrize(("activation", "variance"), [("tanh", 1.0), ("tanh", 4.0), ("relu", 0.8)])
def test_without_batch_norm_gradients_follow_the_mean_field(activation, variance):
    runs = [
        experiments.gradients(
            activation, 16, 256, 32, seed, normalization=None, gain=variance**0.5
        ).signals
        for seed in range(3)
    ]
    measured = np.exp(np.mean(np.log(runs), axis=0))
    growth = depth.propagate(activation, variance, 16, variance**2).growth
    np.testing.assert_allclose(measured[:-1] / measured[1:], growth[:-1], rtol=0.07)


def test_tanh_keeps_its_examples_alike_and_the_absolute_value_does_not():
    for activation, grows in (("tanh", False), ("abs", True)):
        spread, growth, expected = experiments.asymmetry(activation, 30, 256, 64, 0)
        assert spread.shape == (30,)
        assert growth.shape == expected.shape == (29,)
        assert (spread[-1] > 5 * spread[1]) == grows


@pytest.mark.parametrize("activation", ["abs", "silu", "softplus"])
def test_the_forward_pass_tells_the_error_of_unlike_examples(activation):
    cases = [experiments.asymmetry(activation, 30, 256, 64, seed) for seed in range(3)]
    growth, expected = (np.mean([np.log(case[i][1:]).mean() for case in cases]) for i in (1, 2))
    assert abs(growth - expected) < 0.02 < abs(growth - np.log(depth.growth_rate(activation, 64)))


def test_the_weights_of_the_forward_pass_are_not_fresh():
    """In a linear network gradients shrink towards the input in the early layers, and grow late."""
    cases = [experiments.asymmetry("identity", 30, 256, 64, seed) for seed in range(3)]
    growth, expected = (np.mean([np.log(case[i]) for case in cases], axis=0) for i in (1, 2))
    assert growth[1:8].mean() < -0.01 < 0.01 < growth[-7:].mean()
    assert (expected > growth)[1:].mean() > 0.9
    assert expected[1:].mean() - growth[1:].mean() > 0.03


def test_what_a_layer_of_a_linear_network_hands_down():
    """x' dl/dx below a layer is h' dl/dh, and with the identity that of the layer but for a part."""
    rng = torch.Generator().manual_seed(0)
    x, weight, top = (
        torch.randn(*shape, generator=rng, dtype=torch.float64, requires_grad=True)
        for shape in ((6, 9), (9, 9), (6, 9))
    )
    x = (x - x.mean(0)).detach().requires_grad_()
    h = x @ weight.T
    y = (h - h.mean(0)) / h.std(0, correction=0)
    dx, dh, dy = torch.autograd.grad((y.tanh() * top).sum(), [x, h, y])
    torch.testing.assert_close(x @ dx.T, h @ dh.T)
    along = (y * dy).sum(0)
    handed = y @ (dy - dy.mean(0)).T - (along * y) @ y.T / len(y)
    torch.testing.assert_close(h @ dh.T, handed)


@pytest.mark.parametrize("activation", ["tanh", "abs", "silu", "identity", "softplus", "gelu"])
def test_small_deviations_of_one_example_follow_the_theory(activation):
    found = experiments.deviation_multiplier(activation, 0.02, units=50_000)
    assert found == pytest.approx(depth.symmetry_multiplier(activation, 64), abs=0.02)


def test_a_large_deviation_in_closed_form():
    """In a large batch abs maps the squared distance s^2 to s^2 - (4 s - 2) / pi."""
    found = experiments.deviation_multiplier("abs", 4, batch_size=800, units=6000)
    ratio = (5 - (4 * 5**0.5 - 2) / np.pi) / (1 - 2 / np.pi)
    assert found == pytest.approx((ratio - 1) / 4, rel=0.03)


def test_orthogonal_weights_bring_a_linear_network_to_the_bound():
    for batch_size in (8, 64):
        measured = experiments.orthogonal_rates(128, batch_size, 20, 3).mean()
        assert measured - 1 == pytest.approx(1 / (batch_size - 3), rel=0.2)


def test_large_deviations_grow_with_the_absolute_value():
    assert depth.symmetry_multiplier("abs", 64) < 1
    for seed in range(3):
        small, large = (
            experiments.deviation_multiplier("abs", d, units=20_000, seed=seed) for d in (0.02, 4)
        )
        assert small < 1 < 1.3 < large


def test_what_is_left_of_the_geometry_of_the_digits():
    for seed in range(3):
        plain, norm, residual = (
            experiments.geometry(kind, 30, 64, seed) for kind in experiments.KINDS
        )
        assert norm[0] < 0.4 < 0.9 < residual[0] < plain[0]
        assert abs(norm[1]) < 0.02 < 0.1 < min(plain[1], residual[1])


def test_a_gradient_without_batch_norm_at_the_first_layer():
    for variance in (0.8, 4.0):
        runs, predicted, _ = figures.unnormalized("tanh", variance, layers=16, seeds=4)
        measured = np.exp(np.log(runs / runs[:, -1:]).mean(axis=0))
        np.testing.assert_allclose(measured, predicted, rtol=0.25)
        assert len(predicted) == 16


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_first_batch_norm_divides_by_the_variance_and_each_further_one_explodes(scale):
    none, one, eleven = (
        np.mean([experiments.stacked(n, 14, 256, 64, seed, scale)[0] for seed in range(3)])
        for n in (0, 1, 11)
    )
    assert one / none == pytest.approx(1 / scale**2, rel=0.25)
    assert (eleven / one) ** 0.1 == pytest.approx(depth.growth_rate("relu", 64), rel=0.04)


def test_a_large_first_step_evens_out_the_gradients():
    before, after = experiments.dynamic_range(16, 1.0, 0)
    small_before, small_after = experiments.dynamic_range(16, 1e-6, 0)
    assert before == small_before
    assert small_after == pytest.approx(before, rel=0.05)
    assert after < before / 5
