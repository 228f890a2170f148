"""Folds, on a page of their own: they open by hand, by a link that points inside, and on paper."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]

CELLS = [
    new_markdown_cell("""# Page

Contents: [the side road](#deeper-a-side-road), [its middle](#in-the-middle), {eq}`hidden`,
[elsewhere](#elsewhere).

```{prf:theorem} A theorem
:label: thm-a

It holds.
```

```{prf:proof}
:class: dropdown

Since

$$a = b$$ (hidden)

it follows.
```

```{prf:proof}
Open, as it is short.
```

```{prf:lemma} A lemma
:label: lem-b

It holds, too.
```

```{prf:proof}
The same.
```

(another-name)=
## Deeper: a side road

A word."""),
    new_code_cell("inside = 1"),
    new_markdown_cell("### In the middle\n\n" + "Much is said.\n\n" * 80),
    new_markdown_cell("## Elsewhere\n\nThe open line.\n\n### Proof of the theorem\n\nBy itself."),
]

CONF = """
extensions = ["myst_nb", "sphinx_proof", "proofs", "folds"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
html_theme = "basic"
html_static_path = ["static"]
html_css_files = ["book.css", "folds.css"]
html_js_files = [["folds.js", {"defer": "defer"}]]
mathjax_path = "static/none.js"
language = "en"
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The address of the built page."""
    folder = tmp_path_factory.mktemp("folds")
    static = folder / "static"
    static.mkdir()
    for name in ("book.css", "folds.css", "folds.js"):
        shutil.copy(ROOT / "book" / "_static" / name, static)
    metadata = {"language_info": {"name": "python"}}
    nbformat.write(new_notebook(cells=CELLS, metadata=metadata), folder / "index.ipynb")
    conf = f"import sys\nsys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})\n{CONF}"
    (folder / "conf.py").write_text(conf, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        str(folder),
        str(folder / "html"),
    ]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return (folder / "html" / "index.html").as_uri()


@pytest.fixture
def read(chromium, page):
    """Open the page, at an id or at its top."""
    contexts = []

    def open_page(anchor="", **options):
        contexts.append(chromium.new_context(**options))
        tab = contexts[-1].new_page()
        tab.goto(page + anchor)
        return tab

    yield open_page
    for context in contexts:
        context.close()


SIDE = "#deeper-a-side-road > details"
PROOF = "details.bn-proof"


def is_open(tab, fold):
    return tab.evaluate("fold => document.querySelector(fold).open", fold)


def seen(tab, text):
    return tab.get_by_text(text, exact=True).first.is_visible()


def test_a_fold_holds_cells_and_sections_and_shows_its_heading(read):
    tab = read()
    assert tab.locator("details").count() == 3
    assert tab.locator(f"{SIDE} > summary > h2").inner_text() == "Deeper: a side road"
    assert tab.locator(f"{SIDE} .cell_input").count() == 1
    assert tab.locator(f"{SIDE} #in-the-middle > h3").count() == 1
    assert tab.locator(f"{SIDE} #elsewhere").count() == 0
    assert tab.locator("#proof-of-the-theorem > details > summary > h3").count() == 1
    assert seen(tab, "Deeper: a side road")
    assert not seen(tab, "A word.")
    assert seen(tab, "The open line.")


def test_a_proof_says_its_name_once_and_a_short_one_stays_open(read):
    tab = read()
    assert tab.locator(f"{PROOF} > summary").inner_text() == "Proof"
    assert tab.locator(f"{PROOF} > p").first.text_content() == "Since"
    assert seen(tab, "Proof. Open, as it is short.")


def test_a_proof_has_the_id_of_its_statement_and_no_id_is_there_twice(read):
    tab = read()
    assert tab.locator(f"{PROOF}#proof-thm-a").count() == 1
    assert tab.locator("div.bn-proof#proof-thm-a-2").inner_text() == "Proof. Open, as it is short."
    assert tab.locator("div.bn-proof#proof-lem-b").inner_text() == "Proof. The same."
    ids = tab.evaluate("() => [...document.querySelectorAll('[id]')].map(node => node.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("javascript", [True, False])
def test_a_key_opens_and_closes_it(read, javascript):
    tab = read(java_script_enabled=javascript)
    summary = tab.locator(f"{SIDE} > summary")
    for shown in (True, False):
        summary.press("Enter")
        assert seen(tab, "A word.") is shown


@pytest.mark.parametrize(
    ("anchor", "fold"),
    [
        ("#deeper-a-side-road", SIDE),
        ("#another-name", SIDE),
        ("#in-the-middle", SIDE),
        ("#equation-hidden", PROOF),
        ("#proof-thm-a", PROOF),
    ],
)
def test_a_link_into_a_fold_opens_it_and_no_other(read, anchor, fold):
    tab = read(anchor)
    assert is_open(tab, fold)
    assert tab.locator("details[open]").count() == 1
    assert tab.evaluate(
        "id => document.querySelector(id).getBoundingClientRect().top < innerHeight", anchor
    )


@pytest.mark.parametrize("anchor", ["", "#elsewhere", "#nowhere", "#%E0%A4%A"])
def test_other_links_open_none(read, anchor):
    assert read(anchor).locator("details[open]").count() == 0


def test_a_link_of_the_contents_opens_it_again_once_it_was_closed(read):
    tab = read()
    link = tab.get_by_role("link", name="the side road")
    for _ in range(2):
        link.click()
        tab.wait_for_function("fold => document.querySelector(fold).open", arg=SIDE)
        tab.locator(f"{SIDE} > summary").click()
        assert not is_open(tab, SIDE)


def sheets(tab):
    """On how many sheets the page is printed."""
    return tab.pdf().count(b"/Type /Page\n")


@pytest.mark.parametrize("javascript", [True, False])
def test_paper_shows_what_is_folded(read, javascript):
    tab = read(java_script_enabled=javascript)
    printed = sheets(tab)
    assert tab.locator("details[open]").count() == 0
    for summary in tab.locator("summary").all():
        summary.click()
    assert printed == sheets(tab) > 1


def test_without_any_script_the_print_style_unfolds(read):
    tab = read(java_script_enabled=False)
    tab.emulate_media(media="print")
    assert seen(tab, "A word.")
    assert seen(tab, "By itself.")


def test_axe_finds_nothing_serious(read):
    tab = read()
    for _ in range(2):
        found = Axe().run(tab, options={"resultTypes": ["violations"]}).response["violations"]
        assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
        tab.evaluate("() => document.querySelectorAll('details').forEach(e => { e.open = true; })")
