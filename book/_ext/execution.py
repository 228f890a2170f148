"""Execute chapters whose code, or whatever they read, has changed; reuse the rest.

Jupyter Book's own cache is keyed by the notebook alone and would show a stale result after a change
of bncore. Here the key of a chapter covers its code cells, the files and the folders of the repository
that it read when it last ran (modules of bncore, data), Python, and the versions of the distributions
that it imported: nothing else, so that a new chapter runs alone. Outputs are kept in
`_build/executed`, frames of interactive figures beside them.

With `execution_only` set, one chapter is kept up to date, and the others are read as they stand;
`NO_CHAPTER` leaves all as they stand.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from sphinx.errors import ExtensionError
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent))
from notebooks import ROOT, read, run_observed
from observe import file_state, folder_state

NO_CHAPTER = "no chapter"


class Store:
    """The executed chapters under one folder.

    Parameters
    ----------
    folder : pathlib.Path
        Holds, for each chapter, `<docname>.ipynb` (with outputs), `<docname>.json` (what it was run
        with) and `<docname>.frames/`.
    root : pathlib.Path
        The repository: what a chapter reads in it counts.
    """

    def __init__(self, folder, root=ROOT):
        self.folder = folder
        self.root = root

    def notebook(self, docname):
        return self.folder / f"{docname}.ipynb"

    def record(self, docname):
        return self.folder / f"{docname}.json"

    def frames(self, docname):
        return self.folder / f"{docname}.frames"

    def key(self, docname, path):
        """The key of a chapter as it would be now, given what it read when it last ran."""
        ran = self._ran(docname)
        if ran is None:
            return None
        files = {name: file_state(self.root / name) for name in ran["files"]}
        folders = {name: folder_state(self.root / name) for name in ran["folders"]}
        return _key(read(path), {**ran, "files": files, "folders": folders})

    def is_fresh(self, docname, path):
        key = self.key(docname, path)
        return key is not None and key == self._ran(docname)["key"]

    def _ran(self, docname):
        """What the last run read and its key; None unless all that it left is there."""
        kept = (self.record(docname), self.notebook(docname), self.frames(docname))
        if not all(part.exists() for part in kept):
            return None
        try:
            ran = json.loads(self.record(docname).read_text(encoding="utf-8"))
        except ValueError:
            return None
        return ran if {"key", "files", "folders", "modules"} <= set(ran) else None

    def execute(self, docname, path, on_cell=lambda: None):
        """Run the chapter and keep its outputs."""
        self.record(docname).unlink(missing_ok=True)
        shutil.rmtree(self.frames(docname), ignore_errors=True)
        self.frames(docname).mkdir(parents=True)
        up = "../" * docname.count("/")
        environment = {
            "BNCORE_FACE": "page",
            "BNCORE_FRAMES_DIR": str(self.frames(docname)),
            "BNCORE_FRAMES_URL": f"{up}_frames/{docname}",
            "BNCORE_PAGE_ROOT": up or "./",
        }
        notebook, seen = run_observed(path, self.root, environment, on_cell)
        nbformat.write(notebook, self.notebook(docname))
        part = self.record(docname).with_suffix(".part")
        record = {"key": _key(notebook, seen), **seen}
        part.write_text(json.dumps(record, indent=1), encoding="utf-8")
        part.replace(self.record(docname))

    def with_outputs(self, docname, path):
        """The chapter as it stands, with the outputs of its last run."""
        notebook, executed = read(path), read(self.notebook(docname))
        outputs = [cell.outputs for cell in executed.cells if cell.cell_type == "code"]
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for cell, output in zip(cells, outputs, strict=True):
            cell.outputs = output
        return notebook


def _key(notebook, seen):
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    parts = [code, seen["files"], seen["folders"], sys.version, _versions(seen["modules"])]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _versions(modules):
    """The distributions that provide these top-level modules, with their versions."""
    providers = _providers()
    found = {name for module in modules for name in providers.get(module, ())}
    return sorted(f"{name}=={importlib.metadata.version(name)}" for name in found)


@functools.cache
def _providers():
    return importlib.metadata.packages_distributions()


def _chapters(env):
    paths = {docname: Path(env.doc2path(docname)) for docname in env.found_docs}
    return {docname: path for docname, path in paths.items() if path.suffix == ".ipynb"}


def execute_stale_chapters(app, env, added, changed, removed):
    """Run what is not fresh, two chapters at a time, and tell Sphinx which pages to read again."""
    store = app.bn_store = Store(Path(app.srcdir, app.config.execution_store), _root(app))
    only = app.config.execution_only
    chapters = {d: path for d, path in _chapters(env).items() if only in ("", d)}
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
                except (CellExecutionError, CellTimeoutError) as error:
                    raise ExtensionError(f"{docname} does not run:\n{error}") from error
    read_with = getattr(env, "bn_read_with", {})
    return [d for d, path in chapters.items() if read_with.get(d) != store.key(d, path)]


def use_outputs(app, docname, source):
    """Hand Sphinx the executed chapter in place of the committed one."""
    path = Path(app.env.doc2path(docname))
    if path.suffix != ".ipynb":
        return
    if not hasattr(app.env, "bn_read_with"):
        app.env.bn_read_with = {}
    key = None
    if app.config.execution_only in ("", docname):
        source[0] = nbformat.writes(app.bn_store.with_outputs(docname, path))
        key = app.bn_store.key(docname, path)
    app.env.bn_read_with[docname] = key


def publish_frames(app, exception):
    """Put the frames of every chapter where its page looks for them."""
    if exception:
        return
    for docname in _chapters(app.env):
        frames = app.bn_store.frames(docname)
        target = Path(app.outdir) / "_frames" / docname
        shutil.rmtree(target, ignore_errors=True)
        if app.config.execution_only in ("", docname):
            shutil.copytree(frames, target)


def _without_search(app):
    """One page alone has nothing to be searched, and Sphinx would warn of it."""
    if app.config.execution_only:
        app.builder.search = False


def _root(app):
    return Path(app.config.execution_root or app.srcdir)


def setup(app):
    app.add_config_value("execution_store", "_build/executed", "")
    app.add_config_value("execution_root", "", "")
    app.add_config_value("execution_only", "", "")
    app.connect("builder-inited", _without_search)
    app.connect("env-get-outdated", execute_stale_chapters)
    app.connect("source-read", use_outputs)
    app.connect("build-finished", publish_frames)
    return {"version": "2", "parallel_read_safe": False, "parallel_write_safe": True}
