"""What callers hand in becomes a tensor without loss, or is refused with what to hand in instead."""

import re

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bncore import tensors

FLOATS = tensors.FLOATS
NUMBERS = [[1.5, -2.0], [0.0, 3.0]]


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_float_tensor_is_taken_as_it_is_with_its_graph(dtype):
    value = torch.tensor(NUMBERS, dtype=dtype).T.requires_grad_()
    for found in (
        tensors.tensor("x", value),
        tensors.tensor("x", value, dtype),
        tensors.examples("x", value),
        tensors.examples("x", value, nn.Linear(2, 2, dtype=dtype)),
        tensors.targets("y", value, torch.float32),
    ):
        assert found is value


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "value",
    [
        NUMBERS,
        tuple(map(tuple, NUMBERS)),
        np.array(NUMBERS),
        np.array(NUMBERS, "f2"),
        np.array(NUMBERS, ">f4"),
        np.array(NUMBERS)[:, ::-1][:, ::-1],
        np.asfortranarray(NUMBERS),
        torch.tensor(NUMBERS, dtype=torch.float64),
        torch.tensor(NUMBERS, dtype=torch.float16),
    ],
)
def test_lists_and_arrays_take_the_dtype_of_the_model(value, dtype):
    for found in (
        tensors.tensor("x", value, dtype),
        tensors.examples("x", value, nn.Linear(2, 2, dtype=dtype)),
    ):
        assert found.dtype == dtype
        assert found.tolist() == NUMBERS


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", ["i1", "u2", "i8", ">i4"])
def test_integers_take_the_dtype_of_the_model(dtype, kind):
    array = np.array([[3, 4], [5, 100]], kind)
    values = [array, array.tolist(), torch.tensor(array.tolist(), dtype=torch.int32)]
    for value in values:
        found = tensors.examples("x", value, nn.Linear(2, 2, dtype=dtype))
        assert found.dtype == dtype
        assert found.tolist() == array.tolist()


def test_without_a_model_floats_keep_their_precision_and_the_rest_takes_the_default():
    assert tensors.tensor("x", np.ones(2)).dtype == torch.float64
    assert tensors.tensor("x", np.ones(2, "f2")).dtype == torch.float16
    for value in ([1.5], [1], np.ones(2, int), torch.ones(2, dtype=torch.int16)):
        assert tensors.tensor("x", value).dtype == torch.float32


def test_the_array_is_not_shared():
    array = np.zeros((2, 2), np.float32)
    found = tensors.examples("x", array)
    array[:] = 1
    assert not found.any()


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1), st.sampled_from(FLOATS)
)
def test_arrays_are_converted_exactly_or_refused_and_lists_are_rounded(numbers, dtype):
    array = np.array(numbers)
    rounded = torch.tensor(numbers, dtype=torch.float64).to(dtype)
    back = rounded.double().tolist()
    if back == numbers:
        assert tensors.tensor("x", array, dtype).double().tolist() == numbers
        assert tensors.tensor("x", torch.tensor(array), dtype).double().tolist() == numbers
    else:
        for value in (array, torch.tensor(array)):
            with pytest.raises(ValueError, match=r"cannot hold exactly; where rounding is meant"):
                tensors.tensor("x", value, dtype)
    if np.isfinite(back).all():
        assert torch.equal(tensors.tensor("x", numbers, dtype), rounded)
    else:
        with pytest.raises(ValueError, match="beyond the largest"):
            tensors.tensor("x", numbers, dtype)


@given(st.lists(st.integers(-(2**53), 2**53), min_size=1), st.sampled_from(FLOATS))
def test_integers_are_converted_exactly_or_refused(integers, dtype):
    exact = torch.tensor(integers).to(dtype).double().tolist() == integers
    for value in (integers, np.array(integers), torch.tensor(integers)):
        if exact:
            assert tensors.tensor("x", value, dtype).double().tolist() == integers
        else:
            with pytest.raises(ValueError, match="cannot hold exactly"):
                tensors.tensor("x", value, dtype)


def test_a_model_of_two_dtypes_takes_either_and_converts_the_rest_to_its_first():
    model = nn.Sequential(nn.Linear(2, 2, dtype=torch.bfloat16), nn.BatchNorm1d(2))
    half, single = torch.ones(1, 2, dtype=torch.bfloat16), torch.ones(1, 2)
    assert tensors.examples("x", half, model) is half
    assert tensors.examples("x", single, model) is single
    assert tensors.examples("x", [[1, 2]], model).dtype == torch.bfloat16


def test_a_model_without_parameters_leaves_floats_as_they_are():
    assert tensors.examples("x", np.ones((1, 2)), nn.ReLU()).dtype == torch.float64


def test_labels_are_integers_from_zero():
    for value in ([0, 2], (0, 2), np.array([0, 2], "u1"), torch.tensor([0, 2], dtype=torch.int16)):
        found = tensors.labels("y", value, 2)
        assert found.dtype == torch.int64
        assert found.tolist() == [0, 2]


def test_targets_keep_their_kind():
    assert tensors.targets("y", [0, 1]).dtype == torch.int64
    assert tensors.targets("y", np.array([0, 1], "i2")).dtype == torch.int64
    assert tensors.targets("y", torch.tensor([0, 1], dtype=torch.int32)).dtype == torch.int64
    assert tensors.targets("y", np.array([0.5, 1]), torch.float32).dtype == torch.float32
    single = torch.ones(2)
    assert tensors.targets("y", single, torch.float64) is single


class Own(torch.Tensor):
    pass


REFUSED = [
    (None, TypeError, "x is a None, expected a numpy.ndarray or a list of numbers"),
    (3.0, TypeError, "x is a float, expected a numpy.ndarray or a list of numbers"),
    (np.ma.ones((2, 2)), TypeError, "x is a MaskedArray, expected a plain numpy.ndarray"),
    (np.ones((2, 2), bool), TypeError, "x has dtype bool, expected real numbers"),
    (torch.ones(2, 2, dtype=torch.bool), TypeError, "x has dtype bool, expected real numbers"),
    (torch.ones(2, 2) * 1j, TypeError, "x has dtype complex64, expected real numbers"),
    ([torch.ones(2)], TypeError, "x is a list of tensors, expected numbers"),
    ([[1], [1, 2]], ValueError, "x is a list whose rows do not form an array"),
    (scipy.sparse.eye_array(2), TypeError, "x is a sparse dia_array, expected a dense array"),
    (
        torch.eye(2).to_sparse(),
        TypeError,
        "x is a sparse tensor (torch.sparse_coo), expected a dense one: hand in x.to_dense()",
    ),
    (torch.ones(2, 2, device="meta"), ValueError, "x is on the device 'meta', expected a tensor"),
    (torch.ones(2, 2).as_subclass(Own), TypeError, "x is a Own, a subclass of torch.Tensor"),
    (torch.ones(0, 2), ValueError, "x has shape (0, 2), expected at least one example"),
    (torch.tensor(1.0), ValueError, "x has shape (), expected at least one example"),
    ([[1.0, float("nan")]], ValueError, "x[0, 1] is nan, expected finite values only"),
    (torch.tensor([[torch.inf]]), ValueError, "x[0, 0] is inf, expected finite values only"),
    (
        np.array([[0.1]]),
        ValueError,
        "x[0, 0] is 0.1, which float32, the dtype of the model, cannot hold exactly; where "
        "rounding is meant, hand in a tensor of torch.float32",
    ),
]


@pytest.mark.parametrize(("value", "error", "message"), REFUSED)
def test_what_is_refused_is_told_by_its_name(value, error, message):
    with pytest.raises(error, match=re.escape(message)):
        tensors.examples("x", value, nn.Linear(2, 2))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_quantised_tensors_are_refused():
    value = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.quint8)
    with pytest.raises(TypeError, match=r"x is quantised, .* hand in x\.dequantize\(\)"):
        tensors.tensor("x", value)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([0.5, 1.0], TypeError, "y holds floats, expected integers"),
        (torch.ones(2), TypeError, "y holds floats, expected integers"),
        ([True, False], TypeError, "expected real numbers"),
        ([0, -1], ValueError, "y[1] is -1, expected labels from 0"),
        ([[0], [1]], ValueError, "y has shape (2, 1), expected (2,): one label for each example"),
        ([0, 1, 2], ValueError, "y has shape (3,), expected (2,): one label for each example"),
        ("ab", TypeError, "y is a str"),
    ],
)
def test_labels_that_are_none_are_refused(value, error, message):
    with pytest.raises(error, match=re.escape(message)):
        tensors.labels("y", value, 2)


def test_targets_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match=re.escape("y[0] is nan, expected finite values only")):
        tensors.targets("y", torch.tensor([torch.nan]))


@pytest.mark.parametrize("own", [None, *FLOATS])
@pytest.mark.parametrize("other", [*FLOATS, torch.int64, torch.bool])
def test_a_layer_takes_its_dtype_and_in_single_precision_half_too(own, other):
    value = torch.full((2, 3, 4), torch.nan).to(other)
    halves = (torch.float16, torch.bfloat16) if own == torch.float32 else ()
    if other in (FLOATS if own is None else (own, *halves)):
        assert tensors.layer_input("x", value, 3, own) is value
    else:
        expected = "floats" if own is None else f"{own}, that of the layer"
        with pytest.raises(TypeError, match=re.escape(f"x has dtype {other}, expected {expected}")):
            tensors.layer_input("x", value, 3, own)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.ones((2, 3)), TypeError, "x is a ndarray, expected a tensor"),
        (torch.ones(3), ValueError, "x has shape (3,), expected (batch, features, *spatial)"),
        (
            torch.ones(2, 4),
            ValueError,
            "x has 4 features on axis 1, expected 3, those of the layer",
        ),
    ],
)
def test_what_no_layer_takes_is_refused(value, error, message):
    with pytest.raises(error, match=re.escape(message)):
        tensors.layer_input("x", value, 3)
