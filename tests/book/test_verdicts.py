"""The roles that bring the ledger into a chapter's own words."""

import io
import re
from types import SimpleNamespace

import pytest
import verdicts
from sphinx.application import Sphinx

from bncore.page.claims import VERDICTS
from bncore.page.ledger import SYMBOLS, Ledger


def claim(id, verdict, chapter, *aliases):
    return SimpleNamespace(id=id, verdict=verdict, chapter=chapter, aliases=aliases)


ENTRIES = [
    *(claim(f"scaling-{verdict}", verdict, "mechanics/scaling") for verdict in VERDICTS),
    claim("noise-grows", "holds", "explanations/noise", "noise-used-to-grow"),
]


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """A ledger of a few claims."""
    entries = {entry.id: entry for entry in ENTRIES}
    monkeypatch.setattr(verdicts, "_registry", lambda: entries)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_a_claim_has_its_verdict_and_its_row(entry):
    expected = (entry.verdict, SYMBOLS[entry.verdict], f"book/claims.html#claim-{entry.id}")
    assert verdicts.of_claim(entry.id) == expected
    for name in entry.aliases:
        assert verdicts.of_claim(name) == expected


def test_a_chapter_has_its_number_of_claims_and_its_place_in_the_ledger():
    count, target = verdicts.of_chapter("mechanics/scaling")
    assert count == len(VERDICTS)
    page, place = target.split("#")
    assert page == "book/claims.html"
    shown = Ledger([], whole_book=True)._chapter("mechanics/scaling", [])
    assert f'id="{place}"' in shown


@pytest.mark.parametrize(
    ("ask", "name", "words"),
    [
        (verdicts.of_claim, "noise-grow", "no claim 'noise-grow' in the ledger, expected such as noise-"),
        (verdicts.of_claim, "zzz", "no claim 'zzz' in the ledger"),
        (verdicts.of_chapter, "mechanics/scale", "no chapter 'mechanics/scale' in the ledger, expected such"),
    ],
)  # fmt: skip
def test_what_is_not_in_the_ledger_is_named(ask, name, words):
    with pytest.raises(verdicts.NotThere, match=re.escape(words)):
        ask(name)


@pytest.fixture
def site(tmp_path):
    """Build a page below a folder: its HTML and what Sphinx complained of."""
    (tmp_path / "book" / "wing").mkdir(parents=True)
    (tmp_path / "index.md").write_text("# Root\n\n```{toctree}\nbook/wing/page\n```\n", "utf-8")

    def build(text):
        (tmp_path / "book" / "wing" / "page.md").write_text(f"# Page\n\n{text}\n", "utf-8")
        warned, out = io.StringIO(), tmp_path / "out"
        config = {"extensions": ["myst_nb", "verdicts"], "html_theme": "basic"}
        app = Sphinx(
            tmp_path, None, out, out / ".doctrees", "html", config, status=None, warning=warned
        )
        app.build()
        return (out / "book/wing/page.html").read_text(encoding="utf-8"), warned.getvalue()

    return build


def test_the_page_shows_the_verdict_and_leads_to_the_rows(site):
    page, warned = site("So it is. {claim}`noise-used-to-grow`\n\n{claims}`mechanics/scaling`")
    assert "page.md" not in warned
    badge = (
        '<a class="bn-verdict bn-holds reference internal" href="../claims.html#claim-noise-grows">'
        '<span aria-hidden="true">✓</span> holds</a>'
    )
    assert badge in page
    words = f"All {len(VERDICTS)} claims of this chapter, with their evidence"
    assert f'href="../claims.html#claims-of-mechanics-scaling">{words}</a>' in page


def test_one_claim_alone_is_not_called_all(site, monkeypatch):
    monkeypatch.setattr(verdicts, "of_chapter", lambda name: (1, "book/claims.html#claims-of-a-b"))
    page, _ = site("{claims}`a/b`")
    assert ">The claim of this chapter, with its evidence</a>" in page


@pytest.mark.parametrize("role", ["{claim}`noise-grow`", "{claims}`mechanics/scale`"])
def test_what_is_not_in_the_ledger_is_a_complaint_with_its_place(site, role):
    _, warned = site(role)
    assert re.search(r"page.md:3: WARNING: claims?: there is no c\w+ '", warned)
