"""Padded sequences are normalised as if their real positions stood alone."""

import copy
import pickle
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import batch_norm

from bncore.lab import modes
from bncore.mechanics import inference, transform
from bncore.practice import masking
from bncore.practice.recalibration import recalibrated

LENGTHS = st.lists(st.integers(0, 6), min_size=1, max_size=5).filter(lambda found: sum(found) > 1)
SEEDS = st.integers(0, 10**6)
EPS = {kind: float(np.finfo(kind).eps) for kind in ("f2", "f4", "f8")}


def padded(lengths, features, seed, dtype=np.float64, filling=np.nan):
    """Sequences of these lengths, padded, and their real positions written one after the other."""
    rng = np.random.default_rng(seed)
    rows = [rng.standard_normal((n, features)).astype(dtype) for n in lengths]
    x = np.full((len(lengths), features, 6), filling, dtype)
    for one, sequence in zip(x, rows, strict=True):
        one[:, : len(sequence)] = sequence.T
    return x, np.concatenate(rows)


def split(rows, lengths):
    """The rows as padded sequences, zeros in the padding."""
    found = np.zeros((len(lengths), rows.shape[1], 6), rows.dtype)
    ends = np.cumsum(lengths)
    for one, n, end in zip(found, lengths, ends, strict=True):
        one[:, :n] = rows[end - n : end].T
    return found


def unpadded(rows, dy, gamma, beta, eps):
    """torch's batch norm of the rows in float64, and its gradients."""
    given = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (rows, gamma, beta)]
    x, gamma, beta = given
    y = batch_norm(x, None, None, gamma, beta, training=True, eps=eps)
    y.backward(torch.tensor(dy, dtype=torch.float64))
    return y.detach().numpy(), *(one.grad.numpy() for one in given)


def tolerance(rows, dy, gamma, eps, dtype):
    """Roundings of sums over the rows, with up to two factors 1 / sqrt(var + eps) or x_hat."""
    spread = 1 / np.sqrt(rows.astype(float).var(axis=0).min() + eps)
    size = max(spread, len(rows) ** 0.5, 1) ** 2 * (1 + np.abs(rows).max())
    return 8 * (len(rows) + 8) * EPS[dtype] * size * (1 + np.abs(gamma).max()) * np.abs(dy).max()


@settings(max_examples=60)
@given(LENGTHS, st.integers(1, 3), SEEDS, st.sampled_from(["f4", "f8"]), st.sampled_from([1e-5, 1]))
def test_padded_equals_unpadded_forward_and_backward(lengths, features, seed, dtype, eps):
    x, rows = padded(lengths, features, seed, dtype)
    rng = np.random.default_rng(seed + 1)
    dy, (gamma, beta) = rng.standard_normal(x.shape).astype(dtype), rng.normal(size=(2, features))
    above = np.concatenate([one[:, :n].T for one, n in zip(dy, lengths, strict=True)])
    y, cache = masking.forward(x, np.array(lengths), gamma, beta, eps)
    found = masking.backward(dy, cache)
    expected = unpadded(rows, above, gamma, beta, eps)
    atol = tolerance(rows, 1 + np.abs(dy), gamma, eps, dtype)
    np.testing.assert_allclose(y, split(expected[0], lengths), rtol=0, atol=atol)
    np.testing.assert_allclose(found.dx, split(expected[1], lengths), rtol=0, atol=atol)
    np.testing.assert_allclose(found.dgamma, expected[2], rtol=0, atol=atol)
    np.testing.assert_allclose(found.dbeta, expected[3], rtol=0, atol=atol)
    padding = np.arange(6) >= np.array(lengths)[:, None]
    assert not np.moveaxis(y, 1, -1)[padding].any()
    assert not np.moveaxis(found.dx, 1, -1)[padding].any()


@settings(max_examples=40)
@given(LENGTHS, SEEDS, st.sampled_from([np.nan, np.inf, -1e30, 1e300]))
def test_what_the_padding_holds_has_no_influence(lengths, seed, filling):
    other, _ = padded(lengths, 2, seed, filling=filling)
    x, _ = padded(lengths, 2, seed, filling=0.0)
    dy = np.random.default_rng(seed).standard_normal(x.shape)
    hidden = np.broadcast_to((np.arange(6) >= np.array(lengths)[:, None])[:, None], x.shape)
    (y, cache), (y_other, cache_other) = (masking.forward(a, lengths) for a in (x, other))
    np.testing.assert_array_equal(y, y_other)
    g, g_other = (
        masking.backward(a, c)
        for a, c in ((dy, cache), (np.where(hidden, filling, dy), cache_other))
    )
    np.testing.assert_array_equal(g.dx, g_other.dx)

    layers = masking.MaskedBatchNorm1d(2), masking.MaskedBatchNorm1d(2)
    grads = []
    for layer, values, above in zip(
        layers, (x, other), (dy, np.where(hidden, filling, dy)), strict=True
    ):
        values = torch.tensor(values, dtype=torch.float32, requires_grad=True)
        layer(values, lengths).backward(torch.tensor(above, dtype=torch.float32))
        grads += [values.grad, layer.weight.grad, layer.bias.grad, *layer.buffers()]
    half = len(grads) // 2
    for ours, theirs in zip(grads[:half], grads[half:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@settings(max_examples=50)
@given(
    st.lists(st.integers(1, 3), min_size=2, max_size=5).filter(lambda s: s[0] * np.prod(s[2:]) > 1),
    SEEDS,
)
def test_any_axes_may_follow_the_features(shape, seed):
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((2, *shape))
    mask = rng.random((shape[0], *shape[2:])) < 0.6
    mask.flat[:2] = True
    rows, above = (
        np.array([a[(i[0], slice(None), *i[1:])] for i in zip(*mask.nonzero(), strict=True)])
        for a in (x, dy)
    )
    y, cache = masking.forward(x, mask, eps=0.1)
    dx = masking.backward(dy, cache).dx
    layer = masking.MaskedBatchNorm1d(shape[1], eps=0.1).double()
    values = torch.tensor(x, requires_grad=True)
    ours = layer(values, torch.tensor(mask))
    ours.backward(torch.tensor(dy))
    ones = np.ones(shape[1])
    expected = unpadded(rows, above, ones, 0 * ones, 0.1)[:2]
    atol = tolerance(rows, 1 + np.abs(dy), ones, 0.1, "f8")
    for k, found in enumerate((y, dx, ours.detach().numpy(), values.grad.numpy())):
        kept = np.array(
            [found[(i[0], slice(None), *i[1:])] for i in zip(*mask.nonzero(), strict=True)]
        )
        np.testing.assert_allclose(kept, expected[k % 2], rtol=0, atol=atol)
        assert np.abs(found).sum() == pytest.approx(np.abs(kept).sum(), rel=1e-12)


@settings(max_examples=30)
@given(LENGTHS, SEEDS)
def test_gradients_are_finite_differences(lengths, seed):
    """Along a direction of x, padding included, gamma and beta: central differences of sum(w y)."""
    rng = np.random.default_rng(seed)
    x, _ = padded(lengths, 2, seed, filling=0.5)
    at, h, eps = (x, *rng.standard_normal((2, 2))), 1e-5, 0.5
    w = rng.standard_normal(x.shape)
    found = masking.backward(w, masking.forward(at[0], lengths, *at[1:], eps)[1])
    for k, gradient in enumerate(found):
        step = np.sign(rng.standard_normal(at[k].shape))
        high, low = (
            (w * masking.forward(moved[0], lengths, *moved[1:], eps)[0]).sum()
            for sign in (1, -1)
            for moved in [[*at[:k], at[k] + sign * h * step, *at[k + 1 :]]]
        )
        # Third derivatives stay below some 1 / eps^(3/2) for each output.
        error = 100 * h**2 * np.abs(w).sum() * (1 + np.abs(at[1]).max())
        assert abs((high - low) / (2 * h) - (gradient * step).sum()) < error


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@settings(max_examples=20)
@given(batches=st.lists(LENGTHS, min_size=1, max_size=3), seed=SEEDS)
def test_the_layer_is_that_of_torch_on_the_real_positions(momentum, batches, seed):
    layer, theirs = (
        kind(2, momentum=momentum, eps=0.1).double()
        for kind in (masking.MaskedBatchNorm1d, nn.BatchNorm1d)
    )
    for i, lengths in enumerate(batches):
        x, rows = (torch.tensor(a, requires_grad=True) for a in padded(lengths, 2, seed + i))
        y, expected = layer(x, torch.tensor(lengths)), theirs(rows)
        above = np.random.default_rng(seed + i).standard_normal(expected.shape)
        y.backward(torch.tensor(split(above, lengths)))
        expected.backward(torch.tensor(above))
        for ours, other in ((y.detach(), expected.detach()), (x.grad, rows.grad)):
            torch.testing.assert_close(
                ours, torch.tensor(split(other.numpy(), lengths)), rtol=0, atol=1e-12
            )
    for a, b in zip(layer.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-12)
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(layer.get_buffer(name), buffer, rtol=1e-12, atol=1e-12)
    layer.eval(), theirs.eval()
    x, rows = (torch.tensor(a) for a in padded(batches[0], 2, seed))
    expected = split(theirs(rows).detach().numpy(), batches[0])
    torch.testing.assert_close(
        layer(x, batches[0]), torch.tensor(expected), rtol=0, atol=1e-12, check_dtype=True
    )


def test_state_goes_either_way_and_the_layer_copies():
    theirs = nn.BatchNorm1d(3)
    theirs(torch.randn(9, 3, generator=torch.Generator().manual_seed(0)) * 3 + 1)
    layer = masking.MaskedBatchNorm1d(3)
    layer.load_state_dict(theirs.state_dict())
    nn.BatchNorm1d(3).load_state_dict(layer.state_dict())
    assert modes.is_batch_norm(layer)
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    expected = theirs.eval()(x)
    for one in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(one.eval()(x, None), expected, rtol=0, atol=1e-6)


def test_packed_sequences_need_no_mask():
    lengths = torch.tensor([2, 5, 1])
    x = torch.tensor(padded(lengths.tolist(), 3, seed=0, dtype="f4")[0])
    sequences = nn.utils.rnn.pack_padded_sequence(
        x.movedim(1, 2), lengths, batch_first=True, enforce_sorted=False
    )
    ours, theirs = masking.MaskedBatchNorm1d(3), nn.BatchNorm1d(3)
    expected, _ = nn.utils.rnn.pad_packed_sequence(
        sequences._replace(data=theirs(sequences.data)), batch_first=True, total_length=6
    )
    torch.testing.assert_close(ours(x, lengths), expected.movedim(2, 1), rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=1e-5, atol=0)


def test_a_mask_is_booleans_or_lengths_in_any_dress():
    lengths = [2, 0, 6]
    x, rows = padded(lengths, 2, seed=0, dtype="f4")
    mask = np.arange(6) < np.array(lengths)[:, None]
    dresses = [
        lengths,
        tuple(lengths),
        np.array(lengths),
        np.array(lengths, "u1"),
        mask,
        mask.tolist(),
    ]
    expected = masking.forward(x, mask)[0]
    layer = masking.MaskedBatchNorm1d(2)
    for one in dresses:
        np.testing.assert_array_equal(masking.packed(x, one), rows)
        np.testing.assert_array_equal(masking.forward(x, one)[0], expected)
        for found in (one, torch.tensor(np.array(one))):
            y = layer(torch.tensor(x), found).detach().numpy()
            np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)
    whole = np.nan_to_num(x)
    np.testing.assert_allclose(
        layer(torch.tensor(whole), None).detach(), transform.forward(whole)[0], rtol=0, atol=1e-5
    )


def test_what_takes_a_batch_takes_packed_sequences():
    running, layer = inference.RunningStatistics(2), masking.MaskedBatchNorm1d(2).double()
    for seed, lengths in enumerate(([3, 1], [0, 6], [2, 2])):
        x, _ = padded(lengths, 2, seed)
        running.update(masking.packed(x, lengths))
        layer(torch.tensor(x), lengths)
    np.testing.assert_allclose(running.mean, layer.running_mean, rtol=0, atol=1e-14)
    np.testing.assert_allclose(running.var, layer.running_var, rtol=1e-14, atol=0)


class Sequences(nn.Module):
    """A masked batch norm of sequences whose padding is beyond a billion."""

    def __init__(self):
        super().__init__()
        self.norm = masking.MaskedBatchNorm1d(2)

    def forward(self, x):
        return self.norm(x, x[:, 0] < 1e9)


@pytest.mark.parametrize("layer_by_layer", [False, True])
def test_recalibration_counts_real_positions_only(layer_by_layer):
    batches, rows = [], []
    for seed, lengths in enumerate(([3, 1], [0, 6], [2, 2])):
        x, real = padded(lengths, 2, seed, "f4", filling=1e10)
        batches.append(torch.tensor(x))
        rows.append(real.astype("f8"))
        np.testing.assert_array_equal(
            masking.MaskedBatchNorm1d(2).counted(batches[-1], lengths), real
        )
    fitted = recalibrated(Sequences(), batches, layer_by_layer=layer_by_layer)
    mean, var = inference.exact_statistics(rows)
    m = sum(map(len, rows))
    np.testing.assert_allclose(fitted.norm.running_mean, mean, rtol=0, atol=1e-6)
    np.testing.assert_allclose(fitted.norm.running_var, m / (m - 1) * var, rtol=1e-6, atol=0)


def test_fixed_statistics_need_no_real_position():
    layer = masking.MaskedBatchNorm1d(2).eval()
    x = torch.full((3, 2, 4), torch.nan)
    assert torch.equal(layer(x, [0, 0, 0]), torch.zeros(3, 2, 4))
    assert masking.packed(x.numpy(), [0, 0, 0]).shape == (0, 2)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_results_have_the_dtype_and_memory_order_of_x(dtype):
    lengths = [3, 1, 2]
    x, rows = padded(lengths, 2, seed=0, dtype=dtype)
    x = np.asfortranarray(x)
    y, cache = masking.forward(x, lengths)
    dx = masking.backward(y, cache).dx
    for found in (y, dx):
        assert found.dtype == x.dtype
        assert found.strides == x.strides
    expected = split(transform.forward(rows.astype("f8"))[0], lengths)
    np.testing.assert_allclose(y, expected, rtol=0, atol=16 * EPS[dtype])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_layer_in_single_precision_takes_half_precision(dtype):
    x = torch.tensor(padded([3, 1, 2], 2, seed=0, dtype="f4")[0])
    layer, single = masking.MaskedBatchNorm1d(2), masking.MaskedBatchNorm1d(2)
    y = layer(x.to(dtype), [3, 1, 2])
    assert y.dtype == dtype
    assert layer.running_mean.dtype == torch.float32
    expected = single(x.to(dtype).float(), [3, 1, 2])
    torch.testing.assert_close(y.float(), expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


def test_without_statistics_of_its_own_a_layer_normalises_by_those_of_the_batch(unchecked):
    x = torch.tensor(padded([3, 1], 2, seed=0, dtype="f4")[0])
    layer = masking.MaskedBatchNorm1d(2, affine=False, track_running_stats=False)
    torch.testing.assert_close(layer.eval()(x, [3, 1]), layer.train()(x, [3, 1]), rtol=0, atol=0)
    with pytest.raises(ValueError, match="mask leaves 1 real position, expected at least 2"):
        layer.eval()(x, [1, 0])
    with pytest.raises(TypeError, match=re.escape("x has dtype torch.int64, expected floats")):
        layer(torch.ones(2, 2, 6, dtype=torch.int64), [3, 1])


X = padded([3, 1], 2, seed=0)[0]
BAD_MASKS = {
    "other shape": (np.ones((2, 5), bool), ValueError, "mask has shape (2, 5), expected (2, 6): one "
                    "boolean for each position of x, of shape (2, 2, 6)"),
    "with features": (np.ones((2, 2, 6), bool), ValueError, "mask has shape (2, 2, 6), expected (2, 6)"),
    "ones and zeros": (np.ones((2, 6), int), ValueError, "mask holds integers of shape (2, 6), expected "
                       "booleans of shape (2, 6), or lengths of shape (2,): a mask of ones and zeros "
                       "is handed in as mask == 1"),
    "floats": (np.ones((2, 6)), TypeError, "float64, expected booleans, true where x is real, or "
               "integers, the lengths of the sequences"),
    "too many": ([1, 2, 3], ValueError, "mask holds integers of shape (3,), expected booleans"),
    "too long": ([3, 7], ValueError, "mask[1] is 7, expected a length from 0 to 6, that of the last "
                 "axis of x"),
    "negative": ([-1, 7], ValueError, "mask[0] is -1, expected a length from 0 to 6"),
    "one": ([1, 0], ValueError, "mask leaves 1 real position, expected at least 2"),
    "none": ([0, 0], ValueError, "mask leaves 0 real positions, expected at least 2, which have a"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_MASKS)
def test_a_bad_mask_is_refused_in_words(unchecked, name):
    mask, error, message = BAD_MASKS[name]
    with pytest.raises(error, match=re.escape(message)):
        masking.forward(X, mask)
    layer = masking.MaskedBatchNorm1d(2).double()
    for one in (mask, torch.tensor(np.array(mask))):
        with pytest.raises(error, match=re.escape(message)):
            layer(torch.tensor(X), one)


def test_lengths_need_sequences(unchecked):
    message = "mask holds integers of shape (2,), expected booleans of shape (2,): a mask"
    for x in (np.ones((2, 3)), torch.ones(2, 3)):
        call = masking.packed if isinstance(x, np.ndarray) else masking.MaskedBatchNorm1d(3)
        with pytest.raises(ValueError, match=re.escape(message)):
            call(x, [1, 1])


def with_entry(value):
    return np.where(np.arange(6) == 1, value, np.nan_to_num(X))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: masking.forward(X, None), TypeError, "mask is a None, expected a numpy.ndarray or a"),
        (lambda: masking.forward(X, torch.ones(2)), TypeError, "mask is a Tensor, expected a numpy"),
        (lambda: masking.forward(X, [[1], [1, 2]]), ValueError, "mask is a list whose rows do not form"),
        (lambda: masking.forward(X[0, 0], [True]), ValueError, "x has shape (6,), expected at least two"),
        (lambda: masking.forward(X[:, :0], [3, 1]), ValueError, "expected at least one feature"),
        (lambda: masking.forward(torch.ones(2, 2, 6), [3, 1]), TypeError, "x is a torch Tensor"),
        (lambda: masking.forward(X, [3, 2]), ValueError, "x[1, 0, 1] is nan, expected finite values"),
        (lambda: masking.packed(with_entry(np.inf), [0, 2]), ValueError, "x[1, 0, 1] is inf, expected"),
        (lambda: masking.forward(X, [3, 1], gamma=[1]), ValueError, "gamma has shape (1,), expected"),
        (lambda: masking.forward(X, [3, 1], eps=0), ValueError, "eps is 0, expected"),
        (lambda: masking.backward(X, None), TypeError, "cache is a None, expected the Cache that masking"),
        (
            lambda: masking.backward(X, transform.forward(np.eye(3))[1]),
            TypeError,
            "expected the Cache that masking.forward returned",
        ),
        (
            lambda: masking.backward(X[:1], masking.forward(X, [3, 1])[1]),
            ValueError,
            "dy has shape (1, 2, 6), expected (2, 2, 6), that of x: is the cache from another call?",
        ),
        (
            lambda: masking.backward(with_entry(np.nan), masking.forward(X, [3, 1])[1]),
            ValueError,
            "dy[0, 0, 1] is nan, expected finite values",
        ),
        (
            lambda: masking.MaskedBatchNorm1d(2)(X, [3, 1]),
            TypeError,
            "x is a ndarray, expected a tensor",
        ),
        (
            lambda: masking.MaskedBatchNorm1d(3)(torch.ones(2, 2, 6), [3, 1]),
            ValueError,
            "x has 2 features on axis 1, expected 3, those of the layer",
        ),
        (
            lambda: masking.MaskedBatchNorm1d(2)(torch.ones(2, 2, 6).double(), [3, 1]),
            TypeError,
            "x has dtype torch.float64, expected torch.float32, that of the layer",
        ),
        (
            lambda: masking.MaskedBatchNorm1d(2)(torch.ones(2), [True]),
            ValueError,
            "x has shape (2,), expected (batch, features, *spatial)",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_words(unchecked, call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
