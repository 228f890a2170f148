"""Record chapters: bring in what was edited as Markdown, run, and keep the text outputs only.

python book/_ext/record.py                      every chapter
python book/_ext/record.py mechanics/forward    one chapter
"""

import subprocess
import sys
from pathlib import Path

import nbformat
from notebooks import ROOT, run
from tqdm import tqdm


def only_text(notebook):
    """Strip from `notebook`, in place, whatever is not stable text: images, HTML, widget state."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        for output in cell.outputs:
            output.get("metadata", {}).clear()
            if "data" in output:
                output["data"] = {
                    kind: value
                    for kind, value in output["data"].items()
                    if kind in ("text/plain", "text/markdown")
                }
    return notebook


def synchronise(path):
    """Let jupytext carry over the newer of the notebook at `path` and its Markdown twin."""
    twin = ROOT / "text" / path.relative_to(ROOT / "book").with_suffix(".md")
    if twin.exists() and not path.exists():
        command = ["--to", "ipynb", "--output", str(path), str(twin)]
    else:
        command = ["--sync", str(path)]
    subprocess.run([sys.executable, "-m", "jupytext", "--quiet", *command], cwd=ROOT, check=True)


def record(path):
    """Run the notebook at `path` and write it back with its text outputs."""
    synchronise(path)
    count = sum(cell.cell_type == "code" for cell in nbformat.read(path, as_version=4).cells)
    with tqdm(total=count, desc=path.stem, unit="cell") as bar:
        notebook, _ = run(path, {"BNCORE_FACE": "text"}, on_cell=bar.update)
    nbformat.write(only_text(notebook), path)
    synchronise(path)


if __name__ == "__main__":
    names = sys.argv[1:]
    book = ROOT / "book"
    for chapter in [book / f"{name}.ipynb" for name in names] or sorted(book.rglob("*.ipynb")):
        record(Path(chapter))
