r"""What changes how an answer looks and never what it is: fonts, spaces, signs of Unicode, dollars, sizes, colours."""

import re
import unicodedata

_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ"
_SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉₊₋ₙ"
_PLAIN_SCRIPTS = "0123456789+-n"
_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon phi"
_SIGNS = {
    "√": r"\sqrt ",
    "∛": r"\sqrt[3]",
    "×": r"\times ",
    "⋅": r"\cdot ",
    "·": r"\cdot ",
    "∙": r"\cdot ",
    "÷": r"\div ",
    "−": "-",
    "–": "-",
    "∞": r"\infty ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∖": r"\setminus ",
    "∈": r"\in ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "≡": r"\equiv ",
    "±": r"\pm ",
    "∓": r"\mp ",
    "°": r"^\circ ",
    "∠": r"\angle ",
    "∅": r"\emptyset ",
    "ℝ": r"\mathbb{R}",
    "⟨": r"\langle ",
    "⟩": r"\rangle ",
    "⌊": r"\lfloor ",
    "⌋": r"\rfloor ",
    "⌈": r"\lceil ",
    "⌉": r"\rceil ",
    "…": r"\ldots ",
    "′": "'",
    "’": "'",
    "″": "''",
}


def _letters() -> dict[str, str]:
    found = {}
    for name in [*_GREEK.split(), "chi", "psi", "omega"]:
        for word, command in ((f"SMALL LETTER {name}", name), (f"CAPITAL LETTER {name}", name.capitalize())):
            word = word.upper().replace("LAMBDA", "LAMDA")
            found[unicodedata.lookup(f"GREEK {word}")] = rf"\{command} "
    return found


_MAP = str.maketrans(_SIGNS | _letters())
_SCRIPTS = tuple(
    (re.compile(f"[{re.escape(run)}]+"), mark, str.maketrans(run, _PLAIN_SCRIPTS))
    for run, mark in ((_SUPERSCRIPTS, "^"), (_SUBSCRIPTS, "_"))
)
_VULGAR = re.compile("[¼½¾⅐-⅞]")

_STEPS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), put)
    for pattern, put in (
        (r"\\\\\s*\[[^\]]*\]", r"\\\\ "),
        (r"(?<!\\)\$|(?<!\\)\\[()\[\]]|^\s*\*\*(?=.*\*\*)|\*\*\s*$", ""),
        (r"\\(?:left|middle|right|[bB]igg?[lrm]?)(?![A-Za-z])\s*(?:\.(?!\d))?", ""),
        (
            r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|tiny|small|normalsize|large|Large|LARGE|huge|Huge"
            r"|bf|rm|it|centering|therefore|strut|leavevmode)(?![A-Za-z])",
            " ",
        ),
        (r"\\(?:hspace|vspace|hskip|phantom|label|tag|color|hphantom)\*?\s*\{[^{}]*\}", " "),
        (r"\\(?:over|under|stack)(?:set|rel)\s*\{[^{}]*\}\s*\{([^{}]*)\}", r"\1"),
        (r"\\[hv]?phantom(?![A-Za-z])\s*\\?.", ""),
        (r"\\(?:textcolor|colorbox)\s*\{[^{}]*\}", ""),
        (r"(?<=\d)\s*,\s*\\!\s*(?=\d{3})|(?<=\d)\{,\}(?=\d{3})|(?<=\d)\{,\}\s*(?=\d{3})", ""),
        (r"\\!", ""),
        (r"(?<=\d)\\(?:[,;: ]|thinspace)\s*(?=\d{3}(?!\d))|(?<=\d)~(?=\d{3}(?!\d))", ""),
        (r"(?<!\\)\\[,;:> ]|\\q?quad(?![A-Za-z])|\\(?:thinspace|enspace)(?![A-Za-z])|~|\xa0", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
        (r"\\(?:mathbf|bf)\s*\{R\}", r"\\mathbb{R}"),
        (r"(?:\{\})?[_^]\s*\{?(\d+)\}?\s*C\s*_\s*\{?(\d+)\}?", r"\\binom{\1}{\2}"),
        (r"(?<=\d)\s*\^\s*(?:\{\s*o\s*\}|o(?![a-zA-Z]))", r"^\\circ "),
        (r"(?<=\S)\s*\\(?:blacksquare|square|checkmark|qed|Box|star)\s*$", ""),
        (
            r"\\(?:mathbf|boldsymbol|bm|mathit|mathsf|mathcal|mathtt|emph|mathnormal|pmb|underline|boxed|fbox|mathop|ensuremath)"
            r"(?![A-Za-z])",
            "",
        ),
        (r"\\(?:le|leq|leqslant|leqq)(?![A-Za-z])|<=", r"\\le "),
        (r"\\(?:ge|geq|geqslant|geqq)(?![A-Za-z])|>=", r"\\ge "),
        (r"\\neq?(?![A-Za-z])|\\not\s*=|!=", r"\\ne "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\(?:approx|simeq|doteq)(?![A-Za-z])", r"\\approx "),
        (r"\\(?:degree|textdegree)(?![A-Za-z])|\^\s*(?:\{\s*\\circ\s*\}|\\circ)", r"^\\circ "),
        (r"\\(?:dots|cdots|dotsc|dotsb)(?![A-Za-z])|\.\.\.", r"\\ldots "),
        (r"\\(?:varnothing)(?![A-Za-z])", r"\\emptyset "),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\[lr]?vert(?![A-Za-z])|\\mid(?![A-Za-z])", "|"),
        (r"\\(?:text|mathrm|textbf)\{\s*\\\$\s*\}", r"\\$"),
        (r"\\(?:dollar|textdollar)(?![A-Za-z])", r"\\$"),
        (
            r"\\frac\s*\{\\(?:text|mathrm)\{\s*(\w+)\s*\}\}\s*\{\\(?:text|mathrm)\{\s*(\w+)\s*\}\}",
            r"\\text{\1/\2}",
        ),
        (r"(?:\\math(?:bin|rel|ord|punct))?(?<![\^_])\{\s*([:=<>+-])\s*\}", r"\1"),
        (r"\^\s*(?:\{\s*\\prime\s*\}|\\prime)", "'"),
        (r"\^\s*\{\s*\\prime\s*\\prime\s*\}|\"", "''"),
        (r"(?<=\d)\s*\\(?:mathrm|text)\{\s*[eE]\s*\}\s*(?=[+-]?\d)", "e"),
        (r"\\overline\s*\{\s*([A-Z]{2})\s*\}", r"\1"),
        (r"\*\*", "^"),
    )
)
_GROUPS_OF_THREE = re.compile(r"(?<![\d.,^_{\\])\d{1,3}(?: \d{3})+(?![\d.]| \d)")
_ROWS = re.compile(r"\\begin\{(cases|aligned|align\*?|gathered)\}((?:(?!\\begin).)*?)\\end\{\1\}", re.DOTALL)
_CONDITION = re.compile(r"\\text\{\s*(?:if|for|when)\s*\}|\b(?:if|for|when)\b")
_SPACES = re.compile(r"\s+")


def tidy(text: str) -> str:
    """The answer as plain LaTeX on one line, without what is presentation; text and units keep their commands."""
    if not text.isascii():
        text = _to_ascii(text)
    if r"\begin" in text:
        text = _ROWS.sub(_rows, text)
    for pattern, put in _STEPS:
        text = pattern.sub(put, text)
    text = _SPACES.sub(" ", text).strip()
    while text[-1:] in (".", ",", ";", ":") and not text.endswith(("\\,", "\\;", "\\:")):
        text = text[:-1].rstrip()
    text = _without_outer_braces(text)
    return _GROUPS_OF_THREE.sub(lambda found: found[0].replace(" ", ""), text)


def _rows(found: re.Match[str]) -> str:
    r"""Rows as a list; those of a function by cases as a set of pairs, `\{(x, x > 0), (-x, x < 0)\}`."""
    rows = [[cell.strip(" ,;.") for cell in row.split("&")] for row in found[2].split(r"\\") if row.strip()]
    if found[1] == "cases" and all(len(row) == 2 and all(row) and row[1][0] not in "=<>" for row in rows):
        pairs = (f"({value}, {_CONDITION.sub(' ', condition)})" for value, condition in rows)
        return rf"\{{{', '.join(pairs)}\}}"
    return found[2].replace("&", " ").replace(r"\\", ", ")


def _without_outer_braces(text: str) -> str:
    r"""`{42}` as `42`; the braces of `{8 \choose 4}` are its own."""
    while text.startswith("{") and text.endswith("}") and r"\choose" not in text and r"\over" not in text:
        depth = 0
        for at, letter in enumerate(text):
            depth += (letter == "{") - (letter == "}")
            if depth == 0 and at < len(text) - 1:
                return text
        if depth:
            return text
        text = text[1:-1].strip()
    return text


def _to_ascii(text: str) -> str:
    """Signs of Unicode as LaTeX; ² is a power and ½ a fraction, which NFKC would forget."""
    for pattern, mark, table in _SCRIPTS:
        text = pattern.sub(rf"{mark}{{\g<0>}}", text).translate(table)
    text = _VULGAR.sub(lambda found: _fraction(found[0]), text)
    return unicodedata.normalize("NFKC", text.translate(_MAP)).translate(_MAP)


def _fraction(sign: str) -> str:
    top, _, bottom = unicodedata.normalize("NFKC", sign).partition("\N{FRACTION SLASH}")
    return rf"\frac{{{top}}}{{{bottom}}}"
