"""What every problem shares, against finite differences, torch, one another and its own identities."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncore.convergence import EmpiricalHalfspace, GaussianHalfspace, LeastSquares, losses
from bncore.convergence.network import GaussianNetwork

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
U, S = np.array([0.3, -0.2]), np.array([[1.0, 0.2], [0.2, 0.8]])
Z = np.random.default_rng(0).normal(-0.3, 1, size=(40, 2))
W = np.array([1.0, 0.5])
PROBLEMS = {
    "least squares": LeastSquares(U, S),
    "Gaussian": GaussianHalfspace(U, S, "softplus"),
    "sample": EmpiricalHalfspace(Z, "softplus"),
    "unit": GaussianNetwork(U, S, np.ones(1)).unit(0, np.zeros((1, 2))),
}
METHODS = ["value", "gradient", "rayleigh", "rayleigh_gradient", "norm", "coefficients"]


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


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("method", METHODS)
def test_weights_are_refused(problem, method, refuses):
    function = getattr(PROBLEMS[problem], method)
    refuses(
        "w has shape (3,), expected (2,): one entry for each of the 2 features of the problem",
        function,
        np.ones(3),
    )
    refuses("w has shape (1, 2), expected (2,): one entry", function, W[None])
    refuses("w[1] is nan, expected finite", function, np.array([1, np.nan]))
    if method.startswith("rayleigh"):
        refuses("w is 0, expected a direction", function, 0 * W)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_arguments_of_hessian_products_are_refused(problem, refuses):
    function = PROBLEMS[problem].hessian_product
    refuses("w has shape (3,), expected (2,)", function, np.ones(3), W)
    refuses("v has shape (3,), expected (2,)", function, W, np.ones(3))
    refuses("v[0] is inf, expected finite", function, W, np.array([np.inf, 0]))


def test_hessian_products_beyond_float64_are_refused(refuses):
    wide, W0 = 64 * S, np.zeros((2, 2))
    v = 1e308 * np.ones(2)
    for problem in (
        LeastSquares(U, wide),
        GaussianHalfspace(U, wide),
        EmpiricalHalfspace(8 * Z),
        GaussianNetwork(U, wide, np.ones(2)).unit(0, W0),
    ):
        assert np.isfinite(problem.hessian_product(0 * v, 1e-4 * v)).all()
        refuses("leaves the range of float64", problem.hessian_product, 0 * v, v)
