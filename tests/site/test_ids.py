"""What a reader may have linked to is still there, or leads on to where it is."""

import re

import forwards
import pytest
from built import SITE
from ids import LIST, held, of_site

OLD = LIST.read_text(encoding="utf-8").split()
"""Every id of the site as it was before forwards; what is added since may be added here."""


@pytest.fixture(scope="module")
def now():
    return set(of_site(SITE))


def dead(old, now, table):
    """The old addresses that lead nowhere."""
    found = []
    for address in old:
        target = address
        for _ in range(5):  # what has moved may move again
            if target is None or target in now:
                break
            target = forwards.forwarded(target, table)
        if target not in now:
            found.append(address)
    return found


def test_every_id_is_on_its_page_or_forwarded(now):
    assert len(OLD) > 1400
    assert dead(OLD, now, forwards.read()) == []


def test_a_forward_begins_on_a_page_that_is_there_and_ends_at_an_id(now):
    for old, new in forwards.read().items():
        assert (SITE / old.partition("#")[0]).is_file(), old
        if new.endswith("*"):
            assert any(address.startswith(new[:-1]) for address in now), new
        else:
            assert new in now, new


def test_a_dead_id_is_seen():
    now = {"a.html#x", "b.html#y", "c.html#pre.z"}
    table = {"a.html#y": "b.html#y", "b.html#pre*": "c.html#pre*", "a.html#pre*": "b.html#pre*"}
    assert dead(["a.html#x", "a.html#y", "a.html#pre.z"], now, table) == []
    gone = ["a.html#z", "a.html#pre.gone", "b.html#x", "d.html#x"]
    assert dead(gone, now, table) == gone


@pytest.mark.parametrize("mark", ["MJX-1", "id3", "book/a-solution-3", "pst-search-dialog"])
def test_ids_of_the_build_are_not_listed(mark):
    html = (
        f'<p id="out"><article><h1 id="in"><p id="{mark}"><input id="size"><p id="in"></article>'
        '<p id="out">'
    )
    assert held(html) == ["in"]


@pytest.mark.parametrize("old", [a for a in forwards.read() if not a.endswith("*")][::9])
def test_the_script_leads_on(old, visit):
    tab = visit(old)
    new = forwards.read()[old]
    tab.wait_for_url(f"**/{re.sub(r'^.*/', '', new)}")
    tab.wait_for_load_state("networkidle")
    # What the page that is left had asked for is not waited for.
    assert [found for found in tab.complaints if not found.startswith("failed:")] == []
    assert tab.evaluate("() => !!document.getElementById(location.hash.slice(1))")
