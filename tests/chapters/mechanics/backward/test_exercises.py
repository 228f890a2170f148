"""The reference answers of the chapter on backward, against other libraries and the package."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import batch_norm, layer_norm

from bncore.chapters.mechanics.backward import exercises
from bncore.mechanics import transform


def tensors(seed, *shapes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


def normalised(x, gamma, eps):
    return batch_norm(x[:, None], None, None, gamma, None, training=True, eps=eps)[:, 0]


@given(st.integers(0, 10**6), st.floats(1e-3, 1))
def test_a_batch_of_two(seed, eps):
    dy, x, gamma = tensors(seed, 2, 2, 1)
    x.requires_grad_()
    (dx,) = torch.autograd.grad(normalised(x, gamma, eps), x, dy)
    answer = exercises.batch_of_two(dy.numpy(), x.detach().numpy(), gamma.item(), eps)
    np.testing.assert_allclose(answer, dx.numpy(), atol=1e-10 / eps)


@given(st.integers(0, 10**6), st.integers(2, 9), st.floats(1e-3, 1))
def test_the_double_backward_pass(seed, m, eps):
    v, dy, x, gamma = tensors(seed, m, m, m, 1)
    for tensor in (dy, x, gamma):
        tensor.requires_grad_()
    (dx,) = torch.autograd.grad(normalised(x, gamma, eps), x, dy, create_graph=True)
    expected = torch.autograd.grad((v * dx).sum(), (x, dy, gamma))
    given_arrays = [tensor.detach().numpy() for tensor in (v, dy, x)]
    answer = exercises.double(*given_arrays, gamma.item(), eps)
    for ours, theirs in zip(answer, expected, strict=True):
        scale = 1 + np.abs(theirs.numpy()).max()
        np.testing.assert_allclose(ours / scale, theirs.numpy().squeeze() / scale, atol=1e-9)


@given(st.integers(0, 10**6), st.floats(1e-3, 1))
def test_layer_norm(seed, eps):
    dy, x, gamma = tensors(seed, (3, 5), (3, 5), 5)
    x.requires_grad_()
    (dx,) = torch.autograd.grad(layer_norm(x, (5,), gamma, eps=eps), x, dy)
    answer = exercises.layer_norm(dy.numpy(), x.detach().numpy(), gamma.numpy(), eps)
    np.testing.assert_allclose(answer, dx.numpy(), atol=1e-10)


@given(st.integers(0, 10**6), st.floats(1e-3, 1))
def test_the_gradient_from_the_output(seed, eps):
    dy, x, gamma, beta = tensors(seed, (6, 3), (6, 3), 3, 3)
    y, cache = transform.forward(x.numpy(), gamma.numpy(), beta.numpy(), eps)
    answer = exercises.from_output(dy.numpy(), y, gamma.numpy(), beta.numpy(), 1 / cache.inv_std)
    np.testing.assert_allclose(answer, transform.backward(dy.numpy(), cache).dx, atol=1e-9)


@given(st.integers(0, 10**6), st.integers(3, 9))
def test_normalising_by_the_mean_absolute_deviation(seed, m):
    dy, x = tensors(seed, m, m)
    x.requires_grad_()
    centred = x - x.mean()
    (dx,) = torch.autograd.grad(centred / centred.abs().mean(), x, dy)
    answer = exercises.absolute_deviation(dy.numpy(), x.detach().numpy())
    np.testing.assert_allclose(answer, dx.numpy(), rtol=1e-9, atol=1e-9)
