"""The reference of the package: its tables name what its pages describe, and lead there."""

import re

import pytest
from built import SITE, pages

OBJECT = r'<dl class="py (?:function|class|exception)">\s*<dt class="[^"]*" id="(bncore\.[\w.]+)"'


@pytest.mark.parametrize("page", pages("book/api/*.html"))
def test_the_table_names_each_function_and_class_of_the_page(page):
    html = (SITE / page).read_text(encoding="utf-8")
    table = re.search(r'<table class="bn-summary-of-api.*?</table>', html, re.DOTALL)[0]
    modules = re.findall(r'href="#module-(bncore[\w.]*)"', table)
    named = re.findall(r'href="#(bncore[\w.]*)"', table)
    assert modules == list(dict.fromkeys(modules))
    assert set(modules) == set(re.findall(r'id="module-(bncore[\w.]*)"', html))
    assert sorted(named) == sorted(re.findall(OBJECT, html))
