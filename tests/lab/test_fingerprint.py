import functools
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bncore.lab import networks
from bncore.lab.fingerprint import describe, digest, folder


def made(offset, scale=1.0):
    def function(x, *, power=2):
        """Say what it does."""
        return scale * (x + offset) ** power

    return function


def redocumented(offset, scale=1.0):
    def function(x, *, power=2):
        # A comment that the other does not have.
        return scale * (x + offset) ** power

    function.__qualname__ = made(0).__qualname__
    return function


def other(offset, scale=1.0):
    def function(x, *, power=2):
        return scale * (x - offset) ** power

    function.__qualname__ = made(0).__qualname__
    return function


def recursive():
    def factorial(n):
        return n * factorial(n - 1) if n else 1

    return factorial


DIFFERENT = [
    *(None, True, 1, 1.0, 1.5, "1", b"1", (1,), [1], {1}, {"a": 1}, {"a": 2}, {"b": 1}, range(1)),
    *(float("nan"), float("inf"), -0.0, 0.0, 1j),
    *(np.zeros(2), np.zeros(2, np.float32), np.zeros((2, 1)), np.array([0.0, 1.0]), np.array("a")),
    *(torch.zeros(2), torch.zeros(2, dtype=torch.bfloat16), torch.zeros(0), torch.tensor(0.0)),
    *(nn.ReLU, nn.ReLU(), nn.LeakyReLU(), nn.LeakyReLU(0.2), torch.relu, torch.nn.functional.relu),
    *(np.zeros(2, "i8"), torch.zeros(2, dtype=torch.int32), torch.zeros(2, dtype=torch.float64)),
    *(lambda x: x.real, lambda x: x.imag),
    *(np.sin, np.cos, max, [1].count, [2].count),
    *(made(1), made(2), made(1, 2.0), other(1), lambda x: x, lambda x: x + 1, recursive()),
    *(functools.partial(made, 1), functools.partial(made, 2), functools.partial(made, offset=1)),
    *(networks.mlp((2, 3, 2), seed=seed) for seed in range(3)),
    networks.mlp((2, 3, 2), "relu"),
    *(networks.mlp((2, 3, 2), dropout=0.5).train(mode) for mode in (True, False)),
    *(Path("a"), Path("b"), torch.float32, torch.device("cpu"), np.dtype("f8")),
]


def test_different_values_have_different_descriptions():
    texts = [describe(value) for value in DIFFERENT]
    assert len(set(texts)) == len(texts)
    assert len(set(map(digest, texts))) == len(texts)


def test_equal_values_have_equal_descriptions():
    for first, again in (
        (1.5, np.float64(1.5)),
        (3, np.int64(3)),
        (True, np.bool_(True)),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({3, 1, 2}, {1, 2, 3}),
        (np.arange(6).reshape(2, 3).T, np.arange(6).reshape(2, 3).T.copy()),
        (torch.arange(6).reshape(2, 3).T, torch.arange(6).reshape(2, 3).T.contiguous()),
        (made(1), made(1)),
        (networks.mlp((2, 3, 2)), networks.mlp((2, 3, 2))),
    ):
        assert describe(first) == describe(again)


def test_comments_docstrings_and_layout_do_not_count():
    source = describe(made(1)).split()[1]
    assert source == describe(redocumented(1)).split()[1]
    assert source != describe(other(1)).split()[1]


def test_a_function_without_source_is_told_by_its_bytecode():
    functions = []
    for text in (
        "lambda x: x + 1",
        "lambda x: x + 1",
        "lambda x: x + 2",
        "lambda x: [x for _ in x]",
    ):
        functions.append(describe(eval(text)))
    assert functions[0] == functions[1]
    assert len(set(functions)) == 3


def test_a_frozen_parameter_makes_another_model():
    model = networks.mlp((2, 3, 2))
    before = describe(model)
    model.linear1.weight.requires_grad_(False)
    assert describe(model) != before


def test_a_function_behind_a_check_of_its_types_is_told_from_others():
    """The tests run with jaxtyping's hook, which wraps every function of bncore."""
    first, second = describe(networks.mlp), describe(networks.deep_linear)
    assert first != second
    assert first == describe(networks.mlp)


def decorated(function, by):
    @functools.wraps(function)
    def once(*arguments):
        return function(*arguments)

    @functools.wraps(function)
    def twice(*arguments):
        return function(function(*arguments))

    return {"once": once, "twice": twice}[by]


def test_a_decorated_function_is_told_by_the_decorator_and_by_what_is_within():
    kinds = [describe(decorated(made(n), by)) for n in (1, 2) for by in ("once", "twice")]
    assert len({*kinds, describe(made(1))}) == 5
    assert kinds[0] == describe(decorated(made(1), "once"))


def test_a_method_is_told_with_its_object():
    first, second = (networks.mlp((2, 3, 2), seed=seed) for seed in (0, 1))
    assert describe(first.forward) != describe(second.forward)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "rate is a object, expected something that is the same in every process"),
        ([1, {"a": object()}], r"rate\[1\]\['a'\] is a object"),
        (np.array([None]), "rate is an array of objects, expected one of numbers or text"),
        (made(object()), r"rate: .*function\[2\]\['offset'\] is a object"),
    ],
)
def test_what_differs_between_processes_is_refused(value, message):
    with pytest.raises(TypeError, match=message):
        describe(value, "rate")


def power(x, exponent=2, *, scale=1.0):
    return scale * x**exponent


def test_each_set_of_fixed_arguments_has_a_folder_of_its_own():
    fixed = [{}, {"scale": 2.0}, {"scale": 3.0}, {"exponent": 2.0}, {"scale": 2.0, "exponent": 2.0}]
    functions = [functools.partial(power, **arguments) for arguments in fixed]
    functions += [functools.partial(power, 2.0), functools.partial(describe, 2.0), power, describe]
    names = [folder(function) for function in functions]
    assert len(set(names)) == len(names)
    for name, function in zip(names, functions, strict=True):
        assert name.startswith(getattr(function, "func", function).__module__)
    again = functools.partial(functools.partial(power, scale=2.0), exponent=2.0)
    assert folder(again) == names[4]
    assert folder(Path("a").joinpath) != folder(Path("b").joinpath)


def test_a_folder_has_a_name_that_any_system_takes_and_outlives_a_change_of_code():
    one, two = made(1), redocumented(2)
    assert describe(one) != describe(two)
    assert folder(one) == folder(two)
    assert set(folder(one)) <= set(string.ascii_letters + string.digits + "._-")


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_have_a_folder_is_refused():
    with pytest.raises(TypeError, match="function is a int, expected a callable"):
        folder(3)
    with pytest.raises(TypeError, match=r"fixed arguments.*is a object"):
        folder(functools.partial(power, scale=object()))
