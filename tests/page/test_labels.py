"""Parameters and values are written as people write them."""

import unicodedata

import numpy as np
import pytest

from bncore.page.labels import GREEK, is_choice, label, unbroken, value_text


@pytest.mark.parametrize(
    ("name", "text"), [("gamma", "γ"), ("eps", "ε"), ("batch_size", "batch size")]
)
def test_parameters_have_readable_names(name, text):
    assert label(name) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-0.5, "−0.5"),
        (1e-5, "0.00001"),
        ("relu", "relu"),
        (3, "3"),
        (True, "yes"),
        (np.False_, "no"),
    ],
)
def test_values_are_written_for_readers(value, text):
    assert value_text(value) == text


@pytest.mark.parametrize("name", GREEK)
def test_greek_names_are_written_as_their_letters(name):
    spelled = {"eps": "epsilon", "lambda_": "lamda"}.get(name, name)  # Unicode spells it so
    assert unicodedata.name(label(name)) == f"GREEK SMALL LETTER {spelled.upper()}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.123"),
        (0.1 + 0.2, "0.3"),
        (np.float32(0.1), "0.1"),
        (-0.0, "0"),
        (1024, "1024"),
        (1000.0, "1000"),
        (-1234.5, "−1230"),
        (0.0012345, "0.00123"),
        (999999, "999999"),
        (999999.5, "10⁶"),
        (1e6, "10⁶"),
        (9.999e-6, "0.00001"),
        (1e-8, "10⁻⁸"),
        (2.5e-12, "2.5 × 10⁻¹²"),
        (-1e-8, "−10⁻⁸"),
        (-3.14e10, "−3.14 × 10¹⁰"),
        (1.1e-7, "1.1 × 10⁻⁷"),
        (np.inf, "inf"),
    ],
)
def test_numbers_are_written_without_exponents_of_computers(value, text):
    assert value_text(value) == text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("near 100 000: every", "near 100_000: every"),
        ("times 10 000 000", "times 10_000_000"),
        ("95 % intervals", "95_% intervals"),
        ("128 1024", "128 1024"),
        ("5, 10 and 300 steps", "5, 10 and 300 steps"),
    ],
)
def test_no_line_breaks_inside_a_number(text, kept):
    assert unbroken(text) == kept.replace("_", "\N{NO-BREAK SPACE}")


@pytest.mark.parametrize(
    ("grid", "choice"),
    [
        (["relu", "tanh"], True),
        ([False, True], True),
        ([np.True_, np.False_], True),
        (["own rate", 0.1], True),
        ([0, 1], False),
        ([0.5, 1.5], False),
        (list(np.linspace(0, 1, 3)), False),
    ],
)
def test_names_are_chosen_and_quantities_are_moved(grid, choice):
    assert is_choice(grid) is choice
