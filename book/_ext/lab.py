"""Derive the reader's copy of the book, for JupyterLab to open; no chapter is run.

python book/_ext/lab.py notebooks
"""

import sys
from pathlib import Path

import nbformat
from edition.reader import Copy
from execution import NO_CHAPTER
from jupyter_book.sphinx import build_sphinx
from notebooks import ROOT


def derive(root, out):
    """Read the book and write its editions into `out`; return Sphinx's exit status."""
    return build_sphinx(
        root,
        out,
        noconfig=True,
        path_config=root / "_config.yml",
        builder="edition",
        confoverrides={
            "external_toc_path": (root / "_toc.yml").as_posix(),
            "latex_individualpages": False,
            "execution_only": NO_CHAPTER,
        },
        really_quiet=True,
    )


def main(folder, root=ROOT):
    """Bring the copy in `folder` up to date, say what was left alone, and return the exit status."""
    out = root / "_build" / "lab" / "edition"
    print("Reading the book ...", flush=True)
    if derive(root, out):
        return 1
    book = out / "book"
    paths = sorted(book.rglob("*.ipynb"))
    editions = {
        path.relative_to(book).as_posix(): nbformat.read(path, as_version=4) for path in paths
    }
    kept = Copy(folder).take(editions)
    print(f"{len(editions)} notebook{'' if len(editions) == 1 else 's'} in {folder}")
    if kept:
        print(
            "You changed these, so they are left as they are; "
            "rename one to get the book's version beside it:"
        )
        print("\n".join(f"  {name}" for name in kept))
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Which folder? python book/_ext/lab.py notebooks")
    sys.exit(main(Path(sys.argv[1])))
