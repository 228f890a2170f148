"""Check one chapter: lint, the tests of its modules, its claims, exercises, notebook and page.

python book/_ext/check.py mechanics/forward

Two checks run at a time. The page is built among the others as they stand, into `_build/check`.
"""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

from notebooks import QUIET, ROOT
from record import CannotRecord, Pair

from bncore.chapters import modules
from bncore.chapters.contents import chapter_of

COLUMNS = "--line-length=64"
"""How wide the code of a notebook is, in the words of the formatter."""

NOTHING_TO_TEST = 5
"""How pytest exits where it finds no test."""


def steps(chapter, root=ROOT):
    """The checks of a chapter, or of a page under one: for each its name and its command.

    Raises
    ------
    ValueError
        If there is no such chapter.
    """
    notebook = Pair(chapter, root).notebook.relative_to(root).as_posix()
    chapter = chapter_of(chapter)
    pytest, ruff = ("-m", "pytest", "-p", "no:cacheprovider"), ("-m", "ruff")
    own = ["tests/chapters/test_claims.py", "tests/chapters/test_exercises.py"]
    return {
        "lint": [*ruff, "check", "--quiet", "."],
        "format": [*ruff, "format", "--quiet", "--check", "--exclude", "*.ipynb", "."],
        "format of cells": [*ruff, "format", "--quiet", "--check", COLUMNS, notebook],
        "width of cells": [*ruff, "check", "--quiet", "--select", "E501", COLUMNS, notebook],
        "notebook": [*pytest, "--nbval", "--nbval-current-env", notebook],
        "page": ["book/_ext/check.py", "--page", notebook.removesuffix(".ipynb")],
        "tests": [*pytest, *paths_of_tests(chapter, root)],
        "claims and exercises": [*pytest, *own, "-k", f"{chapter}-"],
    }


def paths_of_tests(chapter, root=ROOT):
    """The test files of a chapter and of the modules behind it.

    Raises
    ------
    ValueError
        If there is no such chapter.
    """
    found = [root / "tests" / "chapters" / chapter]
    for module in modules(chapter):
        place = root / "tests" / module
        found += [place, place.with_name(f"test_{place.name}.py")]
        found += sorted(place.parent.glob(f"test_{place.name}_*.py"))
    return [path.relative_to(root).as_posix() for path in found if path.exists()]


def run(command, root=ROOT):
    """Run Python with these arguments; return whether it went well, its words and its seconds."""
    start = time.monotonic()
    environment = {**os.environ, **QUIET, "BNCORE_FACE": "text", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    tested_nothing = "pytest" in command and done.returncode == NOTHING_TO_TEST
    return done.returncode == 0 or tested_nothing, done.stdout, time.monotonic() - start


def build_page(page, root=ROOT):
    """Build one page of the book, warnings being errors; return Sphinx's exit status."""
    from jupyter_book.sphinx import build_sphinx

    return build_sphinx(
        root,
        root / "_build" / "check" / "html",
        noconfig=True,
        path_config=root / "_config.yml",
        confoverrides={
            "external_toc_path": (root / "_toc.yml").as_posix(),
            "latex_individualpages": False,
            "execution_only": page,
        },
        filenames=[str(root / f"{page}.ipynb")],
        warningiserror=True,
        keep_going=True,
    )


def main(chapter, root=ROOT):
    """Check the chapter, say what was found, and return the exit status."""
    start = time.monotonic()
    try:
        commands = steps(chapter, root)
        pair = Pair(chapter, root)
        if pair.twin_is_ahead():
            print(f"{pair.named(pair.twin)} is not recorded: make record CHAPTER={chapter}")
            return 1
    except (CannotRecord, ValueError) as error:
        print(error)
        return 1
    failed = []
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        names = {pool.submit(run, command, root): name for name, command in commands.items()}
        for future in as_completed(names):
            well, words, seconds = future.result()
            print(f"{names[future]:22} {'ok' if well else 'FAILED':6} {seconds:5.0f} s", flush=True)
            if not well:
                failed.append(names[future])
                print(words, flush=True)
    verdict = f"failed: {', '.join(failed)}" if failed else "ok"
    print(f"{chapter} {verdict}, {time.monotonic() - start:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--page"]:
        sys.exit(build_page(sys.argv[2]))
    if len(sys.argv) != 2:
        sys.exit("Which chapter? make check CHAPTER=mechanics/forward")
    sys.exit(main(sys.argv[1]))
