"""Where addresses that have moved lead: the table, and a page's part of it."""

import re

import forwards
import pytest

TABLE = {
    "book/api.html#scaling": "book/api/mechanics.html#scaling",
    "book/api.html#bncore.lab.*": "book/api/lab.html#bncore.lab.*",
    "book/api.html#bncore.lab.old*": "book/api/lab.html#bncore.lab.new*",
    "book/api.html#bncore.lab.data": "book/intro.html#data",
    "book/a/b.html#x": "book/a/c.html#y",
}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("book/api.html#scaling", "book/api/mechanics.html#scaling"),
        ("book/api.html#bncore.lab.x.y", "book/api/lab.html#bncore.lab.x.y"),
        ("book/api.html#bncore.lab.older", "book/api/lab.html#bncore.lab.newer"),
        ("book/api.html#bncore.lab.data", "book/intro.html#data"),
        ("book/api.html#bncore.lab.database", "book/api/lab.html#bncore.lab.database"),
        ("book/api.html#scaling.more", None),
        ("book/a/b.html#bncore.lab.x", None),
    ],
)
def test_an_address_leads_where_the_closest_entry_says(old, new):
    assert forwards.forwarded(old, TABLE) == new


def test_a_page_carries_its_part_as_seen_from_it():
    assert forwards.of_page("book/a/b.html", TABLE) == {"x": "c.html#y"}
    assert forwards.of_page("book/intro.html", TABLE) == {}
    assert forwards.of_page("book/api.html", TABLE) == {
        "scaling": "api/mechanics.html#scaling",
        "bncore.lab.*": "api/lab.html#bncore.lab.*",
        "bncore.lab.old*": "api/lab.html#bncore.lab.new*",
        "bncore.lab.data": "intro.html#data",
    }


def test_both_sides_of_the_book_s_table_are_addresses_and_end_alike():
    for old, new in forwards.read().items():
        for address in (old, new):
            assert re.fullmatch(r"book/[\w/]+\.html#\S+", address), address
        assert old.endswith("*") == new.endswith("*"), old
