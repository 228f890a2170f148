"""What directives and roles become, with the values that the site shows."""

from types import SimpleNamespace

import pytest
import source
import verdicts
from edition import derive, links
from edition.directives import HANDLERS
from edition.resolved import CannotDerive, Page

from .conftest import notebook

SITE = "https://some-one.github.io/the-book/book/"
FIRST = SITE + "wing/first.html"
SECOND = SITE + "second.html"
BIBLIOGRAPHY = SITE + "bibliography.html"


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """A ledger of one claim."""
    one = SimpleNamespace(id="one", aliases=(), verdict="holds", chapter="mechanics/forward")
    monkeypatch.setattr(verdicts, "_registry", lambda: {"one": one})


@pytest.mark.parametrize(
    ("markdown", "written"),
    [
        ("{prf:ref}`thm-first`", f"[Theorem 1.1]({FIRST}#thm-first)"),
        ("{prf:ref}`thm-second`", f"[Theorem 2.2]({SECOND}#thm-second)"),
        ("{prf:ref}`words <thm-second>`", f"[words]({SECOND}#thm-second)"),
        ("{ref}`ex-second`", f"[Exercise 2.1]({SECOND}#ex-second)"),
        ("{numref}`fig-second`", f"[Fig. 2.1]({SECOND}#fig-second)"),
        ("{claim}`one`", f"[✓ holds]({SITE}claims.html#claim-one)"),
        ("{eq}`eq-second`", f"[(2.1)]({SECOND}#equation-eq-second)"),
        ("{ref}`first-end`", rf"[The end of x\_1]({FIRST}#first-end)"),
        ("{ref}`there <first-end>`", f"[there]({FIRST}#first-end)"),
        ("{doc}`../second`", f"[Second]({SECOND})"),
        ("{doc}`the *next* <../second>`", rf"[the \*next\*]({SECOND})"),
        ("[of $m$ `c`](../second.ipynb)", f"[of $m$ `c`]({SECOND})"),
        ("[x](first-end)", f"[x]({FIRST}#first-end)"),
        ("[x](https://a.org/b_c)", "[x](https://a.org/b_c)"),
        ("{cite:t}`lone`", f"[Lone (1990)]({BIBLIOGRAPHY}#cite-lone)"),
        ("{cite}`lone`", f"([Lone, 1990]({BIBLIOGRAPHY}#cite-lone))"),
        (
            "{cite:p}`pair, many`",
            f"([Lone and Mate, 1991]({BIBLIOGRAPHY}#cite-pair); "
            f"[Lone et al., 1992]({BIBLIOGRAPHY}#cite-many))",
        ),
        (
            "{cite:t}`pair, many`",
            f"[Lone and Mate (1991)]({BIBLIOGRAPHY}#cite-pair), "
            f"[Lone et al. (1992)]({BIBLIOGRAPHY}#cite-many)",
        ),
        ("H{sub}`2`O {kbd}`a|b` {abbr}`x (y)`", "H<sub>2</sub>O `a|b` x"),
        ("`{ref}` and `` {cite}`k` ``", "`{ref}` and `` {cite}`k` ``"),
        ("| {ref}`ex-second` |\n|---|\n| $a$ {prf:ref}`thm-first` |",
         f"| [Exercise 2.1]({SECOND}#ex-second) |\n|---|\n| $a$ [Theorem 1.1]({FIRST}#thm-first) |"),
        ("- a\n  {ref}`ex-second`", f"- a\n  [Exercise 2.1]({SECOND}#ex-second)"),
        ("![A dot](dot.png)", "![A dot](pictures/dot.png)"),
    ],
)  # fmt: skip
def test_roles_and_links_are_resolved(text, markdown, written):
    assert text(markdown) == written


STATEMENT = f"""\
> **Theorem 1.1 (A $t$).**
>
> It is
>
> $$\\begin{{aligned}} a &= b \\\\ &> c \\end{{aligned}}$$
>
> and $d e$,
>
> - $$f$$
> - [Exercise 2.1]({SECOND}#ex-second)"""
CASES = {
    "statement": (
        "````{prf:theorem} A $t$\n:label: thm-first\n\nIt is\n\n$$\n\\begin{aligned}\na &= b \\\\ % so\n"
        "&> c\n\\end{aligned}\n$$\n\nand $d\ne$,\n\n- $$\n  f\n  $$\n- {ref}`ex-second`\n````",
        STATEMENT,
    ),
    "statement without a number": (
        "```{prf:remark}\n:nonumber:\n\nA.\n```",
        "> **Remark.**\n>\n> A.",
    ),
    "proof": (
        "Before.\n```{prf:proof}\n1. One.\n\n$$\na\nb\n$$\n```\nAfter.",
        "Before.\n\n*Proof.*\n\n1. One.\n\n$$\na\nb\n$$\n\n∎\n\nAfter.",
    ),
    "folded proof": (
        "```{prf:proof}\n:class: dropdown\nSo.\n```",
        "<details>\n<summary>Proof</summary>\n\nSo.\n\n∎\n\n</details>",
    ),
    "included code": (
        "```{literalinclude} ../code.py\n:pyobject: twice\n```",
        '```python\ndef twice(x):\n    """Twice x."""\n\n    return 2 * x\n```',
    ),
    "lines of included code": (
        "```{literalinclude} ../code.py\n:start-at: return\n:end-before: last\n:dedent: 4\n```",
        "```python\nreturn 2 * x\n```",
    ),
    "code": ("````{code-block} sh\n:caption: A *b*\nls ```\n````", "A *b*\n\n````sh\nls ```\n````"),
    "plain fence": ("```python\n{ref}`x` $ (a)=\n```", "```python\n{ref}`x` $ (a)=\n```"),
    "note": ("```{note}\nA.\n```", "> **Note**\n>\n> A."),
    "admonition": ("```{admonition} A $t$\nB\n```", "> **A $t$**\n>\n> B"),
    "colons": (":::{tip}\nB\n:::", "> **Tip**\n>\n> B"),
    "folded admonition": (
        "```{admonition} A\n:class: dropdown\nB\n```",
        "<details>\n<summary>A</summary>\n\nB\n\n</details>",
    ),
    "dropdown": (
        "````{dropdown} More\n```{literalinclude} ../code.py\n:lines: 10\n```\n````",
        "<details>\n<summary>More</summary>\n\n```python\nlast = twice(1)\n```\n\n</details>",
    ),
    "tabs": (
        "````{tab-set}\n```{tab-item} One\nA\n```\n```{tab-item} Two\nB\n```\n````",
        "**One**\n\nA\n\n**Two**\n\nB",
    ),
    "figure": (
        "```{figure} ../dot.png\n:name: fig-second\n:alt: A dot\n\nThe *dot*.\n```",
        "![A dot](pictures/../dot.png)\n\n**Fig. 2.1** The *dot*.",
    ),
    "labelled formula": ("$$\na\n$$ (eq-second)", "$$a \\tag{2.1}$$"),
    "formula": ("```{math}\n:label: eq-second\na\nb\n```", "$$a b \\tag{2.1}$$"),
    "targets and comments": ("(a)=\n## B\n% so\n\n+++\n\nC", "## B\n\n\nC"),
    "on the line of a list": (
        "1. ```{tip}\n   A\n   ```\n2. b",
        "1. > **Tip**\n   >\n   > A\n\n2. b",
    ),
    "in a quotation": ("> a\n>\n> $$\n> b\n> c\n> $$", "> a\n>\n> $$b c$$"),
    "an environment in a quotation": (
        "```{note}\n\\begin{align}\na\nb\n\\end{align}\n```",
        "> **Note**\n>\n> \\begin{align} a b \\end{align}",
    ),
    "inside a list": (
        "- a\n\n  ```{note}\n  B {ref}`ex-second`\n  ```\n",
        f"- a\n\n  > **Note**\n  >\n  > B [Exercise 2.1]({SECOND}#ex-second)",
    ),
}  # fmt: skip


def test_shown_source_is_that_of_the_site_with_a_link_to_all_of_it(app, text):
    code, target = source.shown("bncore.mechanics.textbook.batch_axes")
    markdown = "```{source} bncore.mechanics.textbook.batch_axes\n```"
    fence = f"```python\n{code}```"
    link = f"[Full source of textbook.batch\\_axes]({SITE.removesuffix('book/')}{target})"
    assert text(markdown) == f"{fence}\n\n{link}"
    page = Page(app, "book/second", links.to_neighbours(app))
    assert derive.edition(notebook(markdown), page, None).cells[0].source == fence


@pytest.mark.parametrize("name", CASES)
def test_directives_become_plain_markdown(text, name):
    markdown, written = CASES[name]
    assert text(markdown) == written


@pytest.mark.parametrize(
    ("markdown", "what"),
    [
        ("a\n\nb {nope}`x`", "line 3: .*nope"),
        ("```{nope}\n```", r"line 1: unknown directive \{nope\}"),
        ("```{sidebar} A\nB\n```", r"line 1: directive \{sidebar\} has no edition"),
        ("````{note}\n\na\n\n```{nope}\n```\n````", r"line 5: unknown directive \{nope\}"),
        ("- a\n- b [^n]", r"line 2: footnote \[\^n\]"),
        ("a [^n]\n\n[^n]: b", "line 1: footnote"),
        ("{ref}`nope`", "line 1: .*nope"),
        ("{prf:ref}`nope`", "line 1: .*nope"),
        ("{doc}`nope`", "line 1: .*nope"),
        ("{numref}`nope`", "line 1: .*nope"),
        ("{eq}`nope`", "line 1: .*nope"),
        ("{cite}`nope`", "line 1: .*nope"),
        ("{cite}`{see}lone`", "line 1: citation"),
        ("[a](nope.ipynb)", "line 1: .*nope"),
        ("[a](nope)", "line 1: .*nope"),
        ("Term\n: Meaning", "line 1: .*list of definitions"),
        ("```{prf:theorem} A\nB\n```", "line 1: .*'A' has no label"),
        ("```{exercise} A\nB\n```", "line 1: .*'A' has no label"),
        ("```{prf:theorem} A\n:nope: x\nB\n```", "line 1: .*nope"),
        ("```{literalinclude} nope.py\n```", "line 1: .*nope.py"),
        ("```{source} bncore.mechanics.nope\n```", "line 1: .*bncore.mechanics defines no nope"),
        ("```{literalinclude} ../code.py\n:pyobject: nope\n```", "line 1: .*nope"),
        ("```{solution-start} ex-second\n```", "line 1: .*'ex-second' stands before its exercise"),
        ("{claim}`nope`", "line 1: .*no claim 'nope'"),
        ("```{table} A\n| a |\n|---|\n| b |\n```", "line 1: .*'A' has a title"),
        ("{{ nope }}", "line 1: .*nope"),
    ],
)
def test_what_has_no_edition_is_an_error_with_its_place(text, markdown, what):
    with pytest.raises(CannotDerive, match=rf"(?s)^book/wing/first\.ipynb, cell 0, {what}"):
        text(markdown)


def test_a_table_of_cards_is_a_table(text):
    table = "| a | b |\n|---|---|\n| c {prf:ref}`thm-first` | d |"
    assert text(f"```{{table}}\n:class: bn-cards\n\n{table}\n```").strip() == text(table).strip()


def test_the_place_is_the_page_the_cell_and_the_line(derive):
    with pytest.raises(CannotDerive, match=r"^book/wing/first.ipynb, cell 1, line 4: .*nope"):
        derive("a", "b\n\n```{note}\n{ref}`nope`\n```")


def test_every_directive_in_the_table_is_known_to_sphinx(app):
    page = Page(app, "book/second", None)
    assert all(page.directive(name) for name in HANDLERS)
