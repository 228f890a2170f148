"""Parameters and values are written as people write them."""

import unicodedata

import numpy as np
import pytest

from bncore.page.labels import GREEK, label, value_text


@pytest.mark.parametrize(
    ("name", "text"), [("gamma", "γ"), ("eps", "ε"), ("batch_size", "batch size")]
)
def test_parameters_have_readable_names(name, text):
    assert label(name) == text


@pytest.mark.parametrize(
    ("value", "text"), [(-0.5, "−0.5"), (1e-5, "1e−05"), ("relu", "relu"), (3, "3"), (True, "True")]
)
def test_values_are_written_for_readers(value, text):
    assert value_text(value) == text


@pytest.mark.parametrize("name", GREEK)
def test_greek_names_are_written_as_their_letters(name):
    spelled = {"eps": "epsilon", "lambda_": "lamda"}.get(name, name)  # Unicode spells it so
    assert unicodedata.name(label(name)) == f"GREEK SMALL LETTER {spelled.upper()}"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (1234.0, "1.23e+03"), (0.1 + 0.2, "0.3"), (np.float32(0.1), "0.1"), (-0.0, "0")],
)  # fmt: skip
def test_numbers_have_three_digits(value, text):
    assert value_text(value) == text
