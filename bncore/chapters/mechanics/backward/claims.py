"""What the literature says about the gradients of batch normalization."""

import numpy as np
import torch

from bncore.page.claims import Evidence, Measurement, claim


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


@claim(
    id="backward-chain-rule",
    source="ioffe2015, Section 3",
    statement=(
        "The chain rule through $\\hat x_i$, $\\sigma_B^2$ and $\\mu_B$, in six partial "
        "derivatives, gives the gradients of the loss with respect to $x_i$, $\\gamma$ and "
        "$\\beta$."
    ),
    chapter="mechanics/backward",
    verdict="holds",
)
def chain_rule() -> Evidence:
    eps = 1e-5
    worst = dict.fromkeys(("x", "gamma", "beta"), 0.0)
    for x, dy, gamma in _cases(100):
        m = len(x)
        mean, var = x.mean(axis=0), x.var(axis=0)
        dx_hat = dy * gamma
        dvar = (dx_hat * (x - mean)).sum(axis=0) * -0.5 * (var + eps) ** -1.5
        dmean = -dx_hat.sum(axis=0) / np.sqrt(var + eps) + dvar * (-2 * (x - mean)).mean(axis=0)
        dx = dx_hat / np.sqrt(var + eps) + dvar * 2 * (x - mean) / m + dmean / m
        dgamma = (dy * (x - mean) / np.sqrt(var + eps)).sum(axis=0)
        printed = dict(zip(worst, (dx, dgamma, dy.sum(axis=0)), strict=True))
        oracle = dict(zip(worst, _autograd(x, dy, gamma, eps), strict=True))
        for name in worst:
            scale = np.abs(oracle[name]).max() + np.abs(dx_hat).max() / np.sqrt(var.min() + eps)
            error = np.abs(printed[name] - oracle[name]).max() / scale
            worst[name] = max(worst[name], error)
    return Evidence(
        printed=[
            Measurement(
                f"largest relative error of the gradient of `{name}` over 100 random batches, "
                "against automatic differentiation",
                error,
                at_most=1e-11,
            )
            for name, error in worst.items()
        ]
    )


@claim(
    id="backward-weight-scale",
    source="ioffe2015, Section 3.3",
    statement=(
        "For a scalar $a$, $\\partial\\,\\mathrm{BN}((aW)u)/\\partial(aW) = "
        "\\tfrac1a\\,\\partial\\,\\mathrm{BN}(Wu)/\\partial W$: larger weights get smaller "
        "gradients."
    ),
    chapter="mechanics/backward",
    verdict="depends",
)
def weight_scale() -> Evidence:
    def worst(factors, eps):
        errors = []
        for x, dy, gamma in _cases(50, seed=1):
            u = np.random.default_rng(len(x)).normal(size=(len(x), 3))
            weight = np.linalg.lstsq(u, x, rcond=None)[0] + 0.1

            def gradient(scale, u=u, weight=weight, dy=dy, gamma=gamma):
                return u.T @ _autograd(u @ (scale * weight), dy, gamma, eps)[0]

            plain = gradient(1.0)
            for a in factors:
                error = np.abs(a * gradient(a) - plain).max()
                floor = np.abs(u).max() * np.abs(dy * gamma).max()
                errors.append(error / (np.abs(plain).max() + floor))
        return max(errors)

    return Evidence(
        under=(
            "$a > 0$ and $\\epsilon$ negligible beside the variance",
            [
                Measurement(
                    "largest relative difference over 50 batches with $a$ = 0.1, 3 and 50 "
                    "and $\\epsilon = 10^{-30}$",
                    worst((0.1, 3.0, 50.0), 1e-30),
                    at_most=1e-9,
                )
            ],
        ),
        otherwise=(
            "$\\epsilon$ comparable to the variance, or $a < 0$",
            [
                Measurement(
                    "the same with $a = 0.1$ and $\\epsilon = 1$",
                    worst((0.1,), 1.0),
                    at_most=1e-9,
                ),
                Measurement(
                    "the same with $a = -1$ and $\\epsilon = 10^{-30}$",
                    worst((-1.0,), 1e-30),
                    at_most=1e-9,
                ),
            ],
        ),
    )
