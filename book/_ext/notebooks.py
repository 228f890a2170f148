"""Running a chapter: in a kernel of its own, with what it read of the repository noted on the way."""

import json
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 600  # seconds; one cell of the ledger judges every claim of the book

# Two chapters run at once on two cores; more threads than that would only wait.
QUIET = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
}

_OBSERVE = """
import sys
sys.path.insert(0, {folder!r})
import observe
sys.path.remove({folder!r})
sys.modules["_observer"] = observe.Observer({root!r}).start()
del sys.modules["observe"], sys, observe
"""
_WHAT_WAS_READ = 'print(__import__("sys").modules["_observer"].report())'


def read(path):
    """The notebook at `path`, in nbformat's version 4."""
    return nbformat.read(path, as_version=4)


def run(notebook, folder, environment, on_cell=lambda: None):
    """Execute `notebook` in `folder`, in place, and return it with outputs.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
    folder : pathlib.Path
        Where the kernel works.
    environment : dict of str to str
        Added to the kernel's environment.
    on_cell : callable
        Called after every code cell.

    Raises
    ------
    nbclient.exceptions.CellExecutionError, nbclient.exceptions.CellTimeoutError
        If a cell fails, or hangs.
    """
    run_cells(notebook, folder, environment, on_cell)
    return notebook


def run_observed(path, root, environment, on_cell=lambda: None):
    """Execute the notebook at `path` as `run` does, and return with it what it read below `root`.

    That is ``files`` and ``folders``, with what was found there (see `observe`), and ``modules``,
    the top-level names of everything imported.

    Raises
    ------
    RuntimeError
        If bncore comes from elsewhere: its changes would go unseen.
    """
    notebook = read(path)
    observe = _OBSERVE.format(folder=str(Path(__file__).parent), root=str(root))
    seen = run_cells(notebook, path.parent, environment, on_cell, observe, _WHAT_WAS_READ)
    seen = json.loads(seen)
    package = seen.pop("bncore")
    if package and not Path(package).resolve().is_relative_to(Path(root).resolve()):
        raise RuntimeError(
            f"{path.name} imports bncore from {package}, expected it below {root}: install it "
            "from there with `pip install --editable .`"
        )
    return notebook, seen


def ask_after(path, code):
    """What `code` prints in a kernel that has just run the notebook at `path`."""
    return run_cells(read(path), path.parent, {"BNCORE_FACE": "text"}, after=code)


def run_cells(notebook, folder, environment, on_cell=lambda: None, before="", after=""):
    """Execute `notebook` in place between two pieces of code; return what the second prints."""
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--IPKernelApp.log_level=40"],
    )
    cells = notebook.cells

    def aside(code):
        """Run code that is no cell of the chapter, and is not counted."""
        if not code:
            return ""
        cells.append(nbformat.v4.new_code_cell(code))
        client.coalesce_streams = False  # minutes for a megabyte
        try:
            client.execute_cell(cells[-1], len(cells) - 1, store_history=False)
        finally:
            asked = cells.pop()
        return "".join(output["text"] for output in asked.outputs)

    with client.setup_kernel(env={**os.environ, **QUIET, **environment}):
        aside(before)
        client.coalesce_streams = True  # what a slow cell prints in parts is one output
        for index, cell in enumerate(cells):
            client.execute_cell(cell, index)
            if cell.cell_type == "code":
                on_cell()
        return aside(after)
