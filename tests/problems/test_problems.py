import json
import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from siri.errors import InputError
from siri.problems import (
    Problem,
    ProblemSet,
    ProblemSettings,
    encode_prompt,
    laptop,
    load_problems,
    load_splits,
    problems_of_step,
    split_of,
)
from siri.problems.grading import read_number
from siri.problems.laptop import draw_chain
from siri.problems.overlap import find_overlaps
from siri.problems.rows import Reading, normalize_answer


def write_json(path: Path, rows: object) -> str:
    path.write_text(json.dumps(rows))
    return str(path)


def write_lines(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def numbered(count: int) -> list[dict]:
    return [{"question": f"How much is {n} + 1?", "answer": n + 1} for n in range(count)]


def contents(problems: ProblemSet) -> list[tuple[str, str, str]]:
    return [(p.id, p.question, p.answer) for p in problems]


# Files


def test_deepscalers_json_list_is_read(tmp_path):
    path = write_json(
        tmp_path / "amc.json",
        [
            {"problem": "How many?", "answer": 142.0, "url": "…", "difficulty": 2.0},
            {"problem": "Which power?", "solution": "…", "answer": r"2^{7}"},
        ],
    )
    problems = load_problems(path)
    assert contents(problems) == [("1", "How many?", "142"), ("2", "Which power?", "2^{7}")]
    assert (problems.name, len(problems)) == ("amc", 2)


def test_qwens_jsonl_is_read_with_gsm8k_answers(tmp_path):
    path = write_lines(
        tmp_path / "mixed.jsonl",
        [
            {"question": "How many eggs?", "answer": "She sells 16 - 7 = <<16-7=9>>9.\n#### 9", "idx": 0},
            {"id": 7, "problem": "How far?", "question": "How far?", "answer": 27.0},
            {"unique_id": "test/1.json", "problem": "What?", "answer": r"\frac{1}{2}", "solution": "…"},
        ],
    )
    assert contents(load_problems(path)) == [
        ("1", "How many eggs?", "9"),
        ("7", "How far?", "27"),
        ("test/1.json", "What?", r"\frac{1}{2}"),
    ]


def test_verls_parquet_is_read(tmp_path):
    path = tmp_path / "aime.parquet"
    system = {"role": "system", "content": "Be brief."}
    pd.DataFrame(
        {
            "data_source": ["x", "x"],
            "prompt": [[system, {"role": "user", "content": "One?"}], [{"role": "user", "content": "Two?"}]],
            "reward_model": [{"ground_truth": "27.0", "style": "rule"}, {"ground_truth": '["34"]', "style": "rule"}],
            "extra_info": [{"index": 0}, {"index": 1}],
        }
    ).to_parquet(path)
    assert contents(load_problems(str(path))) == [("1", "One?", "27"), ("2", "Two?", "34")]


def test_lines_in_a_json_file_are_read_too(tmp_path):
    path = write_lines(tmp_path / "lines.json", numbered(3))
    assert [p.answer for p in load_problems(path)] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        (142.0, "142"),
        ("142.0", "142"),
        (70, "70"),
        (0.5, "0.5"),
        (-3.0, "-3"),
        ([5], "5"),
        ([5.0], "5"),
        (" x + 1\n", "x + 1"),
        ("033", "033"),
        ('["7"]', "7"),
        (r'["\frac12"]', r"\frac12"),
        (r'["\\frac12"]', r"\frac12"),
        ('["1", "2"]', '["1", "2"]'),
        ("work\n#### 1,200", "1,200"),
        (None, ""),
        ("  ", ""),
        (float("nan"), ""),
        ([], ""),
        ([1, 2], ""),
        ({"a": 1}, ""),
    ],
)
def test_answers_become_plain_text(raw, answer):
    assert normalize_answer(raw) == answer


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("empty.json", "", "empty.json: no rows"),
        ("none.json", "[]", "none.json: no rows"),
        ("broken.json", '[{"question": "a", "answer": 1},\n {"question": ', "broken.json: broken JSON at line 2"),
        ("broken.jsonl", '{"question": "a", "answer": 1}\n{"question"\n', "broken.jsonl: broken JSON at line 2"),
        ("number.jsonl", '{"question": "a", "answer": 1}\n3\n', "number.jsonl: row 2 is int"),
        ("mute.jsonl", '{"question": "a", "answer": 1}\n{"answer": 1}\n', "mute.jsonl: row 2: no question"),
        ("null.json", '[{"question": "a", "answer": null}]', "null.json: row 1: no answer"),
        ("ids.jsonl", '{"id": 4, "question": "a", "answer": 1}\n' * 2, "ids.jsonl: rows 1 and 2 have the same id '4'"),
        ("fake.parquet", "not parquet", "fake.parquet: not a readable parquet file"),
    ],
)
def test_a_bad_file_is_refused_in_one_line_that_names_it(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as refused:
        load_problems(str(tmp_path / name))
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


def test_text_of_another_encoding_is_refused(tmp_path):
    (tmp_path / "latin.json").write_bytes('[{"question": "é", "answer": 1}]'.encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.json: not UTF-8"):
        load_problems(str(tmp_path / "latin.json"))


def test_all_rows_without_an_answer_are_counted_and_the_first_are_named(tmp_path):
    rows = [{"question": f"{n}?", "answer": n if n % 2 else None} for n in range(1, 21)]
    with pytest.raises(InputError, match=r"row 2, 4, 6, 8, 10, …: no answer \(10 in all\)"):
        load_problems(write_json(tmp_path / "gaps.json", rows))


@pytest.mark.parametrize("source", ["laptpo", "data/there/is/none.txt", "", "."])
def test_a_source_that_is_nothing_known_is_refused(source):
    with pytest.raises(InputError, match=r"problems\.source: .* neither 'laptop' nor 'sums' nor a file"):
        load_problems(source)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*absent\.json"):
        load_problems(str(tmp_path / "absent.json"))


def hold(monkeypatch, folder: Path) -> None:
    """A hub that has one data set, lying in a folder."""
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, repo_type, revision, allow_patterns: str(folder)
    )


def test_a_hub_name_is_read_from_its_only_file(tmp_path, monkeypatch):
    hold(monkeypatch, tmp_path)
    write_json(tmp_path / "deepscaler.json", numbered(4))
    problems = load_problems("someone/Preview-Dataset")
    assert (problems.name, len(problems)) == ("Preview-Dataset", 4)


def test_of_several_hub_files_those_for_training_are_taken(tmp_path, monkeypatch):
    hold(monkeypatch, tmp_path)
    (tmp_path / "data").mkdir()
    rows = numbered(5)
    for part, rows_of_part in enumerate([rows[:2], rows[2:4]]):
        pd.DataFrame(rows_of_part).to_parquet(tmp_path / "data" / f"train-{part}-of-2.parquet")
    pd.DataFrame(rows[4:]).to_parquet(tmp_path / "data" / "test-0-of-1.parquet")
    assert [p.answer for p in load_problems("someone/sharded")] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("names", [(), ("a.json", "b.json")])
def test_a_hub_set_that_leaves_a_choice_is_refused(tmp_path, monkeypatch, names):
    hold(monkeypatch, tmp_path)
    for name in names:
        write_json(tmp_path / name, numbered(1))
    with pytest.raises(InputError, match=r"give one path"):
        load_problems("someone/unclear")


def test_a_hub_that_cannot_be_reached_says_how_to_go_on(monkeypatch):
    def refuse(name, repo_type, revision, allow_patterns):
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(InputError, match=r"hf download someone/set --repo-type dataset .* path of the file"):
        load_problems("someone/set")


# Sets


def test_the_digest_is_of_the_content_in_its_order():
    one, two = Problem("1", "a", "b"), Problem("2", "c", "d")
    digest = ProblemSet("x", (one, two)).digest
    assert digest == ProblemSet("y", (one, two)).digest
    others = [(two, one), (one,), (one, Problem("2", "cd", "")), (one, Problem("2", "c", "e"))]
    assert len({digest, *(ProblemSet("x", other).digest for other in others)}) == 5


@given(st.text())
def test_a_question_is_in_exactly_one_split(question):
    assert split_of(question) in ("train", "dev", "test")
    assert split_of(question) == split_of(question)


def test_splits_are_eighty_ten_ten():
    splits = [split_of(f"question {n}") for n in range(20_000)]
    assert splits.count("train") / 20_000 == pytest.approx(0.8, abs=0.01)
    assert splits.count("dev") / 20_000 == pytest.approx(0.1, abs=0.01)


def questions(problems: ProblemSet) -> set[str]:
    return {p.question for p in problems}


def test_the_laptop_splits_share_no_question_and_have_the_sizes_asked_for():
    splits = load_splits(ProblemSettings(train_size=500, dev_size=60, test_size=40))
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (500, 60, 40)
    assert not questions(splits.train) & questions(splits.dev)
    assert not (questions(splits.train) | questions(splits.dev)) & questions(splits.test)


def test_the_size_of_one_split_changes_no_other():
    small, large = (load_splits(ProblemSettings(train_size=size)) for size in (10, 300))
    assert small.dev.digest == large.dev.digest
    assert small.test.digest == large.test.digest


def test_the_laptop_splits_take_few_more_draws_than_problems(monkeypatch):
    drawn = []
    monkeypatch.setattr(laptop, "draw_chain", lambda *given: drawn.append(given) or draw_chain(*given))
    settings = ProblemSettings(seed=987_654)  # of no other test, so that no cache answers
    splits = load_splits(settings)
    kept = {split: len(getattr(splits, split)) for split in ("train", "dev", "test")}
    assert len(drawn) < 2 * kept["train"] + 20 * (kept["dev"] + kept["test"])  # eight of ten questions, one, and one


def test_a_file_is_dealt_out_by_the_hash_of_its_questions(tmp_path):
    splits = load_splits(ProblemSettings(source=write_lines(tmp_path / "sums.jsonl", numbered(200))))
    assert len(splits.train) + len(splits.dev) + len(splits.test) == 200
    for name, part in (("train", splits.train), ("dev", splits.dev), ("test", splits.test)):
        assert part.name == f"sums-{name}"
        assert {split_of(p.question) for p in part} == {name}


def test_with_files_of_their_own_for_dev_and_test_train_is_the_whole_source(tmp_path):
    source = write_lines(tmp_path / "sums.jsonl", numbered(50))
    own = write_json(tmp_path / "aime.json", [{"problem": "Own?", "answer": "1"}])
    splits = load_splits(ProblemSettings(source=source, dev=own, test=own))
    assert len(splits.train) == 50
    assert contents(splits.dev) == contents(splits.test) == [("1", "Own?", "1")]


def test_only_what_has_no_file_is_held_out(tmp_path):
    source = write_lines(tmp_path / "sums.jsonl", numbered(100))
    own = write_json(tmp_path / "aime.json", [{"problem": "Own?", "answer": "1"}])
    splits = load_splits(ProblemSettings(source=source, dev=own))
    assert len(splits.train) + len(splits.test) == 100
    assert {split_of(p.question) for p in splits.train} == {"train", "dev"}


def test_the_laptop_task_may_be_measured_on_a_file(tmp_path):
    own = write_json(tmp_path / "own.json", [{"question": "A *1 +1 ; 0", "answer": "0 1"}])
    splits = load_splits(ProblemSettings(train_size=5, test=own))
    assert (len(splits.train), len(splits.test)) == (5, 1)


def test_a_source_too_small_to_deal_out_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none of the 1 problems of one falls to .*problems\.dev"):
        load_splits(ProblemSettings(source=write_json(tmp_path / "one.json", numbered(1))))


@pytest.mark.parametrize(
    "bad", [{"sauce": "laptop"}, {"train_size": 0}, {"easy": 1.5}, {"template": "jinja"}, {"grader": "best"}]
)
def test_settings_refuse_what_they_do_not_know(bad):
    with pytest.raises(ValidationError):
        ProblemSettings(**bad)


def test_every_setting_explains_itself():
    assert all(field.description for field in ProblemSettings.model_fields.values())


# Order

SOME = [Problem(str(n), f"{n}?", str(n)) for n in range(7)]


@given(st.integers(1, 12), st.integers(1, 20), st.integers(0, 5))
def test_every_problem_is_seen_once_per_epoch(size, batch_size, seed):
    problems = SOME[: min(size, 7)]
    epochs = 3
    steps = -(-epochs * len(problems) // batch_size)
    seen = [p.id for step in range(1, steps + 1) for p in problems_of_step(problems, seed, step, batch_size)]
    for epoch in range(epochs):
        part = seen[epoch * len(problems) : (epoch + 1) * len(problems)]
        assert sorted(part) == [p.id for p in problems]


@given(st.integers(1, 9), st.integers(1, 50), st.integers(0, 5))
def test_a_step_is_a_function_of_seed_and_step_alone(batch_size, step, seed):
    as_set = ProblemSet("some", tuple(SOME))
    first = problems_of_step(as_set, seed, step, batch_size)
    problems_of_step(as_set, seed + 1, 3, 2)
    assert problems_of_step(SOME, seed, step, batch_size) == first
    assert len(first) == batch_size


def test_epochs_and_seeds_differ_in_their_order():
    many = laptop.generate("train", 100, seed=0)
    orders = [tuple(p.id for p in problems_of_step(many, seed, step, 100)) for seed in (0, 1) for step in (1, 2)]
    assert len(set(orders)) == 4


def test_the_order_stays_as_it_is():
    # By value: the problems of a step are part of what a snapshot was made by.
    assert [p.id for p in problems_of_step(SOME, 0, 1, 7)] == list("4530261")


@pytest.mark.parametrize(("problems", "step", "batch_size"), [([], 1, 1), (SOME, 0, 1), (SOME, 1, 0)])
def test_there_is_no_step_zero_and_no_empty_batch(problems, step, batch_size):
    with pytest.raises(InputError, match="must be at least 1"):
        problems_of_step(problems, 0, step, batch_size)


# Prompts

PROBLEM = Problem("1", "A *1 +2 ; 3", "3 5")


def words_of(template: str, suffix: str = "") -> list[str]:
    tokens = laptop.tokenizer()
    return tokens.convert_ids_to_tokens(encode_prompt(PROBLEM, tokens, template, suffix))


def test_chat_puts_the_question_into_the_template():
    assert words_of("chat") == ["<bos>", "A", "*1", "+2", ";", "3", "<think>"]


def test_plain_encodes_the_question_alone():
    assert words_of("plain") == ["A", "*1", "+2", ";", "3"]


@pytest.mark.parametrize("suffix", ["so compute", " so compute", "\nso compute"])
def test_the_suffix_stands_apart_behind_the_question(suffix):
    assert words_of("plain", suffix) == ["A", "*1", "+2", ";", "3", "so", "compute"]
    assert words_of("chat", suffix) == ["<bos>", "A", "*1", "+2", ";", "3", "so", "compute", "<think>"]


def test_chat_needs_a_chat_template():
    tokens = laptop.tokenizer()
    tokens.chat_template = None
    assert encode_prompt(PROBLEM, tokens, "plain")
    with pytest.raises(InputError, match=r"problems\.template: 'chat' needs"):
        encode_prompt(PROBLEM, tokens, "chat")


def test_a_question_in_unknown_words_is_refused_by_its_id():
    with pytest.raises(InputError, match="cannot encode the question of q7"):
        encode_prompt(Problem("q7", "What is $x$?", "3"), laptop.tokenizer(), "chat")


# The published files, where they are at hand

PUBLISHED = {
    "deepscaler-format/aime24.json": 30,
    "deepscaler-format/aime25.json": 30,
    "deepscaler-format/amc.json": 83,
    "deepscaler-format/math500.json": 500,
    "deepscaler-format/train-aime-1983-2023.json": 975,
    "qwen-eval-format/amc23.jsonl": 40,
    "qwen-eval-format/math500.jsonl": 500,
    "qwen-eval-format/gsm8k.jsonl": 1319,
    "verl-format/aime24.parquet": 30,
    "verl-format/aime25.parquet": 30,
    "verl-format/amc23.parquet": 40,
}
needs_benchmarks = pytest.mark.skipif(
    "SIRI_BENCHMARKS" not in os.environ, reason="set SIRI_BENCHMARKS to a folder of published benchmark files"
)


@needs_benchmarks
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_benchmark_is_read_whole(name):
    problems = load_problems(str(Path(os.environ["SIRI_BENCHMARKS"]) / name))
    assert len(problems) == PUBLISHED[name]
    if "math500" not in name:
        assert all(read_number(p.answer) is not None for p in problems)


@needs_benchmarks
def test_the_published_rows_without_an_answer_are_named():
    path = Path(os.environ["SIRI_BENCHMARKS"]) / "deepscaler-format/train-math.json"
    with pytest.raises(InputError, match=r"train-math\.json: row 887, 1010, 5329, 5331: no answer"):
        load_problems(str(path))


@needs_benchmarks
def test_the_published_rows_without_an_answer_are_skipped_and_counted_on_request():
    path = Path(os.environ["SIRI_BENCHMARKS"]) / "deepscaler-format/train-math.json"
    problems = load_problems(str(path), reading=Reading(missing_answers="skip"))
    assert (len(problems), problems.left_out.counts()) == (7470, {"no_answer": 4})


@needs_benchmarks
def test_old_aime_shares_four_questions_with_math500():
    folder = Path(os.environ["SIRI_BENCHMARKS"])
    names = ("deepscaler-format/train-aime-1983-2023.json", "deepscaler-format/math500.json")
    train, test = (load_problems(str(folder / name)) for name in names)
    [found] = find_overlaps(train, {"math500": test})
    assert (len(found.exact), found.normalised) == (1, ("303", "561", "726", "787"))


@needs_benchmarks
def test_one_benchmark_in_two_layouts_has_the_same_answers():
    folder = Path(os.environ["SIRI_BENCHMARKS"])
    names = ("qwen-eval-format/amc23.jsonl", "verl-format/amc23.parquet")
    first, second = (load_problems(str(folder / name)) for name in names)
    assert [p.answer for p in first] == [p.answer for p in second]
