"""Execute chapters whose code, or whose bncore, or whose dependencies have changed; reuse the rest.

Jupyter Book's own cache is keyed by the notebook alone and would show a stale result after a change
of bncore. Here the key of a chapter covers its code cells, the content of every file of bncore that
it imported when it last ran, which files bncore consists of, and the version of every installed
distribution. Outputs are kept in `_build/executed`, frames of interactive figures beside them.
"""

import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError
from sphinx.errors import ExtensionError
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent))
from notebooks import ROOT, read, run


class Store:
    """The executed chapters under one folder.

    Parameters
    ----------
    folder : pathlib.Path
        Holds, for each chapter, `<docname>.ipynb` (with outputs), `<docname>.json` (what it was run
        with) and `<docname>.frames/`.
    bncore : pathlib.Path
        The package whose changes count.
    """

    def __init__(self, folder, bncore):
        self.folder = folder
        self.bncore = bncore
        self.surroundings = _hash(_versions(), _listing(bncore))

    def notebook(self, docname):
        return self.folder / f"{docname}.ipynb"

    def record(self, docname):
        return self.folder / f"{docname}.json"

    def frames(self, docname):
        return self.folder / f"{docname}.frames"

    def key(self, docname, path):
        """The key of a chapter as it would be now, given what it imported when it last ran."""
        if not (self.record(docname).exists() and self.notebook(docname).exists()):
            return None
        imported = json.loads(self.record(docname).read_text())["imported"]
        return self._key(path, imported)

    def is_fresh(self, docname, path):
        key = self.key(docname, path)
        return key is not None and key == json.loads(self.record(docname).read_text())["key"]

    def execute(self, docname, path, on_cell=lambda: None):
        """Run the chapter and keep its outputs."""
        self.record(docname).unlink(missing_ok=True)
        shutil.rmtree(self.frames(docname), ignore_errors=True)
        self.frames(docname).mkdir(parents=True)
        up = "../" * docname.count("/")
        notebook, imported = run(
            path,
            {
                "BNCORE_FACE": "page",
                "BNCORE_FRAMES_DIR": str(self.frames(docname)),
                "BNCORE_FRAMES_URL": f"{up}_frames/{docname}",
                "BNCORE_PAGE_ROOT": up or "./",
            },
            on_cell,
        )
        nbformat.write(notebook, self.notebook(docname))
        inside = sorted(
            str(file.relative_to(self.bncore))
            for file in imported
            if file.is_relative_to(self.bncore)
        )
        record = {"imported": inside, "key": self._key(path, inside)}
        self.record(docname).write_text(json.dumps(record, indent=1))

    def with_outputs(self, docname, path):
        """The chapter as it stands, with the outputs of its last run."""
        notebook, executed = read(path), read(self.notebook(docname))
        outputs = [cell.outputs for cell in executed.cells if cell.cell_type == "code"]
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for cell, output in zip(cells, outputs, strict=True):
            cell.outputs = output
        return notebook

    def _key(self, path, imported):
        code = [cell.source for cell in read(path).cells if cell.cell_type == "code"]
        sources = [
            (self.bncore / name).read_text() if (self.bncore / name).exists() else "gone"
            for name in imported
        ]
        return _hash(self.surroundings, code, imported, sources)


def _versions():
    found = {f"{d.name}=={d.version}" for d in importlib.metadata.distributions()}
    return [sys.version, *sorted(found)]


def _listing(package):
    files = sorted(file for file in package.rglob("*") if file.is_file())
    return [
        str(file.relative_to(package))
        + ("" if file.suffix == ".py" else hashlib.sha256(file.read_bytes()).hexdigest())
        for file in files
        if "__pycache__" not in file.parts
    ]


def _hash(*parts):
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _chapters(env):
    paths = {docname: Path(env.doc2path(docname)) for docname in env.found_docs}
    return {docname: path for docname, path in paths.items() if path.suffix == ".ipynb"}


def execute_stale_chapters(app, env, added, changed, removed):
    """Run what is not fresh, two chapters at a time, and tell Sphinx which pages to read again."""
    folder = Path(app.srcdir, app.config.execution_store)
    store = app.bn_store = Store(folder, Path(app.config.execution_package))
    chapters = _chapters(env)
    stale = {d: path for d, path in chapters.items() if not store.is_fresh(d, path)}
    cells = sum(cell.cell_type == "code" for path in stale.values() for cell in read(path).cells)
    if stale:
        with (
            tqdm(total=cells, desc="executing chapters", unit="cell") as bar,
            ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool,
        ):
            runs = {d: pool.submit(store.execute, d, p, bar.update) for d, p in stale.items()}
            for docname, run_ in runs.items():
                try:
                    run_.result()
                except CellExecutionError as error:
                    raise ExtensionError(f"{docname} does not run:\n{error}") from error
    read_with = getattr(env, "bn_read_with", {})
    return [d for d, path in chapters.items() if read_with.get(d) != store.key(d, path)]


def use_outputs(app, docname, source):
    """Hand Sphinx the executed chapter in place of the committed one."""
    path = Path(app.env.doc2path(docname))
    if path.suffix == ".ipynb":
        source[0] = nbformat.writes(app.bn_store.with_outputs(docname, path))
        if not hasattr(app.env, "bn_read_with"):
            app.env.bn_read_with = {}
        app.env.bn_read_with[docname] = app.bn_store.key(docname, path)


def publish_frames(app, exception):
    """Put the frames of every chapter where its page looks for them."""
    if exception:
        return
    for docname in _chapters(app.env):
        target = Path(app.outdir) / "_frames" / docname
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(app.bn_store.frames(docname), target)


def setup(app):
    app.add_config_value("execution_store", "_build/executed", "")
    app.add_config_value("execution_package", str(ROOT / "bncore"), "")
    app.connect("env-get-outdated", execute_stale_chapters)
    app.connect("source-read", use_outputs)
    app.connect("build-finished", publish_frames)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
