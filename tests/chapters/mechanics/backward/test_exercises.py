"""The reference answers of the chapter on backward, against other libraries and the package."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import batch_norm, layer_norm

from bncore.chapters.mechanics.backward import exercises
from bncore.mechanics import transform

EPS = np.finfo(np.float64).eps


def tensors(seed, *shapes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


def normalised(x, gamma, eps):
    return batch_norm(x[:, None], None, None, gamma, None, training=True, eps=eps)[:, 0]


def rounding(x, eps, *factors, terms=10, powers=3, axis=0):
    """Of a sum of so many products of the factors, and of so many powers of 1 / sqrt(var + eps).

    Deviations are off by the rounding of the largest value.
    """
    x = np.asarray(x)
    wide = (1 + np.abs(x).max()) / np.sqrt(x.var(axis=axis).min() + eps)
    return terms * EPS * (1 + wide) ** powers * np.prod([1 + np.abs(f).max() for f in factors])


@given(st.integers(0, 10**6), st.floats(1e-3, 1))
def test_a_batch_of_two(seed, eps):
    dy, x, gamma = tensors(seed, 2, 2, 1)
    x.requires_grad_()
    (dx,) = torch.autograd.grad(normalised(x, gamma, eps), x, dy)
    answer = exercises.batch_of_two(dy.numpy(), x.detach().numpy(), gamma.item(), eps)
    atol = rounding(x.detach(), eps, dy.numpy(), gamma.numpy())
    np.testing.assert_allclose(answer, dx.numpy(), rtol=0, atol=atol)


@given(st.integers(0, 10**6), st.integers(2, 9), st.floats(1e-3, 1))
def test_the_double_backward_pass(seed, m, eps):
    v, dy, x, gamma = tensors(seed, m, m, m, 1)
    for tensor in (dy, x, gamma):
        tensor.requires_grad_()
    (dx,) = torch.autograd.grad(normalised(x, gamma, eps), x, dy, create_graph=True)
    expected = torch.autograd.grad((v * dx).sum(), (x, dy, gamma))
    given_arrays = [tensor.detach().numpy() for tensor in (v, dy, x)]
    answer = exercises.double(*given_arrays, gamma.item(), eps)
    atol = rounding(given_arrays[2], eps, *given_arrays[:2], gamma.detach().numpy())
    for ours, theirs in zip(answer, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy().squeeze(), rtol=0, atol=atol)


@given(st.integers(0, 10**6), st.floats(1e-3, 1))
def test_layer_norm(seed, eps):
    dy, x, gamma = tensors(seed, (3, 5), (3, 5), 5)
    x.requires_grad_()
    (dx,) = torch.autograd.grad(layer_norm(x, (5,), gamma, eps=eps), x, dy)
    answer = exercises.layer_norm(dy.numpy(), x.detach().numpy(), gamma.numpy(), eps)
    atol = rounding(x.detach(), eps, dy.numpy(), gamma.numpy(), axis=1)
    np.testing.assert_allclose(answer, dx.numpy(), rtol=0, atol=atol)


@given(st.integers(0, 10**6), st.floats(1e-3, 1))
def test_the_gradient_from_the_output(seed, eps):
    dy, x, gamma, beta = tensors(seed, (6, 3), (6, 3), 3, 3)
    y, cache = transform.forward(x.numpy(), gamma.numpy(), beta.numpy(), eps)
    answer = exercises.from_output(dy.numpy(), y, gamma.numpy(), beta.numpy(), 1 / cache.inv_std)
    # y - beta, over gamma, is off by the rounding of beta over gamma.
    lost = 1 + (beta / gamma).abs().max().item()
    atol = rounding(x.numpy(), eps, dy.numpy(), gamma.numpy(), lost)
    np.testing.assert_allclose(answer, transform.backward(dy.numpy(), cache).dx, rtol=0, atol=atol)


@given(st.integers(0, 10**6), st.integers(3, 9))
def test_normalising_by_the_mean_absolute_deviation(seed, m):
    dy, x = tensors(seed, m, m)
    x.requires_grad_()
    centred = x - x.mean()
    (dx,) = torch.autograd.grad(centred / centred.abs().mean(), x, dy)
    answer = exercises.absolute_deviation(dy.numpy(), x.detach().numpy())
    atol = rounding(x.detach(), 0, dy.numpy())
    np.testing.assert_allclose(answer, dx.numpy(), rtol=0, atol=atol)


@given(st.integers(0, 10**6), st.integers(2, 6))
def test_that_projection_is_oblique_and_lengthens_by_the_ratio_of_the_deviations(seed, half):
    x = np.random.default_rng(seed).uniform(0.1, 3, size=(2, half))
    x[1] *= x[0].sum() / x[1].sum()
    x = np.concatenate([x[0], -x[1]])  # as many values above the mean as below, which is 0
    d = np.abs(x).mean()
    matrix = d * np.array([exercises.absolute_deviation(unit, x) for unit in np.eye(2 * half)]).T
    atol = rounding(x, 0, terms=4 * half)
    np.testing.assert_allclose(matrix @ matrix, matrix, rtol=0, atol=atol)
    np.testing.assert_allclose(np.ones(2 * half) @ matrix, 0, atol=atol)
    np.testing.assert_allclose(x @ matrix, 0, atol=atol * np.abs(x).sum())
    lengthened = np.linalg.norm(matrix, 2)
    np.testing.assert_allclose(lengthened, x.std() / d, rtol=0, atol=atol)
