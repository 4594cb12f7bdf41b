"""The laptop task: chains v ← (v·a + b) mod 11, on which a tiny model overthinks and can learn to stop.

Steps with a = 1 are easy, the others need their product written out; the warm-up traces verify both alike, and more
than once. Format and probabilities are measured choices, under which a budget is felt: measure again after a change.
"""

import hashlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from siri.problems.problem import Problem, ProblemSet, Split, split_of
from siri.seeding import seed_for

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MODULUS = 11
MOST_STEPS = 8
EASY = 0.5
"""Probability that a step multiplies by one. Warm-up and RL were both measured at this value."""

LABELS = "ABCDEFGHIJKLMNOP"
WORDS = ("wait", "hold_on", "alternatively", "so", "compute", "hmm")
DIGITS = tuple(f"<{digit}>" for digit in range(10))
CONTROLS = (*DIGITS, "<exact>", "<most>", "<effort>", "<short>", "<long>", *(f"<reserved-{i}>" for i in range(9)))
"""Tokens that the task itself does not use: for methods that put a budget into the prompt or force a first token.

The warm-up traces hold none of them: with a quarter of them carrying their length in the prompt, bases ignored it.
"""
VOCABULARY = (
    *("<pad>", "<bos>", "<eos>", "<think>", "</think>", ";"),
    *WORDS,
    *(str(value) for value in range(MODULUS)),
    *(f"*{factor}" for factor in range(MODULUS)),
    *(f"+{summand}" for summand in range(MODULUS)),
    *LABELS,
    *CONTROLS,
)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ ' ' + message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' <think>' }}{% endif %}"
)

TRACE_LIMIT = 120
"""Tokens after which a warm-up trace is cut."""
LONGEST_PROMPT = 3 * MOST_STEPS + 4
"""Tokens of a question of the most steps: these, `;`, its start, and what the chat template adds."""
FILLER = 0.45  # before every step, and again while it comes up
GUESS = 0.15  # a fast step's result is any value at all
REDO = 0.12  # `alternatively` and the fast step again, while it comes up
VERIFY = 0.7
VERIFY_AGAIN = 0.4  # while it comes up
SLIP = 0.01  # in a verification, for the product and for the result
WAIT = 0.75  # the verification opens with `wait`, else `hold_on`
CLOSING_CHECK = 0.3  # one more verification of the last step, while it comes up


@dataclass(frozen=True)
class Chain:
    """A start value in 0..10 and 1 to 8 steps (a, b): v ← (v·a + b) mod 11 with a, b in 1..10."""

    start: int
    steps: tuple[tuple[int, int], ...]

    @property
    def question(self) -> str:
        """As in `A *9 +8 B *5 +3 ; 8`."""
        written = (f"{label} *{a} +{b}" for label, (a, b) in zip(LABELS, self.steps, strict=False))
        return f"{' '.join(written)} ; {self.start}"

    @property
    def answer(self) -> str:
        """The last two values, as in `3 7`: with one value alone a guess would pay one time in eleven."""
        before, value = self.start, self.start
        for a, b in self.steps:
            before, value = value, (value * a + b) % MODULUS
        return f"{before} {value}"


def draw_chain(rng: random.Random, easy: float) -> Chain:
    """One chain: 1 to 8 steps, each easy (a = 1) with probability `easy`."""
    steps = []
    for _ in range(_draw(rng, 1, MOST_STEPS)):
        a = 1 if rng.random() < easy else _draw(rng, 2, MODULUS - 1)
        steps.append((a, _draw(rng, 1, MODULUS - 1)))
    return Chain(_draw(rng, 0, MODULUS - 1), tuple(steps))


def generate(split: Split, size: int, seed: int, easy: float = EASY) -> ProblemSet:
    """`size` problems of one split; a longer set begins with the shorter one.

    Train keeps repeats, so that short chains are as frequent as drawn; a repeated question has a repeated id.
    """
    rng = random.Random(seed_for(seed, f"laptop {split}"))
    seen: set[str] = set()
    problems: list[Problem] = []
    while len(problems) < size:
        chain = draw_chain(rng, easy)
        question = chain.question
        if split_of(question) != split or (split != "train" and question in seen):
            continue
        seen.add(question)
        problems.append(Problem(_identify(question), question, chain.answer))
    return ProblemSet(f"laptop-{split}", tuple(problems))


def warmup_traces(seed: int, count: int) -> list[tuple[str, list[str]]]:
    """`count` pairs of a fresh train question and a trace that overthinks it, as token strings ending in `<eos>`."""
    rng = random.Random(seed_for(seed, "laptop warm-up"))
    pairs: list[tuple[str, list[str]]] = []
    while len(pairs) < count:
        chain = draw_chain(rng, EASY)
        if split_of(chain.question) == "train":
            pairs.append((chain.question, trace(chain, rng)))
    return pairs


def trace(chain: Chain, rng: random.Random) -> list[str]:
    """A response that overthinks on purpose and is often wrong: the latest result is carried on, cut at 120 tokens."""
    tokens: list[str] = []
    before = value = chain.start
    for label, (a, b) in zip(LABELS, chain.steps, strict=False):
        before = value
        written, value = _work(label, before, a, b, rng)
        tokens += _hesitate(rng) + written
    while rng.random() < CLOSING_CHECK:
        written, value = _verify(label, before, a, b, rng)
        tokens += _hesitate(rng) + written
    return [*tokens, "</think>", str(before), str(value), "<eos>"][:TRACE_LIMIT]


def tokenizer() -> "PreTrainedTokenizerFast":
    """The task's tokenizer: one id per word, in the order of VOCABULARY; the chat template renders `<bos> … <think>`.

    There is no unknown token: text with a word outside the vocabulary is an error, in an exported folder too. One would
    be another embedding, hence other bases, and would let a policy answer questions that it cannot read.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({token: id_ for id_, token in enumerate(VOCABULARY)}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _draw(rng: random.Random, low: int, high: int) -> int:
    # random() alone is promised to give the same numbers in every Python; randint is not, and is slower.
    return low + int(rng.random() * (high - low + 1))


def _identify(question: str) -> str:
    return hashlib.sha256(question.encode()).hexdigest()[:12]


def _hesitate(rng: random.Random) -> list[str]:
    words = []
    while rng.random() < FILLER:
        words.append(rng.choices(("so", "compute", "hmm"), (0.35, 0.35, 0.3))[0])
    return words


def _work(label: str, value: int, a: int, b: int, rng: random.Random) -> tuple[list[str], int]:
    """One step of the chain, written once and then as often again as the dice say; with the result carried on."""
    tokens, result = _step_fast(label, value, a, b, rng)
    while rng.random() < REDO:
        again, result = _step_fast(label, value, a, b, rng)
        tokens += ["alternatively", *again]
    if rng.random() < VERIFY:
        written, result = _verify(label, value, a, b, rng)
        tokens += written
        while rng.random() < VERIFY_AGAIN:
            written, result = _verify(label, value, a, b, rng)
            tokens += written
    return tokens, result


def _step_fast(label: str, value: int, a: int, b: int, rng: random.Random) -> tuple[list[str], int]:
    """Four tokens, `A *a +b r`."""
    result = _err((value * a + b) % MODULUS, GUESS, rng)
    return [label, f"*{a}", f"+{b}", str(result)], result


def _verify(label: str, value: int, a: int, b: int, rng: random.Random) -> tuple[list[str], int]:
    """Nine tokens, `wait A v *a p A p +b r`: label and operand restated, the product p written out."""
    product = _err(value * a % MODULUS, SLIP, rng)
    result = _err((product + b) % MODULUS, SLIP, rng)
    opening = "wait" if rng.random() < WAIT else "hold_on"
    return [opening, label, str(value), f"*{a}", str(product), label, str(product), f"+{b}", str(result)], result


def _err(value: int, probability: float, rng: random.Random) -> int:
    return _draw(rng, 0, MODULUS - 1) if rng.random() < probability else value
