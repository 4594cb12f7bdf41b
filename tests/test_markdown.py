"""Names and texts in Markdown: what a page makes of them is the text itself, and nothing is fetched."""

import re

import pytest
from markdown_it import MarkdownIt

from siri.markdown import code, plain

ATTACKS = (
    "[click](javascript:alert(1))",
    "![](http://192.0.2.1/seen.png)",
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "a | b",
    "**bold** _slanted_ ~~gone~~",
    "`` ` `` ```",
    "# head\n\n- list",
    "[a]: http://192.0.2.1/",
    "&lt;b&gt; &copy; \\[a\\](b)",
    "laptop_seed_1*2*3",
    "\x1b]0;title\x07 \u202etxt",
)
"""What a recipe's, a run's, a file's or a model's name, or a claim of a sweep, may hold."""


def text_of(html: str) -> str:
    """What a reader sees of a paragraph or a row of HTML without any other element."""
    from html import unescape

    return unescape(re.sub(r"</?(?:p|table|thead|tbody|tr|th|td|code)>", "", html)).strip()


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_text_is_shown_letter_by_letter(attack: str) -> None:
    from siri.terminal import one_line

    page = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    shown = page.render(f"x {plain(attack)} x")
    assert re.findall(r"<(\w+)", shown) == ["p"]
    assert text_of(shown) == " ".join(f"x {one_line(attack)} x".split(" ")).strip()
    row = page.render(f"| a |\n| --- |\n| {plain(attack)} |")
    assert set(re.findall(r"<(\w+)", row)) == {"table", "thead", "tbody", "tr", "th", "td"}
    assert row.count("<td") == 1


@pytest.mark.parametrize("attack", ATTACKS)
def test_code_ends_where_it_should(attack: str) -> None:
    shown = MarkdownIt("commonmark", {"html": True}).render(f"x {code(attack)} x")
    assert re.findall(r"<(\w+)", shown) == ["p", "code"]
