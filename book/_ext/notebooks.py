"""Running a chapter: in a kernel of its own, with what it imported of bncore reported afterwards."""

import json
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 120

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
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--IPKernelApp.log_level=40"],
    )
    kernel_environment = {**os.environ, **one_thread_each(), "TQDM_DISABLE": "1", **environment}
    with client.setup_kernel(env=kernel_environment):
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
            if cell.cell_type == "code":
                on_cell()
        imported = _ask(client, _WHAT_WAS_IMPORTED)
    return notebook, [Path(file) for file in json.loads(imported)]


def _ask(client, code):
    """What `code` prints in the client's kernel; the notebook does not keep it."""
    cells = client.nb.cells
    cells.append(nbformat.v4.new_code_cell(code))
    client.execute_cell(cells[-1], len(cells) - 1)
    return "".join(output["text"] for output in cells.pop().outputs)


def one_thread_each():
    """Two chapters run at once on two cores; more threads than that would only wait."""
    return {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
