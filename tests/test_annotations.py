"""Signatures of bncore are checked while tests run, nested functions included, and no other calls."""

import inspect

import jaxtyping
import numpy as np
import pytest
from jaxtyping import Float

from bncore.convergence import losses
from bncore.mechanics import transform

ROWS = np.zeros((4, 3))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(jaxtyping.TypeCheckError, match="gamma"):
        transform.forward(ROWS, np.ones((3, 1)), np.zeros(3))
    assert transform.forward(ROWS, np.ones(3), np.zeros(3))[0].shape == ROWS.shape


def test_only_functions_with_annotations_are_wrapped():
    def outer(x: Float[np.ndarray, "rows columns"]):
        return x

    def bare(x):
        return x

    decorate = jaxtyping.jaxtyped(typechecker=__import__("beartype").beartype)
    assert decorate(bare) is bare
    with pytest.raises(jaxtyping.TypeCheckError):
        decorate(outer)(np.zeros(3))
    assert inspect.unwrap(transform.forward) is not transform.forward
    assert inspect.unwrap(losses._sech_squared) is losses._sech_squared
