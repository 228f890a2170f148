"""Sampled scores against torch in training mode, and calibration against its definition."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from bncore.explanations import ghost_batches, uncertainty
from bncore.lab import networks

seeds = st.integers(0, 10**6)
EPS = np.finfo(np.float64).eps
# Of a temperature: twice what ``fitted_temperature`` lets scipy miss its logarithm by.
FITTED = 2e-6


def assert_rounded(found, expected):
    """Scores behind two norms, which divide rounded values by the root of epsilon at least."""
    torch.testing.assert_close(found, expected, rtol=0, atol=16 * EPS / 1e-5)


def network(seed=0):
    model = networks.mlp((6, 8, 7, 4), "relu", "batch", seed=seed)
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(20, 6))
    return model


@given(seeds, st.integers(2, 12))
def test_an_example_of_the_batch_has_the_scores_of_training_mode(seed, size):
    model, pool = network(seed).double(), torch.randn(12, 6, dtype=torch.float64)
    scores = uncertainty.sampled_scores(model, pool, pool, size, draws=3, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for row in scores:
        chosen = torch.randperm(12, generator=generator)[:size]
        assert_rounded(row[chosen], model.train()(pool[chosen]).detach())


def test_each_example_is_alone():
    model, x, pool = network().double(), torch.randn(5, 6).double(), torch.randn(30, 6).double()
    together = uncertainty.sampled_scores(model, x, pool, 8, draws=4)
    alone = uncertainty.sampled_scores(model, x[2:3], pool, 8, draws=4)
    assert_rounded(together[:, 2:3], alone)


def test_sampling_leaves_the_network_as_it_is():
    model = network()
    model.norm1.momentum = 0.3
    model.norm2.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    uncertainty.sampled_scores(model, torch.randn(5, 6), torch.randn(9, 6), 4, draws=2)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert model.norm1.momentum == 0.3
    assert model.norm1.training
    assert not model.norm2.training
    assert not model.norm1._forward_pre_hooks


def test_dropout_stays_off_while_batches_are_sampled():
    torch.manual_seed(0)
    model = networks.mlp((6, 8, 7, 4), "relu", "batch", dropout=0.5).double()
    x, pool = torch.randn(5, 6).double(), torch.randn(9, 6).double()
    first, again = (uncertainty.sampled_scores(model, x, pool, 9, draws=2) for _ in range(2))
    assert_rounded(first, again)
    assert_rounded(first[0], first[1])


@given(seeds, st.integers(1, 12))
def test_calibration_against_its_definition(seed, bins):
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.full(3, 0.3), size=30)
    labels = rng.integers(3, size=30)
    found = uncertainty.calibration(torch.tensor(rows), torch.tensor(labels), bins)
    right, confidence = rows.argmax(1) == labels, rows.max(1)
    ece = 0.0
    for k in range(bins):
        upper = confidence <= 1 if k == bins - 1 else confidence < (k + 1) / bins
        inside = (confidence >= k / bins) & upper
        assert found.count[k] == inside.sum()
        if inside.any():
            ece += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
            assert found.frequency[k] == pytest.approx(right[inside].mean(), abs=32 * EPS)
            assert found.confidence[k] == pytest.approx(confidence[inside].mean(), abs=32 * EPS)
        else:
            assert np.isnan(found.frequency[k])
    assert found.ece == pytest.approx(ece, abs=32 * EPS)
    assert found.accuracy == pytest.approx(right.mean(), abs=32 * EPS)
    nll = -np.log(np.maximum(rows[range(30), labels], 1e-308)).mean()
    assert found.nll == pytest.approx(nll, rel=32 * EPS, abs=0)


def test_a_calibrated_forecast_has_a_small_error():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, size=40_000)
    labels = torch.tensor((rng.uniform(size=40_000) > p).astype(int))
    rows = torch.tensor(np.column_stack([p, 1 - p]))
    # Five bins of 8000 examples, each off by less than five standard errors.
    assert uncertainty.calibration(rows, labels).ece < 5 * (0.25 / 8000) ** 0.5
    sure = torch.tensor([[1.0, 0.0]]).repeat(40_000, 1)
    assert uncertainty.calibration(sure, labels).ece == pytest.approx(
        0.25, abs=5 * (0.25 * 0.75 / 40_000) ** 0.5
    )


@given(seeds, st.floats(0.2, 5))
def test_the_temperature_undoes_a_scale(seed, scale):
    rng = np.random.default_rng(seed)
    scores = torch.tensor(rng.normal(size=(400, 3)) * 2)
    labels = torch.tensor([rng.choice(3, p=row) for row in scores.softmax(1).numpy()])
    one = uncertainty.fitted_temperature(scores, labels)
    assert uncertainty.fitted_temperature(scale * scores, labels) == pytest.approx(
        scale * one, rel=2 * FITTED, abs=0
    )
    at = cross_entropy(scores / one, labels)
    assert at <= min(cross_entropy(scores / (one * f), labels) for f in (0.97, 1.03))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_probabilities_and_labels_of_other_types(dtype):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(200, 30, generator=generator, requires_grad=True)
    labels = torch.randint(30, (200,), generator=generator)
    exact = uncertainty.calibration(scores.detach().softmax(1), labels)
    found = uncertainty.calibration(scores.to(dtype).softmax(1), labels.int())
    # A probability has the rounding of its score; two examples may change their bin or forecast.
    rounded = torch.finfo(dtype).eps * (1 + scores.abs().max().item())
    assert found.nll == pytest.approx(exact.nll, abs=rounded)
    assert found.ece == pytest.approx(exact.ece, abs=rounded + 2 / 200)
    temperature = uncertainty.fitted_temperature(scores.to(dtype), labels.int())
    expected = uncertainty.fitted_temperature(scores, labels)
    assert temperature == pytest.approx(expected, rel=rounded + 2 * FITTED)


ROWS, LABELS = torch.tensor([[0.5, 0.5]]), torch.tensor([1])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda f: f.sampled_scores(network(), torch.ones(1, 6), torch.ones(4, 6), 1, 2),
            ValueError,
            "batch_size is 1, expected from 2 to 4, the size of the pool",
        ),
        (
            lambda f: f.sampled_scores(network(), torch.ones(1, 6), torch.ones(4, 6), 5, 2),
            ValueError,
            "batch_size is 5, expected from 2 to 4",
        ),
        (
            lambda f: f.sampled_scores(network(), torch.ones(1, 6), torch.ones(4, 6), 2, 0),
            ValueError,
            "draws is 0, expected at least 1",
        ),
        (
            lambda f: f.sampled_scores(nn.Linear(6, 2), torch.ones(1, 6), torch.ones(4, 6), 2, 2),
            ValueError,
            "model has no batch norm",
        ),
        (
            lambda f: f.sampled_scores(
                networks.mlp((6, 8, 4), "relu", ghost_batches.ghost(2)),
                torch.ones(1, 6),
                torch.ones(4, 6),
                4,
                2,
            ),
            ValueError,
            "batch norm 'norm1' is a GhostBatchNorm, expected torch's own",
        ),
        (
            lambda f: f.sampled_scores(
                nn.Sequential(nn.BatchNorm1d(6, track_running_stats=False)),
                torch.ones(1, 6),
                torch.ones(4, 6),
                4,
                2,
            ),
            ValueError,
            "batch norm '0' keeps no running statistics, expected track_running_stats=True",
        ),
        (
            lambda f: f.sampled_scores(lambda x: x, torch.ones(1, 6), torch.ones(4, 6), 2, 2),
            TypeError,
            "model is a function, expected an nn.Module",
        ),
        (
            lambda f: f.sampled_scores(network(), None, torch.ones(4, 6), 2, 2),
            TypeError,
            "x is a None, expected a numpy.ndarray or a list",
        ),
        (
            lambda f: f.sampled_scores(network(), torch.ones(1, 6), [[1.0]], 2, 2),
            ValueError,
            r"pool has examples of shape \(1,\), expected \(6,\)",
        ),
        (
            lambda f: f.sampled_scores(network(), torch.ones(1, 6), torch.ones(4, 6), 2, 2, 0.5),
            TypeError,
            "seed is a float, expected an integer",
        ),
        (
            lambda f: f.calibration(ROWS, LABELS.double()),
            TypeError,
            "labels holds floats, expected integers",
        ),
        (
            lambda f: f.fitted_temperature(ROWS, LABELS > 0),
            TypeError,
            "labels has dtype bool, expected real numbers",
        ),
        (
            lambda f: f.calibration({}, LABELS),
            TypeError,
            "probabilities is a dict, expected a numpy.ndarray or a list",
        ),
        (lambda f: f.calibration(3 * ROWS, LABELS), ValueError, "apply softmax first"),
        (lambda f: f.calibration(ROWS, LABELS, 0), ValueError, "bins is 0, expected at least 1"),
        (lambda f: f.calibration(ROWS, LABELS + 1), ValueError, "labels range from 2 to 2"),
        (
            lambda f: f.calibration(ROWS[:0], LABELS[:0]),
            ValueError,
            r"probabilities has shape \(0, 2\)",
        ),
        (
            lambda f: f.fitted_temperature(ROWS, LABELS.repeat(2)),
            ValueError,
            r"labels has shape \(2,\), expected \(1,\): one label for each example",
        ),
        (
            lambda f: f.fitted_temperature(ROWS * np.inf, LABELS),
            ValueError,
            r"scores\[0, 0\] is inf, expected finite values only",
        ),
    ],
)
def test_errors_teach(call, error, message):
    with pytest.raises(error, match=message):
        call(uncertainty)


def test_a_frozen_batch_norm_keeps_its_statistics():
    model, x = network().train(), torch.randn(5, 6)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d)]
    for norm in norms[1:]:
        norm.eval()
    pool = torch.randn(30, 6)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scores = uncertainty.sampled_scores(model, x, pool, 8, 3)
    assert (scores.std(0) > 0).any()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [norm.training for norm in norms] == [True] + [False] * (len(norms) - 1)
    norms[0].eval()
    with pytest.raises(ValueError, match="all batch norms of model are frozen"):
        uncertainty.sampled_scores(model, x, pool, 8, 3)


def test_a_batch_norm_that_is_called_twice_is_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(6)

        def forward(self, x):
            return self.norm(2 * self.norm(x))

    with pytest.raises(ValueError, match="model calls a BatchNorm1d twice, expected once"):
        uncertainty.sampled_scores(Twice(), torch.ones(1, 6), torch.randn(8, 6), 4, 1)


def test_lists_and_arrays_are_taken():
    rows, labels = torch.tensor([[0.25, 0.75], [0.5, 0.5]]), torch.tensor([1, 0])
    expected = uncertainty.calibration(rows, labels)
    for values in (rows.numpy(), rows.tolist()):
        found = uncertainty.calibration(values, labels.tolist())
        assert found.nll == expected.nll
        assert found.ece == expected.ece
    one = uncertainty.fitted_temperature(rows, labels)
    assert uncertainty.fitted_temperature(rows.tolist(), [1, 0]) == one
    model, x, pool = network(), torch.ones(2, 6), torch.randn(9, 6)
    scores = uncertainty.sampled_scores(model, x, pool, 4, 2)
    assert torch.equal(uncertainty.sampled_scores(model, x.tolist(), pool.numpy(), 4, 2), scores)


def test_scores_without_end_are_refused_and_an_end_of_the_range_is_said():
    with pytest.raises(
        ValueError, match=r"scores is as large as 1e\+301, expected less than 1e300"
    ):
        uncertainty.fitted_temperature(np.array([[1e301, 0.0]]), [0])
    sure = torch.tensor([[0.1, 0.0], [0.0, 0.1]])
    assert uncertainty.fitted_temperature(sure, [0, 1]) == pytest.approx(1 / 20, rel=FITTED, abs=0)
    assert uncertainty.fitted_temperature(sure, [1, 0]) == pytest.approx(20, rel=FITTED)
