"""Running a chapter: in a kernel of its own, with what it imported of bncore reported afterwards."""

import json
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 120

# Two chapters run at once on two cores; more threads than that would only wait.
QUIET = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
}

_WHAT_WAS_IMPORTED = """
import json, sys
print(json.dumps(sorted(
    m.__file__ for n, m in sys.modules.items()
    if n.split(".")[0] == "bncore" and getattr(m, "__file__", None)
)))
"""


def read(path):
    """The notebook at `path`, in nbformat's version 4."""
    return nbformat.read(path, as_version=4)


def run(path, environment, on_cell=lambda: None):
    """Execute the notebook at `path` and return it with what it imported.

    Parameters
    ----------
    path : pathlib.Path
    environment : dict of str to str
        Added to the kernel's environment.
    on_cell : callable
        Called after every code cell.

    Returns
    -------
    notebook : nbformat.NotebookNode
        With outputs.
    imported : list of pathlib.Path
        bncore's source files that the notebook imported, directly or not.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails.
    """
    notebook = read(path)
    imported = _run_and_ask(notebook, path.parent, environment, _WHAT_WAS_IMPORTED, on_cell)
    return notebook, [Path(file) for file in json.loads(imported)]


def ask_after(path, code):
    """What `code` prints in a kernel that has just run the notebook at `path`."""
    return _run_and_ask(read(path), path.parent, {"BNCORE_FACE": "text"}, code)


def _run_and_ask(notebook, folder, environment, question, on_cell=lambda: None):
    """Execute `notebook` in place, then return what `question` prints, which is not kept."""
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--IPKernelApp.log_level=40"],
    )
    cells = notebook.cells
    with client.setup_kernel(env={**os.environ, **QUIET, **environment}):
        for index, cell in enumerate(cells):
            client.execute_cell(cell, index)
            if cell.cell_type == "code":
                on_cell()
        cells.append(nbformat.v4.new_code_cell(question))
        client.execute_cell(cells[-1], len(cells) - 1)
        return "".join(output["text"] for output in cells.pop().outputs)
