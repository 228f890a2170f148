"""Examples that callers hand in, dense and sparse."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from bncore.convergence import EmpiricalHalfspace, LeastSquares, data

EPS = np.finfo(np.float64).eps
Z = np.random.default_rng(0).normal(-0.3, 1, size=(40, 2))


def with_entry(a, index, value):
    a = a.copy()
    a[index] = value
    return a


SAMPLES = {
    "vector": (Z[:, 0], ValueError, "Z has shape (40,), expected 2 axes"),
    "no rows": (Z[:0], ValueError, "Z has shape (0, 2), expected at least one sample"),
    "no columns": (Z[:, :0], ValueError, "Z has shape (40, 0), expected at least one"),
    "NaN": (with_entry(Z, (3, 1), np.nan), ValueError, "Z[3, 1] is nan, expected finite"),
    "complex": (Z.astype(complex), TypeError, "Z has dtype complex128, expected real"),
    "sparse NaN": (
        sparse.csr_array(with_entry(Z, (3, 1), np.nan)),
        ValueError,
        "Z.* is nan, expected finite",
    ),
    "sparse and empty": (
        sparse.csr_array((0, 2)),
        ValueError,
        "Z has shape (0, 2), expected at least one sample",
    ),
}


@pytest.mark.parametrize("case", SAMPLES)
def test_samples_are_refused(case, refuses):
    value, error, message = SAMPLES[case]
    refuses(message, EmpiricalHalfspace, value, "softplus", kind=error)


# ---- sparse ----

FORMATS = ["bsr", "coo", "csc", "csr", "dia", "dok", "lil"]
KINDS = [
    *(getattr(sparse, f"{name}_array") for name in FORMATS),
    *(getattr(sparse, f"{name}_matrix") for name in FORMATS),
]


def thin(seed=0, shape=(24, 6)):
    """Small integers, mostly 0: sums of them are exact."""
    rng = np.random.default_rng(seed)
    X = np.where(rng.random(shape) < 0.3, rng.integers(-4, 5, size=shape), 0)
    X[0] = 1
    return X.astype(float), rng.choice([-1.0, 1.0], size=shape[0])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.int8, np.uint16])
def test_every_kind_of_sparse_matrix_is_taken_alike(kind, dtype, near):
    X, y = thin()
    X = np.abs(X) if dtype == np.uint16 else X
    w = np.random.default_rng(1).normal(size=6)
    for make in (
        lambda X: EmpiricalHalfspace.from_data(X, y), EmpiricalHalfspace
    ):  # fmt: skip
        dense, problem = make(X.astype(dtype)), make(kind(X.astype(dtype)))
        assert isinstance(problem.Z, sparse.csr_array)
        assert problem.Z.dtype == dense.Z.dtype
        np.testing.assert_array_equal(problem.Z.toarray(), dense.Z)
        np.testing.assert_array_equal(problem.u, dense.u)
        np.testing.assert_array_equal(problem.S, dense.S)
        # 6 products a score, and 24 terms; slope and bend are 1 and 1/4 at most
        scores = np.abs(X) @ np.abs(w)
        error = (6 + 24) * np.finfo(dense.Z.dtype).eps * (1 + scores)
        near(problem.value(w), dense.value(w), error.mean())
        near(problem.gradient(w), dense.gradient(w), error @ np.abs(X) / 24)
        product = problem.hessian_product(w, w), dense.hessian_product(w, w)
        near(*product, (error * scores / 4) @ np.abs(X) / 24)


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_indices_of_either_size_explicit_zeros_and_repeated_entries_are_taken(index):
    X, _ = thin()
    rows, columns = (a.astype(index) for a in np.indices(X.shape).reshape(2, -1))
    entries = X.reshape(-1)
    full = sparse.coo_array((entries, (rows, columns)), shape=X.shape)
    assert full.nnz == X.size
    split = sparse.coo_array(
        (np.r_[entries / 2, entries / 2], (np.r_[rows, rows], np.r_[columns, columns])), X.shape
    )
    for Z in (full, split, full.tocsr(), split.tocsc()):
        np.testing.assert_array_equal(EmpiricalHalfspace(Z).S, EmpiricalHalfspace(X).S)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_place_of_what_is_no_number_is_named(kind, value, refuses):
    X, y = thin()
    X[5, 2] = value
    refuses(f"Z[5, 2] is {value}, expected finite values only", EmpiricalHalfspace, kind(X))
    message = f"X[5, 2] is {value}, expected finite values only"
    refuses(message, EmpiricalHalfspace.from_data, kind(X), y)
    refuses(message, EmpiricalHalfspace.from_data, X, y)


def test_padding_that_is_no_entry_is_not_looked_at():
    padded = sparse.dia_array((np.array([[1.0, 2.0, np.nan]]), [-1]), shape=(3, 3))
    assert EmpiricalHalfspace(padded).u.tolist() == [1 / 3, 2 / 3, 0.0]


def test_compressed_rows_are_not_copied():
    X = sparse.csr_array(thin()[0])
    assert np.shares_memory(EmpiricalHalfspace(X).Z.data, X.data)


def test_other_kinds_are_refused(refuses):
    X, y = thin()
    for kind, name in ((bool, "bool"), (complex, "complex128")):
        wrong = {"kind": TypeError}
        message = f"has dtype {name}, expected real numbers"
        refuses(f"Z {message}", EmpiricalHalfspace, sparse.csr_array(X.astype(kind)), **wrong)
        refuses(f"X {message}", EmpiricalHalfspace.from_data, X.astype(kind), y, **wrong)
    refuses("Z has shape (6,), expected 2 axes", EmpiricalHalfspace, sparse.coo_array(X[0]))
    tensor = torch.tensor(X)
    message = "Z is a torch Tensor, expected a numpy.ndarray: hand in Z.detach()"
    refuses(message, EmpiricalHalfspace, tensor, kind=TypeError)
    refuses("y is a torch Tensor", EmpiricalHalfspace.from_data, X, tensor[0], kind=TypeError)
    refuses("y is a sparse", EmpiricalHalfspace.from_data, X, sparse.csr_array(X), kind=TypeError)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array, sparse.csc_matrix])
@pytest.mark.parametrize(
    ("dtype", "size"),
    [(np.float64, 1e160), (np.float64, 1e-160), (np.float32, 1e31), (np.float32, 1e-31)],
)
def test_columns_out_of_range_are_refused(kind, dtype, size, refuses):
    X, y = thin()
    X[:, 1] *= size
    for sign in (1, -1):
        examples = kind((sign * X).astype(dtype))
        refuses("Z[:, 1] has entries up to 4e.*, expected between", EmpiricalHalfspace, examples)
        refuses(
            "X[:, 1] has entries up to 4e.*, expected between", LeastSquares.from_data, examples, y
        )
    X[:, 1] = 0
    EmpiricalHalfspace(kind(X.astype(dtype)))


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), blocks=st.integers(1, 3))
def test_moments_are_summed_over_every_block(seed, blocks):
    """Integers, whose sums are exact in any order."""
    rng = np.random.default_rng(seed)
    n = (blocks - 1) * (data.BLOCK // 40) + int(rng.integers(1, 500))
    X = rng.integers(-3, 4, size=(n, 40)).astype(np.float32)
    np.testing.assert_array_equal(data.second_moments(X), np.rint(X.T.astype(float) @ X) / n)
    np.testing.assert_array_equal(data.mean(X), X.sum(axis=0, dtype=np.int64) / n)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_moments_of_single_precision_are_summed_in_double(kind, near):
    X = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    expected = X.astype(np.float64)
    error = 500 * EPS * np.mean(expected**2, axis=0).max()
    near(data.second_moments(kind(X)), expected.T @ expected / 500, error)
    near(data.mean(kind(X)), expected.mean(axis=0), 500 * EPS * np.abs(expected).mean(axis=0))


def test_lists_are_taken():
    X, y = thin()
    one = EmpiricalHalfspace.from_data(X, y)
    for rows, labels in ((X.tolist(), y.tolist()), (tuple(map(tuple, X)), [int(v) for v in y])):
        np.testing.assert_array_equal(EmpiricalHalfspace.from_data(rows, labels).Z, one.Z)
    np.testing.assert_array_equal(EmpiricalHalfspace(X.tolist()).Z, X)
