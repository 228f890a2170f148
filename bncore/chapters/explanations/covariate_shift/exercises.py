"""Exercises of the covariate shift chapter."""

import numpy as np
from hypothesis import strategies as st

from bncore.page.exercises import arguments, exercise, numbers


def _both_weights_move(a, b, c, rate):
    r = a * b - c
    a_new, b_new = a - rate * b * r, b - rate * a * r
    return (a_new * b_new - c) * a_new - a * r


def _first_order_only(a, b, c, rate):
    r = a * b - c
    return -rate * b * r * (a * b + r)


def _residual_kept(a, b, c, rate):
    r = a * b - c
    return r * (a - rate * b * r) - a * r


@exercise(
    "covariate-shift-two-weights",
    inputs=arguments(numbers(), numbers(), numbers(), numbers(0, 2, 0.25)),
    wrong=[_both_weights_move, _first_order_only, _residual_kept],
)
def two_weights(a, b, c, rate):
    """Return G' - G of the second weight b of the loss (a b - c)^2 / 2 after a step of the first."""
    r = a * b - c
    a_new = a - rate * b * r
    return (a_new * b - c) * a_new - a * r


def _linear_gradients(weights, x, y):
    """Gradient of the half mean squared error in each matrix of x -> W3 W2 W1 x."""
    inputs = [x]
    for W in weights:
        inputs.append(inputs[-1] @ W.T)
    back, found = (inputs[-1] - y) / len(x), []
    for W, entering in zip(weights[::-1], inputs[-2::-1], strict=True):
        found.append(back.T @ entering)
        back = back @ W
    return found[::-1]


def _shifts(W1, W2, W3, x, y, rate, moved_for):
    weights = [W1, W2, W3]
    before = _linear_gradients(weights, x, y)
    after = [W - rate * G for W, G in zip(weights, before, strict=True)]
    norms = []
    for i in range(3):
        mixed = [after[j] if moved_for(i, j) else weights[j] for j in range(3)]
        norms.append(np.linalg.norm(_linear_gradients(mixed, x, y)[i] - before[i]))
    return np.array(norms)


def _all_layers_moved(W1, W2, W3, x, y, rate):
    return _shifts(W1, W2, W3, x, y, rate, lambda i, j: True)


def _own_layer_moved(W1, W2, W3, x, y, rate):
    return _shifts(W1, W2, W3, x, y, rate, lambda i, j: j <= i)


def _only_the_layer_before(W1, W2, W3, x, y, rate):
    return _shifts(W1, W2, W3, x, y, rate, lambda i, j: j == i - 1)


@exercise(
    "covariate-shift-three-layers",
    inputs=arguments(
        "first inputs",
        "second first",
        "outputs second",
        "examples inputs",
        "examples outputs",
        numbers(0, 1, 0.25),
        inputs=1,
        first=(1, 2),
        second=1,
        outputs=1,
        examples=(1, 2),
    ),
    wrong=[_all_layers_moved, _own_layer_moved, _only_the_layer_before],
)
def three_layers(W1, W2, W3, x, y, rate):
    """Return the norm of each layer's shift in the linear network x -> W3 W2 W1 x."""
    return _shifts(W1, W2, W3, x, y, rate, lambda i, j: j < i)


def _whole_product(hessian, gradient, size, rate):
    product = rate * hessian @ gradient
    return np.array([np.linalg.norm(part) for part in np.split(product, 3)])


def _upper_blocks(hessian, gradient, size, rate):
    blocks = [slice(i * size, (i + 1) * size) for i in range(3)]
    return np.array(
        [
            rate * np.linalg.norm(hessian[block, block.stop :] @ gradient[block.stop :])
            for block in blocks
        ]
    )


def _symmetric(drawn):
    root, gradient, size, rate = drawn
    return root + root.T, gradient, size, rate


@exercise(
    "covariate-shift-first-order",
    inputs=st.integers(1, 2).flatmap(
        lambda size: arguments(
            "weights weights",
            "weights",
            st.just(size),
            numbers(0, 1, 0.25),
            weights=3 * size,
        ).map(_symmetric)
    ),
    wrong=[_whole_product, _upper_blocks],
)
def first_order(hessian, gradient, size, rate):
    """Return the norm of each layer's shift to first order, for three layers of `size` weights."""
    blocks = [slice(i * size, (i + 1) * size) for i in range(3)]
    return np.array(
        [
            rate * np.linalg.norm(hessian[block, : block.start] @ gradient[: block.start])
            for block in blocks
        ]
    )


def _never_negative(relative):
    return np.sqrt(max(1 - relative**2, 0))


def _one_minus(relative):
    return max(1 - relative, -1)


@exercise(
    "covariate-shift-worst-cosine",
    inputs=arguments(numbers(0, 4, 0.125).filter(lambda relative: relative != 1)),
    wrong=[_never_negative, _one_minus],
)
def worst_cosine(relative):
    """Return the smallest cosine that a shift of this length, relative to G, can leave."""
    return np.sqrt(1 - relative**2) if relative < 1 else -1.0
