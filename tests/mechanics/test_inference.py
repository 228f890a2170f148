"""Estimates of the population statistics and normalisation with them, against torch and NumPy."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncore.mechanics.inference import (
    RunningStatistics,
    affine_map,
    exact_statistics,
    normalize,
    population_statistics,
)

ESTIMATES = (population_statistics, exact_statistics)
spatial_shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)
seeds = st.integers(0, 2**32 - 1)
DTYPES = (np.float16, np.float32, np.float64)
EPS = float(np.finfo(np.float64).eps)


def assert_near(got, expected, size, terms, eps=EPS):
    """Equal but for rounding: eps for each term of a sum of values of this size, and a few more."""
    error = np.abs(np.asarray(got, float) - np.asarray(expected, float))
    assert (error <= (terms + 8) * eps * np.asarray(size, float)).all(), error.max()


def exact_moments(values):
    """Mean and variance of the columns, with nothing rounded before the end."""
    values = np.vectorize(Fraction, otypes=[object])(values.astype(float))
    mean = values.sum(axis=0) / len(values)
    var = ((values - mean) ** 2).sum(axis=0) / len(values)
    return mean.astype(float), var.astype(float)


def torch_layer(features, spatial, **settings):
    kind = [torch.nn.BatchNorm1d, torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d]
    return kind[len(spatial)](features, **settings)


def batches_of(seed, spatial=(), features=3, count=5, dtype=np.float64, offset=0.0):
    """Batches of unequal size whose features differ in scale."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-2, 2, (features, *[1] * len(spatial)))
    return [
        (rng.normal(size=(size, features, *spatial)) * scale + offset * scale).astype(dtype)
        for size in rng.integers(2, 9, count)
    ]


def pooled(batches):
    """All values of each feature, one feature a column."""
    return np.concatenate([np.moveaxis(x, 1, -1).reshape(-1, x.shape[1]) for x in batches])


@given(
    seed=seeds,
    spatial=spatial_shapes,
    momentum=st.none() | st.floats(0, 1),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_running_statistics_agree_with_torch(seed, spatial, momentum, dtype):
    running = RunningStatistics(3, momentum, dtype=dtype)
    layer = torch_layer(
        3, spatial, momentum=momentum, dtype=torch.from_numpy(np.ones(1, dtype)).dtype
    )
    batches = batches_of(seed, spatial, dtype=dtype)
    for x in batches:
        running.update(x)
        layer(torch.from_numpy(x))
    size = np.maximum(np.abs(pooled(batches)).max(axis=0), 1)
    terms, eps = len(pooled(batches)), np.finfo(dtype).eps
    assert_near(running.mean, layer.running_mean.numpy(), size, terms, eps)
    assert_near(running.var, layer.running_var.numpy(), size**2, terms, eps)
    assert running.num_batches_tracked == layer.num_batches_tracked
    assert running.mean.dtype == running.var.dtype == dtype


@given(seed=seeds, momentum=st.none() | st.floats(0, 1))
def test_running_statistics_are_torchs_to_a_few_eps_where_sums_are_exact(seed, momentum):
    rng = np.random.default_rng(seed)
    running = RunningStatistics(4, momentum)
    layer = torch.nn.BatchNorm1d(4, momentum=momentum, dtype=torch.float64)
    for _ in range(6):
        x = rng.integers(-8, 9, (2 ** rng.integers(1, 6), 4)).astype(np.float64)
        running.update(x)
        layer(torch.from_numpy(x))
    assert_near(running.mean, layer.running_mean.numpy(), 8, terms=6)
    np.testing.assert_allclose(running.var, layer.running_var.numpy(), rtol=14 * EPS)


def test_running_statistics_start_at_zero_and_one_and_forget_them_geometrically():
    running = RunningStatistics(2, 0.25)
    np.testing.assert_array_equal(running.mean, [0, 0])
    np.testing.assert_array_equal(running.var, [1, 1])
    x = np.array([[3.0, -1.0], [5.0, -1.0]])
    for t in range(1, 10):
        running.update(x)
        left = 0.75**t
        rounding = 8 * t * EPS
        np.testing.assert_allclose(running.mean, (1 - left) * np.array([4, -1]), rtol=rounding)
        np.testing.assert_allclose(running.var, left + (1 - left) * np.array([2, 0]), rtol=rounding)


def test_momentum_zero_never_moves_and_momentum_one_keeps_the_last_batch():
    first, second = batches_of(0, count=2)
    never, last = RunningStatistics(3, 0), RunningStatistics(3, 1)
    for x in (first, second):
        never.update(x)
        last.update(x)
    np.testing.assert_array_equal(never.mean, 0)
    np.testing.assert_array_equal(never.var, 1)
    size = np.abs(second).max(axis=0)
    assert_near(last.mean, second.mean(axis=0), size, len(second))
    assert_near(last.var, second.var(axis=0, ddof=1), size**2, len(second))


def test_an_earlier_mean_stays_what_it_was_after_an_update():
    running = RunningStatistics(3)
    mean, var = running.mean, running.var
    running.update(batches_of(0)[0])
    np.testing.assert_array_equal(mean, 0)
    np.testing.assert_array_equal(var, 1)


@given(seed=seeds, spatial=spatial_shapes)
def test_population_statistics_are_the_cumulative_average(seed, spatial):
    batches = batches_of(seed, spatial)
    running = RunningStatistics(3, momentum=None)
    for x in batches:
        running.update(x)
    mean, var = population_statistics(iter(batches))
    values = pooled(batches)
    assert_near(mean, running.mean, np.abs(values).max(axis=0), len(batches))
    np.testing.assert_allclose(var, running.var, rtol=(4 * len(batches) + 8) * EPS)


@given(seed=seeds, size=st.integers(2, 9), spatial=spatial_shapes)
def test_population_statistics_are_algorithm_2_for_equal_batches(seed, size, spatial):
    batches = np.random.default_rng(seed).normal(size=(4, size, 3, *spatial))
    m = size * np.prod(spatial, dtype=int)
    per_batch = np.moveaxis(batches, 2, -1).reshape(4, m, 3)
    mean, var = population_statistics(batches)
    size = np.abs(per_batch).max()
    assert_near(mean, per_batch.mean(axis=1).mean(axis=0), size, m)
    expected = m / (m - 1) * per_batch.var(axis=1).mean(axis=0)
    assert_near(var, expected, size**2, m)


@pytest.mark.parametrize("m", [2, 3, 4])
def test_population_variance_is_unbiased_for_independent_draws(m):
    population = np.array([0.0, 1.0, 5.0, 7.0, 7.5])
    every_batch = [np.array(b)[:, None] for b in itertools.product(population, repeat=m)]
    mean, var = population_statistics(every_batch)
    rounding = (len(every_batch) + 8) * EPS
    np.testing.assert_allclose(mean, population.mean(), rtol=rounding)
    np.testing.assert_allclose(var, population.var(), rtol=rounding)


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_population_variance_is_too_large_without_replacement(m):
    population = np.array([0.0, 1.0, 5.0, 7.0, 7.5])
    every_batch = [np.array(b)[:, None] for b in itertools.combinations(population, m)]
    mean, var = population_statistics(every_batch)
    rounding = (len(every_batch) + 8) * EPS
    np.testing.assert_allclose(mean, population.mean(), rtol=rounding)
    np.testing.assert_allclose(var, population.var() * 5 / 4, rtol=rounding)


def test_population_variance_is_too_small_when_neighbouring_values_agree():
    rows = np.random.default_rng(0).normal(size=(200, 4, 1, 1))
    alike = np.broadcast_to(rows, (200, 4, 1, 8))
    _, var = population_statistics(alike)
    _, independent = population_statistics(rows)
    rounding = (len(rows) + 8) * EPS
    np.testing.assert_allclose(var, independent * (4 - 1) * 8 / (4 * 8 - 1), rtol=rounding)


@given(
    seed=seeds,
    spatial=spatial_shapes,
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_exact_statistics_are_those_of_the_concatenation(seed, spatial, dtype):
    batches = batches_of(seed, spatial, dtype=dtype)
    values = pooled(batches)
    expected_mean, expected_var = exact_moments(values)
    mean, var = exact_statistics(iter(batches))
    eps = np.finfo(mean.dtype).eps
    terms = len(values) if dtype == np.float64 else 0
    assert_near(mean, expected_mean, np.abs(values).max(axis=0), terms, eps)
    np.testing.assert_allclose(var, expected_var, rtol=(terms + 8) * eps)


@given(seed=seeds)
def test_exact_statistics_do_not_depend_on_how_the_values_are_cut_into_batches(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(30, 2))
    cuts = np.sort(rng.choice(np.arange(1, 30), 6, replace=False))
    for whole, cut in zip(exact_statistics([x]), exact_statistics(np.split(x, cuts)), strict=True):
        assert_near(cut, whole, np.abs(x).max() ** 2 + 1, len(x))


@given(seed=seeds)
def test_exact_statistics_survive_an_offset_of_1e8_deviations(seed):
    rng = np.random.default_rng(seed)
    deviations = [rng.integers(-8, 9, (size, 3)).astype(float) for size in (5, 1, 12, 7)]
    expected_mean, expected_var = exact_moments(pooled(deviations) + 1e8)
    mean, var = exact_statistics([x + 1e8 for x in deviations])
    # The values are exact; their deviations from the mean, of size 8 at most, are not.
    assert_near(var, expected_var, 64, 25)
    assert_near(mean, expected_mean, 1e8, 0)


def test_exact_statistics_allow_batches_of_one_and_changing_spatial_shapes():
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=shape) for shape in ((1, 2, 1, 1), (3, 2, 4, 5), (2, 2, 6, 1))]
    mean, var = exact_statistics(batches)
    expected_mean, expected_var = exact_moments(pooled(batches))
    assert_near(mean, expected_mean, 1, 73)
    assert_near(var, expected_var, 1, 73)


@pytest.mark.parametrize("value", [0.1, 1e8 + 0.1, -3e-7])
@pytest.mark.parametrize("m", [7, 10, 21])
def test_a_constant_has_itself_as_mean_and_no_variance(value, m):
    x = np.full((m, 2), value)
    running = RunningStatistics(2, momentum=1.0)
    running.update(x)
    estimates = (running.mean, running.var), population_statistics([x, x]), exact_statistics([x, x])
    for mean, var in estimates:
        np.testing.assert_array_equal(mean, value)
        np.testing.assert_array_equal(var, 0)


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_statistics_of_half_precision_come_in_float32_and_do_not_overflow(estimate):
    batches = [np.array([[-6e4], [6e4]], np.float16)] * 100
    mean, var = estimate(batches)
    assert mean.dtype == var.dtype == np.float32
    assert mean == 0
    assert var == {exact_statistics: 1, population_statistics: 2}[estimate] * np.float32(6e4) ** 2
    assert estimate([*batches, np.ones((2, 1))])[0].dtype == np.float64


@given(
    seed=seeds,
    spatial=spatial_shapes,
    dtype=st.sampled_from([np.float32, np.float64]),
    eps=st.floats(1e-8, 1.0),
    affine=st.booleans(),
)
def test_normalize_agrees_with_torch(seed, spatial, dtype, eps, affine):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(5, 3, *spatial)).astype(dtype)
    mean, var, gamma, beta = rng.normal(size=(4, 3)).astype(dtype)
    var = np.abs(var) + dtype(0.01)
    gamma, beta = (gamma, beta) if affine else (None, None)
    tensors = [None if a is None else torch.from_numpy(a) for a in (x, mean, var, gamma, beta)]
    expected = torch.nn.functional.batch_norm(*tensors, training=False, eps=eps).numpy()
    y = normalize(x, mean, var, gamma, beta, eps)
    assert y.dtype == dtype
    scale = np.abs(1 if gamma is None else gamma) / np.sqrt(var)
    terms = (np.abs(x).max() + np.abs(mean)) * scale + np.abs(0 if beta is None else beta)
    assert_near(y, expected, terms.max(), 0, np.finfo(dtype).eps)


@given(seed=seeds, spatial=spatial_shapes)
def test_normalize_is_the_affine_map(seed, spatial):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(5, 3, *spatial))
    mean, gamma, beta = rng.normal(size=(3, 3))
    var = rng.uniform(0, 2, 3)
    along = (3, *[1] * len(spatial))
    for g, b in itertools.product((gamma, None), (beta, None)):
        scale, shift = affine_map(mean, var, g, b)
        y = x * scale.reshape(along) + shift.reshape(along)
        size = np.abs(x * scale.reshape(along)) + np.abs(mean * scale).reshape(along)
        size = size + np.abs(shift).reshape(along)
        assert_near(normalize(x, mean, var, g, b), y, size, 0)


def test_normalize_keeps_the_digits_that_scale_and_shift_lose():
    mean, var = np.full(1, 1e8), np.full(1, 3.0)
    x = 1e8 + np.array([[-1.5], [0.25]])
    expected = np.array([[-1.5], [0.25]]) / np.sqrt(3)
    np.testing.assert_allclose(normalize(x, mean, var, eps=1e-20), expected, rtol=4 * EPS)


@pytest.mark.parametrize("dtype", DTYPES)
def test_normalize_keeps_the_dtype_and_computes_halves_in_float32(dtype):
    x = np.array([[40000.0], [-40000.0]]).astype(dtype)
    y = normalize(x, np.full(1, -40000, dtype), np.full(1, 60000, dtype), np.full(1, 0.5, dtype))
    assert y.dtype == dtype
    np.testing.assert_allclose(
        y, [[40000 / (60000 + 1e-5) ** 0.5], [0]], rtol=np.finfo(dtype).eps * 4
    )


@pytest.mark.parametrize("statistics_dtype", DTYPES)
def test_affine_map_and_normalize_mix_dtypes(statistics_dtype):
    mean, var = np.ones(2, statistics_dtype), np.ones(2, np.float16)
    scale, shift = affine_map(mean, var)
    assert scale.dtype == shift.dtype == statistics_dtype
    assert normalize(np.ones((1, 2), np.float16), mean, var).dtype == np.float16


@given(seed=seeds, dtype=st.sampled_from(DTYPES), other=st.sampled_from(DTYPES))
def test_parameters_of_another_precision_are_taken_and_x_says_the_dtype(seed, dtype, other):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(5, 3)).astype(dtype)
    vectors = rng.uniform(0.5, 2, (4, 3)).astype(other)
    y = normalize(x, *vectors)
    assert y.dtype == dtype
    expected = normalize(x.astype(float), *vectors.astype(float))
    assert_near(y, expected, 4 * np.abs(x).max() + 8, 0, np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lists_and_integers_are_their_arrays_bit_for_bit(dtype):
    x = np.arange(-6, 6, dtype=dtype).reshape(4, 3)
    vectors = [np.array(v, dtype) for v in ([1, 2, 3], [4, 5, 6], [2, 2, 1], [0, 1, 0])]
    for as_before in (lambda v: v.tolist(), lambda v: v.astype(int), lambda v: tuple(v.tolist())):
        given = [as_before(v) for v in vectors]
        y, same = normalize(x, *vectors), normalize(x, *given)
        assert same.dtype == dtype
        np.testing.assert_array_equal(same, y)
        for a, b in zip(affine_map(*vectors), affine_map(vectors[0], *given[1:]), strict=True):
            assert a.dtype == b.dtype == dtype
            np.testing.assert_array_equal(a, b)
    listed, wide = x.tolist(), x.astype(np.float64)
    for estimate in ESTIMATES:
        np.testing.assert_array_equal(estimate([listed, wide]), estimate([wide, wide]))
    one, other = RunningStatistics(3), RunningStatistics(3)
    one.update(listed)
    other.update(wide)
    np.testing.assert_array_equal([one.mean, one.var], [other.mean, other.var])


def test_the_memory_order_of_x_comes_back():
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).transpose(0, 3, 1, 2)
    y = normalize(x, np.zeros(3), np.ones(3))
    assert y.strides == x.strides
    assert normalize(np.asfortranarray(x), np.zeros(3), np.ones(3)).flags.f_contiguous


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 4), (2, 3, 0)])
def test_an_empty_batch_is_normalized_to_an_empty_one(shape):
    x = np.ones(shape, np.float32)
    y = normalize(x, np.zeros(3), np.ones(3))
    assert (y.shape, y.dtype) == (shape, np.float32)
    vectors = torch.zeros(3), torch.ones(3)
    assert torch.nn.functional.batch_norm(torch.from_numpy(x), *vectors).shape == shape


def odd_memory(x):
    """The same values reversed and strided, broadcast where they repeat, and read-only."""
    strided = np.repeat(x[::-1], 2, axis=0)[::-2]
    strided.flags.writeable = False
    return strided


@given(seed=seeds, spatial=spatial_shapes)
def test_strided_read_only_input_gives_the_same_and_is_left_alone(seed, spatial):
    x = batches_of(seed, spatial)[0]
    strided = odd_memory(x)
    np.testing.assert_array_equal(strided, x)
    vectors = [odd_memory(v) for v in np.random.default_rng(seed).uniform(0.1, 1, (4, 3))]
    kept = [v.copy() for v in vectors]
    y, size = normalize(x, *kept), 4 * np.abs(x).max() + 8
    assert_near(normalize(strided, *vectors), y, size, 0)
    for estimate in ESTIMATES:
        for a, b in zip(estimate([strided]), estimate([x]), strict=True):
            assert_near(a, b, size**2, len(pooled([x])))
    np.testing.assert_array_equal(strided, x)
    np.testing.assert_array_equal(vectors, kept)


def test_zero_stride_input_works():
    x = np.broadcast_to(np.array([1.0, 2.0, 4.0]), (4, 3))
    running = RunningStatistics(3, momentum=1.0)
    running.update(x)
    np.testing.assert_array_equal(running.mean, [1, 2, 4])
    np.testing.assert_array_equal(running.var, 0)
    one = np.broadcast_to(np.array(1.0), (3,))
    np.testing.assert_array_equal(normalize(x, one, one, one, one, 3.0)[0], [1, 1.5, 2.5])


@pytest.mark.parametrize(
    ("dtype", "x"),
    [
        (np.float16, [[-1000], [1000]]),
        (np.float32, [[-1e30], [2e30]]),
        (np.float64, [[-1e200], [1e200]]),
        (np.float64, [[-1.7e308], [1.7e308]]),
        (np.float64, [[1.7e308], [1.7e308]]),
    ],
)
def test_no_average_leaves_its_dtype_and_on_refusal_all_stays_as_it_was(dtype, x):
    running = RunningStatistics(1, dtype=dtype)
    running.update(np.array([[1.0], [2.0]]))
    kept = running.mean.copy(), running.var.copy()
    with pytest.raises(
        ValueError, match=r"beyond the largest float|squared deviations sum to less"
    ):
        running.update(np.array(x, np.float64))
    np.testing.assert_array_equal((running.mean, running.var), kept)
    assert running.num_batches_tracked == 1


def test_half_precision_keeps_the_variances_it_can_hold():
    running = RunningStatistics(1, momentum=0.1, dtype=np.float16)
    running.update(np.array([[-500], [500]], np.float16))
    np.testing.assert_allclose(running.var, 0.9 + 0.1 * 2 * 500**2, rtol=np.finfo(np.float16).eps)
    with pytest.raises(
        ValueError, match=r"the average\[0\] is 1\.17e\+05, beyond the largest float16"
    ):
        running.update(np.array([[-600], [600]], np.float16))


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_estimates_beyond_the_widest_dtype_are_refused(estimate):
    x = (np.random.default_rng(0).normal(size=(8, 3)) * 1e30).astype(np.float32)
    with pytest.raises(
        ValueError, match=r"var\[0\] is .*e\+60, beyond the largest float32.* higher"
    ):
        estimate([x])
    wide = x.astype(np.float64)
    _, expected = exact_moments(wide)
    factor = {exact_statistics: 1, population_statistics: 8 / 7}[estimate]
    np.testing.assert_allclose(estimate([wide])[1], expected * factor, rtol=16 * EPS)
    with pytest.raises(
        ValueError, match=r"a batch runs from .* squared deviations sum to less than"
    ):
        estimate([wide * 1e170])


def test_what_only_the_batches_together_overflow_is_refused_too():
    """Each has a variance, and the deviations between them, or summed, are beyond float64."""
    ones, wide = np.ones((2, 1)), np.array([[6e153], [-6e153]])
    with pytest.raises(ValueError, match=r"var\[0\] is inf, beyond the largest float64"):
        exact_statistics([1e200 * ones, -1e200 * ones])
    with pytest.raises(ValueError, match=r"var\[0\] is inf, beyond the largest float64"):
        exact_statistics([wide] * 4)
    mean, var = population_statistics([wide] * 4)
    np.testing.assert_allclose((mean, var), [[0.0], [2 * 6e153**2]], rtol=16 * EPS)


@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_normalize_and_affine_map_return_nothing_that_is_not_finite(dtype):
    largest = np.finfo(dtype).max
    x, one = np.full((2, 1), largest, dtype), np.ones(1, dtype)
    with pytest.raises(ValueError, match=r"y\[0, 0\] is .*, beyond the largest float"):
        normalize(x, 0 * one, 0 * one)
    with pytest.raises(ValueError, match=r"scale\[0\] is .*, beyond the largest float"):
        affine_map(0 * one, 0 * one, largest * one)
    with pytest.raises(ValueError, match=r"shift\[0\] is .*, beyond the largest float"):
        affine_map(largest * one, 0 * one)
    huge = np.full(1, 1.7e308)
    with pytest.raises(ValueError, match=r"scale\[0\] is inf, beyond the largest float64"):
        affine_map(0 * huge, 0 * huge, huge)
    with pytest.raises(ValueError, match=r"var \+ eps\[0\] is inf, beyond the largest float64"):
        affine_map(0 * huge, huge, eps=1.7e308)


def test_a_cumulative_average_asks_for_the_counter_that_was_not_restored():
    batches = batches_of(0, count=4)
    whole, resumed = RunningStatistics(3, momentum=None), RunningStatistics(3, momentum=None)
    for x in batches[:3]:
        whole.update(x)
    resumed.mean, resumed.var = whole.mean, whole.var
    with pytest.raises(ValueError, match="num_batches_tracked is 0, but mean and var have moved"):
        resumed.update(batches[3])
    resumed.num_batches_tracked = -1
    with pytest.raises(ValueError, match="num_batches_tracked is -1, expected at least 0"):
        resumed.update(batches[3])
    resumed.num_batches_tracked = 3
    for statistics in (whole, resumed):
        statistics.update(batches[3])
    np.testing.assert_array_equal((whole.mean, whole.var), (resumed.mean, resumed.var))


BAD_BATCHES = [
    ([["a", "b", "c"]], TypeError, "is a list of <U1, expected real numbers"),
    (np.ones((2, 3), bool), TypeError, "has dtype bool, expected real numbers"),
    (np.ones((2, 3), complex), TypeError, "has dtype complex128, expected real numbers"),
    (torch.ones(2, 3), TypeError, r"is a torch Tensor.*\.detach\(\)\.numpy\(force=True\)"),
    (np.ones(3), ValueError, r"has shape \(3,\), expected at least two axes: \(batch, features"),
    (np.array([[1, 2, 3], [1, np.nan, 3]]), ValueError, r"\[1, 1\] is nan, expected finite"),
    (np.array([[1, 2, np.inf]] * 2), ValueError, r"\[0, 2\] is inf, expected finite"),
]


@pytest.mark.parametrize(("x", "error", "message"), BAD_BATCHES)
def test_bad_batches_are_refused(unchecked, x, error, message):
    good = np.random.default_rng(0).normal(size=(4, 3))
    running = RunningStatistics(3)
    running.update(good)
    mean, var = running.mean.copy(), running.var.copy()
    with pytest.raises(error, match="^x.*" + message):
        running.update(x)
    np.testing.assert_array_equal(running.mean, mean)
    np.testing.assert_array_equal(running.var, var)
    assert running.num_batches_tracked == 1
    with pytest.raises(error, match="^x.*" + message):
        normalize(x, np.ones(3), np.ones(3))
    for estimate in ESTIMATES:
        with pytest.raises(error, match=r"^batches\[1\].*" + message):
            estimate([good, x])


@pytest.mark.parametrize("shape", [(0, 3), (2, 3, 0)])
def test_nothing_can_be_learnt_from_an_empty_batch(shape):
    x, message = np.ones(shape), ", 0 values of each feature, expected at least"
    with pytest.raises(ValueError, match="^x has shape .*" + message):
        RunningStatistics(3).update(x)
    for estimate in ESTIMATES:
        with pytest.raises(ValueError, match=r"^batches\[0\] has shape .*" + message):
            estimate([x])


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1)])
def test_a_batch_of_one_has_no_variance(unchecked, shape):
    x = np.ones(shape)
    message = r"1 values of each feature, expected at least 2"
    with pytest.raises(ValueError, match=r"^x has shape \(1, 3.*" + message):
        RunningStatistics(3).update(x)
    with pytest.raises(ValueError, match=r"^batches\[0\] has shape \(1, 3.*" + message):
        population_statistics([x])


@pytest.mark.parametrize("shape", [(4, 1), (4, 2, 3), (4, 4)])
def test_other_features_are_refused_not_broadcast(unchecked, shape):
    x = np.ones(shape)
    with pytest.raises(ValueError, match=rf"x has {shape[1]} features on axis 1, expected 3"):
        RunningStatistics(3).update(x)
    for estimate in ESTIMATES:
        with pytest.raises(ValueError, match=rf"batches\[1\] has {shape[1]} features on axis 1"):
            estimate([np.ones((2, 3)), x])


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_no_batches_are_refused(estimate):
    with pytest.raises(ValueError, match="batches is empty, expected at least one batch"):
        estimate([])
    with pytest.raises(ValueError, match=r"has shape \(2, 0\), expected at least one feature"):
        estimate([np.ones((2, 0))])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_features": 0}, ValueError, "num_features is 0, expected at least 1"),
        ({"num_features": 2.0}, TypeError, "num_features is a float, expected an integer"),
        ({"num_features": True}, TypeError, "num_features is a bool, expected an integer"),
        ({"momentum": -0.1}, ValueError, r"momentum is -0.1, expected a number in \[0, 1\]"),
        ({"momentum": 1.1}, ValueError, r"momentum is 1.1, expected a number in \[0, 1\]"),
        ({"momentum": np.nan}, ValueError, r"momentum is nan, expected a number in \[0, 1\]"),
        ({"momentum": "0.1"}, TypeError, "momentum is a str, expected a real number"),
        ({"momentum": True}, TypeError, "momentum is a bool, expected a real number"),
        ({"dtype": np.int64}, TypeError, "dtype is <class 'numpy.int64'>, expected float16"),
    ],
)
def test_bad_settings_are_refused(unchecked, arguments, error, message):
    with pytest.raises(error, match=message):
        RunningStatistics(**{"num_features": 3} | arguments)


BAD_STATISTICS = [
    ({"mean": np.ones(1)}, ValueError, r"mean has shape \(1,\), expected \(3,\)"),
    ({"mean": np.ones((1, 3))}, ValueError, r"mean has shape \(1, 3\), expected"),
    ({"mean": ["0"] * 3}, TypeError, "mean is a list of <U1, expected real numbers"),
    ({"var": np.ones(1)}, ValueError, r"var has shape \(1,\), expected \(3,\)"),
    ({"var": np.ones(3, bool)}, TypeError, "var has dtype bool, expected real numbers"),
    ({"var": np.array([1, -0.5, 1])}, ValueError, r"var\[1\] is -0.5, expected at least 0"),
    ({"var": np.array([1, 1, np.nan])}, ValueError, r"var\[2\] is nan, expected finite"),
    ({"gamma": np.ones(())}, ValueError, r"gamma has shape \(\), expected \(3,\)"),
    ({"beta": np.ones((3, 1))}, ValueError, r"beta has shape \(3, 1\), expected \(3,\)"),
    ({"beta": 0.0}, TypeError, "beta is a float, expected a numpy.ndarray or a list"),
    ({"eps": 0.0}, ValueError, "eps is 0.0, expected a finite number above 0"),
    ({"eps": -1e-5}, ValueError, "eps is -1e-05, expected a finite number above 0"),
    ({"eps": np.inf}, ValueError, "eps is inf, expected a finite number above 0"),
    ({"eps": "1"}, TypeError, "eps is a str, expected a real number"),
]


@pytest.mark.parametrize(("bad", "error", "message"), BAD_STATISTICS)
def test_bad_statistics_are_refused(unchecked, bad, error, message):
    good = {"mean": np.ones(3), "var": np.ones(3), "gamma": np.ones(3), "beta": np.ones(3)}
    with pytest.raises(error, match=message):
        normalize(np.ones((2, 3)), **good | bad)
    if "mean" not in bad:
        with pytest.raises(error, match=message):
            affine_map(**good | bad)


def test_affine_map_takes_the_number_of_features_from_mean(unchecked):
    with pytest.raises(ValueError, match=r"var has shape \(3,\), expected \(1,\): .* of mean"):
        affine_map(np.ones(1), np.ones(3))
    with pytest.raises(ValueError, match=r"mean has shape \(1, 3\), expected \(features,\)"):
        affine_map(np.ones((1, 3)), np.ones(3))
    with pytest.raises(TypeError, match=r"mean is a None, expected a numpy.ndarray or a list"):
        affine_map(None, np.ones(1))
