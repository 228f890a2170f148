"""The spectrum of a network's second derivatives: extremes, and the density by Lanczos quadrature.

Sources: Golub and Meurant (2010) for the quadrature; Ghorbani, Krishnan and Xiao (2019) for its use
on networks.
"""

import copy
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Real
from scipy.linalg import eigh_tridiagonal
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from bncore import arguments as check
from bncore import tensors
from bncore.explanations import _models, landscape

Grid = Real[np.ndarray, "points"] | check.Listed


def hessian_operator(
    model: nn.Module,
    x: tensors.Examples,
    y: _models.Targets,
    units: Literal["absolute", "relative"] = "absolute",
    *,
    loss: Callable = cross_entropy,
) -> LinearOperator:
    """Second derivatives of the loss by the weight matrices, known by their products with vectors.

    Biases, gamma, beta and frozen weights are held, and where the model draws random numbers, every
    product sees the same ones. Batch norms, dropout and relative units are as in
    ``landscape.along_gradient``.

    Parameters
    ----------
    model : nn.Module
        It is copied, and later changes to it do not change the operator.
    x, y : Tensor
        One batch, finite; or arrays or lists.
    units : {"absolute", "relative"}
    loss : callable
        From outputs and y to a scalar, twice differentiable.

    Returns
    -------
    LinearOperator
        Symmetric; one product costs about as much as four gradients, and is float64 outside
        however the model computes inside.

    Raises
    ------
    TypeError, ValueError
        As ``landscape.along_gradient``, where it speaks of model, x, y, units and loss.
    RuntimeError
        Under ``torch.inference_mode``, which takes no derivatives.
    """
    _models.check_model(model)
    x, y = _models.batch(model, x, y)
    scales = landscape.unit_scales(model, units)
    frozen = _models.on_batches(copy.deepcopy(model))
    for module in frozen.modules():
        if isinstance(module, BatchNorm) and module.training:
            torch.func.replace_all_batch_norm_modules_(module)
    point = {name: p.detach() for name, p in landscape.weights(frozen).items()}
    sizes = [p.numel() for p in point.values()]
    held = {name: p.detach() for name, p in frozen.named_parameters() if name not in point}

    def slope(chosen):
        def value(chosen):
            def apply(x):
                return torch.func.functional_call(frozen, {**held, **chosen}, (x,))

            return _models.loss_of(loss, _models.outputs(apply, x), y)

        return torch.func.grad(value)(chosen)

    # The matrix is symmetric, so pulling a vector back through the gradient multiplies by it.
    devices = {p.device for p in point.values() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=devices):
        _, product = torch.func.vjp(slope, point)

    def multiply(vector):
        parts = vector.split(sizes)
        tangents = {
            name: scale * part.to(p).reshape(p.shape)
            for (name, p), scale, part in zip(point.items(), scales, parts, strict=True)
        }
        (images,) = product(tangents)
        parts = [s * images[name] for name, s in zip(point, scales, strict=True)]
        return torch.cat([part.reshape(-1) for part in parts]).double()

    def matvec(vector):
        return multiply(torch.as_tensor(np.ravel(_real(vector)))).numpy(force=True)

    def matmat(columns):
        rows = torch.as_tensor(np.ascontiguousarray(_real(columns).T))
        if not len(rows):
            return np.zeros(columns.shape)
        return torch.func.vmap(multiply, chunk_size=64)(rows).numpy(force=True).T

    n = sum(sizes)
    return LinearOperator((n, n), matvec=matvec, rmatvec=matvec, matmat=matmat, dtype=np.float64)


def extremes(
    operator: LinearOperator, seed: int = 0, tol: float | int = 1e-3
) -> tuple[float, float]:
    """The smallest and the largest eigenvalue of a symmetric operator.

    Parameters
    ----------
    operator : LinearOperator
    seed : int
        Of the vector to start from.
    tol : float
        Relative accuracy.

    Raises
    ------
    TypeError
        If operator is not a LinearOperator or complex, seed not an integer, or tol not a number.
    ValueError
        If the operator is not square with at least three rows, random pairs of vectors show that it
        is far from symmetric, it gives values that are not finite, seed is negative, or tol not
        positive.
    """
    n = _size(operator, least=3)
    check.positive("tol", tol)
    # One pair takes every sixteenth random matrix for symmetric; four vectors make six pairs.
    vectors = np.random.default_rng(check.integer("seed", seed, least=0)).normal(size=(4, n))
    images = np.array([_image(operator, vector) for vector in vectors])
    if not images.any():  # ARPACK needs a vector whose image is not zero
        return 0.0, 0.0
    images = images / np.abs(images).max()
    products = vectors @ images.T
    _check_symmetric(np.abs(products - products.T).max(), np.linalg.norm(images, axis=1).max())
    found = eigsh(operator, k=2, which="BE", v0=vectors[0], tol=tol, return_eigenvectors=False)
    return float(found.min()), float(found.max())


class Spectrum(NamedTuple):
    """A weighted set of points for each probe, whose moments are those of the spectrum.

    Attributes
    ----------
    nodes, weights : Float[ndarray, "probes steps"]
        Where the quadrature of each probe puts how much; its weights sum to 1.
    """

    nodes: Float[np.ndarray, "probes steps"]
    weights: Float[np.ndarray, "probes steps"]

    def moments(self, power: int) -> Float[np.ndarray, "probes"]:
        """Each probe's estimate of tr(A^power) / n, for an integer power of at least 0.

        Raises
        ------
        TypeError, ValueError
            If power is not such an integer, or the moment leaves the range of floats.
        """
        power = check.integer("power", power, least=0)
        with np.errstate(over="ignore", invalid="ignore"):
            found = (self.weights * self.nodes**power).sum(axis=1)
        return check.narrowed("the moment", found, np.float64)

    def below(self, grid: Grid) -> Float[np.ndarray, "probes points"]:
        """Each probe's estimate of the share of eigenvalues that are at most a grid point."""
        grid = _points(grid)
        return np.array([w @ (v[:, None] <= grid) for v, w in zip(*self, strict=True)])

    def density(self, grid: Grid, width: float | int) -> Float[np.ndarray, "probes points"]:
        """Each probe's density, every point broadened to a Gaussian of standard deviation width."""
        grid, width = _points(grid), check.positive("width", width)
        with np.errstate(over="ignore"):
            apart = (grid - self.nodes[..., None]) / width
            bells = np.exp(-(apart**2) / 2) / np.sqrt(2 * np.pi)
            found = np.einsum("ps,psg->pg", self.weights, bells) / width
        return check.narrowed("the density", found, np.float64)


def tridiagonal(
    operator: LinearOperator, probe: Real[np.ndarray, "n"] | check.Listed, steps: int
) -> tuple[Float[np.ndarray, "steps"], Float[np.ndarray, "between"]]:
    """The Lanczos process from a vector: diagonal and off-diagonal of the tridiagonal matrix.

    Every new vector is orthogonalised against all earlier ones, twice. It ends early once the
    vectors span an invariant subspace.

    Parameters
    ----------
    operator : LinearOperator
        Symmetric.
    probe : Float[ndarray, "n"]
        Not zero.
    steps : int
        At most n; each costs one product.

    Raises
    ------
    TypeError
        If operator is not a LinearOperator or complex, steps not an integer or probe not an
        array of real numbers.
    ValueError
        If steps is outside [1, n], probe has another length than n or is zero, the operator gives
        values that are not finite, or two consecutive vectors of the process show that it is far
        from symmetric; a single step cannot show it.
    """
    vector, steps = _start(operator, probe, steps)
    basis, diagonal, off, largest = np.empty((steps, len(vector))), [], [], 0.0
    for k in range(steps):
        basis[k] = vector
        image = _image(operator, vector)
        size = _length(image)
        largest = max(largest, size)
        if k:
            _check_symmetric(basis[k - 1] @ image - off[-1], largest)
        diagonal.append(vector @ image)
        for _ in range(2):
            image = image - basis[: k + 1].T @ (basis[: k + 1] @ image)
        off.append(_length(image))
        if off[-1] <= 1e-12 * size:
            break
        vector = image / off[-1]
    return np.array(diagonal), np.array(off[: len(diagonal) - 1])


def quadrature(
    diagonal: Real[np.ndarray, "steps"] | check.Listed,
    off: Real[np.ndarray, "between"] | check.Listed,
) -> tuple[Float[np.ndarray, "steps"], Float[np.ndarray, "steps"]]:
    """Nodes and weights of a tridiagonal matrix T: its eigenvalues in ascending order, and the
    squares of the first entries of its eigenvectors, so that sum w_i x_i^k = (T^k)_11.

    The first k rows of a longer matrix are the quadrature of k steps.

    Parameters
    ----------
    diagonal, off : Float[ndarray, "steps"], Float[ndarray, "between"]
        From ``tridiagonal``; off has one entry less.

    Raises
    ------
    TypeError
        If an argument is not an array of real numbers.
    ValueError
        If diagonal is empty or not a finite vector, or off has not one finite entry less.
    """
    diagonal = check.array("diagonal", diagonal)
    if diagonal.ndim != 1 or len(diagonal) == 0:
        raise ValueError(f"diagonal has shape {diagonal.shape}, expected (steps,), at least one")
    check.finite("diagonal", diagonal)
    off = check.array("off", off, dtype=diagonal.dtype)
    if off.shape != (len(diagonal) - 1,):
        raise ValueError(
            f"off has shape {off.shape}, expected ({len(diagonal) - 1},): one entry less than "
            "diagonal"
        )
    check.finite("off", off)
    nodes, vectors = eigh_tridiagonal(diagonal.astype(np.float64), off.astype(np.float64))
    return check.narrowed("nodes", nodes, diagonal.dtype), (vectors[0] ** 2).astype(diagonal.dtype)


def lanczos(operator: LinearOperator, steps: int, probes: int = 4, seed: int = 0) -> Spectrum:
    """Stochastic Lanczos quadrature of the spectrum of a symmetric operator.

    Each probe v is a vector of n random signs. It gets v'A^k v / n right for every power k up to
    2 steps - 1, and the mean of that over random v is tr(A^k) / n.

    Parameters
    ----------
    operator : LinearOperator
    steps : int
        Products for each probe, at most n.
    probes : int
    seed : int
        Of the signs.

    Raises
    ------
    TypeError, ValueError
        As ``tridiagonal``; or if probes is not a positive integer, or seed not one of at least 0.

    References
    ----------
    Golub and Meurant (2010), chapter 6; Ghorbani, Krishnan and Xiao (2019).
    """
    n = _size(operator, least=1)
    check.positive_integer("probes", probes)
    rng = np.random.default_rng(check.integer("seed", seed, least=0))
    nodes, weights = (np.zeros((probes, check.positive_integer("steps", steps))) for _ in "ab")
    for p in range(probes):
        found = quadrature(*tridiagonal(operator, rng.choice([-1.0, 1.0], size=n), steps))
        # What an early end leaves over has weight 0, at a node that is there already.
        nodes[p] = found[0][-1]
        nodes[p, : len(found[0])], weights[p, : len(found[0])] = found
    return Spectrum(nodes, weights)


def _size(operator, least):
    if not isinstance(operator, LinearOperator):
        raise TypeError(
            f"operator is a {check.type_name(operator)}, expected a LinearOperator: "
            "scipy.sparse.linalg.aslinearoperator makes one of a matrix"
        )
    if np.issubdtype(operator.dtype, np.complexfloating):
        raise TypeError(f"operator has dtype {operator.dtype}, expected a real one")
    rows, columns = operator.shape
    if rows != columns or rows < least:
        raise ValueError(
            f"operator has shape {operator.shape}, expected a square one with at least {least} rows"
        )
    return rows


def _start(operator, probe, steps):
    """The first vector of the Lanczos process, of length 1, and the number of steps."""
    n = _size(operator, least=1)
    probe = check.vector("probe", probe, n, "the operator")
    if not probe.any():
        raise ValueError("probe is zero, expected a vector with a direction")
    if check.positive_integer("steps", steps) > n:
        raise ValueError(f"steps is {steps}, expected at most {n}, the size of the operator")
    probe = probe.astype(np.float64)
    # A power of two changes no digit, and brings squares where none is lost.
    probe = np.ldexp(probe, -np.frexp(np.abs(probe).max())[1])
    return probe / np.linalg.norm(probe), steps


def _image(operator, vector):
    image = operator.matvec(vector)
    if not np.isfinite(image).all():
        raise ValueError(
            "operator gives values that are not finite, expected finite ones: a network may have "
            "diverged"
        )
    return image


def _length(vector):
    """Scaled first, so that no square leaves the range."""
    largest = np.abs(vector).max()
    return largest * np.linalg.norm(vector / largest) if largest else 0.0


def _check_symmetric(difference, size):
    # Five times what a network in bfloat16 shows.
    if abs(difference) > 0.1 * size:
        raise ValueError("operator is not symmetric, expected u'Av = v'Au for all vectors u and v")


def _points(grid):
    grid = check.array("grid", grid)
    if grid.ndim != 1:
        raise ValueError(f"grid has shape {grid.shape}, expected (points,)")
    check.finite("grid", grid)
    return grid.astype(np.float64)


def _real(values):
    if np.iscomplexobj(values):
        raise TypeError(f"the operator meets {values.dtype}, expected real numbers")
    return values
