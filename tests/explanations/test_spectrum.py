"""Products with second derivatives, ends of a spectrum, and its density by Lanczos quadrature."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from scipy.stats import wasserstein_distance
from torch import nn
from torch.nn.functional import cross_entropy

from bncore.explanations import landscape, spectrum
from bncore.lab import networks

seeds = st.integers(0, 10**6)
EPS = np.finfo(np.float64).eps


def symmetric(seed, n=None):
    rng = np.random.default_rng(seed)
    n = n or int(rng.integers(1, 30))
    A = rng.normal(size=(n, n))
    return (A + A.T) / 2


def batch(inputs=5, count=16, classes=3):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, inputs, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (count,), generator=generator)


def dense(model, x, y, units):
    """The second derivatives by the weight matrices, column by column, by double backward."""
    chosen = list(landscape.weights(model).values())
    scales = [s.expand(p.shape).reshape(-1) for s, p in zip(
        landscape.unit_scales(model, units), chosen, strict=True)]  # fmt: skip
    slopes = torch.autograd.grad(cross_entropy(model(x), y), chosen, create_graph=True)
    flat, scales = torch.cat([g.reshape(-1) for g in slopes]), torch.cat(scales)
    rows = [torch.autograd.grad(entry, chosen, retain_graph=True) for entry in flat]
    H = torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])
    return (scales[:, None] * H * scales).numpy()


def rounding(matrix, examples=16, eps=EPS):
    """Of second derivatives, which are means over a batch."""
    return 4 * examples * eps * np.abs(matrix).max()


def grown(A, off):
    """Rounding in the Lanczos process; a step grows it by the norm over an off-diagonal entry."""
    return 100 * EPS * np.linalg.norm(A) * np.prod(1 + np.linalg.norm(A) / off)


@pytest.mark.parametrize("normalization", [None, "batch"])
@pytest.mark.parametrize("units", landscape.UNITS)
def test_products_are_those_of_the_dense_matrix(normalization, units):
    x, y = batch()
    model = networks.mlp((5, 4, 3), "tanh", normalization, seed=2).double()
    operator = spectrum.hessian_operator(model, x, y, units)
    ours, exact = operator.matmat(np.eye(operator.shape[0])), dense(model, x, y, units)
    atol = rounding(exact)
    np.testing.assert_allclose(ours, exact, rtol=0, atol=atol)
    single = np.column_stack([operator.matvec(unit) for unit in np.eye(len(ours))])
    np.testing.assert_allclose(single, ours, rtol=0, atol=atol)
    sums = operator.T.matvec(np.ones(len(ours)))
    np.testing.assert_allclose(sums, exact.sum(axis=1), rtol=0, atol=len(ours) * atol)


def test_convolutions_have_products_too():
    x, y = batch(count=8)
    images = x.reshape(8, 1, 1, 5).repeat(1, 1, 5, 1)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(18, 3)
    ).double()  # fmt: skip
    operator = spectrum.hessian_operator(model, images, y, "relative")
    ours, exact = operator.matmat(np.eye(operator.shape[0])), dense(model, images, y, "relative")
    np.testing.assert_allclose(ours, exact, rtol=0, atol=rounding(exact))


def test_the_operator_keeps_to_the_model_it_was_given():
    x, y = batch()
    model = networks.mlp((5, 4, 3), "tanh", "batch", seed=2).double().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    operator = spectrum.hessian_operator(model, x, y)
    vector = np.arange(float(operator.shape[0]))
    first = operator.matvec(vector)
    assert not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    with torch.no_grad():
        model.output.weight.mul_(3)
    np.testing.assert_allclose(operator.matvec(vector), first, rtol=0, atol=rounding(first))


def test_single_precision_inside_is_double_outside():
    x, y = batch()
    model = networks.mlp((5, 4, 3), "tanh", "batch", seed=2)
    found = spectrum.hessian_operator(model, x.float(), y)
    exact = spectrum.hessian_operator(model.double(), x, y)
    n, single = found.shape[0], np.finfo(np.float32).eps
    assert found.matvec(np.ones(n)).dtype == np.float64
    ours, theirs = found.matmat(np.eye(n)), exact.matmat(np.eye(n))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=rounding(theirs, eps=single))


@settings(max_examples=30)
@given(seeds)
def test_extremes_are_the_ends_of_the_dense_spectrum(seed):
    A = symmetric(seed, 25)
    for tol in (1e-3, 1e-9):
        found = spectrum.extremes(aslinearoperator(A), tol=tol)
        np.testing.assert_allclose(found, np.linalg.eigvalsh(A)[[0, -1]], rtol=tol)


@settings(max_examples=60)
@given(seeds)
def test_all_steps_give_the_measure_of_the_vector(seed):
    A = symmetric(seed)
    probe = np.random.default_rng(seed).normal(size=len(A))
    values, vectors = np.linalg.eigh(A)
    nodes, weights = spectrum.quadrature(
        *spectrum.tridiagonal(aslinearoperator(A), probe, len(A))
    )  # fmt: skip
    # Full orthogonalisation keeps the process as accurate as the decomposition.
    atol = 16 * len(A) * EPS * np.abs(values).max()
    np.testing.assert_allclose(nodes, values, rtol=0, atol=atol)
    shares, gap = (vectors.T @ probe / np.linalg.norm(probe)) ** 2, np.diff(values).min(initial=1)
    np.testing.assert_allclose(weights, shares, rtol=0, atol=atol / gap)


@settings(max_examples=60)
@given(seeds, st.integers(1, 5))
def test_moments_up_to_twice_the_steps_minus_one_are_exact(seed, steps):
    A = symmetric(seed, 12) / 5
    operator = aslinearoperator(A)
    found = spectrum.lanczos(operator, steps, probes=3, seed=seed)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(3, 12))
    for power in range(2 * steps + 1):
        exact = np.einsum("pi,ij,pj->p", signs, np.linalg.matrix_power(A, power), signs) / 12
        apart = np.abs(found.moments(power) - exact).max()
        rounded = 16 * 12 * EPS * (1 + power) * np.linalg.norm(A, 2) ** power
        assert apart <= rounded if power < 2 * steps else apart > rounded


def test_a_leading_part_is_a_shorter_run():
    A = symmetric(3, 20)
    probe = np.random.default_rng(1).normal(size=20)
    long, short = (spectrum.tridiagonal(aslinearoperator(A), probe, steps) for steps in (15, 6))
    np.testing.assert_allclose(long[0][:6], short[0], rtol=0, atol=grown(A, short[1]))
    np.testing.assert_allclose(long[1][:5], short[1], rtol=0, atol=grown(A, short[1]))


def test_no_copies_of_a_converged_eigenvalue_appear():
    # Without reorthogonalisation the isolated eigenvalue would be found again and again.
    values = np.append(np.linspace(0, 1, 199), 1e4)
    operator = aslinearoperator(np.diag(values))
    nodes, _ = spectrum.quadrature(*spectrum.tridiagonal(operator, np.ones(200), 80))
    assert (nodes > 2).sum() == 1


def test_an_invariant_subspace_ends_the_run():
    operator = aslinearoperator(np.diag([2.0] * 4 + [5.0] * 4))
    diagonal, off = spectrum.tridiagonal(operator, np.ones(8), 8)
    assert (len(diagonal), len(off)) == (2, 1)
    found = spectrum.lanczos(operator, 6, probes=2)
    assert found.nodes.shape == (2, 6)
    for ours, exact in (
        (found.weights.sum(axis=1), 1),
        (np.sort(found.nodes)[:, [0, -1]], [[2, 5]] * 2),
        (found.moments(1), 3.5),
        (found.below(np.array([1.0, 3.0, 6.0])), [[0, 0.5, 1]] * 2),
    ):
        np.testing.assert_allclose(ours, exact, rtol=0, atol=8 * 8 * EPS)


@pytest.fixture(scope="module")
def network():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(64, 10, generator=generator, dtype=torch.float64)
    y = torch.randint(4, (64,), generator=generator)
    model = networks.mlp((10, 8, 8, 4), "relu", "batch", gain=2**0.5, seed=0).double()
    operator = spectrum.hessian_operator(model, x, y)
    return operator, dense(model, x, y, "absolute")


def test_moments_of_a_network_are_exact_within_their_sampling_error(network):
    operator, H = network
    n, probes = len(H), 40
    found = spectrum.lanczos(operator, 12, probes)
    for power in (1, 2, 3, 4):
        A = np.linalg.matrix_power(H, power)
        deviation = np.sqrt(2 * ((A**2).sum() - (np.diag(A) ** 2).sum())) / n
        error = found.moments(power).mean() - np.trace(A) / n
        assert abs(error) < 4 * deviation / probes**0.5
        spread = found.moments(power).std(ddof=1)
        assert abs(spread / deviation - 1) < 4 / (2 * (probes - 1)) ** 0.5


def test_the_density_of_a_network_approaches_the_dense_one(network):
    operator, H = network
    eigenvalues = np.linalg.eigvalsh(H)
    apart = []
    for steps in (2, 5, 15, 40):
        found = spectrum.lanczos(operator, steps, probes=20)
        apart.append(
            wasserstein_distance(
                found.nodes.ravel(), eigenvalues, found.weights.ravel() / len(found.weights)
            )
        )
    reach = eigenvalues[-1] - eigenvalues[0]
    assert apart[0] > apart[1] > apart[2]
    assert apart[-1] < 0.01 * reach
    # Forty steps reach the ends.
    ends = np.tile(eigenvalues[[0, -1]], (20, 1))
    np.testing.assert_allclose(found.nodes[:, [0, -1]], ends, rtol=0, atol=16 * 40 * EPS * reach)


@given(seeds)
def test_densities_are_densities_of_their_points(seed):
    found = spectrum.lanczos(aslinearoperator(symmetric(seed, 9)), 4, probes=2, seed=seed)
    reach = np.abs(found.nodes).max() + 2
    grid = np.linspace(-reach, reach, 6001)
    density = found.density(grid, 0.2)
    # Ten widths of 0.2 and steps of a hundredth: the trapezoids miss nothing but roundings.
    tolerance = 100 * EPS
    np.testing.assert_allclose(np.trapezoid(density, grid, axis=1), 1, rtol=0, atol=tolerance)
    mean = np.trapezoid(density * grid, grid, axis=1)
    np.testing.assert_allclose(mean, found.moments(1), rtol=0, atol=tolerance * reach)


@given(seeds)
def test_the_share_below_a_point_is_the_weight_of_the_nodes_up_to_it(seed):
    found = spectrum.lanczos(aslinearoperator(symmetric(seed, 9)), 4, probes=2, seed=seed)
    nodes = np.sort(found.nodes.ravel())
    grid = np.concatenate([nodes[:1] - 1, nodes, (nodes[1:] + nodes[:-1]) / 2, nodes[-1:] + 1])
    below = found.below(grid)
    expected = [
        [math.fsum(w for v, w in zip(*probe, strict=True) if v <= point) for point in grid]
        for probe in zip(*found, strict=True)
    ]
    # Four weights that sum to 1 up to the rounding of their eigenvectors.
    np.testing.assert_allclose(below, expected, rtol=0, atol=4 * EPS)
    np.testing.assert_allclose(below[:, [0, -1]], [[0, 1]] * 2, rtol=0, atol=20 * EPS)
    assert (np.diff(below[:, np.argsort(grid)], axis=1) >= -4 * EPS).all()


OPERATOR = aslinearoperator(np.diag([1.0, 2.0, 3.0, 4.0]))
RECTANGLE = LinearOperator((2, 3), matvec=lambda v: v[:2])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: spectrum.extremes(RECTANGLE),
            ValueError,
            r"operator has shape \(2, 3\), expected",
        ),
        (lambda: spectrum.extremes(OPERATOR, tol=0), ValueError, "tol is 0, expected"),
        (lambda: spectrum.extremes(OPERATOR, seed=-1), ValueError, "seed is -1, expected at least"),
        (
            lambda: spectrum.extremes(np.eye(4)),
            TypeError,
            "operator is a ndarray, expected a LinearOperator: scipy.sparse.linalg.aslinearoperator",
        ),
        (
            lambda: spectrum.extremes(aslinearoperator(1j * np.eye(4))),
            TypeError,
            "operator has dtype complex128, expected a real one",
        ),
        (
            lambda: spectrum.extremes(aslinearoperator(np.triu(np.ones((4, 4))))),
            ValueError,
            "operator is not symmetric, expected u'Av = v'Au",
        ),
        (
            lambda: spectrum.tridiagonal(aslinearoperator(np.triu(np.ones((4, 4)))), np.ones(4), 3),
            ValueError,
            "operator is not symmetric",
        ),
        (
            lambda: spectrum.extremes(aslinearoperator(np.full((4, 4), np.nan))),
            ValueError,
            "operator gives values that are not finite, expected finite ones",
        ),
        (
            lambda: spectrum.lanczos(aslinearoperator(np.full((4, 4), np.nan)), 2),
            ValueError,
            "operator gives values that are not finite",
        ),
        (lambda: spectrum.lanczos(OPERATOR, 2, seed="a"), TypeError, "seed is a str, expected an"),
        (
            lambda: spectrum.lanczos(OPERATOR, 2).moments(1.5),
            TypeError,
            "power is a float, expected an integer",
        ),
        (
            lambda: spectrum.lanczos(OPERATOR, 2).below(1.0),
            TypeError,
            "grid is a float, expected a numpy.ndarray or a list",
        ),
        (
            lambda: spectrum.lanczos(OPERATOR, 2).density(np.ones((2, 1)), 1.0),
            ValueError,
            r"grid has shape \(2, 1\), expected \(points,\)",
        ),
        (
            lambda: spectrum.hessian_operator(nn.Linear(5, 3).double(), batch()[0], []),
            ValueError,
            r"y has shape \(0,\), expected at least one example",
        ),
        (
            lambda: spectrum.hessian_operator(nn.Linear(5, 3), *batch()),
            ValueError,
            r"x\[0, 0\] is .*, which float32, the dtype of the model, cannot hold exactly",
        ),
        (
            lambda: spectrum.hessian_operator(
                nn.Linear(5, 3).double(), *batch(), loss=lambda z, y: z
            ),
            ValueError,
            r"loss returns a tensor of shape \(16, 3\), expected a tensor with one element",
        ),
        (
            lambda: spectrum.hessian_operator(nn.Linear(5, 3).double(), *batch()).matvec(
                1j * np.ones(15)
            ),
            TypeError,
            "the operator meets complex128, expected real numbers",
        ),
        (
            lambda: spectrum.tridiagonal(OPERATOR, np.ones(3), 2),
            ValueError,
            r"probe has shape \(3,\), expected \(4,\)",
        ),
        (
            lambda: spectrum.tridiagonal(OPERATOR, np.zeros(4), 2),
            ValueError,
            "probe is zero, expected a vector with a direction",
        ),
        (
            lambda: spectrum.tridiagonal(OPERATOR, np.ones(4), 5),
            ValueError,
            "steps is 5, expected at most 4, the size of the operator",
        ),
        (lambda: spectrum.tridiagonal(OPERATOR, np.ones(4), 1.5), TypeError, "steps is a float"),
        (lambda: spectrum.lanczos(OPERATOR, 0), ValueError, "steps is 0, expected at least 1"),
        (lambda: spectrum.lanczos(OPERATOR, 2, probes=0), ValueError, "probes is 0, expected"),
        (
            lambda: spectrum.quadrature(np.ones(0), np.ones(0)),
            ValueError,
            r"diagonal has shape \(0,\), expected \(steps,\), at least one",
        ),
        (
            lambda: spectrum.quadrature(np.ones(3), np.ones(3)),
            ValueError,
            r"off has shape \(3,\), expected \(2,\): one entry less than diagonal",
        ),
        (
            lambda: spectrum.quadrature("a", np.ones(0)),
            TypeError,
            "diagonal is a str, expected a numpy.ndarray or a list",
        ),
        (
            lambda: spectrum.lanczos(OPERATOR, 2).density(np.ones(3), 0.0),
            ValueError,
            "width is 0.0, expected a finite number above 0",
        ),
        (
            lambda: spectrum.hessian_operator(nn.BatchNorm1d(5).double(), *batch()),
            ValueError,
            "model has no weight matrix",
        ),
    ],
)
def test_errors_teach(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_no_scale_of_the_probe_is_lost():
    A, probe = symmetric(3, 12), np.random.default_rng(0).normal(size=12)
    operator = aslinearoperator(A)
    expected = spectrum.tridiagonal(operator, probe, 6)
    for exponent in (-900, -300, 300, 900):
        found = spectrum.tridiagonal(operator, np.ldexp(probe, exponent), 6)
        atol = grown(A, expected[1])
        np.testing.assert_allclose(*map(np.concatenate, (found, expected)), rtol=0, atol=atol)
    half = np.full(12, 300, np.float16)
    found, expected = (spectrum.tridiagonal(operator, p, 6) for p in (half, np.ones(12)))
    atol = grown(A, expected[1])
    np.testing.assert_allclose(*map(np.concatenate, (found, expected)), rtol=0, atol=atol)


def test_the_zero_operator_has_a_spectrum():
    operator = aslinearoperator(np.zeros((5, 5)))
    assert spectrum.extremes(operator) == (0.0, 0.0)
    assert not spectrum.lanczos(operator, 3).nodes.any()


@pytest.mark.parametrize("n", [10, 50])
def test_random_matrices_are_not_symmetric(n):
    rng = np.random.default_rng(n)
    for seed in range(200):
        operator = aslinearoperator(rng.normal(size=(n, n)))
        with pytest.raises(ValueError, match="operator is not symmetric"):
            spectrum.extremes(operator, seed)


def test_no_operator_where_torch_takes_no_derivatives():
    x, y = batch()
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode is on"):
        spectrum.hessian_operator(nn.Linear(5, 3).double(), x, y)


def test_low_rank_in_single_precision_is_symmetric_enough():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(40, 3)).astype(np.float32)
    A = (A @ A.T).astype(np.float32)
    operator = LinearOperator(A.shape, matvec=lambda v: A @ v.astype(np.float32), dtype=np.float32)
    found = spectrum.lanczos(operator, 30, probes=2)
    rtol = len(A) * np.finfo(np.float32).eps
    np.testing.assert_allclose(found.nodes.max(axis=1), np.linalg.eigvalsh(A)[-1], rtol=rtol)


def test_every_product_sees_the_same_random_numbers():
    x, y = batch()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    state = torch.random.get_rng_state()
    operator = spectrum.hessian_operator(model, x, y)
    assert torch.equal(torch.random.get_rng_state(), state)
    matrix = operator.matmat(np.eye(operator.shape[0]))
    atol, sums = rounding(matrix), operator.matvec(np.ones(len(matrix)))
    np.testing.assert_allclose(matrix, matrix.T, rtol=0, atol=atol)
    np.testing.assert_allclose(sums, matrix.sum(1), rtol=0, atol=len(matrix) * atol)
    assert operator.matmat(np.zeros((len(matrix), 0))).shape == (len(matrix), 0)


def test_frozen_weights_have_no_rows():
    x, y = batch()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    whole = spectrum.hessian_operator(model, x, y).matmat(np.eye(32))
    model[0].weight.requires_grad_(False)
    operator = spectrum.hessian_operator(model, x, y)
    ours = operator.matmat(np.eye(12))
    np.testing.assert_allclose(ours, whole[20:, 20:], rtol=0, atol=rounding(whole))


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e200, 1e300])
def test_no_scale_of_the_operator_is_lost(size):
    A = symmetric(4, 10)
    plain, scaled = aslinearoperator(A), aslinearoperator(size * A)
    ours, theirs = (spectrum.tridiagonal(operator, np.ones(10), 6) for operator in (scaled, plain))
    atol = grown(A, theirs[1])
    np.testing.assert_allclose(
        np.concatenate(ours) / size, np.concatenate(theirs), rtol=0, atol=atol
    )
    tol = 1e-9
    ours, theirs = (spectrum.extremes(operator, tol=tol) for operator in (scaled, plain))
    np.testing.assert_allclose(np.array(ours) / size, theirs, rtol=2 * tol)
    with pytest.raises(ValueError, match="operator is not symmetric"):
        spectrum.extremes(aslinearoperator(size * np.triu(np.ones((4, 4)))))


def test_moments_and_densities_beyond_the_floats_are_refused():
    found = spectrum.lanczos(aslinearoperator(np.diag([1e200, 2e200, 3e200])), 2)
    with pytest.raises(ValueError, match=r"the moment.* is inf, beyond the largest float64"):
        found.moments(2)
    with pytest.raises(ValueError, match=r"the density.* is inf, beyond the largest float64"):
        spectrum.Spectrum(np.ones((1, 1)), np.ones((1, 1))).density(np.ones(1), 5e-324)


def test_lists_and_integers_are_taken():
    found = spectrum.lanczos(OPERATOR, 3)
    grid = np.array([1.0, 2.0, 3.0])
    for values in (grid.tolist(), [1, 2, 3], np.array([1, 2, 3]), grid.astype(np.float32)):
        np.testing.assert_array_equal(found.below(values), found.below(grid))
        np.testing.assert_array_equal(found.density(values, 1), found.density(grid, 1.0))
    expected = spectrum.tridiagonal(OPERATOR, np.array([1.0, 2.0, 3.0, 4.0]), 2)
    ours = spectrum.tridiagonal(OPERATOR, [1, 2, 3, 4], 2)
    np.testing.assert_array_equal(np.concatenate(ours), np.concatenate(expected))
    for a, b in zip(
        spectrum.quadrature([1, 2], [1]), spectrum.quadrature(np.array([1.0, 2.0]), np.ones(1)),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(a, b)


def test_a_frozen_batch_norm_keeps_its_statistics():
    x, y = batch()
    model = networks.mlp((5, 4, 3), "tanh", "batch", seed=2).double().train()
    with torch.no_grad():
        model.norm1.running_mean.add_(0.3)
        model.norm1.running_var.mul_(2)
    model.norm1.eval()
    norm = model.norm1
    fixed = nn.Linear(4, 4).double()
    with torch.no_grad():
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        fixed.weight.copy_(torch.diag(scale))
        fixed.bias.copy_(norm.bias - scale * norm.running_mean)
    fixed.requires_grad_(False)
    same = nn.Sequential(model.linear1, fixed, model.activation1, model.output)
    n = spectrum.hessian_operator(model, x, y).shape[0]
    ours = spectrum.hessian_operator(model, x, y).matmat(np.eye(n))
    theirs = spectrum.hessian_operator(same, x, y).matmat(np.eye(n))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=rounding(theirs))
    assert not model.norm1.training
