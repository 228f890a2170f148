r"""Adaptive gradient clipping: a unit's gradient is kept short beside the unit's weights.

Where norm(G_i) > c max(norm(W_i), eps),    G_i <- c max(norm(W_i), eps) G_i / norm(G_i)

A step of gradient descent at rate eta moves weights W_i by eta norm(G_i) / norm(W_i) of their length.
Batch norm keeps that in check, as the gradient shrinks with the length of the weights; without it, this
does.

Brock, De, Smith and Simonyan (2021), equation 3.
"""

from collections.abc import Iterable
from numbers import Real as Number

import torch

from bncore import arguments as check
from bncore import tensors


def adaptive_clip_(
    parameters: torch.Tensor | Iterable[torch.Tensor],
    clipping: Number = 0.01,
    eps: Number = 1e-3,
) -> float:
    """Shorten the gradient of each unit that is long beside the unit's weights, in place.

    Call it between ``loss.backward()`` and ``optimizer.step()``. What is a unit:

    - in weights of two axes or more each entry of axis 0: what one output of a linear layer or a
      convolution is computed by, one row of an embedding;
    - biases, and scales and shifts of a normalisation, each vector as a whole, as in the source;
      numbers likewise.

    In a transposed convolution axis 0 is that of the inputs, so units there are inputs.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Such as ``model.parameters()``. The source leaves out the last linear layer. Those without a
        gradient are passed over; sparse gradients, as of ``nn.Embedding(..., sparse=True)``, have
        their repeated rows added up and stay sparse.
    clipping : float
        c, how long a gradient may be beside the weights; positive. The larger the batch, the smaller:
        0.01 is the source's for batches of 4096.
    eps : float
        Positive. Weights count as no shorter than that, so that those at 0 can move.

    Returns
    -------
    float
        The share of units with a gradient that was shortened; 0 if there are none. A sparse gradient
        has one unit for each row in it.

    Raises
    ------
    TypeError
        If parameters are no floating-point tensors, or clipping or eps is no real number.
    ValueError
        If clipping or eps is not positive, a gradient or a weight is not finite, or a sparse gradient
        is sparse within rows. No gradient has been changed then.

    References
    ----------
    Brock, De, Smith and Simonyan (2021), section 4.
    """
    clipping, eps = check.positive("clipping", clipping), check.positive("eps", eps)
    with torch.no_grad():
        pairs = [
            _weights_and_gradient(f"parameters[{number}]", one)
            for number, one in enumerate(_listed(parameters))
            if one.grad is not None and one.numel()
        ]
        clipped = units = 0
        for weights, gradient in pairs:
            factor = _factor(_by_unit(weights), _by_unit(gradient), clipping, eps)
            each = factor.reshape(-1, *[1] * (gradient.ndim - 1)) if gradient.ndim else factor[0]
            gradient.mul_(each.to(gradient.dtype))
            clipped += int((factor < 1).sum())
            units += len(factor)
    return clipped / max(units, 1)


def _listed(parameters):
    """The parameters, each once."""
    if isinstance(parameters, torch.nn.Module):
        kind = check.type_name(parameters)
        raise TypeError(f"parameters is a {kind}, expected tensors: hand in its .parameters()")
    found = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
    for number, one in enumerate(found):
        if not (isinstance(one, torch.Tensor) and one.is_floating_point()):
            kind = one.dtype if isinstance(one, torch.Tensor) else check.type_name(one)
            raise TypeError(
                f"parameters[{number}] is a {kind}, expected a tensor of floating-point numbers"
            )
    return list({id(one): one for one in found}.values())


def _weights_and_gradient(name, parameter):
    """What is compared, and for a sparse gradient its rows alone. Refuse what is not finite."""
    weights, gradient = parameter.detach(), parameter.grad
    if gradient.layout != torch.strided:
        if gradient.layout != torch.sparse_coo or gradient.sparse_dim() != 1 or weights.ndim < 2:
            raise ValueError(
                f"the gradient of {name} is sparse within rows ({gradient.layout}), expected a dense "
                "one, or one of whole rows, as an embedding has"
            )
        parameter.grad = gradient.coalesce()
        weights = weights[parameter.grad.indices()[0]]
        gradient = parameter.grad.values()
    tensors.finite(name, weights)
    tensors.finite(f"the gradient of {name}", gradient)
    return weights, gradient


def _by_unit(values):
    """One unit a row."""
    return values.flatten(1) if values.ndim > 1 else values.reshape(1, -1)


def _factor(weights, gradient, clipping, eps):
    """What each row of the gradient is multiplied by, at most 1."""
    wide = torch.promote_types(gradient.dtype, torch.float32)
    largest, rest = _length(weights.to(wide))
    limit = clipping * (largest * rest).clamp(min=eps)
    largest, rest = _length(gradient.to(wide))
    # Not by the length itself, which may lie beyond the range of the dtype.
    return (limit / largest / rest).clamp(max=1.0)[:, 0]


def _length(rows):
    """The length of each row as a product of two: its largest entry, and the length beside that."""
    largest = rows.abs().amax(1, keepdim=True)
    largest = largest.where(largest > 0, 1.0)
    rest = torch.linalg.vector_norm(rows / largest, dim=1, keepdim=True)
    return largest, rest
