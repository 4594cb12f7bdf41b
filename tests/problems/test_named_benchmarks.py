"""Benchmarks by name: what ships, where its problems come from, and what is said when they are others."""

import json
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flows.evaluation import evaluate
from siri.config import EvaluationSettings, absolute_benchmark, load, measured_config, measuring
from siri.errors import InputError
from siri.problems import load_benchmark
from siri.problems.benchmarks import benchmark_names, find_benchmark, is_named
from siri.problems.choices import ChoiceSettings, as_questions
from siri.problems.grading import grade
from siri.problems.named import FOLDER
from siri.problems.names import short_names

ROWS = {"aime24": 30, "aime25": 30, "amc": 83, "amc23": 40, "gsm8k": 1319, "gpqa": 198, "math500": 500}
published = pytest.mark.skipif(
    FOLDER not in os.environ, reason=f"set {FOLDER} to a folder of published benchmark files"
)


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def unreachable(*_: Any, **__: Any) -> str:
    raise ConnectionError("no route")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SIRI_BENCHMARKS, and no hub."""
    monkeypatch.setenv(FOLDER, str(tmp_path / "files"))
    (tmp_path / "files").mkdir()
    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    return tmp_path / "files"


def test_the_benchmarks_of_the_papers_ship_and_say_what_they_are() -> None:
    assert {*benchmark_names()} == {*ROWS, "minerva", "olympiadbench"}
    for name in benchmark_names():
        found = find_benchmark(name, "--benchmark")
        assert found is not None
        assert found.hub
        assert found.description
        assert found.source
        assert found.rows == ROWS.get(name, found.rows)


@published
@pytest.mark.parametrize(
    "path", [p.name for p in Path(os.environ.get(FOLDER, "/nowhere")).glob("*/*") if "train" not in p.name]
)
def test_every_published_file_is_read_by_its_name_and_its_digest_is_known(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (source,) = (
        Path(os.environ[FOLDER]).rglob(path) if path != "math500.json" else [next(Path(os.environ[FOLDER]).rglob(path))]
    )
    (tmp_path / path).write_bytes(source.read_bytes())
    monkeypatch.setenv(FOLDER, str(tmp_path))
    problems = load_benchmark(source.stem, "--benchmark")
    assert len(problems) == ROWS[source.stem]
    assert problems.name == source.stem
    assert f"{path} of {FOLDER} (" in problems.origin
    assert not caplog.records


def test_other_problems_under_a_name_are_told_by_both_digests(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder / "mine" / "aime24.jsonl", {"problem": "1 + 1?", "answer": 2})
    problems = load_benchmark("aime24", "--benchmark")
    assert [problem.answer for problem in problems] == ["2"]
    rows, digest = caplog.messages
    assert rows == f"benchmark=aime24: aime24.jsonl of {FOLDER} holds 1 problems, published are 30"
    assert problems.digest[:12] in digest
    assert "known are 55a257c8ec48 (deepscaler), 5e5b4ca86a1a (verl)" in digest


def test_a_file_that_is_put_into_the_folder_later_counts_from_then_on(folder: Path) -> None:
    with pytest.raises(InputError, match=rf"^--benchmark: cannot get 'math-ai/amc23' .*; or {FOLDER}=FOLDER names"):
        load_benchmark("amc23", "--benchmark")
    write(folder / "amc23.jsonl", {"problem": "1?", "answer": 1})
    assert len(load_benchmark("amc23", "--benchmark")) == 1
    write(folder / "amc23.jsonl", {"problem": "1?", "answer": 1}, {"problem": "2?", "answer": 2})
    assert len(load_benchmark("amc23", "--benchmark")) == 2


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "gone"))
    with pytest.raises(InputError, match=rf"^{FOLDER}=.*gone: there is no such folder$"):
        load_benchmark("aime24", "--benchmark")


def test_the_hub_is_asked_for_the_revision_and_the_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    asked: dict[str, Any] = {}

    def hub(name: str, **settings: Any) -> str:
        asked.update(settings, name=name)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    write(tmp_path / "main" / "test-00000-of-00001.jsonl", {"question": "Main?", "answer": "#### 1"})
    write(tmp_path / "main" / "train-00000-of-00001.jsonl", {"question": "Train?", "answer": "#### 2"})
    write(tmp_path / "socratic" / "test-00000-of-00001.jsonl", {"question": "Socratic?", "answer": "#### 3"})
    problems = load_benchmark("gsm8k", "--benchmark")
    assert [problem.question for problem in problems] == ["Main?"]
    assert (asked["name"], asked["revision"]) == ("openai/gsm8k", "740312add88f781978c0658806c59bc2815b9866")
    assert problems.origin == "openai/gsm8k at 740312add88f, test: main/test-00000-of-00001.jsonl"


def test_a_name_is_the_registry_s_whatever_lies_beside_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "aime24" / "test.jsonl", {"problem": "Beside?", "answer": 5})
    write(folder / "aime24.jsonl", {"problem": "Named?", "answer": 6})
    assert absolute_benchmark("aime24") == "aime24"
    assert absolute_benchmark("./aime24") == str(tmp_path / "aime24")
    assert [problem.question for problem in load_benchmark("aime24", "--benchmark")] == ["Named?"]
    assert [problem.question for problem in load_benchmark("./aime24", "--benchmark")] == ["Beside?"]


def test_in_tables_a_name_is_the_registry_s_and_a_file_like_it_is_called_otherwise() -> None:
    assert short_names(["/x/aime24.jsonl", "aime24"]) == {"/x/aime24.jsonl": "x-aime24", "aime24": "aime24"}
    assert short_names(["reasoning-gym:lcm:size=5"]) == {"reasoning-gym:lcm:size=5": "reasoning-gym-lcm-size-5"}
    assert short_names(["/x/mine.yaml"]) == {"/x/mine.yaml": "mine"}


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        InputError, match=r"^--benchmark: 'aime99' is no benchmark; there are dev, test, aime24, aime25"
    ):
        load_benchmark("aime99", "--benchmark")


def test_a_few_lines_make_a_benchmark_of_one_s_own(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", {"asked": "1 + 1?", "told": {"value": 2}})
    own = tmp_path / "mine.yaml"
    own.write_text(
        "description: my sums\nfile: rows.jsonl\nfields: {question: asked, answer: told.value}\n"
        "samples: 3\ngrader: boxed\nsuffix: Think.\n"
    )
    problems = load_benchmark(str(own), "--benchmark")
    assert [(problem.question, problem.answer) for problem in problems] == [("1 + 1?", "2")]
    assert problems.name == "mine"
    write(tmp_path / "rows.jsonl", {"asked": "2 + 2?", "told": {"value": 4}})
    assert [problem.answer for problem in load_benchmark(str(own), "--benchmark")] == ["4"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file: rows.jsonl", "description: must be given"),
        ("description: x", "config: one of hub, file and generated.task must be given, not none"),
        (
            "description: x\nhub: a/b\nfile: c.jsonl",
            "config: one of hub, file and generated.task must be given, not hub and file",
        ),
        ("description: x\nhub: a", "hub='a': string should match pattern"),
        ("description: x\nfile: rows.txt", r"file=rows.txt: no such file ending in \.json"),
        ("description: x\nfile: rows.jsonl\nsample: 4", r"sample: unknown setting; did you mean samples\?"),
        ("description: x\nfile: rows.jsonl\ndigests: {own: abc}", "digests.own='abc': string should match"),
    ],
)
def test_a_mistake_in_a_benchmark_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"^--benchmark: benchmark=.*mine.yaml: {said}") as error:
        load_benchmark(str(tmp_path / "mine.yaml"), "--benchmark")
    assert "\n" not in str(error.value)


GPQA = {"Question": "Which?", "Correct Answer": "Iron", "Incorrect Answer 1": "Zinc", "Incorrect Answer 2": "Tin"}
CHOICES = ChoiceSettings(
    question="Question", right="Correct Answer", wrong=("Incorrect Answer 1", "Incorrect Answer 2")
)


def test_choices_stand_in_an_order_that_the_question_alone_decides() -> None:
    questions = [{**GPQA, "Question": f"Which {number}?"} for number in range(60)]
    found = as_questions(questions, "gpqa.csv", CHOICES)
    assert found == as_questions(questions, "gpqa.csv", CHOICES)
    assert found[7:8] == as_questions(questions[7:8], "gpqa.csv", CHOICES)
    assert {row["answer"] for row in found} == {"A", "B", "C"}
    for row in found:
        assert f"{row['answer']}) Iron" in row["question"].splitlines()
        assert {"Zinc", "Tin", "Iron"} == {line[3:] for line in row["question"].splitlines()[2:]}


def test_a_row_without_its_choices_is_named() -> None:
    with pytest.raises(InputError, match=r"^gpqa.csv: row 2: no text in the field 'Incorrect Answer 2'$"):
        as_questions([GPQA, {**GPQA, "Incorrect Answer 2": " "}], "gpqa.csv", CHOICES)
    with pytest.raises(InputError, match=r"^gpqa.csv: row 1: two of its options are equal$"):
        as_questions([{**GPQA, "Incorrect Answer 2": "Zinc"}], "gpqa.csv", CHOICES)


def test_minerva_and_olympiadbench_are_read_in_the_layouts_that_others_read_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their files were never fetched: the fields are those that public projects read."""
    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(tmp_path / name.partition("/")[2]))
    write(tmp_path / "minervamath" / "test.jsonl", {"question": "How fast?", "answer": "4.5e33"})
    write(
        tmp_path / "olympiadbench" / "test.jsonl",
        {"id": 1606, "question": "How many?", "final_answer": ["\\frac{1}{2}"], "is_multiple_answer": False},
        {"id": 1607, "question": "Which?", "final_answer": ["1", "3"], "is_multiple_answer": True},
    )
    minerva, olympiad = (load_benchmark(name, "--benchmark") for name in ("minerva", "olympiadbench"))
    assert [(problem.question, problem.answer) for problem in minerva] == [("How fast?", "4.5e33")]
    assert [(problem.id, problem.answer) for problem in olympiad] == [("1606", "\\frac{1}{2}")]
    assert olympiad.left_out.no_answer == 1


def test_multiple_choice_is_read_by_name_and_graded_by_its_letter(folder: Path) -> None:
    row = {**GPQA, "Incorrect Answer 3": "Lead"}
    (folder / "gpqa.csv").write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    (problem,) = load_benchmark("gpqa", "--benchmark")
    assert grade(f"\\boxed{{{problem.answer}}}", problem.answer, "boxed") == "correct"
    assert grade(f"\\boxed{{\\text{{({problem.answer})}}}}", problem.answer, "boxed") == "correct"
    assert all(
        grade(f"\\boxed{{{letter}}}", problem.answer, "boxed") == "wrong" for letter in {*"ABCD"} - {problem.answer}
    )


def test_a_benchmark_s_own_protocol_counts_unless_a_setting_says_otherwise() -> None:
    plain = load("siri-7b", ["problems.suffix=Own.", "problems.grader=answer"])
    silent = plain.model_copy(
        update={"evaluation": plain.evaluation.model_copy(update={"samples": None, "temperature": None})}
    )
    found = measuring(silent, "aime24")
    assert (found.samples, found.temperature, found.top_p, found.grader) == (64, 0.6, 1.0, "boxed")
    assert found.suffix == " Let's think step by step and output the final answer within \\boxed{}."
    assert measured_config(silent, "aime24").problems.suffix == found.suffix
    split = measuring(silent, "dev")
    assert (split.samples, split.suffix, split.grader) == (32, "Own.", "answer")
    told = load(
        "siri-7b", ["evaluation.samples=3", "evaluation.top_p=0.9", "evaluation.suffix=", "evaluation.grader=answer"]
    )
    asked = measuring(told, "aime24")
    assert (asked.samples, asked.top_p, asked.grader) == (3, 0.9, "answer")


class Sums:
    """As reasoning-gym makes them."""

    def score_answer(self, answer: str, entry: dict[str, Any]) -> float:
        return float(answer == entry["answer"])

    def __getitem__(self, index: int) -> dict[str, str]:
        return {"question": f"{index} + {index}?", "answer": str(2 * index)}


class Puzzles(Sums):
    def score_answer(self, answer: str, entry: dict[str, Any]) -> float:
        return float(bool(answer))


@pytest.fixture
def gym(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with reasoning-gym's three names, where that is not installed."""
    modules = {name: ModuleType(name) for name in ("reasoning_gym", "reasoning_gym.factory", "reasoning_gym.dataset")}
    kinds = {"chain_sum": Sums, "puzzle24": Puzzles}
    vars(modules["reasoning_gym"]).update(create_dataset=lambda name, size, seed: kinds[name]())
    vars(modules["reasoning_gym.factory"]).update(DATASETS=kinds)
    vars(modules["reasoning_gym.dataset"]).update(ProceduralDataset=Sums)
    for name, module in modules.items():
        module.__spec__ = __import__("importlib.machinery", fromlist=["ModuleSpec"]).ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("gym")
def test_a_task_of_reasoning_gym_is_a_benchmark_by_name(caplog: pytest.LogCaptureFixture) -> None:
    problems = load_benchmark("reasoning-gym:chain_sum:size=4:seed=2", "--benchmark")
    assert [(problem.question, problem.answer) for problem in problems] == [
        (f"{n} + {n}?", str(2 * n)) for n in range(4)
    ]
    assert not caplog.records
    load_benchmark("reasoning-gym:puzzle24:size=3", "--benchmark")
    assert "accuracy is a lower bound" in caplog.text
    with pytest.raises(InputError, match=r"reasoning-gym:chain_sun: no task of reasoning-gym; near are chain_sum"):
        load_benchmark("reasoning-gym:chain_sun", "--benchmark")


def test_without_reasoning_gym_a_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("siri.problems.generated.find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"reasoning-gym is not installed here; `pip install 'siri-rl\[reasoning-gym\]'`"
    ):
        load_benchmark("reasoning-gym:gcd", "--benchmark")
    with pytest.raises(InputError, match=r"must look like reasoning-gym:chain_sum or reasoning-gym:chain_sum:size=100"):
        load_benchmark("reasoning-gym:gcd:size=many", "--benchmark")
    assert is_named("reasoning-gym:gcd")


def test_prefect_s_forms_list_every_benchmark_that_ships() -> None:
    asked = str(EvaluationSettings.model_fields["benchmarks"].description)
    for told in (asked, str(evaluate.fn.__doc__)):
        assert all(re.search(rf"\b{name}\b", told) for name in benchmark_names())
