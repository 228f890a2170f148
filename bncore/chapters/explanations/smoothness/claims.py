"""What the literature says about smoothness, judged by code."""

import numpy as np
import torch
import xarray as xr

from bncore.chapters.explanations.smoothness import experiments, records, runs, single
from bncore.explanations import smoothness
from bncore.lab import studies
from bncore.page.claims import (
    at_least,
    at_most,
    claim,
    corrected,
    otherwise,
    under,
    untestable,
)


def _excess(case, g):
    """The squared gradient in front of the layer less the printed bound on it, with a gradient g.

    Relative to gamma^2 |g|^2 / sigma^2.
    """
    d, factor = case.slope(), (case.gamma / case.y.std()) ** 2
    terms = smoothness.squared_gradient(case.y[:, None], g[:, None], np.array([case.gamma]))
    return float((d @ d - terms.passed[0]) / (factor * g @ g))


@claim("encyclopaedia, Smoothness", "fails", lost=True)
def gradient_bound():
    r"""For a batch norm network with loss $\hat L$ and a network with loss $L$ that is identical but for
    the batch norm behind $y=Wx$, with $g=\nabla_yL$: $\|\nabla_y\hat L\|^2 \le (\gamma^2/\sigma^2)$
    $\bigl(\|g\|^2 - \langle\mathbf 1,g\rangle^2/m$ $-\ \langle g,\hat y\rangle^2/m\bigr)$. (Identical:
    with the same weights. Where both have the same values behind the layer instead, it is an
    equation, the chapter's first theorem.)
    """
    for convex in (True, False):
        yield at_most(
            1e-12,
            max(_excess(case, case.own_g) for case in single.quadratics(300, convex=convex)),
            "largest excess of the left, by automatic differentiation, over the right side, 300 random "
            f"losses, {'' if convex else 'not '}all convex, relative to $\\gamma^2\\|g\\|^2/\\sigma^2$",
        )


@claim("encyclopaedia, Smoothness", "holds", lost=True)
def tighter():
    r"""The bound on the gradient tightens as the gradient correlates with $\hat y$. (Which gradient is
    lost: read that behind the batch norm, up to $\gamma$. That in front of it is orthogonal to
    $\hat y$ whatever the loss.)
    """
    for side, way in ((1, "rises to 0.9"), (-1, "falls to -0.9")):
        squares = single.squared_slopes(side * np.linspace(0, 0.9, 8))
        yield at_most(
            0,
            np.diff(squares, axis=0).max(),
            "largest step of the squared gradient in front of a batch norm layer, by automatic "
            f"differentiation, relative to that at cosine 0, as the cosine {way} by seven steps at one "
            "length of the gradient behind it, 100 random features",
        )


def _shares(row, counts, depth, trained):
    """Share of the units of a network on the digits for which a row of ``removed_share`` counts.

    With its interval over four seeds, for six networks; and of which network, in words. A trained one
    has made 50 steps at the best rate for its depth.
    """
    _, x, y = experiments.digits()
    if trained:
        rates = records.record()["full"]["walks"].learning_rate
        rate = rates.sel(kind="batch norm", depth=depth).item()
        models = experiments.trained(4, depth, rate, 50)
        when = f"after 50 steps at its best rate, {rate}"
    else:
        models = [experiments.network("batch norm", depth, seed) for seed in range(4)]
        when = "before training"
    shares = [
        counts(np.concatenate([part[row] for part in experiments.removed_share(model, x, y)]))
        for model in models
    ]
    found = xr.DataArray(shares, {"seed": range(4)}, ["seed"])
    return (
        studies.difference(found, xr.zeros_like(found), looked_at=6),
        f"{depth} hidden layers {when}; interval over four seeds, for six networks",
    )


@claim("encyclopaedia, Smoothness", "fails", lost=True)
def correlated():
    r"""It is common that the gradient correlates with $\hat y$. (Which gradient is lost: read that
    behind the batch norm. Read common as in half of the units, and a correlation as one that tightens
    the bound by a tenth or more: whether one is beyond chance hangs on the size of the batch.)
    """
    for depth in (2, 6, 10):
        for trained in (False, True):
            share, which = _shares(1, lambda cosines: (cosines**2 >= 0.1).mean(), depth, trained)
            yield at_least(
                0.5,
                share,
                "share of the units of a digits network in which the part along $\\hat y$ is a tenth or "
                f"more of the squared gradient, {which}",
            )


@claim("encyclopaedia, Smoothness", "depends", lost=True)
def large_variance():
    r"""The factor $\gamma^2/\sigma^2$ matters, because the variance is often large. (Read often as in
    half of the units, and large as beyond $\gamma^2$, where the factor is below 1.)
    """

    def beyond(depth, trained):
        share, which = _shares(2, lambda factors: (factors < 1).mean(), depth, trained)
        return at_least(
            0.5,
            share,
            f"share of the units of a digits network whose variance exceeds $\\gamma^2$, {which}",
        )

    yield under(
        "the network has six or ten hidden layers and has trained at its best learning rate"
    )
    yield from [beyond(depth, True) for depth in (6, 10)]
    yield otherwise("it has two, or has not trained")
    yield beyond(2, True)
    yield from [beyond(depth, False) for depth in (2, 6, 10)]


@claim("encyclopaedia, Smoothness", "untestable", lost=True)
def resilient():
    r"""The factor $\gamma^2/\sigma^2$ of the second bound says that the second derivatives of the loss
    are resilient to the variance of the batch.
    """
    yield untestable(
        "where the batch is spread $a$ times as far, the second derivatives by $y$ are exactly $a^2$ times "
        "smaller; whether that is resilience is a matter of words"
    )


@claim("encyclopaedia, Smoothness", "fails", lost=True)
def curvature_bound():
    r"""For the two networks of the first bound, with $d=\nabla_y\hat L$, $g=\nabla_yL$ and $H$ the second
    derivatives of $L$: $d^\top(\nabla^2_y\hat L)\,d \le (\gamma^2/\sigma^2)\,d^\top H d$
    $-\ \gamma\,\langle g,\hat y\rangle\,\|d\|^2/(m\sigma^2)$. (Again identical: with the same weights.
    Where both have the same values behind the layer, it is an equation.)
    """
    for convex in (True, False):
        excess = []
        for case in single.quadratics(50, seed=1, convex=convex):
            d, g = case.slope(), case.own_g
            terms = smoothness.curvature_along_gradient(case.y, g, case.H, case.gamma)
            size = (case.gamma / case.y.std()) ** 2 * np.linalg.norm(case.H, 2) * terms.squared
            excess.append((d @ case.second() @ d - terms.total) / (size + abs(terms.own)))
        yield at_most(
            1e-11,
            max(excess),
            "largest excess of the left, by automatic differentiation, over the right side, 50 random "
            f"losses, {'' if convex else 'not '}all convex, relative to the size of the latter",
        )


@claim("santurkar2018, Theorem 4.2, second part", "depends")
def relative_norms():
    r"""If moreover $H$ preserves the relative norms of $g$ and $d$, then $d^\top(\nabla^2_y\hat
    L)\,d \le (\gamma^2/\sigma^2)$ $\bigl(g^\top H g - \langle g,\hat
    y\rangle\,\|d\|^2/(m\gamma)\bigr)$. (With $g$ and $H$ at the same values behind the layer, as in
    the paper's proof.)
    """

    def largest(short, convex=True):
        excess = []
        for case in single.preserving(150, seed=2, convex=convex):
            if (case.gamma <= case.y.std()) == short:
                d, factor = case.slope(), (case.gamma / case.y.std()) ** 2
                y_hat = smoothness.normalise(case.y[:, None])[0][:, 0]
                own = case.g @ y_hat * (d @ d) / (len(d) * case.gamma)
                right = factor * (case.g @ case.H @ case.g - own)
                scale = factor * np.linalg.norm(case.H, 2) * case.g @ case.g
                excess.append((d @ case.second() @ d - right) / scale)
        sign = "\\le" if short else ">"
        return at_most(
            1e-11,
            max(excess),
            f"largest excess over random losses, $H$ {'' if convex else 'not '}positive semidefinite "
            f"and $\\gamma{sign}\\sigma$, relative to "
            "$\\gamma^2\\|H\\|\\|g\\|^2/\\sigma^2$",
        )

    yield under(
        "$\\gamma\\le\\sigma$, so that $\\|d\\|\\le\\|g\\|$, and $H$ is positive semidefinite, as where the "
        "loss is convex"
    )
    yield largest(True)
    yield otherwise(
        "$\\gamma>\\sigma$, as for most units of a network before training, or the loss is not convex"
    )
    yield largest(False)
    yield largest(True, convex=False)


@claim("encyclopaedia, Smoothness", "fails", lost=True)
def sign():
    r"""The inner product $\langle g,\hat y\rangle$ is positive if a vector points towards the minimum
    of the loss. (The vector is lost; read $-g$, which for $\frac12\|z-t\|^2$ always does.)
    """
    values = []
    for case in single.quadratics(200, seed=3):
        y_hat = torch.tensor(smoothness.normalise(case.y[:, None])[0][:, 0])
        t, z = torch.tensor(-case.b), y_hat.clone().requires_grad_()
        (g,) = torch.autograd.grad(((z - t) ** 2).sum() / 2, z)
        values.append((g @ y_hat).item())
    yield at_least(
        0,
        min(values),
        "smallest $\\langle g,\\hat y\\rangle$ over 200 random losses $\\frac12\\|z-t\\|^2$",
    )


def _weight_space():
    """Excess of the bound in weight space over 200 random cases, and of other inputs over the best.

    As printed; with g in place of g^2; the difference from the corrected equation; and that of the
    squared gradient for a random X of the same norm. Each relative.
    """
    rng, printed, norms, mended, beyond = np.random.default_rng(4), [], [], [], []
    for case in single.quadratics(200, seed=4):
        m, reach, d, g = len(case.y), np.exp(rng.normal()), case.slope(), case.g
        column, gamma = g[:, None], np.array([case.gamma])
        terms = smoothness.squared_gradient(case.y[:, None], column, gamma)
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
    return max(printed), max(norms), max(mended), max(beyond)


@claim("encyclopaedia, Smoothness", "misprinted", aliases=["smoothness-worst-case"])
def weight_space():
    r"""With $g=\max_{\|X\|\le\lambda}\|\nabla_WL\|^2$ and $\hat g$ alike for $\hat L$: $\hat g \le
    (\gamma^2/\sigma^2)$ $\bigl(g^2 - m\mu_g^2$ $-\ \lambda^2\langle\nabla_yL,\hat
    y\rangle^2\bigr)$, where $\mu_g$ is the mean of $\nabla_yL$. (Conversion left the bracket, and
    lost the factor before it.)
    """
    printed, norms, mended, beyond = _weight_space()
    yield at_most(
        1e-12,
        printed,
        "largest excess over 200 random cases, relative to $\\gamma^2g/\\sigma^2$",
    )
    yield at_most(1e-12, norms, "the same with $g$ in place of $g^2$")
    yield corrected(
        "$\\hat g = (\\gamma^2/\\sigma^2)$ $\\bigl(g - \\lambda^2m\\mu_g^2$ "
        "$-\\ \\lambda^2\\langle\\nabla_yL,\\hat y\\rangle^2/m\\bigr)$, an equation, if $\\nabla_yL$, "
        "$\\sigma$ and $\\hat y$ stay while $X$ moves"
    )
    yield at_most(1e-12, mended, "largest difference of both sides")
    yield at_most(
        0, beyond, "largest excess of $\\|X^\\top d\\|^2$ for random $X$ over that maximum"
    )


@claim("santurkar2018, Lemma 4.5", "fails")
def initialisation():
    r"""Let $W^*$ and $\hat W^*$ be the closest optima without and with batch norm, whose $\gamma$ and
    $\beta$ are constants. If $\langle W_0,W^*\rangle>0$, then $\|W_0-\hat W^*\|^2 \le \|W_0-W^*\|^2$
    $-\ \bigl(\|W^*\|^2-\langle W^*,W_0\rangle\bigr)^2/\|W^*\|^2$. (It needs a bias without batch norm,
    and constants that match the outputs at $W^*$; the chapter proves that it is an equation then.)
    """
    for options, what in (
        ({"matched": False}, "$\\gamma=1$ and $\\beta=0$, as networks start"),
        ({"bias": False}, "no bias without batch norm"),
    ):
        yield at_most(
            1e-9,
            single.initialisation(40, **options).max(),
            f"largest excess over 40 random units, relative to $\\|W_0-W^*\\|^2$, with {what}",
        )


@claim("encyclopaedia, Smoothness", "fails")
def one_direction():
    """The analysis of smoothness, some object, covers no more than the largest eigenvalue, which is to
    say a single direction at every point of the landscape.
    """
    shares = []
    for case in single.quadratics(100, seed=7, convex=True):
        second, direction = case.second(), case.slope()
        largest = np.linalg.eigvalsh(second)[-1]
        shares.append(direction @ second @ direction / (direction @ direction) / largest)
    what = (
        "share that the curvature along the gradient, the direction of the proof, has of the largest "
        "eigenvalue, 100 random convex losses"
    )
    yield at_least(0.99, min(shares), f"smallest {what}")
    yield at_least(0.99, float(np.median(shares)), f"median {what}")


@claim("santurkar2018, Section 3.2 and Figure 4", "depends")
def landscape():
    r"""Along the gradient, a network with batch norm has the smaller effective $\beta$-smoothness,
    the largest change of the gradient a unit of distance.
    """
    what = (
        "logarithm of it without batch norm over that with, each network trained on digits at its own "
        "best rate; interval over ten fresh seeds, for 75 comparisons"
    )
    yield under(
        "they have trained for 50 steps or more, each at its own best rate: in absolute units six layers do "
        "not show it at step 25, nor ten later on where both kinds train at one rate"
    )
    yield from [
        at_least(
            0,
            records.log_ratio(depth, units),
            f"{depth} hidden layers, steps 50 to 200, {units} units: {what}",
        )
        for depth in (2, 6, 10)
        for units in experiments.UNITS
    ]
    yield otherwise("they have not trained, and are deep")
    start = runs.starts(10, range(20, 50))
    yield at_least(
        0,
        studies.difference(start, xr.zeros_like(start), looked_at=76),
        "10 hidden layers, before training, absolute units: the same logarithm; interval over 30 seeds "
        "that were chosen before they were run, for 76 comparisons",
    )


@claim("santurkar2018, Section 3.2 and Figure 4", "undecided")
def loss_range():
    """Along the gradient, the loss of a network without batch norm takes the wider range of
    values, especially in the initial phase of training.
    """
    what = (
        "{} hidden layers, {}: logarithm of the range without batch norm over that with, each network "
        "trained on digits at its own best rate; interval over ten fresh seeds, for 75 comparisons"
    )
    yield under("the network has trained for 50 steps or more")
    yield from [
        at_least(0, records.log_ratio(depth, "range"), what.format(depth, "steps 50 to 200"))
        for depth in (2, 6, 10)
    ]
    yield from [
        at_least(
            0,
            records.earlier_range(depth, experiments.KINDS[0]),
            f"{depth} hidden layers without batch norm, initial phase: logarithm of the range at steps "
            "25 to 100 over that at steps 125 to 200; interval over ten fresh seeds, for 84 comparisons",
        )
        for depth in (2, 6, 10)
    ]
    yield otherwise("it has not trained")
    yield from [
        at_least(
            0,
            records.log_ratio(depth, "range", records.START),
            what.format(depth, "before training"),
        )
        for depth in (2, 6, 10)
    ]


@claim("encyclopaedia, Lead", "undecided")
def cause():
    """The smoother loss is what makes networks with batch norm perform better. (Read: of two kinds of
    normalisation, the smoother one ends with the lower loss.)
    """
    for steps in (100, 200, 800):
        for depth in (2, 6, 10):
            for units in experiments.UNITS:
                yield at_least(
                    0,
                    records.rank_agreement(depth, units, steps),
                    f"{depth} hidden layers, {units} units: rank correlation, over no batch norm, batch "
                    "norm and its two halves, of effective smoothness with the training loss after "
                    f"{steps} steps, each at its own best rate; interval over ten fresh seeds, for 18 "
                    "comparisons",
                )


@claim("ghorbani2019, abstract", "depends")
def outliers():
    """In networks without batch norm large isolated eigenvalues appear, and the gradient
    concentrates in their eigenspaces; with batch norm both are almost absent. (Read: at most half as
    strong as without it.)
    """

    def compared(part, depth, rate):
        found = records.record()["full"][part].sel(depth=depth)
        where = (
            f"{depth} hidden layers after 200 steps on digits, {rate}: {{}}; interval over ten seeds, "
            "for 36 comparisons"
        )
        for values, what in (
            (
                np.log(found.largest / found.tenth),
                "logarithm of the largest over the tenth eigenvalue",
            ),
            (found.concentration, "share of the squared gradient along the ten largest"),
        ):
            plain, normalised = (values.sel(kind=kind) for kind in experiments.KINDS[:2])
            yield at_most(
                0,
                records.mean(normalised - plain.drop_vars("kind") / 2),
                f"with batch norm less half of that without, {where.format(what)}",
            )
        yield at_least(0.5, records.mean(plain), f"without batch norm, {where.format(what)}")

    yield under(
        "six or ten layers train for 200 steps at one small learning rate: 0.0125, a sixty-fourth or less of "
        "the best with batch norm"
    )
    for depth in (6, 10):
        yield from compared("slow", depth, "both at 0.0125")
    yield otherwise("each trains at its own best rate")
    for depth in (2, 6, 10):
        yield from compared("end", depth, "each at its own best rate")
