"""What verl is asked of a step, and what names an evaluation of its runs: as on every other engine."""

from dataclasses import replace

import pytest

from siri.config import override
from siri.engines.verl.batch import ask, rows
from siri.errors import InputError
from siri.evaluation.evaluation import Evaluation
from siri.home import Home
from siri.problems import Problem, ProblemSet, laptop, make_prompt
from tests.conftest import prepare, tiny

PROBLEMS = ProblemSet(
    "two", tuple(Problem(str(n), f"A *1 +{n} ; 0", "0 1", (("system", "so compute"),)) for n in (1, 2))
)
VERL = ("engine.name=verl", "rollout.batch_size=2")


def test_the_system_message_of_a_problem_stands_in_its_prompt() -> None:
    tokenizer = laptop.tokenizer()
    asked = ask(tiny(*VERL), PROBLEMS, tokenizer, {}, 1)
    assert sorted(tokenizer.decode(one.prompt_ids) for one in asked) == [
        f"<bos> so compute A *1 +{n} ; 0 <think>" for n in (1, 2)
    ]
    for one in asked:
        assert one.problem.before == (("system", "so compute"),)
        assert one.prompt_ids == make_prompt(one.problem, tokenizer, "chat").ids
    assert rows(asked, [2, 7])["eos_ids"] == [[2, 7], [2, 7]]


def test_plain_prompts_put_it_in_front_as_a_paragraph() -> None:
    tokenizer = laptop.tokenizer()
    [first, _] = PROBLEMS
    assert tokenizer.decode(make_prompt(first, tokenizer, "plain").ids) == "so compute A *1 +1 ; 0"


def test_a_template_that_takes_no_system_message_is_named() -> None:
    tokenizer = laptop.tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{{ messages[0]['content'] }}"
    )
    said = (
        r"^problems\.template=chat: .* takes no chat of system, user: System role not supported; allowed are problems"
    )
    with pytest.raises(InputError, match=said):
        make_prompt(PROBLEMS.problems[0], tokenizer, "chat")
    assert make_prompt(replace(PROBLEMS.problems[0], before=()), tokenizer, "chat").ids


def test_an_evaluation_by_torch_is_named_by_what_its_sampler_writes_by(home: Home) -> None:
    run = prepare(tiny(), home)

    def key(*overrides: str) -> str:
        return Evaluation(replace(run, config=override(run.config, overrides)), "base", "dev").key

    verl = "engine.name=verl"
    for setting in ("engine.sample_rows=7", "engine.threads=2"):
        assert key(verl, setting) != key(verl)
        assert key(verl, "evaluation.sampler=vllm", setting) == key(verl, "evaluation.sampler=vllm")
        assert key(setting) == key(), "of the run's own engine it stands in the numerics"
    assert key(verl, "engine.verl.nodes=2") == key(verl)
