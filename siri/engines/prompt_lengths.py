"""Prompts measured before anything is trained: which ones leave no room for their budget, and which bound they break.

A policy reads prompt and response together up to its context; an engine may bound the prompt alone as well.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from siri.config import RunConfig
from siri.engines import kind_of
from siri.engines.base_folder import base_folder
from siri.engines.model_folder import files_beside
from siri.engines.smollm2 import CONTEXT, SMOLLM2
from siri.errors import InputError
from siri.methods import METHODS
from siri.problems import Problem, ProblemSet, ProblemSettings, laptop, prompt_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class Bound:
    """The most tokens that a prompt may have."""

    tokens: int
    reason: str
    """What sets it, in words."""
    remedy: str
    """What can be done about it."""


@dataclass(frozen=True)
class LongPrompts:
    """The problems of a set whose prompts are too long."""

    ids: frozenset[str]
    longest: int
    """Tokens of the one that is furthest beyond its bound."""
    bound: Bound
    """The bound that this one breaks."""

    def describe(self, problems: ProblemSet) -> str:
        """One line: how many of the set, the first few by id, the length, the bound and what moves it."""
        beyond = [problem.id for problem in problems if problem.id in self.ids]
        named = [*dict.fromkeys(beyond)]
        listed = ", ".join(named[:_NAMED_AT_MOST]) + (", …" if len(named) > _NAMED_AT_MOST else "")
        bound = f"{self.bound.reason} {max(self.bound.tokens, 0):,}; {self.bound.remedy}"
        return (
            f"{len(beyond)} of the {len(problems)} prompts of {problems.name} too long (ids {listed}): "
            f"up to {self.longest:,} tokens, where {bound}"
        )


def find_long_training(config: RunConfig, problems: ProblemSet) -> LongPrompts | None:
    """What of a train split is too long at some step of a run; None where everything fits.

    Under the largest and the smallest budget: a method may tell the policy its budget in the prompt. Raises InputError
    for a tokenizer that cannot be read or makes no prompt of a question.
    """
    if not kind_of(config).has_model or not problems.problems:
        return None
    schedule = config.schedule
    low, high = min(schedule.budgets), max(schedule.budgets)
    settings = {high: "schedule.max_budget", low: "schedule.min_budget" if low < high else "schedule.max_budget"}
    asked = []
    for budget, setting in settings.items():
        named = f"{'schedule.segments' if schedule.segments else setting}={budget}"
        bound = bound_of(config, budget, named, kind_of(config).prompt_tokens)
        asked.append((bound, as_trained(config, problems, budget)))
    return _find_long(config, asked)


def as_trained(config: RunConfig, problems: ProblemSet, budget: int) -> tuple[Problem, ...]:
    """Problems as the run's method puts them to the policy under a budget."""
    from siri.asking import step_of  # brings torch, which whoever looks at runs does without

    method, members = METHODS[config.method.name], problems.problems
    wordings = method.prompts(members, [budget] * len(members), step_of(config, 1))
    return tuple(replace(problem, question=put.question) for problem, put in zip(members, wordings, strict=True))


def require_context(config: RunConfig) -> None:
    """Raise InputError where the policy's context is too short for the longest text that it may be given.

    That is, for the longest prompt that an engine is set up for with the largest budget, and for the laptop base's
    warm-up.
    """
    kind = kind_of(config)
    if not kind.has_model:
        return
    context = context_of(config)
    needed = laptop.LONGEST_PROMPT + laptop.TRACE_LIMIT
    if config.model.base == "laptop" and context is not None and context < needed:
        raise InputError(f"model.shape.context={context}: the base's warm-up has texts of {needed} tokens")
    prompt = attrgetter(kind.prompt_tokens)(config) if kind.prompt_tokens else 0
    if context is not None and prompt + config.schedule.highest > context and prompt:
        raise InputError(
            f"{kind.prompt_tokens}={prompt}: with a budget of {config.schedule.highest} more than the {context} tokens "
            "that the model reads"
        )


def find_long_evaluation(config: RunConfig, problems: ProblemSet) -> LongPrompts | None:
    """What of a set is too long under the budget of a run's evaluations; else as `find_long_training`."""
    if not kind_of(config).has_model:
        return None
    own = config.evaluation.budget
    budget = config.schedule.highest if own is None else own
    bound = bound_of(config, budget, f"a budget of {budget}" if own is None else f"evaluation.budget={budget}")
    return _find_long(config, [(bound, problems.problems)])


def bound_of(config: RunConfig, budget: int, named: str, setting: str = "") -> Bound:
    """What a prompt may have beside a response of `budget` tokens, which is called `named`.

    `setting`: what bounds the prompt by itself, if anything does.
    """
    context, bounds = context_of(config), [Bound(2**62, "", "")]
    if context is not None:
        reason = f"{named} of the {context:,} that the model reads leaves"
        bounds.append(Bound(context - budget, reason, "a lower budget leaves more"))
    if setting:
        bounds.append(Bound(attrgetter(setting)(config), f"{setting} allows", "raise it"))
    return min(bounds, key=lambda bound: bound.tokens)


def context_of(config: RunConfig) -> int | None:
    """Most tokens of prompt and response together that the policy reads; None where its config names none."""
    if config.model.base == "laptop":
        return config.model.shape.context
    if config.model.base == SMOLLM2:
        return CONTEXT
    from siri.engines.local.pretrained import load_config

    try:
        described = load_config(base_folder(config)).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"model.base={config.model.base}: its config cannot be used: {reason}") from error
    context = getattr(described, "max_position_embeddings", None)
    return context if isinstance(context, int) else None


def _find_long(config: RunConfig, asked: Iterable[tuple[Bound, tuple[Problem, ...]]]) -> LongPrompts | None:
    """`asked`: bounds, and all problems as they are put under each."""
    beyond: list[tuple[int, int, Bound, str]] = []
    for bound, problems in asked:
        for problem, length in zip(problems, prompt_lengths(config, problems), strict=True):
            if length > bound.tokens:
                beyond.append((length - bound.tokens, length, bound, problem.id))
    if not beyond:
        return None
    _, longest, bound, _ = max(beyond, key=lambda one: one[0])
    return LongPrompts(frozenset(id_ for *_, id_ in beyond), longest, bound)


def prompt_lengths(config: RunConfig, problems: tuple[Problem, ...]) -> list[int]:
    """Tokens of each problem's prompt, for the tokenizer of the run's base. Raises InputError (see `encode_prompt`)."""
    settings, folder = config.problems, None if config.model.base == "laptop" else base_folder(config)
    return _measure(folder, _state(folder), settings, problems)


def _state(folder: Path | None) -> tuple[object, ...]:
    """Tells one tokenizer in a folder from the next without reading it."""
    found = [(name, (folder / name).stat()) for name in files_beside(folder)] if folder is not None else []
    return tuple((name, state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns) for name, state in found)


@lru_cache(maxsize=16)
def _measure(
    folder: Path | None,
    state: tuple[object, ...],
    settings: ProblemSettings,
    problems: tuple[Problem, ...],
) -> list[int]:
    if folder is None:
        tokenizer: PreTrainedTokenizerBase = laptop.tokenizer()
    else:
        from siri.engines.local.pretrained import read_tokenizer

        tokenizer = read_tokenizer(folder)
    known: dict[tuple[object, str], int] = {}
    for problem in problems:
        asked = (problem.before, problem.question)
        if asked not in known:
            known[asked] = len(prompt_of(problem, tokenizer, settings).ids)
    return [known[problem.before, problem.question] for problem in problems]
