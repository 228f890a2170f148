"""Batch norm whose statistics are those of the batch that several processes hold together.

Forward, each process tells the others the count, mean and variance of its part, 2C + 1 numbers for C
features, and all merge what they are told. Sums of x and x² would do in one message too, but from
them a large mean takes the variance. With the merged n, mean and var,

    x_hat = (x - mean) / sqrt(var + eps),    y = gamma x_hat + beta

Backward, the loss is the sum of the losses of all processes, and two sums run over all parts, 2C
numbers: of dy, and of dy * x_hat. Then

    dx = gamma / sqrt(var + eps) * (dy - sum(dy) / n - x_hat sum(dy * x_hat) / n)

dgamma and dbeta of a process are the sums over its own part: the gradients of all processes, added up,
are those of the whole batch, as those of all other parameters are.

``DistributedDataParallel`` takes the mean over the P processes instead. Of losses that are means over
n_k examples each it makes sum_k (n_k / n) (n / (P n_k)) dL_k, in which an example of process k counts
n / (P n_k) times as much as in the whole batch: the same only if parts are equal. Multiply the mean loss
of a process by P n_k / n, and the gradient is that of the mean over the whole batch.
"""

import copy
from contextlib import contextmanager
from numbers import Real as Number

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from bncore import arguments as check
from bncore import tensors


class SyncedBatchNorm(BatchNorm):
    """Batch norm over the parts of a batch that several processes hold, for any number of axes.

    Outputs, gradients and running statistics are those of one process with the whole batch, for
    losses and gradients that are summed over the processes. Parts may be unequal, and empty: a
    process without examples takes part with a tensor of none. Where there is one process, or
    ``torch.distributed`` is not initialised, it is torch's batch norm. Its state is torch's too: a
    state dict of either loads into the other.

    It works where ``torch.distributed`` does: over gloo on a processor, over nccl on CUDA. It sends
    one message forward, of 2C + 1 numbers, and one of 2C backward, in single precision for inputs of
    half precision. There is no message in evaluation mode, and none backward where x needs no
    gradient. A layer without running statistics normalises by those of all parts in evaluation mode
    too, and asks all processes to evaluate.

    All processes call the same layers in the same order, forward and backward. If one dies or stays
    away, the others raise an error within the time-out of the group
    (``init_process_group(timeout=...)``); nccl ends the whole process instead.

    As with torch's batch norm, NaN and infinity go through, on every process. The gradient can be
    taken once, not of the gradient.

    Parameters
    ----------
    num_features : int
        Features, on axis 1.
    eps : float
        Positive, as in torch.
    momentum : float, optional
        Weight of a new batch in the running statistics; None averages all batches equally.
    affine : bool
        Whether there are a scale and a shift to learn.
    track_running_stats : bool
        Whether there are running statistics.
    process_group : torch.distributed.ProcessGroup, optional
        Whose parts make the batch; by default those of all processes.

    Raises
    ------
    TypeError
        If num_features is not an integer, eps or momentum not a real number, or process_group no
        group; in a forward pass, if the input is not a floating-point tensor of the layer's dtype or,
        where that is float32, of half precision.
    ValueError
        If a number is outside its range, or this process not in process_group; in a forward pass, if
        the input has other features, or all parts together fewer than two values of each.
    RuntimeError
        In a forward or backward pass, if another process does not do its part in time.

    References
    ----------
    Ioffe and Szegedy (2015), Algorithm 1; Chan, Golub and LeVeque (1983) for the merging.
    """

    def __init__(
        self,
        num_features: int,
        eps: Number = 1e-5,
        momentum: Number | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: object | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        check.positive_integer("num_features", num_features)
        eps = check.positive("eps", eps)
        if momentum is not None:
            momentum = check.fraction("momentum", momentum)
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype
        )
        self.process_group = checked_group(process_group)

    def forward(
        self, x: Float[torch.Tensor, "batch features *spatial"]
    ) -> Float[torch.Tensor, "batch features *spatial"]:
        """Normalise by the statistics of all parts, or, in evaluation mode, by the running ones."""
        self._check_input_dim(x)
        if not (self.training or self.running_mean is None):
            return super().forward(x)
        parts = _processes(self.process_group)
        if parts == 1:
            self._refuse_few(x, check.values_per_feature(x), parts)
            return super().forward(x)
        with torch.no_grad():
            count, mean, var = self._statistics(x, parts)
            if self.training and self.track_running_stats:
                self._move(count, mean, var)
        return _Normalised.apply(
            x, self.weight, self.bias, count, mean, var, self.eps, self.process_group
        )

    def __deepcopy__(self, memo):
        """A copy that shares the group: groups cannot be copied."""
        made = self.__class__.__new__(self.__class__)
        memo |= {id(self): made, id(self.process_group): self.process_group}
        vars(made).update(copy.deepcopy(vars(self), memo))
        return made

    def _statistics(self, x, parts):
        """Count, mean and variance of all parts, in double precision."""
        count, exact = check.values_per_feature(x), _exact(x)
        if count:
            var, mean = torch.var_mean(exact, _axes(x), correction=0)
        else:
            mean = var = exact.new_zeros(self.num_features)
        own = torch.cat([mean.new_tensor([count]), mean, var])
        told = [torch.empty_like(own) for _ in range(parts)]
        with _in_words("forward", self.num_features, self.process_group):
            dist.all_gather(told, own, group=self.process_group)
        sizes = [1, self.num_features, self.num_features]
        total, mean, var = _merged(*torch.stack(told).double().split(sizes, dim=1))
        if count < 2:
            self._refuse_few(x, int(total), parts)
        return total, mean, var

    def _move(self, count, mean, var):
        self.num_batches_tracked.add_(1)
        weight = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        for kept, new in (
            (self.running_mean, mean),
            (self.running_var, var * (count / (count - 1))),
        ):
            kept.lerp_(new.to(kept.dtype), weight)

    def _refuse_few(self, x, count, parts):
        if count < 2:
            whole = f"; all {parts} parts together have" if parts > 1 else ","
            raise ValueError(
                f"x has shape {tuple(x.shape)}{whole} {count} value{'s' * (count != 1)} of each "
                "feature, expected at least 2: one value has no deviation"
            )

    def _check_input_dim(self, input):
        kept = next((t for t in (self.running_mean, self.weight) if t is not None), None)
        tensors.layer_input("x", input, self.num_features, None if kept is None else kept.dtype)


class _Normalised(torch.autograd.Function):
    """The transform with given statistics forward; backward, through these as well."""

    @staticmethod
    def forward(ctx, x, gamma, beta, count, mean, var, eps, group):
        exact = _exact(x)
        mean, inverse = (_columns(v, exact) for v in (mean, (var + eps).rsqrt()))
        ctx.save_for_backward(x, gamma, beta, count, mean, inverse)
        ctx.group = group
        y = (exact - mean) * inverse
        if gamma is not None:
            y = y * _columns(gamma, exact)
        if beta is not None:
            y = y + _columns(beta, exact)
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, gamma, beta, count, mean, inverse = ctx.saved_tensors
        dx, dy, x_hat = None, _exact(dy), (_exact(x) - mean) * inverse
        dbeta, dgamma = dy.sum(_axes(x)), (dy * x_hat).sum(_axes(x))
        if ctx.needs_input_grad[0]:
            sums = torch.cat([dbeta, dgamma])
            with _in_words("backward", len(dbeta), ctx.group):
                dist.all_reduce(sums, group=ctx.group)
            of_dy, of_dy_x_hat = (_columns(v, dy) for v in (sums / count).chunk(2))
            scale = inverse if gamma is None else inverse * _columns(gamma, dy)
            dx = (scale * (dy - of_dy - x_hat * of_dy_x_hat)).to(x.dtype)
        dgamma = None if gamma is None else dgamma.to(gamma.dtype)
        dbeta = None if beta is None else dbeta.to(beta.dtype)
        return dx, dgamma, dbeta, *[None] * 5


def checked_group(value: object) -> object:
    """The value, if it is None or a process group that this process is in."""
    if value is None:
        return None
    nowhere = dist.GroupMember.NON_GROUP_MEMBER
    if type(value) is type(nowhere) and value == nowhere:
        raise ValueError(
            "process_group does not have this process in it, expected a group that has: each process "
            "hands in its own"
        )
    if not isinstance(value, dist.ProcessGroup):
        raise TypeError(
            f"process_group is a {check.type_name(value)}, expected what "
            "torch.distributed.new_group returned, or None for all processes"
        )
    return value


def _processes(group):
    """How many processes hold parts."""
    begun = dist.is_available() and dist.is_initialized()
    return dist.get_world_size(group) if begun else 1


@contextmanager
def _in_words(when, features, group):
    """Say what a failed exchange means."""
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            f"process {dist.get_rank(group)} of {dist.get_world_size(group)} waited in the {when} pass "
            f"of a SyncedBatchNorm of {features} features for what the others had to tell, and one "
            "did not: it has died, has raised an error of its own, was away for longer than the "
            "time-out of the group, or has called other layers"
        ) from error


def _merged(counts, means, variances):
    """As ``merge_statistics``."""
    total, origin = counts.sum(), means[counts.argmax()]
    weights, apart = counts / total, torch.where(counts > 0, means - origin, 0.0)
    shift = (weights * apart).sum(0)
    return total, origin + shift, (weights * (variances + (apart - shift).square())).sum(0)


def _exact(x):
    """The values in at least single precision."""
    return x.float() if x.element_size() < 4 else x


def _axes(x):
    return [0, *range(2, x.ndim)]


def _columns(vector, x):
    """One entry for each feature of x, in its precision."""
    return vector.to(x.dtype).view(-1, *[1] * (x.ndim - 2))
