"""Shapes in bncore's signatures are checked while tests run; torch keeps to one thread."""

import inspect
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import jaxtyping
import pytest
from hypothesis import settings


def _where_annotated(*, typechecker):
    """What the hook decorates with, for functions that have annotations to check.

    The hook decorates every function, the nested ones anew at each call of the outer one, which
    made some tests several times slower than what they test.
    """

    def decorate(function):
        plain = inspect.isfunction(function) and not function.__annotations__
        return function if plain else JAXTYPED(function, typechecker=typechecker)

    return decorate


JAXTYPED, jaxtyping.jaxtyped = jaxtyping.jaxtyped, _where_annotated
jaxtyping.install_import_hook("bncore", "beartype.beartype").__enter__()

settings.register_profile("book", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("book")


@pytest.fixture
def unchecked():
    """Let bad input pass the annotations, so that it meets bncore's own check."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
