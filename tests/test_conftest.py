"""A failure prints what reproduces it, in parallel runs too; examples can be multiplied."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FAILING = """
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

@given(st.floats(0, 1))
def test_drawn(x):
    assert x < 0.3

@pytest.mark.parametrize("seed", range(3))
def test_seeded(seed):
    assert seed != 2
"""

COUNTING = """
from pathlib import Path
from hypothesis import given, settings
from hypothesis import strategies as st

SEEN = []

@settings(max_examples=7)
@given(st.integers(0, 10**9))
def test_drawn(x):
    SEEN.append(x)

def test_kept():
    Path(__file__).with_name("seen.txt").write_text(repr(SEEN), encoding="utf-8")
"""


def run(folder, code, *options, examples="1"):
    (folder / "test_it.py").write_text(code, encoding="utf-8")
    (folder / "conftest.py").write_text(
        (Path(__file__).with_name("conftest.py")).read_text(encoding="utf-8"), encoding="utf-8"
    )
    environment = {**os.environ, "EXAMPLES": examples, "PYTEST_ADDOPTS": ""}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # most of the time goes into plugins
    for name in [name for name in environment if name.startswith("PYTEST_XDIST")]:
        del environment[name]
    plugins = ["-p", "xdist.plugin", "-p", "_hypothesis_pytestplugin", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, *options, "."]
    found = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8"
    )
    return found.stdout


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_a_failure_prints_what_reproduces_it(options, tmp_path):
    said = run(tmp_path, FAILING, *options)
    assert "2 failed" in said
    assert "x=1.0" in said
    assert re.search(r"@reproduce_failure\('[\d.]+', b'\S+'\)", said)
    assert "test_seeded[2]" in said
    assert re.search(r"numpy [\d.]+, scipy [\d.]+, torch \S+, hypothesis [\d.]+", said)
    assert re.search(r"OPENBLAS_CORETYPE=\w+ ATEN_CPU_CAPABILITY=\w+ EXAMPLES=1", said)


def test_examples_are_the_same_at_every_run_or_ten_times_as_many_and_fresh(tmp_path):
    seen = []
    for examples in ("1", "1", "10", "10"):
        said = run(tmp_path, COUNTING, examples=examples)
        assert "where it failed" not in said
        seen.append(eval((tmp_path / "seen.txt").read_text(encoding="utf-8")))
    assert seen[0] == seen[1]
    assert [len(drawn) for drawn in seen] == [7, 7, 70, 70]
    assert seen[2] != seen[3]
