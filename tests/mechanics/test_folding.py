"""A folded layer computes what the layer and its batch norm compute one after the other."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncore.mechanics import inference
from bncore.mechanics.folding import fold_conv, fold_linear

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
