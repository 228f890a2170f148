"""Parameters and values are written as people write them."""

import pytest

from bncore.page.labels import label, value_text


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
