"""Every test file stands at the path of what it tests."""

from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
FILES = [path.relative_to(TESTS) for path in sorted(TESTS.rglob("test_*.py"))]


def subjects(file):
    """What a test file at this path below `tests` may test: a module, one of its aspects, a package."""
    name, folder = file.stem.removeprefix("test_"), file.parent.as_posix()
    if folder == "chapters" and name in ("claims", "exercises"):
        return [f"bncore/chapters/mechanics/forward/{name}.py"]
    inner = Path(*file.parts[1:-1]).as_posix()
    place = f"book/_ext/{inner}" if file.parts[0] == "book" else f"bncore/{folder}"
    words = name.split("_")
    names = ["_".join(words[:count]) for count in range(len(words), 0, -1)]
    if name == "init":
        names = ["__init__"]
    return [f"{place}/{name}.py" for name in names] + [
        f"{place}/{other}" for other in (f"_{name}.py", f"{name}/__init__.py")
    ]


@pytest.mark.parametrize("file", [file for file in FILES if len(file.parts) > 1], ids=str)
def test_a_test_file_stands_at_the_path_of_what_it_tests(file):
    """What concerns the whole house stands in `tests`, what concerns the built site in `tests/site`."""
    if file.parts[0] != "site":
        assert any((ROOT / subject).exists() for subject in subjects(file)), subjects(file)


def test_no_test_is_passed_over_for_its_name():
    for path in sorted(TESTS.rglob("*.py")):
        if not path.name.startswith("test_"):
            code = path.read_text(encoding="utf-8")
            assert "\ndef test_" not in code, path
