"""The closed form of two linear layers against torch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bncore.explanations.covariate_shift import gradient_shift
from bncore.explanations.two_layers import two_linear_layers

SEEDS = st.integers(0, 10**6)
EPS = np.finfo(np.float64).eps


def half_square(outputs, targets):
    return ((outputs - targets) ** 2).sum() / (2 * len(targets))


def batch(seed, inputs=5, outputs=3, examples=12):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, inputs, generator=generator, dtype=torch.float64)
    return x, torch.randn(examples, outputs, generator=generator, dtype=torch.float64)


@given(
    SEEDS,
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 4),
    st.floats(0, 2),
)
def test_two_linear_layers_have_the_closed_form(seed, inputs, hidden, outputs, rate):
    x, y = batch(seed, inputs, outputs)
    model = nn.Sequential(
        nn.Linear(inputs, hidden, bias=False), nn.Linear(hidden, outputs, bias=False)
    )
    model = model.double()
    weights = [p.detach().numpy() for p in model.parameters()]
    C, D = (x.T @ x / len(x)).numpy(), (y.T @ x / len(x)).numpy()
    before, after = two_linear_layers(*weights, C, D, rate)
    shift = gradient_shift(model, half_square, x, y, rate)
    # Sums over the examples of what the closed form multiplies and subtracts.
    one, two, c, d = map(np.linalg.norm, (*weights, C, D))
    r = two * one * c + d
    rounding = 8 * len(x) * EPS * (1 + rate * two**2 * c) * r * (one + rate * two * r)
    assert shift.before[1] == pytest.approx(np.linalg.norm(before), abs=rounding)
    assert shift.after[1] == pytest.approx(np.linalg.norm(after), abs=rounding)
    assert shift.norm[1] == pytest.approx(np.linalg.norm(after - before), abs=rounding)


def test_two_scalars_worked_by_hand():
    # L = (2 a b - 1)^2 / 2 at a = 1, b = 2: R = 3, G = 2 * 3 * 1; a moves by -0.1 * 2 * 3 * 2.
    one = np.ones((1, 1))
    before, after = two_linear_layers(one, 2 * one, 2 * one, one, 0.1)
    assert before.item() == 3
    moved = 1 - 0.1 * 2 * 3
    assert after.item() == pytest.approx((2 * moved * 2 - 1) * moved, abs=16 * EPS)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"W1": np.ones(2)}, ValueError, r"W1 has shape \(2,\), expected a matrix"),
        ({"W1": "a"}, TypeError, "W1 is a str, expected a numpy.ndarray or a list"),
        ({"W1": np.ones((0, 2))}, ValueError, r"W1 has shape \(0, 2\), expected a matrix with"),
        ({"D": np.full((4, 2), np.nan)}, ValueError, r"D\[0, 0\] is nan, expected finite"),
        (
            {"C": np.array([[1.0, 2.0], [0.0, 1.0]])},
            ValueError,
            r"C is not symmetric, expected second moments E\[x x'\]",
        ),
        *(
            ({"C": np.array([[large, 1], [0, 1]], dtype)}, ValueError, "C is not symmetric")
            for dtype, large in ((float, 1e3), (float, 9e5), (np.float16, 6e4))
        ),
        ({"W2": np.ones((4, 2))}, ValueError, r"W2 has shape \(4, 2\), expected \(4, 3\)"),
        ({"C": np.ones((3, 3))}, ValueError, r"C has shape \(3, 3\), expected \(2, 2\)"),
        ({"D": np.ones((2, 4))}, ValueError, r"D has shape \(2, 4\), expected \(4, 2\)"),
        ({"learning_rate": -1}, ValueError, "learning_rate is -1"),
    ],
)
def test_matrices_that_do_not_fit_are_refused(unchecked, arguments, error, message):
    shapes = {"W1": (3, 2), "W2": (4, 3), "C": (2, 2), "D": (4, 2)}
    call = {name: np.ones(shape) for name, shape in shapes.items()} | {"learning_rate": 0.1}
    with pytest.raises(error, match=message):
        two_linear_layers(**(call | arguments))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_second_moments_apart_in_their_last_digit_are_symmetric_enough(dtype):
    rng, one, above = np.random.default_rng(0), np.ones, np.triu_indices(4, 1)
    for _ in range(100):
        x = rng.normal(size=(200, 4)) * 10 ** rng.uniform(-1, 0, size=4)
        C = (x.T @ x / len(x)).astype(dtype)
        C[above] = np.nextafter(C[above], dtype(0))
        assert (C[above] != C.T[above]).all()
        two_linear_layers(one((3, 4), dtype), one((2, 3), dtype), C, one((2, 4), dtype), 0.1)


def test_lists_are_taken_and_what_leaves_the_range_is_refused():
    expected = two_linear_layers(np.eye(2), np.ones((1, 2)), np.eye(2), np.zeros((1, 2)), 0.1)
    found = two_linear_layers([[1, 0], [0, 1]], [[1, 1]], [[1, 0], [0, 1]], [[0, 0]], 0.1)
    np.testing.assert_array_equal(found.before, expected.before)
    np.testing.assert_array_equal(found.after, expected.after)
    half = np.eye(2, dtype=np.float16)
    assert two_linear_layers(half, [[1, 1]], half, [[0, 0]], 0.1).after.dtype == np.float16
    with pytest.raises(ValueError, match=r"the gradient\[0, 0\] is .*, beyond the largest float16"):
        two_linear_layers(300 * half, [[300, 300]], half, [[0, 0]], 0.1)
