"""The reference answers of the chapter on forward, against other libraries and the package."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncore.chapters.mechanics.forward import exercises
from bncore.mechanics import transform

EPS = np.finfo(np.float64).eps
seeds = st.integers(0, 10**6)


@given(seeds, st.floats(1e-8, 10))
def test_undoing_the_transform_gives_the_batch_back(seed, eps):
    x = np.random.default_rng(seed).normal(2, 3, size=(7, 4))
    y, _ = transform.forward(x, *exercises.undo(x, eps), eps)
    np.testing.assert_allclose(y, x, rtol=0, atol=16 * EPS * np.abs(x).max())


@given(seeds, st.floats(1e-3, 1))
def test_maps_are_normalised_as_torch_does(seed, eps):
    x = torch.randn((3, 2, 4, 5), generator=torch.Generator().manual_seed(seed)).double()
    expected = torch.nn.functional.batch_norm(x, None, None, training=True, eps=eps)
    # Means of 60 values whose deviation is near 1.
    atol = 60 * EPS * x.abs().max().item()
    np.testing.assert_allclose(exercises.convolution(x.numpy(), eps), expected, rtol=0, atol=atol)


@given(seeds, st.floats(0.01, 0.99))
def test_the_chosen_epsilon_gives_the_chosen_variance(seed, variance):
    x = np.random.default_rng(seed).normal(size=(20, 1))
    eps = exercises.choose_epsilon(x.std(), variance)
    found = transform.forward(x, eps=eps)[0].var()
    assert found == pytest.approx(variance, rel=4 * len(x) * EPS, abs=0)


@given(seeds, st.integers(2, 50))
def test_no_value_is_larger_than_the_bound_and_one_batch_attains_it(seed, m):
    bound = exercises.largest_value(m)
    x = np.random.default_rng(seed).standard_cauchy(size=(m, 5))
    rounding = 4 * m * EPS
    assert transform.forward(x, eps=1e-300)[0].max() <= bound * (1 + rounding)
    one = np.eye(m)[:, :1]
    found = transform.forward(one, eps=1e-300)[0].max()
    assert found == pytest.approx(bound, rel=rounding, abs=0)


@given(seeds)
def test_a_layer_normalised_once_has_mean_zero_and_variance_one(seed):
    rng = np.random.default_rng(seed)
    weight, u = rng.normal(size=(4, 3)), rng.normal(5, 2, size=(30, 3))
    new, bias = exercises.normalise_once(weight, u)
    z = u @ new.T + bias
    rounding = len(u) * EPS * (np.abs(u) @ np.abs(new.T) + np.abs(bias)).max()
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=rounding)
    np.testing.assert_allclose(z.var(axis=0), 1, rtol=rounding)
    np.testing.assert_allclose(
        new / np.linalg.norm(new, axis=1, keepdims=True),
        weight / np.linalg.norm(weight, axis=1, keepdims=True),
        rtol=16 * EPS,
    )
