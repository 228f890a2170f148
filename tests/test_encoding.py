"""Whatever reads or writes text names its encoding: the default differs from system to system."""

import ast
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]

# Functions with the position of their encoding among the arguments, if it may be given so.
TEXT = {
    "read_text": 0,
    "write_text": 1,
    "savetxt": None,
    "loadtxt": None,
    "genfromtxt": None,
    "TextIOWrapper": 1,
}
OPENING = {"open", "fdopen", "NamedTemporaryFile", "TemporaryFile", "SpooledTemporaryFile"}
# What opens no text: descriptors, archives, pictures, pages.
OTHERS = {"os", "tarfile", "zipfile", "Image", "webbrowser", "page", "context"}


def unnamed(code):
    """The lines of calls that read or write text in an encoding that they do not name."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and _in_the_default_encoding(node)
    ]


def _in_the_default_encoding(call):
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in keywords:
        return False
    function = call.func
    name = getattr(function, "attr", getattr(function, "id", None))
    for asked in ("text", "universal_newlines"):
        if isinstance(keywords.get(asked), ast.Constant) and keywords[asked].value is True:
            return True
    if name in TEXT:
        place = TEXT[name]
        return place is None or len(call.args) <= place
    if name not in OPENING:
        return False
    owner = getattr(function, "value", None)
    if isinstance(owner, ast.Name) and owner.id in OTHERS and name == "open":
        return False
    mode = keywords.get("mode")
    if mode is None:
        method = name == "open" and owner is not None and getattr(owner, "id", None) != "io"
        place = 0 if method or name.endswith("File") else 1
        mode = call.args[place] if len(call.args) > place else None
    binary = isinstance(mode, ast.Constant) and "b" in mode.value
    return not binary and (mode is not None or not name.endswith("File"))


def codes():
    """Every module's source, and every code cell, with where it stands."""
    for folder in ("bncore", "book", "benchmarks", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path, path.read_text(encoding="utf-8")
        for path in sorted((ROOT / folder).rglob("*.ipynb")):
            for cell in nbformat.read(path, as_version=4).cells:
                if cell.cell_type == "code":
                    yield path, cell.source


def test_no_file_is_read_or_written_in_the_default_encoding():
    found = [f"{path.relative_to(ROOT)}:{line}" for path, code in codes() for line in unnamed(code)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "code",
    [
        "open(p)",
        "open(p, 'w')",
        "open(p, mode='r')",
        "p.open()",
        "p.open('a')",
        "io.open(p)",
        "os.fdopen(3, 'w')",
        "p.read_text()",
        "p.write_text(t)",
        "NamedTemporaryFile('w')",
        "subprocess.run(c, text=True)",
        "Popen(c, universal_newlines=True)",
        "np.savetxt(p, x)",
    ],
)
def test_the_default_encoding_is_found(code):
    assert unnamed(code) == [1]


@pytest.mark.parametrize(
    "code",
    [
        "open(p, 'rb')",
        "open(p, encoding='utf-8')",
        "p.open('wb')",
        "os.open(p, os.O_RDONLY)",
        "p.read_text('utf-8')",
        "p.read_text(encoding='utf-8')",
        "p.write_text(t, 'utf-8')",
        "NamedTemporaryFile()",
        "subprocess.run(c, encoding='utf-8')",
        "p.read_bytes()",
    ],
)
def test_a_named_encoding_and_bytes_are_fine(code):
    assert unnamed(code) == []
