"""A folded layer computes what the layer and its batch norm compute one after the other."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncore.mechanics import inference
from bncore.mechanics.folding import fold_conv, fold_conv_after, fold_linear, fold_linear_after

F = torch.nn.functional
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from([np.float32, np.float64])
EPS = float(np.finfo(np.float64).eps)


def tensor(array):
    return None if array is None else torch.from_numpy(np.array(array))


def statistics(rng, features, dtype, affine=True):
    """mean, var, gamma, beta of a trained layer: gamma of either sign, var of any size."""
    mean, gamma, beta = rng.normal(size=(3, features)).astype(dtype)
    var = (10.0 ** rng.uniform(-3, 2, features)).astype(dtype)
    return (mean, var, gamma, beta) if affine else (mean, var, None, None)


def layer_then_norm(layer, x, weight, bias, fixed, eps):
    """The two in torch, in float64."""
    x, weight, bias, *fixed = (
        None if a is None else tensor(a).double() for a in (x, weight, bias, *fixed)
    )
    y = F.batch_norm(layer(x, weight, bias), *fixed, training=False, eps=eps)
    return y.numpy()


def check_against_torch(layer, x, weight, bias, fixed, eps, folded):
    """Compare to the rounding error of the layer's dtype in a sum of terms of this size."""
    mean, var, gamma, beta = fixed
    got = layer(*(tensor(array).double() for array in (x, *folded))).numpy()
    expected = layer_then_norm(layer, x, weight, bias, fixed, eps)
    x, weight, bias, mean, gamma, beta = (
        None if a is None else np.abs(a) for a in (x, weight, bias, mean, gamma, beta)
    )
    size = layer_then_norm(layer, x, weight, bias, (-mean, var, gamma, beta), eps)
    assert (np.abs(got - expected) <= 4 * np.finfo(weight.dtype).eps * size).all()
    assert folded[0].shape == weight.shape
    for array in folded:
        assert array.dtype == weight.dtype


@given(
    seed=seeds,
    inputs=st.integers(1, 5),
    features=st.integers(1, 5),
    dtype=dtypes,
    biased=st.booleans(),
    affine=st.booleans(),
    eps=st.floats(1e-6, 1.0),
)
def test_fold_linear_agrees_with_torch(seed, inputs, features, dtype, biased, affine, eps):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(features, inputs)).astype(dtype)
    bias = rng.normal(size=features).astype(dtype) if biased else None
    fixed = statistics(rng, features, dtype, affine)
    x = rng.normal(size=(6, inputs))
    folded = fold_linear(weight, bias, *fixed, eps)
    check_against_torch(F.linear, x, weight, bias, fixed, eps, folded)


@given(
    seed=seeds,
    dimensions=st.integers(1, 3),
    transposed=st.booleans(),
    groups=st.integers(1, 3),
    inputs=st.integers(1, 3),
    features=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    dtype=dtypes,
    biased=st.booleans(),
    affine=st.booleans(),
)
def test_fold_conv_agrees_with_torch(
    seed, dimensions, transposed, groups, inputs, features, stride, padding, dilation, dtype,
    biased, affine,
):  # fmt: skip
    rng = np.random.default_rng(seed)
    kernel = tuple(rng.integers(1, 4, dimensions))
    pair = (inputs * groups, features) if transposed else (features * groups, inputs)
    weight = rng.normal(size=(*pair, *kernel)).astype(dtype)
    bias = rng.normal(size=features * groups).astype(dtype) if biased else None
    fixed = statistics(rng, features * groups, dtype, affine)
    x = rng.normal(size=(2, inputs * groups, *[7] * dimensions))

    def layer(x, weight, bias):
        settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return (CONV_TRANSPOSED if transposed else CONV)[dimensions](x, weight, bias, **settings)

    folded = fold_conv(weight, bias, *fixed, groups=groups, transposed=transposed)
    check_against_torch(layer, x, weight, bias, fixed, 1e-5, folded)


@pytest.mark.parametrize("transposed", [False, True])
def test_folding_a_batch_norm_that_does_nothing_changes_nothing(transposed):
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(4, 2, 3)), rng.normal(size=4)
    one, zero = np.ones(4), np.zeros(4)
    folded = fold_conv(
        weight, bias, zero, one - 0.5, one, zero, 0.5, groups=2, transposed=transposed
    )
    np.testing.assert_array_equal(folded[0], weight)
    np.testing.assert_array_equal(folded[1], bias)


def test_folding_twice_is_folding_the_product_of_the_maps():
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(3, 2))
    first, second = statistics(rng, 3, np.float64), statistics(rng, 3, np.float64)
    x = rng.normal(size=(5, 2))
    twice = fold_linear(*fold_linear(weight, None, *first), *second)
    y = inference.normalize(inference.normalize(x @ weight.T, *first), *second)
    sizes = [np.abs(parameter) for parameter in (x, weight, *first, *second)]
    (size, weight), first, second = sizes[:2], sizes[2:6], sizes[6:]
    for mean, *rest in (first, second):
        size = inference.normalize(size @ weight.T, -mean, *rest)
        weight = np.eye(3)
    assert (np.abs(x @ twice[0].T + twice[1] - y) <= 16 * EPS * size).all()


def test_half_precision_layers_fold_in_wider_arithmetic():
    weight = np.full((1, 1), 60000, np.float16)
    one = np.ones(1, np.float16)
    folded = fold_linear(weight, one * 60000, -one * 60000, one * 60000, one * 2, None, 0.5)
    scale = 2 / np.sqrt(60000.5)
    assert folded[0].dtype == folded[1].dtype == np.float16
    eps = np.finfo(np.float16).eps
    np.testing.assert_allclose(folded[0], [[60000 * scale]], rtol=eps)
    np.testing.assert_allclose(folded[1], [120000 * scale], rtol=eps)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_folded_layer_beyond_its_dtype_is_refused(dtype):
    """float16: 300 / sqrt(1e-8 + 1e-5) is 9.5e4."""
    one, zero, largest = np.ones(1, dtype), np.zeros(1, dtype), np.finfo(dtype).max
    weight, huge = np.full((1, 1), largest, dtype), np.full(1, largest, dtype)
    if dtype == np.float16:
        with pytest.raises(ValueError, match=r"weight\[0, 0\] is 9\.49e\+04, beyond the largest f"):
            fold_linear(np.full((1, 1), 300, dtype), None, zero, np.full(1, 1e-8, dtype))
    for fold, kernel in ((fold_linear, weight), (fold_conv, weight[..., np.newaxis])):
        with pytest.raises(ValueError, match=r"the folded weight\[0, 0.* beyond the largest float"):
            fold(kernel, None, zero, zero)
        for bias, fixed in (
            (huge, (zero, zero)),
            (None, (huge, zero)),
            (huge, (-huge, one)),
            (None, (-huge, one, one, huge)),
        ):
            with pytest.raises(ValueError, match=r"the folded bias\[0\] is .* beyond the largest"):
                fold(0 * kernel, bias, *fixed)


@given(seed=seeds, dtype=dtypes, other=st.sampled_from([np.float16, np.float32, np.float64]))
def test_parameters_of_another_precision_are_taken_and_weight_says_the_dtype(seed, dtype, other):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(3, 2)).astype(dtype)
    bias, mean, var, gamma, beta = rng.uniform(0.5, 2, (5, 3)).astype(other)
    folded = fold_linear(weight, bias, mean, var, gamma, beta)
    wide = (array.astype(float) for array in (weight, bias, mean, var, gamma, beta))
    for got, expected in zip(folded, fold_linear(*wide), strict=True):
        assert got.dtype == dtype
        # At most 2 / sqrt(0.5) times values of size 4: gamma, var and weight, bias, mean or beta.
        np.testing.assert_allclose(got, expected, rtol=0, atol=16 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_lists_and_integers_are_their_arrays_bit_for_bit(dtype):
    vectors = [np.array(v, dtype) for v in ([1, 2], [3, 4], [5, 6], [-1, 1], [0, 2])]
    for fold, shape in ((fold_linear, (2, 3)), (fold_conv, (2, 3, 1))):
        weight = np.arange(6, dtype=dtype).reshape(shape)
        for as_before in (lambda v: v.tolist(), lambda v: v.astype(int)):
            same = fold(weight, *(as_before(v) for v in vectors))
            for a, b in zip(same, fold(weight, *vectors), strict=True):
                assert a.dtype == b.dtype == dtype
                np.testing.assert_array_equal(a, b)
        wide = fold(weight.astype(float), *vectors)
        for a, b in zip(fold(weight.tolist(), *vectors), wide, strict=True):
            assert a.dtype == np.float64
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numbers_in_lists_are_rounded_to_the_dtype_they_stand_beside(dtype):
    bias, one = np.full(1, 0.1, dtype), np.ones(1, dtype)
    for fold, weight in ((fold_linear, one[None]), (fold_conv, one[None, None])):
        _, nothing = fold(weight, bias, [0.1], one)
        np.testing.assert_array_equal(nothing, 0)
    _, nothing = inference.affine_map(bias, 1 - one / 2, None, (bias * one).tolist(), 0.5)
    np.testing.assert_array_equal(nothing, 0)
    scale, _ = inference.affine_map(bias, [0.5], [0.1], None, 0.5)
    np.testing.assert_array_equal(scale, bias)
    assert scale.dtype == dtype


@pytest.mark.parametrize("transposed", [False, True])
def test_channels_last_kernels_stay_channels_last(transposed):
    weight = np.random.default_rng(0).normal(size=(4, 5, 6, 2)).transpose(0, 3, 1, 2)
    features = 2 if transposed else 4
    folded, _ = fold_conv(
        weight, None, np.zeros(features), np.ones(features), transposed=transposed
    )
    assert folded.strides == weight.strides


def test_strided_read_only_and_zero_stride_arrays_fold_and_stay():
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(3, 8, 2)).transpose(1, 0, 2)[::2]
    weight.flags.writeable = False
    ones = np.broadcast_to(np.array(2.0), (4,))
    kept = weight.copy()
    for transposed, features in ((False, 4), (True, 6)):
        fixed = [np.broadcast_to(ones[0], (features,))] * 4
        folded = fold_conv(weight, fixed[0], *fixed, groups=2, transposed=transposed)
        plain = [np.full(features, 2.0)] * 4
        again = fold_conv(kept, plain[0], *plain, groups=2, transposed=transposed)
        np.testing.assert_allclose(folded[0], again[0], rtol=4 * EPS)
        np.testing.assert_allclose(folded[1], again[1], rtol=4 * EPS)
    np.testing.assert_array_equal(weight, kept)


def test_inference_offers_the_folding_functions():
    assert inference.fold_linear is fold_linear
    assert inference.fold_conv is fold_conv
    assert inference.fold_linear_after is fold_linear_after
    assert inference.fold_conv_after is fold_conv_after


GOOD = {"mean": np.ones(4), "var": np.ones(4), "gamma": np.ones(4), "beta": np.ones(4)}
WEIGHTS = [
    (fold_linear, {"weight": np.ones((4, 3))}),
    (fold_conv, {"weight": np.ones((4, 3, 2, 2)), "groups": 2}),
    (fold_conv, {"weight": np.ones((6, 2, 2)), "groups": 2, "transposed": True}),
]


@pytest.mark.parametrize(("fold", "weight"), WEIGHTS)
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"weight": [["a"]]}, TypeError, "weight is a list of <U1, expected real numbers"),
        ({"weight": np.ones((4, 2, 2), bool)}, TypeError, "weight has dtype bool, expected"),
        ({"weight": torch.ones(4, 2)}, TypeError, r"weight is a torch Tensor.* weight\.detach\(\)"),
        ({"mean": torch.ones(4)}, TypeError, r"mean is a torch Tensor.* mean\.detach\(\)"),
        ({"mean": ["0"] * 4}, TypeError, "mean is a list of <U1, expected real numbers"),
        ({"weight": np.ones(4)}, ValueError, r"weight has shape \(4,\), expected \("),
        ({"bias": np.ones(1)}, ValueError, r"bias has shape \(1,\), expected \(4,\): one entry"),
        ({"bias": np.ones((4, 1))}, ValueError, r"bias has shape \(4, 1\), expected \(4,\)"),
        ({"bias": np.full(4, np.nan)}, ValueError, r"bias\[0\] is nan, expected finite"),
        ({"mean": np.ones(1)}, ValueError, r"mean has shape \(1,\), .* 4 features of weight"),
        ({"var": np.ones(3)}, ValueError, r"var has shape \(3,\), expected \(4,\)"),
        ({"var": -np.ones(4)}, ValueError, r"var\[0\] is -1.0, expected at least 0"),
        ({"gamma": np.ones(2)}, ValueError, r"gamma has shape \(2,\), expected \(4,\)"),
        ({"beta": np.ones(8)}, ValueError, r"beta has shape \(8,\), expected \(4,\)"),
        ({"eps": 0.0}, ValueError, r"eps is 0.0, expected a finite number above 0"),
    ],
)
def test_bad_arguments_are_refused(unchecked, fold, weight, bad, error, message):
    with pytest.raises(error, match=message):
        fold(**GOOD | {"bias": None} | weight | bad)


@pytest.mark.parametrize(("fold", "weight"), WEIGHTS)
def test_weights_that_are_not_finite_are_refused(fold, weight):
    poisoned = weight["weight"].copy()
    poisoned.flat[1] = np.inf
    with pytest.raises(ValueError, match=r"weight\[0, .*1\] is inf, expected finite values only"):
        fold(**GOOD | {"bias": None} | weight | {"weight": poisoned})


@pytest.mark.parametrize(
    ("shape", "settings", "error", "message"),
    [
        ((4, 2, 1), {"groups": 3}, ValueError, "groups is 3, expected a divisor of the 4 features"),
        (
            (4, 2, 1),
            {"groups": 3, "transposed": True},
            ValueError,
            "groups is 3, expected a divisor of the 4 inputs of weight",
        ),
        ((4, 2, 1), {"groups": 0}, ValueError, "groups is 0, expected at least 1"),
        ((4, 2, 1), {"groups": 2.0}, TypeError, "groups is a float, expected an integer"),
        ((4, 2), {}, ValueError, r"\(4, 2\), expected \(features, inputs / groups, \*kernel\)"),
        (
            (2, 4),
            {"transposed": True},
            ValueError,
            r"\(2, 4\), expected \(inputs, features / groups, \*kernel\)",
        ),
        ((2, 4, 1), {}, ValueError, r"mean has shape \(4,\), expected \(2,\)"),
        ((4, 4, 1), {"groups": 2, "transposed": True}, ValueError, r"\(4,\), expected \(8,\)"),
    ],
)
def test_kernels_of_another_layout_are_refused(unchecked, shape, settings, error, message):
    with pytest.raises(error, match=message):
        fold_conv(np.ones(shape), None, **GOOD, **settings)


def test_a_kernel_is_not_a_linear_weight(unchecked):
    with pytest.raises(ValueError, match=r"weight has shape \(4, 2, 1\), expected \(features, in"):
        fold_linear(np.ones((4, 2, 1)), None, **GOOD)


def norm_then_layer(layer, x, weight, bias, fixed, eps=1e-5):
    """The two in torch, in float64, the other way round."""
    x, weight, bias, *fixed = (
        None if a is None else tensor(a).double() for a in (x, weight, bias, *fixed)
    )
    return layer(F.batch_norm(x, *fixed, training=False, eps=eps), weight, bias).numpy()


def check_after(layer, x, weight, bias, fixed, folded):
    """Compare to the rounding error of the layer's dtype in a sum of terms of this size."""
    mean, var, gamma, beta = fixed
    got = layer(*(tensor(array).double() for array in (x, *folded))).numpy()
    expected = norm_then_layer(layer, x, weight, bias, fixed)
    x, mean, gamma, beta = (None if a is None else np.abs(a) for a in (x, mean, gamma, beta))
    sizes = (np.abs(weight), None if bias is None else np.abs(bias))
    size = norm_then_layer(layer, x, *sizes, (-mean, var, gamma, beta))
    assert (np.abs(got - expected) <= 4 * np.finfo(weight.dtype).eps * size).all()
    assert folded[0].shape == weight.shape
    for array in folded:
        assert array.dtype == weight.dtype


@given(
    seed=seeds,
    inputs=st.integers(1, 5),
    features=st.integers(1, 5),
    dtype=dtypes,
    biased=st.booleans(),
    affine=st.booleans(),
)
def test_fold_linear_after_agrees_with_torch(seed, inputs, features, dtype, biased, affine):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(features, inputs)).astype(dtype)
    bias = rng.normal(size=features).astype(dtype) if biased else None
    fixed = statistics(rng, inputs, dtype, affine)
    x = rng.normal(size=(6, inputs))
    check_after(F.linear, x, weight, bias, fixed, fold_linear_after(weight, bias, *fixed))


@given(
    seed=seeds,
    dimensions=st.integers(1, 3),
    groups=st.integers(1, 3),
    inputs=st.integers(1, 3),
    features=st.integers(1, 3),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    dtype=dtypes,
    biased=st.booleans(),
    affine=st.booleans(),
)
def test_fold_conv_after_agrees_with_torch(
    seed, dimensions, groups, inputs, features, stride, dilation, dtype, biased, affine
):
    rng = np.random.default_rng(seed)
    kernel = tuple(rng.integers(1, 4, dimensions))
    weight = rng.normal(size=(features * groups, inputs, *kernel)).astype(dtype)
    bias = rng.normal(size=features * groups).astype(dtype) if biased else None
    fixed = statistics(rng, inputs * groups, dtype, affine)
    x = rng.normal(size=(2, inputs * groups, *[7] * dimensions))

    def layer(x, weight, bias):
        settings = {"stride": stride, "dilation": dilation, "groups": groups}
        return CONV[dimensions](x, weight, bias, **settings)

    folded = fold_conv_after(weight, bias, *fixed, groups=groups)
    check_after(layer, x, weight, bias, fixed, folded)


PADDED = [1, "same", "SAME", (0, 1), [[0, 0], [0, 2]]]
UNPADDED = [0, "valid", "VALID", (0, 0), [(0, 0), (0, 0)], ["valid"]]


@pytest.mark.parametrize("padding", PADDED)
def test_a_shift_before_a_padded_convolution_is_refused(unchecked, padding):
    weight, one = np.ones((2, 3, 3)), np.ones(3)
    with pytest.raises(
        ValueError, match=r"padding is not 0.* adds 2 to channel 1, but not to the z"
    ):
        fold_conv_after(weight, None, 0 * one, one, None, [0, 2, 0], padding=padding)


@given(seed=seeds, features=st.integers(1, 3))
def test_a_batch_norm_that_shifts_nothing_folds_into_a_padded_convolution(seed, features):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(features, 3, 3))
    _, var, gamma, _ = statistics(rng, 3, np.float64)
    fixed = np.zeros(3), var, gamma, np.zeros(3)

    def layer(x, weight, bias):
        return F.conv1d(x, weight, bias, padding=1)

    folded = fold_conv_after(weight, None, *fixed, padding=1)
    check_after(layer, rng.normal(size=(2, 3, 5)), weight, None, fixed, folded)


def test_a_shift_that_is_padded_would_be_wrong_at_the_border_only():
    """What the refusal prevents: inside the fold is right, at the border it is off by a term."""
    rng = np.random.default_rng(3)
    weight, x = rng.normal(size=(2, 3, 3)), rng.normal(size=(1, 3, 8))
    fixed = statistics(rng, 3, np.float64)

    def layer(x, weight, bias):
        return F.conv1d(x, weight, bias, padding=1)

    folded = fold_conv_after(weight, None, *fixed)
    got = layer(*(tensor(array) for array in (x, *folded))).numpy()
    off = np.abs(got - norm_then_layer(layer, x, weight, None, fixed))
    assert off[..., 1:-1].max() < 1e-9 < 1e-3 < off[..., [0, -1]].min()


@pytest.mark.parametrize("padding", UNPADDED)
def test_all_words_for_no_padding_are_understood(unchecked, padding):
    weight, one = np.ones((2, 3, 3)), np.ones(3)
    folded = fold_conv_after(weight, None, one, one, padding=padding)
    np.testing.assert_array_equal(folded[1], fold_conv_after(weight, None, one, one)[1])


@pytest.mark.parametrize(
    ("padding", "error", "message"),
    [
        ("full", ValueError, "padding is 'full', expected 'valid', 'same' or numbers"),
        (-1, ValueError, "padding is -1, expected at least 0"),
        ((1, -1), ValueError, "padding is -1, expected at least 0"),
        (0.5, TypeError, "padding is a float, expected an integer"),
    ],
)
def test_paddings_of_no_framework_are_refused(unchecked, padding, error, message):
    with pytest.raises(error, match=message):
        fold_conv_after(np.ones((2, 3, 3)), None, np.ones(3), np.ones(3), padding=padding)


@pytest.mark.parametrize("fold", [fold_linear_after, fold_conv_after])
def test_statistics_of_another_number_of_inputs_are_refused(unchecked, fold):
    weight = np.ones((2, 3) if fold is fold_linear_after else (2, 3, 1))
    with pytest.raises(
        ValueError, match=r"mean has shape \(2,\), .* 3 features of the layer's input"
    ):
        fold(weight, None, np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match=r"bias has shape \(3,\), expected \(2,\)"):
        fold(weight, np.ones(3), np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=r"the folded bias\[0\] is .* beyond the largest float16"):
        fold(np.full_like(weight, 6e4, np.float16), None, [3.0] * 3, [1.0] * 3)


def windows(x, kernel, stride, dilation):
    """Of (batch, *positions, channels) the parts under the kernel, on the last axes."""
    axes = tuple(range(1, 1 + len(kernel)))
    reach = [(size - 1) * dilation + 1 for size in kernel]
    seen = np.lib.stride_tricks.sliding_window_view(x, reach, axis=axes)
    steps = (slice(None, None, stride),) * len(kernel)
    inside = (slice(None, None, dilation),) * len(kernel)
    return seen[(slice(None), *steps, slice(None), *inside)]


def channels_last_conv(x, weight, bias, groups=1, stride=1, dilation=1):
    """Keras's and Flax's convolution, written out: kernel (*kernel, inputs / groups, features)."""
    *kernel, inputs, features = weight.shape
    seen = windows(x, kernel, stride, dilation)
    parts = []
    for group in range(groups):
        own = weight[..., group * (features // groups) : (group + 1) * (features // groups)]
        part = seen.take(range(group * inputs, (group + 1) * inputs), axis=1 + len(kernel))
        own = np.moveaxis(own, len(kernel), 0)
        parts.append(np.tensordot(part, own, axes=len(kernel) + 1))
    return np.concatenate(parts, axis=-1) + bias


def depthwise_conv(x, weight, bias, stride=1, dilation=1):
    """Keras's, written out: feature c * multiplier + m sees channel c only."""
    *kernel, channels, multiplier = weight.shape
    seen = windows(x, kernel, stride, dilation)
    columns = []
    for c in range(channels):
        for m in range(multiplier):
            terms = seen.take(c, axis=1 + len(kernel)) * weight[..., c, m]
            columns.append(terms.sum(axis=tuple(range(-len(kernel), 0))))
    return np.stack(columns, axis=-1) + bias


def transposed_conv(x, weight, bias, stride, inputs_axis):
    """Each position adds its kernel to the output, shifted by the stride."""
    weight = np.moveaxis(weight, inputs_axis, -1)
    *kernel, features, _ = weight.shape
    positions = x.shape[1:-1]
    size = [(n - 1) * stride + k for n, k in zip(positions, kernel, strict=True)]
    y = np.zeros((len(x), *size, features))
    for at in np.ndindex(*positions):
        place = tuple(slice(p * stride, p * stride + k) for p, k in zip(at, kernel, strict=True))
        y[(slice(None), *place)] += np.tensordot(x[(slice(None), *at)], weight, axes=(-1, -1))
    return y + bias


def normalize_last(x, fixed):
    return np.moveaxis(inference.normalize(np.moveaxis(x, -1, 1), *fixed), 1, -1)


def assert_same_outputs(got, expected):
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-11 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("layout", ["keras", "flax"])
@given(seed=seeds, inputs=st.integers(1, 4), features=st.integers(1, 4))
def test_dense_kernels_of_keras_and_flax_fold(layout, seed, inputs, features):
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(inputs, features)), rng.normal(size=features)
    x = rng.normal(size=(5, inputs))
    fixed = statistics(rng, features, np.float64)
    folded = fold_linear(weight, bias, *fixed, layout=layout)
    assert_same_outputs(x @ folded[0] + folded[1], inference.normalize(x @ weight + bias, *fixed))
    fixed = statistics(rng, inputs, np.float64)
    folded = fold_linear_after(weight, bias, *fixed, layout=layout)
    assert_same_outputs(x @ folded[0] + folded[1], inference.normalize(x, *fixed) @ weight + bias)


@pytest.mark.parametrize("layout", ["keras", "flax"])
@given(
    seed=seeds,
    dimensions=st.integers(1, 2),
    groups=st.integers(1, 3),
    inputs=st.integers(1, 3),
    features=st.integers(1, 3),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
)
def test_convolutions_of_keras_and_flax_fold(
    layout, seed, dimensions, groups, inputs, features, stride, dilation
):
    rng = np.random.default_rng(seed)
    kernel = tuple(rng.integers(1, 4, dimensions))
    weight = rng.normal(size=(*kernel, inputs, features * groups))
    bias = rng.normal(size=features * groups)
    x = rng.normal(size=(2, *[7] * dimensions, inputs * groups))

    def layer(x, weight, bias):
        return channels_last_conv(x, weight, bias, groups, stride, dilation)

    fixed = statistics(rng, features * groups, np.float64)
    folded = fold_conv(weight, bias, *fixed, groups=groups, layout=layout)
    assert_same_outputs(layer(x, *folded), normalize_last(layer(x, weight, bias), fixed))
    fixed = statistics(rng, inputs * groups, np.float64)
    folded = fold_conv_after(weight, bias, *fixed, groups=groups, layout=layout)
    assert_same_outputs(layer(x, *folded), layer(normalize_last(x, fixed), weight, bias))


@given(
    seed=seeds,
    dimensions=st.integers(1, 2),
    channels=st.integers(1, 3),
    multiplier=st.integers(1, 3),
    stride=st.integers(1, 2),
)
def test_depthwise_convolutions_of_keras_fold(seed, dimensions, channels, multiplier, stride):
    rng = np.random.default_rng(seed)
    kernel = tuple(rng.integers(1, 4, dimensions))
    weight = rng.normal(size=(*kernel, channels, multiplier))
    bias = rng.normal(size=channels * multiplier)
    x = rng.normal(size=(2, *[6] * dimensions, channels))

    def layer(x, weight, bias):
        return depthwise_conv(x, weight, bias, stride)

    fixed = statistics(rng, channels * multiplier, np.float64)
    folded = fold_conv(weight, bias, *fixed, layout="keras-depthwise")
    assert_same_outputs(layer(x, *folded), normalize_last(layer(x, weight, bias), fixed))
    fixed = statistics(rng, channels, np.float64)
    folded = fold_conv_after(weight, bias, *fixed, layout="keras-depthwise")
    assert_same_outputs(layer(x, *folded), layer(normalize_last(x, fixed), weight, bias))


@pytest.mark.parametrize(("layout", "inputs_axis"), [("keras", -1), ("flax", -2)])
@given(seed=seeds, inputs=st.integers(1, 3), features=st.integers(1, 3), stride=st.integers(1, 2))
def test_transposed_convolutions_of_keras_and_flax_fold(
    layout, inputs_axis, seed, inputs, features, stride
):
    rng = np.random.default_rng(seed)
    pair = (features, inputs) if layout == "keras" else (inputs, features)
    weight = rng.normal(size=(2, 3, *pair))
    bias = rng.normal(size=features)
    x = rng.normal(size=(2, 3, 4, inputs))
    fixed = statistics(rng, features, np.float64)
    folded = fold_conv(weight, bias, *fixed, transposed=True, layout=layout)
    got = transposed_conv(x, *folded, stride, inputs_axis)
    expected = transposed_conv(x, weight, bias, stride, inputs_axis)
    assert_same_outputs(got, normalize_last(expected, fixed))


@pytest.mark.parametrize(
    ("fold", "shape", "settings", "message"),
    [
        (
            fold_linear,
            (4, 4),
            {"layout": "jax"},
            "layout is 'jax', expected one of 'torch', 'keras'",
        ),
        (
            fold_linear,
            (4, 4),
            {"layout": "keras-depthwise"},
            "layout is 'keras-depthwise', expected",
        ),
        (fold_linear, (4,), {"layout": "flax"}, r"\(4,\), expected \(inputs, features\)"),
        (
            fold_conv,
            (2, 4),
            {"layout": "keras"},
            r"expected \(\*kernel, inputs / groups, features\)",
        ),
        (
            fold_conv,
            (2, 4),
            {"layout": "keras", "transposed": True},
            r"expected \(\*kernel, features, inputs\)",
        ),
        (
            fold_conv,
            (2, 4),
            {"layout": "flax", "transposed": True},
            r"expected \(\*kernel, inputs, features\)",
        ),
        (
            fold_conv,
            (2, 2),
            {"layout": "keras-depthwise"},
            r"expected \(\*kernel, inputs, multiplier\)",
        ),
        (
            fold_conv,
            (1, 2, 2),
            {"layout": "keras-depthwise", "transposed": True},
            "transposed is True, expected False: Keras has no transposed depthwise",
        ),
        (
            fold_conv,
            (1, 2, 2),
            {"layout": "keras-depthwise", "groups": 2},
            "groups is 2, expected 1: such a kernel has no groups",
        ),
        (
            fold_conv,
            (1, 4, 2),
            {"layout": "keras", "transposed": True, "groups": 2},
            "groups is 2, expected 1: such a kernel has no groups",
        ),
        (
            fold_conv,
            (1, 2, 4),
            {"layout": "flax", "groups": 3},
            "groups is 3, expected a divisor of the 4 features",
        ),
    ],
)
def test_layouts_that_do_not_fit_are_refused(unchecked, fold, shape, settings, message):
    with pytest.raises(ValueError, match=message):
        fold(np.ones(shape), None, **GOOD, **settings)
