"""Accuracy by budget: cut samples are what sampling under the smaller budget gives, graded as their text is."""

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from dashboards.report import write_report
from siri.config import load
from siri.engines.local.pretrained import read_tokenizer
from siri.errors import InputError
from siri.evaluation import budgets
from siri.evaluation.budgets import accuracy_by_budget, cut_and_grade, even_budgets
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.evaluation.report import compare
from siri.home import Home
from siri.problems import ProblemSettings, decode_responses
from siri.problems.grading import grade_with_answers
from siri.runs import advancing, base_model, run
from siri.runs.models import record_model, served_model
from tests.cli.test_cli import run_cli
from tests.conftest import settle, tiny
from tests.engines.test_local_engine import TINY
from tests.openai_server import Served, serve

LEARNT = (
    "model.shape.width=48", "model.shape.heads=4", "model.shape.feed_forward=128", "model.warmup.steps=400",
    "model.warmup.batch_size=32", "problems.test_size=40",
)  # fmt: skip
"""A laptop model, in a few seconds, that has learnt to end its responses and is right now and then."""
PIECES = (
    "so we compute ", "wait, ", "é中文🙂 ", "</think>", "<think>", r"the answer is \boxed{7}", r"\boxed{\frac{1}{2}}",
    r" \fbox{0.5} ", r"\boxed{", "}", "7 ", "\n\n", r"\boxed 7", " and ", "box", "<eos>",
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    """Byte-level BPE: a cut may lie within a character, a mark or a box."""
    made = Tokenizer(BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(PIECES * 3, BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=False)


def written(tokenizer: PreTrainedTokenizerBase, settings: ProblemSettings, count: int) -> pd.DataFrame:
    """Samples of random pieces, graded as a sampler grades them."""
    rng = random.Random(0)
    ends = ("", "", "</think>7", "</think>1/2<eos>")
    texts = ["".join((*rng.choices(PIECES, k=rng.randint(1, 12)), rng.choice(ends))) for _ in range(count)]
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    rows = pd.DataFrame({"problem": [f"p{row // 4}" for row in range(count)], "tokens": [np.int32(row) for row in ids]})
    rows["length"] = [len(row) for row in ids]
    rows["finished"] = [rng.random() < 0.7 for _ in ids]
    rows["answer"] = [("7", "1/2")[row // 4 % 2] for row in range(count)]
    rows["opening"] = [("", "<think>")[row // 8 % 2] for row in range(count)]
    rows["text"] = decode_responses(ids, tokenizer, settings.thinking)
    seen = (rows["opening"] + rows["text"]).tolist()
    grades = grade_with_answers(seen, rows["answer"].tolist(), settings.grader, rows["finished"].tolist())
    return rows.assign(verdict=grades.verdicts, found=grades.found, correct=[v == "correct" for v in grades.verdicts])


def cut_slowly(
    rows: pd.DataFrame, budget: int, tokenizer: PreTrainedTokenizerBase, settings: ProblemSettings
) -> list[bool]:
    """Decode and grade every prefix by itself."""
    right = []
    for row in rows.itertuples():
        if row.length <= budget:
            right.append(bool(row.correct))
            continue
        text = row.opening + decode_responses([row.tokens[:budget].tolist()], tokenizer, settings.thinking)[0]
        right.append(grade_with_answers([text], [row.answer], settings.grader, [False]).verdicts == ["correct"])
    return right


@pytest.mark.parametrize("grader", ["exact", "answer", "boxed"])
def test_every_cut_is_graded_as_its_text_by_itself(
    grader: str, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "ROWS", 50)
    settings = ProblemSettings(grader=grader)  # type: ignore[arg-type]
    rows = written(tokenizer, settings, 160)
    most = int(rows["length"].max())
    changed = 0
    for budget, part in cut_and_grade(rows, range(1, most + 1), tokenizer, settings):
        assert part["correct"].tolist() == cut_slowly(rows, budget, tokenizer, settings), budget
        assert part["length"].tolist() == [min(length, budget) for length in rows["length"]]
        assert part["finished"].tolist() == (rows["finished"] & (rows["length"] <= budget)).tolist()
        changed += part["correct"].tolist() != rows["correct"].tolist()
    assert changed
    assert rows["correct"].any()


def test_equal_answers_are_compared_once(tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ProblemSettings(grader="boxed")
    rows = written(tokenizer, settings, 160)
    asked: list[tuple[str, str]] = []
    grader = budgets.GRADERS["boxed"]
    monkeypatch.setitem(
        budgets.GRADERS, "boxed",
        type(grader)(grader.find, lambda *pair: (asked.append(pair), grader.compare(*pair))[1], grader.marks),
    )  # fmt: skip
    list(cut_and_grade(rows, range(1, 40), tokenizer, settings))
    assert asked
    assert len(asked) == len(set(asked))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> run.Run:
    """A laptop run whose warm-up has taught it to end its responses."""
    home = Home(tmp_path_factory.mktemp("trained"))
    config = load("laptop", [*TINY, *LEARNT])
    list(base_model.make_base(config, home))
    opened = run.create_run(config, home)
    list(advancing.advance(opened, 4))
    return opened


def measured(opened: run.Run, budget: int, temperature: float, seed: int = 0) -> Evaluation:
    settings = opened.config.evaluation.model_copy(
        update={"budget": budget, "temperature": temperature, "seed": seed, "samples": 4}
    )
    evaluation = Evaluation(opened.evaluated_under(settings), "base", "test")
    list(measure(evaluation))
    return evaluation


def test_a_greedy_policy_under_a_smaller_budget_writes_what_was_cut(trained: run.Run) -> None:
    found = accuracy_by_budget(measured(trained, 96, 0.0), [24, 48, 72, 96])
    for at in found:
        report = measured(trained, at.budget, 0.0).report()
        assert (at.accuracy, at.length, at.truncated) == (report.accuracy, report.length, report.truncated)
    assert found[0].truncated > found[-1].truncated > 0


def test_sampling_under_a_smaller_budget_lies_within_the_interval(trained: run.Run) -> None:
    rows, settings = measured(trained, 96, 0.8).samples(), trained.config.problems
    base = trained.snapshot("base")
    assert base is not None
    tokenizer = read_tokenizer(base.folder)
    for budget, cut in cut_and_grade(rows, [24, 48, 72], tokenizer, settings):
        sampled = measured(trained, budget, 0.8, seed=1).samples()
        assert cut["problem"].tolist() == sampled["problem"].tolist()
        for column in ("correct", "length", "finished"):
            difference = compare(cut, sampled, column)
            assert difference.low <= 0 <= difference.high
        assert 0 < cut["finished"].mean() < 1 or budget == 24


def test_budgets_are_even_and_end_at_the_one_that_was_sampled() -> None:
    assert even_budgets(16384)[:2] == [1024, 2048]
    assert even_budgets(16384)[-1] == 16384
    assert even_budgets(3) == [1, 2, 3]


@pytest.mark.parametrize("budget", [0, 97])
def test_more_than_was_sampled_is_refused(budget: int, trained: run.Run) -> None:
    with pytest.raises(InputError, match=rf"budget={budget}: must lie between 1 and 96, which was sampled"):
        accuracy_by_budget(measured(trained, 96, 0.0), [budget])


def test_samples_without_token_ids_are_refused(trained: run.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = measured(trained, 96, 0.0)
    rows = evaluation.samples().assign(tokens=None)
    monkeypatch.setattr(Evaluation, "samples", lambda self, columns=None: rows)
    with pytest.raises(InputError, match="its sampler told no token ids, and text is never tokenised again"):
        accuracy_by_budget(evaluation)


def test_an_engine_without_a_model_has_nothing_to_cut(tmp_path: Path) -> None:
    opened = settle(tiny("schedule.cycles=1"), Home(tmp_path))
    evaluation = Evaluation(opened, "base", "dev")
    list(measure(evaluation))
    with pytest.raises(InputError, match=r"engine.name=scripted writes no tokens that can be cut"):
        accuracy_by_budget(evaluation)


@pytest.fixture
def served(tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluation:
    """Eight samples of a model behind vLLM, right after 2 to 30 words of thought, with their token ids."""

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        text = "wait, " * (2 + body["seed"] % 29) + r"the answer is \boxed{7}"
        ids = tokenizer.encode(text, add_special_tokens=False)
        return {"message": {"content": text}, "token_ids": ids}

    problems = tmp_path / "sums.jsonl"
    problems.write_text("".join(json.dumps({"question": f"3 + {n}", "answer": "7"}) + "\n" for n in (4, 5)))
    with serve(Served(owner="vllm", reply=reply)) as server:
        monkeypatch.setenv("SIRI_SERVER_URL", server.address)
        settings = ["problems.grader=boxed", "evaluation.samples=4", "evaluation.budget=900"]
        opened = record_model(served_model("tiny", "", [str(problems)], settings), Home(tmp_path / "home"))
        evaluation = Evaluation(opened, "base", str(problems))
        list(measure(evaluation))
    return evaluation


def test_a_served_model_s_ids_are_cut_with_the_tokenizer_that_made_its_texts(
    served: Evaluation, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    lengths = served.samples(["length"])["length"]
    middle = int(lengths.median())
    found = accuracy_by_budget(served, [middle, 900], tmp_path / "tokenizer")
    assert [at.accuracy.mean for at in found] == [(lengths <= middle).mean(), 1.0]
    assert 0 < found[0].accuracy.mean < 1


def test_a_served_model_s_tokenizer_is_asked_for_and_another_one_refused(
    served: Evaluation, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"the server keeps the model's tokenizer; `--tokenizer FOLDER` names"):
        accuracy_by_budget(served)
    with pytest.raises(InputError, match=r"tokenizer=nowhere: must be a folder"):
        accuracy_by_budget(served, tokenizer=Path("nowhere"))
    other = Tokenizer(BPE())
    other.pre_tokenizer, other.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    other.train_from_iterator(["quick brown foxes jump over lazy dogs"] * 3, trainer)
    PreTrainedTokenizerFast(tokenizer_object=other).save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match=r"is not the one that wrote these responses: 8 of 8 read otherwise"):
        accuracy_by_budget(served, tokenizer=tmp_path / "other")


def test_several_snapshots_are_one_table_and_one_picture(
    trained: run.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["evaluation.budget=96", "evaluation.temperature=0", "evaluation.samples=4"]
    opened = trained.evaluated_under(measured(trained, 96, 0.0).run.config.evaluation)
    list(measure(Evaluation(opened, "c1-low", "test")))
    names = [f"{trained.id}:{name}" for name in ("base", "c1-low")]
    words = [*names, *settings, "--at", "48,96", "--home", str(trained.home.root)]
    assert run_cli("budgets", *words, "--json", "--picture", str(tmp_path / "a.svg")) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["snapshot"], row["budget"]) for row in rows] == [(name, at) for name in names for at in (48, 96)]
    assert rows[1]["accuracy"] == measured(trained, 96, 0.0).report().accuracy.mean
    drawn = (tmp_path / "a.svg").read_text()
    assert all(name in drawn for name in names)
    assert run_cli("budgets", *words, "--picture", str(tmp_path / "b.svg")) == 0
    assert (tmp_path / "b.svg").read_text() == drawn
    assert run_cli("budgets", *words, "--picture", str(tmp_path / "a.gif")) == 2
    assert "a.gif: must end in .png or .svg" in capsys.readouterr().err
    assert run_cli("budgets", *words, "--picture", str(tmp_path / "no" / "a.svg")) == 2
    assert "cannot be written: No such file or directory" in capsys.readouterr().err
    assert run_cli("budgets", names[0], *words) == 2
    assert "name one snapshot or several, each once" in capsys.readouterr().err


def test_the_report_draws_what_the_cut_samples_reach(trained: run.Run, tmp_path: Path) -> None:
    opened = measured(trained, 96, 0.8).run
    list(measure(Evaluation(opened, "c1-low", "test")))
    page = write_report(opened, [], tmp_path / "report.html").read_text()
    found = re.search(r'data-figure="figure-by-budget">(.*?)</script>', page)
    assert found is not None
    drawn = {trace["name"]: trace for trace in json.loads(found[1])["data"] if "name" in trace}
    assert [*drawn] == ["base", "c1-low"]
    for name, trace in drawn.items():
        points = accuracy_by_budget(Evaluation(opened, name, "test"), even_budgets(96, 8))
        assert (trace["x"], trace["y"]) == ([at.budget for at in points], [100 * at.accuracy.mean for at in points])
    assert any(drawn["base"]["y"])
