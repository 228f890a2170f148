"""The experiments of the backward chapter: a drifting bias, gradients on digits, hidden statistics."""

import numpy as np
import torch

from bncore.lab import data, gradients, networks, training
from bncore.mechanics import projection, textbook, transform

WIDTHS = [64, 32, 32, 10]


def at_nodes(x, dy, gamma, beta):
    """The gradient at every node of the computation graph, in the order of the way back.

    Parameters
    ----------
    x, dy, gamma, beta : ndarray
        As for ``transform.forward`` and ``transform.backward_steps``.

    Returns
    -------
    dict of str to ndarray
        By what each is called in the figure of the graph, "∂ℓ/∂y" first.
    """
    _, cache = transform.forward(x, gamma, beta)
    steps = transform.backward_steps(dy, cache)
    return {
        "∂ℓ/∂y": dy,
        "∂ℓ/∂β": steps.dbeta,
        "∂ℓ/∂γ": steps.dgamma,
        "∂ℓ/∂x̂": steps.dx_hat,
        "∂ℓ/∂σ²": steps.dvar,
        "∂ℓ/∂μ": steps.dmean,
        "∂ℓ/∂x": steps.dx,
    }


def drifting_bias(
    steps, rate=0.1, *, seen, output_bias=False, factor=1.0, divide=False, relu=False
):
    """Train the bias b of x = factor u + b through a normalisation, towards fixed targets.

    Parameters
    ----------
    steps : int
        Number of gradient steps.
    rate : float
        Learning rate.
    seen : bool
        Whether the gradient sees that the mean depends on b.
    output_bias : bool
        Whether a shift of the output is trained too.
    factor : float
        Deviation of the values before the bias.
    divide : bool
        Whether the normalisation divides by the deviation, as a constant.
    relu : bool
        Whether a ReLU stands between the normalisation and the output.

    Returns
    -------
    path, losses : ndarray
        b and half the mean squared error before each step.
    """
    rng = np.random.default_rng(8)
    u, target = factor * rng.normal(size=16), rng.normal(1.0, 1.0, size=16)
    b, beta, path, losses = 0.0, 0.0, [], []
    for _ in range(steps):
        x = u + b
        s = x.std() if divide else 1.0
        x_hat = (x - x.mean()) / s
        error = (np.maximum(x_hat, 0) if relu else x_hat) + beta - target
        path.append(b)
        losses.append((error**2).mean() / 2)
        dx_hat = error * (x_hat > 0) if relu else error
        dx = (dx_hat - dx_hat.mean() if seen else dx_hat) / (len(u) * s)
        b -= rate * dx.sum()
        beta -= rate * error.mean() * output_bias
    return np.array(path), np.array(losses)


def shares_on_digits(sizes, seed, steps):
    """Shares of level, tilt and rest in the gradients at two batch norms of a network on the digits.

    Parameters
    ----------
    sizes : sequence of int
        Batch sizes to measure at.
    seed : int
        Of the data's split, the network and the batches.
    steps : int
        Gradient steps, with batches of 64, before measuring; 0 for a fresh network.

    Returns
    -------
    ndarray of shape (sizes, 3)
        Squared lengths of the three parts over that of the whole, which sum to 1; taken over both
        layers, all features and two batches.
    """
    digits = data.digits(seed)
    model = networks.mlp(WIDTHS, "relu", "batch", seed=seed)
    if steps:
        training.train(model, digits, steps, seed=seed)
    generator, shares = torch.Generator().manual_seed(seed), []
    for m in sizes:
        squares = np.zeros(3)
        for _ in range(2):
            picks = torch.randperm(len(digits.x_train), generator=generator)[:m]
            for met in gradients.crossings(model, digits.x_train[picks], digits.y_train[picks]):
                squares += [(part**2).sum() for part in projection.split(met.dy, met.x)]
        shares.append(squares / squares.sum())
    return np.array(shares)


HIDDEN = {
    "nothing": (),
    "variance": ("variance",),
    "mean": ("mean",),
    "both": ("mean", "variance"),
}


def loss_with_hidden(hidden, steps, learning_rate, seed):
    """The training loss, averaged over the last 15 steps, of ``hidden_on_digits``.

    Parameters
    ----------
    hidden : str
        One of ``HIDDEN``.
    steps, learning_rate, seed
        As in ``hidden_on_digits``.

    Returns
    -------
    dict
        "loss", in nats, NaN once training has diverged; and "growth", the length of all hidden weights
        over that at the start.
    """
    losses, lengths, _ = hidden_on_digits(HIDDEN[hidden], seed, steps, learning_rate)
    return {"loss": losses[-15:].mean(), "growth": lengths[-1] / lengths[0]}


def hidden_on_digits(hidden, seed, steps=300, learning_rate=0.5):
    """Train on the digits with the named statistics hidden from the gradient.

    Parameters
    ----------
    hidden : collection of {"mean", "variance"}
        Empty for batch norm as it should be.
    seed : int
        Of the data's split, the network and the batches.
    steps : int
        Gradient steps.
    learning_rate : float

    Returns
    -------
    losses : ndarray
        Before each step.
    lengths : ndarray
        Length of all hidden weights, every 20 steps.
    towards_mean : float
        Share of the first layer's squared displacement that lies along the mean image.
    """
    split = data.digits(seed)
    model = gradients.hide_statistics(networks.mlp(WIDTHS, "relu", "batch", seed=seed), hidden)
    weight = next(model.parameters())
    start = weight.detach().clone()
    history = training.train(
        model,
        split,
        steps,
        learning_rate=learning_rate,
        seed=seed,
        record={"length": gradients.hidden_weight_length},
        every=20,
    )
    moved, mean = weight.detach() - start, split.x_train.mean(dim=0)
    towards_mean = ((moved @ mean).norm() / (moved.norm() * mean.norm())) ** 2
    return history.losses, history.records["length"], towards_mean.item()


def difference_errors(steps):
    """Relative errors of three numerical derivatives of a loss behind batch norm.

    The loss is the sum of cos(y) for a batch of 8 with 3 features, along one random direction.

    Parameters
    ----------
    steps : ndarray
        Step sizes h.

    Returns
    -------
    errors : dict of str to ndarray
        Relative error of the forward, the central and the complex-step difference.
    predicted : dict of str to ndarray
        Truncation plus rounding of the first two, from the loss's second and third derivatives.
    """
    rng = np.random.default_rng(0)
    x, direction = rng.normal(size=(2, 8, 3))
    gamma, beta = rng.normal(1, 0.3, size=(2, 3))

    def loss(t):
        return np.cos(textbook.forward(x + t * direction, gamma, beta)[0]).sum()

    y, cache = textbook.forward(x, gamma, beta)
    exact = (textbook.backward(-np.sin(y), cache)[0] * direction).sum()
    numerical = {
        "forward": [(loss(h) - loss(0)) / h for h in steps],
        "central": [(loss(h) - loss(-h)) / (2 * h) for h in steps],
        "complex step": [_complex_step(x, direction, gamma, beta, h) for h in steps],
    }
    errors = {name: np.abs(np.array(values) / exact - 1) for name, values in numerical.items()}
    second, third = _higher_derivatives(x, direction, gamma, beta)
    rounding = np.finfo(float).eps * abs(loss(0)) / steps
    predicted = {
        "forward": (steps * abs(second) / 2 + rounding) / abs(exact),
        "central": (steps**2 * abs(third) / 6 + rounding) / abs(exact),
    }
    return errors, predicted


def _complex_step(x, direction, gamma, beta, h):
    moved = x + 1j * h * direction
    mean = moved.mean(axis=0)
    x_hat = (moved - mean) / np.sqrt(((moved - mean) ** 2).mean(axis=0) + 1e-5)
    return np.cos(gamma * x_hat + beta).sum().imag / h


def _higher_derivatives(x, direction, gamma, beta):
    x, direction, gamma, beta = map(torch.tensor, (x, direction, gamma, beta))
    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    moved = x + t * direction
    centred = moved - moved.mean(0)
    y = gamma * centred / torch.sqrt((centred**2).mean(0) + 1e-5) + beta
    derivatives = [torch.cos(y).sum()]
    for _ in range(3):
        derivatives += torch.autograd.grad(derivatives[-1], t, create_graph=True)
    return derivatives[2].item(), derivatives[3].item()
