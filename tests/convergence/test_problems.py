"""The three problems against finite differences, torch, one another and their own identities."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from bncore.convergence import EmpiricalHalfspace, GaussianHalfspace, LeastSquares, losses

NAMES = ["softplus", "sigmoid", "tanh", "squared"]
SEEDS = st.integers(0, 10**6)
few = settings(max_examples=12)
BY_TORCH = {
    "softplus": lambda a: torch.logaddexp(a, torch.zeros_like(a)),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "squared": lambda a: (1 + a) ** 2,
}
NODES = torch.linspace(-13, 13, 8001, dtype=torch.float64)
WEIGHTS = torch.exp(-(NODES**2) / 2)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def of_every_kind(moments, cloud, seed=0, dimension=4):
    u, S = moments(seed, dimension)
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(50, dimension)), rng.normal(size=50)
    return {
        "least squares": LeastSquares(u, S, 0.7),
        "least squares of data": LeastSquares.from_data(X, y),
        **{f"Gaussian {name}": GaussianHalfspace(u, S, name) for name in NAMES},
        **{
            f"sample {name}": EmpiricalHalfspace(cloud(seed, 50, dimension), name) for name in NAMES
        },
    }


def torch_value(problem, w):
    """The value by torch: a trapezoidal rule for the Gaussian, a mean for the sample."""
    if isinstance(problem, LeastSquares):
        u, S = torch.tensor(problem.u), torch.tensor(problem.S)
        return problem.value(np.zeros(problem.dimension)) + 2 * u @ w + w @ S @ w
    phi = BY_TORCH[problem.loss.name]
    if isinstance(problem, GaussianHalfspace):
        u, S = torch.tensor(problem.u), torch.tensor(problem.S)
        mean = u @ w
        return WEIGHTS @ phi(mean + torch.sqrt(w @ S @ w - mean**2) * NODES)
    return phi(torch.tensor(problem.Z) @ w).mean()


@pytest.mark.parametrize("seed", range(4))
def test_value_gradient_and_hessian_products_are_those_of_torch(seed, moments, cloud):
    rng = np.random.default_rng(seed)
    for kind, problem in of_every_kind(moments, cloud, seed).items():
        w, v = rng.normal(size=(2, 4)) * 10 ** rng.uniform(-2, 0.5)
        tw = torch.tensor(w, requires_grad=True)
        value = torch_value(problem, tw)
        (gradient,) = torch.autograd.grad(value, tw, create_graph=True)
        (product,) = torch.autograd.grad(gradient @ torch.tensor(v), tw)
        np.testing.assert_allclose(problem.value(w), value.item(), rtol=1e-11, err_msg=kind)
        for ours, theirs in (
            (problem.gradient(w), gradient.detach().numpy()),
            (problem.hessian_product(w, v), product.numpy()),
        ):
            size = 1e-9 * (1 + np.abs(theirs).max())
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=size, err_msg=kind)


@pytest.mark.parametrize("seed", range(4))
def test_gradient_and_hessian_products_are_those_of_finite_differences(seed, moments, cloud):
    rng = np.random.default_rng(seed)
    for kind, problem in of_every_kind(moments, cloud, seed, 3).items():
        w, v = rng.normal(size=(2, 3))
        h = 1e-5
        slopes = [
            (problem.value(w + h * e) - problem.value(w - h * e)) / (2 * h) for e in np.eye(3)
        ]
        np.testing.assert_allclose(problem.gradient(w), slopes, atol=3e-8, err_msg=kind)
        turn = (problem.gradient(w + h * v) - problem.gradient(w - h * v)) / (2 * h)
        np.testing.assert_allclose(problem.hessian_product(w, v), turn, atol=3e-8, err_msg=kind)


@few
@given(seed=SEEDS)
def test_hessian_products_are_symmetric_and_within_the_smoothness(seed, moments, cloud):
    rng = np.random.default_rng(seed)
    for kind, problem in of_every_kind(moments, cloud, seed, 3).items():
        w = rng.normal(size=3) * 10 ** rng.uniform(-2, 1)
        H = np.array([problem.hessian_product(w, e) for e in np.eye(3)])
        np.testing.assert_allclose(H, H.T, atol=1e-10 * np.abs(H).max(), err_msg=kind)
        largest = np.abs(np.linalg.eigvalsh((H + H.T) / 2)).max()
        assert largest <= problem.smoothness * (1 + 1e-9), kind


@few
@given(seed=SEEDS, t=st.sampled_from([-3.0, -0.1, 0.0, 0.4, 1.0, 20.0]))
def test_a_line_is_the_problem_along_the_multiples_of_a_direction(seed, t, moments, cloud):
    w = np.random.default_rng(seed).normal(size=4)
    for kind, problem in of_every_kind(moments, cloud, seed).items():
        line = problem.line(w)
        close = {"rtol": 1e-9, "atol": 1e-11, "err_msg": kind}
        np.testing.assert_allclose(line.value(t), problem.value(t * w), **close)
        np.testing.assert_allclose(line.gradient(t), problem.gradient(t * w), **close)
        np.testing.assert_allclose(line.slope(t), w @ problem.gradient(t * w), **close)
        np.testing.assert_allclose(line.coefficients(t), problem.coefficients(t * w), **close)
        np.testing.assert_allclose(line.norm, problem.norm(w), **close)
        np.testing.assert_allclose(line.mean, problem.u @ w, **close)
        np.testing.assert_allclose(line.Sw, problem.S @ w, **close)
        np.testing.assert_allclose(line.rayleigh, problem.rayleigh(w), **close)


@few
@given(seed=SEEDS)
def test_two_coefficients_make_the_gradient(seed, moments, cloud):
    w = np.random.default_rng(seed).normal(size=4)
    for kind, problem in of_every_kind(moments, cloud, seed).items():
        c1, c2 = problem.coefficients(w)
        if kind.startswith("sample"):
            a = problem.Z @ w
            loss = problem.loss
            assert c2 == pytest.approx(np.mean(loss.d2phi(a)), rel=1e-10, abs=1e-14)
            mean = np.mean(loss.dphi(a)) - np.mean(loss.d2phi(a)) * (problem.u @ w)
            assert c1 == pytest.approx(mean, rel=1e-9, abs=1e-12)
        else:
            expected = c1 * problem.u + c2 * problem.S @ w
            np.testing.assert_allclose(problem.gradient(w), expected, atol=1e-12, err_msg=kind)


@few
@given(seed=SEEDS, a=st.sampled_from([-7.0, 1e-5, 0.3, 1e5]))
def test_the_rayleigh_quotient_its_gradient_and_its_minimum(seed, a, moments, cloud):
    w = np.random.default_rng(seed).normal(size=4)
    for kind, problem in of_every_kind(moments, cloud, seed).items():
        u, S = problem.u, problem.S
        assert problem.rayleigh(w) == pytest.approx(-((u @ w) ** 2) / (w @ S @ w), rel=1e-9), kind
        assert problem.rayleigh(a * w) == pytest.approx(problem.rayleigh(w), rel=1e-9), kind
        assert problem.norm(w) == pytest.approx(np.sqrt(w @ S @ w), rel=1e-10), kind
        tw = torch.tensor(w, requires_grad=True)
        (-((torch.tensor(u) @ tw) ** 2) / (tw @ torch.tensor(S) @ tw)).backward()
        np.testing.assert_allclose(problem.rayleigh_gradient(w), tw.grad.numpy(), atol=1e-10)
        best = problem.rayleigh_optimum
        assert best == pytest.approx(-u @ np.linalg.solve(S, u), rel=1e-9), kind
        assert best <= problem.rayleigh(w) * (1 - 1e-12)
        direction = problem.solution_direction
        assert problem.rayleigh(direction) == pytest.approx(best, rel=1e-9), kind
        assert problem.norm(direction) == pytest.approx(1, rel=1e-9), kind
        assert u @ direction < 0, kind
        # ||w||_S^2 ||grad rho||^2 in the metric of S^-1 is 4 |rho| (rho - rho*)
        slope = problem.rayleigh_gradient(w)
        rho = problem.rayleigh(w)
        measured = (w @ S @ w) * (slope @ np.linalg.solve(S, slope))
        np.testing.assert_allclose(measured, -4 * rho * (rho - best), rtol=1e-7, atol=1e-12)


@few
@given(seed=SEEDS, condition=st.sampled_from([1.0, 10.0, 1e4]), size=st.sampled_from([1e-3, 1e3]))
def test_the_spectrum_is_that_of_numpy(seed, condition, size, moments):
    u, S = moments(seed, 6, condition, size=size)
    values = np.linalg.eigvalsh(S)
    for problem in (LeastSquares(u, S), GaussianHalfspace(u, S, "tanh")):
        assert problem.dimension == 6
        assert problem.smallest_eigenvalue == pytest.approx(values[0], rel=1e-9)
        assert problem.largest_eigenvalue == pytest.approx(values[-1], rel=1e-12)
        assert problem.condition_number == pytest.approx(condition, rel=1e-9)
    assert LeastSquares(u, S).smoothness == pytest.approx(2 * values[-1], rel=1e-12)
    zeta = losses.get("tanh").curvature_bound * values[-1]
    assert problem.smoothness == pytest.approx(zeta, rel=1e-12)


@few
@given(seed=SEEDS)
def test_moments_of_data_are_sample_means(seed):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(30, 4)), rng.normal(size=30)
    problem = LeastSquares.from_data(X, y)
    np.testing.assert_allclose(problem.u, -X.T @ y / 30, atol=1e-14)
    np.testing.assert_allclose(problem.S, X.T @ X / 30, atol=1e-14)
    w = rng.normal(size=4)
    assert problem.value(w) == pytest.approx(np.mean((y - X @ w) ** 2), rel=1e-12)
    expected = np.linalg.lstsq(X, y, rcond=None)[0]
    np.testing.assert_allclose(problem.closed_form, expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(problem.gradient(problem.closed_form), 0, atol=1e-12)
    labels = np.where(y > 0, 1.0, -1.0)
    halfspace = EmpiricalHalfspace.from_data(X, labels, "softplus")
    np.testing.assert_allclose(halfspace.u, -X.T @ labels / 30, atol=1e-14)
    np.testing.assert_allclose(halfspace.S, X.T @ X / 30, atol=1e-14)
    expected = np.mean(np.log1p(np.exp(-labels * (X @ w))))
    assert halfspace.value(w) == pytest.approx(expected, rel=1e-12)


@few
@given(seed=SEEDS)
def test_the_squared_loss_makes_every_problem_one_of_least_squares(seed, moments, cloud):
    u, S = moments(seed, 4)
    sample = EmpiricalHalfspace(cloud(seed), "squared")
    for problem in (GaussianHalfspace(u, S, "squared"), sample):
        twin = LeastSquares(problem.u, problem.S, 1.0)
        w, v = np.random.default_rng(seed).normal(size=(2, 4))
        assert problem.value(w) == pytest.approx(twin.value(w), rel=1e-11)
        np.testing.assert_allclose(problem.gradient(w), twin.gradient(w), rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(
            problem.hessian_product(w, v), twin.hessian_product(w, v), rtol=1e-10, atol=1e-11
        )
        assert problem.smoothness == pytest.approx(twin.smoothness, rel=1e-12)


@few
@given(seed=SEEDS)
def test_a_rotation_of_the_data_rotates_the_problem(seed, moments, cloud):
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    u, S = moments(seed, 4)
    Z, w = cloud(seed), rng.normal(size=4)
    turned = Q @ S @ Q.T
    pairs = [
        (LeastSquares(u, S), LeastSquares(Q @ u, (turned + turned.T) / 2)),
        *(
            pair
            for name in NAMES
            for pair in (
                (
                    GaussianHalfspace(u, S, name),
                    GaussianHalfspace(Q @ u, (turned + turned.T) / 2, name),
                ),
                (EmpiricalHalfspace(Z, name), EmpiricalHalfspace(Z @ Q.T, name)),
            )
        ),
    ]
    for one, other in pairs:
        assert other.value(Q @ w) == pytest.approx(one.value(w), rel=1e-10)
        np.testing.assert_allclose(other.gradient(Q @ w), Q @ one.gradient(w), atol=1e-10)
        assert other.rayleigh_optimum == pytest.approx(one.rayleigh_optimum, rel=1e-9)
        np.testing.assert_allclose(other.solution_direction, Q @ one.solution_direction, atol=1e-9)


@few
@given(seed=SEEDS, name=st.sampled_from(NAMES))
def test_relabelling_both_classes_changes_nothing(seed, name):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(40, 3)), rng.choice([-1.0, 1.0], size=40)
    w = rng.normal(size=3)
    one, other = (EmpiricalHalfspace.from_data(s * X, s * y, name) for s in (1.0, -1.0))
    assert one.value(w) == other.value(w)
    np.testing.assert_array_equal(one.gradient(w), other.gradient(w))
    np.testing.assert_array_equal(one.u, other.u)


def test_the_sample_comes_near_the_gaussian_at_the_rate_of_monte_carlo(moments):
    """The error of value and gradient falls like n^-1/2."""
    u, S = moments(1, 4, condition=5, share=0.4)
    root = np.linalg.cholesky(S - np.outer(u, u))
    w = np.array([0.6, -1.2, 0.4, 0.8])
    sizes = np.array([100, 1000, 10000, 100000])
    for name in NAMES:
        exact = GaussianHalfspace(u, S, name)
        errors = np.zeros((2, len(sizes), 12))
        for i, n in enumerate(sizes):
            for seed in range(errors.shape[2]):
                rng = np.random.default_rng([seed, n])
                sample = EmpiricalHalfspace(u + rng.normal(size=(n, 4)) @ root.T, name)
                errors[0, i, seed] = sample.value(w) - exact.value(w)
                errors[1, i, seed] = np.linalg.norm(sample.gradient(w) - exact.gradient(w))
        spread = np.sqrt((errors**2).mean(axis=2))
        for row in spread:
            rate = np.polyfit(np.log(sizes), np.log(row), 1)[0]
            assert -0.6 < rate < -0.4, (name, rate)
        # The standard error of the value is known: that of phi(z'w) over the square root of n.
        a = (u + np.random.default_rng(0).normal(size=(10**5, 4)) @ root.T) @ w
        expected = np.std(losses.get(name).phi(a)) / np.sqrt(sizes)
        assert (spread[0] < 1.8 * expected).all()
        assert (spread[0] > 0.4 * expected).all()


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csc_array, sparse.csr_matrix])
@pytest.mark.parametrize("name", NAMES)
def test_sparse_rows_equal_dense_ones(kind, name):
    rng = np.random.default_rng(0)
    Z = np.where(rng.random((80, 6)) < 0.3, rng.normal(-0.3, 1, size=(80, 6)), 0)
    w, v = rng.normal(size=(2, 6))
    dense, thin = EmpiricalHalfspace(Z, name), EmpiricalHalfspace(kind(Z), name)
    np.testing.assert_allclose(thin.u, dense.u, atol=1e-14)
    np.testing.assert_allclose(thin.S, dense.S, atol=1e-14)
    assert type(thin.S) is np.ndarray
    assert thin.value(w) == pytest.approx(dense.value(w), rel=1e-12)
    np.testing.assert_allclose(thin.gradient(w), dense.gradient(w), atol=1e-13)
    np.testing.assert_allclose(thin.hessian_product(w, v), dense.hessian_product(w, v), atol=1e-13)
    assert sparse.issparse(thin.Z)
    y = rng.choice([-1.0, 1.0], size=80)
    one = EmpiricalHalfspace.from_data(Z, y, name)
    other = EmpiricalHalfspace.from_data(kind(Z), y, name)
    assert sparse.issparse(other.Z)
    np.testing.assert_allclose(other.u, one.u, atol=1e-14)


def test_single_precision_data_stay_single_precision(cloud):
    Z = cloud(0, 300).astype(np.float32)
    problem = EmpiricalHalfspace(Z, "softplus")
    assert problem.Z is Z or np.shares_memory(problem.Z, Z)
    assert problem.Z.dtype == np.float32
    double = EmpiricalHalfspace(Z.astype(float), "softplus")
    w = np.array([0.5, -1.0, 0.3, 0.2])
    assert problem.value(w) == pytest.approx(double.value(w), rel=1e-5)
    np.testing.assert_allclose(problem.gradient(w), double.gradient(w), atol=1e-5)
    for y in (np.ones(300), np.ones(300, np.float32), np.ones(300, int)):
        for X in (-Z, sparse.csr_array(-Z)):
            assert EmpiricalHalfspace.from_data(X, y, "softplus").Z.dtype == np.float32


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_integer_data_are_taken_as_double_precision(kind):
    rng = np.random.default_rng(0)
    X, y, w = rng.integers(-3, 4, size=(30, 3)), rng.choice([-1, 1], size=30), rng.normal(size=3)
    expected = EmpiricalHalfspace.from_data(X.astype(float), y.astype(float), "softplus")
    for problem in (
        EmpiricalHalfspace.from_data(kind(X), y, "softplus"),
        EmpiricalHalfspace(kind(-y[:, None] * X), "softplus"),
    ):
        assert problem.value(w) == pytest.approx(expected.value(w), rel=1e-12)
        np.testing.assert_allclose(problem.gradient(w), expected.gradient(w), atol=1e-14)


def test_a_single_precision_problem_needs_no_second_copy_of_the_data():
    Z = np.random.default_rng(0).standard_normal((20000, 200), dtype=np.float32)
    w = np.full(200, 0.05)
    tracemalloc.start()
    try:
        problem = EmpiricalHalfspace(Z, "softplus")
        problem.gradient(w)
        problem.hessian_product(w, w)
        assert problem.condition_number < 2
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < Z.nbytes


def test_a_problem_keeps_its_own_moments(moments):
    u, S = moments(0)
    problems = [LeastSquares(u, S), GaussianHalfspace(u, S, "tanh")]
    w = np.ones(5)
    before = [p.gradient(w) for p in problems]
    u[:] = 0
    S[:] = np.eye(5)
    for problem, gradient in zip(problems, before, strict=True):
        np.testing.assert_array_equal(problem.gradient(w), gradient)


@pytest.mark.parametrize("module", ["bncore.convergence"])
def test_importing_the_wing_imports_no_heavy_library(module):
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = set(done.stdout.split())
    assert module in loaded
    for library in ("torch", "matplotlib", "ipywidgets", "sklearn", "IPython"):
        assert library not in loaded
