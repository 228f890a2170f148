"""The wing as a whole."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["bncore.convergence"])
def test_importing_the_wing_imports_no_heavy_library(module):
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, timeout=120
    )
    loaded = set(done.stdout.split())
    assert module in loaded
    for library in ("torch", "matplotlib", "ipywidgets", "sklearn", "IPython"):
        assert library not in loaded
