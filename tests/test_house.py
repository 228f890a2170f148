"""Arrows between the wings point one way, modules are short, and tests stand where they belong."""

import ast
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bncore"
GROUND = {"arguments", "progress", "tensors"}
MAY_IMPORT = {
    "mechanics": set(),
    "convergence": {"mechanics"},
    "lab": {"mechanics"},
    "explanations": {"mechanics", "convergence", "lab"},
    "practice": {"mechanics", "convergence", "lab"},
    "page": set(),
    "chapters": {"mechanics", "convergence", "lab", "explanations", "practice", "page"},
}
HEAVY = ("torch", "matplotlib", "ipywidgets")
LONGER = {"bncore.mechanics.transform"}
"""One idea that is longer by itself: each function's docstring gives its formulas and errors."""
MODULES = sorted(PACKAGE.rglob("*.py"))
REFERRED = [path for path in MODULES if not {"chapters", "page"} & set(path.parts)]


def dotted(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def exists(name):
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def imported(path):
    """Names of modules that a file imports anywhere, as written or as an attribute of a package."""
    own = dotted(path)
    package = own if path.name == "__init__.py" else own.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            module = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            yield module
            yield from (
                f"{module}.{alias.name}"
                for alias in node.names
                if module.startswith("bncore") and exists(f"{module}.{alias.name}")
            )


def wing(name):
    parts = name.split(".")
    return parts[1] if parts[0] == "bncore" and len(parts) > 1 else None


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_arrows_point_one_way(path):
    own = wing(dotted(path))
    for name in imported(path):
        other = wing(name)
        if other in GROUND or other in (None, own):
            continue
        assert own in MAY_IMPORT, f"{dotted(path)} is on the ground floor and imports {name}"
        assert other in MAY_IMPORT[own], f"{dotted(path)} imports {name}"
        private = [part for part in name.split(".")[2:] if part.startswith("_")]
        assert not private, f"{dotted(path)} imports {name}, which is private to another wing"


def test_every_wing_is_known():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert folders <= MAY_IMPORT.keys()
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert files == GROUND


def test_no_chapter_is_imported_by_another():
    chapters = PACKAGE / "chapters"
    for path in chapters.rglob("*.py"):
        own = dotted(path).split(".")[:4]
        for name in imported(path):
            parts = name.split(".")
            if parts[:2] == ["bncore", "chapters"] and len(parts) > 3 and len(own) > 3:
                assert parts[:4] == own, f"{dotted(path)} imports {name}"


@pytest.mark.parametrize("name", ["mechanics", "convergence"])
def test_mathematics_needs_neither_torch_nor_figures(name):
    paths = list((PACKAGE / name).rglob("*.py"))
    roots = {module.partition(".")[0] for module in chain.from_iterable(map(imported, paths))}
    assert not roots & set(HEAVY)
    program = (
        "import importlib, sys\n"
        f"for name in {[dotted(path) for path in paths]}: importlib.import_module(name)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    run = [sys.executable, "-c", program]
    done = subprocess.run(
        run, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_module_is_one_idea(path):
    """Chapters hold what is shown, judged and asked, one file each, and grow with what is said."""
    if wing(dotted(path)) != "chapters" and dotted(path) not in LONGER:
        lines = path.read_text(encoding="utf-8").count("\n")
        assert lines <= 400, f"{dotted(path)} has {lines} lines, expected at most 400: divide it"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_every_module_has_its_test(path):
    """Where names of a wing or of all the chapters are gathered there is no more to test."""
    place = path.relative_to(PACKAGE)
    if path.stem.startswith("_") or place.parts[0] == "chapters":
        return
    assert (ROOT / "tests" / place.with_name(f"test_{path.name}")).is_file()


@pytest.mark.parametrize("path", REFERRED, ids=dotted)
def test_the_reference_typesets_every_formula(path):
    """It reads docstrings as reStructuredText, in which dollars are dollars."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            assert not re.search(r"\$[^$]+\$", ast.get_docstring(node) or "")
