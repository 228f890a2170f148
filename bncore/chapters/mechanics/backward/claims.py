"""What the literature says about the gradients of batch normalization."""

import numpy as np
import torch

from bncore.chapters.mechanics.backward.experiments import WIDTHS, drifting_bias
from bncore.lab import data, networks
from bncore.lab.gradients import crossings
from bncore.page.claims import at_least, at_most, claim, otherwise, under


def _cases(count, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        shape = rng.integers(2, 33), rng.integers(1, 9)
        x = rng.normal(rng.normal(), np.exp(rng.normal()), size=shape)
        yield x, rng.normal(size=shape), rng.normal(size=shape[1])


def _autograd(x, dy, gamma, eps):
    inputs = torch.tensor(x, requires_grad=True)
    scale = torch.tensor(gamma, requires_grad=True)
    shift = torch.zeros_like(scale, requires_grad=True)
    normalised = torch.nn.functional.batch_norm(
        inputs, None, None, scale, shift, training=True, eps=eps
    )
    normalised.backward(torch.tensor(dy))
    return inputs.grad.numpy(), scale.grad.numpy(), shift.grad.numpy()


@claim("ioffe2015, Section 3", "holds")
def chain_rule():
    r"""The chain rule through $\hat x_i$, $\sigma_B^2$ and $\mu_B$, in six partial derivatives,
    gives the gradients of the loss with respect to $x_i$, $\gamma$ and $\beta$.
    """
    names, errors = ("x", "gamma", "beta"), []
    for x, dy, gamma in _cases(100):
        centred, s2, dx_hat = x - x.mean(axis=0), x.var(axis=0) + 1e-5, dy * gamma
        dvar = (dx_hat * centred).sum(axis=0) * -0.5 * s2**-1.5
        dmean = -dx_hat.sum(axis=0) / np.sqrt(s2) + dvar * (-2 * centred).mean(axis=0)
        dx = dx_hat / np.sqrt(s2) + (dvar * 2 * centred + dmean) / len(x)
        dgamma = (dy * centred / np.sqrt(s2)).sum(axis=0)
        floor, oracle = np.abs(dx_hat).max() / np.sqrt(s2.min()), _autograd(x, dy, gamma, 1e-5)
        pairs = zip((dx, dgamma, dy.sum(axis=0)), oracle, strict=True)
        errors.append([_relative(ours, theirs, floor) for ours, theirs in pairs])
    what = "largest relative error of the gradient of `{}` over 100 random batches, against "
    for name, error in zip(names, np.max(errors, axis=0), strict=True):
        yield at_most(1e-11, error, what.format(name) + "automatic differentiation")


def _gradients_of_weights(a, eps, count=50):
    """Gradients of BN((aW)u) with respect to aW, with variances of Wu of 1, and their floors."""
    for x, dy, gamma in _cases(count, seed=1):
        u = np.random.default_rng(len(x)).normal(size=(len(x), 3))
        weight = np.linalg.lstsq(u, x, rcond=None)[0] + 0.1
        weight /= (u @ weight).std(axis=0)
        floor = np.abs(u).max() * np.abs(dy * gamma).max()
        yield u.T @ _autograd(u @ (a * weight), dy, gamma, eps)[0], floor


@claim("ioffe2015, Section 3.3", "depends")
def weight_scale():
    r"""For a scalar $a$, $\partial\,\mathrm{BN}((aW)u)/\partial(aW) =
    \tfrac1a\,\partial\,\mathrm{BN}(Wu)/\partial W$.
    """

    def worst(a, eps):
        pairs = zip(_gradients_of_weights(a, eps), _gradients_of_weights(1.0, eps), strict=True)
        return max(_relative(a * scaled, plain, floor) for (scaled, _), (plain, floor) in pairs)

    what = "largest relative difference over 50 batches with variances of $Wu$ of 1"
    yield under("$a > 0$, and the variance of $aWu$ stays far above $\\varepsilon$")
    yield from [
        at_most(1e-2, worst(a, 1e-5), f"{what}, $a$ = {a}, $\\varepsilon$ = 0.00001")
        for a in (0.1, 3.0, 50.0)
    ]
    yield otherwise("$a < 0$, or the variance comes near $\\varepsilon$")
    for a, eps in ((-3.0, 1e-5), (0.1, 1e-3)):
        yield at_most(1e-2, worst(a, eps), f"{what}, $a$ = {a}, $\\varepsilon$ = {eps:.5f}")


def _nodes(x, dy, gamma, eps):
    """Gradients at every node of the computation graph, by automatic differentiation."""
    x, gamma = (torch.tensor(value, requires_grad=True) for value in (x, gamma))
    beta = torch.zeros_like(gamma, requires_grad=True)
    mean = x.mean(0)
    var = ((x - mean) ** 2).mean(0)
    x_hat = (x - mean) / torch.sqrt(var + eps)
    loss = ((gamma * x_hat + beta) * torch.tensor(dy)).sum()
    nodes = {"x_hat": x_hat, "var": var, "mean": mean, "x": x, "gamma": gamma, "beta": beta}
    gradients = torch.autograd.grad(loss, list(nodes.values()))
    return {name: value.numpy() for name, value in zip(nodes, gradients, strict=True)}


def _relative(value, expected, floor=0.0):
    return float(np.abs(value - expected).max() / (np.abs(expected).max() + floor))


@claim("cs682slides, Backward Pass: Summary", "holds")
def summary():
    r"""Six lines give the gradient at every node: $\hat x_i$, $\sigma_B^2$, $\mu_B$, $x_i$,
    $\gamma$ and $\beta$.
    """
    errors = []
    for x, dy, gamma in _cases(100, seed=2):
        m, s2, centred = len(x), x.var(axis=0) + 1e-5, x - x.mean(axis=0)
        line = {"x_hat": dy * gamma}
        line["var"] = (line["x_hat"] * centred * (-1 / 2) * s2**-1.5).sum(axis=0)
        line["mean"] = (line["x_hat"] * -1 / np.sqrt(s2)).sum(axis=0)
        line["mean"] = line["mean"] + line["var"] * (-2 * centred).sum(axis=0) / m
        line["x"] = line["x_hat"] / np.sqrt(s2) + line["var"] * 2 * centred / m + line["mean"] / m
        line["gamma"] = (dy * centred / np.sqrt(s2)).sum(axis=0)
        line["beta"] = dy.sum(axis=0)
        oracle, floor = _nodes(x, dy, gamma, 1e-5), np.abs(dy * gamma).max() / np.sqrt(s2.min())
        errors.append([_relative(line[n], oracle[n], floor * (n == "x")) for n in line])
    what = "largest relative error of the line for `{}` over 100 random batches"
    for name, error in zip(line, np.max(errors, axis=0), strict=True):
        yield at_most(1e-10, error, what.format(name))


@claim("encyclopaedia, Backpropagation", "holds", lost=True)
def variance_exponent():
    r"""$\partial\ell/\partial\sigma_B^2 = \sum_i \partial\ell/\partial
    y_i\,(x_i-\mu_B)\,\bigl(-\tfrac\gamma2\,(\sigma_B^2+\varepsilon)^{-3/2}\bigr)$.
    """
    errors, exponents = [], []
    for x, dy, gamma in _cases(100, seed=3):
        s2 = x.var(axis=0) + 1e-5
        moment = (dy * (x - x.mean(axis=0))).sum(axis=0)
        exact = _nodes(x, dy, gamma, 1e-5)["var"]
        errors.append(_relative(moment * (-gamma / 2) * s2**-1.5, exact))
        fitted = np.log(exact / (moment * -gamma / 2)) / np.log(s2)
        exponents.extend(np.abs(fitted + 1.5)[np.abs(np.log(s2)) > 0.1])
    yield at_most(1e-11, max(errors), "largest relative error over 100 random batches")
    yield at_most(
        1e-9,
        max(exponents),
        "largest distance from −3/2 of the exponent fitted to automatic differentiation",
    )


@claim("encyclopaedia, Backpropagation", "holds", lost=True)
def mean_two_terms():
    r"""$\partial\ell/\partial\mu_B$ is the sum of a term through $\hat x_i$ and a term through
    $\sigma_B^2$, which is
    $\partial\ell/\partial\sigma_B^2\cdot\tfrac1m\sum_i(-2)(x_i-\mu_B)$.
    """
    both = []
    for x, dy, gamma in _cases(100, seed=4):
        s2, centred = x.var(axis=0) + 1e-5, x - x.mean(axis=0)
        nodes = _nodes(x, dy, gamma, 1e-5)
        through_x_hat = (dy * gamma * -1 / np.sqrt(s2)).sum(axis=0)
        through_var = nodes["var"] * (-2 * centred).mean(axis=0)
        scale = np.abs(dy * gamma).sum(axis=0) / np.sqrt(s2)
        both.append(np.max(np.abs(through_x_hat + through_var - nodes["mean"]) / scale))
    yield at_most(1e-12, max(both), "largest relative error over 100 random batches")


@claim("cs682slides, Computing dl/dx", "holds")
def slope_of_the_quotient():
    r"""Of the three terms of $\partial\ell/\partial x_i$, the one through $\hat x_i$ has the slope
    $1/\sqrt{\sigma_B^2+\varepsilon}$, the derivative of $(x_i-\mu_B)/\sqrt{\sigma_B^2+\varepsilon}$
    by $x_i$ where $\mu_B$ and $\sigma_B^2$ have terms of their own.
    """
    slopes, sums = [], []
    for x, dy, gamma in _cases(50, seed=5):
        values = torch.tensor(x, requires_grad=True)
        mean, var = values.detach().mean(0), values.detach().var(0, unbiased=False)
        quotient = (values - mean) / torch.sqrt(var + 1e-5)
        (exact,) = torch.autograd.grad(quotient[0].sum(), values)
        slope = 1 / np.sqrt(x.var(axis=0) + 1e-5)
        slopes.append(np.abs(exact[0].numpy() / slope - 1).max())
        nodes, centred = _nodes(x, dy, gamma, 1e-5), x - x.mean(axis=0)
        through_x_hat = nodes["x_hat"] * slope
        three = through_x_hat + (nodes["var"] * 2 * centred + nodes["mean"]) / len(x)
        sums.append(_relative(three, nodes["x"], np.abs(through_x_hat).max()))
    yield at_most(1e-12, max(slopes), "largest relative error of the slope over 50 batches")
    yield at_most(
        1e-11,
        max(sums),
        "largest relative error of the sum of the three terms, against automatic differentiation",
    )


def _layer(a, eps, stretch=(1, 1, 1), seed=6):
    """Jacobians of one normalised unit, x = u (a w), by the layer's input and by its weight.

    The variance of u w is 1.
    """
    rng = np.random.default_rng(seed)
    u, w = torch.tensor(rng.normal(size=(7, 3)) * stretch), torch.tensor(rng.normal(size=3))
    w = w / (u @ w).std(unbiased=False)

    def unit(u, w):
        x = u @ w
        mean = x.mean()
        return (x - mean) / torch.sqrt(((x - mean) ** 2).mean() + eps)

    by_input, by_weight = torch.autograd.functional.jacobian(unit, (u, a * w))
    return by_input.numpy(), by_weight.numpy()


@claim("cs682slides, The BN transformation is scalar invariant", "depends")
def layer_jacobian():
    r"""For a scalar $a$, $\partial\,\mathrm{BN}((aW)u)/\partial u =
    \partial\,\mathrm{BN}(Wu)/\partial u$: backpropagation through a layer is unaffected by
    the scale of its parameters.
    """

    def worst(factors, eps):
        plain = _layer(1.0, eps)[0]
        return max(_relative(_layer(a, eps)[0], plain) for a in factors)

    what = "largest relative change of the Jacobian, variance of $Wu$ 1"
    yield under("$a > 0$, and the variance of $aWu$ stays far above $\\varepsilon$")
    yield at_most(
        1e-2,
        worst((0.1, 3.0, 100.0), 1e-5),
        f"{what}, $a$ = 0.1, 3 and 100, $\\varepsilon$ = 0.00001",
    )
    yield otherwise("$a < 0$, or the variance comes near $\\varepsilon$")
    for a, eps in ((-3.0, 1e-5), (0.1, 1e-3)):
        yield at_most(1e-2, worst((a,), eps), f"{what}, $a$ = {a}, $\\varepsilon$ = {eps:.5f}")


@claim("cs682slides, The BN transformation is scalar invariant", "holds")
def larger_weights():
    r"""Larger weights lead to smaller gradients. (Read: on average over the gradients at the output. A
    single one can grow, if it is nearly along $\hat x$.)
    """

    def ratio(a, eps, stretch, seed):
        longer, shorter = (_layer(scale, eps, stretch, seed)[1] for scale in (a, 0.3 * a))
        return np.linalg.norm(longer) / np.linalg.norm(shorter)

    for a, eps in ((1.0, 1e-5), (1.0, 1e-1), (0.03, 1e-5)):
        yield at_most(
            1 - 1e-3,
            max(ratio(a, eps, s, seed) for s in ((1, 1, 1), (1, 10, 100)) for seed in range(20)),
            f"largest ratio of the gradient's length at weights ${a}\\,w$ to that at $0.3 \\cdot {a}\\,w$, "
            "root mean square over all gradients at the output, 40 layers of three inputs with variances "
            f"of $wu$ of 1, $\\varepsilon$ = {eps:.5f}",
        )


@claim("ioffe2015, Section 2", "depends")
def ignored_mean():
    """If the gradient step ignores that the mean depends on the bias $b$, then $b$ grows without
    bound while the loss stays fixed.
    """

    def grows(where, **kwargs):
        path, losses = drifting_bias(2001, seen=False, **kwargs)
        ratio = (path[-1] - path[1000]) / (path[1000] - path[0])
        change = np.ptp(losses[1000:]) / losses[1000]
        yield at_least(0.5, ratio, f"{where}: way of $b$ in steps 1001 to 2000 over that before")
        yield at_most(1e-9, change, f"{where}: relative change of the loss in them")

    yield under("no trained shift follows the normalisation directly")
    yield from grows("the normalisation alone")
    yield from grows("then ReLU and a trained bias", relu=True, output_bias=True)
    yield otherwise("one does, as $\\beta$ of the finished transform")
    yield from grows("then $\\beta$", output_bias=True)


@claim("ioffe2015, Section 2", "holds")
def ignored_scale():
    """The growth that follows from ignoring the statistics can get worse if the normalisation also
    scales the activations.
    """

    def drift(**kwargs):
        return abs(np.diff(drifting_bias(2, seen=False, factor=0.1, **kwargs)[0])[0])

    yield at_least(
        2.0,
        drift(divide=True) / drift(),
        "growth of $b$ in one step with division by the deviation (about 0.1), relative to "
        "that without",
    )


@claim("encyclopaedia, Backpropagation", "holds")
def differentiable():
    r"""The batch-normalizing transform is a differentiable operation. ($\varepsilon > 0$ belongs to
    the transform. Without it a batch of equal values has no output, let alone a
    derivative.)
    """
    rng, eps, h = np.random.default_rng(9), 1e-5, 1e-6

    def normalised(x):
        return (x - x.mean()) / np.sqrt(x.var() + eps)

    def error(x, direction):
        s, x_hat = np.sqrt(x.var() + eps), normalised(x)
        slope = (direction - direction.mean() - x_hat * (x_hat * direction).mean()) / s
        quotient = (normalised(x + h * direction) - normalised(x)) / h
        return np.abs(quotient - slope).max() / np.abs(slope).max()

    yield from [
        at_most(
            1e-3,
            max(error(size * x, direction) for x, direction in rng.normal(size=(50, 2, 6))),
            f"largest relative difference of a difference quotient, step $10^{{-6}}$, from the "
            f"derivative: {batches}, in 50 directions, $\\varepsilon = 10^{{-5}}$",
        )
        for batches, size in (("random batches", 1), ("a batch of equal values", 0))
    ]


@claim("encyclopaedia, Backpropagation", "holds", lost=True)
def activation():
    r"""$\partial\ell/\partial y$ depends on the choice of activation function."""
    split, apart = data.digits(), []
    for seed in range(5):
        models = [
            networks.mlp(WIDTHS, activation, "batch", gain=1.0, seed=seed)
            for activation in ("sigmoid", "tanh", "relu")
        ]
        # The outputs of the first batch norm are the same for all.
        gradients = [crossings(one, split.x_train[:64], split.y_train[:64])[0].dy for one in models]
        apart += [
            1 - np.sum(a * b) / (np.linalg.norm(a) * np.linalg.norm(b))
            for i, a in enumerate(gradients)
            for b in gradients[i + 1 :]
        ]
    yield at_least(
        0.01,
        min(apart),
        "smallest 1 less the cosine of the gradients at the outputs of a batch norm, which are the same, "
        "under sigmoid, tanh and ReLU, networks of two hidden layers on 64 digits, five seeds",
    )


@claim("cs682slides, Forward Pass", "holds")
def cached():
    r"""The gradients of $x$, $\gamma$ and $\beta$ follow from $\partial\ell/\partial y_i$ and from
    what the forward pass has cached.
    """
    worst = 0.0
    for x, dy, gamma in _cases(100, seed=11):
        s = np.sqrt(x.var(axis=0) + 1e-5)
        x_hat = (x - x.mean(axis=0)) / s
        dx = gamma / s * (dy - dy.mean(axis=0) - x_hat * (dy * x_hat).mean(axis=0))
        oracle = _autograd(x, dy, gamma, 1e-5)
        floor = np.abs(gamma * dy / s).max()
        worst = max(worst, _relative(dx, oracle[0], floor))
        worst = max(worst, _relative((dy * x_hat).sum(axis=0), oracle[1], np.abs(dy).max()))
        worst = max(worst, _relative(dy.sum(axis=0), oracle[2], np.abs(dy).max()))
    yield at_most(
        1e-11,
        worst,
        "largest relative error of gradients computed from $\\partial\\ell/\\partial y$, "
        "$\\hat x$, $s$ and $\\gamma$ alone, over 100 random batches",
    )


def _unseen(held):
    """Shares of the gradient that shift and that stretch the batch, for 200 batches of 16.

    With `held` the statistics enter as constants, which the gradient does not see.
    """
    x, dy = torch.tensor(np.random.default_rng(12).normal(size=(2, 16, 200)))
    x.requires_grad_()
    mean, var = x.mean(0), x.var(0, unbiased=False)
    if held:
        mean, var = mean.detach(), var.detach()
    x_hat = (x - mean) / torch.sqrt(var + 1e-5)
    (dx,) = torch.autograd.grad(x_hat, x, dy)
    parts = dx, dx * x_hat.detach()
    return [(part.sum(0).abs() / part.abs().sum(0)).numpy() for part in parts]


@claim("cs682slides, How Batch Normalization is added", "holds")
def gradient_sees():
    """Normalisation is added as a layer, so that the gradient can see the normalisation and make
    adjustments.
    """
    for does, seen, held in zip(
        ("shifts", "stretches"), _unseen(False), _unseen(True), strict=True
    ):
        yield at_most(
            0.01,
            seen.max() / held.mean(),
            f"largest share of the gradient that {does} the batch, which normalising undoes, over "
            "200 batches of 16, relative to the mean share where the statistics are constants",
        )


@claim("sharad, Examples", "holds")
def affine_false():
    """With affine=False, batch norm has no parameters to learn, neither BatchNorm1d nor BatchNorm2d."""
    for kind in (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d):
        layer = kind(120, affine=False)
        learned = sum(parameter.numel() for parameter in layer.parameters())
        yield at_most(
            0, learned, f"numbers that {kind.__name__} of 120 features hands to an optimiser"
        )
