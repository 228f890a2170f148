"""The built site, served on localhost, and a browser to look at it."""

import functools
import http.server
import threading

import lab_server
import nbformat
import pytest
from browser import MISSING, find
from built import DESKTOP, PHONE, SITE, UNFOLD
from playwright.sync_api import Error, sync_playwright
from serve import QuietHandler
from tabs import open_tab, put_back


class _Handler(QuietHandler):
    protocol_version = "HTTP/1.1"


def pytest_collection_modifyitems(items):
    """Keep the tests of one page together: its tabs open once, and close before the next page's.
    And those in JupyterLab: it starts once.
    """

    def page(item):
        return getattr(item, "callspec", None) and str(item.callspec.params.get("page", ""))

    items.sort(key=lambda item: page(item) or "")
    for item in items:
        if name := page(item):
            item.add_marker(pytest.mark.xdist_group(name))
        elif "jupyterlab" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("jupyterlab"))


@pytest.fixture(scope="session")
def address():
    """The address at which the built site is served."""
    if not (SITE / "index.html").exists():
        pytest.fail("the site is not built: run `make site` first")
    handler = functools.partial(_Handler, directory=SITE)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session")
def chromium():
    """A running browser."""
    path = find()
    if path is None:
        pytest.fail(MISSING)
    arguments = [
        "--no-sandbox",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, address):
    """Open a page of the site afresh, to do something with it."""
    opened = []

    def open_page(page, viewport=DESKTOP, theme="light", javascript=True):
        opened.append(open_tab(chromium, f"{address}/{page}", viewport, theme, javascript))
        return opened[-1]

    yield open_page
    for tab in opened:
        tab.context.close()


@pytest.fixture(scope="session")
def look(chromium, address):
    """A page of the site with everything unfolded, to look at and not to touch: tests share it.

    What has `arrived` by itself is a list of answers.
    """
    tabs = {}

    def open_page(page, viewport=DESKTOP, theme="light"):
        key = (page, viewport is PHONE, theme)
        for other in [other for other in tabs if other[0] != page or tabs[other].is_closed()]:
            tabs.pop(other).context.close()
        if key not in tabs:
            tabs[key] = open_tab(chromium, f"{address}/{page}", viewport, theme)
            tabs[key].wait_for_load_state("networkidle")
            tabs[key].arrived = list(tabs[key].answers)
            tabs[key].evaluate(UNFOLD)
        return tabs[key]

    return open_page


@pytest.fixture
def use(look):
    """A page of the site with everything unfolded, to move its figures: tests share it, too.

    They are put back afterwards; a tab in which that fails is closed.
    """
    used = []

    def open_page(page, viewport=DESKTOP, theme="light"):
        used.append(look(page, viewport, theme))
        return used[-1]

    yield open_page
    for tab in used:
        try:
            put_back(tab)
        except Error:
            tab.close()
            raise


@pytest.fixture(scope="session")
def jupyterlab(tmp_path_factory):
    """A running JupyterLab: the folder that it serves, and its address."""
    folder, home = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("jupyterlab")
    with lab_server.serve(folder, home) as address:
        yield folder, address


@pytest.fixture(scope="module")
def lab(chromium, jupyterlab):
    """Open a notebook in JupyterLab; nothing has run yet, see `lab_server.run_all`.

    It stays open until the tests of a module are done.
    """
    folder, address = jupyterlab
    contexts = []

    def open_notebook(notebook, viewport=DESKTOP, theme="light"):
        file = f"{len(list(folder.glob('*.ipynb')))}.ipynb"
        notebook.metadata.setdefault("kernelspec", lab_server.KERNEL)
        nbformat.write(notebook, folder / file)
        contexts.append(chromium.new_context(viewport=viewport, color_scheme=theme))
        return lab_server.open_notebook(contexts[-1], address, file)

    yield open_notebook
    for context in contexts:
        context.close()
