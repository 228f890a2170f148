"""What half precision loses follows from its largest number and its number of bits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncore.chapters.practice.fine_tuning import precision
from bncore.practice.recalibration import recalibrated

HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("count", [1, 4, 1024])
def test_squares_overflow_from_the_widest_deviation_on(dtype, count):
    rms = precision.widest(dtype, count)
    for factor, overflows in ((0.98, False), (1.02, True)):
        x = torch.full((count,), factor * rms, dtype=dtype)
        squares = (x.double() ** 2).sum().to(dtype)
        assert squares.isinf().item() is overflows
    if count == 1 and dtype == torch.float16:
        assert 255.9 < rms < 256
        values = torch.tensor([[-1.02], [1.02]]) * rms
        layer = torch.nn.BatchNorm1d(1, momentum=1.0).half()
        assert layer(values.half()).isfinite().all()
        # The unbiased variance of two values is twice the biased one.
        assert layer.running_var.isinf().all()


@given(st.floats(1e-3, 1e3), st.sampled_from(HALVES), st.floats(0.05, 0.95))
def test_less_than_half_a_step_is_lost_and_more_is_not(value, dtype, part):
    value = torch.tensor(value, dtype=dtype)
    half = precision.half_a_step(value.item(), dtype)
    assert (value.double() + part * half).to(dtype) == value
    assert (value.double() + (2 - part) * half).to(dtype) == value + 2 * half > value


@settings(max_examples=25)
@given(st.floats(0.01, 1000), st.sampled_from([0.3, 0.1, 0.03, 0.01]), st.sampled_from(HALVES))
def test_an_average_rounded_once_stops_where_the_law_says(target, momentum, dtype):
    found = precision.rounded_once(target, momentum, dtype, 1500)
    assert found[-1] == found[-2]
    expected = precision.stops_at(target, momentum, dtype)
    step = 2 * precision.half_a_step(found[-1], dtype)
    assert -step / 8 <= found[-1] - expected <= step
    assert abs(target - found[-1]) <= 1.01 * precision.stall(found[-1], momentum, dtype)


@pytest.mark.parametrize("momentum", [0.1, 0.03, 0.01])
def test_the_running_mean_of_torch_stops_in_bfloat16_and_arrives_in_single(momentum):
    batches = round(20 / momentum)
    half, single = (
        precision.averages(10.0, momentum, dtype, batches)
        for dtype in (torch.bfloat16, torch.float32)
    )
    assert half[-1] == half[-100]
    assert abs(single[-1] - 10) < 1e-3
    # Rounding two weights, two products and their sum in place of one sum.
    off = precision.stall(half[-1], momentum, torch.bfloat16)
    assert 0.2 * off < 10 - half[-1] < 4 * off


def test_one_infinity_stays_until_a_reset():
    after, much_later, reset = precision.poisoned(200)
    for found in (after, much_later):
        assert found[0, 0] == np.inf
        assert np.isnan(found[1, 0])
    for found in (after[:, 1], much_later[:, 1], reset):
        assert np.isfinite(found).all()
    assert (np.abs(reset[0]) < 0.2).all()


def test_recalibration_mends_what_infinity_spoilt():
    layer = torch.nn.BatchNorm1d(1)
    layer(torch.tensor([[1.0], [torch.inf]]))
    x = torch.tensor([[1.0], [3.0]])
    mended = recalibrated(layer, [x])
    assert (mended.running_mean.item(), mended.running_var.item()) == (2, 2)


def test_a_variance_that_overflowed_makes_evaluation_constant():
    layer = torch.nn.BatchNorm1d(1, momentum=1.0).half()
    with torch.no_grad():
        layer.bias.fill_(0.5)
    x = torch.tensor([[-300.0], [300.0]]).half()
    assert layer(x)[1] > 1
    assert layer.eval()(x).tolist() == [[0.5], [0.5]]


def test_autocast_keeps_parameters_and_statistics_single():
    assert precision.kept_by_autocast() == {
        "input": torch.bfloat16,
        "output": torch.bfloat16,
        "parameters": torch.float32,
        "statistics": torch.float32,
    }


@pytest.mark.parametrize("dtype", HALVES)
def test_sums_in_half_precision_ruin_a_variance(dtype):
    """Sums of m terms of size 65 against a variance of 1, each with a rounding of 2^-bits."""
    unit = 2.0 ** -precision.BITS[dtype]
    for m in (16, 64):
        in_half, in_single = precision.error(m, dtype)
        assert 10 * unit < in_half < 4 * 65 * m * unit
        assert in_single < 65 * m * 2.0**-24
    assert precision.error(2048, torch.float16)[0] == np.inf


@pytest.mark.parametrize("momentum", [0.3, 0.1, 0.03, 0.01])
def test_the_figure_shows_where_the_average_stops(momentum):
    single, half, law = precision.stuck(momentum).axes[0].lines
    assert law.get_linestyle() == "--"
    stops = precision.stops_at(10.0, momentum, torch.bfloat16)
    assert law.get_ydata()[-1] == pytest.approx(stops, abs=0.07)
    assert half.get_ydata()[-1] < single.get_ydata()[-1] <= 10.001
