"""Names and texts in the Markdown of pages: shown as they are; a link or a picture would ask other hosts."""

import re

from siri.terminal import one_line

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
"""MLflow's pages take no backslash before these."""
_MARKS = re.compile(r"([\\`*_{}\[\]|#!~])")


def plain(text: str) -> str:
    """A text on one line, as Markdown that shows it letter by letter, in a table too."""
    marked = _MARKS.sub(r"\\\1", one_line(text))
    return re.sub("[&<>]", lambda found: _ENTITIES[found[0]], marked)


def code(text: str) -> str:
    """A text on one line as code; a backtick, which would end that, becomes an apostrophe."""
    return f"`{one_line(text).replace('`', chr(39)).strip()}`"
