"""A normalised unit with a loss behind it, and its descent, shared by tests of this wing."""

import numpy as np
import pytest
import torch

EPS = torch.finfo(torch.float64).eps


class Unit:
    """A small normalised layer with a loss behind it, in float64: L(w) for w of one unit."""

    def __init__(self, seed, eps=1e-300):
        rng = np.random.default_rng(seed)
        m, inputs = int(rng.integers(3, 20)), int(rng.integers(2, 6))
        self.u = torch.tensor(rng.normal(size=(m, inputs)) * np.exp(rng.normal(size=inputs)))
        self.w = torch.tensor(rng.normal(size=inputs))
        self.gamma, self.beta = (float(v) for v in rng.normal(size=2))
        self.readout = torch.tensor(rng.normal(size=m))
        self.a = float(10 ** rng.uniform(-2, 2))
        self.eps = eps

    def output(self, w, u=None):
        x = (self.u if u is None else u) @ w
        x = x - x.mean()
        return self.gamma * x / torch.sqrt((x**2).mean() + self.eps) + self.beta

    def loss(self, w):
        return (torch.tanh(self.output(w)) * self.readout).sum() + (self.output(w) ** 4).mean()

    def rounding(self, w):
        """What rounding leaves of the normalised values, over their deviation."""
        summed = (self.u.abs() @ w.abs()).max() / (self.u @ w).std(correction=0)
        return 4 * sum(self.u.shape) * EPS * summed.item()

    def slope(self, w):
        """A bound on what the slopes of the output in the weights are summed from."""
        deviation = torch.sqrt((self.u @ w).var(correction=0) + self.eps)
        return (abs(self.gamma) * self.u.abs().max() / deviation).item()

    def sizes(self, w):
        """Bounds on what the gradient and the second derivatives are summed from."""
        m, slope, z = len(self.u), self.slope(w), self.output(w).abs()
        first = (self.readout.abs() + 4 * z**3 / m).sum().item()
        second = (2 * self.readout.abs() + 12 * z**2 / m).sum().item()
        bend = 3 * slope**2 / abs(self.gamma)
        return slope * first, slope**2 * second + bend * first

    def derivatives(self, w):
        w = w.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.loss(w), w)
        return gradient, torch.autograd.functional.hessian(self.loss, w.detach())


@pytest.fixture(scope="session")
def unit():
    """From a seed to a ``Unit``."""
    return Unit


@pytest.fixture(scope="session")
def unit_descent():
    def descend(seed, steps, rate, decay, momentum=0.0, schedule=None):
        """Gradient descent with torch's SGD on a unit; the weights before each step and at the end."""
        case = Unit(seed)
        w = case.w.clone().requires_grad_()
        optimizer = torch.optim.SGD([w], lr=rate, weight_decay=decay, momentum=momentum)
        if schedule is not None and momentum:
            optimizer.state[w]["momentum_buffer"] = schedule.velocity * w.detach().clone()
        path, slopes = [w.detach().clone()], []
        for step in range(steps):
            if schedule is not None:
                optimizer.param_groups[0]["lr"] = schedule.rates[step]
            optimizer.zero_grad()
            case.loss(w).backward()
            slopes.append(w.grad.clone())
            optimizer.step()
            path.append(w.detach().clone())
        return torch.stack(path), torch.stack(slopes)

    return descend
