"""Chain sums, `12 + 7 - 5`, for language models: reasoning-gym's `chain_sum`, and solutions that overthink.

A question, its answer and the random numbers they are made of are those of reasoning-gym 0.1.25
(https://github.com/open-thought/reasoning-gym), which a test compares; its dependencies are not needed for it.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

from siri.problems.problem import Problem, ProblemSet, Split, split_of
from siri.seeding import seed_for

TERMS = 4
"""Most terms of a sum, by default; there are two at least."""
DIGITS = 2
"""Most digits of a term, by default."""
QUESTION = "State the final answer to the following arithmetic problem: {} ="

TRACES = 1
"""Raised by hand when the solutions are others."""
FILLER = 0.35  # before every step, and again while it comes up
SLIP = 0.15  # a step's first result is off by a little
REDO = 0.15  # `Alternatively,` and the step again, as carelessly, while it comes up
VERIFY = 0.7
VERIFY_AGAIN = 0.4  # while it comes up
SLIP_AGAIN = 0.01  # the same in a verification
CLOSING_CHECK = 0.3  # one more verification of the last step, while it comes up
FILLERS = ("Hmm.", "So,", "Let me see.")
OPENINGS = ("Wait,", "Wait, let me check:", "Hold on,")


@dataclass(frozen=True)
class ChainSum:
    """Terms (all ≥ 0) and the signs between them."""

    terms: tuple[int, ...]
    signs: tuple[str, ...]

    @property
    def question(self) -> str:
        """As reasoning-gym asks it."""
        rest = (f"{sign} {term}" for sign, term in zip(self.signs, self.terms[1:], strict=True))
        return QUESTION.format(" ".join([str(self.terms[0]), *rest]))

    @property
    def answer(self) -> str:
        """The sum."""
        return str(sum(_signed(sign, term) for sign, term in zip(("+", *self.signs), self.terms, strict=True)))


def generate(split: Split, size: int, seed: int, terms: int = TERMS, digits: int = DIGITS) -> ProblemSet:
    """`size` problems of one split, 2 to `terms` terms of 1 to `digits` digits; a longer set begins with the shorter.

    Each is of a seed of its own; where the hash of its question is of another split the next one is taken. Train keeps
    repeats, so that short sums are as frequent as drawn.
    """
    seen: set[str] = set()
    problems: list[Problem] = []
    for chain in _chains(seed_for(seed, f"sums {split}"), terms, digits):
        if split_of(chain.question) != split or (split != "train" and chain.question in seen):
            continue
        seen.add(chain.question)
        problems.append(Problem(_identify(chain.question), chain.question, chain.answer))
        if len(problems) == size:
            break
    return ProblemSet(f"sums-{split}", tuple(problems))


def warmup_traces(seed: int, count: int, terms: int, digits: int) -> list[tuple[str, str]]:
    """`count` pairs of a train question and a solution that overthinks it."""
    rng = random.Random(seed_for(seed, "sums warm-up"))
    pairs: list[tuple[str, str]] = []
    for chain in _chains(seed_for(seed, "sums warm-up questions"), terms, digits):
        if len(pairs) == count:
            break
        if split_of(chain.question) == "train":
            pairs.append((chain.question, solve(chain, rng)))
    return pairs


def draw_chain(seed: int, terms: int, digits: int) -> ChainSum:
    """One sum, drawn as reasoning-gym draws that of a data set with this seed at index 0."""
    rng = random.Random(seed)
    count, length = rng.randint(2, terms), rng.randint(1, digits)
    lowest = 0 if length == 1 else 10 ** (length - 1)
    drawn = tuple(rng.randint(lowest, 10**length - 1) for _ in range(count))
    return ChainSum(drawn, tuple(rng.choice(["+", "-"]) for _ in range(count - 1)))


def solve(chain: ChainSum, rng: random.Random) -> str:
    r"""A solution that overthinks on purpose and is sometimes wrong: the latest result is carried on."""
    written: list[str] = []
    before = value = chain.terms[0]
    for sign, term in zip(chain.signs, chain.terms[1:], strict=True):
        before = value
        said, value = _work(before, sign, term, rng)
        written += _hesitate(rng) + said
    while rng.random() < CLOSING_CHECK:
        said, value = _verify(before, sign, term, rng)
        written += said
    return " ".join([*written, f"\\boxed{{{value}}}"])


def _chains(seed: int, terms: int, digits: int) -> Iterator[ChainSum]:
    """Sums of one seed after the other: a seed's are reasoning-gym's data set, index by index."""
    index = 0
    while True:
        yield draw_chain(seed + index, terms, digits)
        index += 1


def _signed(sign: str, term: int) -> int:
    return term if sign == "+" else -term


def _identify(question: str) -> str:
    return hashlib.sha256(question.encode()).hexdigest()[:12]


def _hesitate(rng: random.Random) -> list[str]:
    words = []
    while rng.random() < FILLER:
        words.append(_pick(rng, FILLERS))
    return words


def _work(value: int, sign: str, term: int, rng: random.Random) -> tuple[list[str], int]:
    """One step, written once and then as often again as the dice say; with the result carried on."""
    first, result = _step(value, sign, term, SLIP, rng)
    written = [first]
    while rng.random() < REDO:
        again, result = _step(value, sign, term, SLIP, rng)
        written += ["Alternatively,", again]
    if rng.random() < VERIFY:
        said, result = _verify(value, sign, term, rng)
        written += said
        while rng.random() < VERIFY_AGAIN:
            said, result = _verify(value, sign, term, rng)
            written += said
    return written, result


def _verify(value: int, sign: str, term: int, rng: random.Random) -> tuple[list[str], int]:
    said, result = _step(value, sign, term, SLIP_AGAIN, rng)
    return [_pick(rng, OPENINGS), said], result


def _step(value: int, sign: str, term: int, slip: float, rng: random.Random) -> tuple[str, int]:
    """As in `12 + 7 = 19.`"""
    result = value + _signed(sign, term)
    if rng.random() < slip:
        result += int(_pick(rng, ("-10", "-2", "-1", "1", "2", "10")))
    return f"{value} {sign} {term} = {result}.", result


def _pick(rng: random.Random, words: tuple[str, ...]) -> str:
    return words[int(rng.random() * len(words))]
