"""What the literature says about smoothness, judged by code."""

from functools import cache

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from bncore.chapters.explanations.smoothness import experiments
from bncore.explanations import smoothness
from bncore.explanations.landscape import weights
from bncore.page.claims import at_least, at_most, claim, corrected, otherwise, under


def _bound(case, g):
    """The printed bound on the squared gradient, for one feature and one gradient g."""
    return float(
        smoothness.squared_gradient(
            case.y[:, None], g[:, None], np.array([case.gamma])
        ).passed[0]
    )  # fmt: skip


@claim("santurkar2018, Theorem 4.1", "depends")
def gradient_bound():
    r"""For a batch norm network with loss $\hat L$ and an identical network without it, with
    $g=\nabla_yL$: $\|\nabla_y\hat L\|^2 \le (\gamma^2/\sigma^2)$ $\bigl(\|g\|^2 -
    \langle\mathbf 1,g\rangle^2/m$ $-\ \langle g,\hat y\rangle^2/m\bigr)$.
    """
    apart, excess = [], []
    for case in experiments.quadratics(300):
        d, factor = case.slope(), (case.gamma / case.y.std()) ** 2
        apart.append(abs(d @ d - _bound(case, case.g)) / (factor * case.g @ case.g))
        own = _bound(case, case.own_g)
        excess.append((d @ d - own) / own)
    yield under(
        "$\\nabla L$ is taken at $z=\\gamma\\hat y+\\beta$, what the rest of the network "
        "receives; then it is an equation"
    )
    yield at_most(
        1e-12,
        max(apart),
        "largest difference of both sides over 300 random losses, relative to "
        "$\\gamma^2\\|g\\|^2/\\sigma^2$",
    )
    yield otherwise("$\\nabla L$ is taken in the network without batch norm, at its own $y$")
    yield at_most(
        1e-12, max(excess), "largest excess of the left over the right side, relative to the right"
    )


@cache
def _units(factor=1.0):
    """Loss of a fresh network, and its gamma^2/sigma^2, with hidden weights times a factor."""
    _, x, y = experiments.digits()
    model = experiments.network("batch norm", 2, 0).double()
    with torch.no_grad():
        for name, weight in weights(model).items():
            if name != "output.weight":
                weight.mul_(factor)
    parts = experiments.removed_share(model, x.double(), y)
    loss = torch.nn.functional.cross_entropy(model(x.double()), y).item()
    return loss, np.concatenate([part[2] for part in parts])


@claim("encyclopaedia, Smoothness", "depends", lost=True)
def large_variance():
    r"""The factor $\gamma^2/\sigma^2$ makes the gradient smaller, because the variance is often
    large.
    """
    (loss, fresh), (same, long) = _units(), _units(20.0)
    what = "share of 100 hidden units whose factor is below 1"
    yield under("the hidden weights of a digits network are multiplied by 20")
    yield at_least(0.99, (long < 1).mean(), what)
    yield at_most(1e-3, abs(same / loss - 1), "relative change of the loss")
    yield otherwise("its weights are as He et al. draw them, with $\\gamma=1$")
    yield at_least(0.5, (fresh < 1).mean(), what)


@claim("santurkar2018, Theorem 4.2, first part", "holds")
def curvature_bound():
    r"""With $d=\nabla_y\hat L$, $g=\nabla L$ and $H$ the second derivatives of $L$:
    $d^\top(\nabla^2_y\hat L)\,d \le (\gamma^2/\sigma^2)\,d^\top H d$ $-\ \gamma\,\langle
    g,\hat y\rangle\,\|d\|^2/(m\sigma^2)$.
    """
    apart = []
    for case in experiments.quadratics(100, seed=1):
        d = case.slope()
        terms = smoothness.curvature_along_gradient(case.y, case.g, case.H, case.gamma)
        floor = (case.gamma / case.y.std()) ** 2 * np.linalg.norm(case.H, 2) * terms.squared
        apart.append((d @ case.second() @ d - terms.total) / (floor + abs(terms.own)))
    yield at_most(1e-11, max(apart), "largest excess over 100 random losses")
    yield at_most(
        1e-11,
        float(np.abs(apart).max()),
        "largest difference of both sides, so that it is an equation",
    )


@claim("santurkar2018, Theorem 4.2, second part", "depends")
def relative_norms():
    r"""If moreover $H$ preserves the relative norms of $g$ and $d$, then $d^\top(\nabla^2_y\hat
    L)\,d \le (\gamma^2/\sigma^2)$ $\bigl(g^\top H g - \langle g,\hat
    y\rangle\,\|d\|^2/(m\gamma)\bigr)$.
    """

    def largest(short, sign=1):
        excess = []
        for case in experiments.quadratics(300, seed=2):
            # A multiple of the identity preserves all relative norms.
            case = case._replace(H=sign * np.eye(len(case.y)), gamma=abs(case.gamma))
            terms = smoothness.curvature_along_gradient(case.y, case.g, case.H, case.gamma)
            if (case.gamma <= case.y.std()) == short:
                factor = (case.gamma / case.y.std()) ** 2
                right = factor * case.g @ case.H @ case.g + terms.own
                excess.append((terms.total - right) / (factor * case.g @ case.g))
        where = "\\gamma\\le\\sigma" if short else "\\gamma>\\sigma"
        return at_most(
            1e-12,
            max(excess),
            f"largest excess over random losses with $H={'' if sign > 0 else '-'}I$ and ${where}$, "
            "relative to $\\gamma^2\\|g\\|^2/\\sigma^2$",
        )

    yield under("$\\gamma\\le\\sigma$, so that $\\|d\\|\\le\\|g\\|$, and $g^\\top Hg\\ge0$")
    yield largest(True)
    yield otherwise("one of these is missing")
    yield largest(False)
    yield largest(True, sign=-1)


@claim("encyclopaedia, Smoothness", "depends", lost=True)
def sign():
    r"""The inner product $\langle g,\hat y\rangle$ is positive if $-g$ points towards the minimum
    of the loss.
    """

    def smallest(longer):
        values = []
        for case in experiments.quadratics(200, seed=3):
            y_hat = torch.tensor(smoothness.normalise(case.y[:, None])[0][:, 0])
            t = torch.tensor(-case.b)

            def loss(z, t=t):
                return ((z - t) ** 2).sum() / 2

            # The loss as a function of gamma, and the gradient at gamma = 1, each found for itself.
            best = minimize_scalar(lambda gamma, y_hat=y_hat: loss(gamma * y_hat).item()).x
            z = y_hat.clone().requires_grad_()
            (g,) = torch.autograd.grad(loss(z), z)
            if (best > 1) == longer:
                values.append((g @ y_hat).item())
        return min(values)

    _, x, y = experiments.digits()
    last = experiments.removed_share(experiments.trained(), x, y)[-1][1]
    what = "smallest $\\langle g,\\hat y\\rangle$ over random losses $\\frac12\\|z-t\\|^2$"
    yield under("the minimum has the smaller component along $\\hat y$")
    yield at_least(0, smallest(False), what)
    yield otherwise("it has the larger one: the loss asks for a larger $\\gamma$")
    yield at_least(0, smallest(True), what)
    yield at_least(
        0.5,
        (last > 0).mean(),
        "share of units in the last hidden layer of a digits network, after 100 "
        "steps, with a positive product",
    )


@claim("santurkar2018, Theorem 4.4", "misprinted")
def weight_space():
    r"""With $g=\max_{\|X\|\le\lambda}\|\nabla_WL\|^2$ and $\hat g$ alike for $\hat L$: $\hat g \le
    (\gamma^2/\sigma^2)$ $\bigl(g^2 - m\mu_g^2$ $-\ \lambda^2\langle\nabla_yL,\hat
    y\rangle^2\bigr)$, where $\mu_g$ is the mean of $\nabla_yL$.
    """
    rng, printed, norms, mended, beyond = np.random.default_rng(4), [], [], [], []
    for case in experiments.quadratics(200, seed=4):
        m, reach, d, g = len(case.y), np.exp(rng.normal()), case.slope(), case.g
        terms = smoothness.squared_gradient(
            case.y[:, None], g[:, None], np.array([case.gamma])
        )  # fmt: skip
        factor, level, tilt = terms.factor[0], terms.level[0], terms.tilt[0]
        best = reach * np.outer(d / np.linalg.norm(d), rng.normal(size=3))
        best /= np.linalg.norm(best, 2) / reach
        ours, plain = np.sum((best.T @ d) ** 2), reach**2 * g @ g
        other = rng.normal(size=(m, 3))
        other *= reach / np.linalg.norm(other, 2)
        beyond.append((np.sum((other.T @ d) ** 2) - ours) / ours)
        scale = factor * plain
        printed.append((ours - factor * (plain**2 - level - reach**2 * m * tilt)) / scale)
        norms.append((ours - factor * (plain - level - reach**2 * m * tilt)) / scale)
        mended.append(abs(ours - factor * (plain - reach**2 * (level + tilt))) / scale)
    yield at_most(
        1e-12,
        max(printed),
        "largest excess over 200 random cases, relative to $\\gamma^2g/\\sigma^2$",
    )
    yield at_most(1e-12, max(norms), "the same with $g$ in place of $g^2$")
    yield corrected(
        "$\\hat g = (\\gamma^2/\\sigma^2)$ $\\bigl(g - \\lambda^2m\\mu_g^2$ "
        "$-\\ \\lambda^2\\langle\\nabla_yL,\\hat y\\rangle^2/m\\bigr)$, an equation"
    )
    yield at_most(1e-12, max(mended), "largest difference of both sides")
    yield at_most(
        0, max(beyond), "largest excess of $\\|X^\\top d\\|^2$ for random $X$ over that maximum"
    )


@claim("encyclopaedia, Smoothness", "depends", lost=True)
def worst_case():
    r"""Among all inputs $X$ with $\|X\|\le\lambda$, the largest gradient by the weights is smaller
    with batch norm.
    """
    spread = [experiments.worst_inputs(t) for t in (1.0, 1e-2, 1e-4)]
    held = []
    for case in experiments.quadratics(200, seed=5):
        if abs(case.gamma) <= case.y.std():
            held.append(np.linalg.norm(case.slope()) / np.linalg.norm(case.g))
    yield under("$X$ moves while $y$, $\\sigma$ and $\\nabla_yL$ stay, and $\\gamma\\le\\sigma$")
    yield at_most(1, max(held), "largest ratio of both maxima, 200 random losses")
    yield otherwise("$y = XW$ moves with $X$: let $y$ shrink by $t$, and $\\|X\\|=1$")
    yield at_most(
        1e6,
        spread[-1][1] / spread[0][1],
        "squared gradient for $t=10^{-4}$ over that for $t=1$, with batch norm",
    )
    yield at_most(10, spread[-1][0] / spread[0][0], "the same without batch norm")


@claim("santurkar2018, Lemma 4.5", "depends")
def initialisation():
    r"""Let $W^*$ and $\hat W^*$ be the closest optima without and with batch norm. If $\langle
    W_0,W^*\rangle>0$, then $\|W_0-\hat W^*\|^2 \le \|W_0-W^*\|^2$ $-\
    \bigl(\|W^*\|^2-\langle W^*,W_0\rangle\bigr)^2/\|W^*\|^2$.
    """

    def largest(what, **options):
        return at_most(
            1e-9,
            experiments.initialisation(40, **options).max(),
            f"largest excess over 40 random units, relative to $\\|W_0-W^*\\|^2${what}",
        )

    yield under(
        "the layer without batch norm has a bias, and $\\gamma$ and $\\beta$ are the deviation "
        "and the mean of its outputs at $W^*$"
    )
    yield largest("")
    yield otherwise("one of these is missing")
    yield largest(", with $\\gamma=1$ and $\\beta=0$", matched=False)
    yield largest(", with $\\gamma$ and $\\beta$ matched but no bias", bias=False)
    yield largest(
        ", with $\\langle W_0,W^*\\rangle<0$, a case that the encyclopaedia's version "
        "does not exclude",
        agreeing=False,
    )


@claim("encyclopaedia, Smoothness", "fails")
def one_direction():
    """The proof only concerns the largest eigenvalue, or equivalently one direction in the
    landscape at all points.
    """
    shares = []
    for case in experiments.quadratics(100, seed=7, convex=True):
        terms = smoothness.curvature_along_gradient(case.y, case.g, case.H, case.gamma)
        largest = np.linalg.eigvalsh(smoothness.hessian(case.y, case.g, case.H, case.gamma))[-1]
        shares.append(terms.total / terms.squared / largest)
    yield at_least(
        0.99,
        min(shares),
        "smallest share that the curvature along the gradient has of the largest "
        "eigenvalue, 100 random convex losses",
    )
    yield at_least(0.99, float(np.median(shares)), "the same, median")


@claim("santurkar2018, Section 3.2 and Figure 4", "depends")
def landscape():
    r"""Along the gradient, a network with batch norm has the smaller effective $\beta$-smoothness,
    the largest change of the gradient a unit of distance.
    """
    full = experiments.record()["full"]

    def ratios(of, units, late):
        plain, normalised = (np.array(of[kind][units]) for kind in experiments.KINDS[:2])
        return (plain / normalised)[:, late].min()

    pairs = {
        depth: {kind: full["depths"][f"{kind}, {depth}"] for kind in experiments.KINDS[:2]}
        for depth in (2, 6, 10)
    }
    later = slice(2, None)
    yield under(
        "ReLU networks with 2 or 6 hidden layers, He et al.'s initial weights, and 50 to 200 "
        "steps of training on digits"
    )
    yield from [
        at_least(
            1,
            ratios(pairs[depth], units, later),
            f"smallest ratio without to with, depth {depth}, {units} units, five seeds",
        )
        for depth in (2, 6)
        for units in experiments.UNITS
    ]
    yield otherwise(
        "10 hidden layers before training, or weights so short that the network without batch "
        "norm does not train"
    )
    yield at_least(
        1,
        ratios(pairs[10], "absolute", slice(0, 1)),
        "smallest ratio at the start, depth 10, absolute units",
    )
    yield at_least(
        1,
        ratios(full["plateau"], "absolute", later),
        "smallest ratio from step 50 on, depth 10, torch's own initial weights",
    )


@claim("santurkar2018, Section 3.2 and Figure 4", "depends")
def loss_range():
    """Along the gradient, the loss of a network without batch norm takes the wider range of
    values, especially in the initial phase of training.
    """

    def smallest(depth, records):
        return experiments.ratios(depth, "range")[:, records].min()

    yield under(
        "ReLU networks with 6 or 10 hidden layers, He et al.'s initial weights, and 50 to 200 "
        "steps of training on digits"
    )
    yield from [
        at_least(
            1,
            smallest(depth, slice(2, None)),
            f"smallest ratio without to with, depth {depth}, five seeds",
        )
        for depth in (6, 10)
    ]
    yield otherwise("the same networks before training, and one of 2 layers")
    yield from [
        at_least(1, smallest(depth, slice(0, 1)), f"smallest ratio at the start, depth {depth}")
        for depth in (2, 6, 10)
    ]


@claim("ghorbani2019, abstract", "depends")
def outliers():
    """In networks without batch norm large isolated eigenvalues appear, and the gradient
    concentrates in their eigenspaces; with batch norm both are almost absent.
    """
    full = experiments.record()["full"]

    def measured(depth):
        plain, normalised = (full["depths"][f"{kind}, {depth}"] for kind in experiments.KINDS[:2])
        isolation = [
            np.array(one["largest at end"]) / np.array(one["tenth at end"])
            for one in (plain, normalised)
        ]
        return [
            at_least(
                5,
                isolation[0].min(),
                f"largest over tenth eigenvalue without batch norm, depth {depth}, smallest of "
                "three seeds",
            ),
            at_most(3.5, isolation[1].max(), "the same with batch norm, largest"),
            at_least(
                0.5,
                min(plain["concentration at end"]),
                "share of the squared gradient along the ten largest without, smallest",
            ),
            at_most(
                0.5, max(normalised["concentration at end"]), "the same with batch norm, largest"
            ),
        ]

    fast = full["rates"]["batch norm, 0.4"]["concentration at end"]
    yield under("2 hidden layers, after 200 steps on digits at the rate 0.1")
    yield from measured(2)
    yield otherwise("10 hidden layers, after as many steps, or 2 hidden layers at the rate 0.4")
    yield from measured(10)
    yield at_most(
        0.5,
        min(fast),
        "2 hidden layers at the rate 0.4: share of the squared gradient along the ten "
        "largest with batch norm, smallest of three seeds",
    )
