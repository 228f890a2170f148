"""What the depth chapter's experiments claim, and that its recorded run can be repeated."""

import numpy as np
import pytest
import torch

from bncore.chapters.explanations.depth import experiments, full_size
from bncore.explanations import depth
from bncore.explanations._activation import ACTIVATIONS
from bncore.lab import recorded


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


def test_training_repeats(record, repeated):
    """Training amplifies rounding, so that accuracies repeat only roughly on another processor."""
    for row, kept in zip(repeated["training"], record["reduced"]["training"], strict=True):
        assert (row["kind"], row["layers"]) == (kept["kind"], kept["layers"])
        np.testing.assert_allclose(row["accuracy"], kept["accuracy"], atol=0.15)
    plain, residual = (row["accuracy"] for row in repeated["training"])
    assert max(plain) < 0.5 < min(residual)


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
    ("batch_size", "within_excess", "within_chance"), [(8, 11, 10), (64, 7, 3), (256, 6, 0)]
)
def test_larger_batches_depart_from_the_rate_beyond_chance(
    departures, batch_size, within_excess, within_chance
):
    rows = [row for row in departures("activations") if row.batch_size == batch_size]
    assert sum(abs(row.of_excess) < 10 for row in rows) == within_excess
    assert sum(abs(row.error) < 3 * row.standard_error for row in rows) == within_chance


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
        spread, growth = experiments.asymmetry(activation, 30, 256, 64, 0)
        assert spread.shape == (30,)
        assert growth.shape == (29,)
        assert (spread[-1] > 5 * spread[1]) == grows


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
