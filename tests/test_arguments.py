"""What callers hand in is converted without loss, or refused with what to hand in instead."""

import re

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st

from bncore import arguments as check

FLOATS = ["float16", "float32", "float64"]


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_float_array_is_taken_as_it_is(dtype):
    value = np.ones((2, 3), dtype).T
    assert check.array("x", value) is value
    assert check.array("x", value, 2, "float64") is value


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [[3, 4, 5], (3, 4, 5), np.array([3, 4, 5], "i1"), [3.0, 4, 5]])
def test_lists_and_integers_take_the_dtype_of_the_main_array(value, dtype):
    result = check.array("gamma", value, dtype=dtype)
    assert result.dtype == dtype
    assert result.tolist() == [3, 4, 5]
    assert check.array("gamma", value).dtype == np.float64


def test_listed_fractions_are_rounded_as_numpy_rounds_its_scalars():
    assert check.array("x", [0.1], dtype="float16")[0] == np.float16(0.1)


@pytest.mark.parametrize("kind", [">f2", ">f4", ">f8", np.longdouble])
def test_other_floats_are_converted_where_nothing_is_lost(kind):
    value = np.array([[1.5, np.nan], [-2.0, 0.25]], kind)
    result = check.array("x", value)
    assert result.dtype in check.FLOATS
    np.testing.assert_array_equal(result, value.astype(np.float64))


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1), st.sampled_from(FLOATS))
def test_integers_are_converted_exactly_or_refused(integers, dtype):
    largest = float(np.finfo(dtype).max)
    exact = all(abs(i) <= largest and int(np.dtype(dtype).type(i)) == i for i in integers)
    if exact:
        assert [int(a) for a in check.array("x", np.array(integers), dtype=dtype)] == integers
    else:
        with pytest.raises(ValueError, match=f"which {dtype} cannot hold exactly"):
            check.array("x", np.array(integers), dtype=dtype)


@given(
    st.lists(st.floats(width=64, allow_nan=False, allow_infinity=False), min_size=1),
    st.sampled_from(FLOATS),
)
def test_exactly_gives_the_same_numbers_in_the_dtype_or_refuses(numbers, dtype):
    value = np.array(numbers)
    with np.errstate(over="ignore"):
        rounded = value.astype(dtype)
    if (rounded == value).all():
        result = check.exactly("dy", value, dtype)
        assert result.dtype == dtype
        assert (result == value).all()
    else:
        with pytest.raises(ValueError, match=f"which {dtype} cannot hold exactly"):
            check.exactly("dy", value, dtype)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (torch.ones(3), TypeError, "x is a torch Tensor, expected a numpy.ndarray: hand in x.det"),
        (torch.nn.Parameter(torch.ones(3)), TypeError, "x is a torch Parameter, expected a numpy"),
        ([torch.ones(3)], TypeError, "x is a list of tensors, expected numbers"),
        (scipy.sparse.eye_array(3, format="bsr"), TypeError, "x is a sparse bsr_array, expected a"),
        (np.matrix([[1.0]]), TypeError, "x is a matrix, expected a plain numpy.ndarray"),
        (np.ma.array([1.0]), TypeError, "x is a MaskedArray, expected a plain numpy.ndarray"),
        (None, TypeError, "x is a None, expected a numpy.ndarray or a list of numbers"),
        (1.5, TypeError, "x is a float, expected a numpy.ndarray or a list of numbers"),
        (np.ones(2, bool), TypeError, "x has dtype bool, expected real numbers"),
        (np.ones(2, complex), TypeError, "x has dtype complex128, expected real numbers"),
        (np.ones(2, object), TypeError, "x has dtype object, expected real numbers"),
        ([True, False], TypeError, "x is a list of bool, expected real numbers"),
        (["a"], TypeError, "x is a list of <U1, expected real numbers"),
        ([[1, 2], [3]], ValueError, "x is a list whose rows do not form an array"),
        ([2**53 + 1], ValueError, "x[0] is 9007199254740993, which float64 cannot hold exactly"),
        (np.array([1 / np.longdouble(3)]), ValueError, "which float64 cannot hold exactly; where"),
        (np.array(["2020"], "M8[Y]"), TypeError, "x has dtype datetime64[Y], expected real numb"),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name(value, error, message):
    with pytest.raises(error, match=re.escape(message)):
        check.array("x", value)


def test_listed_numbers_beyond_the_dtype_are_refused():
    with pytest.raises(ValueError, match=re.escape("x[1] is 1e+05, beyond the largest float16")):
        check.array("x", [1.0, 1e5], dtype="float16")


def test_the_number_of_axes_is_held():
    with pytest.raises(ValueError, match=re.escape("X has shape (3,), expected 2 axes")):
        check.array("X", np.ones(3), 2)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_narrowed_refuses_what_leaves_the_range(dtype):
    largest = float(np.finfo(dtype).max)
    value = np.array([[1.0, largest], [-largest, 0.0]])
    np.testing.assert_array_equal(check.narrowed("y", value, dtype), value.astype(dtype))
    value[1, 0] *= 1.01
    with pytest.raises(ValueError, match=rf"y\[1, 0\] is -.*, beyond the largest {dtype}"):
        check.narrowed("y", value, dtype)


def test_narrowed_copies_nothing_that_fits():
    value = np.ones(3)
    assert check.narrowed("y", value, "float64") is value


@pytest.mark.parametrize("value", [10**400, -(10**400)])
def test_an_integer_beyond_every_float_is_refused(value):
    with pytest.raises(ValueError, match="eps is an integer beyond the largest float64"):
        check.positive("eps", value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_finite_number_is_finite(value):
    with pytest.raises(ValueError, match=f"bias is {value}, expected a finite number"):
        check.finite_number("bias", value)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=6))
def test_the_first_negative_entry_is_named_wherever_it_stands(numbers):
    vector = np.array(numbers)
    first = next((j for j, number in enumerate(numbers) if number < 0), None)
    if first is None:
        check.no_negative("var", vector)
    else:
        with pytest.raises(ValueError, match=rf"^var\[{first}\] is .*, expected at least 0"):
            check.no_negative("var", vector)


def test_features_stand_on_axis_1_and_may_hold_anything():
    x = np.full((2, 3, 4), np.nan)
    assert check.with_features("x", x, 3) is x
    for value, message in (
        (np.ones(3), r"x has shape \(3,\), expected at least two axes"),
        (np.ones((2, 4)), "x has 4 features on axis 1, expected 3"),
        (np.ones((2, 0)), "x has 0 features on axis 1, expected 3"),
    ):
        with pytest.raises(ValueError, match=message):
            check.with_features("x", value, 3)
    with pytest.raises(ValueError, match=r"x has shape \(2, 0\), expected at least one feature"):
        check.with_features("x", np.ones((2, 0)))
