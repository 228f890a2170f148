"""What a notebook needs where it is launched: a cell that installs bncore, and an environment for Binder."""

import copy
import re

import nbformat

SETUP = """\
# The book's package, where it is missing, as on Colab.
from importlib.util import find_spec

if find_spec("bncore") is None:
    %pip install --quiet "{requirement}\""""

POST_BUILD = """\
#!/bin/bash
# A CPU build of torch: Binder has no GPU, and the CUDA build would not fit.
set -euo pipefail
pip install --no-cache-dir uv
uv pip install --system --no-cache --torch-backend=cpu {requirements}
"""


def requirement(address, commit):
    """What pip is asked for: bncore from the repository at `address`, as it was at `commit` if that is known."""
    return f"bncore[lab,page] @ git+{address}{'@' if commit else ''}{commit or ''}"


def with_setup_cell(notebook, address, commit):
    """A copy of `notebook` whose first code installs bncore where it is missing."""
    prepared = copy.deepcopy(notebook)
    source = SETUP.format(requirement=requirement(address, commit))
    prepared.cells.insert(1, nbformat.v4.new_code_cell(source, id="set-up"))
    return prepared


def binder(folder, root, address, commit):
    """Write what Binder builds its environment from into `folder`, with the torch that the repository at `root` names."""
    pinned = re.findall(
        r"^torch==\S+", (root / "requirements.txt").read_text("utf-8"), re.MULTILINE
    )
    wanted = [*pinned, requirement(address, commit)]
    folder.mkdir(parents=True, exist_ok=True)
    script = POST_BUILD.format(requirements=" ".join(f'"{each}"' for each in wanted))
    (folder / "postBuild").write_text(script, encoding="utf-8")
    (folder / "postBuild").chmod(0o755)
    (folder / "runtime.txt").write_text("python-3.12\n", encoding="utf-8")
