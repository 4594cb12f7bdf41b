"""Where problems come from: the laptop task, problem files, the hub; their splits, their prompts, their order."""

from siri.problems.order import deal, problems_of_draw, problems_of_step
from siri.problems.problem import LeftOut, Problem, ProblemSet, Split, Splits, split_of
from siri.problems.prompts import (
    Prompt,
    TemplateName,
    count_thought,
    decode_responses,
    encode_prompt,
    make_prompt,
    prompt_link,
)
from siri.problems.rows import FieldSettings
from siri.problems.settings import ProblemSettings
from siri.problems.sources import load_problems
from siri.problems.splits import BENCHMARKS, load_benchmark, load_splits

__all__ = [
    "BENCHMARKS",
    "FieldSettings",
    "LeftOut",
    "Problem",
    "ProblemSet",
    "ProblemSettings",
    "Prompt",
    "Split",
    "Splits",
    "TemplateName",
    "count_thought",
    "deal",
    "decode_responses",
    "encode_prompt",
    "load_benchmark",
    "load_problems",
    "load_splits",
    "make_prompt",
    "problems_of_draw",
    "problems_of_step",
    "prompt_link",
    "split_of",
]
