"""Bad input to the transform: each message says what was wrong, what it was, what it should be."""

import re

import numpy as np
import pytest
import scipy.sparse
import torch

from bncore.mechanics import transform

X = np.random.default_rng(0).standard_normal((6, 4))
ONES = np.ones(4)


def with_entry(a, index, value):
    a = a.copy()
    a[index] = value
    return a


BAD_FORWARD = {
    "ragged": (([[1.0, 2.0], [3.0]],), ValueError, "x is a list whose rows do not form an array"),
    "None": ((None,), TypeError, "x is a None, expected a numpy.ndarray or a list of numbers"),
    "matrix": ((np.matrix(X),), TypeError, "x is a matrix, expected a plain numpy.ndarray"),
    "masked": ((np.ma.array(X),), TypeError, "x is a MaskedArray, expected a plain numpy.ndarray"),
    "tensor": ((torch.ones(3, 2),), TypeError, "x is a torch Tensor, expected a numpy.ndarray: hand "
               "in x.detach().numpy(force=True)"),
    "sparse": ((scipy.sparse.eye_array(3),), TypeError, "x is a sparse dia_array, expected a dense"),
    "booleans": ((np.ones((3, 2), bool),), TypeError, "x has dtype bool, expected real numbers"),
    "objects": ((X.astype(object),), TypeError, "x has dtype object, expected real numbers"),
    "complex": ((X.astype(complex),), TypeError, "x has dtype complex128, expected real numbers"),
    "one axis": ((X[0],), ValueError, "x has shape (4,), expected at least two axes"),
    "no axis": ((np.array(1.0),), ValueError, "x has shape (), expected at least two axes"),
    "no features": ((X[:, :0],), ValueError, "x has shape (6, 0), expected at least one feature"),
    "empty": ((X[:0],), ValueError, "x has shape (0, 4), 0 values of each feature, expected at"),
    "no positions": ((np.ones((3, 2, 0)),), ValueError, "x has shape (3, 2, 0), 0 values of each"),
    "one sample": ((X[:1],), ValueError, "x has shape (1, 4), 1 values of each feature, expected at "
                   "least 2"),
    "one value": ((np.ones((1, 4, 1, 1)),), ValueError, "(1, 4, 1, 1), 1 values of each feature"),
    "NaN": ((with_entry(X, (3, 1), np.nan),), ValueError, "x[3, 1] is nan, expected finite"),
    "infinity": ((with_entry(X, (5, 0), -np.inf),), ValueError, "x[5, 0] is -inf, expected"),
    "wide": (
        (with_entry(X.astype(np.float32), (0, 2), 1e25),),
        ValueError,
        "x runs from .* to 1e+25 in feature 2, expected values whose squared distances sum to less "
        "than 3.4e+38, the largest float32; divide x by a constant",
    ),
    "widest": (
        (with_entry(with_entry(X, (0, 1), 1.7e308), (1, 1), -1.7e308),),
        ValueError,
        "x runs from -1.7e+308 to 1.7e+308 in feature 1, expected .* less than 1.8e+308",
    ),
    "gamma scalar": ((X, np.array(1.0)), ValueError, "gamma has shape (), expected (4,): one"),
    "gamma float": ((X, 1.0), TypeError, "gamma is a float, expected a numpy.ndarray or a list"),
    "gamma (1,)": ((X, ONES[:1]), ValueError, "gamma has shape (1,), expected (4,): one entry for "
                   "each of the 4 features of x"),
    "gamma (4, 1)": ((X, ONES[:, None]), ValueError, "gamma has shape (4, 1), expected (4,)"),
    "gamma list": ((X, [1, 2]), ValueError, "gamma has shape (2,), expected (4,)"),
    "gamma integer": ((X.astype("f2"), [1, 2, 3, 4099]), ValueError, "gamma[3] is 4099, which "
                      "float16 cannot hold exactly"),
    "beta (1, 4)": ((X, ONES, ONES[None]), ValueError, "beta has shape (1, 4), expected (4,)"),
    "beta NaN": ((X, None, with_entry(ONES, 2, np.nan)), ValueError, "beta[2] is nan, expected"),
    "eps zero": ((X, None, None, 0.0), ValueError, "eps is 0.0, expected a finite number above 0"),
    "eps negative": ((X, None, None, -1), ValueError, "eps is -1, expected a finite number above"),
    "eps NaN": ((X, None, None, np.nan), ValueError, "eps is nan, expected a finite number above"),
    "eps infinite": ((X, None, None, np.inf), ValueError, "eps is inf, expected a finite number"),
    "eps text": ((X, None, None, "1e-5"), TypeError, "eps is a str, expected a real number"),
    "eps boolean": ((X, None, None, True), TypeError, "eps is a bool, expected a real number"),
    "eps complex": ((X, None, None, 1j), TypeError, "eps is a complex, expected a real number"),
    "eps tiny": ((X.astype("f4"), None, None, 1e-40), ValueError, "eps is 1e-40, expected at least "
                 "1.18e-38: smaller variances underflow in float32"),
}  # fmt: skip


def pattern(message):
    return re.escape(message).replace(r"\.\*", ".*")


@pytest.mark.parametrize("case", BAD_FORWARD)
def test_forward_refuses(case, unchecked):
    arguments, kind, message = BAD_FORWARD[case]
    with pytest.raises(kind, match=pattern(message)):
        transform.forward(*arguments)


BAD_BACKWARD = {
    "text": (lambda dy: "dy", TypeError, "dy is a str, expected a numpy.ndarray or a list"),
    "booleans": (lambda dy: dy > 0, TypeError, "dy has dtype bool, expected real numbers"),
    "one row": (lambda dy: dy[:1], ValueError, "dy has shape (1, 4), expected (6, 4), that of the "
                "x in the cache: is the cache from another call?"),
    "more axes": (lambda dy: dy[..., None], ValueError, "dy has shape (6, 4, 1), expected (6, 4)"),
    "a row as a list": (lambda dy: dy[0].tolist(), ValueError, "dy has shape (4,), expected (6, 4)"),
    "extended": (lambda dy: dy.astype(np.longdouble) / 3, ValueError, "which float64 cannot hold"),
    "NaN": (lambda dy: with_entry(dy, (2, 3), np.nan), ValueError, "dy[2, 3] is nan, expected"),
    "infinity": (lambda dy: with_entry(dy, (0, 0), np.inf), ValueError, "dy[0, 0] is inf"),
    "huge": (lambda dy: np.full_like(dy, 1.7e308), ValueError, "dy reaches 1.7e+308 in magnitude, "
             "expected values whose products with x - mean sum to less than 1.8e+308; divide dy"),
}  # fmt: skip


@pytest.mark.parametrize("function", [transform.backward, transform.backward_steps])
@pytest.mark.parametrize("case", BAD_BACKWARD)
def test_backward_refuses(case, function, unchecked):
    spoil, kind, message = BAD_BACKWARD[case]
    cache = transform.forward(10 * X, ONES, ONES)[1]
    with pytest.raises(kind, match=pattern(message)):
        function(spoil(X.copy()), cache)


@pytest.mark.parametrize("function", [transform.backward, transform.backward_steps])
@pytest.mark.parametrize("cache", [None, (X, ONES), "cache"])
def test_backward_refuses_what_forward_did_not_return(function, cache, unchecked):
    kind = "None" if cache is None else type(cache).__name__
    with pytest.raises(TypeError, match=f"cache is a {kind}, expected the Cache that forward"):
        function(X, cache)


@pytest.mark.parametrize("function", [transform.backward, transform.backward_steps])
@pytest.mark.parametrize("shape", [(6, 4), (5000, 16), (8, 3, 20, 20)])
@pytest.mark.parametrize(
    "change",
    [lambda x: x.__iadd__(1), lambda x: np.maximum(x, 0, out=x), lambda x: x.sort(axis=0)],
    ids=["shifted", "rectified", "sorted"],
)
def test_backward_notices_that_the_batch_was_overwritten(function, shape, change):
    x = np.random.default_rng(0).standard_normal(shape)
    cache = transform.forward(x)[1]
    dy = np.ones(shape)
    function(dy, cache)
    change(x)
    with pytest.raises(ValueError, match="x was changed since forward, expected the values it had"):
        function(dy, cache)
