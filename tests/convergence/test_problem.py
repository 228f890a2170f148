"""What every problem shares, against finite differences, torch, one another and its own identities."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncore.convergence import EmpiricalHalfspace, GaussianHalfspace, LeastSquares, losses
from bncore.convergence.network import GaussianNetwork

NAMES = ["softplus", "sigmoid", "tanh", "squared"]
EPS = np.finfo(np.float64).eps
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
STEP = 1e-5
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


def central(f, w, v):
    """The derivative of f along v, by central differences."""
    return (f(w + STEP * v) - f(w - STEP * v)) / (2 * STEP)


def third_and_fourth(problem):
    """What STEP^2 multiplies in central differences of values and gradients, at most.

    A sixth of sup |phi'''| and sup |phi''''|, 2 and 4.1 for tanh, times E |z|^3 and E |z|^4, which
    are at most sqrt(3) and 3 times powers of E |z|^2 for Gaussian z.
    """
    z = np.sqrt(np.trace(problem.S))
    return np.array([2 * np.sqrt(3) * z**3, 4.1 * 3 * z**4]) / 6


def error_of_ratios(problem, rounding):
    """Of rho: (u'w)^2 adds up |u| |w|, and w'Sw is mu |w|^2 at least."""
    return rounding(problem) * (problem.u @ problem.u) / problem.smallest_eigenvalue


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
def test_value_gradient_and_hessian_products_are_those_of_torch(
    seed, moments, cloud, near, error_of
):
    rng = np.random.default_rng(seed)
    for kind, problem in of_every_kind(moments, cloud, seed).items():
        w, v = rng.normal(size=(2, 4)) * 10 ** rng.uniform(-2, 0.5)
        tw = torch.tensor(w, requires_grad=True)
        value = torch_value(problem, tw)
        (gradient,) = torch.autograd.grad(value, tw, create_graph=True)
        (product,) = torch.autograd.grad(gradient @ torch.tensor(v), tw)
        of_value, of_gradient, of_product = 2 * error_of(problem, w, v)
        near(problem.value(w), value.item(), of_value, kind)
        if kind.startswith("Gaussian"):  # torch differentiates the deviation, where w'Sw - u'w^2
            of_product *= problem.condition_number / (1 + problem.rayleigh_optimum)  # cancels
        near(problem.gradient(w), gradient.detach().numpy(), of_gradient, kind)
        near(problem.hessian_product(w, v), product.numpy(), of_product, kind)


@pytest.mark.parametrize("seed", range(4))
def test_gradient_and_hessian_products_are_those_of_finite_differences(
    seed, moments, cloud, near, error_of
):
    rng = np.random.default_rng(seed)
    for kind, problem in of_every_kind(moments, cloud, seed, 3).items():
        w, v = rng.normal(size=(2, 3))
        slopes = [central(problem.value, w, e) for e in np.eye(3)]
        of_value, of_gradient, _ = error_of(problem, w) / STEP
        third, fourth = STEP**2 * third_and_fourth(problem)
        near(problem.gradient(w), slopes, of_value + third, kind)
        turn, size = central(problem.gradient, w, v), np.linalg.norm(v)
        near(problem.hessian_product(w, v), turn, of_gradient + fourth * size**3, kind)


@few
@given(seed=SEEDS)
def test_hessian_products_are_symmetric_and_within_the_smoothness(
    seed, moments, cloud, near, error_of
):
    rng = np.random.default_rng(seed)
    for kind, problem in of_every_kind(moments, cloud, seed, 3).items():
        w = rng.normal(size=3) * 10 ** rng.uniform(-2, 1)
        H = np.array([problem.hessian_product(w, e) for e in np.eye(3)])
        error = max(error_of(problem, w, e)[2] for e in np.eye(3))
        near(H, H.T, error, kind)
        largest = np.abs(np.linalg.eigvalsh((H + H.T) / 2)).max()
        assert largest <= problem.smoothness + 3 * error, kind


@few
@given(seed=SEEDS, t=st.sampled_from([-3.0, -0.1, 0.0, 0.4, 1.0, 20.0]))
def test_a_line_is_the_problem_along_the_multiples_of_a_direction(
    seed, t, moments, cloud, near, rounding, error_of
):
    w = np.random.default_rng(seed).normal(size=4)
    for kind, problem in of_every_kind(moments, cloud, seed).items():
        line, size = problem.line(w), np.linalg.norm(w)
        of_value, of_gradient, of_turn = error_of(problem, t * w)
        near(line.value(t), problem.value(t * w), of_value, kind)
        near(line.gradient(t), problem.gradient(t * w), of_gradient, kind)
        near(line.slope(t), w @ problem.gradient(t * w), of_gradient * size, kind)
        of_coefficients = of_gradient + of_turn * np.linalg.norm(problem.u)
        near(line.coefficients(t), problem.coefficients(t * w), of_coefficients, kind)
        error = rounding(problem) * size
        near(line.norm, problem.norm(w), error, kind)
        near(line.mean, problem.u @ w, error * np.linalg.norm(problem.u), kind)
        near(line.Sw, problem.S @ w, error * np.linalg.norm(problem.S, 2), kind)
        near(line.rayleigh, problem.rayleigh(w), error_of_ratios(problem, rounding), kind)


@few
@given(seed=SEEDS)
def test_two_coefficients_make_the_gradient(seed, moments, cloud, near, rounding, error_of):
    w = np.random.default_rng(seed).normal(size=4)
    for kind, problem in of_every_kind(moments, cloud, seed).items():
        c1, c2 = problem.coefficients(w)
        if kind.startswith("sample"):
            a = problem.Z @ w
            loss = problem.loss
            error = 2 * rounding(problem) * (1 + problem.norm(w))
            near(c2, np.mean(loss.d2phi(a)), error, kind)
            mean = np.mean(loss.dphi(a)) - np.mean(loss.d2phi(a)) * (problem.u @ w)
            near(c1, mean, error * (1 + np.linalg.norm(w) * np.linalg.norm(problem.u)), kind)
        else:
            expected = c1 * problem.u + c2 * problem.S @ w
            near(problem.gradient(w), expected, error_of(problem, w)[1], kind)


@few
@given(seed=SEEDS, a=st.sampled_from([-7.0, 1e-5, 0.3, 1e5]))
def test_the_rayleigh_quotient_its_gradient_and_its_minimum(
    seed, a, moments, cloud, near, rounding
):
    w = np.random.default_rng(seed).normal(size=4)
    for kind, problem in of_every_kind(moments, cloud, seed).items():
        u, S = problem.u, problem.S
        error = error_of_ratios(problem, rounding)
        rho, norm = problem.rayleigh(w), np.sqrt(w @ S @ w)
        near(rho, -((u @ w) ** 2) / (w @ S @ w), error, kind)
        near(problem.rayleigh(a * w), rho, error, kind)
        relative = rounding(problem) * problem.condition_number
        near(problem.norm(w), norm, relative * norm, kind)
        tw = torch.tensor(w, requires_grad=True)
        (-((torch.tensor(u) @ tw) ** 2) / (tw @ torch.tensor(S) @ tw)).backward()
        near(problem.rayleigh_gradient(w), tw.grad.numpy(), 4 * error / np.linalg.norm(w), kind)
        best = problem.rayleigh_optimum
        near(best, -u @ np.linalg.solve(S, u), relative * abs(best), kind)
        assert best <= rho + error, kind
        direction = problem.solution_direction
        near(problem.rayleigh(direction), best, relative * abs(best), kind)
        near(problem.norm(direction), 1.0, relative, kind)
        assert u @ direction < 0, kind
        # ||w||_S^2 ||grad rho||^2 in the metric of S^-1 is 4 |rho| (rho - rho*)
        slope = problem.rayleigh_gradient(w)
        measured = (w @ S @ w) * (slope @ np.linalg.solve(S, slope))
        near(measured, -4 * rho * (rho - best), 8 * error * abs(best), kind)


@few
@given(seed=SEEDS, condition=st.sampled_from([1.0, 10.0, 1e4]), size=st.sampled_from([1e-3, 1e3]))
def test_the_spectrum_is_that_of_numpy(seed, condition, size, moments, near):
    """Eigenvalues are known to d^2 roundings of the largest; scaling may add d to the condition."""
    u, S = moments(seed, 6, condition, size=size)
    values = np.linalg.eigvalsh(S)
    mu, L, error = values[0], values[-1], 6**2 * EPS
    for problem in (LeastSquares(u, S), GaussianHalfspace(u, S, "tanh")):
        assert problem.dimension == 6
        near(problem.smallest_eigenvalue, mu, 6 * error * L)
        near(problem.largest_eigenvalue, L, error * L)
        near(problem.condition_number, condition, 6 * error * condition**2)
    near(LeastSquares(u, S).smoothness, 2 * L, 2 * error * L)
    zeta = losses.get("tanh").curvature_bound * L
    near(problem.smoothness, zeta, error * zeta)


@few
@given(seed=SEEDS)
def test_a_rotation_of_the_data_rotates_the_problem(seed, moments, cloud, near, rounding, error_of):
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
        of_value, of_gradient, _ = error_of(one, w)
        near(other.value(Q @ w), one.value(w), of_value)
        near(other.gradient(Q @ w), Q @ one.gradient(w), of_gradient)
        error, best = rounding(one) * one.condition_number, one.rayleigh_optimum
        near(other.rayleigh_optimum, best, error * abs(best))
        solution = Q @ one.solution_direction
        near(other.solution_direction, solution, error * np.linalg.norm(solution))


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
