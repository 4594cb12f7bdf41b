"""Chat templates: prompts are a function of the question and `problems.date`, whatever the template would rather do."""

import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from siri.engines.local.stepper import LocalStepper
from siri.engines.local.uniforms import Stream
from siri.engines.verl import batch
from siri.errors import InputError
from siri.evaluation.evaluation import Evaluation
from siri.home import Home
from siri.problems import Problem, ProblemSet, encode_prompt, make_prompt, templates
from siri.runs import run
from tests.conftest import prepare, tiny
from tests.engines.test_pretrained import llama, word_tokenizer, write_folder

QUESTION = Problem("q1", "w1 w2", "w3")
DAY = datetime.date(2025, 1, 31)
LLAMA = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}"
    "{%- endif %}{%- endif %}{{ date_string }} {{ messages[0].content }}"
)
DATED = {
    "the day": "{{ strftime_now('%Y-%m-%d') }} {{ messages[0].content }}",
    "the year alone": "{{ strftime_now('%Y') }}",
    "the hour": "{% if strftime_now('%H') | int > 11 %}w1{% else %}w2{% endif %}",
    "the weekday": "{{ strftime_now('%A') }}",
    "by another name": "{% set now = strftime_now %}{{ now('%m') }}",
    "through a macro": "{% macro today() %}{{ strftime_now('%d') }}{% endmacro %}{{ today() }}",
    "Llama 3": LLAMA,
    "its length": "{% for _ in range(strftime_now('%S') | int) %}w1 {% endfor %}",
}
HOSTILE = {
    "Python's classes": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "cannot be rendered: .*SecurityError"),
    "through the clock": ("{{ strftime_now.__self__.replace(year=1) }}", "cannot be rendered: .*SecurityError"),
    "globals": ("{{ raise_exception.__globals__['os'].system('touch MARK') }}", "cannot be rendered: .*SecurityError"),
    "through the loader": ("{{ cycler.__init__.__globals__.os.system('touch MARK') }}", "SecurityError"),
    "by an attribute's name": ("{{ ''|attr('__class__') }}{{ (''|attr('__class__')).mro() }}", "cannot be rendered"),
    "by a format": ("{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}", "cannot be rendered"),
    "a file": ("{% include '/etc/passwd' %}", "cannot be rendered: TypeError: no loader"),
    "changing the question": ("{{ messages.append(1) }}", "cannot be rendered: .*SecurityError"),
    "no end": ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "takes more than 2 s"),
    "all memory": ("{{ 'a' * 10**11 }}", "takes more than 2 s or 512 MiB"),
    "memory by doubling": (
        "{% set n = namespace(t='a') %}{% for _ in range(60) %}{% set n.t = n.t ~ n.t %}{% endfor %}",
        "takes more than 2 s or 512 MiB",
    ),
    "a power": ("{{ 10 ** (10 ** 9) }}", "takes more than 2 s"),
    "no syntax": ("{% for %}", "cannot be rendered: .*TemplateSyntaxError"),
    "an error of its own": ("{{ raise_exception('no \x1b[31m user') }}", "cannot be rendered: .*no .*user"),
    "a random word": ("{{ ['w1', 'w2'] | random }}", "draws at random"),
    "a word that is likely": ("{{ (['w1'] * 9999 + ['w2']) | random }}", "draws at random"),
    "a random word by name": ("{{ [['w1', 'w2']] | map('ran' ~ 'dom') | list }}", "draws at random"),
    "random text": ("{{ lipsum(1, false) }}", "draws at random"),
    "an address": ("{{ cycler('a') }}", "gives another text "),
    "an address of a generator": ("{{ messages | map(attribute='content') }}", "gives another text "),
}


def tokenizer_with(template: str | dict[str, str] | None) -> PreTrainedTokenizerFast:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def text_of(template: str, day: datetime.date | None = None) -> str:
    """The prompt, read off the string that reaches the tokenizer's words."""
    tokenizer = tokenizer_with(template)
    templates.check_template(tokenizer, day)
    messages = [{"role": "user", "content": QUESTION.question}]
    seen = templates.variables_of(day)
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **seen))


@pytest.mark.parametrize("what", DATED)
def test_a_template_that_prints_the_date_is_refused(what: str) -> None:
    said = r"^problems\.template=chat: the model's chat template prints the date, .*problems\.date=2025-01-31"
    with pytest.raises(InputError, match=said):
        encode_prompt(QUESTION, tokenizer_with(DATED[what]), "chat")


def test_the_date_is_the_one_that_is_given() -> None:
    assert text_of(DATED["the day"], DAY) == "2025-01-31 w1 w2"
    assert text_of(LLAMA, DAY) == "31 Jan 2025 w1 w2"
    assert text_of(DATED["through a macro"] + "{{ strftime_now('%H:%M:%S') }}", DAY) == "3100:00:00"
    fallback = "{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}{{ date_string }}"
    assert text_of(fallback) == "26 Jul 2024"
    assert text_of(fallback, DAY) == "31 Jan 2025"


def test_a_clock_that_is_read_and_not_printed_is_no_date() -> None:
    assert text_of("{% set today = strftime_now('%Y') %}{{ messages[0].content }}") == "w1 w2"


def test_a_date_that_only_some_questions_print_is_the_same_at_all_times() -> None:
    """The question that templates are tried with does not print it; the clock of prompts stands still all the same."""
    sly = "{% if 'w1' in messages[0].content %}{{ strftime_now('%Y-%m-%d %H:%M:%S.%f') }}{% endif %}"
    assert text_of(sly) == "2001-01-01 00:00:00.000000"


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_template_is_refused_in_one_line(what: str, tmp_path: Path) -> None:
    template, said = HOSTILE[what]
    with pytest.raises(InputError, match=rf"^problems\.template=chat: the model's chat template .*{said}") as caught:
        encode_prompt(QUESTION, tokenizer_with(template.replace("MARK", str(tmp_path / "mark"))), "chat")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert list(tmp_path.iterdir()) == []


def test_seconds_since_1970_depend_on_the_machine_and_are_refused() -> None:
    """They would be taken from a time zone, which `problems.date` does not name."""
    with pytest.raises(InputError, match="gives another text in another process"):
        encode_prompt(QUESTION, tokenizer_with("{{ strftime_now('%s') }}"), "chat", "", DAY)


def test_named_templates_are_read_by_their_default() -> None:
    named = {"default": "w7 {{ messages[0].content }}", "tool_use": DATED["the day"]}
    assert encode_prompt(QUESTION, tokenizer_with(named), "chat") == encode_prompt(
        Problem("", "w7 w1 w2", ""), word_tokenizer(), "plain"
    )
    with pytest.raises(InputError, match=r"prints the date"):
        encode_prompt(QUESTION, tokenizer_with({"default": DATED["the day"]}), "chat")
    with pytest.raises(InputError, match=r"needs a default chat template; this tokenizer has only rag, tool_use"):
        encode_prompt(QUESTION, tokenizer_with({"tool_use": "x", "rag": "y"}), "chat")


def test_plain_prompts_ask_no_template() -> None:
    assert encode_prompt(QUESTION, tokenizer_with(DATED["the day"]), "plain") == [4, 5]


@pytest.fixture
def dated(tmp_path: Path) -> Path:
    """A model folder whose template gives as many words as the day of the month has."""
    write_folder(tmp_path / "model", llama())
    template = "{% for _ in range(strftime_now('%d') | int) %}w9 {% endfor %}{{ messages[0].content }}"
    (tmp_path / "model" / "chat_template.jinja").write_text(template)
    return tmp_path / "model"


def settings_of(dated: Path, *overrides: str) -> list[str]:
    problems = [{"question": f"w{number}", "answer": "w1"} for number in range(50)]
    (dated.parent / "problems.json").write_text(json.dumps(problems))
    short = ["schedule.max_budget=8", "schedule.min_budget=4"]
    return [f"model.base={dated}", f"problems.source={dated.parent / 'problems.json'}", *short, *overrides]


def test_every_engine_asks_with_the_date(dated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny("engine.name=local", *settings_of(dated, "problems.date=2025-01-03"))
    expected = make_prompt(
        QUESTION, tokenizer_with((dated / "chat_template.jinja").read_text()), "chat", "", config.problems.date
    )
    assert expected.ids == [12, 12, 12, 4, 5]
    stepper = LocalStepper(config)
    stepper.load(dated)
    assert stepper.answer([QUESTION], [4], 2, 1.0, Stream(0, [0])).prompts[0] == (12, 12, 12, 4, 5)
    asked = batch.ask(config, ProblemSet("one", (QUESTION,) * 4), stepper.policy.loaded.tokenizer, {}, 1)
    assert {tuple(one.prompt_ids) for one in asked} == {(12, 12, 12, 4, 5)}


@pytest.mark.parametrize("engine", ["local", "verl"])
def test_a_dated_template_is_refused_before_anything_is_trained(
    engine: str, dated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "require_engine", lambda config: None)
    fitting = ["engine.micro_batch_tokens=4096", "engine.verl.gpus_per_node=1", "optimizer.warmup_steps=0"]
    fitting += ["engine.kernels=torch", "engine.verl.prompt_tokens=48"]
    if engine == "verl":
        pytest.importorskip("verl", reason="verl is not installed here: `make test-verl` runs this")
    with pytest.raises(InputError, match="prints the date"):
        run.check(tiny(f"engine.name={engine}", *settings_of(dated, *fitting)))


def test_the_command_line_says_what_to_set(dated: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "siri.cli", "train", "laptop", "engine.name=local", *settings_of(dated)]
    done = subprocess.run([*command, "--home", str(tmp_path / "h")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("siri: problems.template=chat: the model's chat template prints the date")
    assert done.stderr.count("\n") == 1


def test_evaluations_under_two_dates_are_two(home: Home) -> None:
    """Of the base too, whose key no date enters."""
    runs = [prepare(tiny(f"problems.date={date}"), home) for date in ("2025-01-31", "2025-02-01")]
    assert runs[0].keys[0] == runs[1].keys[0]
    assert len({Evaluation(opened, "base", "dev").key for opened in runs}) == 2


@pytest.mark.parametrize("value", ["20250131", "'20250131'", "1.5", "2025-13-01", "2025-01-31T10:00:00", "soon", "''"])
def test_a_date_is_an_iso_date(value: str) -> None:
    with pytest.raises(InputError, match=r"^problems\.date"):
        tiny(f"problems.date={value}")


@pytest.mark.parametrize("value", ["2025-01-31", "'2025-01-31'"])
def test_a_date_goes_through_yaml_and_json(value: str) -> None:
    config = tiny(f"problems.date={value}")
    assert config.problems.date == DAY
    dumped: dict[str, Any] = json.loads(json.dumps(config.model_dump(mode="json")))
    assert type(config).model_validate(dumped) == config
    assert tiny("problems.date=null").problems.date is None
