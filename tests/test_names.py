"""One thing, one name: a chapter is called the same wherever it is listed, and stands in one order."""

import json
import re
from pathlib import Path

import nbformat
import pytest
import yaml
from source import shown

from bncore.chapters import WINGS, discover, ledger, modules, names
from bncore.chapters.contents import PAGES, TITLES, titles
from bncore.page.claims import REGISTRY
from bncore.page.evidence import Evidence, untestable

ROOT = Path(__file__).resolve().parents[1]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def page(chapter):
    """Where a chapter's page lies below `book`."""
    return chapter.removeprefix("front/")


def recorded_ledger(path):
    """The lines of the ledger that a notebook prints, but for the last, which counts."""
    for cell in json.loads(read(path))["cells"]:
        if "".join(cell["source"]).split("\n")[-1].startswith("ledger("):
            text = "".join(cell["outputs"][-1]["data"]["text/plain"])
            return [" ".join(line.split()) for line in text.splitlines()[:-1]]
    return []


def test_the_recorded_ledger_of_the_book_has_the_verdicts_of_the_claims_chapter_by_chapter():
    discover("claims")
    chapters = list(TITLES)
    claims = sorted(REGISTRY.values(), key=lambda claim: chapters.index(claim.chapter))
    assert recorded_ledger("book/claims.ipynb") == [f"{one.id} {one.verdict}" for one in claims]


@pytest.fixture
def book_ledger(monkeypatch):
    """The ledger of the whole book, without its evidence."""
    evidence = Evidence.of([untestable("not judged here")])
    monkeypatch.setattr("bncore.page.claims.Claim.evidence", lambda entry: evidence)
    return ledger().html()


def test_every_chapter_has_a_package_and_an_entry():
    assert names() == list(TITLES)


def test_the_table_of_contents_lists_chapters_and_pages_in_their_order_under_their_wings():
    *parts, _ = yaml.safe_load(read("_toc.yml"))["parts"]
    listed = [(part.get("caption", "Front"), entry) for part in parts for entry in part["chapters"]]
    assert [entry["file"] for _, entry in listed] == [f"book/{page(chapter)}" for chapter in TITLES]
    for (caption, entry), chapter in zip(listed, TITLES, strict=True):
        under = PAGES.get(chapter, ())
        assert [one["file"] for one in entry.get("sections", ())] == [
            f"book/{one}" for one in under
        ]
        assert {name.split("/")[0] for name in (chapter, *under)} == {caption.lower()}


def test_pages_stand_under_chapters_and_have_no_package():
    assert set(PAGES) <= set(TITLES)
    assert all(PAGES.values())
    assert not set(names()) & {one for under in PAGES.values() for one in under}


def test_the_wings_stand_in_the_order_of_the_book():
    assert list(dict.fromkeys(chapter.split("/")[0] for chapter in TITLES)) == [
        wing for wing in WINGS if any(chapter.startswith(f"{wing}/") for chapter in TITLES)
    ]


@pytest.mark.parametrize("chapter", titles())
def test_the_title_says_the_name_of_the_file(chapter):
    title = titles()[chapter]
    words = re.sub(r"[\W_]+", "_", title.lower())
    wing, name = chapter.split("/")
    said = f"_{words.strip('_')}_"
    assert wing == "front" or said.startswith(f"_{name}_") or said.endswith(f"_{name}_")


@pytest.mark.parametrize("chapter", titles())
def test_the_notebook_has_the_title(chapter):
    notebook = nbformat.read(ROOT / "book" / f"{page(chapter)}.ipynb", as_version=4)
    assert notebook.cells[0].source.splitlines()[0] == f"# {titles()[chapter]}"


def test_the_front_page_and_the_readme_call_the_chapters_by_their_titles_in_their_order():
    expected = [(TITLES[chapter], page(chapter)) for chapter in TITLES]
    for path, folder in (("book/intro.md", ""), ("README.md", "book/")):
        line = rf"^- \[(.*?)\]\({folder}([\w/]+)\.ipynb\)"
        assert re.findall(line, read(path), re.MULTILINE) == expected


def test_the_ledger_calls_the_chapters_by_their_titles_in_their_order(book_ledger):
    expected = [title for name, title in TITLES.items() if f'data-chapter="{name}"' in book_ledger]
    assert len(expected) >= 13
    assert re.findall(r"<h4>(.*?)</h4>", book_ledger) == expected
    rows = re.findall(r'<th scope="row">(?:<a [^>]*>)?(.*?)(?:</a>)?</th>', book_ledger)
    assert rows == [*expected, "The book"]


@pytest.mark.parametrize("chapter", TITLES)
def test_a_chapter_has_a_module_of_its_name_or_says_on_which_it_rests(chapter):
    declared = modules(chapter)
    assert declared or chapter.startswith("front/")
    for module in declared:
        file = ROOT / "bncore" / f"{module}.py"
        assert file.exists() or file.with_suffix("").is_dir(), module


def test_no_two_chapters_or_pages_have_one_name():
    last = [chapter.split("/")[1] for chapter in titles()]
    assert len(set(last)) == len(last)


def test_code_that_pages_show_is_there():
    """An object that was renamed would leave a hole in the page, found only when the site is built."""
    for path in sorted((ROOT / "book").rglob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            assert "{literalinclude}" not in cell.source, path
            pattern = r"\{source\} (\S+)\n(?::start-at: (.*)\n)?"
            for name, start_at in re.findall(pattern, cell.source):
                code, target = shown(name, start_at)
                assert code.strip(), name
                assert target.startswith("_modules/bncore/"), name


def test_the_routes_of_the_front_page_take_as_long_as_their_chapters_say():
    routes = re.findall(
        r"^- \*\*.*?\*\*, (\d+) minutes: (.*)$", read("book/intro.md"), re.MULTILINE
    )
    assert len(routes) == 3
    for minutes, route in routes:
        pages = [read(f"book/{page}") for page in re.findall(r"\]\(([\w/]+\.ipynb)\)", route)]
        times = [re.search(r"\*Reading time\*: (\d+) minutes", page) for page in pages]
        assert int(minutes) == sum(int(time[1]) for time in times), route
