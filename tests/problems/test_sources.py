"""Problem files as they are published: layouts, fields by name, rows without an answer, and which split is read."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from siri.config import load, with_absolute_paths
from siri.errors import InputError
from siri.problems import ProblemSet, ProblemSettings, load_benchmark, load_problems, load_splits
from siri.problems.rows import Reading
from siri.problems.sources import split_named


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def numbered(count: int, word: str = "How much") -> list[dict[str, Any]]:
    return [{"question": f"{word} is {n} + 1?", "answer": n + 1} for n in range(count)]


def pairs(problems: ProblemSet) -> list[tuple[str, str]]:
    return [(problem.question, problem.answer) for problem in problems]


# Layouts

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "How many?"}
LAYOUTS = {
    "Problem and Answer": {"ID": "2024-I-1", "Problem": "How many?", "Solution": "Count.", "Answer": 18},
    "problem and answer": {"problem": "How many?", "answer": "18"},
    "question and answer": {"question": "How many?", "answer": 18.0},
    "Question and Answer": {"Question": "How many?", "Answer": "18"},
    "expected_answer": {"problem": "How many?", "expected_answer": "18", "problem_source": "x"},
    "final_answer": {"question": "How many?", "final_answer": ["18"], "solution": ["…"]},
    "ground_truth": {"prompt": "How many?", "ground_truth": "18"},
    "target": {"query": "How many?", "target": "18"},
    "a prompt list": {"prompt": [USER], "reward_model": {"ground_truth": "18", "style": "rule"}},
    "messages": {"messages": [USER, {"role": "assistant", "content": "So \\boxed{18}."}]},
    "messages beside an answer": {"messages": [USER, {"role": "assistant", "content": "…"}], "answer": "18"},
    "parts of a message": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "How many?"}]}],
        "answer": 18,
    },
    "gsm8k's answer": {"question": "How many?", "answer": "9 + 9 = <<9+9=18>>18.\n#### 18"},
    "a worked solution": {"problem": "How many?", "level": "Level 1", "solution": "We get $9+9=\\boxed{18}$."},
    "a solution that ends as gsm8k's": {"problem": "How many?", "solution": "9 + 9\n#### 18"},
    "an answer in its box": {"problem": "How many?", "answer": "$\\boxed{18}$"},
    "an empty answer beside a solution": {"problem": "How many?", "answer": None, "solution": "\\boxed{18}"},
}


@pytest.mark.parametrize("row", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_in_the_wild_are_read_without_a_setting(row: dict[str, Any], tmp_path: Path) -> None:
    assert pairs(load_problems(write(tmp_path / "x.jsonl", [row]))) == [("How many?", "18")]


def test_what_a_verl_file_holds_as_the_ground_truth_comes_before_the_solution_beside_it(tmp_path: Path) -> None:
    row = {"prompt": [USER], "answer": "work\n#### 7", "solution": "\\boxed{8}", "reward_model": {"ground_truth": "18"}}
    assert pairs(load_problems(write(tmp_path / "x.jsonl", [row]))) == [("How many?", "18")]


def test_a_solution_without_a_mark_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^x\.jsonl: row 1: no answer \(1 in all\).*problems\.missing_answers=skip"):
        load_problems(write(tmp_path / "x.jsonl", [{"problem": "How many?", "solution": "It is 18."}]))


def test_a_csv_file_is_read_with_its_quotes_and_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "sums.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["Problem", "Answer"], ['Say "two",\nwhat is it?', "2.0"], ["Three?", "3"]])
    assert pairs(load_problems(str(path))) == [('Say "two",\nwhat is it?', "2"), ("Three?", "3")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("question,answer\none?\n", "row 1 has not as many fields as the header"),
        ("question,answer\none?,1,2\n", "row 1 has not as many fields as the header"),
        ('question,answer\n"one?,1\n', "broken CSV at line 1: unexpected end of data"),
        ("question,answer\n", "no rows"),
    ],
)
def test_a_broken_csv_file_is_refused_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=rf"^x\.csv: {said}"):
        load_problems(str(tmp_path / "x.csv"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"question": "a", "answer": ' + "9" * 5000 + "}", "broken JSON at line 1: a number of thousands of digits"),
        ('{"question": ' + "[" * 200_000, "broken JSON at line 1: nested too deeply"),
        (r'{"question": "a\ud800", "answer": 1}', "broken JSON at line 1: half of a surrogate pair"),
        (r'{"question": "a", "answer": "\udc00"}', "broken JSON at line 1: half of a surrogate pair"),
        ('{"question": "a", "answer": Infinity}', "row 1: no answer|no answer in any"),
    ],
)
def test_json_that_is_no_text_or_number_is_refused_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(InputError, match=rf"^x\.jsonl: ({said})") as refused:
        load_problems(str(tmp_path / "x.jsonl"))
    assert "\n" not in str(refused.value)


# What stands before the question


def test_system_messages_and_earlier_turns_are_kept_in_front_of_the_question(tmp_path: Path) -> None:
    shown = [{"role": "user", "content": "One and one?"}, {"role": "assistant", "content": "2"}]
    path = write(tmp_path / "x.jsonl", [{"prompt": [SYSTEM, *shown, USER], "answer": 18}])
    [problem] = load_problems(path)
    assert problem.question == "How many?"
    assert problem.before == (("system", "Be brief."), ("user", "One and one?"), ("assistant", "2"))


def test_the_digest_tells_a_chat_from_the_question_alone(tmp_path: Path) -> None:
    rows = [[USER], [SYSTEM, USER], [SYSTEM | {"content": "Be long."}, USER], [SYSTEM | {"role": "user"}, USER]]
    digests = {
        load_problems(write(tmp_path / f"{n}.jsonl", [{"prompt": chat, "answer": 18}])).digest
        for n, chat in enumerate(rows)
    }
    assert len(digests) == 4


# Fields by name


def test_fields_are_read_by_the_names_that_are_set_inside_others_too(tmp_path: Path) -> None:
    row = {"frage": "How many?", "meta": {"loesung": 18.0}, "question": "Another?", "answer": "0"}
    source = write(tmp_path / "x.jsonl", [row])
    reading = Reading("frage", "meta.loesung")
    assert pairs(load_problems(source, reading=reading)) == [("How many?", "18")]


def test_a_field_that_some_rows_lack_is_missed_there_and_not_looked_for_by_other_names(tmp_path: Path) -> None:
    rows = [{"problem": "a", "gold": 1, "answer": 0}, {"problem": "b", "answer": 2}]
    with pytest.raises(InputError, match=r"^x\.jsonl: row 2: no answer"):
        load_problems(write(tmp_path / "x.jsonl", rows), reading=Reading(answer="gold"))


def test_a_field_that_the_source_does_not_have_is_named_with_those_it_has(tmp_path: Path) -> None:
    source = write(tmp_path / "x.jsonl", numbered(2))
    said = r"^problems\.fields\.answer=gold: no row of x\.jsonl has it; there are question, answer$"
    with pytest.raises(InputError, match=said):
        load_splits(ProblemSettings(source=source, fields={"answer": "gold"}))


def test_a_benchmark_in_another_layout_than_the_source_is_read_by_its_own_names(tmp_path: Path) -> None:
    source = write(tmp_path / "x.jsonl", [{"frage": f"{n}?", "zahl": n} for n in range(9)])
    own = write(tmp_path / "aime.jsonl", [{"problem": "Own?", "answer": 7}])
    settings = ProblemSettings(source=source, dev=own, test=own, fields={"question": "frage", "answer": "zahl"})
    splits = load_splits(settings)
    assert (len(splits.train), pairs(splits.test)) == (9, [("Own?", "7")])
    assert pairs(load_benchmark(own, "evaluation.final", settings.reading)) == [("Own?", "7")]


# Rows without an answer


def test_rows_without_an_answer_are_skipped_and_counted_where_that_is_asked_for(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "answer": None if n % 3 == 0 else n} for n in range(10)]
    source = write(tmp_path / "x.jsonl", rows)
    own = write(tmp_path / "own.jsonl", numbered(3))
    splits = load_splits(ProblemSettings(source=source, dev=own, test=own, missing_answers="skip"))
    assert [problem.question for problem in splits.train] == ["1?", "2?", "4?", "5?", "7?", "8?"]
    assert [problem.id for problem in splits.train] == ["2", "3", "5", "6", "8", "9"], "the rows' own numbers"
    assert splits.train.left_out.counts() == {"no_answer": 4}
    assert splits.test.left_out.counts() == {}


def test_a_file_without_any_answer_is_refused_all_the_same(tmp_path: Path) -> None:
    source = write(tmp_path / "x.jsonl", [{"question": "a", "antwort": 1}])
    with pytest.raises(InputError, match=r"^x\.jsonl: no answer in any of its 1 rows; problems\.fields"):
        load_problems(source, reading=Reading(missing_answers="skip"))


# Which split is read


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("gsm8k_train.jsonl", "train"),
        ("main/test-00000-of-00001.parquet", "test"),
        ("validation.json", "dev"),
        ("data/val.csv", "dev"),
        ("test/part-0.jsonl", "test"),
        ("MATH.train.json", "train"),
        ("train/test.jsonl", "test"),
        ("train_test.jsonl", None),
        ("aime_2024_problems.parquet", None),
        ("contest.json", None),
        ("pretraining.json", None),
    ],
)
def test_a_path_names_its_split_in_the_words_of_the_wild(name: str, split: str | None) -> None:
    assert split_named(name) == split


@pytest.fixture
def split_set(tmp_path: Path) -> Path:
    """A data set as the hub keeps it: train in two parts, validation, test."""
    folder = tmp_path / "sums"
    write(folder / "data" / "train-00000-of-00002.jsonl", numbered(3, "Train"))
    write(folder / "data" / "train-00001-of-00002.jsonl", numbered(2, "More"))
    write(folder / "data" / "validation-00000-of-00001.jsonl", numbered(2, "Dev"))
    write(folder / "data" / "test-00000-of-00001.jsonl", numbered(1, "Test"))
    write(folder / ".cache" / "test.jsonl", numbered(9, "Hidden"))
    return folder


def test_the_split_that_is_asked_for_is_the_one_that_is_read(split_set: Path) -> None:
    source = str(split_set)
    splits = load_splits(ProblemSettings(source=source, dev=source, test=source))
    assert [problem.question.split()[0] for problem in splits.train] == ["Train"] * 3 + ["More"] * 2
    assert [problem.question.split()[0] for problem in splits.dev] == ["Dev"] * 2
    assert [problem.question.split()[0] for problem in splits.test] == ["Test"]
    assert [splits.train.name, splits.dev.name, splits.test.name] == ["sums-train", "sums-dev", "sums-test"]
    assert load_benchmark(source, "evaluation.final").problems == splits.test.problems
    assert splits.train.origin == "sums, train: data/train-00000-of-00002.jsonl and 1 more"
    assert splits.test.origin == "sums, test: data/test-00000-of-00001.jsonl"


@pytest.mark.parametrize(
    ("wanted", "first"),
    [("train", "Train"), ("validation", "Dev"), ("data/test", "Test"), ("data/test-00000-of-00001.jsonl", "Test")],
)
def test_another_split_or_a_file_is_read_where_it_is_asked_for(split_set: Path, wanted: str, first: str) -> None:
    assert next(iter(load_benchmark(f"{split_set}#{wanted}", "evaluation.final"))).question.startswith(first)


def test_a_benchmark_is_never_read_from_train_unless_that_is_said(tmp_path: Path, monkeypatch: Any) -> None:
    write(tmp_path / "hub" / "data" / "train-00000-of-00001.jsonl", numbered(3))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path / "hub"))
    said = (
        r"^evaluation\.final: 'someone/aime_2024' holds data/train-00000-of-00001\.jsonl and no test split, and "
        r"another one is read only when it is asked for: 'someone/aime_2024#train'$"
    )
    with pytest.raises(InputError, match=said):
        load_benchmark("someone/aime_2024", "evaluation.final")
    asked = load_benchmark("someone/aime_2024#train", "evaluation.final")
    assert (asked.name, len(asked)) == ("aime_2024", 3)
    assert asked.origin == "someone/aime_2024, train: data/train-00000-of-00001.jsonl"


def test_train_is_never_read_from_test_unless_that_is_said(tmp_path: Path) -> None:
    write(tmp_path / "math" / "test.jsonl", numbered(3))
    with pytest.raises(InputError, match=r"^problems\.source: .*holds test\.jsonl and no train split.*math#test'$"):
        load_problems(str(tmp_path / "math"))
    assert len(load_problems(f"{tmp_path / 'math'}#test")) == 3


def test_one_file_that_names_no_split_is_taken_whole_for_any(tmp_path: Path) -> None:
    write(tmp_path / "aime" / "aime_2024_problems.jsonl", numbered(3))
    for split in ("train", "dev", "test"):
        assert len(load_problems(str(tmp_path / "aime"), split=split)) == 3


@pytest.mark.parametrize(
    ("files", "wanted", "said"),
    [
        (["main/test.jsonl", "socratic/test.jsonl"], "", "holds test more than once"),
        (["test.jsonl", "test.json"], "", "holds test more than once"),
        (["gsm8k_test.jsonl", "math_test.jsonl"], "", "holds test more than once"),
        (["a.jsonl", "b.jsonl"], "", "no name says which is test; give one path"),
        (["test.jsonl"], "train", "has nothing called train; it holds test.jsonl"),
        (["main/test.jsonl"], "other/test", "has nothing called other/test"),
        ([], "", "holds no problem file"),
    ],
)
def test_what_leaves_a_choice_is_refused_and_never_guessed(
    files: list[str], wanted: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "set").mkdir()
    for name in files:
        write(tmp_path / "set" / name, numbered(1))
    with pytest.raises(InputError, match=rf"^evaluation\.final: .*{said}"):
        load_benchmark(f"{tmp_path / 'set'}{wanted and '#'}{wanted}", "evaluation.final")


def test_one_of_several_configs_is_chosen_by_its_folder(tmp_path: Path) -> None:
    for config, count in (("main", 2), ("socratic", 3)):
        write(tmp_path / "gsm8k" / config / "test-00000-of-00001.jsonl", numbered(count))
    assert len(load_benchmark(f"{tmp_path / 'gsm8k'}#socratic/test", "evaluation.final")) == 3


def test_a_file_has_no_splits_to_choose_from(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", numbered(1))
    with pytest.raises(InputError, match=r"#train chooses from a folder or a hub name; a file has none$"):
        load_problems(f"{path}#train")


def test_a_name_with_a_number_sign_of_its_own_is_a_file(tmp_path: Path) -> None:
    assert len(load_problems(write(tmp_path / "set#1.jsonl", numbered(2)))) == 2


def test_folders_mean_the_same_from_everywhere(split_set: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(split_set.parent)
    config = with_absolute_paths(load("laptop", ["problems.source=./sums", "evaluation.final=['sums#train', test]"]))
    assert config.problems.source == str(split_set)
    assert config.evaluation.final == (f"{split_set}#train", "test")


def test_a_folder_is_read_again_when_one_of_its_files_has_changed(split_set: Path) -> None:
    settings = ProblemSettings(source=str(split_set), dev=str(split_set), test=str(split_set))
    before = load_splits(settings)
    write(split_set / "data" / "test-00000-of-00001.jsonl", numbered(4))
    assert (len(before.test), len(load_splits(settings).test)) == (1, 4)
