"""What the literature says about smoothness, judged by code."""

import numpy as np
import torch
import xarray as xr

from bncore.chapters.explanations.smoothness import experiments
from bncore.explanations import smoothness
from bncore.lab.studies import difference
from bncore.page.claims import at_least, at_most, claim, corrected, otherwise, under


def _bound(case, g):
    """The printed bound on the squared gradient, for one feature and one gradient g."""
    return float(
        smoothness.squared_gradient(
            case.y[:, None], g[:, None], np.array([case.gamma])
        ).passed[0]
    )  # fmt: skip


@claim("encyclopaedia, Smoothness", "depends", lost=True)
def gradient_bound():
    r"""For a batch norm network with loss $\hat L$ and an identical network without it, with
    $g=\nabla_yL$: $\|\nabla_y\hat L\|^2 \le (\gamma^2/\sigma^2)$ $\bigl(\|g\|^2 -
    \langle\mathbf 1,g\rangle^2/m$ $-\ \langle g,\hat y\rangle^2/m\bigr)$.
    """
    excess, own_excess = [], []
    for case in experiments.quadratics(300):
        d, factor = case.slope(), (case.gamma / case.y.std()) ** 2
        for found, g in ((excess, case.g), (own_excess, case.own_g)):
            found.append((d @ d - _bound(case, g)) / (factor * g @ g))
    what = (
        "largest excess of the left, by automatic differentiation, over the right side, 300 random "
        "losses, relative to $\\gamma^2\\|g\\|^2/\\sigma^2$"
    )
    yield under("the two networks have the same values behind the layer")
    yield at_most(1e-12, max(excess), what)
    yield otherwise("they have the same weights")
    yield at_most(1e-12, max(own_excess), what)


@claim("encyclopaedia, Smoothness", "fails", lost=True)
def large_variance():
    r"""The factor $\gamma^2/\sigma^2$ matters, because the variance is often large."""
    _, x, y = experiments.digits()
    models = {
        "2 hidden layers before training": experiments.network("batch norm", 2, 0),
        "10 hidden layers before training": experiments.network("batch norm", 10, 0),
        "2 hidden layers after 100 steps": experiments.trained(),
    }
    for what, model in models.items():
        factors = np.concatenate([part[2] for part in experiments.removed_share(model, x, y)])
        yield at_least(
            0.5,
            (factors < 1).mean(),
            f"share of the units of a digits network whose variance exceeds $\\gamma^2$, {what}",
        )


@claim("encyclopaedia, Smoothness", "holds", lost=True)
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
    yield at_most(
        1e-11,
        max(apart),
        "largest excess of the left, by automatic differentiation, over the right side, 100 random "
        "losses",
    )


@claim("santurkar2018, Theorem 4.2, second part", "depends")
def relative_norms():
    r"""If moreover $H$ preserves the relative norms of $g$ and $d$, then $d^\top(\nabla^2_y\hat
    L)\,d \le (\gamma^2/\sigma^2)$ $\bigl(g^\top H g - \langle g,\hat
    y\rangle\,\|d\|^2/(m\gamma)\bigr)$.
    """

    def largest(short):
        excess = []
        for case in experiments.quadratics(300, seed=2):
            # The identity preserves all relative norms.
            case = case._replace(H=np.eye(len(case.y)), gamma=abs(case.gamma))
            if (case.gamma <= case.y.std()) == short:
                d, factor = case.slope(), (case.gamma / case.y.std()) ** 2
                y_hat = smoothness.normalise(case.y[:, None])[0][:, 0]
                own = case.g @ y_hat * (d @ d) / (len(d) * case.gamma)
                right = factor * (case.g @ case.H @ case.g - own)
                excess.append((d @ case.second() @ d - right) / (factor * case.g @ case.g))
        where = "\\gamma\\le\\sigma" if short else "\\gamma>\\sigma"
        return at_most(
            1e-11,
            max(excess),
            f"largest excess over random losses with $H=I$ and ${where}$, relative to "
            "$\\gamma^2\\|g\\|^2/\\sigma^2$",
        )

    yield under("$\\gamma\\le\\sigma$, so that $\\|d\\|\\le\\|g\\|$")
    yield largest(True)
    yield otherwise("$\\gamma>\\sigma$, as for most units of a network before training")
    yield largest(False)


@claim("encyclopaedia, Smoothness", "fails", lost=True)
def sign():
    r"""The inner product $\langle g,\hat y\rangle$ is positive if a vector points towards the minimum
    of the loss. (The vector is lost; read $-g$, which for $\frac12\|z-t\|^2$ always does.)
    """
    values = []
    for case in experiments.quadratics(200, seed=3):
        y_hat = torch.tensor(smoothness.normalise(case.y[:, None])[0][:, 0])
        t, z = torch.tensor(-case.b), y_hat.clone().requires_grad_()
        (g,) = torch.autograd.grad(((z - t) ** 2).sum() / 2, z)
        values.append((g @ y_hat).item())
    yield at_least(
        0,
        min(values),
        "smallest $\\langle g,\\hat y\\rangle$ over 200 random losses $\\frac12\\|z-t\\|^2$",
    )


@claim("encyclopaedia, Smoothness", "misprinted", aliases=["smoothness-worst-case"])
def weight_space():
    r"""With $g=\max_{\|X\|\le\lambda}\|\nabla_WL\|^2$ and $\hat g$ alike for $\hat L$: $\hat g \le
    (\gamma^2/\sigma^2)$ $\bigl(g^2 - m\mu_g^2$ $-\ \lambda^2\langle\nabla_yL,\hat
    y\rangle^2\bigr)$, where $\mu_g$ is the mean of $\nabla_yL$. (Conversion left the bracket, and
    lost the factor before it.)
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
        "$-\\ \\lambda^2\\langle\\nabla_yL,\\hat y\\rangle^2/m\\bigr)$, an equation, if $\\nabla_yL$, "
        "$\\sigma$ and $\\hat y$ stay while $X$ moves"
    )
    yield at_most(1e-12, max(mended), "largest difference of both sides")
    yield at_most(
        0, max(beyond), "largest excess of $\\|X^\\top d\\|^2$ for random $X$ over that maximum"
    )


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
        "the layer without batch norm has a bias, and $\\gamma$ and $\\beta$ match its outputs at "
        "$W^*$"
    )
    yield largest("")
    yield otherwise("$\\gamma$ and $\\beta$ are as networks start with them, or there is no bias")
    yield largest(", with $\\gamma=1$ and $\\beta=0$", matched=False)
    yield largest(", with $\\gamma$ and $\\beta$ matched but no bias", bias=False)


@claim("encyclopaedia, Smoothness", "fails")
def one_direction():
    """Some argue that the proof only concerns the largest eigenvalue, or equivalently one direction
    in the landscape at all points.
    """
    shares = []
    for case in experiments.quadratics(100, seed=7, convex=True):
        second, direction = case.second(), case.slope()
        largest = np.linalg.eigvalsh(second)[-1]
        shares.append(direction @ second @ direction / (direction @ direction) / largest)
    what = (
        "share that the curvature along the gradient, the direction of the proof, has of the largest "
        "eigenvalue, 100 random convex losses"
    )
    yield at_least(0.99, min(shares), f"smallest {what}")
    yield at_least(0.99, float(np.median(shares)), f"median {what}")


def _late(values):
    """Mean over the records from step 50 on of a logarithm, with its interval over the seeds."""
    rows = xr.DataArray(np.log(values)[:, 2:].mean(axis=1), [("seed", range(len(values)))])
    return difference(rows, xr.zeros_like(rows), looked_at=20)


@claim("santurkar2018, Section 3.2 and Figure 4", "depends")
def landscape():
    r"""Along the gradient, a network with batch norm has the smaller effective $\beta$-smoothness,
    the largest change of the gradient a unit of distance.
    """
    plain, normalised = (
        np.array(experiments.record()["full"]["plateau"][kind]["absolute"])
        for kind in experiments.KINDS[:2]
    )
    what = (
        "logarithm of it without batch norm over that with, steps 50 to 200 on digits at the rate "
        "0.1; interval over five seeds, for 20 comparisons"
    )
    yield under("the network without batch norm trains, as from He et al.'s initial weights")
    yield from [
        at_least(
            0,
            _late(experiments.ratios(depth, units)),
            f"{depth} hidden layers, {units} units: {what}",
        )
        for depth in (2, 6, 10)
        for units in experiments.UNITS
    ]
    yield otherwise("it does not, as with 10 hidden layers and torch's own initial weights")
    yield at_least(0, _late(plain / normalised), f"absolute units: {what}")


@claim("santurkar2018, Section 3.2 and Figure 4", "depends")
def loss_range():
    """Along the gradient, the loss of a network without batch norm takes the wider range of
    values, especially in the initial phase of training.
    """

    def start(depth):
        rows = np.log(experiments.ratios(depth, "range")[:, 0])
        rows = xr.DataArray(rows, [("seed", range(len(rows)))])
        return difference(rows, xr.zeros_like(rows), looked_at=20)

    what = (
        "{} hidden layers: logarithm of the range without batch norm over that with, {}, on digits at "
        "the rate 0.1; interval over five seeds, for 20 comparisons"
    )
    yield under("the network has taken its first steps")
    yield from [
        at_least(
            0,
            _late(experiments.ratios(depth, "range")),
            what.format(depth, "steps 50 to 200"),
        )
        for depth in (2, 6, 10)
    ]
    yield otherwise("it has taken none")
    yield from [
        at_least(0, start(depth), what.format(depth, "before training")) for depth in (2, 6, 10)
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
    yield under("the network has 2 hidden layers and is trained at the rate 0.1")
    yield from measured(2)
    yield otherwise("it has 10 hidden layers, or is trained at the rate 0.4")
    yield from measured(10)
    yield at_most(
        0.5,
        min(fast),
        "2 hidden layers at the rate 0.4: share of the squared gradient along the ten "
        "largest with batch norm, smallest of three seeds",
    )
