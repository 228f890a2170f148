"""Counting words, lines and columns of a page."""

import counted
import pytest
from hypothesis import given
from hypothesis import strategies as st

WORDS = st.lists(st.sampled_from(["mean", "x̂", "0.5", "state-of-the-art", "don’t"]), max_size=20)


def page(inside):
    return counted.article(f"<html><body><nav>Away</nav><article>{inside}</article></body></html>")


@given(WORDS, WORDS)
def test_words_are_counted_in_running_text(some, more):
    text = f"<p>{' '.join(some)}.</p>\n<ul><li>{', '.join(more)}</li></ul>"
    assert counted.words(page(text)) == len(some) + len(more)


@pytest.mark.parametrize(
    ("html", "count"),
    [
        ('<p>Take <span class="math">\\(a + b\\)</span>, then stop.</p>', 4),
        ('<p>The <span class="math">\\(i\\)</span>s.</p>', 2),
        ('<p>A (<em>very</em>) <strong>bold</strong>-faced word — so.</p>', 5),
        ("<p><em>state</em>-<em>of</em> the art</p>", 3),
        ('<div class="math">\\[a = b + c\\]</div>', 1),
        ("<p>code <code>np.var</code></p><pre>import numpy as np</pre>", 2),
        ('<h2>Head<a class="headerlink">Link</a></h2>', 1),
        ('<div class="bn-frame"><p>no</p></div><div class="bn-rows"><p>no</p></div>', 0),
        ('<div class="cell"><div class="cell_input"><p>no</p></div></div>', 0),
        ('<figure><div class="bn-controls">rate</div><figcaption>Two words</figcaption></figure>', 2),
        ('<div class="bn-source"><pre>x = 1</pre><p>Full source</p></div>', 0),
        ('<div class="bn-ledger"><table><tr><td>no</td></tr></table></div>', 0),
        ('<details class="admonition hide"><summary>Show code</summary></details>', 0),
        ("<table><tr><td>one</td><td>two</td></tr></table>", 2),
    ],
)  # fmt: skip
def test_what_is_no_prose_is_no_word_and_a_formula_is_one(html, count):
    assert counted.words(page(html)) == count


def test_the_answer_in_short_is_counted_without_question_and_time():
    html = """<section id="in-short"><h2>In short</h2><p><strong>What is it?</strong></p>
    <p>It is <strong>this</strong>.</p><ul><li>One point</li></ul><div class="cell">no</div>
    <p><em>What to know first</em>: nothing. <em>Reading time</em>: an hour</p></section>"""
    whole = page(html)
    assert [counted.in_short(whole), counted.in_short(whole)] == [5, 5]
    statement = "<p><strong>This</strong> is no question.</p>"
    assert counted.in_short(page(f'<section id="in-short"><h2>In</h2>{statement}</section>')) == 4
    assert counted.in_short(page("<p>Nothing of the kind</p>")) == 0


SECTIONS = """<section id="s"><p>one two</p>
<details class="bn-fold"><summary>three</summary>
  <details class="sd-dropdown"><summary>four</summary><p>five</p></details></details>
<section id="exercises"><p>a b</p><details class="bn-fold"><p>c</p></details></section>
<div class="exercise"><p>d</p></div><div class="solution"><p>e</p></div>
<section id="claims"><p>f</p></section><section id="where-it-comes-from"><p>g</p></section></section>"""


def test_main_line_and_folds_share_the_page_without_exercises_claims_and_sources():
    assert counted.main_line(page(SECTIONS)) == 2
    assert counted.folded(page(SECTIONS)) == 3


CELLS = """<div class="cell_input"><pre>x = 1

def f():
    '''A caption
    of two lines.'''
    return "wide enough"
</pre></div><div class="bn-source"><pre>return 1</pre></div><pre>not = True, "code of a cell" * 10</pre>
<div class="cell_output"><pre>True, it is
loss 0.1
it is False
Falsely</pre></div>"""


def test_lines_are_counted_without_captions_and_empty_ones():
    assert counted.code(page(CELLS))[1] == "return 1"
    assert counted.longest(page(CELLS)) == 3
    assert counted.widest(page(CELLS)) == len('    return "wide enough"')
    assert counted.truths(page(CELLS)) == 2
    assert counted.length("%pip install x\n'''no docstring'''") == 2
    assert counted.longest(page("")) == counted.widest(page("")) == 0
