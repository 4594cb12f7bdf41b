r"""From tidy LaTeX to tokens: numbers, symbols, words, commands, signs."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from siri.problems.grading.units import UNIT_WORDS
from siri.problems.grading.vocabulary import words_of

Kind = Literal["number", "repeating", "symbol", "word", "command", "sign"]

Commas = Literal["thousands", "lists"]
"""What the comma of `1,234` outside brackets does: it groups the digits of one number, or separates two."""

MOST_TOKENS = 400


class UnreadableError(Exception):
    """The answer is written in a way that this reader does not know: another one may."""


class MalformedError(UnreadableError):
    """The answer cannot mean anything that would be right, such as two numbers side by side."""


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of an answer."""

    kind: Kind
    text: str
    spaced: bool = False
    """White space stood before it."""


_TEXT = words_of("text textbf textrm textit textsf texttt textnormal mbox hbox mathrm operatorname rm")
FUNCTIONS = words_of(
    "sqrt sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan arccot ln log lg exp abs gcd lcm max min"
)
_ALSO_WORDS = words_of("sec abs inf pi max min")
_NAMES = FUNCTIONS | {"pi", "inf", "infty", "infinity", "oo"}
_SHORT_WORDS = words_of("or and mod no am pm in is of an the it on at so we he")
_DIGITS = r"\d{1,3}(?:,\d{3})+(?![\d]|,\d)(?:\.\d+)?"
_NUMBER = r"(?:\d+\.\d+|\d+\.(?!\s*[A-Za-z\\]|\.)|\.\d+|\d+)(?:[eE][+-]?\d{1,3}(?![\dA-Za-z]))?"
_REPEATING = (
    r"\d*\.\d*\(\d+\)|\d*\.\d*(?:\\(?:overline|bar|dot)\s*\{\d+\}|\\dot\s*\d)"
    r"|\d*\.\d*(?P<period>\d+?)(?P=period){2,}\s*\\ldots"
)
_REST = r"\\[A-Za-z]+|\\.|[A-Za-z]+|\s+|."
_PLAIN = re.compile(rf"(?P<repeating>{_REPEATING})|(?P<number>{_NUMBER})|(?P<rest>{_REST})", re.DOTALL)
_GROUPED = re.compile(rf"(?P<repeating>{_REPEATING})|(?P<number>{_DIGITS}|{_NUMBER})|(?P<rest>{_REST})", re.DOTALL)
_TEXT_OPENS = "{text"
_OPEN, _CLOSE = frozenset(["(", "[", r"\{"]), frozenset([")", "]", r"\}"])


BRACKETS = {"(": ")", "[": ")", r"\{": r"\}", r"\langle": r"\rangle", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
CLOSERS = frozenset([")", "]", r"\}", r"\rangle", r"\rfloor", r"\rceil", "}"])
"""Opening bracket -> the closing one; and all that close."""


def tokenize(text: str, commas: Commas) -> list[Token]:
    """The tokens of tidy LaTeX. Raises UnreadableError."""
    tokens: list[Token] = []
    place, depth, spaced, words_until = 0, 0, False, -1
    while place < len(text):
        found = (_GROUPED if commas == "thousands" and depth == 0 else _PLAIN).match(text, place)
        assert found is not None
        piece, place = found[0], found.end()
        if place > words_until:
            words_until = -1
        if piece.isspace():
            spaced = True
            continue
        if piece[0] == "\\" and piece[1:] in _TEXT:
            words_until = _end_of_group(text, place)
            tokens.append(Token("sign", _TEXT_OPENS, spaced))
            place = text.index("{", place) + 1 if words_until > 0 else place
        else:
            depth += (piece in _OPEN) - (piece in _CLOSE)
            tokens += _pieces(piece, found.lastgroup or "rest", spaced, place <= words_until, text, place)
        spaced = False
        if len(tokens) > MOST_TOKENS:
            raise UnreadableError("too long")
    return _without_braces_around_words(tokens)


def _end_of_group(text: str, place: int) -> int:
    r"""Where the group that a \text command reads ends; -1 when none begins here."""
    match = re.compile(r"\s*\{").match(text, place)
    if match is None:
        raise UnreadableError("a text command without text")
    depth, at = 0, match.end() - 1
    while at < len(text):
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return at
        at += 1
    raise UnreadableError("an open brace")


def _pieces(piece: str, group: str, spaced: bool, in_text: bool, text: str, place: int) -> list[Token]:
    if group == "repeating":
        return [Token("repeating", piece, spaced)]
    if group == "number":
        return [Token("number", piece.replace(",", ""), spaced)]
    if piece[0] == "\\":
        return [Token("command" if piece[1:].isalpha() else "sign", piece, spaced)]
    if not piece[0].isalpha():
        return [Token("sign", piece, spaced)]
    if in_text:
        called = piece in _NAMES and piece not in _ALSO_WORDS
        return [Token("command", "\\" + piece, spaced) if called else Token("word", piece, spaced)]
    return _letters(piece, spaced, text, place)


def _letters(run: str, spaced: bool, text: str, place: int) -> list[Token]:
    """A run of letters in formulas: a function, a word in plain English, or symbols side by side."""
    lowered = run.lower()
    if run in _NAMES:
        return [Token("command", "\\" + run, spaced)]
    before = text[place - len(run) - 1 : place - len(run)]
    after = text[place : place + 1]
    alone = (not before or before in " ,;(.}$%" or (before.isdigit() and lowered in UNIT_WORDS)) and (
        not after or after in " ,;).:?!%^/"
    )
    known = lowered in _SHORT_WORDS or (lowered in UNIT_WORDS and len(run) > 1)
    if alone and len(run) > 1 and (known or _looks_like_word(run)):
        return [Token("word", run, spaced)]
    if run.lower().startswith(("sqrt", "sin", "cos", "tan", "log")) and len(run) > 3:
        name = next(name for name in ("sqrt", "sin", "cos", "tan", "log") if lowered.startswith(name))
        rest = run[len(name) :]
        return [Token("command", "\\" + name, spaced), *(Token("symbol", letter) for letter in rest)]
    if run.startswith("pi") and len(run) <= 3:
        return [Token("command", r"\pi", spaced), *(Token("symbol", letter) for letter in run[2:])]
    return [Token("symbol", letter, spaced and at == 0) for at, letter in enumerate(run)]


def _looks_like_word(run: str) -> bool:
    if len(run) < 3 or not set(run.lower()) & set("aeiouy"):
        return False
    return run[1:].islower() or (run.isupper() and len(run) > 3)


def _without_braces_around_words(tokens: list[Token]) -> list[Token]:
    r"""`\text{…}` left braces behind: words inside stand as they are, all else is a group like any other."""
    kept: list[Token] = []
    opened: list[int] = []
    for token in tokens:
        if token.text in ("{", _TEXT_OPENS):
            opened.append(len(kept))
        elif token.text == "}" and opened:
            start = opened.pop()
            opening, inside = kept[start], kept[start + 1 :]
            scripted = start > 0 and kept[start - 1].text in ("^", "_")
            if opening.text == _TEXT_OPENS:
                if not scripted and any(one.kind == "word" for one in inside):
                    kept[start:] = inside
                    continue
                if not scripted and len(inside) == 1 and (inside[0].kind == "command" or inside[0].text in ",;:."):
                    kept[start:] = inside
                    continue
                kept[start] = Token("sign", "{", opening.spaced)
        kept.append(token)
    return kept


def split(tokens: Sequence[Token], separates: Callable[[Token], bool]) -> list[list[Token]]:
    """The pieces between the tokens, outside all brackets, that separate."""
    return split_at(tokens, separates)[0]


def split_at(tokens: Sequence[Token], separates: Callable[[Token], bool]) -> tuple[list[list[Token]], list[Token]]:
    """The pieces between the tokens, outside all brackets, that separate; and these."""
    pieces: list[list[Token]] = [[]]
    separators = []
    depth = 0
    for token in tokens:
        depth += (token.text in BRACKETS or token.text in ("{", r"\begin")) - (
            token.text in CLOSERS or token.text == r"\end"
        )
        if depth == 0 and separates(token):
            pieces.append([])
            separators.append(token)
        else:
            pieces[-1].append(token)
    return pieces, separators


class Cursor:
    """A place among tokens, which moves on as they are read."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = list(tokens)
        self.place = 0

    def peek(self, ahead: int = 0) -> str:
        """The text of the next token; "" at the end."""
        return self.tokens[self.place + ahead].text if self.place + ahead < len(self.tokens) else ""

    def take(self) -> Token:
        """The next token. Raises UnreadableError at the end."""
        if self.place >= len(self.tokens):
            raise UnreadableError("it ends too early")
        self.place += 1
        return self.tokens[self.place - 1]

    def expect(self, *texts: str) -> None:
        """Pass over a token that must be there. Raises UnreadableError where it is not."""
        if self.take().text not in texts:
            raise UnreadableError(f"{texts[0]} was expected")
