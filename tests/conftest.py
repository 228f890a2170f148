"""Shapes in bncore's signatures are checked while tests run; torch keeps to one thread."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import jaxtyping
import pytest
from hypothesis import settings

jaxtyping.install_import_hook("bncore", "beartype.beartype").__enter__()

settings.register_profile("book", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("book")


@pytest.fixture
def unchecked():
    """Let bad input pass the annotations, so that it meets bncore's own check."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
