"""Shapes in bncore's signatures are checked while tests run; torch keeps to one thread."""

import importlib.metadata
import inspect
import os
import platform

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

FACTOR = int(os.environ.get("EXAMPLES", "1"))

settings.register_profile("book", deadline=None, derandomize=FACTOR == 1, print_blob=True)
settings.load_profile("book")


def pytest_collection_modifyitems(items):
    """EXAMPLES=10 gives every property ten times its examples, drawn afresh at each run."""
    if FACTOR == 1:
        return
    enlarged = set()
    for item in items:
        test = getattr(item, "obj", None)
        test = getattr(test, "__func__", test)
        chosen = getattr(test, "_hypothesis_internal_use_settings", None)
        if chosen is not None and test not in enlarged:
            enlarged.add(test)
            test._hypothesis_internal_use_settings = settings(
                chosen, max_examples=FACTOR * chosen.max_examples
            )


def pytest_terminal_summary(terminalreporter):
    """Say after a failure on what processor it was, and how another one imitates its rounding."""
    if not (terminalreporter.stats.get("failed") or terminalreporter.stats.get("error")):
        return
    import torch
    from threadpoolctl import threadpool_info

    versions = [
        f"{name} {importlib.metadata.version(name)}"
        for name in ("numpy", "scipy", "torch", "hypothesis")
    ]
    kernels = {found["architecture"] for found in threadpool_info() if "architecture" in found}
    imitation = [f"OPENBLAS_CORETYPE={kernel}" for kernel in sorted(kernels)]
    imitation.append(f"ATEN_CPU_CAPABILITY={torch.backends.cpu.get_cpu_capability().lower()}")
    imitation.append(f"EXAMPLES={FACTOR}")
    terminalreporter.section("where it failed")
    terminalreporter.line(f"{platform.platform()}, Python {platform.python_version()}")
    terminalreporter.line(", ".join(versions))
    terminalreporter.line(f"On another processor: {' '.join(imitation)}")


@pytest.fixture(scope="session")
def sphinx_for_editions():
    """Sphinx with the book's own configuration, which writes editions and runs no chapter."""
    from execution import NO_CHAPTER
    from jupyter_book.config import get_final_config
    from sphinx.application import Sphinx

    def made(root, out, doctrees):
        config, _ = get_final_config(
            user_yaml=root / "_config.yml",
            cli_config={
                "external_toc_path": str(root / "_toc.yml"),
                "latex_individualpages": False,
                "execution_only": NO_CHAPTER,
            },
            sourcedir=root,
        )
        return Sphinx(root, None, out, doctrees, "edition", config, status=None)

    return made


@pytest.fixture
def unchecked():
    """Let bad input pass the annotations, so that it meets bncore's own check."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
